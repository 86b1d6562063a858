import { createHash, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BlockPieces, FrameBuffers, WalBlock } from '../../../src/backup/wal/block.ts';
import { WalClock } from '../../../src/backup/wal/clock.ts';
import {
  contiguousEnd,
  coveringPieces,
  nextWalNames,
  parseHistory,
  parseWalKey,
  walKey,
} from '../../../src/backup/wal/names.ts';
import { decodeWalObject, readWalHeader, splitWalObject } from '../../../src/backup/wal/object.ts';
import { type SealedWal, WalSealer } from '../../../src/backup/wal/sealer.ts';
import { DrError } from '../../../src/base/errors.ts';
import type { DataKey } from '../../../src/vault/keys.ts';
import { MemoryStore } from '../../../src/vault/memory-store.ts';
import { encodeRecord } from '../../../src/vault/record.ts';
import { sha256 } from '../../../src/vault/seal.ts';
import { SealPool } from '../../../src/vault/seal-pool.ts';
import { bodyBytes } from '../../../src/vault/store.ts';

const MIB = 1024 * 1024;
const systemId = '7711238064300980214';
const dataKey: DataKey = { id: 'ab'.repeat(16), secret: randomBytes(32) };
const location = 'memory://test';
let pool: SealPool;

beforeAll(() => {
  pool = new SealPool(2);
});
afterAll(() => pool.close());

function sealer(key: DataKey | 'plain' = dataKey): WalSealer {
  return new WalSealer({ systemId, key: key === 'plain' ? undefined : key, pool, level: 1 });
}

async function sealed(raw: Buffer, start: bigint, by: WalSealer, segmentBytes = 16 * MIB): Promise<SealedWal> {
  const views = [];
  for (let at = 0; at < raw.length; at += 4 * MIB) views.push({ view: raw.subarray(at, at + 4 * MIB) });
  const rawSha256 = sha256(raw).toString('hex');
  return (await by.seal({ timeline: 1, start, segmentBytes, rawSha256, serverClockMs: 5, endClockMs: 6 }, views))
    .object;
}

const keyOf = async () => dataKey;

async function refusal(work: () => unknown): Promise<DrError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof DrError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe('a WAL object', () => {
  test.each([
    ['a piece of a few bytes', 100, 0x2000000n + 5n],
    ['a piece that is sealed by the pool', MIB, 0x2000000n],
    ['a whole segment in four frames', 16 * MIB, 0x2000000n],
  ])('%s comes back as it was, sealed and plain', async (_, length, start) => {
    const raw = Buffer.concat([randomBytes(length / 2), Buffer.alloc(length / 2, 'wal')]);
    for (const key of [dataKey, 'plain'] as const) {
      const object = await sealed(raw, start, sealer(key));
      const { header, raw: back } = await decodeWalObject(bodyBytes(object.body), object.key, location, keyOf);
      expect(back.equals(raw)).toBe(true);
      expect(header).toMatchObject({ systemId, timeline: 1, length, complete: length === 16 * MIB, serverClockMs: 5 });
      expect(header.keyId).toBe(key === 'plain' ? undefined : key.id);
      expect(object.bytes).toBe(bodyBytes(object.body).length);
    }
  });

  test('counters never repeat below one key', async () => {
    const by = sealer();
    const counters = new Set<number>();
    const objects = await Promise.all([
      sealed(randomBytes(9 * MIB), 0n, by),
      sealed(randomBytes(10), 100n, by),
      sealed(randomBytes(5 * MIB), 0n, by),
    ]);
    for (const { header } of [...objects, by.history('k', 2, Buffer.from('1\t0/0\tx'), [], 16 * MIB)]) {
      const frames = Math.ceil(header.length / (4 * MIB));
      for (let i = 0; i < frames; i++) counters.add(header.counter + i);
    }
    expect(counters.size).toBe(3 + 1 + 2 + 1);
  });

  test('every single flipped byte is noticed, with and without a key', async () => {
    for (const key of [dataKey, 'plain'] as const) {
      const object = await sealed(randomBytes(40), 0x2000000n, sealer(key));
      const good = Buffer.from(bodyBytes(object.body));
      for (let at = 0; at < good.length; at++) {
        const bad = Buffer.from(good);
        bad[at] = (bad[at] ?? 0) ^ 0x20;
        const error = await refusal(() => splitWalObject(bad, object.key, location));
        expect(['corrupt', 'refused']).toContain(error.kind);
        expect(error.where).toContain(object.key);
      }
      for (const length of [0, 7, 8, 300, good.length - 1]) {
        expect((await refusal(() => splitWalObject(good.subarray(0, length), object.key, location))).kind).toBe(
          'corrupt',
        );
      }
    }
  });

  test('someone who can recompute the outer checksum still cannot change the content or the header', async () => {
    const object = await sealed(randomBytes(500), 0x2000000n, sealer());
    const good = Buffer.from(bodyBytes(object.body));
    const reseal = (bytes: Buffer) => Buffer.concat([bytes, createHash('sha256').update(bytes).digest()]);
    const flipped = Buffer.from(good.subarray(0, -32));
    flipped[flipped.length - 20] = (flipped[flipped.length - 20] ?? 0) ^ 1;
    expect((await refusal(() => decodeWalObject(reseal(flipped), object.key, location, keyOf))).kind).toBe('corrupt');
    // A header that claims another clock, with a valid digest of its own.
    const headerEnd = 8 + good.readUInt32BE(4);
    const header = encodeRecord({ ...object.header, serverClockMs: 9_999 });
    const prefix = Buffer.from(good.subarray(0, 8));
    prefix.writeUInt32BE(header.length, 4);
    const forged = reseal(Buffer.concat([prefix, header, good.subarray(headerEnd, -32)]));
    expect(splitWalObject(forged, object.key, location).header.serverClockMs).toBe(9_999);
    expect((await refusal(() => decodeWalObject(forged, object.key, location, keyOf))).kind).toBe('corrupt');
  });

  test('under another name it is refused', async () => {
    const object = await sealed(randomBytes(100), 0x2000000n, sealer());
    const bytes = bodyBytes(object.body);
    for (const key of [
      walKey(systemId, 1, 0x3000000n, 0x3000064n, 16 * MIB),
      walKey(systemId, 2, 0x2000000n, 0x2000064n, 16 * MIB),
      walKey('1', 1, 0x2000000n, 0x2000064n, 16 * MIB),
      walKey(systemId, 1, 0x2000000n, 0x3000000n, 16 * MIB),
    ]) {
      expect((await refusal(() => splitWalObject(bytes, key, location))).kind).toBe('corrupt');
    }
  });

  test('a newer format is refused, not guessed at', async () => {
    const header = encodeRecord({ format: 2, anything: true });
    const prefix = Buffer.from('DRW1\0\0\0\0');
    prefix.writeUInt32BE(header.length, 4);
    const store = new MemoryStore({ name: 'v' });
    const key = walKey(systemId, 1, 0n, 5n, 16 * MIB);
    await store.create(key, [prefix, header]);
    expect(await refusal(() => readWalHeader(store, key))).toMatchObject({ kind: 'refused' });
  });

  test('the header alone is read with one small range, however large the object', async () => {
    const store = new MemoryStore({ name: 'v' });
    const object = await sealed(randomBytes(2 * MIB), 0n, sealer());
    await store.create(object.key, object.body);
    expect(await readWalHeader(store, object.key, object.bytes)).toEqual(object.header);
    expect(store.stats.requests.read).toBe(1);
    expect(store.stats.bytesIn).toBeLessThanOrEqual(1024);
  });
});

describe('names and ranges', () => {
  test('keys say what they hold, and nothing else is taken for WAL', () => {
    const piece = walKey(systemId, 1, 0x2000010n, 0x2000020n, 16 * MIB);
    expect(piece).toBe(`wal/${systemId}/00000001/000000010000000000000002.00000010-00000020`);
    expect(parseWalKey(piece)).toMatchObject({ kind: 'piece', segment: '000000010000000000000002', from: 16, to: 32 });
    expect(parseWalKey(`wal/${systemId}/00000002.history`)).toMatchObject({ kind: 'history', timeline: 2 });
    for (const key of [
      'wal/x/00000001.history',
      `${piece}0`,
      piece.replace('00000010-', '00000030-'),
      'keys/a/b.json',
    ]) {
      expect(parseWalKey(key)).toBeUndefined();
    }
    expect(parseWalKey(`wal/${systemId}/00000002/000000010000000000000002`)).toBeUndefined();
  });

  test('the next names cross the 4 GiB boundary as PostgreSQL does', () => {
    expect(nextWalNames('0000000100000000000000FE', 16 * MIB, 3)).toEqual([
      '0000000100000000000000FF',
      '000000010000000100000000',
      '000000010000000100000001',
    ]);
    expect(nextWalNames('00000002.history', 16 * MIB)).toEqual([]);
  });

  test('a history file is read as PostgreSQL writes it', () => {
    const text = '1\t0/A000198\tbefore 2000-01-01 00:00:00+00\n\n2\t1/0\tno recovery target specified\n';
    expect(parseHistory(Buffer.from(text), 'h')).toEqual([
      { timeline: 1, end: 0xa000198n },
      { timeline: 2, end: 0x100000000n },
    ]);
    expect(() => parseHistory(Buffer.from('nonsense'), 'h')).toThrow(/history/);
  });

  test('pieces that overlap in any way cover exactly what is there', () => {
    const piece = fc.tuple(fc.nat(60), fc.integer({ min: 1, max: 20 })).map(([from, n]) => ({ from, to: from + n }));
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
        const there = new Set(pieces.flatMap(({ from, to }) => Array.from({ length: to - from }, (_, i) => from + i)));
        let end = 0;
        while (there.has(end)) end++;
        const cover = coveringPieces(pieces, 0, 1000);
        expect(cover.end).toBe(end);
        let at = 0;
        for (const { from, to } of cover.chosen) {
          expect(from <= at && to > at).toBe(true);
          at = to;
        }
        expect(at).toBe(end);
        const ranges = pieces.map(({ from, to }) => ({ start: BigInt(from), end: BigInt(to) }));
        expect(contiguousEnd(ranges, 0n)).toBe(BigInt(end));
      }),
    );
  });
});

describe('a block', () => {
  test('gives back any stretch of what was appended in any portions', () => {
    const raw = randomBytes(9 * MIB);
    const block = new WalBlock(1, 0n, 16 * MIB, new FrameBuffers(16 * MIB));
    for (let at = 0; at < raw.length; ) {
      const length = Math.min(raw.length - at, 1 + ((at * 7919) % 300_000));
      expect(block.append(raw.subarray(at, at + length))).toBe(length);
      at += length;
    }
    for (const [from, to] of [
      [0, raw.length],
      [5, 6],
      [4 * MIB - 1, 4 * MIB + 1],
      [3 * MIB, 9 * MIB],
    ] as const) {
      expect(Buffer.concat(block.views(from, to)).equals(raw.subarray(from, to))).toBe(true);
      expect(block.sha256(from, to)).toBe(sha256(raw.subarray(from, to)).toString('hex'));
    }
    const rest = randomBytes(8 * MIB);
    expect(block.append(rest)).toBe(7 * MIB);
    expect(block.isFull).toBe(true);
  });

  test('thousands of small flushes leave few pieces, and never a hole', () => {
    const pieces = new BlockPieces();
    const there = new Map<string, { from: number; to: number }>();
    let written = 0;
    for (let to = 10; to <= 50_000; to += 10) {
      const { from, level } = pieces.next();
      const key = `${from}-${to}`;
      there.set(key, { from, to });
      written += to - from;
      for (const gone of pieces.stored({ from, to, key, level })) there.delete(gone);
      expect(coveringPieces([...there.values()], 0, to).end).toBe(to);
    }
    expect(there.size).toBeLessThanOrEqual(16 * 4);
    // Every byte is written again at most once for each level.
    expect(written).toBeLessThan(5 * 50_000);
  });
});

describe('the clock of the archive', () => {
  test('says only what the WAL before it proves, also after very many samples', () => {
    const clock = new WalClock();
    expect(clock.coveredAt(100n)).toBeUndefined();
    for (let i = 1; i <= 20_000; i++) clock.note(BigInt(i * 10), { serverMs: 1000 + i, localMs: i * 30 });
    for (const lsn of [10n, 5_005n, 199_999n, 200_000n, 300_000n]) {
      const covered = clock.coveredAt(lsn)?.serverMs ?? 0;
      expect(covered).toBeLessThanOrEqual(1000 + Number(lsn / 10n));
    }
    expect(clock.coveredAt(200_000n)?.serverMs).toBe(21_000);
    clock.note(200_000n, { serverMs: 99_000, localMs: 700_000 });
    expect(clock.coveredAt(200_000n)?.serverMs).toBe(99_000);
  });
});
