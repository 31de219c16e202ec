// `node --test`: a session against a socket and a clock made of plain objects: numbers, resuming, waiting, refusals.

import assert from 'node:assert/strict';
import test from 'node:test';
import { Code, client } from '../codec.js';
import { Session } from '../session.js';

const SECRET = new Uint8Array(32).fill(7);

function setUp({ signIn } = {}) {
  const table = { now: 0, timers: [], sockets: [], states: [], replies: [], signIns: 0, welcomes: 0 };
  const environment = {
    open(url) {
      const socket = { url, readyState: 0, sent: [], close: () => {}, send: (bytes) => socket.sent.push(client.ClientMessage.decode(bytes)) };
      table.sockets.push(socket);
      return socket;
    },
    now: () => table.now,
    random: () => 1,
    later: (ms, run) => {
      const timer = { at: table.now + ms, run };
      table.timers.push(timer);
      return timer;
    },
    cancel: (timer) => {
      table.timers = table.timers.filter((other) => other !== timer);
    },
  };
  const session = new Session({
    signIn: signIn ?? (async () => {
      table.signIns++;
      return { urls: ['ws://a/', 'ws://b/'], token: 't', characterName: 'Ada' };
    }),
    clientName: 'test',
    environment,
    on: {
      state: (state, detail, code) => table.states.push([state, code]),
      reply: (reply) => table.replies.push(reply.reply_seq),
      welcome: () => table.welcomes++,
    },
  });
  Object.assign(table, {
    session,
    socket: () => table.sockets[table.sockets.length - 1],
    async settle() {
      for (let i = 0; i < 10; i++) await Promise.resolve();
    },
    async pass(ms) {
      const end = table.now + ms;
      for (;;) {
        const due = table.timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
        if (!due) break;
        table.timers = table.timers.filter((timer) => timer !== due);
        table.now = Math.max(table.now, due.at);
        due.run();
        await table.settle();
      }
      table.now = end;
    },
    opened() {
      table.socket().readyState = 1;
      table.socket().onopen();
    },
    says: (message) => table.socket().onmessage({ data: client.ServerMessage.encode(message).slice().buffer }),
    welcomes_: (fields = {}) =>
      table.says({
        welcome: { protocol_version: 1, character_id: 9, session_epoch: 3, resume_secret: SECRET, next_seq: 1, attach_number: 1, max_speed: 5, ...fields },
      }),
    frame: (fields) => table.says({ frame: { region: 1, tick: 1, server_ms: 1, ...fields } }),
    inputs: () => table.socket().sent.flatMap((message) => message.commands?.inputs ?? []).map((input) => input.seq),
  });
  return table;
}

async function playing(options) {
  const table = setUp(options);
  await table.session.start();
  table.opened();
  table.welcomes_();
  return table;
}

const step = { move: { x: 1, z: 0, yaw: 0 }, duration_ms: 50 };

test('hello, welcome, inputs without gaps, acknowledgement', async () => {
  const table = await playing();
  const { hello } = table.socket().sent[0];
  assert.deepEqual([hello.protocol_version, hello.how, hello.sign_in.character_name, hello.client_name], [1, 'sign_in', 'Ada', 'test']);
  assert.deepEqual([1, 2, 3].map(() => table.session.input(step)), [1, 2, 3]);
  table.frame({ applied_seq: 2 });
  assert.deepEqual(table.session.unacked.map(({ input }) => input.seq), [3]);
  assert.equal(table.session.state, 'playing');
});

test('nothing is numbered before the welcome, or with too many on their way', async () => {
  const table = setUp();
  assert.equal(table.session.input(step), undefined);
  await table.session.start();
  table.opened();
  assert.equal(table.session.input(step), undefined);
  table.welcomes_();
  let taken = 0;
  while (table.session.input(step) !== undefined) taken++;
  assert.ok(taken > 60 && taken <= 128, `${taken}`);
  table.frame({ applied_seq: 10 });
  assert.equal(table.session.input(step), taken + 1);
});

test('a lost socket is resumed over another edge, and what was not applied goes again', async () => {
  const table = await playing();
  for (let i = 0; i < 5; i++) table.session.input(step);
  table.frame({ applied_seq: 2, replies: [{ reply_seq: 1, command_seq: 1 }] });
  table.socket().onclose();
  assert.equal(table.session.state, 'waiting');
  await table.pass(1);
  assert.equal(table.sockets.length, 2, 'tried at once');
  table.socket().onclose();
  await table.pass(251);
  assert.equal(table.sockets.length, 3);
  assert.equal(table.socket().url, 'ws://b/', 'the other edge');
  table.opened();
  const { resume } = table.socket().sent[0].hello;
  assert.equal(resume.character_id, 9);
  assert.equal(resume.session_epoch, 3);
  assert.deepEqual(resume.resume_secret, SECRET);
  assert.equal(resume.last_reply_seq, 1);
  assert.equal(resume.attach_number, 3, 'counted up before each attempt');
  assert.equal(table.signIns, 1);
  // The server has 3; 4 and 5 never arrived.
  table.welcomes_({ resume_secret: new Uint8Array(0), next_seq: 4, attach_number: 3 });
  assert.deepEqual(table.inputs(), [4, 5]);
  assert.equal(table.session.input(step), 6);
  assert.deepEqual(table.session.credentials.resumeSecret, SECRET, 'the secret remains');
});

test('each reply is handed on once, and acknowledged within a second', async () => {
  const table = await playing();
  table.frame({ replies: [{ reply_seq: 1 }, { reply_seq: 2 }] });
  table.frame({ replies: [{ reply_seq: 2 }, { reply_seq: 3 }] });
  assert.deepEqual(table.replies, [1, 2, 3]);
  await table.pass(600);
  const acks = table.socket().sent.filter((message) => message.commands).map((message) => message.commands.acked_reply_seq);
  assert.deepEqual(acks, [3]);
});

test('waits longer and longer, never less than the server asks', async () => {
  const table = setUp();
  await table.session.start();
  const waits = [];
  for (let i = 0; i < 8; i++) {
    const from = table.now;
    const count = table.sockets.length;
    table.socket().onclose();
    while (table.sockets.length === count) await table.pass(10);
    waits.push(table.now - from);
  }
  assert.deepEqual(waits.map((ms) => Math.round(ms / 250) * 250), [0, 250, 500, 1000, 2000, 4000, 5000, 5000]);
  table.opened();
  table.says({ refused: { code: Code.Full, retry_after_ms: 20_000 } });
  const count = table.sockets.length;
  await table.pass(19_000);
  assert.equal(table.sockets.length, count);
  await table.pass(1_100);
  assert.equal(table.sockets.length, count + 1);
});

test('what ends a session, what signs in again, what goes elsewhere', async () => {
  for (const code of [Code.Superseded, Code.NameTaken, Code.BadToken, Code.Malformed, 999]) {
    const table = await playing();
    table.says({ refused: { code, reason: 'why' } });
    assert.deepEqual(table.states.at(-1), ['stopped', code]);
    await table.pass(60_000);
    assert.equal(table.sockets.length, 1);
  }
  const table = await playing();
  table.says({ refused: { code: Code.GoingAway, other_edge: 'ws://c/' } });
  await table.pass(10);
  assert.equal(table.socket().url, 'ws://c/');
  table.opened();
  assert.equal(table.socket().sent[0].hello.how, 'resume');
  table.says({ refused: { code: Code.BadResume } });
  await table.pass(1000);
  table.opened();
  assert.equal(table.socket().sent[0].hello.how, 'sign_in');
  assert.equal(table.signIns, 2);
});

test('a silent server is left, and pings keep the session alive', async () => {
  const table = await playing();
  const pings = () => table.socket().sent.filter((message) => message.ping).length;
  for (let i = 0; i < 60; i++) {
    await table.pass(100);
    table.frame({});
  }
  assert.equal(pings(), 4, 'while frames come, one at once and then every two seconds');
  assert.equal(table.session.state, 'playing');
  const { url } = table.socket();
  await table.pass(2_400);
  assert.equal(pings(), 8, 'while nothing comes, two a second');
  assert.equal(table.session.state, 'playing');
  await table.pass(700);
  assert.equal(table.sockets.length, 2);
  assert.notEqual(table.socket().url, url, 'another edge');
});

test('an edge that takes a connection and says nothing is left for another', async () => {
  const table = await playing();
  table.socket().onclose();
  await table.pass(10);
  assert.equal(table.sockets.length, 2);
  const { url } = table.socket();
  table.opened();
  await table.pass(3_500);
  assert.equal(table.sockets.length, 3);
  assert.notEqual(table.socket().url, url);
});

test('what can not be read ends the socket, not the session', async () => {
  const table = await playing();
  table.socket().onmessage({ data: new Uint8Array([255]).buffer });
  assert.equal(table.session.state, 'waiting');
  await table.pass(10);
  assert.equal(table.sockets.length, 2);
});

test('goodbye is said, and the end is the end', async () => {
  const table = await playing();
  const socket = table.socket();
  table.session.goodbye();
  assert.ok(socket.sent.at(-1).goodbye);
  await table.pass(60_000);
  assert.equal(table.sockets.length, 1);
});
