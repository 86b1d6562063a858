import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IncrementalHeader, resultingBytes } from '../../src/postgres/incremental-file.ts';
import { previousManifest } from '../../src/postgres/incremental-manifest.ts';
import { parseRelationFile } from '../../src/postgres/relation-file.ts';

const geometry = { blockBytes: 8192, segmentBlocks: 131072 };

/** A file as the server writes it. */
function incrementalFile(
  blocks: readonly number[],
  kept: number,
  changed: Partial<{ magic: number; count: number }> = {},
) {
  const header = Buffer.alloc(12 + 4 * blocks.length);
  header.writeUInt32LE(changed.magic ?? 0xd3ae1f0d, 0);
  header.writeUInt32LE(changed.count ?? blocks.length, 4);
  header.writeUInt32LE(kept, 8);
  for (const [i, block] of blocks.entries()) header.writeUInt32LE(block, 12 + 4 * i);
  const padding = blocks.length === 0 ? 0 : (8192 - (header.length % 8192)) % 8192;
  const content = blocks.map((block) => Buffer.alloc(8192, block % 251));
  return Buffer.concat([header, Buffer.alloc(padding), ...content]);
}

/** Feeds a file in pieces; gives the changes and everything after the header. */
function feed(file: Buffer, cuts: readonly number[]) {
  const header = new IncrementalHeader('base/5/INCREMENTAL.1', file.length, geometry);
  const rest: Uint8Array[] = [];
  let done = false;
  let at = 0;
  for (const cut of [...cuts, file.length]) {
    const piece = file.subarray(at, at + cut);
    at += piece.length;
    const left = done ? piece : header.write(piece);
    if (left === undefined) continue;
    done = true;
    rest.push(left);
  }
  return { changes: header.changes, rest: Buffer.concat(rest) };
}

describe('header of an incremental file', () => {
  it('comes out whole however the stream is cut', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.integer({ min: 0, max: 131071 }), { maxLength: 30 }),
        fc.integer({ min: 0, max: 131072 }),
        fc.array(fc.integer({ min: 1, max: 9000 }), { maxLength: 40 }),
        (unsorted, kept, cuts) => {
          const blocks = unsorted.sort((a, b) => a - b);
          const { changes, rest } = feed(incrementalFile(blocks, kept), cuts);
          expect([...changes.blocks]).toEqual(blocks);
          expect(changes.keptBlocks).toBe(kept);
          expect(rest.length).toBe(blocks.length * 8192);
          expect(blocks.every((block, i) => rest[i * 8192] === block % 251)).toBe(true);
          expect(resultingBytes(changes)).toBe(Math.max(kept, (blocks.at(-1) ?? -1) + 1) * 8192);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('needs no padding where the block numbers end with a block', () => {
    const blocks = Array.from({ length: (8192 - 12) / 4 }, (_, i) => 2 * i);
    expect(feed(incrementalFile(blocks, 5000), [8191, 1]).rest.length).toBe(blocks.length * 8192);
  });

  it.each<[string, () => Buffer]>([
    ['another magic number', () => incrementalFile([1], 2, { magic: 1 })],
    ['more blocks than it has', () => incrementalFile([1], 2, { count: 2 })],
    ['fewer blocks than it has', () => incrementalFile([1, 2], 2, { count: 1 })],
    ['more blocks than a segment', () => incrementalFile([], 0, { count: 131073 })],
    ['more kept blocks than a segment', () => incrementalFile([], 131073)],
    ['a block beyond the segment', () => incrementalFile([131072], 1)],
    ['a block twice', () => incrementalFile([7, 7], 1)],
    ['blocks out of order', () => incrementalFile([7, 6], 1)],
    ['too few bytes for a header', () => Buffer.alloc(11)],
    ['a header that ends early', () => incrementalFile([], 1).subarray(0, 8)],
  ])('refuses %s', (_, file) => {
    expect(() => feed(file(), [])).toThrow(expect.objectContaining({ name: 'DrError', kind: 'corrupt' }));
  });
});

describe('path of a relation file', () => {
  it.each([
    ['base/5/16384', { relation: '1663/5/16384', fork: 'main', segment: 0 }],
    ['base/5/16384.12', { relation: '1663/5/16384', fork: 'main', segment: 12 }],
    ['base/5/16384_vm.1', { relation: '1663/5/16384', fork: 'vm', segment: 1 }],
    ['base/5/16384_init', { relation: '1663/5/16384', fork: 'init', segment: 0 }],
    ['global/1262', { relation: '1664/0/1262', fork: 'main', segment: 0 }],
    ['pg_tblspc/777/PG_17_202406281/5/1', { relation: '777/5/1', fork: 'main', segment: 0 }],
  ])('%s', (path, file) => {
    expect(parseRelationFile(path)).toEqual(file);
  });

  it.each([
    'base/5/PG_VERSION',
    'base/5/t3_16384',
    'global/pg_control',
    'pg_xact/0000',
    'base/5/16384.old',
    'x/base/5/1',
  ])('%s is none', (path) => {
    expect(parseRelationFile(path)).toBeUndefined();
  });
});

describe('manifest of the previous backup', () => {
  it('names main forks only and ends with the digest of everything before', async () => {
    const files = ['base/5/1', 'base/5/1_vm', 'base/5/1_fsm', 'PG_VERSION', 'global/1262', 'pg_tblspc/9/PG_17_1/5/2.1'];
    const pieces: Buffer[] = [];
    const previous = {
      systemId: '7312345678901234567',
      timeline: 3,
      startLsn: 0x1_0000_0028n,
      endLsn: 0x1_0000_0100n,
      files,
    };
    for await (const piece of previousManifest(previous)) pieces.push(piece);
    const text = Buffer.concat(pieces).toString();
    expect(text).toContain('"System-Identifier": 7312345678901234567,');
    const manifest: unknown = JSON.parse(text);
    expect(manifest).toMatchObject({
      'PostgreSQL-Backup-Manifest-Version': 2,
      Files: [{ Path: 'base/5/1' }, { Path: 'global/1262' }, { Path: 'pg_tblspc/9/PG_17_1/5/2.1' }],
      'WAL-Ranges': [{ Timeline: 3, 'Start-LSN': '1/28', 'End-LSN': '1/100' }],
    });
  });
});
