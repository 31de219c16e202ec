// `node --test`: walking as the server's rule says, and predictions that agree with a server that is slow to answer.

import assert from 'node:assert/strict';
import test from 'node:test';
import { OpenGround, TileGround, groundFrom } from '../ground.js';
import { Prediction } from '../prediction.js';

const draw = (rows) =>
  new TileGround({ width: rows[0].length, height: rows.length, tile_m: 2, solid: rows.flatMap((row) => [...row].map((tile) => (tile === '#' ? 1 : 0))) });
const small = () => draw(['........', '..#.....', '....##..', '........', '.#......', '........', '......#.', '........']);

// Numbers that look random and are the same in every run.
function seeded(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

test('walls stop and are slid along, as on the server', () => {
  const ground = draw(['....', '..#.', '....']);
  const [x, z] = ground.walk([3, 3], [5, 0.25]);
  assert.ok(x > 3.69 && x < 3.7 && z === 3.25);
  assert.ok(ground.walk([3, 3], [4, 0])[0] < 3.7, 'no tunnelling');
  assert.ok(ground.walk([7, 3], [-4, 0])[0] > 6.3);
  assert.ok(ground.walk([7, 5], [100, 100]).every((value) => value < 8), 'the edge is a wall');
  assert.deepEqual(new OpenGround(10).walk([5, 5], [100, -100]), [9.7, 0.3]);
});

test('copies of a map that lie side by side are open to each other', () => {
  const rows = ['####', '#..#', '#.##', '####'];
  const solid = rows.flatMap((row) => [...row].map((tile) => (tile === '#' ? 1 : 0)));
  const ground = groundFrom({ width: 4, height: 4, tile_m: 2, solid, columns: 2, rows: 3 });
  assert.deepEqual([ground.widthM, ground.depthM], [16, 24]);
  const drawn = Array.from({ length: 12 }, (_, z) => Array.from({ length: 8 }, (_, x) => (ground.isSolid(x, z) ? '#' : '.')).join(''));
  // As the server's own test says.
  const joined = ['#......#', '#......#'];
  assert.deepEqual(drawn, ['########', '#......#', '#.#...##', ...joined, '#......#', '#.#...##', ...joined, '#......#', '#.#...##', '########']);
  assert.deepEqual(ground.walk([5, 3], [6, 0]), [11, 3]);
  assert.ok(ground.walk([13, 3], [9, 0])[0] < 13.7, 'the wall around all of it');
  assert.equal(ground.kind(3, 1), 'ground');
});

test('nobody comes to stand in a wall', () => {
  const ground = small();
  const random = seeded(5);
  let at = [1, 1];
  for (let i = 0; i < 5000; i++) {
    at = ground.walk(at, [random() * 4 - 2, random() * 4 - 2]);
    for (const [dx, dz] of [[-0.3, -0.3], [0.3, -0.3], [-0.3, 0.3], [0.3, 0.3]]) {
      assert.ok(!ground.isSolid(Math.floor((at[0] + dx) / 2), Math.floor((at[1] + dz) / 2)), `step ${i}: ${at}`);
    }
  }
});

test('maps that are none are refused', () => {
  assert.throws(() => groundFrom({ width: 2, height: 2, tile_m: 2, solid: [0] }));
  assert.throws(() => groundFrom({ open: true }));
  assert.equal(groundFrom({ open: true, side_m: 50 }).widthM, 50);
});

// A server that takes inputs late, uses them up by 50 ms a tick, and answers late.
test('with a slow server, the prediction is right at every moment', () => {
  const random = seeded(11);
  const ground = small();
  const prediction = new Prediction(ground, 5);
  let server = { at: [5, 9], queue: [], moveSeq: 0, left: 0 };
  const up = [];
  const down = [];
  prediction.reconcile({ x: 5, z: 9, move_seq: 0, move_left_ms: 0, discontinuity: 1 });
  let seq = 0;
  let direction = [1, 0];
  let apart = 0;
  for (let tick = 0; tick < 600; tick++) {
    if (random() < 0.1) direction = [Math.fround(random() * 2 - 1), Math.fround(random() * 2 - 1)];
    const ms = 30 + Math.floor(random() * 40);
    seq++;
    prediction.move(seq, direction, ms);
    up.push({ at: tick + 2, seq, direction, left: ms });
    while (up.length > 0 && up[0].at <= tick) server.queue.push(up.shift());
    let budget = 55;
    while (server.queue.length > 0 && budget > 0) {
      const move = server.queue[0];
      const used = Math.min(budget, move.left);
      server.at = new Prediction(ground, 5).advance(server.at, move.direction, used);
      move.left -= used;
      budget -= used;
      server = { ...server, moveSeq: move.seq, left: move.left };
      if (move.left === 0) server.queue.shift();
    }
    down.push({ at: tick + 2, x: server.at[0], z: server.at[1], move_seq: server.moveSeq, move_left_ms: server.left, discontinuity: 1 });
    while (down.length > 0 && down[0].at <= tick) {
      const before = prediction.position;
      prediction.reconcile(down.shift());
      apart = Math.max(apart, Math.hypot(before[0] - prediction.position[0], before[1] - prediction.position[1]));
    }
  }
  assert.ok(seq > 500 && prediction.server.move_seq > 500);
  // At corners the order of slides may differ by a step that was cut in two; elsewhere not at all.
  assert.ok(apart < 0.3, `${apart} m corrected`);
  assert.ok(prediction.corrections < 10, `${prediction.corrections} corrections`);
});

test('a correction glides, a jump does not, and a large one is shown at once', () => {
  const prediction = new Prediction(new OpenGround(100), 5);
  const says = (x, discontinuity) => prediction.reconcile({ x, z: 50, move_seq: 0, move_left_ms: 0, discontinuity });
  says(50, 1);
  says(51, 1);
  assert.equal(prediction.shown([0, 0], 0)[0], 50, 'still where it was shown');
  prediction.fade(50);
  const half = prediction.shown([0, 0], 0)[0];
  assert.ok(half > 50.5 && half < 51);
  prediction.fade(500);
  assert.ok(Math.abs(prediction.shown([0, 0], 0)[0] - 51) < 0.001);
  says(52, 2);
  assert.equal(prediction.shown([0, 0], 0)[0], 52);
  says(62, 2);
  assert.equal(prediction.shown([0, 0], 0)[0], 62);
});

test('the move that is half used counts for its rest alone', () => {
  const prediction = new Prediction(new OpenGround(100), 5);
  prediction.reconcile({ x: 50, z: 50, move_seq: 0, move_left_ms: 0, discontinuity: 1 });
  for (const seq of [1, 2, 3]) prediction.move(seq, [1, 0], 100);
  assert.ok(Math.abs(prediction.position[0] - 51.5) < 1e-9);
  prediction.reconcile({ x: 50.7, z: 50, move_seq: 2, move_left_ms: 60, discontinuity: 1 });
  assert.ok(Math.abs(prediction.position[0] - 51.5) < 1e-9, String(prediction.position));
  assert.equal(prediction.pending.length, 2);
});
