// `node --test`: what the picture is made of, on a canvas that only writes down what it is asked for.

import assert from 'node:assert/strict';
import test from 'node:test';
import { Drawing, KIND } from '../draw.js';

// A context that keeps the fill styles that something was filled with, in order.
function canvas() {
  const fills = [];
  const context = new Proxy({}, {
    get: (own, name) => {
      if (name === 'fill' || name === 'fillRect') return () => fills.push(own.fillStyle);
      return name in own ? own[name] : () => ({ width: 10 });
    },
  });
  return { width: 800, height: 600, clientWidth: 800, clientHeight: 600, getContext: () => context, fills };
}

globalThis.window = { devicePixelRatio: 1 };
globalThis.document = { createElement: canvas };

function fills(others) {
  const element = canvas();
  const drawing = new Drawing(element);
  drawing.show({ open: true, widthM: 40, depthM: 40 });
  drawing.draw({ centre: [20, 20], others, says: new Map(), now: 1000 });
  return element.fills;
}

const one = (kind, fields = {}) => ({ x: 20, z: 20, yaw: 0, entity: 7, name: '', kind, variant: 1, left: 3, enteredAt: 0, ...fields });

test('an animal is drawn as one, with its own coat', () => {
  const coats = [0, 1, 2, 3, undefined].map((variant) => fills([one(KIND.animal, { variant })]).join());
  assert.equal(new Set(coats).size, 3, 'three coats, whatever the number');
  assert.ok(!coats.includes(fills([one(KIND.character)]).join()), 'no character');
});

test('animals are drawn below characters and above what lies on the ground', () => {
  const [animal, character, item] = [KIND.animal, KIND.character, KIND.item].map((kind) => fills([one(kind)]).slice(1).join());
  // Whoever stands farther south is drawn later, but for what it is.
  const all = fills([one(KIND.character, { z: 19 }), one(KIND.item, { z: 21 }), one(KIND.animal)]).join();
  assert.ok(all.endsWith(`${item},${animal},${character}`), all);
});
