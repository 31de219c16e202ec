// What the client knows of others: applies frames, and says where everyone is at a moment a little in the past.
//
// Positions are kept in quanta of 1/64 m, as they travel: deltas are exact. A frame is applied in the order that the protocol
// names (full, leaves, enters, motion, looks). Motion that can not be read throws: the caller closes the socket and resumes.
// Regions count their ticks for themselves: all that is drawn goes by `server_ms`, which does not go back from one to the next.

const QUANTA_PER_M = 64;
const BEHIND_MS = 100;
const OFFSETS_MS = 2000;
const GAP_MS = 250;
const HISTORY_MS = 1500;
// No honest server sends more; beyond it the alias would not be a byte.
const RECORD_BYTES = [4, 5, 8, 10];

export const metres = (quanta) => quanta / QUANTA_PER_M;

// The server's time, as far as it can be told from the frames that were delayed least.
export class Clock {
  constructor() {
    this.samples = [];
    this.rate = 100;
  }

  hear(serverMs, now, rate) {
    this.rate = rate || 100;
    this.samples.push({ at: now, offset: serverMs - now });
    while (this.samples[0].at < now - OFFSETS_MS) this.samples.shift();
  }

  // The moment at which others are drawn.
  drawn(now) {
    if (this.samples.length === 0) return 0;
    const offset = Math.max(...this.samples.map((sample) => sample.offset));
    return now + offset - (BEHIND_MS * 100) / this.rate;
  }
}

export class World {
  constructor(onEvent = () => {}) {
    this.byAlias = new Map();
    this.clock = new Clock();
    this.onEvent = onEvent;
    this.region = undefined;
    this.tick = 0;
    this.serverMs = 0;
    this.frames = 0;
    this.skipped = 0;
  }

  // Takes a frame that arrived at `now`, on the client's clock.
  apply(frame, now) {
    const before = this.serverMs;
    // The first frame of another region says nothing about how many were left out.
    if (this.region === frame.region && !frame.full && frame.tick > this.tick + 1) this.skipped += frame.tick - this.tick - 1;
    this.region = frame.region;
    this.tick = frame.tick;
    this.serverMs = Math.max(this.serverMs, frame.server_ms);
    this.frames++;
    this.clock.hear(frame.server_ms, now, frame.time_rate);
    // Nobody who moves now did so before the frame before this one: that is where the way from there begins.
    const from = this.serverMs - before > GAP_MS ? this.serverMs - 50 : before;

    if (frame.full) this.byAlias.clear();
    for (const alias of frame.leaves) this.byAlias.delete(alias);
    for (const enter of frame.enters) {
      this.byAlias.set(enter.alias, {
        entity: enter.entity,
        kind: enter.kind,
        name: enter.name,
        look: enter.look,
        x: enter.x,
        y: enter.y,
        z: enter.z,
        yaw: enter.yaw & 255,
        enteredAt: now,
        history: [{ t: this.serverMs, x: enter.x, z: enter.z, yaw: enter.yaw & 255 }],
      });
    }
    motions(frame.motion, (alias, update) => {
      const entity = this.byAlias.get(alias);
      if (entity === undefined) return;
      const last = entity.history[entity.history.length - 1];
      if (last.t < from) entity.history.push({ ...last, t: from });
      update(entity);
      entity.history.push({ t: this.serverMs, x: entity.x, z: entity.z, yaw: entity.yaw });
      while (entity.history.length > 2 && entity.history[1].t < this.serverMs - HISTORY_MS) entity.history.shift();
    });
    for (const look of frame.looks) {
      const entity = this.byAlias.get(look.alias);
      if (entity !== undefined) entity.look = look.look;
    }
    for (const event of frame.area_events) this.onEvent(event);
  }

  // Everyone in view at the moment that is drawn at `now`, with positions in metres.
  at(now) {
    const t = this.clock.drawn(now);
    const out = [];
    for (const [alias, entity] of this.byAlias) out.push({ alias, entity, ...between(entity.history, t) });
    return out;
  }
}

// Where an entity was at time `t`: on the line between two known positions, or at the nearest one.
function between(history, t) {
  let i = history.length - 1;
  while (i > 0 && history[i].t > t) i--;
  const a = history[i];
  const b = history[i + 1];
  if (b === undefined || t <= a.t) return { x: metres(a.x), z: metres(a.z), yaw: a.yaw };
  const share = (t - a.t) / (b.t - a.t);
  const turn = ((b.yaw - a.yaw + 384) % 256) - 128;
  return {
    x: metres(a.x + (b.x - a.x) * share),
    z: metres(a.z + (b.z - a.z) * share),
    yaw: (a.yaw + turn * share + 256) % 256,
  };
}

// Reads `Frame.motion`. Gives each record as an alias and a function that changes an entity `{ x, y, z, yaw }` in quanta.
export function motions(bytes, each) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const i24 = (at) => view.getUint8(at) | (view.getUint8(at + 1) << 8) | (view.getInt8(at + 2) << 16);
  let pos = 0;
  while (pos < bytes.length) {
    const kind = bytes[pos];
    const size = RECORD_BYTES[kind];
    const end = pos + 2 + size * bytes[pos + 1];
    if (size === undefined || !(end <= bytes.length)) throw new Error(`motion run of kind ${kind} at byte ${pos} can not be read`);
    for (pos += 2; pos < end; pos += size) {
      const at = pos;
      each(bytes[at], (entity) => {
        switch (kind) {
          case 0:
            entity.x += view.getInt8(at + 1);
            entity.z += view.getInt8(at + 2);
            break;
          case 1:
            entity.x += view.getInt8(at + 1);
            entity.y += view.getInt8(at + 2);
            entity.z += view.getInt8(at + 3);
            break;
          case 2:
            entity.x = i24(at + 1);
            entity.z = i24(at + 4);
            break;
          default:
            entity.x = i24(at + 1);
            entity.y = view.getInt16(at + 4, true);
            entity.z = i24(at + 6);
        }
        entity.yaw = bytes[at + size - 1];
      });
    }
  }
}
