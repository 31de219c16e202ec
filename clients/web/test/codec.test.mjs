// `node --test clients/web/test/codec.test.mjs`: the codec against vectors that the server's own codec wrote (vectors.json).

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import * as codec from '../codec.js';

const vectors = JSON.parse(readFileSync(new URL('./vectors.json', import.meta.url), 'utf8'));
const fromHex = (hex) => new Uint8Array(Buffer.from(hex, 'hex'));
const toHex = (bytes) => Buffer.from(bytes).toString('hex');
const find = (type) => type.split('.').reduce((at, name) => at[name], codec);

// The form that values have in vectors.json: 64-bit numbers and bytes as strings, absent messages left out.
function plain(value, like) {
  if (value instanceof Uint8Array) return toHex(value);
  if (typeof like === 'string' && (typeof value === 'bigint' || typeof value === 'number')) return String(value);
  if (Array.isArray(value)) return value.map((item, i) => plain(item, like?.[i]));
  if (value !== null && typeof value === 'object') {
    const out = {};
    for (const [key, item] of Object.entries(value)) if (item !== undefined) out[key] = plain(item, like?.[key]);
    return out;
  }
  return value;
}

// Only the properties that the vector has: without absent messages, and without those that name the member of a oneof.
function withoutNames(value, like) {
  if (Array.isArray(value)) return value.map((item, i) => withoutNames(item, like?.[i]));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value).filter(([key]) => like && key in like).map(([key, item]) => [key, withoutNames(item, like[key])]),
  );
}

test('every vector is read and written as the server does', () => {
  assert.ok(vectors.length > 50, 'vectors are there');
  for (const { type, hex, value } of vectors) {
    const message = find(type).decode(fromHex(hex));
    assert.deepEqual(withoutNames(plain(message, value), value), value, `${type} ${hex}`);
    assert.equal(toHex(find(type).encode(message)), hex, `${type} written`);
  }
});

test('a message that is cut short is refused or is a shorter message, and nothing else is thrown', () => {
  let refused = 0;
  for (const { type, hex } of vectors) {
    const bytes = fromHex(hex);
    for (let end = 0; end < bytes.length; end++) {
      try {
        find(type).decode(bytes.subarray(0, end));
      } catch (error) {
        assert.ok(error instanceof codec.CodecError, String(error.stack));
        refused++;
      }
    }
  }
  assert.ok(refused > 1000, `only ${refused} refused`);
});

test('unknown fields of every wire type are skipped', () => {
  const known = codec.client.Ping.encode({ client_ms: 7 });
  for (const unknown of ['7805', '790102030405060708', '7a03aabbcc', '7d01020304', '7b08011201787c']) {
    const message = codec.client.Ping.decode(new Uint8Array([...fromHex(unknown), ...known]));
    assert.deepEqual(message, { client_ms: 7 }, unknown);
  }
});

test('rubbish is refused', () => {
  for (const [why, hex] of [
    ['wrong wire type of a known field', '0a00'],
    ['field number 0', '0001'],
    ['a varint of eleven bytes', '08ffffffffffffffffffff01'],
    ['a varint of more than 64 bits', '08ffffffffffffffffff02'],
    ['a length past the end', '7a05aa'],
    ['a length of 2^63', '7affffffffffffffff7f'],
    ['a group that does not end', '7b0801'],
    ['the end of no group', '7c'],
    ['wire type 6', '7e'],
  ]) {
    assert.throws(() => codec.client.Ping.decode(fromHex(hex)), codec.CodecError, why);
  }
  assert.throws(() => codec.client.Hello.decode(fromHex('2201ff')), codec.CodecError, 'no UTF-8');
});

test('64-bit numbers keep every bit and have one form', () => {
  const largest = 2n ** 64n - 1n;
  const read = (value) => codec.client.Ping.decode(codec.client.Ping.encode({ client_ms: value })).client_ms;
  assert.equal(read(largest), largest);
  assert.equal(read(2n ** 53n), 2n ** 53n);
  assert.equal(read(2n ** 53n - 1n), 2 ** 53 - 1);
  assert.equal(read(5n), 5);
  assert.equal(read(2 ** 40), 2 ** 40);
  const hash = 0xfedc_ba98_7654_3210n;
  assert.equal(codec.client.Welcome.decode(codec.client.Welcome.encode({ content_hash: hash })).content_hash, hash);
});

test('what cannot be written is refused', () => {
  for (const message of [
    { alias: -1 }, { alias: 1.5 }, { alias: 2 ** 32 }, { alias: '1' }, { entity: -1 }, { entity: 2n ** 64n }, { entity: 2 ** 60 },
    { x: 2 ** 31 }, { name: 5 }, { look: [1, 2] },
  ]) {
    assert.throws(() => codec.client.Enter.encode(message), codec.CodecError, Object.keys(message)[0]);
  }
  assert.throws(() => codec.client.ClientMessage.encode({ ping: {}, goodbye: {} }), codec.CodecError, 'two members of a oneof');
});

test('the later member of a oneof wins, and equal ones are merged', () => {
  const two = fromHex('1a03' + '08e807' + '2200');
  assert.deepEqual(codec.client.ClientMessage.decode(two), {
    hello: undefined, commands: undefined, ping: undefined, goodbye: {}, body: 'goodbye',
  });
  const merged = codec.client.ClientMessage.decode(fromHex('12021001' + '1204' + '0a020801'));
  assert.equal(merged.commands.acked_reply_seq, 1);
  assert.equal(merged.commands.inputs.length, 1);
});

test('numbers and bytes that stand in the middle of a larger buffer', () => {
  const bytes = codec.client.Welcome.encode({ resume_secret: new Uint8Array(32).fill(9), max_speed: 5, world: 'aurora' });
  const large = new Uint8Array(bytes.length + 7);
  large.set(bytes, 5);
  const message = codec.client.Welcome.decode(large.subarray(5, 5 + bytes.length));
  assert.equal(message.max_speed, 5);
  assert.equal(message.world, 'aurora');
  large.fill(0);
  assert.equal(message.resume_secret[31], 9, 'bytes are copies');
});
