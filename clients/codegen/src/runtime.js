// Why a message could not be read or written. Nothing else is thrown by this module.
export class CodecError extends Error {
  constructor(message) {
    super(message);
    this.name = 'CodecError';
  }
}

const GROUP_DEPTH_MAX = 32;
const utf8Out = new TextEncoder();
const utf8In = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function fail(message) {
  throw new CodecError(message);
}

function integer(value, low, high, type) {
  if (!Number.isInteger(value) || value < low || value > high) fail(`${String(value)} is no ${type}`);
  return value;
}

function wide(value, low, high, type) {
  const big = typeof value === 'bigint' ? value : Number.isSafeInteger(value) ? BigInt(value) : undefined;
  if (big === undefined || big < low || big > high) fail(`${String(value)} is no ${type}`);
  return big;
}

// A 64-bit number as JavaScript likes it: a Number when that is exact, else a BigInt. Each value has one form, so === works.
function narrow(big) {
  return big >= -0x1fffffffffffffn && big <= 0x1fffffffffffffn ? Number(big) : big;
}

function atMostOne(name, ...members) {
  let set = 0;
  for (const member of members) if (member !== undefined) set++;
  if (set > 1) fail(`more than one member of ${name} is set`);
}

class Writer {
  constructor() {
    this.bytes = new Uint8Array(256);
    this.view = new DataView(this.bytes.buffer);
    this.pos = 0;
  }

  finish() {
    return this.bytes.slice(0, this.pos);
  }

  room(count) {
    if (this.pos + count <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(this.bytes.length * 2, this.pos + count));
    grown.set(this.bytes.subarray(0, this.pos));
    this.bytes = grown;
    this.view = new DataView(grown.buffer);
  }

  // Any exact integer from 0 to 2^53 - 1.
  varint(value) {
    this.room(10);
    while (value > 127) {
      this.bytes[this.pos++] = (value % 128) | 128;
      value = Math.floor(value / 128);
    }
    this.bytes[this.pos++] = value;
  }

  bigVarint(big) {
    this.room(10);
    while (big > 127n) {
      this.bytes[this.pos++] = Number(big & 127n) | 128;
      big >>= 7n;
    }
    this.bytes[this.pos++] = Number(big);
  }

  tag(tag) {
    this.varint(tag);
  }

  uint32(value) {
    this.varint(integer(value, 0, 0xffffffff, 'uint32'));
  }

  int32(value) {
    integer(value, -0x80000000, 0x7fffffff, 'int32');
    if (value >= 0) this.varint(value);
    else this.bigVarint(BigInt.asUintN(64, BigInt(value)));
  }

  sint32(value) {
    integer(value, -0x80000000, 0x7fffffff, 'sint32');
    this.varint(((value << 1) ^ (value >> 31)) >>> 0);
  }

  uint64(value) {
    if (Number.isSafeInteger(value) && value >= 0) this.varint(value);
    else this.bigVarint(wide(value, 0n, 0xffffffffffffffffn, 'uint64'));
  }

  int64(value) {
    this.bigVarint(BigInt.asUintN(64, wide(value, -0x8000000000000000n, 0x7fffffffffffffffn, 'int64')));
  }

  sint64(value) {
    const big = wide(value, -0x8000000000000000n, 0x7fffffffffffffffn, 'sint64');
    this.bigVarint(BigInt.asUintN(64, (big << 1n) ^ (big >> 63n)));
  }

  bool(value) {
    this.varint(value ? 1 : 0);
  }

  fixed32(value) {
    this.room(4);
    this.view.setUint32(this.pos, integer(value, 0, 0xffffffff, 'fixed32'), true);
    this.pos += 4;
  }

  sfixed32(value) {
    this.room(4);
    this.view.setInt32(this.pos, integer(value, -0x80000000, 0x7fffffff, 'sfixed32'), true);
    this.pos += 4;
  }

  fixed64(value) {
    this.room(8);
    this.view.setBigUint64(this.pos, wide(value, 0n, 0xffffffffffffffffn, 'fixed64'), true);
    this.pos += 8;
  }

  sfixed64(value) {
    this.room(8);
    this.view.setBigInt64(this.pos, wide(value, -0x8000000000000000n, 0x7fffffffffffffffn, 'sfixed64'), true);
    this.pos += 8;
  }

  float(value) {
    this.room(4);
    this.view.setFloat32(this.pos, value, true);
    this.pos += 4;
  }

  double(value) {
    this.room(8);
    this.view.setFloat64(this.pos, value, true);
    this.pos += 8;
  }

  bytes_(value) {
    if (!(value instanceof Uint8Array)) fail('bytes must be a Uint8Array');
    this.varint(value.length);
    this.room(value.length);
    this.bytes.set(value, this.pos);
    this.pos += value.length;
  }

  string(value) {
    if (typeof value !== 'string') fail(`${String(value)} is no string`);
    this.bytes_(utf8Out.encode(value));
  }

  // Between begin and end stands what has its length in front. Most are shorter than 128 bytes: one byte is kept for it.
  begin() {
    this.room(1);
    return ++this.pos;
  }

  end(start) {
    const size = this.pos - start;
    let extra = 0;
    for (let rest = size; rest > 127; rest = Math.floor(rest / 128)) extra++;
    if (extra > 0) {
      this.room(extra);
      this.bytes.copyWithin(start + extra, start, this.pos);
    }
    this.pos = start - 1;
    this.varint(size);
    this.pos += size;
  }
}

class Reader {
  constructor(bytes) {
    if (!(bytes instanceof Uint8Array)) fail('a message must be a Uint8Array');
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.pos = 0;
    this.limit = bytes.length;
  }

  // Moves on by `count` bytes and returns where they begin.
  take(count) {
    const start = this.pos;
    if (count > this.limit - start) fail(`message ends after ${this.limit} bytes, ${start + count} expected`);
    this.pos = start + count;
    return start;
  }

  // Reads a varint into `low` (28 bits), `middle` (28 bits) and `high` (8 bits).
  varint() {
    let byte = this.bytes[this.take(1)];
    this.low = byte & 127;
    this.middle = 0;
    this.high = 0;
    if (byte < 128) return;
    for (let i = 1; i < 10; i++) {
      byte = this.bytes[this.take(1)];
      if (i < 4) this.low |= (byte & 127) << (7 * i);
      else if (i < 8) this.middle |= (byte & 127) << (7 * (i - 4));
      else this.high |= (byte & 127) << (7 * (i - 8));
      if (byte < 128) {
        if (i === 9 && byte > 1) break;
        return;
      }
    }
    fail(`varint before byte ${this.pos} does not fit in 64 bits`);
  }

  uint32() {
    this.varint();
    return (this.low | (this.middle << 28)) >>> 0;
  }

  int32() {
    return this.uint32() | 0;
  }

  sint32() {
    const value = this.uint32();
    return (value >>> 1) ^ -(value & 1);
  }

  big() {
    this.varint();
    return (BigInt(this.high) << 56n) | (BigInt(this.middle) << 28n) | BigInt(this.low);
  }

  uint64() {
    this.varint();
    if (this.high === 0 && this.middle < 0x2000000) return this.middle * 0x10000000 + this.low;
    return (BigInt(this.high) << 56n) | (BigInt(this.middle) << 28n) | BigInt(this.low);
  }

  int64() {
    return narrow(BigInt.asIntN(64, this.big()));
  }

  sint64() {
    const value = this.big();
    return narrow((value >> 1n) ^ -(value & 1n));
  }

  bool() {
    this.varint();
    return (this.low | this.middle | this.high) !== 0;
  }

  fixed32() {
    return this.view.getUint32(this.take(4), true);
  }

  sfixed32() {
    return this.view.getInt32(this.take(4), true);
  }

  fixed64() {
    return narrow(this.view.getBigUint64(this.take(8), true));
  }

  sfixed64() {
    return narrow(this.view.getBigInt64(this.take(8), true));
  }

  float() {
    return this.view.getFloat32(this.take(4), true);
  }

  double() {
    return this.view.getFloat64(this.take(8), true);
  }

  key() {
    const key = this.uint64();
    if (key > 0xffffffff) fail(`field key ${key} does not fit in 32 bits`);
    return key;
  }

  length() {
    const length = this.uint64();
    if (typeof length !== 'number') fail(`length ${length} is absurd`);
    return length;
  }

  // A copy, so that a small field does not keep a large message alive.
  bytes_() {
    const length = this.length();
    const start = this.take(length);
    return this.bytes.slice(start, start + length);
  }

  string() {
    const length = this.length();
    const start = this.take(length);
    try {
      return utf8In.decode(this.bytes.subarray(start, start + length));
    } catch {
      return fail(`string at byte ${start} is not UTF-8`);
    }
  }

  // Narrows the limit to the length-delimited field that begins here; `leave` takes what this returned.
  enter() {
    const outer = this.limit;
    const length = this.length();
    if (length > outer - this.pos) fail(`field ends ${length - (outer - this.pos)} bytes after its message`);
    this.limit = this.pos + length;
    return outer;
  }

  leave(outer) {
    this.limit = outer;
  }

  skip(tag, known, depth = 0) {
    const field = tag >>> 3;
    if (field === 0) fail('field number 0');
    if (known.has(field)) fail(`field ${field} has wire type ${tag & 7}`);
    switch (tag & 7) {
      case 0:
        this.varint();
        return;
      case 1:
        this.take(8);
        return;
      case 2:
        this.take(this.length());
        return;
      case 3:
        if (depth === GROUP_DEPTH_MAX) fail('groups are nested too deeply');
        for (;;) {
          const inner = this.key();
          if ((inner & 7) === 4) {
            if (inner >>> 3 !== field) fail('a group ends that did not begin');
            return;
          }
          this.skip(inner, NOTHING, depth + 1);
        }
      case 5:
        this.take(4);
        return;
      default:
        fail(`field ${field} has wire type ${tag & 7}`);
    }
  }
}

const NOTHING = new Set();
