import { createSocket } from 'node:dgram';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** What becomes of an answer on its way back: the bytes to pass on, or nothing for one that is lost. */
export type Mangle = (answer: Buffer, transport: 'udp' | 'tcp') => Buffer | undefined;

/** Stands between a client and a real name server, by UDP and TCP on one loopback port. */
export interface DnsProxy extends AsyncDisposable {
  /** `127.0.0.1:5301`. */
  readonly server: string;
  mangle: Mangle;
}

export async function startDnsProxy(target: { readonly address: string; readonly port: number }): Promise<DnsProxy> {
  const sockets = new Set<Socket>();
  const tcp = createServer((client) => {
    const upstream = connect(target.port, target.address);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
      socket.on('error', () => socket.destroy());
    }
    client.pipe(upstream);
    let received = Buffer.alloc(0);
    upstream.on('data', (bytes) => {
      received = Buffer.concat([received, bytes]);
      if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
      const answer = proxy.mangle(received.subarray(2), 'tcp');
      if (answer === undefined) return void client.destroy();
      const length = Buffer.alloc(2);
      length.writeUInt16BE(answer.length);
      client.end(Buffer.concat([length, answer]));
    });
  });
  await new Promise<void>((resolve) => tcp.listen(0, '127.0.0.1', resolve));
  const { port } = tcp.address() as AddressInfo;
  const udp = createSocket('udp4');
  udp.on('message', (bytes, from) => {
    const upstream = createSocket('udp4');
    upstream.on('message', (reply) => {
      const answer = proxy.mangle(reply, 'udp');
      if (answer !== undefined) udp.send(answer, from.port, from.address);
      upstream.close();
    });
    upstream.send(bytes, target.port, target.address);
  });
  await new Promise<void>((resolve, reject) => {
    udp.once('error', reject);
    udp.bind(port, '127.0.0.1', resolve);
  });
  const proxy: DnsProxy = {
    server: `127.0.0.1:${port}`,
    mangle: (answer) => answer,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => tcp.close(resolve));
      await new Promise<void>((resolve) => udp.close(() => resolve()));
    },
  };
  return proxy;
}
