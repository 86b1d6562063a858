import { randomBytes } from 'node:crypto';
import {
  appendFileSync,
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import type { BackupContext, TakenBackup } from '../../../src/backup/context.ts';
import { PackWriter } from '../../../src/backup/pack-writer.ts';
import { restoreBackup } from '../../../src/backup/restore.ts';
import { takeDirectoryBackup } from '../../../src/backup/take-directory.ts';
import { Proven } from '../../../src/backup/tree/proven.ts';
import { libc } from '../../../src/base/libc.ts';
import type { MemoryStore } from '../../../src/vault/memory-store.ts';
import { tempDir } from '../../harness/temp.ts';
import { backupWorld } from '../fixture.ts';

const MINUTE = 60_000;
const MIB = 1024 * 1024;

let world: Awaited<ReturnType<typeof backupWorld>>;
let context: BackupContext;
let root: string;
/** How much later than now it is for the backups: files written a moment ago then are old enough to prove something. */
let laterMs: number;

beforeAll(async () => {
  world = await backupWorld();
});
afterAll(async () => await world.pool.close());

beforeEach(async () => {
  root = path.join(await tempDir('unchanged'), 'root');
  mkdirSync(root);
  laterMs = 2 * MINUTE;
  const scratch = await tempDir('scratch');
  const clock = { ...world.context.clock, now: () => Date.now() + laterMs };
  context = { ...world.context, scratch, clock, partBytes: MIB };
});
afterEach(() => vi.restoreAllMocks());

const resource = () => path.basename(path.dirname(root)).toLowerCase();

/** Takes a backup and tells which files were read and how many bytes were stored. */
async function take(more: Partial<BackupContext> = {}): Promise<TakenBackup & { read: string[]; kept: string[] }> {
  const begin = vi.spyOn(PackWriter.prototype, 'begin');
  const reuse = vi.spyOn(PackWriter.prototype, 'reuse');
  const source = { name: resource(), kind: 'data' as const, path: root, exclude: [], allowEmpty: false };
  const taken = await takeDirectoryBackup({ ...context, ...more }, source);
  const pathsOf = (calls: ReadonlyArray<readonly [{ readonly path: Buffer }, ...unknown[]]>) =>
    calls.map(([head]) => head.path.toString()).sort();
  const [read, kept] = [pathsOf(begin.mock.calls), pathsOf(reuse.mock.calls)];
  vi.restoreAllMocks();
  return { ...taken, read, kept };
}

async function restored({ manifest }: TakenBackup, place = 0): Promise<string> {
  const store = world.stores[place];
  if (!store) throw new Error('no such vault');
  const target = path.join(await tempDir('restored'), 'root');
  await restoreBackup({ store, manifest, keyRing: world.keyRing, pool: world.pool, target });
  return target;
}

function write(name: string, content: string | Buffer): void {
  mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
  writeFileSync(path.join(root, name), content);
}

test('what has not changed is not read again, however often; every vault alone restores it', async () => {
  const contents = new Map([
    ['a/small', randomBytes(5000)],
    ['a/none', Buffer.alloc(0)],
    ['large', randomBytes(9 * MIB + 17)],
  ]);
  for (const [name, content] of contents) write(name, content);
  expect((await take()).read).toEqual(['a/none', 'a/small', 'large']);
  for (let round = 0; round < 3; round++) {
    const next = await take();
    expect(next.read).toEqual([]);
    expect(next.kept).toEqual(['a/none', 'a/small', 'large']);
    expect(next.manifest.parts.length).toBeGreaterThan(0);
    for (const place of [0, 1]) {
      const target = await restored(next, place);
      for (const [name, content] of contents) expect(readFileSync(path.join(target, name)).equals(content)).toBe(true);
    }
  }
});

test('a file changed shortly before it was read is read once more', async () => {
  write('a', 'one');
  laterMs = 0;
  expect((await take()).read).toEqual(['a']);
  // Nothing of it is stored again, though.
  laterMs = 2 * MINUTE;
  const second = await take();
  expect(second.read).toEqual(['a']);
  expect(second.manifest.reusedBytes).toBe(3);
  expect((await take()).read).toEqual([]);
});

test('a clock that was behind proves nothing', async () => {
  write('a', 'one');
  laterMs = -60 * MINUTE;
  await take();
  laterMs = -50 * MINUTE;
  expect((await take()).read).toEqual(['a']);
  laterMs = 2 * MINUTE;
  expect((await take()).read).toEqual(['a']);
  // Once proven, it does not matter where the clock goes.
  laterMs = -60 * MINUTE;
  expect((await take()).read).toEqual([]);
});

test('other content of the same size with the old time is found', async () => {
  write('a', 'first content');
  utimesSync(path.join(root, 'a'), 1000, 1000);
  await take();
  write('a', 'other content');
  utimesSync(path.join(root, 'a'), 1000, 1000);
  const next = await take();
  expect(next.read).toEqual(['a']);
  expect(readFileSync(path.join(await restored(next), 'a'), 'utf8')).toBe('other content');
});

test('another time, mode or attribute alone: read, not stored, restored as it is now', async () => {
  for (const name of ['time', 'mode', 'attribute']) write(name, randomBytes(50_000));
  await take();
  utimesSync(path.join(root, 'time'), 5, 5);
  chmodSync(path.join(root, 'mode'), 0o600);
  libc()?.setAttribute(Buffer.from(path.join(root, 'attribute')), Buffer.from('user.a'), Buffer.from('1'));
  const next = await take();
  expect(next.read).toEqual(libc() ? ['attribute', 'mode', 'time'] : ['mode', 'time']);
  expect(next.manifest.storedBytes).toBeLessThan(10_000);
  const target = await restored(next);
  expect(lstatSync(path.join(target, 'time')).mtimeMs).toBe(5000);
  expect(lstatSync(path.join(target, 'mode')).mode & 0o777).toBe(0o600);
  const attributes = libc()?.listAttributes(Buffer.from(path.join(target, 'attribute'))) ?? ['user.a'];
  expect(attributes.map(String)).toEqual(['user.a']);
});

test('a renamed folder, a file in the place of a folder, a folder, a link', async () => {
  for (const name of ['old/a', 'old/b', 'file', 'folder/inside', 'stays']) write(name, name.repeat(1000));
  symlinkSync('stays', path.join(root, 'link'));
  await take();
  renameSync(path.join(root, 'old'), path.join(root, 'new'));
  rmSync(path.join(root, 'file'));
  write('file/inside', 'now a folder');
  rmSync(path.join(root, 'folder'), { recursive: true });
  write('folder', 'now a file');
  unlinkSync(path.join(root, 'link'));
  write('link', 'now a file');
  const next = await take();
  expect(next.read).toEqual(['file/inside', 'folder', 'link', 'new/a', 'new/b']);
  expect(next.kept).toEqual(['stays']);
  const target = await restored(next);
  const text = (name: string) => readFileSync(path.join(target, name), 'utf8');
  expect(text('new/a')).toBe('old/a'.repeat(1000));
  expect(text('file/inside')).toBe('now a folder');
  expect([text('folder'), text('link')]).toEqual(['now a file', 'now a file']);
  expect(text('stays')).toBe('stays'.repeat(1000));
  expect(() => lstatSync(path.join(target, 'old'))).toThrow(/ENOENT/);
});

test('hard links: added, kept, the first name removed', async () => {
  write('b', 'linked');
  await take();
  linkSync(path.join(root, 'b'), path.join(root, 'c'));
  const added = await take();
  expect(added.read).toEqual(['b']);
  expect((await take()).read).toEqual([]);
  // A name that sorts before becomes the first one.
  linkSync(path.join(root, 'b'), path.join(root, 'a'));
  unlinkSync(path.join(root, 'b'));
  const moved = await take();
  expect(moved.read).toEqual(['a']);
  for (const [taken, names] of [
    [added, ['b', 'c']],
    [moved, ['a', 'c']],
  ] as const) {
    const target = await restored(taken);
    const [first, second] = names.map((name) => lstatSync(path.join(target, name)));
    expect(first?.ino).toBe(second?.ino);
    expect(first?.nlink).toBe(2);
    expect(readFileSync(path.join(target, names[1]), 'utf8')).toBe('linked');
  }
});

test('a file that changes while it is read is noted, and is read again next time', async () => {
  write('large', randomBytes(20 * MIB));
  write('other', 'x');
  let grown = false;
  const first = await take({
    onProgress: ({ detail }) => {
      if (detail !== 'large' || grown) return;
      grown = true;
      appendFileSync(path.join(root, 'large'), 'more');
    },
  });
  expect(first.manifest.notes).toEqual([expect.objectContaining({ kind: 'changed', subject: 'large' })]);
  const next = await take();
  expect(next.manifest.notes).toEqual([]);
  expect(next.read).toEqual(['large']);
  expect(lstatSync(path.join(await restored(next), 'large')).size).toBe(20 * MIB + 4);
});

test('what a vault has lost is read and stored again', async () => {
  write('lost', randomBytes(3 * MIB));
  const first = await take();
  write('stays', randomBytes(3 * MIB));
  await take();
  const victim = world.stores[1] as MemoryStore;
  await victim.delete(first.manifest.parts.slice(0, 1).map(({ key }) => key));
  const next = await take();
  expect(next.read).toEqual(['lost']);
  expect(next.kept).toEqual(['stays']);
  const target = await restored(next, 1);
  for (const name of ['lost', 'stays']) {
    expect(readFileSync(path.join(target, name)).equals(readFileSync(path.join(root, name)))).toBe(true);
  }
});

test('files of file servers have to be older: their clocks are not ours', async () => {
  const nowMs = 1_700_000_000_000;
  const proven = new Proven(() => nowMs);
  await proven.learn(1n, Buffer.from(root));
  await proven.learn(2n, Buffer.from('/nowhere/at/all'));
  const facts = (dev: bigint, ageMs: number) => {
    const time = BigInt(nowMs - ageMs) * 1_000_000n;
    return proven.factsOf({ size: 1n, mtimeNs: 5n, ctimeNs: time, ino: 7n, dev }, nowMs);
  };
  const isLocal = process.platform === 'linux';
  expect(facts(1n, 1.1 * MINUTE) !== undefined).toBe(isLocal);
  expect(facts(1n, 0.9 * MINUTE)).toBeUndefined();
  expect(facts(2n, 5 * MINUTE)).toBeUndefined();
  expect(facts(2n, 11 * MINUTE)).toBeDefined();
  // Also for a device nothing is known of, and a time in the future.
  expect(facts(3n, 5 * MINUTE)).toBeUndefined();
  expect(facts(3n, -MINUTE)).toBeUndefined();
});
