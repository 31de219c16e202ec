// Plays in a real browser: `MARCHLAND_PLAY_URL=http://127.0.0.1:7201/play node clients/web/test/play.test.mjs`.
//
// Walks with real key presses and checks by the server's word that the character moved, that others are seen and move, that an
// action is answered and that a lost socket is resumed. Without the variable it plays in the mock world.
//
// Needs playwright-core (`NODE_PATH` or `MARCHLAND_PLAYWRIGHT` may name its folder) and Chromium (`MARCHLAND_CHROMIUM` may name it).
// Without them it prints `skipped` and why. `MARCHLAND_PLAY_PICTURE` names the file for the picture.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startMock } from './mock.mjs';

function skip(why) {
  console.log(`skipped: ${why}`);
  process.exit(0);
}

function playwright() {
  const require = createRequire(import.meta.url);
  const places = [process.env.MARCHLAND_PLAYWRIGHT, 'playwright-core', ...(process.env.NODE_PATH ?? '').split(':').map((path) => join(path, 'playwright-core'))];
  for (const place of places.filter(Boolean)) {
    try {
      return require(place);
    } catch {
      // The next one.
    }
  }
  return skip('playwright-core is not installed');
}

const { chromium } = playwright();
const executablePath = [process.env.MARCHLAND_CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(
  (path) => path && existsSync(path),
);
if (!executablePath) skip('Chromium is not installed');

const mock = process.env.MARCHLAND_PLAY_URL ? undefined : await startMock({ delayMs: 15 });
const address = new URL(process.env.MARCHLAND_PLAY_URL ?? mock.url);
const picture = process.env.MARCHLAND_PLAY_PICTURE ?? join(tmpdir(), 'marchland-play.png');
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
const problems = [];
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, colorScheme: process.env.MARCHLAND_PLAY_SCHEME ?? 'light' });
  page.on('pageerror', (error) => problems.push(String(error.stack ?? error)));
  page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
  const see = (what) => page.evaluate(`window.marchland.${what}`);
  // Asked from outside: the pages' content policy forbids what the library's own waiting does inside.
  const until = async (condition, timeout = 10_000) => {
    for (const end = Date.now() + timeout; !(await page.evaluate(condition)); await page.waitForTimeout(50)) {
      assert.ok(Date.now() < end, `not within ${timeout} ms: ${condition}`);
    }
  };

  await page.goto(address.href);
  await page.fill('#name', `Walker${process.pid}`);
  await page.keyboard.press('Enter');
  await until('window.marchland.connected && window.marchland.self !== undefined');
  await until('window.marchland.frames > 10');

  // Walk: each direction for a moment, until the server's word says that the character is elsewhere.
  let walked = 0;
  for (const key of ['d', 's', 'ArrowLeft', 'w', 'd', 's']) {
    const before = (await see('self')).server;
    await page.keyboard.down(key);
    await page.waitForTimeout(900);
    await page.keyboard.up(key);
    await page.waitForTimeout(300);
    const after = (await see('self')).server;
    const way = Math.hypot(after.x - before.x, after.z - before.z);
    assert.ok(way < 0.9 * 5 + 2, `${key}: ${way} m in 0.9 s is faster than the rules`);
    walked += way;
  }
  assert.ok(walked > 5, `walked ${walked} m by the server's word`);
  const rest = await see('self');
  assert.ok(Math.hypot(rest.x - rest.server.x, rest.z - rest.server.z) < 0.02, `at rest, shown ${JSON.stringify(rest)}`);

  // Others are there, and move.
  await until('window.marchland.others > 0', 15_000);
  const first = await see('characters');
  await page.waitForTimeout(1500);
  const second = new Map((await see('characters')).map((one) => [String(one.entity), one]));
  const moved = first.filter((one) => second.has(String(one.entity)) && second.get(String(one.entity)).x !== one.x);
  assert.ok(first.length > 0 && moved.length > 0, `${first.length} characters in view, ${moved.length} of them moved`);

  // An action is answered: the inventory, asked for at the start; and gathering, wherever we stand.
  const sent = (await see('session')).next_seq;
  await page.keyboard.press('g');
  await until(`window.marchland.session.applied_seq >= ${sent}`);

  // Say something, and hear it.
  await page.keyboard.press('Enter');
  await page.keyboard.type('hello from a browser');
  await page.keyboard.press('Enter');
  await until("document.getElementById('log').textContent.includes('hello from a browser')");

  // Click to walk.
  const before = (await see('self')).server;
  await page.mouse.click(760, 330);
  await page.waitForTimeout(1200);
  const after = (await see('self')).server;
  const clicked = Math.hypot(after.x - before.x, after.z - before.z);

  // Go to the nearest ore that can be reached, gather, and find it in the bag; then drop it.
  let gathered = false;
  for (let attempt = 0; attempt < 24 && !gathered; attempt++) {
    const { x, z } = (await see('self')).server;
    const ores = (await see('entities')).filter((one) => one.kind === 2).map((one) => [Math.hypot(one.x - x, one.z - z), one.x - x, one.z - z]);
    const [far, dx, dz] = ores.sort((a, b) => a[0] - b[0])[attempt < 12 ? 0 : Math.min(1, ores.length - 1)] ?? [];
    if (far === undefined) break;
    if (far < 1.8) {
      await page.keyboard.press('Space');
      await page.waitForTimeout(1500);
      gathered = (await see('inventory')).length > 0;
    } else {
      const scale = (800 / 34) * Math.min(1, 11 / far);
      await page.mouse.click(640 + dx * scale, 400 + dz * scale);
      await page.waitForTimeout(Math.min(2500, (far / 5) * 1000 + 300));
    }
  }
  await page.screenshot({ path: picture });
  if (gathered) {
    const items = (await see('inventory')).length;
    await page.click('#items button');
    await until(`window.marchland.inventory.length < ${items}`);
    await page.keyboard.press('e');
    await until(`window.marchland.inventory.length === ${items}`);
  }

  // A lost socket is resumed: same character, numbers go on.
  const numbers = await see('session');
  const frames = await see('frames');
  await page.evaluate('window.marchland.drop()');
  await until(`window.marchland.session.resumes > ${numbers.resumes} && window.marchland.frames > ${frames} + 5`);
  const resumed = await see('session');
  assert.ok(resumed.next_seq >= numbers.next_seq, `numbers go on: ${numbers.next_seq}, then ${resumed.next_seq}`);
  assert.ok(await see('connected'));

  const figures = await see('session');
  const tick = [await see('tick'), Date.now()];
  await page.waitForTimeout(2000);
  const rate = ((await see('tick')) - tick[0]) / ((Date.now() - tick[1]) / 1000);
  assert.deepEqual(problems, [], 'the page reported no errors');
  console.log(JSON.stringify({
    passed: true, walked_m: walked, clicked_m: clicked, gathered, others: await see('others'), moved: moved.length, rtt_ms: figures.rtt_ms, ack_ms: figures.ack_ms,
    corrections: figures.corrections, skipped: figures.skipped, ticks_per_s: rate, picture,
  }));
} catch (error) {
  console.error(error);
  for (const problem of problems) console.error(`in the page: ${problem}`);
  process.exitCode = 1;
} finally {
  await browser.close();
  mock?.stop();
}
