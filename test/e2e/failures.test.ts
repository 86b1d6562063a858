import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { generateX25519Identity } from 'age-encryption';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startPostgres, type TestPostgres } from '../harness/postgres.ts';
import type { Ended } from '../harness/process.ts';
import { tempDir } from '../harness/temp.ts';
import { allFiles, expectHelp, leaks, makeOperator, type Operator, resultOf } from './world.ts';

const password = 'operators-never-tell-1729';
const wrongPassword = 'guessed-and-wrong-31415';
const secretKey = 'secret-of-an-access-key-271828';
/** Small disks need tmpfs, and that needs root on Linux. */
const canMount = process.platform === 'linux' && process.getuid?.() === 0;

let source: TestPostgres;
let operator: Operator;
let vaults: { east: string; west: string };

beforeAll(async () => {
  source = await startPostgres({ password });
  await source.sql('create table orders as select i, md5(i::text) as note from generate_series(1, 5000) i');
  const root = await tempDir('vaults');
  vaults = { east: join(root, 'east'), west: join(root, 'west') };
  operator = await makeOperator({
    vaults: { east: { url: `file://${vaults.east}` }, west: { url: `file://${vaults.west}` } },
    databaseUrl: source.url,
    bin: source.bin,
  });
  for (let i = 0; i < 6; i++) await writeFile(join(operator.uploads, `photo-${i}.jpg`), randomBytes(700_000));
  await writeFile(join(operator.settings, 'orders.conf'), 'workers = 4\n');
  const taken = await operator.dr(['backup']);
  expect(taken.code, taken.stdout + taken.stderr).toBe(0);
  nobodyAnswers = askNobody();
  nobodyAnswers.catch(() => {});
});
/** Vaults of a service that is not there: asked at the beginning, because the drivers try for a while before they give up. */
let nobodyAnswers: Promise<{ readonly backup: Ended; readonly one: Ended; readonly any: Ended }>;

async function askNobody(): Promise<Awaited<typeof nobodyAnswers>> {
  const place = 'url: "s3://nowhere/$1", endpoint: "http://127.0.0.1:9", forcePathStyle: true';
  const file = await operator.variant((text) => text.replace(/url: "file:[^"]*\/(east|west)"/g, place));
  const env = { DR_CONFIG: file, AWS_ACCESS_KEY_ID: 'key', AWS_SECRET_ACCESS_KEY: secretKey };
  const target = join(operator.root, 'from-nobody');
  const [backup, one, any] = await Promise.all([
    operator.dr(['backup', 'uploads'], env),
    operator.dr(['restore', 'uploads', '--to', target, '--vault', 'west'], env),
    operator.dr(['restore', 'uploads', '--to', target], env),
  ]);
  return { backup, one, any };
}

afterAll(async () => {
  await nobodyAnswers?.catch(() => {});
  await source?.stop('immediate');
});

const restore = async (to: string, ...more: string[]) => await operator.dr(['restore', 'uploads', '--to', to, ...more]);

/** A directory that nobody may take for a finished restore. */
async function expectNotDone(directory: string): Promise<void> {
  const names = await readdir(directory).catch((): string[] => []);
  expect(names.length === 0 || names.includes('.dr-restore-incomplete'), names.join()).toBe(true);
}

async function backupsOf(resource: string, vault: string): Promise<string[]> {
  return await readdir(join(vault, 'manifests', resource)).catch(() => []);
}

describe('keys and credentials', () => {
  test('a wrong identity: exit 8, names the recipients that would do, restores nothing', async () => {
    const file = join(operator.root, 'wrong.txt');
    await writeFile(file, `${await generateX25519Identity()}\n`, { mode: 0o600 });
    const target = join(operator.root, 'wrong-identity');
    expectHelp(await restore(target, '--identity', file), 8, 'does not open this vault', 'where: ', /next: .*age1/);
    await expectNotDone(target);
  });

  test('no identity: exit 8, says how to give one', async () => {
    const target = join(operator.root, 'no-identity');
    const ended = await operator.dr(['restore', 'uploads', '--to', target], { DR_IDENTITY_FILE: '' });
    expectHelp(ended, 8, 'no identity was given', '--identity FILE');
    await expectNotDone(target);
  });

  test('a wrong database password: exit 10, no backup, and neither password is shown', async () => {
    const before = await backupsOf('orders', vaults.east);
    const url = source.url.replace(password, wrongPassword);
    const ended = await operator.dr(['backup', 'orders'], { ORDERS_DATABASE_URL: url });
    expect(ended.code, ended.stdout + ended.stderr).toBe(10);
    expect(ended.stdout + ended.stderr).toMatch(/password authentication failed|refuses/);
    expect(ended.stdout + ended.stderr).toContain('next:');
    expect(await backupsOf('orders', vaults.east)).toEqual(before);
    expect(ended.stdout + ended.stderr).not.toContain(wrongPassword);
  });

  test('a database that does not answer: exit 9, and the other resources are backed up all the same', async () => {
    await writeFile(join(operator.settings, 'orders.conf'), 'workers = 5\n');
    const before = await backupsOf('settings', vaults.west);
    const url = `postgresql://dr:${wrongPassword}@127.0.0.1:9/orders`;
    const ended = await operator.dr(['backup', 'orders', 'settings'], { ORDERS_DATABASE_URL: url });
    expect(ended.code, ended.stdout + ended.stderr).toBe(9);
    expect(await backupsOf('settings', vaults.west)).toHaveLength(before.length + 1);
    expect(ended.stdout + ended.stderr).not.toContain(wrongPassword);
  });
});

describe('a vault', () => {
  test('that is gone: the backup goes to the other and says so (exit 4); a restore from it fails (exit 9)', async () => {
    await rename(vaults.west, `${vaults.west}.away`);
    try {
      await writeFile(join(operator.uploads, 'new.jpg'), randomBytes(1000));
      const before = await backupsOf('uploads', vaults.east);
      const ended = await operator.dr(['backup', 'uploads']);
      expect(ended.code, ended.stdout + ended.stderr).toBe(4);
      expect(ended.stdout).toContain('west');
      expect(await backupsOf('uploads', vaults.east)).toHaveLength(before.length + 1);
      expect(existsSync(vaults.west)).toBe(false);
      const target = join(operator.root, 'from-west');
      expectHelp(await restore(target, '--vault', 'west'), 9, 'west', 'where: ');
      await expectNotDone(target);
      expect((await restore(join(operator.root, 'from-whichever'))).code).toBe(0);
    } finally {
      await rename(`${vaults.west}.away`, vaults.west);
    }
  });
});

describe('the place of a restore', () => {
  test('is not empty: exit 11, and nothing in it is touched', async () => {
    const target = join(operator.root, 'not-empty');
    await mkdir(target);
    await writeFile(join(target, 'precious.txt'), 'keep me');
    expectHelp(await restore(target), 11, 'not empty', `where: ${target}`, 'does not overwrite');
    expect(await readdir(target)).toEqual(['precious.txt']);
    const database = await operator.dr(['restore', 'orders', '--to', target, '--start']);
    expectHelp(database, 11, 'not empty');
    expect(await readdir(target)).toEqual(['precious.txt']);
  });

  test('is a file: exit 13, and the file stays', async () => {
    const target = join(operator.root, 'a-file');
    await writeFile(target, 'keep me');
    const ended = await restore(target);
    expectHelp(ended, 13, target, 'is a file');
    expect(await readFile(target, 'utf8')).toBe('keep me');
  });

  test('cannot be written: exit 13', async () => {
    const directory = join(operator.root, 'read-only');
    await mkdir(directory);
    using _disk = canMount ? mount(directory, 'size=1m,ro') : undefined;
    if (!canMount) await chmod(directory, 0o555);
    expectHelp(await restore(join(directory, 'uploads')), 13, directory, /read-only|permission|EACCES|access/i);
  });

  test.skipIf(!canMount)('is full (needs root on Linux): exit 13; with room, the same command completes', async () => {
    const disk = join(operator.root, 'full');
    await mkdir(disk);
    using _disk = mount(disk, 'size=2m');
    const target = join(disk, 'uploads');
    expectHelp(await restore(target), 13, 'ENOSPC', target, /next: .*[Ff]ree space/);
    await expectNotDone(target);
    execFileSync('mount', ['-o', 'remount,size=64m', disk]);
    const again = await restore(target);
    expect(again.code, again.stderr).toBe(0);
    execFileSync('diff', ['-r', operator.uploads, target]);
  });

  test.skipIf(!canMount)(
    'is full for a database (needs root on Linux): exit 13, no server is left running',
    async () => {
      const disk = join(operator.root, 'full-database');
      await mkdir(disk);
      using _disk = mount(disk, 'size=8m');
      expectHelp(await operator.dr(['restore', 'orders', '--to', join(disk, 'data'), '--start']), 13, 'ENOSPC', disk);
      await expectNotDone(join(disk, 'data'));
      expect(existsSync(join(disk, 'data', 'postmaster.pid'))).toBe(false);
    },
  );

  test.skipIf(!canMount)(
    'of a vault is full (needs root on Linux): the backup is not in it, and the command says so',
    async () => {
      const disk = join(operator.root, 'full-vault');
      await mkdir(disk);
      using _disk = mount(disk, 'size=2m');
      const other = join(operator.root, 'other-vault');
      const file = await operator.variant((text) =>
        text.replace(vaults.east, join(disk, 'v')).replace(vaults.west, other),
      );
      const ended = await operator.dr(['backup', 'uploads'], { DR_CONFIG: file });
      expect(ended.code, ended.stdout + ended.stderr).toBe(4);
      expect(ended.stdout + ended.stderr).toContain('ENOSPC');
      expect(await backupsOf('uploads', join(disk, 'v'))).toEqual([]);
      expect(await backupsOf('uploads', other)).toHaveLength(1);
    },
  );
});

/** A file system of its own; gone again at the end of the test, so that no broken run leaves it behind. */
function mount(directory: string, options: string): Disposable {
  execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', directory]);
  return { [Symbol.dispose]: () => execFileSync('umount', ['--lazy', directory]) };
}

describe('a damaged vault', () => {
  const kinds = ['manifests/uploads/', 'indexes/uploads/', 'parts/uploads/', 'keys/'] as const;
  let round = 0;

  /** Objects of a kind that the newest backup of `uploads` needs: all of them, so that the damage cannot miss it. */
  async function objects(kind: string): Promise<string[]> {
    const files = (await allFiles(join(vaults.east, kind.slice(0, -1)))).sort();
    return kind.startsWith('manifests') ? files.slice(-1) : files;
  }

  async function damaged(files: readonly string[], harm: (file: string) => Promise<void>, look: () => Promise<void>) {
    const before = await Promise.all(files.map(async (file) => await readFile(file)));
    try {
      for (const file of files) {
        await chmod(file, 0o600);
        await harm(file);
      }
      await look();
    } finally {
      for (const [place, file] of files.entries()) {
        await rm(file, { force: true });
        await writeFile(file, before[place] ?? '');
      }
    }
  }

  async function expectNamed(resource: string, kind: string, code: number): Promise<void> {
    const target = join(operator.root, `damaged-${round++}`);
    const ended = await operator.dr(['restore', resource, '--to', target, '--vault', 'east']);
    expectHelp(ended, code, kind, 'where: ', /next: .*(vault|backups)/);
    await expectNotDone(target);
    const good = await operator.dr(['restore', resource, '--to', `${target}-good`, '--vault', 'west', '--json']);
    expect(resultOf<{ vault: string }>(good).vault).toBe('west');
  }

  const flip = async (file: string) => {
    const bytes = await readFile(file);
    const middle = Math.floor(bytes.length / 2);
    bytes[middle] = (bytes[middle] ?? 0) ^ 1;
    await writeFile(file, bytes);
  };

  test.each(kinds)('one byte flipped in %s: exit 7, the object is named, the other vault restores', async (kind) => {
    const files = await objects(kind);
    expect(files.length).toBeGreaterThan(0);
    await damaged(files, flip, async () => await expectNamed('uploads', kind, 7));
  });

  test.each(kinds.slice(1))(
    'objects of %s removed: exit 7, the object is named, the other vault restores',
    async (kind) => {
      await damaged(await objects(kind), rm, async () => await expectNamed('uploads', kind, 7));
    },
  );

  test.each(['flipped', 'removed'])(
    'WAL that a database needs is %s: an error that names it, never a partial recovery',
    async (how) => {
      const files = (await allFiles(join(vaults.east, 'wal'))).filter((file) => !file.endsWith('.history'));
      const harm = how === 'flipped' ? flip : rm;
      await damaged(
        files,
        async (file) => await harm(file),
        async () => {
          const target = join(operator.root, `wal-${how}`);
          const ended = await operator.dr(['restore', 'orders', '--to', target, '--start', '--vault', 'east']);
          expect([6, 7]).toContain(ended.code);
          expectHelp(ended, ended.code ?? 0, /wal|WAL/, 'east');
          expect(existsSync(join(target, 'postmaster.pid'))).toBe(false);
        },
      );
    },
  );

  test('everything is well again when the objects are', async () => {
    expect((await restore(join(operator.root, 'well'), '--vault', 'east')).code).toBe(0);
  });
});

describe('a service that does not answer', () => {
  test('a backup with no vault at all: exit 9, and the way to find out more', async () => {
    expectHelp((await nobodyAnswers).backup, 9, 'no vault', 'dr doctor');
  });

  test('a restore from a vault there: exit 9, the place and the reason', async () => {
    const { one, any } = await nobodyAnswers;
    expectHelp(one, 9, 's3://nowhere/west', 'ECONNREFUSED');
    expectHelp(any, 9, 's3://nowhere/');
    expect(existsSync(join(operator.root, 'from-nobody'))).toBe(false);
  });
});

test('no secret in any output, nor in any object of a vault', async () => {
  const secrets = { password, 'wrong password': wrongPassword, 'secret key': secretKey, identity: operator.identity };
  const directories = [vaults.east, vaults.west];
  expect(operator.said()).toContain('dr: ');
  expect((await allFiles(vaults.east)).map((file) => relative(vaults.east, file).split('/')[0])).toContain('manifests');
  expect(await leaks(secrets, { outputs: operator.said(), directories })).toEqual([]);
});
