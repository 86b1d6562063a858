import { execFileSync } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  cpSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { generateHybridIdentity, generateIdentity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { backupResource } from '../../src/backup/backup-resource.ts';
import { chooseDatabaseBackup } from '../../src/backup/recover-database.ts';
import { takeDirectoryBackup } from '../../src/backup/take-directory.ts';
import { walCoverage } from '../../src/backup/wal/coverage.ts';
import { withPassingArchiver } from '../../src/backup/wal/ensure.ts';
import { parseLsn } from '../../src/postgres/lsn.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { KeyRing } from '../../src/vault/keys.ts';
import { serverUser } from '../harness/npm-postgres.ts';
import { startPostgres } from '../harness/postgres.ts';
import { tempDir } from '../harness/temp.ts';
import { backupWorld } from './fixture.ts';
import { fileVault, identityFile, restoreScript, rootOf } from './restore-script.ts';

// The script is taken from the vault, and runs far from this checkout: nothing of dr is there to help it.

async function strangeTree(): Promise<string> {
  const root = path.join(await tempDir('tree'), 'uploads');
  mkdirSync(path.join(root, 'a/b/empty'), { recursive: true });
  writeFileSync(path.join(root, 'a/one'), 'one');
  writeFileSync(path.join(root, 'a/none'), '');
  writeFileSync(path.join(root, 'a/large'), randomBytes(9 * 1024 * 1024 + 17));
  for (let i = 0; i < 50; i++) writeFileSync(path.join(root, 'a/b', `small ${i}`), randomBytes(i * 700));
  linkSync(path.join(root, 'a/one'), path.join(root, 'a/b/hard'));
  symlinkSync('../one', path.join(root, 'a/b/soft'));
  symlinkSync('/nowhere/at all', path.join(root, 'dangling'));
  writeFileSync(path.join(root, 'line\nbreak "quoted" \u00fc'), 'odd');
  writeFileSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0x66, 0xff, 0xfe, 0x80])]), 'not UTF-8');
  writeFileSync(path.join(root, 'sparse'), 'begin');
  truncateSync(path.join(root, 'sparse'), 40 * 1024 * 1024);
  chmodSync(path.join(root, 'a/one'), 0o4755);
  utimesSync(path.join(root, 'a/none'), 1_000_000_000.123456, 1_000_000_000.123456);
  chmodSync(path.join(root, 'a/b/empty'), 0o500);
  utimesSync(root, 1_100_000_000, 1_100_000_000);
  return root;
}

/** Node sets times within 250 ns. */
class Time {
  readonly ns: bigint;

  constructor(ns: bigint) {
    this.ns = ns;
  }
}
expect.addEqualityTesters([
  (a, b) => (a instanceof Time && b instanceof Time ? a.ns - b.ns < 250n && b.ns - a.ns < 250n : undefined),
]);

/** Everything of a tree that a restore must bring back; of hard links their number. */
function snapshot(root: string): Map<string, object> {
  const found = new Map<string, object>();
  const visit = (absolute: Buffer, name: string) => {
    const kind = lstatSync(absolute, { bigint: true });
    const { mode, uid, gid, mtimeNs, size, nlink } = kind;
    const facts = { mode, uid, gid, mtime: new Time(mtimeNs), nlink: kind.isDirectory() ? 0n : nlink };
    if (kind.isSymbolicLink()) found.set(name, { ...facts, to: readlinkSync(absolute) });
    else if (kind.isFile()) found.set(name, { ...facts, size, content: readFileSync(absolute).toString('base64') });
    else {
      found.set(name, facts);
      for (const child of readdirSync(absolute, { encoding: 'buffer' })) {
        visit(Buffer.concat([absolute, Buffer.from('/'), child]), `${name}/${child.toString('latin1')}`);
      }
    }
  };
  visit(Buffer.from(root), '');
  return found;
}

describe.each(['encrypted', 'plain'] as const)('dr-restore.mjs and an %s backup of a directory', (kind) => {
  let world: Awaited<ReturnType<typeof backupWorld>>;
  let store: FileStore;
  let source: string;
  let vault: string;
  let identity: readonly string[];
  beforeAll(async () => {
    store = await fileVault();
    vault = rootOf(store);
    world = await backupWorld([store]);
    source = await strangeTree();
    const context = kind === 'plain' ? { ...world.context, keyPolicy: 'none' as const } : world.context;
    const directory = { name: 'uploads', kind: 'data', path: source, exclude: [], allowEmpty: false } as const;
    await takeDirectoryBackup(context, directory);
    identity = kind === 'plain' ? [] : ['--identity', await identityFile(world.identity)];
  });
  afterAll(async () => await world.pool.close());

  test('lists it, and brings it back with every name, attribute and byte', async () => {
    const listed = restoreScript(vault, 'list');
    expect(listed.stdout).toMatch(/^uploads {2}\d{8}T\d{9}Z-\w+ {2}data {2}/);
    const target = path.join(await tempDir('restored'), 'uploads');
    const ended = restoreScript(vault, 'restore', 'uploads', target, ...identity);
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(snapshot(target)).toEqual(snapshot(source));
    expect(lstatSync(path.join(target, 'sparse')).blocks).toBeLessThan(1000);
    const again = restoreScript(vault, 'restore', 'uploads', target, ...identity);
    expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining('not empty') });
  });

  test('refuses a damaged, a cut off and a missing object, naming it, and says that the restore is not finished', async () => {
    const folder = path.join('parts/uploads', readdirSync(path.join(vault, 'parts/uploads'))[0] ?? '');
    const part = path.join(folder, readdirSync(path.join(vault, folder))[0] ?? '');
    const index = path.join('indexes/uploads', readdirSync(path.join(vault, 'indexes/uploads'))[0] ?? '');
    const manifest = path.join('manifests/uploads', readdirSync(path.join(vault, 'manifests/uploads'))[0] ?? '');
    const flip = (file: string) => {
      const bytes = readFileSync(file);
      bytes[100] = (bytes[100] ?? 0) ^ 1;
      writeFileSync(file, bytes);
    };
    for (const [object, spoil] of [
      [part, flip],
      [part, (file: string) => truncateSync(file, 1000)],
      [part, (file: string) => rmSync(file)],
      [index, flip],
      [index, (file: string) => rmSync(file)],
      [manifest, flip],
    ] as const) {
      const copy = path.join(await tempDir('spoilt'), 'vault');
      cpSync(vault, copy, { recursive: true });
      spoil(path.join(copy, object));
      const target = path.join(await tempDir('restored'), 'uploads');
      const ended = restoreScript(copy, 'restore', 'uploads', target, ...identity);
      expect(ended.code).toBe(1);
      expect(ended.stdout).toBe('');
      expect(ended.stderr).toContain(`where: ${path.join(copy, object)}`);
      if (object !== manifest) expect(readdirSync(target)).toContain('.dr-restore-incomplete');
    }
  });
});

describe('dr-restore.mjs and keys', () => {
  let vault: string;
  let world: Awaited<ReturnType<typeof backupWorld>>;
  let hybrid: string;
  beforeAll(async () => {
    const store = await fileVault();
    vault = rootOf(store);
    world = await backupWorld([store]);
    hybrid = await generateHybridIdentity();
    const second = await generateIdentity();
    const recipients = [];
    for (const each of [hybrid, second, world.identity]) recipients.push(await identityToRecipient(each));
    const source = path.join(await tempDir('tree'), 'uploads');
    mkdirSync(source);
    writeFileSync(path.join(source, 'a'), 'a');
    const directory = { name: 'uploads', kind: 'data', path: source, exclude: [], allowEmpty: false } as const;
    await takeDirectoryBackup({ ...world.context, keyPolicy: { recipients } }, directory);
  });
  afterAll(async () => await world.pool.close());

  async function attempt(...args: string[]) {
    const target = path.join(await tempDir('restored'), 'uploads');
    return { target, ...restoreScript(vault, 'restore', 'uploads', target, ...args) };
  }

  test('any X25519 identity among several recipients opens it, whatever stands beside it', async () => {
    expect(await attempt('--identity', await identityFile(world.identity))).toMatchObject({ code: 0 });
    const several = await identityFile(`${await generateIdentity()}\n${world.identity}`);
    expect(await attempt('--identity', several)).toMatchObject({ code: 0 });
  });

  test('another identity, none, one with a typing error, another kind: refused with what to do, and nothing is left behind', async () => {
    const last = world.identity.at(-1) === 'Q' ? 'P' : 'Q';
    const cases: Array<[string[], RegExp]> = [
      [[], /is encrypted[\s\S]*Give the age identity/],
      [['--identity', await identityFile(await generateIdentity())], /does not open[\s\S]*age1/],
      [['--identity', await identityFile(world.identity.slice(0, -1) + last)], /typing error/],
      [['--identity', await identityFile(hybrid)], /no X25519 age identity[\s\S]*--data-keys/],
      [['--identity', '/absent'], /ENOENT/],
    ];
    for (const [args, reason] of cases) {
      const ended = await attempt(...args);
      expect(ended).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(reason) });
      expect(existsSync(ended.target)).toBe(false);
    }
  });

  test('data keys that were opened by another program do as well', async () => {
    const [id = ''] = readdirSync(path.join(vault, 'keys'));
    const store = new FileStore({ name: 'west', region: 'r', root: vault });
    const keys = await tempDir('keys');
    writeFileSync(path.join(keys, id), (await new KeyRing([hybrid]).open(store, id)).secret);
    expect(await attempt('--data-keys', keys)).toMatchObject({ code: 0 });
  });

  test('wrong arguments show the usage', () => {
    expect(restoreScript(vault)).toMatchObject({ code: 2, stderr: expect.stringMatching(/^Usage:/) });
    expect(restoreScript(vault, 'restore', 'x')).toMatchObject({ code: 2 });
    expect(restoreScript(vault, 'restore', 'x', '/tmp/never')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('"list" shows what there is: uploads'),
    });
  });
});

test('dr-restore.mjs restores every backup of a chain that is built one on the other', async () => {
  const store = await fileVault();
  const world = await backupWorld([store]);
  const source = await strangeTree();
  const context = { ...world.context, partBytes: 1024 * 1024, scratch: await tempDir('scratch') };
  const directory = { name: 'uploads', kind: 'data', path: source, exclude: [], allowEmpty: false } as const;
  const wanted = new Map<string, Map<string, object>>();
  for (let n = 0; n < 4; n++) {
    const { manifest } = await takeDirectoryBackup(context, directory);
    wanted.set(manifest.id, snapshot(source));
    expect(manifest.previous === undefined).toBe(n === 0);
    expect(n === 0 || manifest.storedBytes < 2 * 1024 * 1024).toBe(true);
    const file = openSync(path.join(source, 'a/large'), 'r+');
    for (let i = 0; i < 3; i++) writeSync(file, randomBytes(100), 0, 100, randomInt(9 * 1024 * 1024));
    closeSync(file);
    if (n === 1) truncateSync(path.join(source, 'a/large'), 8 * 1024 * 1024 + 3);
    writeFileSync(path.join(source, `a/b/small ${n}`), randomBytes(500));
  }
  const identity = ['--identity', await identityFile(world.identity)];
  for (const [id, content] of wanted) {
    const target = path.join(await tempDir('restored'), 'uploads');
    const ended = restoreScript(rootOf(store), 'restore', 'uploads', target, '--backup', id, ...identity);
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(snapshot(target)).toEqual(content);
  }
  await world.pool.close();
});

test('dr-restore.mjs restores a PostgreSQL 17 database with its tablespace, which plain postgres then starts, every archived row in it', async () => {
  const store = await fileVault();
  const world = await backupWorld([store]);
  await using source = await startPostgres({ version: 17, initdb: ['--wal-segsize=1'] });
  const spaces = await tempDir('space');
  if (serverUser) execFileSync('chown', [`${serverUser.uid}:${serverUser.gid}`, spaces]);
  await source.sql(`create tablespace elsewhere location '${spaces}'`);
  await source.sql('create table orders as select i, md5(i::text) as note from generate_series(1, 20000) i');
  await source.sql('create table far (i int primary key) tablespace elsewhere');
  const database = { name: 'orders', url: source.url };
  await withPassingArchiver(world.context, database, async (ensureWal) => {
    await backupResource(world.context, { type: 'database', ...database, ensureWal });
    // After the backup: only the WAL has them, in several segments and the beginning of one.
    await source.sql('insert into orders select i, md5(i::text) from generate_series(20001, 40000) i');
    await source.sql('insert into far select generate_series(1, 5000)');
    const [row] = await source.sql<{ lsn: string }>('select pg_current_wal_flush_lsn()::text as lsn');
    const written = parseLsn(row?.lsn ?? '') ?? 0n;
    const { systemId } = (await chooseDatabaseBackup(store, 'orders', { kind: 'latest' })).database;
    for (let tries = 0; ; tries++) {
      const { end } = await walCoverage(store, systemId, { resource: 'orders' });
      if (end && end.lsn >= written) break;
      if (tries > 600) throw new Error('the WAL is not archived');
      await world.context.clock.sleep(50);
    }
  });
  await source.kill9();
  await world.pool.close();

  const base = await tempDir('pg');
  const target = path.join(base, 'data');
  const identity = ['--identity', await identityFile(world.identity)];
  const vault = rootOf(store);
  const ended = restoreScript(vault, 'restore', 'orders', target, ...identity);
  expect(ended).toMatchObject({ code: 0, stderr: '' });
  expect(ended.stdout).toMatch(/chown -R postgres: .*\.tablespaces\n/);
  expect(ended.stdout).toContain('Start PostgreSQL 17 on it');
  if (serverUser) execFileSync('chown', ['-R', `${serverUser.uid}:${serverUser.gid}`, base]);
  await using restored = await startPostgres({ version: 17, dataDirectory: target });
  const rows = await restored.sql(
    'select (select count(*)::int from orders) as orders, (select count(distinct note)::int from orders) as notes, (select sum(i)::int from far) as far',
  );
  expect(rows).toEqual([{ orders: 40000, notes: 40000, far: 12502500 }]);
  expect(readdirSync(`${target}.tablespaces`)).toHaveLength(1);

  // Without the WAL that makes the backup consistent nothing may look restored.
  const wal = execFileSync('find', [path.join(vault, 'wal'), '-type', 'f'], { encoding: 'utf8' })
    .trim()
    .split('\n');
  const last = wal.sort().at(-1) ?? '';
  const bytes = readFileSync(last);
  bytes[2000] = (bytes[2000] ?? 0) ^ 1;
  writeFileSync(last, bytes);
  const spoilt = restoreScript(vault, 'restore', 'orders', path.join(await tempDir('pg'), 'data'), ...identity);
  expect(spoilt).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining(`where: ${last}`) });
  for (const file of wal) rmSync(file);
  const cut = restoreScript(vault, 'restore', 'orders', path.join(await tempDir('pg'), 'data'), ...identity);
  expect(cut).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/is consistent only from/) });
});
