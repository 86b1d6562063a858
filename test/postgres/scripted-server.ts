import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';

/** A message of the protocol. */
export function message(type: string, body: Uint8Array | string = ''): Buffer {
  const bytes = Buffer.from(body);
  const length = Buffer.alloc(4);
  length.writeInt32BE(bytes.length + 4);
  return Buffer.concat([Buffer.from(type), length, bytes]);
}

/** A result set of text values with its CommandComplete. */
export function rows(columns: readonly string[], values: ReadonlyArray<ReadonlyArray<string | null>>): Buffer {
  const count = Buffer.alloc(2);
  count.writeInt16BE(columns.length);
  const cell = (value: string | null) => {
    const length = Buffer.alloc(4);
    length.writeInt32BE(value === null ? -1 : Buffer.byteLength(value));
    return Buffer.concat([length, Buffer.from(value ?? '')]);
  };
  return Buffer.concat([
    message(
      'T',
      Buffer.concat([count, ...columns.map((name) => Buffer.concat([Buffer.from(`${name}\0`), Buffer.alloc(18)]))]),
    ),
    ...values.map((row) => message('D', Buffer.concat([count, ...row.map(cell)]))),
    message('C', 'SELECT\0'),
  ]);
}

export const ready = message('Z', 'I');

export interface Listener extends AsyncDisposable {
  readonly server: Server;
  readonly url: string;
}

/** A TCP server on 127.0.0.1 that does to every connection what `onSocket` says. */
export async function listen(onSocket: (socket: Socket) => void): Promise<Listener> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    onSocket(socket);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no TCP address');
  return {
    server,
    url: `postgresql://someone:secret-word@127.0.0.1:${address.port}/orders`,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

/** Lets everybody in and answers every query with the same bytes: for conversations that no real server has. */
export async function scriptedServer(version: string, answer: Buffer): Promise<Listener> {
  return await listen((socket) => {
    socket.once('data', () => {
      socket.write(Buffer.concat([message('R', Buffer.alloc(4)), message('S', `server_version\0${version}\0`), ready]));
      socket.on('data', (query: Buffer) => {
        if (query[0] === 0x51) socket.write(answer);
        else if (query[0] === 0x58) socket.end();
      });
    });
  });
}
