// One player's session: connects, signs in, numbers and keeps inputs, resumes after a lost socket (proto/README.md).
//
// What always holds: input numbers have no gaps; an input is kept until a frame says that it is applied; a reply is handed on
// once; the attach number grows with every attempt to resume. Nothing here draws or knows the game.

import { client, Code } from './codec.js';

const PROTOCOL_VERSION = 1;
const SUBPROTOCOL = 'marchland.v1';
const UNACKED_MAX = 120; // of the 128 that are allowed: room for actions while movement waits
const INPUTS_PER_MESSAGE_MAX = 64;
const MESSAGE_BYTES = 2500; // of the 4,096 that are allowed
const PING_EVERY_MS = 2000;
const QUIET_MS = 500; // after so long without a word, the edge is asked whether it is there, this often
const SILENCE_MS = 2500; // without a frame or a pong for so long the socket is taken for lost
const JOIN_MS = 12000;
const RESUME_MS = 3000; // an edge that stands still takes connections and says nothing
const REPLY_ACK_MS = 500;
const BACKOFF_MS = [0, 250, 500, 1000, 2000, 4000, 5000];
const SIGN_IN_AGAIN = new Set([Code.BadResume]);
const TRY_AGAIN = new Set([
  Code.TooMany, Code.Full, Code.GoingAway, Code.IdleTimeout, Code.SequenceGap, Code.Unavailable, Code.NotAdmitted, Code.Internal,
]);

// States: idle, connecting, joining, playing, waiting (to connect again), stopped.
export class Session {
  // `signIn()` gives a promise of `{ urls, token, characterName }`, and is asked again when the session can not be resumed.
  // `on` may have `state(state, detail)`, `welcome(welcome)`, `frame(frame)`, `reply(reply)`, `refused(refused)`.
  constructor({ signIn, clientName = '', on = {}, environment = {} }) {
    this.signIn = signIn;
    this.clientName = clientName;
    this.on = on;
    this.open = environment.open ?? ((url) => new WebSocket(url, SUBPROTOCOL));
    this.now = environment.now ?? (() => performance.now());
    this.random = environment.random ?? Math.random;
    this.later = environment.later ?? ((ms, run) => setTimeout(run, ms));
    this.cancel = environment.cancel ?? ((timer) => clearTimeout(timer));
    this.state = 'idle';
    this.socket = undefined;
    this.urls = [];
    this.edge = 0;
    this.otherEdge = undefined;
    this.credentials = undefined;
    this.nextSeq = 1;
    this.appliedSeq = 0;
    this.unacked = [];
    this.lastReplySeq = 0;
    this.ackedReplySeq = 0;
    this.attempts = 0;
    this.resumes = 0;
    this.rttMs = undefined;
    this.ackMs = undefined;
    this.timers = new Set();
  }

  async start() {
    this.become('connecting');
    try {
      await this.connect();
    } catch (error) {
      this.retry(`cannot sign in: ${error.message}`);
    }
  }

  // Ends the session: the character leaves the world.
  goodbye() {
    if (this.state === 'playing') this.sendMessage({ goodbye: {} });
    this.stop('you left the world');
  }

  // Numbers an input and sends it: `{ move: { x, z, yaw }, duration_ms }` or `{ action: { code, body } }`. Gives its number, or
  // `undefined` while no input can be taken (not connected, or too many unacknowledged).
  input(what) {
    if (this.state !== 'playing' || this.unacked.length >= UNACKED_MAX) return undefined;
    const input = { seq: this.nextSeq++, duration_ms: 0, ...what };
    this.unacked.push({ input, sentAt: this.now() });
    this.sendCommands([input]);
    return input.seq;
  }

  // ---- from here on: the machine itself ----

  become(state, detail, code) {
    this.state = state;
    this.on.state?.(state, detail, code);
  }

  async connect() {
    let how;
    if (this.credentials) {
      this.credentials.attachNumber++;
      const { characterId, sessionEpoch, resumeSecret, attachNumber } = this.credentials;
      how = {
        resume: {
          character_id: characterId,
          session_epoch: sessionEpoch,
          resume_secret: resumeSecret,
          attach_number: attachNumber,
          last_reply_seq: this.lastReplySeq,
        },
      };
    } else {
      const { urls, token, characterName } = await this.signIn();
      if (this.state === 'stopped') return;
      this.urls = urls;
      how = { sign_in: { token, character_name: characterName } };
    }
    // Edges are alike: one that does not answer is left for the next.
    const url = this.otherEdge ?? this.urls[this.edge % this.urls.length];
    this.otherEdge = undefined;
    const socket = this.open(url);
    socket.binaryType = 'arraybuffer';
    this.socket = socket;
    this.refusal = undefined;
    socket.onopen = () => {
      if (socket !== this.socket) return;
      this.become('joining');
      this.heardAt = this.now();
      this.sendMessage({ hello: { protocol_version: PROTOCOL_VERSION, client_name: this.clientName, ...how } });
    };
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      try {
        this.take(client.ServerMessage.decode(new Uint8Array(event.data)));
      } catch (error) {
        this.lose(socket, `the server sent what can not be read: ${error.message}`);
      }
    };
    socket.onclose = () => this.lose(socket, 'the connection was lost');
    socket.onerror = () => {};
    this.timer(how.resume ? RESUME_MS : JOIN_MS, () => {
      if (socket === this.socket && this.state !== 'playing') this.leave(socket, 'the server did not answer');
    });
  }

  take(message) {
    this.heardAt = this.now();
    switch (message.body) {
      case 'welcome':
        this.welcome(message.welcome);
        break;
      case 'frame':
        if (this.state === 'playing') this.frame(message.frame);
        break;
      case 'pong':
        this.rttMs = this.now() - message.pong.client_ms;
        break;
      case 'refused':
        this.refused(message.refused);
        break;
      default: // a later server's message: nothing that this client asked for
    }
  }

  welcome(welcome) {
    const resumed = welcome.resume_secret.length === 0;
    if (!resumed) {
      this.lastReplySeq = 0;
      this.ackedReplySeq = 0;
      this.unacked = [];
    }
    this.credentials = {
      characterId: welcome.character_id,
      sessionEpoch: welcome.session_epoch,
      resumeSecret: resumed ? this.credentials.resumeSecret : welcome.resume_secret,
      attachNumber: Math.max(welcome.attach_number, resumed ? this.credentials.attachNumber : 0),
    };
    if (resumed) this.resumes++;
    this.attempts = 0;
    this.unacked = this.unacked.filter(({ input }) => input.seq >= welcome.next_seq);
    this.nextSeq = this.unacked.length > 0 ? this.unacked[this.unacked.length - 1].input.seq + 1 : welcome.next_seq;
    this.appliedSeq = welcome.next_seq - 1;
    this.become('playing');
    this.on.welcome?.(welcome, resumed);
    this.sendAgain();
    this.ping(this.socket);
  }

  frame(frame) {
    this.appliedSeq = Math.max(this.appliedSeq, frame.applied_seq);
    while (this.unacked.length > 0 && this.unacked[0].input.seq <= this.appliedSeq) {
      this.ackMs = this.now() - this.unacked.shift().sentAt;
    }
    this.on.frame?.(frame);
    for (const reply of frame.replies) {
      if (reply.reply_seq <= this.lastReplySeq) continue;
      this.lastReplySeq = reply.reply_seq;
      this.on.reply?.(reply);
    }
    if (this.lastReplySeq > this.ackedReplySeq && this.ackTimer === undefined) {
      this.ackTimer = this.timer(REPLY_ACK_MS, () => {
        this.ackTimer = undefined;
        if (this.state === 'playing' && this.lastReplySeq > this.ackedReplySeq) this.sendCommands([]);
      });
    }
  }

  refused(refused) {
    this.refusal = refused;
    this.on.refused?.(refused);
    if (SIGN_IN_AGAIN.has(refused.code)) this.credentials = undefined;
    if (refused.other_edge) this.otherEdge = refused.other_edge;
    if (SIGN_IN_AGAIN.has(refused.code) || TRY_AGAIN.has(refused.code)) this.lose(this.socket, refused.reason);
    else this.stop(refused.reason, refused.code);
  }

  lose(socket, why) {
    if (socket !== this.socket) return;
    this.socket = undefined;
    socket.onclose = null;
    socket.close();
    this.rttMs = undefined;
    if (this.state !== 'stopped') this.retry(why);
  }

  // Its edge says nothing: another may be better off.
  leave(socket, why) {
    if (this.attempts === 0) this.edge++;
    this.lose(socket, why);
  }

  retry(why) {
    const backoff = BACKOFF_MS[Math.min(this.attempts, BACKOFF_MS.length - 1)] * (0.5 + this.random() / 2);
    const ms = Math.max(backoff, this.refusal?.retry_after_ms ?? 0);
    this.refusal = undefined;
    if (this.attempts > 0) this.edge++;
    this.attempts++;
    this.become('waiting', why);
    this.timer(ms, async () => {
      if (this.state !== 'waiting') return;
      await this.start();
    });
  }

  stop(why, code) {
    const socket = this.socket;
    this.socket = undefined;
    for (const timer of this.timers) this.cancel(timer);
    this.timers.clear();
    this.ackTimer = undefined;
    this.become('stopped', why, code);
    if (socket) {
      socket.onclose = null;
      socket.close();
    }
  }

  ping(socket) {
    if (socket !== this.socket || this.state !== 'playing') return;
    const [now, silent] = [this.now(), this.now() - this.heardAt];
    if (silent > SILENCE_MS) {
      this.leave(socket, 'the server is silent');
      return;
    }
    if (socket.pingedAt === undefined || silent >= QUIET_MS || now - socket.pingedAt >= PING_EVERY_MS) {
      socket.pingedAt = now;
      this.sendMessage({ ping: { client_ms: Math.floor(now) } });
    }
    this.timer(QUIET_MS, () => this.ping(socket));
  }

  sendAgain() {
    let part = [];
    let bytes = 0;
    for (const { input } of this.unacked) {
      const size = 32 + (input.action?.body?.length ?? 0);
      if (part.length === INPUTS_PER_MESSAGE_MAX || bytes + size > MESSAGE_BYTES) {
        this.sendCommands(part);
        part = [];
        bytes = 0;
      }
      part.push(input);
      bytes += size;
    }
    if (part.length > 0) this.sendCommands(part);
  }

  sendCommands(inputs) {
    this.ackedReplySeq = this.lastReplySeq;
    this.sendMessage({ commands: { inputs, acked_reply_seq: this.ackedReplySeq } });
  }

  sendMessage(message) {
    if (this.socket?.readyState === 1) this.socket.send(client.ClientMessage.encode(message));
  }

  timer(ms, run) {
    const timer = this.later(ms, () => {
      this.timers.delete(timer);
      run();
    });
    this.timers.add(timer);
    return timer;
  }
}
