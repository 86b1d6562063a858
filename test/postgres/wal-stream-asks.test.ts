import type { Socket } from 'node:net';
import { expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { connectReplication } from '../../src/postgres/connection.ts';
import { until } from './receive.ts';
import { listen, message, ready } from './scripted-server.ts';

const copyBoth = message('W', Buffer.from([0, 0, 0]));
function keepalive(sentEnd: bigint): Buffer {
  const body = Buffer.alloc(18);
  body.write('k');
  body.writeBigUInt64BE(sentEnd, 1);
  return message('d', body);
}

it('asks a server where it is at once, and again only after it has answered', async () => {
  let stream: Socket | undefined;
  let statuses = 0;
  let asked = 0;
  await using server = await listen((socket) => {
    socket.once('data', () => {
      socket.write(Buffer.concat([message('R', Buffer.alloc(4)), message('S', 'server_version\x0017.4\0'), ready]));
      socket.on('data', (bytes: Buffer) => {
        for (let at = 0; at < bytes.length; at += 1 + bytes.readInt32BE(at + 1)) {
          if (bytes[at] === 0x51) {
            stream = socket;
            socket.write(copyBoth);
          } else if (bytes[at] === 0x64 && bytes[at + 5] === 0x72) {
            statuses++;
            asked += bytes[at + 5 + 33] ?? 0;
          } else if (bytes[at] === 0x63) socket.end(Buffer.concat([message('c'), message('C', 'COPY 0\0'), ready]));
        }
      });
    });
  });
  const connection = await connectReplication({ url: server.url, applicationName: 'dr-test', log: silentLog });
  const stop = new AbortController();
  const heard: bigint[] = [];
  const end = connection.streamWal({
    timeline: 1,
    start: 0n,
    signal: stop.signal,
    statusEveryMs: 5,
    askEveryMs: 5,
    durable: () => 0n,
    onWal: () => {},
    onKeepalive: ({ sentEnd }) => heard.push(sentEnd),
  });
  await until(async () => statuses >= 10);
  expect(asked).toBe(1);
  stream?.write(keepalive(100n));
  await until(async () => heard.length === 1 && asked === 2);
  const before = statuses;
  await until(async () => statuses >= before + 10);
  expect(asked).toBe(2);
  expect(heard).toEqual([100n]);
  stop.abort();
  await end.catch(() => {});
  await connection.close();
});
