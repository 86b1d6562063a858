import { describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { connectReplication } from '../../src/postgres/connection.ts';
import { backupOptions, discard } from './receive.ts';
import { type Listener, listen, message, ready, rows, scriptedServer } from './scripted-server.ts';

describe('a base backup that is cut short', () => {
  const tar = (content: string) => {
    const block = Buffer.alloc(512);
    block.write('PG_VERSION');
    for (const [at, text] of [
      [100, '0000600'],
      [108, '0000032'],
      [116, '0000032'],
      [124, '00000000003'],
      [136, '00000000000'],
      [156, '0'],
    ] as const)
      block.write(text, at);
    block.write('ustar\x0000', 257);
    block.fill(0x20, 148, 156);
    block.write(
      `${block
        .reduce((sum, byte) => sum + byte, 0)
        .toString(8)
        .padStart(6, '0')}\0`,
      148,
    );
    return Buffer.concat([block, Buffer.from(content), Buffer.alloc(512 - content.length), Buffer.alloc(1024)]);
  };
  const start = [
    rows(['recptr', 'tli'], [['0/2000028', '1']]),
    rows(
      ['spcoid', 'spclocation', 'size'],
      [
        ['16384', '/srv/space', '7'],
        [null, null, '9'],
      ],
    ),
  ];
  const copy = (...payloads: Array<string | Buffer>) => [
    message('H', Buffer.alloc(3)),
    ...payloads.map((payload) => message('d', payload)),
    message('c'),
  ];
  const end = [rows(['recptr', 'tli'], [['0/2000100', '1']]), message('C', 'SELECT\0'), ready];
  const data = (bytes: Buffer) => Buffer.concat([Buffer.from('d'), bytes]);
  const whole = tar('17\n');

  const take = async (parts: readonly Buffer[]) => {
    await using fake: Listener = await scriptedServer('17.4', Buffer.concat(parts));
    const connection = await connectReplication({ url: fake.url, applicationName: 'dr-test', log: silentLog });
    try {
      return await connection.baseBackup(backupOptions, discard);
    } finally {
      await connection.close();
    }
  };

  it('is good only when every part of it came', async () => {
    const archives = ['n16384.tar\0/srv/space\0', data(whole), 'nbase.tar\0\0', data(whole)];
    expect(await take([...start, ...copy(...archives, 'm', data(Buffer.from('{}'))), ...end])).toEqual({
      startLsn: 0x2000028n,
      endLsn: 0x2000100n,
      timeline: 1,
    });
    const cases: Record<string, Buffer[]> = {
      'no data directory': [...start, ...copy(...archives.slice(0, 2)), ...end],
      'a tablespace cut off': [
        ...start,
        ...copy('n16384.tar\0/srv/space\0', data(whole.subarray(0, 900)), 'nbase.tar\0\0', data(whole)),
        ...end,
      ],
      'the data directory cut off before the manifest': [
        ...start,
        ...copy('nbase.tar\0\0', data(whole.subarray(0, 1024)), 'm', data(Buffer.from('{}'))),
        ...end,
      ],
      'the data directory cut off at the end': [
        ...start,
        ...copy('nbase.tar\0\0', data(whole.subarray(0, 1024))),
        ...end,
      ],
      'an unknown tablespace': [...start, ...copy('n99.tar\0/x\0', data(whole), ...archives), ...end],
      'no end': [...start, ...copy(...archives), ready],
      'no start': [...copy(...archives), ...end],
    };
    for (const [name, parts] of Object.entries(cases))
      await expect(take(parts), name).rejects.toMatchObject({ kind: 'corrupt' });
  });

  it('is not good when the last word of the server is missing', async () => {
    const answer = Buffer.concat([...start, ...copy('nbase.tar\0\0', data(whole)), ...end.slice(0, 1)]);
    await using fake: Listener = await listen((socket) => {
      socket.once('data', () => {
        socket.write(Buffer.concat([message('R', Buffer.alloc(4)), message('S', 'server_version\x0017.4\0'), ready]));
        socket.once('data', () => socket.end(answer));
      });
    });
    const connection = await connectReplication({ url: fake.url, applicationName: 'dr-test', log: silentLog });
    await expect(connection.baseBackup(backupOptions, discard)).rejects.toMatchObject({ kind: 'unreachable' });
    await connection.close();
  });
});
