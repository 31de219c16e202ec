// A world in one node process, to develop and test the page without a cluster: `node clients/web/test/mock.mjs [port]`.
//
// It serves the page and speaks the client protocol as proto/README.md says, with the demo world's rules on a small map and some
// walkers. It is not durable, has one region, and shows everyone within 50 m. Two things are for tests: a POST to `/mock/drop` cuts
// every socket, and `MOCK_DELAY_MS` delays each message both ways.

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';
import { Code, client, frontier } from '../codec.js';
import { TileGround } from '../ground.js';
import { accept } from './websocket.mjs';

const TICK_MS = 50;
const SPEED = 5;
const VIEW_M = 50;
const VISIBLE_MAX = 64;
const LINGER_MS = 15_000;
const CREDIT_MAX_MS = 250;
const QUEUE_MAX = 32;
const BACKLOG_KEPT_MS = 100;
const REACH_M = 2;
const KIND = { character: 1, ore: 2, item: 3 };
const FILES = ['play.js', 'codec.js', 'controls.js', 'draw.js', 'ground.js', 'hud.js', 'prediction.js', 'session.js', 'world.js', 'style.css'];
const because = (why) => [Code.Refused, new TextEncoder().encode(why)];
const quanta = (metres) => Math.round(metres * 64);

function makeMap() {
  const [width, height, tileM] = [48, 48, 2];
  const names = ['grass', 'path', 'water', 'rock', 'wall', 'floor', 'forest'];
  const kinds = new Array(width * height).fill(0);
  const set = (x, z, kind) => {
    if (x >= 0 && z >= 0 && x < width && z < height) kinds[z * width + x] = names.indexOf(kind);
  };
  for (let z = 0; z < height; z++) {
    for (let x = 0; x < width; x++) {
      if (Math.hypot((x - 34) / 1.4, z - 13) < 5.2 + Math.sin(x * 1.3) * 0.6) set(x, z, 'water');
      if (Math.hypot(x - 10, z - 36) < 6 && (x * 7 + z * 13) % 5 !== 0) set(x, z, 'forest');
      if (x === 0 || z === 0 || x === width - 1 || z === height - 1) set(x, z, 'rock');
    }
  }
  for (let i = 1; i < 47; i++) {
    set(i, 24 + Math.round(Math.sin(i / 6)), 'path');
    set(20, i, 'path');
  }
  for (const [x, z, w, h] of [[12, 15, 6, 5], [24, 27, 7, 5], [13, 27, 5, 5]]) {
    for (let i = 0; i < w; i++) {
      for (let j = 0; j < h; j++) set(x + i, z + j, i === 0 || j === 0 || i === w - 1 || j === h - 1 ? 'wall' : 'floor');
    }
    set(x + (w >> 1), z + h - 1, 'floor');
  }
  for (const [x, z] of [[40, 30], [41, 30], [41, 31], [30, 38], [31, 38], [5, 8], [6, 8], [6, 9]]) set(x, z, 'rock');
  const solid = kinds.map((kind) => (['water', 'rock', 'wall'].includes(names[kind]) ? 1 : 0));
  return { width, height, tile_m: tileM, solid, kinds, kind_names: names };
}

export class MockWorld {
  constructor({ bots = 24, delayMs = 0 } = {}) {
    this.map = makeMap();
    this.ground = new TileGround(this.map);
    this.delayMs = delayMs;
    this.tick = 0;
    this.serverMs = Date.now();
    this.nextId = 1;
    this.entities = new Map();
    this.sessions = new Map();
    this.connections = new Set();
    this.events = [];
    this.epochs = new Map();
    for (let i = 0; i < bots; i++) this.bot(i);
    for (let i = 0; i < 14; i++) {
      this.add({ kind: KIND.ore, name: '', at: this.freePlace(), look: { variant: i % 4, left: 5 } });
    }
  }

  freePlace(near) {
    for (;;) {
      const at = near
        ? [near[0] + (Math.random() - 0.5) * 12, near[1] + (Math.random() - 0.5) * 12]
        : [4 + Math.random() * (this.ground.widthM - 8), 4 + Math.random() * (this.ground.depthM - 8)];
      const tile = [Math.floor(at[0] / 2), Math.floor(at[1] / 2)];
      let free = true;
      for (let dx = -1; dx <= 1; dx++) for (let dz = -1; dz <= 1; dz++) free &&= !this.ground.isSolid(tile[0] + dx, tile[1] + dz);
      if (free) return at;
    }
  }

  add(entity) {
    const id = this.nextId++;
    const full = { id, yaw: 0, look: {}, items: [], ...entity };
    this.entities.set(id, full);
    return full;
  }

  bot(i) {
    const names = ['Ada', 'Bo', 'Cleo', 'Dag', 'Edda', 'Finn', 'Gro', 'Hal', 'Ida', 'Jon', 'Kaja', 'Leif'];
    const bot = this.add({ kind: KIND.character, name: `${names[i % 12]}-${i}`, at: this.freePlace(i < 12 ? [40, 44] : undefined) });
    bot.heading = Math.random() * 6.28;
    bot.turnAt = 0;
  }

  // ---- one tick ----

  step() {
    this.tick++;
    this.serverMs = Math.max(this.serverMs + 1, Date.now());
    for (const entity of this.entities.values()) entity.before = [quanta(entity.at[0]), quanta(entity.at[1]), entity.yaw];
    for (const bot of this.entities.values()) {
      if (bot.heading === undefined) continue;
      if (this.tick > bot.turnAt) {
        bot.heading = Math.random() * 2 * Math.PI;
        bot.turnAt = this.tick + 20 + Math.random() * 60;
        bot.stands = Math.random() < 0.3;
        if (Math.random() < 0.06) this.say(bot, ['hello', 'nice weather', 'any silver here?'][this.tick % 3]);
      }
      if (bot.stands) continue;
      const way = (SPEED * TICK_MS) / 1000;
      bot.at = this.ground.walk(bot.at, [Math.cos(bot.heading) * way, Math.sin(bot.heading) * way]);
      bot.yaw = Math.round((bot.heading / (2 * Math.PI)) * 256) & 255;
    }
    for (const session of this.sessions.values()) this.stepSession(session);
    for (const connection of this.connections) if (connection.session) this.sendFrame(connection);
    this.events = [];
  }

  stepSession(session) {
    if (session.awaySince !== undefined && Date.now() - session.awaySince > LINGER_MS) {
      this.leave(session);
      return;
    }
    session.credit = Math.min(CREDIT_MAX_MS, session.credit + TICK_MS);
    const waiting = session.queue.reduce((sum, move) => sum + move.left, 0);
    let budget = Math.min(session.credit, Math.max(TICK_MS, waiting - BACKLOG_KEPT_MS));
    const { entity } = session;
    const from = entity.at;
    while (session.queue.length > 0 && budget > 0) {
      const move = session.queue[0];
      const ms = Math.min(budget, move.left);
      const way = (SPEED * ms) / 1000;
      entity.at = this.ground.walk(entity.at, [move.x * way, move.z * way]).map(Math.fround);
      entity.yaw = move.yaw;
      session.credit -= ms;
      budget -= ms;
      move.left -= ms;
      session.moveSeq = move.seq;
      session.moveLeft = move.left;
      if (move.left === 0) session.queue.shift();
    }
    session.velocity = [(entity.at[0] - from[0]) / 0.05, (entity.at[1] - from[1]) / 0.05];
  }

  take(session, input) {
    session.appliedSeq = input.seq;
    if (input.move && session.queue.length >= QUEUE_MAX) this.reply(session, input.seq, Code.TooMany);
    else if (input.move) {
      let { x, z } = input.move;
      if (!Number.isFinite(x) || !Number.isFinite(z)) x = z = 0;
      const length = Math.max(1, Math.hypot(x, z));
      session.queue.push({ seq: input.seq, x: x / length, z: z / length, yaw: input.move.yaw & 255, left: Math.min(input.duration_ms, 250) });
    }
    if (input.action) {
      const [code, body] = this.act(session, input.action);
      this.reply(session, input.seq, code, body);
    }
  }

  act(session, { code, body }) {
    const { entity } = session;
    const nearest = (kind, test) =>
      [...this.entities.values()]
        .filter((other) => other.kind === kind && test(other))
        .map((other) => [Math.hypot(other.at[0] - entity.at[0], other.at[1] - entity.at[1]), other])
        .filter(([far]) => far <= REACH_M)
        .sort((a, b) => a[0] - b[0])[0]?.[1];
    switch (code) {
      case 1: {
        const ore = nearest(KIND.ore, (other) => other.look.left > 0);
        if (!ore) return because('there is no ore within reach');
        ore.look = { ...ore.look, left: ore.look.left - 1 };
        ore.looked = this.tick;
        const item = { id: this.nextId++, kind: ore.look.variant };
        entity.items.push(item);
        return [Code.Ok, frontier.Gathered.encode({ item: item.id, kind: item.kind })];
      }
      case 2: {
        const { item: id } = frontier.Drop.decode(body);
        const at = entity.items.findIndex((item) => item.id === id);
        if (at < 0) return because('you do not have it');
        const [item] = entity.items.splice(at, 1);
        this.add({ kind: KIND.item, name: '', at: [...entity.at], look: { variant: item.kind }, item });
        return [Code.Ok];
      }
      case 3: {
        const lying = nearest(KIND.item, () => true);
        if (!lying) return because('there is nothing within reach');
        this.entities.delete(lying.id);
        entity.items.push(lying.item);
        return [Code.Ok, frontier.Gathered.encode({ item: lying.item.id, kind: lying.item.kind })];
      }
      case 4:
        this.say(entity, frontier.Say.decode(body).text);
        return [Code.Ok];
      case 5:
        return [Code.Ok, frontier.Items.encode({ items: entity.items })];
      default:
        return [Code.UnknownAction];
    }
  }

  say(entity, text) {
    this.events.push({
      kind: 4, x: quanta(entity.at[0]), z: quanta(entity.at[1]), body: frontier.Said.encode({ name: entity.name, text }),
    });
  }

  reply(session, commandSeq, code, body = new Uint8Array(0)) {
    session.replies.push({ reply_seq: ++session.replySeq, command_seq: commandSeq, code, body });
  }

  leave(session) {
    this.entities.delete(session.entity.id);
    this.sessions.delete(session.entity.id);
  }

  // ---- frames ----

  sendFrame(connection) {
    const { session, aliases } = connection;
    const { entity } = session;
    const frame = {
      region: 1, tick: this.tick, server_ms: this.serverMs, time_rate: 100, applied_seq: session.appliedSeq,
      full: !connection.started, enters: [], leaves: [], looks: [], area_events: this.events,
      replies: session.replies.filter((reply) => reply.reply_seq > connection.repliesSent),
    };
    connection.repliesSent = session.replySeq;
    const self = JSON.stringify([entity.at, entity.yaw, session.moveSeq, session.moveLeft, session.velocity]);
    if (self !== connection.self || frame.full) {
      connection.self = self;
      frame.self = {
        x: entity.at[0], z: entity.at[1], vx: session.velocity[0], vz: session.velocity[1], yaw: entity.yaw,
        move_seq: session.moveSeq, move_left_ms: session.moveLeft, discontinuity: session.epoch,
      };
    }
    connection.started = true;
    const inView = [...this.entities.values()]
      .filter((other) => other !== entity && Math.hypot(other.at[0] - entity.at[0], other.at[1] - entity.at[1]) < VIEW_M)
      .slice(0, VISIBLE_MAX);
    const wanted = new Set(inView.map((other) => other.id));
    const leaves = [];
    for (const [id, alias] of aliases) if (!wanted.has(id)) leaves.push([id, alias]);
    for (const [id] of leaves) aliases.delete(id);
    frame.leaves = Uint8Array.from(leaves, ([, alias]) => alias);
    const used = new Set(aliases.values());
    const runs = [[], [], [], []];
    for (const other of inView) {
      const [x, z] = other.at.map(quanta);
      const alias = aliases.get(other.id);
      if (alias === undefined) {
        let free = 0;
        while (used.has(free)) free++;
        used.add(free);
        aliases.set(other.id, free);
        frame.enters.push({ alias: free, entity: other.id, kind: other.kind, name: other.name, look: frontier.Look.encode(other.look), x, z, yaw: other.yaw });
        continue;
      }
      if (other.looked === this.tick) frame.looks.push({ alias, look: frontier.Look.encode(other.look) });
      const [bx, bz, byaw] = other.before;
      if (bx === x && bz === z && byaw === other.yaw) continue;
      const fits = Math.abs(x - bx) < 128 && Math.abs(z - bz) < 128;
      // Now and then absolute, so that both kinds are seen.
      if (fits && (this.tick + alias) % 16 !== 0) runs[0].push([alias, (x - bx) & 255, (z - bz) & 255, other.yaw]);
      else runs[2].push([alias, x & 255, (x >> 8) & 255, (x >> 16) & 255, z & 255, (z >> 8) & 255, (z >> 16) & 255, other.yaw]);
    }
    frame.motion = Uint8Array.from(runs.flatMap((run, kind) => (run.length > 0 ? [kind, run.length, ...run.flat()] : [])));
    connection.send({ frame });
  }

  // ---- connections ----

  connect(socket) {
    const connection = {
      state: 'fresh', aliases: new Map(), started: false, repliesSent: 0, session: undefined,
      send: (message) => this.later(() => socket.send(client.ServerMessage.encode(message))),
      refuse: (code, reason) => {
        connection.send({ refused: { code, reason } });
        this.later(() => socket.close(4000 + code));
        connection.end();
      },
      end: () => {
        connection.state = 'closing';
        this.connections.delete(connection);
        if (connection.session?.connection === connection) {
          connection.session.connection = undefined;
          connection.session.awaySince = Date.now();
        }
        connection.session = undefined;
      },
      drop: () => socket.drop(),
    };
    this.connections.add(connection);
    socket.onmessage = (bytes) => this.later(() => this.hear(connection, bytes));
    socket.onclose = () => connection.end();
  }

  later(run) {
    if (this.delayMs === 0) run();
    else setTimeout(run, this.delayMs);
  }

  hear(connection, bytes) {
    if (connection.state === 'closing') return;
    let message;
    try {
      message = client.ClientMessage.decode(bytes);
    } catch (error) {
      connection.refuse(Code.Malformed, error.message);
      return;
    }
    const { body } = message;
    if (body === undefined) connection.refuse(Code.Malformed, 'an empty message');
    else if (connection.state === 'fresh' ? body !== 'hello' : body === 'hello') connection.refuse(Code.WrongState, `${body} in ${connection.state}`);
    else if (body === 'hello') this.hello(connection, message.hello);
    else if (body === 'ping') connection.send({ pong: { client_ms: message.ping.client_ms, server_ms: Date.now() } });
    else if (body === 'commands') this.commands(connection, message.commands);
    else {
      this.leave(connection.session);
      connection.refuse(Code.Goodbye, 'goodbye');
    }
  }

  hello(connection, hello) {
    if (hello.protocol_version !== 1) {
      connection.refuse(Code.Version, `protocol version ${hello.protocol_version}, 1 expected`);
      return;
    }
    let session;
    let secret = new Uint8Array(0);
    if (hello.how === 'sign_in') {
      const name = hello.sign_in.character_name;
      if (hello.sign_in.token !== 'mock') return void connection.refuse(Code.BadToken, 'no such token');
      if (!/^\S(.{0,30}\S)?$/u.test(name)) return void connection.refuse(Code.BadName, 'a name of 1 to 32 bytes without blanks at its ends');
      secret = new Uint8Array(randomBytes(32));
      const old = [...this.sessions.values()].find((other) => other.entity.name === name);
      const entity = old?.entity ?? this.add({ kind: KIND.character, name, at: this.freePlace([40, 44]) });
      old?.connection?.refuse(Code.Superseded, 'signed in elsewhere');
      const epoch = (this.epochs.get(entity.id) ?? 0) + 1;
      this.epochs.set(entity.id, epoch);
      session = {
        entity, epoch, secret, attach: 1, appliedSeq: 0, moveSeq: 0, moveLeft: 0, queue: [], credit: 0, velocity: [0, 0], replies: [], replySeq: 0,
      };
      this.sessions.set(entity.id, session);
    } else if (hello.how === 'resume') {
      const { character_id: id, session_epoch: epoch, resume_secret: given, attach_number: attach, last_reply_seq: acked } = hello.resume;
      session = this.sessions.get(id);
      if (!session || session.epoch !== epoch || Buffer.compare(session.secret, given) !== 0) {
        return void connection.refuse(Code.BadResume, 'no such session');
      }
      if (attach <= session.attach) return void connection.refuse(Code.Superseded, `attach ${attach}, ${session.attach} is in force`);
      session.attach = attach;
      session.connection?.refuse(Code.Superseded, 'resumed elsewhere');
      session.replies = session.replies.filter((reply) => reply.reply_seq > acked);
      connection.repliesSent = acked;
    } else return void connection.refuse(Code.Malformed, 'Hello without sign_in and resume');
    session.connection = connection;
    session.awaySince = undefined;
    connection.session = session;
    connection.state = 'playing';
    connection.send({
      welcome: {
        protocol_version: 1, rules_version: 1, content_hash: 0xfeed_beef_dead_f00dn, character_id: session.entity.id, session_epoch: session.epoch,
        resume_secret: secret, next_seq: session.appliedSeq + 1, self_entity: session.entity.id, tick_ms: TICK_MS, region: 1,
        world: 'mock', max_speed: SPEED, attach_number: session.attach,
      },
    });
  }

  commands(connection, commands) {
    const { session } = connection;
    session.replies = session.replies.filter((reply) => reply.reply_seq > commands.acked_reply_seq);
    if (commands.inputs.length > 64) return void connection.refuse(Code.TooLarge, 'more than 64 inputs');
    for (const input of commands.inputs) {
      if (input.seq <= session.appliedSeq) continue;
      if (input.seq > session.appliedSeq + 1) {
        return void connection.refuse(Code.SequenceGap, `input ${input.seq}, ${session.appliedSeq + 1} expected`);
      }
      this.take(session, input);
    }
    return undefined;
  }
}

// Starts the mock; gives its address and a function that stops it.
export async function startMock({ port = 0, bots, delayMs } = {}) {
  const world = new MockWorld({ bots, delayMs });
  const file = (name) => readFileSync(new URL(`../${name}`, import.meta.url));
  const types = { html: 'text/html', js: 'text/javascript', css: 'text/css' };
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://mock');
    const answer = (type, body) => {
      response.writeHead(200, { 'content-type': `${type}; charset=utf-8`, 'cache-control': 'no-store' });
      response.end(body);
    };
    const name = pathname.replace('/play/', '');
    if (pathname === '/play' || pathname === '/play/') answer(types.html, file('play.html'));
    else if (FILES.includes(name)) answer(types[name.split('.').pop()], file(name));
    else if (pathname === '/play/map.json') answer('application/json', JSON.stringify(world.map));
    else if (pathname === '/play/token') {
      answer('application/json', JSON.stringify({ token: 'mock', world: 'mock', ws: `ws://${request.headers.host}/` }));
    } else if (pathname === '/mock/drop' && request.method === 'POST') {
      for (const connection of [...world.connections]) connection.drop();
      answer('text/plain', 'dropped');
    } else {
      response.writeHead(404);
      response.end();
    }
  });
  server.on('upgrade', (request, socket) => {
    const connection = accept(request, socket, 'marchland.v1');
    if (connection) world.connect(connection);
  });
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  const ticker = setInterval(() => world.step(), TICK_MS);
  return {
    url: `http://127.0.0.1:${server.address().port}/play`,
    world,
    stop() {
      clearInterval(ticker);
      for (const connection of [...world.connections]) connection.drop();
      server.close();
      server.closeAllConnections();
    },
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { url } = await startMock({ port: Number(process.argv[2] ?? 7280), delayMs: Number(process.env.MOCK_DELAY_MS ?? 0) });
  console.log(url);
}
