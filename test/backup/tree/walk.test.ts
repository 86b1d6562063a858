import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { linkSync, mkdirSync, readdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { PackWriter } from '../../../src/backup/pack-writer.ts';
import { restoreBackup } from '../../../src/backup/restore.ts';
import { takeDirectoryBackup } from '../../../src/backup/take-directory.ts';
import { unpackStat } from '../../../src/backup/tree/entry-stat.ts';
import { Outcome } from '../../../src/backup/tree/tree-jobs.ts';
import { TreeReader } from '../../../src/backup/tree/tree-reader.ts';
import { nodeBinary } from '../../harness/process.ts';
import { tempDir } from '../../harness/temp.ts';
import { backupWorld } from '../fixture.ts';

let world: Awaited<ReturnType<typeof backupWorld>>;
beforeAll(async () => {
  world = await backupWorld();
});
afterAll(async () => await world.pool.close());
afterEach(() => vi.restoreAllMocks());

/** More entries than fit one chunk, more bytes than fit one read, folders beside and below each other, excluded ones. */
async function wideTree(): Promise<string> {
  const root = path.join(await tempDir('wide'), 'tree');
  mkdirSync(path.join(root, 'many'), { recursive: true });
  for (let i = 0; i < 700; i++) writeFileSync(path.join(root, 'many', `f${i}`), randomBytes(i * 13));
  for (let i = 0; i < 5; i++) {
    const folder = path.join(root, `d${i}`, 'x'.repeat(60), `${i}`);
    mkdirSync(folder, { recursive: true });
    writeFileSync(path.join(folder, 'half'), randomBytes(500_000 + i));
    writeFileSync(path.join(folder, 'most'), randomBytes(1024 * 1024 - 6 + i));
    symlinkSync('half', path.join(folder, 'link'));
    linkSync(path.join(folder, 'half'), path.join(folder, 'twin'));
    writeFileSync(path.join(folder, 'left-out.tmp'), 'x');
  }
  mkdirSync(path.join(root, 'cache/deep'), { recursive: true });
  writeFileSync(path.join(root, 'cache/deep/file'), 'x');
  return root;
}

const source = (root: string) => ({
  name: 'wide',
  kind: 'data' as const,
  path: root,
  exclude: ['cache', '**/*.tmp'],
  allowEmpty: false,
});

test('a tree of any shape is packed whole, always in the same order', async () => {
  const root = await wideTree();
  const orders: string[][] = [];
  for (let round = 0; round < 2; round++) {
    const add = vi.spyOn(PackWriter.prototype, 'add');
    const begin = vi.spyOn(PackWriter.prototype, 'begin');
    const { manifest } = await takeDirectoryBackup(world.context, source(root));
    const order = [add, begin].flatMap(({ mock }) =>
      mock.calls.map(([head], i) => ({ turn: mock.invocationCallOrder[i] ?? 0, path: head.path.toString() })),
    );
    orders.push(order.sort((a, b) => a.turn - b.turn).map((one) => one.path));
    vi.restoreAllMocks();
    expect(manifest.notes).toEqual([]);
    const target = path.join(await tempDir('restored'), 'tree');
    const [store] = world.stores;
    if (!store) throw new Error('no vault');
    await restoreBackup({ store, manifest, keyRing: world.keyRing, pool: world.pool, target });
    const names = (at: string) => readdirSync(at, { recursive: true, encoding: 'utf8' }).sort();
    const wanted = names(root).filter((name) => !name.startsWith('cache') && !name.endsWith('.tmp'));
    expect(names(target)).toEqual(wanted);
    for (const name of wanted.filter((one) => /\/(f\d+|half|most|twin|link)$/.test(one))) {
      expect(readFileSync(path.join(target, name)).equals(readFileSync(path.join(root, name))), name).toBe(true);
    }
  }
  expect(orders[0]).toEqual(orders[1]);
  expect(orders[0]?.length).toBeGreaterThan(700);
});

test('stopped in the middle it ends at once, with the reason given', async () => {
  const root = await wideTree();
  const stop = new AbortController();
  const context = {
    ...world.context,
    signal: stop.signal,
    onProgress: () => stop.abort(new Error('stopped by hand')),
  };
  await expect(takeDirectoryBackup(context, source(root))).rejects.toThrow('stopped by hand');
});

test('files that are read ahead: whole, gone, grown, links, folders, endless ones', async () => {
  const root = await tempDir('read');
  const place = (name: string) => path.join(root, name);
  writeFileSync(place('good'), 'good');
  writeFileSync(place('none'), '');
  writeFileSync(place('sparse'), '');
  truncateSync(place('sparse'), 100_000);
  writeFileSync(place('huge'), '');
  truncateSync(place('huge'), 1024 ** 3);
  symlinkSync('good', place('link'));
  mkdirSync(place('folder'));
  const names = ['good', 'gone', 'none', 'link', 'folder', 'sparse', 'huge', 'good'];
  const reader = new TreeReader();
  try {
    const result = await reader.read(Buffer.from(root), Buffer.from(names.join('\0')));
    const outcomes = names.map((name, i) => [name, result.outcomes[i]]);
    expect(outcomes).toEqual([
      ['good', Outcome.whole],
      ['gone', Outcome.failed],
      ['none', Outcome.whole],
      ['link', Outcome.failed],
      ['folder', Outcome.notAFile],
      ['sparse', Outcome.whole],
      ['huge', Outcome.tooLarge],
      ['good', Outcome.whole],
    ]);
    expect(result.failures.map(({ index, code }) => [index, code])).toEqual([
      [1, 'ENOENT'],
      [3, 'ELOOP'],
    ]);
    const content = names.map((_, i) => {
      const [at = 0, length = 0] = result.places.subarray(2 * i);
      return Buffer.from(result.buffer, at, length).toString();
    });
    expect(content).toEqual(['good', '', '', '', '', '\0'.repeat(100_000), '', 'good']);
    expect(unpackStat(result.numbers, 5)).toMatchObject({ kind: 'file', size: 100_000n, isSparse: true });
    reader.release(result);
    if (process.platform === 'linux') {
      // Has a size of 0 and content all the same, like a file that grows while it is read.
      const odd = await reader.read(Buffer.from('/proc/self'), Buffer.from('status'));
      expect(odd.outcomes[0]).toBe(Outcome.changed);
      expect(Buffer.from(odd.buffer, 0, odd.places[1]).toString()).toMatch(/^Name:/);
    }
    await expect(reader.list(Buffer.from(place('gone')))).rejects.toMatchObject({ code: 'ENOENT' });
  } finally {
    await reader.close();
  }
  await expect(reader.list(Buffer.from(root))).rejects.toMatchObject({ kind: 'interrupted' });
});

test('a process that only backs up ends by itself when it is done, not before', async () => {
  const module = pathToFileURL(path.resolve('src/backup/tree/tree-reader.ts')).href;
  const root = await tempDir('alone');
  writeFileSync(path.join(root, 'file'), 'x');
  const script = `const { TreeReader } = await import(${JSON.stringify(module)});
    const reader = new TreeReader();
    const { names } = await reader.list(Buffer.from(${JSON.stringify(root)}));
    await reader.close();
    console.log(Buffer.from(names).toString());`;
  const begunMs = Date.now();
  const file = path.join(await tempDir('script'), 'script.mjs');
  writeFileSync(file, script);
  const output = execFileSync(nodeBinary, [file], { encoding: 'utf8' });
  expect(output).toBe('file\n');
  // Nothing keeps it alive either; a second is what closing waits for a thread that hangs, and starting takes some of it.
  expect(Date.now() - begunMs).toBeLessThan(10_000);
});
