// A WebSocket server in a page, for the mock: RFC 6455 as far as a browser needs it, with node's own modules alone.

import { createHash } from 'node:crypto';

const MAGIC = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const MESSAGE_MAX_BYTES = 4096;

// Answers an upgrade; gives `{ send(bytes), close(code), drop(), onmessage, onclose }`, or `undefined` if it was refused.
export function accept(request, socket, protocol) {
  const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim());
  const key = request.headers['sec-websocket-key'];
  if (!offered.includes(protocol) || key === undefined) {
    socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
    return undefined;
  }
  const proof = createHash('sha1').update(key + MAGIC).digest('base64');
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      `Sec-WebSocket-Accept: ${proof}\r\nSec-WebSocket-Protocol: ${protocol}\r\n\r\n`,
  );
  socket.setNoDelay(true);
  let buffer = Buffer.alloc(0);
  let parts = [];
  let closed = false;
  const connection = {
    onmessage: () => {},
    onclose: () => {},
    send: (bytes) => write(2, bytes),
    close(code) {
      const body = Buffer.alloc(2);
      body.writeUInt16BE(code);
      write(8, body);
      setTimeout(() => socket.destroy(), 500).unref();
    },
    drop: () => socket.destroy(),
  };
  function write(opcode, bytes) {
    if (socket.destroyed) return;
    const length = bytes.length;
    let head;
    if (length < 126) head = Buffer.from([0x80 | opcode, length]);
    else if (length < 65536) {
      head = Buffer.from([0x80 | opcode, 126, length >> 8, length & 255]);
    } else {
      head = Buffer.alloc(10);
      head[0] = 0x80 | opcode;
      head[1] = 127;
      head.writeBigUInt64BE(BigInt(length), 2);
    }
    socket.write(Buffer.concat([head, bytes]));
  }
  function frame(opcode, final, payload) {
    if (opcode === 8) socket.end();
    else if (opcode === 9) write(10, payload);
    else if (opcode < 3) {
      parts.push(payload);
      if (!final) return;
      const message = Buffer.concat(parts);
      parts = [];
      connection.onmessage(new Uint8Array(message));
    }
  }
  socket.on('data', (data) => {
    buffer = Buffer.concat([buffer, data]);
    for (;;) {
      if (buffer.length < 2) return;
      let length = buffer[1] & 127;
      let at = 2;
      if (length === 126) {
        if (buffer.length < 4) return;
        length = buffer.readUInt16BE(2);
        at = 4;
      }
      if (length === 127 || length > MESSAGE_MAX_BYTES || (buffer[1] & 128) === 0) {
        socket.destroy();
        return;
      }
      if (buffer.length < at + 4 + length) return;
      const mask = buffer.subarray(at, at + 4);
      const payload = Buffer.from(buffer.subarray(at + 4, at + 4 + length));
      for (let i = 0; i < length; i++) payload[i] ^= mask[i & 3];
      const [opcode, final] = [buffer[0] & 15, (buffer[0] & 128) !== 0];
      buffer = buffer.subarray(at + 4 + length);
      frame(opcode, final, payload);
    }
  });
  const end = () => {
    if (closed) return;
    closed = true;
    connection.onclose();
  };
  socket.on('close', end);
  socket.on('error', end);
  return connection;
}
