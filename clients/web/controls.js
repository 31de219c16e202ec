// What the player wants: a direction to walk in, and actions. Keys, pointer and touch alike.
//
// Keys act only while the player is not typing; a lost focus lets go of all of them.

const WALK = {
  KeyW: [0, -1], ArrowUp: [0, -1], KeyS: [0, 1], ArrowDown: [0, 1], KeyA: [-1, 0], ArrowLeft: [-1, 0], KeyD: [1, 0], ArrowRight: [1, 0],
};
const ACTIONS = { Space: 'gather', KeyG: 'gather', KeyE: 'pickUp', Enter: 'talk', Equal: 'nearer', Minus: 'farther' };
const ARRIVED_M = 0.12;
const STUCK_MS = 600;

export class Controls {
  // `toWorld(x, y)` gives metres for a point of the window; `act(name)` performs an action.
  constructor(canvas, { toWorld, act }) {
    this.down = new Set();
    this.target = undefined;
    this.pointer = undefined;
    this.enabled = false;
    this.act = act;
    this.toWorld = toWorld;
    window.addEventListener('keydown', (event) => this.keyDown(event));
    window.addEventListener('keyup', (event) => this.down.delete(event.code));
    window.addEventListener('blur', () => this.release());
    canvas.addEventListener('pointerdown', (event) => {
      if (!this.enabled || event.button !== 0) return;
      canvas.focus();
      canvas.setPointerCapture(event.pointerId);
      this.pointer = [event.clientX, event.clientY];
      this.goTo(this.pointer);
      event.preventDefault();
    });
    canvas.addEventListener('pointermove', (event) => {
      if (this.pointer) this.pointer = [event.clientX, event.clientY];
    });
    for (const end of ['pointerup', 'pointercancel']) {
      canvas.addEventListener(end, () => {
        this.pointer = undefined;
      });
    }
    canvas.addEventListener('wheel', (event) => {
      if (!this.enabled) return;
      act(event.deltaY < 0 ? 'nearer' : 'farther');
      event.preventDefault();
    }, { passive: false });
  }

  release() {
    this.down.clear();
    this.pointer = undefined;
  }

  keyDown(event) {
    const typing = event.target instanceof HTMLInputElement;
    if (!this.enabled || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.code in WALK) {
      this.down.add(event.code);
      this.target = undefined;
      event.preventDefault();
      return;
    }
    const onButton = event.target instanceof HTMLButtonElement || event.target.tagName === 'SUMMARY';
    if (event.code in ACTIONS && !(onButton && (event.code === 'Space' || event.code === 'Enter'))) {
      if (!event.repeat || ACTIONS[event.code] === 'gather') this.act(ACTIONS[event.code]);
      event.preventDefault();
    }
  }

  goTo([x, y]) {
    this.target = { at: this.toWorld(x, y), nearest: Infinity, since: undefined };
  }

  // Direction of length 0 to 1 for someone at `at`, and how many of the next `ms` milliseconds to walk in it.
  direction(at, ms, speed, now) {
    let x = 0;
    let z = 0;
    for (const key of this.down) {
      x += WALK[key][0];
      z += WALK[key][1];
    }
    x = Math.sign(x);
    z = Math.sign(z);
    if (x !== 0 || z !== 0) {
      const length = Math.hypot(x, z);
      return { x: x / length, z: z / length, ms };
    }
    // A pointer that stays down leads the way.
    if (this.pointer) this.goTo(this.pointer);
    if (!this.target || !at) return { x: 0, z: 0, ms };
    const way = [this.target.at[0] - at[0], this.target.at[1] - at[1]];
    const left = Math.hypot(...way);
    if (left < this.target.nearest - 0.02) {
      this.target.nearest = left;
      this.target.since = now;
    }
    if (left < ARRIVED_M || now - this.target.since > STUCK_MS) {
      this.target = undefined;
      return { x: 0, z: 0, ms };
    }
    return { x: way[0] / left, z: way[1] / left, ms: Math.min(ms, Math.max(1, Math.round((left / speed) * 1000))) };
  }
}
