import { describe, expect, test } from 'vitest';
import { cutPrevious } from '../../src/backup/cut-previous.ts';
import { planIncrement } from '../../src/backup/database-increment.ts';
import type { IndexEntry } from '../../src/backup/index-format.ts';
import type { Manifest } from '../../src/backup/manifest.ts';
import type { PreviousBackup, PreviousEntry } from '../../src/backup/previous/previous-backup.ts';

const PAGE = 8192;
const PART_BYTES = 16 * 1024 * 1024;

function entryOf(path: string, change: Partial<IndexEntry> = {}): IndexEntry {
  const whole = { position: 0, length: 10 * PAGE, part: 0, frameOffset: 0, frameLength: 9, counter: 0, rawOffset: 0 };
  return {
    path: Buffer.from(path),
    type: 'file',
    mode: 0o600,
    uid: 0,
    gid: 0,
    mtimeNs: 0n,
    size: 10 * PAGE,
    blockBytes: PAGE,
    extents: [{ ...whole, digest: Buffer.alloc(32), skip: 0, runLength: 10 * PAGE }],
    ...change,
  };
}

function known(entry: IndexEntry, isWhole = true): PreviousEntry {
  const blockDigests = (_first: number, count: number) => Buffer.alloc(16 * count, 7);
  const entryKnown = { entry, isWhole, hasBlockDigests: true, blockDigests };
  return entryKnown;
}

interface Facts {
  readonly systemId: string;
  readonly waste: number;
  readonly parts: ReadonlyArray<{ readonly size: number }>;
  /** Something is worth packing anew. */
  readonly rewrites: boolean;
}

function previousBackup(change: Partial<Facts> = {}): PreviousBackup {
  const facts: Facts = { systemId: '77', waste: 0, parts: [], rewrites: true, ...change };
  const database = { systemId: facts.systemId, timeline: 3, startLsn: '0/28', endLsn: '1/0', dataChecksums: true };
  const backup: PreviousBackup = {
    // What nobody asks for here is left out.
    manifest: { database, parts: facts.parts } as unknown as Manifest,
    isWhole: true,
    partBytes: [],
    waste: facts.waste,
    rewriting: () => (facts.rewrites ? { ...backup } : backup),
    lookup: () => undefined,
    files: () => [
      known(entryOf('base/5/16384')),
      known(entryOf('base/5/16385'), false),
      known(entryOf('base/5/small', { blockBytes: 65536 })),
      known(entryOf('base/5/16386.1')),
    ],
  };
  return backup;
}

function server(settings: Record<string, string> = {}, versionNumber = 170_004) {
  const all: Record<string, string> = { summarize_wal: 'on', block_size: '8192', ...settings };
  return { versionNumber, show: async (name: string) => all[name] ?? '' };
}

const facts = { systemId: '77', dataChecksums: true };

describe('what the server is asked for', () => {
  test('only what changed in files that can be laid over', async () => {
    const plan = await planIncrement(server(), previousBackup(), facts, PART_BYTES);
    if (!('from' in plan)) throw new Error(plan.why ?? 'everything');
    expect(plan.from).toMatchObject({ systemId: '77', timeline: 3, startLsn: 0x28n, endLsn: 0x1_0000_0000n });
    expect([...(plan.from.files as Iterable<string>)]).toEqual(['base/5/16384', 'base/5/16386.1']);
  });

  test.each<[string, () => Promise<unknown>]>([
    ['nothing is known of a previous backup', () => planIncrement(server(), undefined, facts, PART_BYTES)],
    ['the server is older than 17', () => planIncrement(server({}, 160_009), previousBackup(), facts, PART_BYTES)],
    [
      'it does not summarize',
      () => planIncrement(server({ summarize_wal: 'off' }), previousBackup(), facts, PART_BYTES),
    ],
    ['its pages are others', () => planIncrement(server({ block_size: '32768' }), previousBackup(), facts, PART_BYTES)],
    ['it is another system', () => planIncrement(server(), previousBackup({ systemId: '78' }), facts, PART_BYTES)],
  ])('everything, as a matter of course, when %s', async (_, plan) => {
    expect(await plan()).toEqual({ why: undefined });
  });

  const wasteful = { waste: 0.51 };
  const crumbs = { parts: Array.from({ length: 257 }, () => ({ size: PART_BYTES / 5 })) };
  test.each<[string, Partial<Facts>, typeof facts, string]>([
    ['pages were written without WAL', {}, { ...facts, dataChecksums: false }, 'data checksums were switched off'],
    ['most of the vault is dead', wasteful, facts, '51 % of the stored bytes that it names are dead'],
    ['there are too many small parts', crumbs, facts, 'names 257 small parts'],
  ])('everything, with a note, when %s', async (_, change, now, why) => {
    expect(await planIncrement(server(), previousBackup(change), now, PART_BYTES)).toEqual({
      why: expect.stringContaining(why),
    });
  });

  test.each([wasteful, crumbs])(
    'only what changed as long as reading everything would not make it tighter',
    async (change) => {
      const plan = await planIncrement(server(), previousBackup({ ...change, rewrites: false }), facts, PART_BYTES);
      expect(plan).toHaveProperty('from');
    },
  );
});

test('a file that was truncated keeps nothing beyond its shortest length', () => {
  const previous = known(entryOf('base/5/16384'));
  const cut = cutPrevious(previous, 4 * PAGE);
  expect(cut.entry.size).toBe(4 * PAGE);
  expect(cut.entry.extents).toMatchObject([{ position: 0, length: 4 * PAGE, skip: 0, runLength: 10 * PAGE }]);
  const digests = cut.blockDigests(2, 5);
  expect([...digests.subarray(0, 32)].every((byte) => byte === 7)).toBe(true);
  expect([...digests.subarray(32)].every((byte) => byte === 0)).toBe(true);
  expect([...cut.blockDigests(6, 2)].every((byte) => byte === 0)).toBe(true);
  expect(cutPrevious(previous, 10 * PAGE)).toBe(previous);
});
