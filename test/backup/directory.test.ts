import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { listBackupIds, newestBackup } from '../../src/backup/catalog.ts';
import { readBackup, restoreBackup } from '../../src/backup/restore.ts';
import { INCOMPLETE_MARKER } from '../../src/backup/restore-target.ts';
import { takeDirectoryBackup } from '../../src/backup/take-directory.ts';
import { readExtendedAttributes } from '../../src/base/file-attributes.ts';
import { libc } from '../../src/base/libc.ts';
import { KeyRing } from '../../src/vault/keys.ts';
import type { MemoryStore } from '../../src/vault/memory-store.ts';
import { tempDir } from '../harness/temp.ts';
import { backupWorld, memoryVault } from './fixture.ts';

const source = (root: string) => ({
  name: 'uploads',
  kind: 'data' as const,
  path: root,
  exclude: [],
  allowEmpty: false,
});

const calls = libc();
const isRoot = process.getuid?.() === 0;

/** Everything that a restore must bring back, of every entry below `root`. */
function snapshot(root: string): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  const visit = (absolute: Buffer, relative: string) => {
    const stats = lstatSync(absolute, { bigint: true });
    const kind = stats.isDirectory() ? 'd' : stats.isSymbolicLink() ? 'l' : 'f';
    out[relative] = {
      kind,
      mode: stats.mode,
      uid: stats.uid,
      gid: stats.gid,
      mtime: stats.mtimeNs,
      attributes: calls ? readExtendedAttributes(absolute, calls) : [],
      links: kind === 'd' ? 0n : stats.nlink,
      content:
        kind === 'f'
          ? createHash('sha256').update(readFileSync(absolute)).digest('hex')
          : kind === 'l'
            ? readlinkSync(absolute, 'buffer').toString('hex')
            : '',
    };
    if (kind !== 'd') return;
    for (const name of readdirSync(absolute, { encoding: 'buffer' })) {
      visit(Buffer.concat([absolute, Buffer.from('/'), name]), `${relative}/${name.toString('latin1')}`);
    }
  };
  visit(Buffer.from(root), '');
  return out;
}

async function strangeTree(): Promise<string> {
  const root = path.join(await tempDir('tree'), 'uploads');
  mkdirSync(path.join(root, 'a/b/empty'), { recursive: true });
  writeFileSync(path.join(root, 'a/one.txt'), 'one');
  writeFileSync(path.join(root, 'a/none'), '');
  writeFileSync(path.join(root, 'a/large'), randomBytes(9 * 1024 * 1024 + 17));
  writeFileSync(path.join(root, 'a/frame'), Buffer.alloc(4 * 1024 * 1024, 'x'));
  for (let i = 0; i < 300; i++) writeFileSync(path.join(root, 'a/b', `small-${i}`), randomBytes(i * 113));
  linkSync(path.join(root, 'a/one.txt'), path.join(root, 'a/b/hard'));
  symlinkSync('../one.txt', path.join(root, 'a/b/soft'));
  symlinkSync('/nowhere/at all', path.join(root, 'dangling'));
  writeFileSync(path.join(root, 'line\nbreak "quoted" \u00fc'), 'odd');
  writeFileSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0x66, 0xff, 0xfe, 0x80])]), 'not UTF-8');
  writeFileSync(path.join(root, 'sparse'), 'begin');
  truncateSync(path.join(root, 'sparse'), 40 * 1024 * 1024);
  writeFileSync(path.join(root, 'sparse-tail'), 'x', { flag: 'w' });
  execFileSync('dd', ['if=/dev/urandom', `of=${root}/sparse-tail`, 'bs=1M', 'count=1', 'seek=20', 'conv=notrunc'], {
    stdio: 'ignore',
  });
  writeFileSync(path.join(root, 'all-hole'), '');
  truncateSync(path.join(root, 'all-hole'), 8 * 1024 * 1024);
  const give = (name: Buffer | string, attribute: string, value: Buffer | string) =>
    calls?.setAttribute(
      Buffer.concat([Buffer.from(`${root}/`), Buffer.from(name)]),
      Buffer.from(attribute),
      Buffer.from(value),
    );
  for (const name of [
    'a/one.txt',
    'a/large',
    'a/none',
    'a/b/small-7',
    'sparse',
    'a/b',
    Buffer.from('66fffe80', 'hex'),
  ]) {
    give(name, 'user.origin', 'import');
    give(name, 'user.empty', '');
    give(name, 'system.posix_acl_access', acl);
  }
  give('a', 'system.posix_acl_default', acl);
  give('', 'user.root', 'of the root');
  if (isRoot) {
    give('a/b/soft', 'trusted.link', 'own');
    give('a/b/small-8', 'security.capability', Buffer.from('0100000200200000000000000000000000000000', 'hex'));
  }
  return root;
}

/** `user::rw-, user:1000:r--, group::r--, mask::r--, other::---` as Linux keeps it. */
const acl = Buffer.from(
  '0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000000ffffffff',
  'hex',
);

describe('a directory', () => {
  let world: Awaited<ReturnType<typeof backupWorld>>;
  let root: string;
  beforeAll(async () => {
    world = await backupWorld();
    root = await strangeTree();
  });
  afterAll(async () => await world.pool.close());

  test('comes back from each vault alone, byte for byte, with every attribute', async () => {
    chmodSync(path.join(root, 'a/one.txt'), 0o4755);
    chmodSync(path.join(root, 'a/b/empty'), 0o500);
    calls?.setTimes(Buffer.from(path.join(root, 'a/none')), 1_000_000_000_123_456_789n);
    calls?.setTimes(Buffer.from(path.join(root, 'a/b/soft')), 1_000_000_000_987_654_321n);
    const before = snapshot(root);
    const taken = await takeDirectoryBackup(world.context, source(root));
    expect(taken.lost).toEqual([]);
    expect(taken.manifest.notes).toEqual([]);
    for (const store of world.stores) {
      const manifest = await newestBackup(store, 'uploads');
      if (!manifest) throw new Error('no backup');
      const target = path.join(await tempDir('restored'), 'uploads');
      await restoreBackup({ store, manifest, keyRing: world.keyRing, pool: world.pool, target });
      expect(snapshot(target)).toEqual(before);
      expect(Number(statSync(path.join(target, 'sparse')).blocks) * 512).toBeLessThan(1024 * 1024);
    }
  });

  test('that is empty or missing fails its backup instead of making one', async () => {
    const empty = await tempDir('empty');
    await expect(takeDirectoryBackup(world.context, { ...source(empty), name: 'none' })).rejects.toMatchObject({
      kind: 'check-failed',
    });
    await expect(
      takeDirectoryBackup(world.context, { ...source(`${empty}/gone`), name: 'none' }),
    ).rejects.toMatchObject({
      kind: 'not-found',
    });
    for (const store of world.stores) expect(await listBackupIds(store, 'none')).toEqual([]);
  });

  test('unchanged makes no second backup, and a touched but equal one neither', async () => {
    const tree = await tempDir('settings');
    writeFileSync(path.join(tree, 'app.conf'), 'a=1\n');
    const config = { ...source(tree), name: 'settings', kind: 'configuration' as const };
    const first = await takeDirectoryBackup(world.context, config);
    utimesSync(path.join(tree, 'app.conf'), 5, 5);
    const second = await takeDirectoryBackup(world.context, config, first.manifest);
    expect(second.unchanged).toBe(true);
    writeFileSync(path.join(tree, 'app.conf'), 'a=2\n');
    const third = await takeDirectoryBackup(world.context, config, first.manifest);
    expect(third.unchanged).toBe(false);
    expect(await listBackupIds(memory(0), 'settings')).toEqual([first.manifest.id, third.manifest.id]);
  });

  test('is never restored over other files, and an interrupted restore is recognised and begun anew', async () => {
    const store = memory(0);
    const manifest = await newestBackup(store, 'uploads');
    if (!manifest) throw new Error('no backup');
    const target = await tempDir('busy');
    writeFileSync(path.join(target, 'mine'), 'keep');
    const options = { store, manifest, keyRing: world.keyRing, pool: world.pool, target };
    await expect(restoreBackup(options)).rejects.toMatchObject({ kind: 'refused' });
    expect(readFileSync(path.join(target, 'mine'), 'utf8')).toBe('keep');
    rmSync(path.join(target, 'mine'));
    writeFileSync(path.join(target, INCOMPLETE_MARKER), 'half');
    writeFileSync(path.join(target, 'half'), 'half');
    await restoreBackup(options);
    expect(snapshot(target)).toEqual(snapshot(root));
  });

  test('is not restored with the wrong identity, and nothing is left behind', async () => {
    const other = await backupWorld();
    const store = memory(0);
    const manifest = await newestBackup(store, 'uploads');
    if (!manifest) throw new Error('no backup');
    const target = path.join(await tempDir('wrong'), 'x');
    for (const [keyRing, kind] of [
      [other.keyRing, 'wrong-key'],
      [new KeyRing([]), 'wrong-key'],
    ] as const) {
      await expect(restoreBackup({ store, manifest, keyRing, pool: world.pool, target })).rejects.toMatchObject({
        kind,
      });
    }
    expect(() => lstatSync(target)).toThrow(/ENOENT/);
    await other.pool.close();
  });

  test('damaged anywhere in one vault: the restore names the object; the other vault restores', async () => {
    const tree = await tempDir('small');
    for (let i = 0; i < 5; i++) writeFileSync(path.join(tree, `f${i}`), randomBytes(20_000));
    const victim = memoryVault('victim');
    const context = { ...world.context, stores: [victim, memory(1)] };
    await takeDirectoryBackup(context, { ...source(tree), name: 'small' });
    const objects: string[] = [];
    for await (const { key } of victim.list('')) objects.push(key);
    expect(objects.map((key) => key.split('/')[0]).sort()).toEqual(['indexes', 'keys', 'manifests', 'parts']);
    for (const key of objects) {
      const good = await victim.read(key);
      for (let place = 0; place < good.length; place += Math.max(1, Math.floor(good.length / 23))) {
        const bad = Buffer.from(good);
        bad[place] = (bad[place] ?? 0) ^ 0x10;
        await victim.overwrite(key, bad);
        await expectDamageNamed(victim, key, snapshot(tree));
      }
      await victim.delete([key]);
      await expectDamageNamed(victim, key, snapshot(tree));
      await victim.create(key, good);
    }
    await restoreNewest(victim, path.join(await tempDir('mended'), 'small'));
    await restoreNewest(memory(1), path.join(await tempDir('other'), 'small'));
  });

  async function restoreNewest(store: MemoryStore, target: string): Promise<void> {
    const manifest = await newestBackup(store, 'small');
    if (!manifest) throw new Error(`no backup: ${store.location}/manifests/small is empty`);
    const keyRing = new KeyRing([world.identity]);
    await readBackup({ store, manifest, keyRing, pool: world.pool });
    await restoreBackup({ store, manifest, keyRing, pool: world.pool, target });
  }

  /** A restore either fails and names the object, or (white space in JSON) is perfect. */
  async function expectDamageNamed(store: MemoryStore, key: string, content: object): Promise<void> {
    const target = path.join(await tempDir('damaged'), 'small');
    try {
      await restoreNewest(store, target);
    } catch (error) {
      const text = error instanceof Error ? `${error.message} ${'where' in error ? String(error.where) : ''}` : '';
      expect(text).toContain(key.split('/').slice(0, 2).join('/'));
      return;
    }
    expect(key).toMatch(/^(manifests|keys)\//);
    expect(snapshot(target)).toEqual(content);
  }

  function memory(place: number): MemoryStore {
    return world.stores[place] as MemoryStore;
  }
});
