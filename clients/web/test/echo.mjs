// Reads and writes each message on standard input once, for the comparison with the server's own codec.
//
// One case a line: `type hex`, e.g. `client.ClientMessage 1a0308e807`. One answer a line: the hex of the message written anew, or
// `refused` if the codec refused to read it. Anything else that is thrown ends the program.

import { readFileSync } from 'node:fs';
import * as codec from '../codec.js';

const answers = [];
for (const line of readFileSync(0, 'utf8').split('\n')) {
  if (line === '') continue;
  const [type, hex = ''] = line.split(' ');
  const [namespace, name] = type.split('.');
  let message;
  try {
    message = codec[namespace][name].decode(new Uint8Array(Buffer.from(hex, 'hex')));
  } catch (error) {
    if (!(error instanceof codec.CodecError)) throw error;
    answers.push('refused');
    continue;
  }
  answers.push(Buffer.from(codec[namespace][name].encode(message)).toString('hex') || 'empty');
}
process.stdout.write(answers.join('\n') + '\n');
