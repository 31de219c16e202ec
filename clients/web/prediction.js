// Shows the own character's movement at once and corrects it by the server's word.
//
// `position` is the server's last position advanced by every input that it has not used up. `shown` is that plus an error that
// fades, so that a correction glides instead of jumping; after a discontinuity (a teleport) nothing glides.

const GLIDE_MS = 100;
// A correction larger than this is shown at once: gliding over it would show the character where it never was.
const GLIDE_MAX_M = 3;

export class Prediction {
  constructor(ground, speed) {
    this.ground = ground;
    this.speed = speed;
    this.pending = [];
    this.position = undefined;
    this.server = undefined;
    this.error = [0, 0];
    this.corrections = 0;
  }

  advance(at, direction, ms) {
    let [x, z] = direction;
    const length = Math.hypot(x, z);
    if (!Number.isFinite(length)) return at;
    if (length > 1) {
      x /= length;
      z /= length;
    }
    const way = (this.speed * ms) / 1000;
    return this.ground.walk(at, [x * way, z * way]);
  }

  // An input of the player that was just numbered.
  move(seq, direction, ms) {
    this.pending.push({ seq, direction, ms });
    if (this.position) this.position = this.advance(this.position, direction, ms);
  }

  // The server's word: `Frame.self`.
  reconcile(self) {
    const jumped = this.server === undefined || this.server.discontinuity !== self.discontinuity;
    const before = this.position;
    this.server = self;
    this.pending = this.pending.filter((input) => input.seq >= self.move_seq);
    let at = [self.x, self.z];
    for (const input of this.pending) {
      at = this.advance(at, input.direction, input.seq === self.move_seq ? Math.min(self.move_left_ms, input.ms) : input.ms);
    }
    this.position = at;
    if (jumped || before === undefined) {
      this.error = [0, 0];
      return;
    }
    const error = [this.error[0] + before[0] - at[0], this.error[1] + before[1] - at[1]];
    const size = Math.hypot(error[0], error[1]);
    if (Math.hypot(before[0] - at[0], before[1] - at[1]) > 0.05) this.corrections++;
    this.error = size > GLIDE_MAX_M ? [0, 0] : error;
  }

  // The session starts anew: inputs below `nextSeq` are gone, and the server's next word is taken as it is.
  restart(nextSeq) {
    this.pending = this.pending.filter((input) => input.seq >= nextSeq);
    this.server = undefined;
  }

  // Where to draw the character `ms` after the last input, while it walks in `direction`.
  shown(direction, ms) {
    if (!this.position) return undefined;
    const at = direction[0] === 0 && direction[1] === 0 ? this.position : this.advance(this.position, direction, ms);
    return [at[0] + this.error[0], at[1] + this.error[1]];
  }

  // Lets the error fade by the time between two pictures.
  fade(ms) {
    const left = Math.exp((-3 * ms) / GLIDE_MS);
    this.error = [this.error[0] * left, this.error[1] * left];
  }
}
