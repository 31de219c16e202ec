// The page at /play: one player of the demo world. Wires session, world, prediction, controls and picture together.
//
// Who may enter is the server's business: the page asks `token?name=…` (a node in development mode answers) or takes `?token=` and
// `?ws=` from its own address. `window.marchland` shows the state to tests and to the curious.

import { Code, frontier } from './codec.js';
import { Controls } from './controls.js';
import { Drawing, KIND } from './draw.js';
import { groundFrom } from './ground.js';
import { Hud } from './hud.js';
import { Prediction } from './prediction.js';
import { Session } from './session.js';
import { World, metres } from './world.js';

const INPUT_MS = 50;
const INPUT_MAX_MS = 250;
const SAYING_MS = 6000;
const ACTION = Object.freeze({ gather: 1, drop: 2, pickUp: 3, say: 4, inventory: 5 });
const EVENT_SAID = 4;
const SAY_MAX_BYTES = 200;
const REASON_MAX_BYTES = 120;
// Hands rest for a second after gathering: a key that is held down need not ask more often.
const GATHER_EVERY_MS = 1050;
const ORE_NAMES = ['Copper', 'Silver', 'Gold', 'Crystal', 'Amethyst', 'Jade'];

const WORDS = {
  [Code.WrongState]: 'The page and the server do not understand each other. Reload the page.',
  [Code.Malformed]: 'The page and the server do not understand each other. Reload the page.',
  [Code.TooLarge]: 'The page sent more than the server takes. Reload the page.',
  [Code.TooMany]: 'Too fast: the server asks for a pause.',
  [Code.Version]: 'The server speaks another version. Reload the page.',
  [Code.BadToken]: 'This sign-in is not valid any more. Enter again.',
  [Code.BadName]: 'This name can not be used. Choose another.',
  [Code.NameTaken]: 'Somebody else has this name. Choose another.',
  [Code.Superseded]: 'You are playing in another window now.',
  [Code.Full]: 'The world is full at the moment.',
  [Code.GoingAway]: 'This server is stopping; another one takes over.',
  [Code.UnknownAction]: 'The world does not know this action.',
  [Code.Refused]: 'That is not possible here.',
  [Code.Internal]: 'Something went wrong in the world; nothing was changed.',
  [Code.Unavailable]: 'The world does not answer at the moment.',
  [Code.Goodbye]: 'You left the world.',
};

const parameters = new URLSearchParams(location.search);
const canvas = document.getElementById('view');
const hud = new Hud();
const drawing = new Drawing(canvas);
const state = {
  session: undefined,
  world: undefined,
  prediction: undefined,
  ground: undefined,
  welcome: undefined,
  name: '',
  inventory: [],
  says: new Map(),
  sent: new Map(), // number of an action → its code, until it is answered
  walking: [0, 0],
  yaw: 64,
  lastInputAt: 0,
  gatheredAt: -Infinity,
  leftover: 0,
  bytes: 0,
  counted: { at: performance.now(), pictures: 0, frames: 0, bytes: 0 },
  pictures: 0,
  message: '',
  messageUntil: 0,
};

const controls = new Controls(canvas, { toWorld: (x, y) => drawing.toWorld(x, y), act });

// ---- entering and leaving ----

async function getJson(path) {
  const answer = await fetch(path, { cache: 'no-store' });
  if (!answer.ok) throw new Error((await answer.text()).slice(0, 200) || `${path}: ${answer.status}`);
  return answer.json();
}

// An address of the server's own machine is of no use elsewhere: take the host that the page came from.
function reachable(ws) {
  const url = new URL(ws, location.href);
  if (url.protocol === 'http:' || url.protocol === 'https:') url.protocol = url.protocol.replace('http', 'ws');
  if (['127.0.0.1', 'localhost', '0.0.0.0', '[::1]', '[::]'].includes(url.hostname)) url.hostname = location.hostname;
  return url.href;
}

async function signIn() {
  const given = parameters.get('token');
  if (given !== null) {
    return { urls: [reachable(parameters.get('ws') ?? '/')], token: given, characterName: state.name };
  }
  const { token, ws, edges = [], world } = await getJson(`token?name=${encodeURIComponent(state.name)}`);
  if (world) document.title = `Marchland · ${world}`;
  return { urls: [ws, ...edges.filter((edge) => edge !== ws)].map(reachable), token, characterName: state.name };
}

async function enter(name) {
  hud.busy(true);
  hud.signInError('');
  try {
    state.name = name;
    state.ground = groundFrom(await getJson('map.json'));
    drawing.show(state.ground);
    localStorage.setItem('marchland-name', name);
  } catch (error) {
    hud.busy(false);
    hud.signInError(`The world can not be reached: ${error.message}`);
    return;
  }
  state.world = new World(areaEvent);
  state.prediction = undefined;
  state.inventory = [];
  state.session = new Session({
    signIn,
    clientName: 'marchland-web/1',
    on: { state: sessionState, welcome, frame, reply, refused },
    environment: { open: openSocket },
  });
  state.session.start();
}

function openSocket(url) {
  const socket = new WebSocket(url, 'marchland.v1');
  socket.addEventListener('message', (event) => {
    state.bytes += event.data.byteLength;
  });
  return socket;
}

function sessionState(now, detail, code) {
  switch (now) {
    case 'waiting':
      hud.status(state.welcome ? `Connection lost: trying again… (${detail})` : `Connecting… (${detail})`);
      break;
    case 'playing':
      hud.status('');
      break;
    case 'stopped':
      controls.enabled = false;
      controls.release();
      state.welcome = undefined;
      hud.busy(false);
      hud.show(false);
      hud.signInError(WORDS[code] ?? detail);
      document.getElementById('name').focus();
      break;
    default:
  }
}

function welcome(message, resumed) {
  state.welcome = message;
  if (!resumed || !state.prediction) state.prediction = new Prediction(state.ground, message.max_speed);
  else state.prediction.restart(message.next_seq);
  if (!resumed) state.sent.clear();
  hud.busy(false);
  hud.show(true);
  controls.enabled = true;
  state.lastInputAt = performance.now();
  if (document.activeElement === document.body || !resumed) canvas.focus();
  action(ACTION.inventory, frontier.Inventory, {});
  if (!resumed) hud.line('', `Welcome to ${message.world}, ${state.name}.`);
}

function refused(message) {
  notice(WORDS[message.code] ?? message.reason);
}

// ---- what the server says ----

function frame(message) {
  const now = performance.now();
  state.world.apply(message, now);
  if (message.self) state.prediction.reconcile(message.self);
}

function reply(message) {
  const code = state.sent.get(message.command_seq);
  state.sent.delete(message.command_seq);
  if (message.code !== Code.Ok) {
    // A move that had no room is corrected by the next frame: not worth a word.
    if (code !== undefined || message.command_seq === 0) notice(reason(message) || WORDS[message.code] || `Refused (${message.code}).`);
    return;
  }
  if (code === ACTION.inventory) {
    state.inventory = read(frontier.Items, message.body)?.items ?? state.inventory;
    showInventory();
  } else if (code !== ACTION.say) {
    // Whatever it was (a reply after a reload belongs to an action that this page does not know), the server knows the bag.
    const found = code === ACTION.gather || code === ACTION.pickUp ? read(frontier.Gathered, message.body) : undefined;
    if (found?.item) notice(`You ${code === ACTION.gather ? 'gathered' : 'picked up'} ${oreName(found.kind).toLowerCase()}.`);
    action(ACTION.inventory, frontier.Inventory, {});
  }
}

// The demo world says why it refuses, in a few words of English.
function reason({ code, body }) {
  if (code !== Code.Refused || body.length === 0) return '';
  const text = new TextDecoder().decode(body.subarray(0, REASON_MAX_BYTES));
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

function areaEvent(event) {
  if (event.kind !== EVENT_SAID) return;
  const said = read(frontier.Said, event.body);
  if (!said) return;
  state.says.set(said.name, { text: said.text, until: performance.now() + SAYING_MS });
  hud.line(said.name, said.text);
}

// A body of the game: one that can not be read is shown as nothing rather than ending the session.
function read(type, body) {
  try {
    return type.decode(body);
  } catch {
    return undefined;
  }
}

function oreName(kind) {
  return ORE_NAMES[kind % ORE_NAMES.length];
}

function showInventory() {
  hud.inventory(state.inventory, oreName, (item) => action(ACTION.drop, frontier.Drop, { item: item.id }));
}

function notice(text) {
  state.message = text;
  state.messageUntil = performance.now() + 2500;
  hud.status(text);
}

// ---- what the player does ----

function action(code, type, body) {
  const seq = state.session?.input({ action: { code, body: type.encode(body) } });
  if (seq !== undefined) state.sent.set(seq, code);
  return seq;
}

function act(name) {
  switch (name) {
    case 'gather':
      if (performance.now() - state.gatheredAt < GATHER_EVERY_MS) break;
      state.gatheredAt = performance.now();
      action(ACTION.gather, frontier.Gather, {});
      break;
    case 'pickUp':
      action(ACTION.pickUp, frontier.PickUp, {});
      break;
    case 'talk':
      document.getElementById('say-text').focus();
      break;
    case 'nearer':
      drawing.zoom = Math.min(3, drawing.zoom * 1.15);
      break;
    default:
      drawing.zoom = Math.max(0.4, drawing.zoom / 1.15);
  }
}

// Twenty times a second: one input that covers the time since the last one, at the pace at which the world runs.
function walk() {
  const now = performance.now();
  const rate = (state.world?.clock.rate ?? 100) / 100;
  const passed = Math.min(now - state.lastInputAt, INPUT_MAX_MS) * rate + state.leftover;
  state.lastInputAt = now;
  const { session, prediction, welcome: here } = state;
  if (!here || session.state !== 'playing' || !prediction.position) {
    state.leftover = 0;
    state.walking = [0, 0];
    return;
  }
  const ms = Math.floor(passed);
  state.leftover = passed - ms;
  const wanted = controls.direction(prediction.position, ms, here.max_speed, now);
  state.walking = [0, 0];
  if ((wanted.x === 0 && wanted.z === 0) || ms === 0) return;
  state.yaw = Math.round((Math.atan2(wanted.z, wanted.x) / (2 * Math.PI)) * 256) & 255;
  // As it travels: a direction that is rounded differently would be predicted differently.
  const direction = [Math.fround(wanted.x), Math.fround(wanted.z)];
  const duration = Math.min(wanted.ms, INPUT_MAX_MS);
  const seq = session.input({ move: { x: direction[0], z: direction[1], yaw: state.yaw }, duration_ms: duration });
  if (seq === undefined) return;
  prediction.move(seq, direction, duration);
  if (wanted.ms === ms) state.walking = direction;
}

// ---- the picture ----

function scene(now) {
  const others = state.world.at(now).map(({ entity, x, z, yaw }) => {
    const one = { x, z, yaw, entity: entity.entity, kind: entity.kind, name: entity.name, enteredAt: entity.enteredAt };
    if (entity.kind !== KIND.character) {
      const look = read(frontier.Look, entity.look);
      one.variant = look?.variant ?? 0;
      one.left = look?.left;
    }
    return one;
  });
  const at = state.prediction.shown(state.walking, now - state.lastInputAt);
  const self = at && {
    x: at[0], z: at[1], yaw: state.yaw, entity: state.welcome.self_entity, kind: KIND.character, name: state.name, own: true, enteredAt: 0,
  };
  return { centre: at ?? drawing.centre, self, others, target: controls.target?.at, says: state.says, now };
}

let last = performance.now();
function picture() {
  const now = performance.now();
  if (state.welcome) {
    state.prediction.fade(now - last);
    drawing.draw(scene(now));
    state.pictures++;
    for (const [name, said] of state.says) if (said.until < now) state.says.delete(name);
    if (state.messageUntil !== 0 && state.messageUntil < now && state.session.state === 'playing') {
      state.messageUntil = 0;
      hud.status('');
    }
  }
  last = now;
  requestAnimationFrame(picture);
}

function figures() {
  const now = performance.now();
  const { counted, world, session } = state;
  if (!world || !session) return;
  const seconds = (now - counted.at) / 1000;
  const per = (name, value) => (value - counted[name]) / seconds;
  const milliseconds = (value) => (value === undefined ? '–' : `${Math.round(value)} ms`);
  const position = state.prediction?.server;
  hud.figures({
    rtt: milliseconds(session.rttMs),
    ack: milliseconds(session.ackMs),
    ticks: `${per('frames', world.frames).toFixed(1)} / s`,
    rate: `${world.clock.rate} %`,
    fps: `${per('pictures', state.pictures).toFixed(0)} / s`,
    visible: String(world.byAlias.size),
    position: position ? `${position.x.toFixed(1)}, ${position.z.toFixed(1)}` : '–',
    bytes: `${(per('bytes', state.bytes) / 1000).toFixed(1)} kB/s`,
  });
  state.counted = { at: now, pictures: state.pictures, frames: world.frames, bytes: state.bytes };
}

// ---- wiring ----

function say(text) {
  let short = text.trim();
  while (new TextEncoder().encode(short).length > SAY_MAX_BYTES) short = short.slice(0, -1);
  if (short !== '') action(ACTION.say, frontier.Say, { text: short });
}

const on = (id, event, run) => document.getElementById(id).addEventListener(event, run);
on('sign-in', 'submit', (event) => {
  event.preventDefault();
  const name = document.getElementById('name').value.trim();
  if (name !== '') enter(name);
});
on('say', 'submit', (event) => {
  event.preventDefault();
  const field = document.getElementById('say-text');
  say(field.value);
  field.value = '';
  canvas.focus();
});
on('say-text', 'keydown', (event) => {
  if (event.key === 'Escape') canvas.focus();
});
on('gather', 'click', () => act('gather'));
on('pick-up', 'click', () => act('pickUp'));
on('leave', 'click', () => state.session.goodbye());

document.getElementById('name').value = parameters.get('name') ?? localStorage.getItem('marchland-name') ?? '';
setInterval(walk, INPUT_MS);
setInterval(figures, 1000);
requestAnimationFrame(picture);

window.marchland = {
  get connected() {
    return state.session?.state === 'playing';
  },
  get state() {
    return state.session?.state ?? 'idle';
  },
  // `x`, `z`: as shown; `server`: by the server's word. Metres.
  get self() {
    const at = state.prediction?.position;
    const server = state.prediction?.server;
    return at && server && { x: at[0], z: at[1], server: { x: server.x, z: server.z, move_seq: server.move_seq } };
  },
  get others() {
    return state.world?.byAlias.size ?? 0;
  },
  get characters() {
    return [...(state.world?.byAlias.values() ?? [])]
      .filter((entity) => entity.kind === KIND.character)
      .map((entity) => ({ entity: entity.entity, name: entity.name, x: metres(entity.x), z: metres(entity.z) }));
  },
  get entities() {
    return [...(state.world?.byAlias.values() ?? [])].map(({ entity, kind, name, x, z }) => ({
      entity, kind, name, x: metres(x), z: metres(z),
    }));
  },
  get frames() {
    return state.world?.frames ?? 0;
  },
  get tick() {
    return state.world?.tick ?? 0;
  },
  get inventory() {
    return state.inventory;
  },
  get session() {
    const { session, prediction, world } = state;
    return session && {
      applied_seq: session.appliedSeq, next_seq: session.nextSeq, unacked: session.unacked.length, resumes: session.resumes,
      rtt_ms: session.rttMs, ack_ms: session.ackMs, corrections: prediction?.corrections ?? 0, skipped: world?.skipped ?? 0,
    };
  },
  // Drops the socket as a failing network would: the session resumes.
  drop() {
    state.session?.socket?.close();
  },
};
