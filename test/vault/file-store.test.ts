import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { FileStore } from '../../src/vault/file-store.ts';
import { collect } from '../conformance/object-store.ts';
import { nodeBinary, startProcess } from '../harness/process.ts';
import { tempDir } from '../harness/temp.ts';

const open = (root: string) => new FileStore({ name: 'east', region: 'r1', root });
const vault = async () => {
  const root = join(await tempDir(), 'vault');
  const store = open(root);
  await store.prepare();
  return { root, store };
};
const keysOf = async (store: FileStore) => (await collect(store.list(''))).map(({ key }) => key);

it('never makes the directory of a vault by itself: an unmounted volume is unreachable, not an empty vault', async () => {
  const root = join(await tempDir(), 'not', 'mounted');
  const store = open(root);
  const unreachable = { kind: 'unreachable', retryable: false, next: expect.stringContaining('Mount') };
  await expect(store.create('a/b', Buffer.from('x'))).rejects.toMatchObject(unreachable);
  await expect(store.overwrite('a', Buffer.from('x'))).rejects.toMatchObject(unreachable);
  await expect(store.read('a')).rejects.toMatchObject(unreachable);
  await expect(store.stat('a')).rejects.toMatchObject(unreachable);
  await expect(collect(store.list(''))).rejects.toMatchObject(unreachable);
  await expect(store.folders('')).rejects.toMatchObject(unreachable);
  await expect(store.delete(['a'])).rejects.toMatchObject(unreachable);
  expect(existsSync(root)).toBe(false);
  await store.prepare();
  expect(await store.create('a/b', Buffer.from('x'))).toBe('created');
});

it('notices that its directory was replaced by an empty one while it is open', async () => {
  const { root, store } = await vault();
  await store.create('dr-vault.json', Buffer.from('{}'));
  renameSync(root, `${root}-unmounted`);
  await expect(store.create('a', Buffer.from('x'))).rejects.toMatchObject({ kind: 'unreachable' });
  mkdirSync(root);
  await expect(store.create('a', Buffer.from('x'))).rejects.toMatchObject({ kind: 'unreachable' });
  expect(readdirSync(root)).toEqual([]);
  rmSync(root, { recursive: true });
  renameSync(`${root}-unmounted`, root);
  expect(await store.create('a', Buffer.from('x'))).toBe('created');
});

it('is found again when the vault itself comes back under another inode (a new mount, a restored copy)', async () => {
  const { root, store } = await vault();
  await store.create('dr-vault.json', Buffer.from('{}'));
  await store.create('deep/er/a', Buffer.from('x'));
  renameSync(root, `${root}-old`);
  mkdirSync(root);
  writeFileSync(join(root, 'dr-vault.json'), '{}');
  expect(await store.create('deep/er/b', Buffer.from('x'))).toBe('created');
});

it('leaves nothing half-written when killed -9 again and again, and sweeps what was left after a day', async () => {
  const { root, store } = await vault();
  const script = join(import.meta.dirname, 'write-objects.ts');
  for (let round = 0; round < 4; round++) {
    const child = startProcess(nodeBinary, [script, root, String(round)]);
    await child.waitFor(/\bw\d*5\b/); // At least six objects are there and more are under way.
    await child.kill9();
  }
  const objects = await collect(store.list(''));
  expect(objects.length).toBeGreaterThan(20);
  for (const { key, size } of objects) {
    const bytes = await store.read(key);
    expect(size).toBe(3_000_000);
    expect(bytes.equals(Buffer.alloc(3_000_000, key))).toBe(true);
  }
  const folder = join(root, '.tmp');
  for (const name of readdirSync(folder)) rmSync(join(folder, name));
  writeFileSync(join(folder, '1-old'), 'x');
  writeFileSync(join(folder, '1-new'), 'x');
  const yesterday = Date.now() / 1000 - 90_000;
  utimesSync(join(folder, '1-old'), yesterday, yesterday);
  await open(root).create('after', Buffer.from('x'));
  expect(readdirSync(folder)).toEqual(['1-new']);
});

it('keeps readers of an overwritten object from ever seeing a mixture', async () => {
  const { store } = await vault();
  const [zeros, ones] = [Buffer.alloc(200_000, 0), Buffer.alloc(100_000, 1)];
  await store.overwrite('hint', zeros);
  const writing = (async () => {
    for (let i = 0; i < 60; i++) await store.overwrite('hint', i % 2 === 0 ? ones : zeros);
  })();
  for (let i = 0; i < 60; i++) {
    const seen = await store.read('hint');
    expect(seen.equals(zeros) || seen.equals(ones)).toBe(true);
  }
  await writing;
});

it('lets creators and deleters of the same folder go on at once', async () => {
  const { root, store } = await vault();
  const other = open(root);
  await Promise.all(
    Array.from({ length: 8 }, async (_, worker) => {
      for (let i = 0; i < 25; i++) {
        const key = `shared/folder/${worker}-${i}`;
        expect(await store.create(key, Buffer.from(key))).toBe('created');
        await other.delete([key]);
      }
    }),
  );
  expect(await keysOf(store)).toEqual([]);
  expect(existsSync(join(root, 'shared'))).toBe(false);
});

it('does not follow symbolic links out of the vault, nor list them', async () => {
  const { root, store } = await vault();
  const outside = await tempDir();
  writeFileSync(join(outside, 'secret'), 'outside');
  symlinkSync(outside, join(root, 'linked'));
  symlinkSync(join(outside, 'secret'), join(root, 'file'));
  await expect(store.read('linked/secret')).rejects.toMatchObject({ kind: 'refused' });
  await expect(store.create('linked/new', Buffer.from('x'))).rejects.toMatchObject({ kind: 'refused' });
  await expect(store.delete(['linked/secret'])).rejects.toMatchObject({ kind: 'refused' });
  await expect(collect(store.list('linked/'))).rejects.toMatchObject({ kind: 'refused' });
  await expect(store.folders('linked/')).rejects.toMatchObject({ kind: 'refused' });
  await expect(store.read('file')).rejects.toMatchObject({ kind: 'refused' });
  expect(await store.stat('file')).toBeUndefined();
  expect(await keysOf(store)).toEqual([]);
  expect(readdirSync(outside)).toEqual(['secret']);
});

it('reads many files at once as carefully as one', async () => {
  const { root, store } = await vault();
  const outside = await tempDir();
  writeFileSync(join(outside, 'secret'), 'outside');
  symlinkSync(outside, join(root, 'linked'));
  const keys = Array.from({ length: 300 }, (_, i) => `many/${i}`);
  for (const key of keys) await store.create(key, Buffer.from(key));
  rmSync(join(root, 'many/7'));
  symlinkSync(join(outside, 'secret'), join(root, 'many/7'));
  rmSync(join(root, 'many/8'));
  mkdirSync(join(root, 'many/8'));
  const problems = async () => {
    const found: Record<string, unknown> = {};
    for await (const outcome of store.readEach([...keys, 'linked/secret'])) {
      if ('error' in outcome) found[outcome.key] = outcome.error;
      else expect(outcome.bytes.toString()).toBe(outcome.key);
    }
    return found;
  };
  expect(await problems()).toMatchObject({
    'many/7': { kind: 'refused' },
    'many/8': { kind: 'not-found' },
    'linked/secret': { kind: 'refused' },
  });
  expect(Object.keys(await problems())).toHaveLength(3);
  renameSync(root, `${root}-unmounted`);
  mkdirSync(root);
  const away = Object.values(await problems());
  expect(away).toHaveLength(301);
  for (const error of away) expect(error).toMatchObject({ kind: 'unreachable' });
});

it('shows neither hidden files nor lost+found, and no empty folder', async () => {
  const { root, store } = await vault();
  mkdirSync(join(root, 'lost+found', 'x'), { recursive: true });
  mkdirSync(join(root, 'empty', 'deeper'), { recursive: true });
  mkdirSync(join(root, '.snapshot'));
  writeFileSync(join(root, '.snapshot', 'x'), '');
  await store.create('a/b', Buffer.from('x'));
  expect(await keysOf(store)).toEqual(['a/b']);
  expect(await store.folders('')).toEqual(['a']);
});

it('keeps what it stores from other users of the machine', async () => {
  const { root, store } = await vault();
  await store.create('wal/1/a', Buffer.from('x'));
  for (const path of ['', 'wal', 'wal/1', 'wal/1/a']) expect(statSync(join(root, path)).mode & 0o007, path).toBe(0);
});

const mountable = canMount();

it.skipIf(!mountable)('says that the disk is full and stores nothing (needs root and mount)', async () => {
  const root = await mounted('size=2m');
  const store = open(root);
  expect(await store.create('fits', Buffer.alloc(500_000))).toBe('created');
  const error = {
    kind: 'local',
    next: expect.stringContaining('Free space'),
    where: expect.stringContaining('big/one'),
  };
  await expect(store.create('big/one', [randomBytes(1_500_000), randomBytes(1_500_000)])).rejects.toMatchObject(error);
  await expect(store.overwrite('big/one', randomBytes(3_000_000))).rejects.toMatchObject(error);
  expect(await keysOf(store)).toEqual(['fits']);
  expect(readdirSync(join(root, '.tmp'))).toEqual([]);
  expect(await store.create('fits-too', Buffer.alloc(500_000))).toBe('created');
});

it.skipIf(!mountable)('says that the file system is read-only, and still reads (needs root and mount)', async () => {
  const root = await mounted('size=2m');
  await open(root).create('a/b', Buffer.from('x'));
  execFileSync('mount', ['-o', 'remount,ro', root]);
  const store = open(root);
  const readOnly = { kind: 'local', next: expect.stringContaining('read-only') };
  await expect(store.create('a/c', Buffer.from('x'))).rejects.toMatchObject(readOnly);
  await expect(store.delete(['a/b'])).rejects.toMatchObject(readOnly);
  expect((await store.read('a/b')).toString()).toBe('x');
});

it.skipIf(process.getuid?.() === 0)(
  'says that it may not write (needs an ordinary user: root may everywhere)',
  async () => {
    const { root, store } = await vault();
    chmodSync(root, 0o555);
    onTestFinished(() => chmodSync(root, 0o755));
    const denied = { kind: 'local', next: expect.stringContaining('access') };
    await expect(store.create('a', Buffer.from('x'))).rejects.toMatchObject(denied);
  },
);

/** A file system of its own in memory, unmounted when the test ends. */
async function mounted(options: string): Promise<string> {
  const root = await tempDir('mount');
  execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', root]);
  onTestFinished(() => {
    execFileSync('umount', ['-l', root]);
  });
  return root;
}

function canMount(): boolean {
  if (process.getuid?.() !== 0 || process.platform !== 'linux') return false;
  try {
    // In a mount namespace of its own: gone with the process.
    execFileSync('unshare', ['--mount', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
