// `node --test`: frames as the protocol's page describes them, and where others are drawn.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { client } from '../codec.js';
import { World, motions } from '../world.js';

const hex = (text) => new Uint8Array(Buffer.from(text.replace(/\s/g, ''), 'hex'));
const frameOf = (fields) => client.Frame.decode(client.Frame.encode({ region: 1, server_ms: 1000 + 50 * fields.tick, ...fields }));
const enter = (alias, fields = {}) => ({ alias, entity: 100 + alias, kind: 1, name: `n${alias}`, ...fields });
const apply = (world, fields) => world.apply(frameOf(fields), 50 * fields.tick);

test('the worked example of proto/README.md', () => {
  const readme = readFileSync(new URL('../../../proto/README.md', import.meta.url), 'utf8');
  const example = hex(readme.split('```hex\n')[1].split('```')[0]);
  const world = new World();
  const at = { x: 1000, y: 7, z: 1000, yaw: 1 };
  apply(world, { tick: 1, full: true, enters: [1, 2, 5, 7].map((alias) => enter(alias, at)) });
  apply(world, { tick: 2, motion: example });
  const seen = (alias) => {
    const { x, y, z, yaw } = world.byAlias.get(alias);
    return [x, y, z, yaw];
  };
  assert.deepEqual(seen(1), [1016, 7, 997, 64]);
  assert.deepEqual(seen(5), [999, 7, 1000, 128]);
  assert.deepEqual(seen(7), [6400, 7, -3200, 0]);
  assert.deepEqual(seen(2), [-1, 128, 64, 192]);
});

test('height moves with kind 1 alone', () => {
  const world = new World();
  apply(world, { tick: 1, full: true, enters: [enter(3, { x: 10, y: 20, z: 30 })] });
  apply(world, { tick: 2, motion: hex('0101 03 01 fe 03 09') });
  const { x, y, z, yaw } = world.byAlias.get(3);
  assert.deepEqual([x, y, z, yaw], [11, 18, 33, 9]);
});

test('leaves come before enters, full before both, unknown aliases are skipped', () => {
  const world = new World();
  apply(world, { tick: 1, full: true, enters: [enter(1), enter(2)] });
  apply(world, { tick: 2, leaves: hex('01'), enters: [enter(1, { entity: 900 })], motion: hex('0001 63 010100'), looks: [{ alias: 98 }] });
  assert.equal(world.byAlias.get(1).entity, 900);
  assert.equal(world.byAlias.size, 2);
  apply(world, { tick: 3, full: true, enters: [enter(4)] });
  assert.deepEqual([...world.byAlias.keys()], [4]);
});

test('motion that can not be read throws', () => {
  for (const bytes of ['00', '0001', '0001 010203', '0401 0000', '0302 00000000000000000000']) {
    assert.throws(() => motions(hex(bytes), () => {}), bytes);
  }
  motions(hex('0000'), () => assert.fail('a run of none has no record'));
});

test('others are drawn between two known positions, a little in the past', () => {
  const world = new World();
  apply(world, { tick: 1, full: true, enters: [enter(1, { x: 0 })] });
  // Stands for a second, then walks: the way begins where it stood, not a second earlier.
  for (let tick = 2; tick <= 20; tick++) apply(world, { tick });
  apply(world, { tick: 21, motion: hex('0001 01 10 00 00') });
  apply(world, { tick: 22, motion: hex('0001 01 10 00 00') });
  const drawn = (tick) => world.at(50 * tick + 100)[0].x * 64;
  assert.equal(drawn(20), 0);
  assert.equal(drawn(20.5), 8);
  assert.equal(drawn(21), 16);
  assert.equal(drawn(21.5), 24);
  assert.equal(drawn(30), 32, 'past the newest frame it stands');
});

test('after a long gap the way is walked at its end', () => {
  const world = new World();
  apply(world, { tick: 1, full: true, enters: [enter(1, { x: 0 })] });
  apply(world, { tick: 41, motion: hex('0201 01 400000 000000 00') });
  const drawn = (tick) => world.at(50 * tick + 100)[0].x * 64;
  assert.equal(drawn(39), 0);
  assert.equal(drawn(40.5), 32);
  assert.equal(world.skipped, 39);
});

test('yaw turns the short way', () => {
  const world = new World();
  apply(world, { tick: 1, full: true, enters: [enter(1, { yaw: 250 })] });
  apply(world, { tick: 2, motion: hex('0001 01 00 00 06') });
  assert.equal(world.at(50 * 1.5 + 100)[0].yaw, 0);
});

test('another region goes on where the one before left off, whatever its ticks', () => {
  const world = new World();
  const frame = (region, tick, ms, fields = {}) => world.apply(frameOf({ region, tick, server_ms: ms, ...fields }), ms);
  frame(1, 9000, 1000, { full: true, enters: [enter(1, { x: 0 })] });
  frame(1, 9001, 1050, { motion: hex('0001 01 10 00 00') });
  // Its clock is a little behind: the edge sends the same time again.
  frame(2, 17, 1050, { motion: hex('0201 01 200000 000000 00') });
  frame(2, 18, 1100, { motion: hex('0001 01 10 00 00') });
  assert.deepEqual([world.region, world.tick, world.skipped, world.frames], [2, 18, 0, 4]);
  const drawn = (ms) => world.at(ms + 100)[0].x * 64;
  assert.equal(world.byAlias.get(1).x, 48);
  assert.equal(drawn(1025), 8);
  assert.equal(drawn(1050), 32);
  assert.equal(drawn(1075), 40);
  assert.equal(drawn(1100), 48);
  frame(2, 21, 1250);
  assert.equal(world.skipped, 2);
});
