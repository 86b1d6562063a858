import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import {
  type ByteSource,
  backend,
  encodeQuery,
  encodeStatus,
  MessageReader,
  parseDataRow,
  parseParameterStatus,
  parseRowDescription,
  parseServerMessage,
  readClockMs,
} from '../../src/postgres/wire.ts';

function message(type: number, body: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head[0] = type;
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

/** Delivers `bytes` in pieces, always through the same memory, and spoils it between reads: a retained view would show. */
function source(bytes: Buffer, sizes: readonly number[]): ByteSource {
  const shared = Buffer.alloc(64 * 1024);
  let at = 0;
  let turn = 0;
  return {
    read: async () => {
      shared.fill(0xee);
      if (at === bytes.length) return undefined;
      const size = Math.min(sizes[turn++ % sizes.length] ?? 1, bytes.length - at, shared.length);
      bytes.copy(shared, 0, at, at + size);
      at += size;
      return shared.subarray(0, size);
    },
  };
}

const bodies = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 });
const cuts = fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 8 });

describe('MessageReader', () => {
  it('gives the same messages wherever packets are cut, read as views, whole, in parts or skipped', async () => {
    await fc.assert(
      fc.asyncProperty(
        bodies,
        cuts,
        fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1 }),
        async (list, sizes, ways) => {
          const stream = Buffer.concat(list.map((body) => message(backend.copyData, body)));
          const reader = new MessageReader(source(stream, sizes), 'test');
          for (const [index, body] of list.entries()) {
            expect(await reader.next()).toBe(backend.copyData);
            expect(reader.left).toBe(body.length);
            const way = ways[index % ways.length];
            if (way === 0) continue;
            const got: Buffer[] = [];
            if (way === 1) while (reader.left > 0) got.push(Buffer.from(await reader.view()));
            else if (way === 2) got.push(Buffer.from(await reader.rest()));
            else {
              got.push(Buffer.from(await reader.take(Math.floor(body.length / 2))));
              while (reader.left > 0) got.push(Buffer.from(await reader.view()));
            }
            expect(Buffer.concat(got)).toEqual(Buffer.from(body));
          }
          await expect(reader.next()).rejects.toMatchObject({ kind: 'unreachable' });
        },
      ),
      { numRuns: 200 },
    );
  });

  it('says that the server is gone when a message is cut off', async () => {
    const whole = message(backend.dataRow, Buffer.alloc(100));
    const reader = new MessageReader(source(whole.subarray(0, 50), [7]), 'host:1/x');
    await reader.next();
    await expect(reader.rest()).rejects.toMatchObject({ kind: 'unreachable', where: 'host:1/x', retryable: true });
  });

  it('refuses what is not PostgreSQL', async () => {
    const reader = new MessageReader(source(Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), [100]), 'host:80/x');
    await reader.next().then(
      async () => await expect(reader.rest()).rejects.toMatchObject({ kind: 'corrupt' }),
      (error) => expect(error).toMatchObject({ kind: 'corrupt' }),
    );
    const nothing = new MessageReader(source(Buffer.alloc(20), [100]), 'host:80/x');
    await expect(nothing.next()).rejects.toBeInstanceOf(DrError);
  });

  it('refuses to take more than the message has', async () => {
    const reader = new MessageReader(source(message(backend.copyData, Buffer.alloc(3)), [100]), 'x');
    await reader.next();
    await expect(reader.take(4)).rejects.toMatchObject({ kind: 'corrupt' });
  });
});

describe('messages', () => {
  it('decodes rows, columns, settings and errors', () => {
    const column = (name: string) => Buffer.concat([Buffer.from(`${name}\0`), Buffer.alloc(18)]);
    expect(parseRowDescription(Buffer.concat([Buffer.from([0, 2]), column('recptr'), column('tli')]))).toEqual([
      'recptr',
      'tli',
    ]);
    const row = Buffer.concat([
      Buffer.from([0, 3, 0, 0, 0, 1, 0xff]),
      Buffer.from([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
    ]);
    expect(parseDataRow(row)).toEqual([Buffer.from([0xff]), null, Buffer.alloc(0)]);
    expect(parseParameterStatus(Buffer.from('server_version\x0017.4\0'))).toEqual({
      name: 'server_version',
      value: '17.4',
    });
    expect(
      parseServerMessage(Buffer.from('SFEHLER\0VERROR\0C55006\0Mbelegt\0Ddetail\0RReplicationSlotAcquire\0\0')),
    ).toEqual({
      severity: 'ERROR',
      sqlstate: '55006',
      message: 'belegt',
      detail: 'detail',
      hint: undefined,
      routine: 'ReplicationSlotAcquire',
    });
  });

  it('encodes queries and status', () => {
    expect(encodeQuery('SHOW é')).toEqual(Buffer.from('Q\0\0\0\x0cSHOW \xc3\xa9\0', 'latin1'));
    const clockMs = Date.UTC(2026, 10, 23, 5, 0, 0);
    const status = encodeStatus({ written: 0x1_0000_0002n, flushed: 3n, applied: 0n, clockMs, replyRequested: true });
    expect(status.length).toBe(39);
    expect(status.readInt32BE(1)).toBe(38);
    expect(status.toString('latin1', 0, 1)).toBe('d');
    expect(status.toString('latin1', 5, 6)).toBe('r');
    expect(status.readBigUInt64BE(6)).toBe(0x1_0000_0002n);
    expect(status.readBigUInt64BE(14)).toBe(3n);
    expect(readClockMs(status, 30)).toBe(clockMs);
    expect(status[38]).toBe(1);
  });
});
