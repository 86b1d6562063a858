import { readFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Manifest } from '../../../src/backup/manifest.ts';
import type { EntryHead, PackWriter } from '../../../src/backup/pack-writer.ts';
import type { PreviousBackup, PreviousEntry } from '../../../src/backup/previous/previous-backup.ts';
import { restoreBackup } from '../../../src/backup/restore.ts';
import { takeBackup } from '../../../src/backup/take.ts';
import { tempDir } from '../../harness/temp.ts';
import { incrementalWorld, KIB, MIB, Random, type World } from './world.ts';

const PAGE = 8 * KIB;

let world: World;
beforeEach(async () => {
  world = await incrementalWorld();
});

const head = (name: string): EntryHead => ({
  path: Buffer.from(name),
  type: 'file',
  mode: 0o600,
  uid: process.getuid?.() ?? 0,
  gid: process.getgid?.() ?? 0,
  mtimeNs: 0n,
});

async function take(
  pack: (writer: PackWriter, previous: PreviousBackup | undefined) => Promise<void>,
): Promise<Manifest> {
  world.time.nowMs += 60_000;
  const { manifest } = await takeBackup(world.context, {
    resource: 'orders',
    kind: 'database',
    source: 'test',
    allowEmpty: true,
    pack: async (writer, previous) => {
      await pack(writer, previous);
      return { files: 1, notes: [], recoveryPointMs: world.time.now() };
    },
  });
  return manifest;
}

async function put(
  writer: PackWriter,
  name: string,
  content: Buffer,
  previous?: PreviousEntry,
  chunk = 100_000,
): Promise<void> {
  await writer.begin(head(name), content.length, previous);
  for (let at = 0; at < content.length; at += chunk) await writer.write(content.subarray(at, at + chunk));
  await writer.end();
}

async function restored(manifest: Manifest, store = world.west): Promise<(name: string) => Buffer> {
  const target = path.join(await tempDir('restored'), 'content');
  await restoreBackup({ store, manifest, keyRing: world.keyRing, pool: world.context.pool, target });
  return (name) => readFileSync(path.join(target, name));
}

function known(previous: PreviousBackup | undefined, name: string): PreviousEntry {
  const found = previous?.lookup(Buffer.from(name));
  if (!found) throw new Error(`nothing is known of ${name}`);
  return found;
}

/** Lays `blocks` of `content` over what was there. */
async function layOver(
  writer: PackWriter,
  previous: PreviousBackup | undefined,
  name: string,
  content: Buffer,
  blocks: number[],
) {
  await writer.overlay(head(name), known(previous, name), content.length, blocks);
  const changes = Buffer.concat(blocks.map((block) => content.subarray(block * PAGE, (block + 1) * PAGE)));
  for (let at = 0; at < changes.length; at += 30_000) await writer.write(changes.subarray(at, at + 30_000));
  expect(await writer.end()).toBe(content.length);
}

describe('changed blocks laid over the previous backup', () => {
  it.each([1, 2, 3])('seed %i: many generations of grown, cut and changed files come back', async (seed) => {
    const random = new Random(seed);
    const files = new Map<string, Buffer>();
    for (const [name, pages] of [
      ['a', 700],
      ['b', 1300],
      ['c', 200],
      ['d', 513],
    ] as const)
      files.set(name, random.bytes(pages * PAGE));
    let manifest = await take(async (writer) => {
      for (const [name, content] of files) await put(writer, name, content);
    });
    for (let generation = 0; generation < 6; generation++) {
      manifest = await take(async (writer, previous) => {
        expect(previous?.isWhole).toBe(true);
        for (const [name, before] of files) {
          const pages = Math.max(130, before.length / PAGE + random.below(300) - 150);
          const content = Buffer.alloc(pages * PAGE);
          before.copy(content);
          const blocks = new Set<number>();
          // What is new beyond the old end is among the changed blocks, or zeros.
          for (let n = random.below(4) === 0 ? 400 : 9; n > 0; n--) blocks.add(random.below(pages));
          const sorted = [...blocks].sort((a, b) => a - b);
          for (const block of sorted) random.bytes(PAGE).copy(content, block * PAGE);
          await layOver(writer, previous, name, content, sorted);
          files.set(name, content);
        }
      });
      const read = await restored(manifest, generation % 2 === 0 ? world.east : world.west);
      for (const [name, content] of files) expect(read(name).equals(content), name).toBe(true);
    }
    // A backup that reads everything agrees with what was laid over: nothing is stored again.
    const full = await take(async (writer, previous) => {
      for (const [name, content] of files) await put(writer, name, content, previous?.lookup(Buffer.from(name)));
    });
    // Zeros beyond an old end were holes; read, they are blocks.
    expect(full.storedBytes).toBeLessThan(64 * KIB);
    const read = await restored(full);
    for (const [name, content] of files) expect(read(name).equals(content), name).toBe(true);
  });

  it('stores the blocks that have changed, those of several files in one frame; equal ones not even then', async () => {
    const random = new Random(1);
    const content = random.bytes(300 * PAGE);
    await take(async (writer) => {
      await put(writer, 'a', content);
      await put(writer, 'b', content);
    });
    const manifest = await take(async (writer, previous) => {
      random.bytes(PAGE).copy(content, 5 * PAGE);
      await layOver(writer, previous, 'a', content, [4, 5, 6]);
      await layOver(writer, previous, 'b', content, [5]);
    });
    const own = manifest.parts.filter(({ key }) => key.includes(manifest.id));
    expect(own).toHaveLength(1);
    expect(own[0]?.size).toBeLessThan(2 * PAGE + 100);
    const read = await restored(manifest);
    expect(read('a').equals(content) && read('b').equals(content)).toBe(true);
  });

  it('a file that does not change at all costs a line of the index, and keeps what is known of its blocks', async () => {
    const random = new Random(1);
    const content = random.bytes(300 * PAGE);
    await take(async (writer) => await put(writer, 'a', content));
    await take(async (writer, previous) => await layOver(writer, previous, 'a', content, []));
    await take(async (writer, previous) => await writer.reuse(head('a'), known(previous, 'a')));
    const manifest = await take(async (writer, previous) => await put(writer, 'a', content, known(previous, 'a')));
    expect(manifest.storedBytes).toBe(manifest.index.size);
    expect((await restored(manifest))('a').equals(content)).toBe(true);
  });

  it('refuses content that does not fit its blocks, and a file that cannot be used', async () => {
    const random = new Random(1);
    await take(async (writer) => {
      await put(writer, 'a', random.bytes(300 * PAGE));
      await put(writer, 'small', random.bytes(PAGE));
    });
    const overlay = async (writer: PackWriter, previous: PreviousBackup | undefined, bytes: number) => {
      await writer.overlay(head('a'), known(previous, 'a'), 300 * PAGE, [1, 3]);
      await writer.write(random.bytes(bytes));
      await writer.end();
    };
    await expect(take(async (writer, previous) => await overlay(writer, previous, PAGE))).rejects.toThrow(
      /less content/,
    );
    await expect(take(async (writer, previous) => await overlay(writer, previous, 3 * PAGE))).rejects.toThrow(
      /more content/,
    );
    await expect(
      take(async (writer, previous) => await writer.overlay(head('small'), known(previous, 'small'), PAGE, [0])),
    ).rejects.toThrow(/cannot be used by blocks/);
  });
});

describe('what is used again without being read', () => {
  it('keeps content, takes new attributes, and counts as reused; what its facts were is known', async () => {
    const random = new Random(1);
    const [large, small] = [random.bytes(3 * MIB), random.bytes(500)];
    const stat = { size: 1n, mtimeNs: 2n, ctimeNs: 3n, ino: 4n, dev: 5n };
    await take(async (writer) => {
      await put(writer, 'large', large);
      await put(writer, 'small', small);
      await put(writer, 'empty', Buffer.alloc(0));
    });
    const manifest = await take(async (writer, previous) => {
      await writer.reuse(head('moved/large'), known(previous, 'large'), stat);
      await writer.reuse({ ...head('small'), mode: 0o640 }, known(previous, 'small'));
      await writer.reuse(head('empty'), known(previous, 'empty'));
    });
    expect(manifest.reusedBytes).toBe(large.length + small.length);
    expect(manifest.storedBytes).toBe(manifest.index.size);
    const read = await restored(manifest);
    expect(read('moved/large').equals(large) && read('small').equals(small) && read('empty').length === 0).toBe(true);
    await take(async (writer, previous) => {
      const found = known(previous, 'moved/large');
      expect(found.stat).toEqual(stat);
      expect(known(previous, 'small').stat).toBeUndefined();
      expect(known(previous, 'small').entry.mode).toBe(0o640);
      expect([...(previous?.files() ?? [])].map(({ entry }) => entry.path.toString())).toEqual([
        'moved/large',
        'small',
        'empty',
      ]);
      await put(writer, 'large', large, found);
    });
  });

  it('is refused where a vault lacks a part of it', async () => {
    const random = new Random(1);
    const content = random.bytes(9 * MIB);
    const first = await take(async (writer) => await put(writer, 'a', content));
    await world.east.delete([first.parts[1]?.key ?? '']);
    const manifest = await take(async (writer, previous) => {
      const found = known(previous, 'a');
      expect(previous?.isWhole).toBe(false);
      expect(found.isWhole).toBe(false);
      await expect(writer.reuse(head('a'), found)).rejects.toThrow(/must be stored again/);
      await expect(writer.overlay(head('a'), found, content.length, [1])).rejects.toThrow(/cannot be used/);
      await put(writer, 'a', content, found);
    });
    expect(manifest.storedBytes).toBeLessThan(6 * MIB);
    expect((await restored(manifest, world.east))('a').equals(content)).toBe(true);
  });
});

it('a hole that ends amid a block is zeros there: files come back as they were', async () => {
  const manifest = await take(async (writer) => {
    await writer.begin(head('a'), 3 * MIB);
    await writer.write(Buffer.alloc(100, 1));
    await writer.hole(2 * MIB + 77);
    await writer.write(Buffer.alloc(100, 2));
    await writer.hole(33);
    expect(await writer.end()).toBe(2 * MIB + 310);
  });
  const wanted = Buffer.alloc(2 * MIB + 310);
  wanted.fill(1, 0, 100).fill(2, 2 * MIB + 177, 2 * MIB + 277);
  expect((await restored(manifest))('a').equals(wanted)).toBe(true);
});
