import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { expect, it } from 'vitest';
import { type Extent, encodeEntry, type IndexEntry, treeChecksum } from '../../../src/backup/index-format.ts';
import { BLOCK_DIGEST_BYTES, type StatFacts } from '../../../src/backup/previous/previous-backup.ts';
import { type SavedEntry, StateReader } from '../../../src/backup/previous/state-reader.ts';
import { StateWriter } from '../../../src/backup/previous/state-writer.ts';
import type { Log } from '../../../src/base/log.ts';
import { silentLog } from '../../../src/base/log.ts';
import { liveBufferBytes } from '../../harness/memory.ts';
import { tempDir } from '../../harness/temp.ts';
import { Random } from './world.ts';

interface Known {
  readonly entry: IndexEntry;
  readonly digests: Buffer | undefined;
  readonly stat: StatFacts | undefined;
}

const unknown = Buffer.alloc(BLOCK_DIGEST_BYTES);
const facts = { resource: 'uploads', backupId: 'b', manifestSha256: 'ab', partBytes: [[10, 5]] as const };

function file(name: Buffer, size: number, pieces: number): IndexEntry {
  const extents = Array.from({ length: pieces }, (_, n): Extent => {
    const run = { part: 0, frameOffset: n * 100, frameLength: 90, counter: n, rawOffset: 0, skip: 0 };
    const length = Math.floor(size / pieces);
    return {
      ...run,
      position: n * length,
      length,
      runLength: length,
      digest: createHash('sha256').update(`${n}`).digest(),
    };
  });
  const head = { path: name, type: 'file' as const, mode: 0o644, uid: 1, gid: 1, mtimeNs: -5n, size, extents };
  return { ...head, checksum: treeChecksum(extents, size), ...(pieces > 1 ? { blockBytes: 8192 } : {}) };
}

/** A few hundred small files, one of many extents and digests, and names of every kind. */
function manyFiles(count: number): Known[] {
  const small = Array.from({ length: count }, (_, n): Known => {
    const stat = { size: BigInt(n), mtimeNs: -1n, ctimeNs: 2n ** 60n, ino: 7n, dev: 1n };
    return {
      entry: file(Buffer.from(`folder/file-${n}`), 100 + n, 1),
      digests: undefined,
      stat: n % 2 ? stat : undefined,
    };
  });
  const large = { entry: file(Buffer.from([0x66, 0xff, 0x80]), 8192 * 1300, 40), stat: undefined };
  return [...small, { ...large, digests: randomBytes(1300 * BLOCK_DIGEST_BYTES) }];
}

async function written(known: readonly Known[]): Promise<string> {
  const folder = path.join(await tempDir('state'), 'previous', 'uploads');
  const writer = new StateWriter(folder, silentLog);
  await Promise.all(known.map(({ entry, digests, stat }) => writer.add(entry, encodeEntry(entry), digests, stat)));
  expect(await writer.finish(facts)).toBe(true);
  expect(readdirSync(folder)).toEqual(['b']);
  return path.join(folder, 'b');
}

function opened(place: string): StateReader {
  const reader = StateReader.open(place);
  if (typeof reader === 'string') throw new Error(reader);
  return reader;
}

function expectKnown(reader: StateReader, { entry, digests, stat }: Known, saved: SavedEntry | undefined): void {
  expect(saved?.entry).toEqual(entry);
  expect(saved?.stat).toEqual(stat);
  if (!saved || !digests) return;
  const blocks = digests.length / BLOCK_DIGEST_BYTES;
  for (const [first, count] of [
    [0, blocks],
    [500, 30],
    [511, 2],
    [blocks - 1, 1],
  ] as const) {
    const from = first * BLOCK_DIGEST_BYTES;
    expect(reader.digests(saved, first, count)).toEqual(digests.subarray(from, from + count * BLOCK_DIGEST_BYTES));
  }
  // Beyond the end nothing is known.
  expect(reader.digests(saved, blocks, 3)).toEqual(Buffer.alloc(3 * BLOCK_DIGEST_BYTES));
}

it('gives back what was written, and nothing for other names', async () => {
  const known = manyFiles(3000);
  const place = await written(known);
  expect(statSync(place).mode & 0o777).toBe(0o600);
  expect(statSync(path.dirname(place)).mode & 0o777).toBe(0o700);
  const reader = opened(place);
  expect(reader.facts).toEqual(facts);
  for (const each of known) expectKnown(reader, each, reader.find(each.entry.path));
  for (let n = 0; n < 1000; n++) expect(reader.find(Buffer.from(`folder/file-${n}x`))).toBeUndefined();
  expect([...reader.all()].map(({ entry }) => entry.path)).toEqual(known.map(({ entry }) => entry.path));
  expect(reader.damaged).toBe(0);
  reader.close();
});

it('one that is empty knows nothing', async () => {
  const reader = opened(await written([]));
  expect(reader.find(Buffer.from('a'))).toBeUndefined();
  expect([...reader.all()]).toEqual([]);
  reader.close();
});

it('damaged or cut off anywhere, it gives the truth or nothing', async () => {
  const known = manyFiles(200);
  const place = await written(known);
  const good = readFileSync(place);
  const random = new Random(1);
  let [refused, found, missed] = [0, 0, 0];
  const look = (bytes: Buffer, what: string) => {
    writeFileSync(place, bytes);
    const reader = StateReader.open(place);
    if (typeof reader === 'string') {
      expect(reader).toMatch(/damaged|cannot be read/);
      refused++;
      return;
    }
    for (const each of known) {
      const saved = reader.find(each.entry.path);
      if (!saved) missed++;
      else {
        found++;
        if (!isDeepStrictEqual([saved.entry, saved.stat], [each.entry, each.stat])) throw new Error(`wrong: ${what}`);
        for (let at = 0; at < saved.blocks; at += 100) {
          const digests = reader.digests(saved, at, 100);
          const from = at * BLOCK_DIGEST_BYTES;
          const wanted = each.digests?.subarray(from, from + 100 * BLOCK_DIGEST_BYTES) ?? Buffer.alloc(0);
          for (let i = 0; i < wanted.length; i += BLOCK_DIGEST_BYTES) {
            const digest = digests.subarray(i, i + BLOCK_DIGEST_BYTES);
            const isKnown = digest.equals(wanted.subarray(i, i + BLOCK_DIGEST_BYTES));
            if (!isKnown && !digest.equals(unknown)) throw new Error(`wrong digest: ${what}`);
          }
        }
      }
    }
    expect(reader.damaged > 0 || missed > 0, what).toBe(true);
    reader.close();
  };
  for (let n = 0; n < 150; n++) {
    const bytes = Buffer.from(good);
    const at = random.below(bytes.length);
    bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
    look(bytes, `bit of byte ${at}`);
  }
  for (let n = 0; n < 20; n++) look(good.subarray(0, random.below(good.length)), 'cut off');
  // A page that never reached the disk.
  for (let n = 0; n < 20; n++) {
    const bytes = Buffer.from(good);
    const at = random.below(bytes.length);
    look(bytes.fill(0, at, Math.min(at + 4096, bytes.length)), `zeros from ${at}`);
  }
  expect(refused).toBeGreaterThan(20);
  expect(found).toBeGreaterThan(1000);
  expect(missed).toBeGreaterThan(0);
});

it('a disk that fails costs the state, not the backup', async () => {
  const warnings: string[] = [];
  const log: Log = { ...silentLog, warn: (_facts, sentence) => warnings.push(sentence) };
  const folder = path.join(await tempDir('state'), 'file', 'uploads');
  writeFileSync(path.dirname(folder), 'in the way');
  const writer = new StateWriter(folder, log);
  for (const { entry, digests, stat } of manyFiles(3)) await writer.add(entry, encodeEntry(entry), digests, stat);
  expect(await writer.finish(facts)).toBe(false);
  expect(warnings).toHaveLength(1);
});

it('many files need little memory: 16 bytes each', async () => {
  const folder = path.join(await tempDir('state'), 'uploads');
  const writer = new StateWriter(folder, silentLog);
  const before = liveBufferBytes();
  const entry = file(Buffer.from('x'), 100, 1);
  const line = Buffer.from('a line'.repeat(2));
  for (let n = 0; n < 200_000; n++) {
    await writer.add({ ...entry, path: Buffer.from(`folder/file-${n}`) }, line, undefined, undefined);
  }
  await expect.poll(() => liveBufferBytes() - before).toBeLessThan(8 * 1024 * 1024);
  expect(await writer.finish(facts)).toBe(true);
});
