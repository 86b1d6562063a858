import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { backupResource } from '../../src/backup/backup-resource.ts';
import type { BackupContext, TakenBackup } from '../../src/backup/context.ts';
import { chooseDatabaseBackup, recoverDatabase } from '../../src/backup/recover-database.ts';
import { restoreBackup } from '../../src/backup/restore.ts';
import type { EnsureWal } from '../../src/backup/take-database.ts';
import { walCoverage } from '../../src/backup/wal/coverage.ts';
import { withPassingArchiver } from '../../src/backup/wal/ensure.ts';
import { silentLog } from '../../src/base/log.ts';
import { parseLsn } from '../../src/postgres/lsn.ts';
import { queryRows } from '../../src/postgres/query.ts';
import { own, startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { tempDir } from '../harness/temp.ts';
import { filesBelow } from '../postgres/lay-over.ts';
import { backupWorld } from './fixture.ts';

type World = Awaited<ReturnType<typeof backupWorld>>;

const settings = { summarize_wal: 'on', log_replication_commands: 'on' };
const ROWS = 30_000;

/** What changes before each backup, beside the load that runs meanwhile. */
const rounds: ReadonlyArray<{ readonly what: string; readonly statements: readonly string[] }> = [
  { what: 'clustered', statements: ['update accounts set balance = balance + 1 where id between 1000 and 1600'] },
  { what: 'scattered', statements: [`update accounts set balance = balance - 1 where id % 97 = 3`, 'vacuum accounts'] },
  {
    what: 'truncated and grown again',
    statements: [
      'delete from tail where i > 15000',
      'vacuum (truncate) tail',
      "copy tail from program 'yes 7:zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz | head -2000' with (delimiter ':')",
    ],
  },
  {
    what: 'rewritten, new databases and tablespaces',
    statements: [
      'vacuum full tail',
      'create database logged strategy wal_log',
      'create database copied strategy file_copy',
      'create table far (i int primary key, x text) tablespace elsewhere',
      "insert into far select i, repeat('f', 300) from generate_series(1, 9000) i",
    ],
  },
  {
    what: 'dropped and moved',
    statements: [
      'drop database copied',
      'drop table gone',
      'create table gone as select i, md5(i::text) as x from generate_series(1, 20000) i',
      'delete from far where i % 3 = 0',
      'alter table tail set tablespace elsewhere',
    ],
  },
  { what: 'hardly anything', statements: ['update tail set x = upper(x) where i between 50 and 60'] },
];

describe.each([17, 18] as const)('PostgreSQL %i that summarizes its WAL', (version) => {
  let world: World;
  let source: TestPostgres;
  beforeAll(async () => {
    world = await backupWorld();
    source = await startPostgres({ version, settings });
    const space = await tempDir('space');
    own(space);
    // Every database has what looks for damage, and something to look at.
    for (const database of ['template1', 'postgres']) {
      const content = 'create table small as select i, md5(i::text) as x from generate_series(1, 30000) i';
      await source.sql(`create extension amcheck; create extension pg_visibility; ${content}`, [], database);
    }
    await source.sql(`create tablespace elsewhere location '${space}'`);
    await source.sql(`
      create table accounts (id int primary key, balance int not null, filler text);
      insert into accounts select i, 0, repeat(md5(i::text), 6) from generate_series(1, ${ROWS}) i;
      create table tail as select i, repeat('t', 500) as x from generate_series(1, 20000) i;
      create table gone as select generate_series(1, 20000) i;
      create unlogged table unlogged as select generate_series(1, 100) i`);
    await source.sql('vacuum freeze');
  });
  afterAll(async () => {
    await source.stop();
    await world.pool.close();
  });

  test('a chain of backups under load: each comes back as the source was', async () => {
    const context: BackupContext = { ...world.context, scratch: await tempDir('scratch') };
    await withPassingArchiver(context, { name: 'orders', url: source.url }, async (ensureWal) => {
      const first = await backup(context, source, ensureWal);
      expect(first.manifest.notes).toEqual([]);
      const stored: number[] = [];
      for (const [round, { what, statements }] of rounds.entries()) {
        for (const statement of statements) await source.sql(statement);
        const load = startLoad(source);
        const { manifest } = await backup(context, source, ensureWal).finally(load.stop);
        expect(load.transactions()).toBeGreaterThan(0);
        expect(manifest.notes, what).toEqual([]);
        expect(lastCommand(source), what).toContain('INCREMENTAL');
        stored.push(manifest.storedBytes);
        // Recovery is the same in both versions: of 18 every second backup is enough.
        if (version === 18 && round % 2 === 0) continue;
        const here = await fingerprint(source.url);
        await untilArchived(context, source, manifest.database?.systemId ?? '');
        expect(await recoveredFingerprint(world, source), what).toEqual(here);
      }
      const [clustered = 0, scattered = 0] = stored;
      expect(clustered).toBeLessThan(first.manifest.storedBytes / 5);
      expect(clustered).toBeLessThan(scattered);
      expect(stored.at(-1)).toBeLessThan(first.manifest.storedBytes / 5);
    });
  });

  test('what is laid over the previous backup is what a full one would be, byte for byte', async () => {
    const context: BackupContext = { ...world.context, scratch: await tempDir('scratch') };
    await withPassingArchiver(context, { name: 'quiet', url: source.url }, async (ensureWal) => {
      await source.sql('alter system set autovacuum = off');
      await source.sql('select pg_reload_conf()');
      await backup(context, source, ensureWal, 'quiet');
      for (const { statements } of [rounds[0], rounds[1]].flatMap((round) => (round ? [round] : []))) {
        for (const statement of statements) await source.sql(statement);
        await backup(context, source, ensureWal, 'quiet');
      }
      const { manifest: laid } = await backup(context, source, ensureWal, 'quiet');
      expect(lastCommand(source)).toContain('INCREMENTAL');
      // Without what is known here, everything is read and stored.
      const { manifest: full } = await backup(world.context, source, ensureWal, 'quiet');
      expect(full.reusedBytes).toBe(0);
      expect(laid.storedBytes).toBeLessThan(full.storedBytes / 20);
      const [store] = world.stores;
      if (!store) throw new Error('no vault');
      const places = await Promise.all(
        [laid, full].map(async (manifest) => {
          const target = join(await tempDir('restored'), 'data');
          await restoreBackup({ store, manifest, keyRing: world.keyRing, pool: world.pool, target });
          return target;
        }),
      );
      const [one = '', other = ''] = places;
      expect(differences(one, other)).toEqual([]);
      checkManifest(one);
    });
  });

  test('lost summaries cost a full stream, with a note, and the next backup is small again', async () => {
    const context: BackupContext = { ...world.context, scratch: await tempDir('scratch') };
    await withPassingArchiver(context, { name: 'lost', url: source.url }, async (ensureWal) => {
      await backup(context, source, ensureWal, 'lost');
      for (const round of [1, 2, 3]) {
        await source.sql(`update accounts set balance = ${round} where id = ${round}`);
        await source.sql('checkpoint');
        await source.sql('select pg_switch_wal()');
      }
      const summaries = join(source.dataDirectory, 'pg_wal/summaries');
      const names = readdirSync(summaries).sort();
      rmSync(join(summaries, names.at(-2) ?? ''));
      const { manifest: whole } = await backup(context, source, ensureWal, 'lost');
      expect(whole.notes).toEqual([
        {
          kind: 'other',
          subject: 'lost',
          detail: expect.stringMatching(
            /^the server was asked for everything instead of what changed: its WAL summaries /,
          ),
        },
      ]);
      expect(lastCommand(source)).not.toContain('INCREMENTAL');
      // Compared by blocks, it stores next to nothing all the same.
      expect(whole.reusedBytes).toBeGreaterThan(whole.logicalBytes * 0.9);
      const { manifest: next } = await backup(context, source, ensureWal, 'lost');
      expect(next.notes).toEqual([]);
      expect(lastCommand(source)).toContain('INCREMENTAL');
    });
  });
});

async function backup(
  context: BackupContext,
  source: TestPostgres,
  ensureWal: EnsureWal,
  name = 'orders',
): Promise<TakenBackup> {
  const taken = await backupResource(context, { type: 'database', name, url: source.url, ensureWal });
  expect(taken.vaults).toEqual(['east', 'west']);
  return taken;
}

/** What the server was asked for last. */
function lastCommand(source: TestPostgres): string | undefined {
  return source
    .log()
    .split('\n')
    .findLast((line) => line.includes('BASE_BACKUP'));
}

/** The manifest that is written for an incremental backup names the files as they are. */
function checkManifest(directory: string): void {
  const manifest: { Files: ReadonlyArray<{ Path: string; Size: number; Checksum?: string }> } = JSON.parse(
    readFileSync(join(directory, 'backup_manifest'), 'utf8'),
  );
  const outside = /^(?:backup_manifest|pg_wal\/.*)$/;
  expect(manifest.Files.map(({ Path }) => Path).sort()).toEqual(
    filesBelow(directory)
      .filter((path) => !outside.test(path))
      .sort(),
  );
  for (const file of manifest.Files) expect(statSync(join(directory, file.Path)).size, file.Path).toBe(file.Size);
  expect(readFileSync(join(directory, 'backup_label'), 'utf8')).not.toContain('INCREMENTAL');
}

/** Updates single rows all over the table, and adds some, until it is told to stop. */
function startLoad(source: TestPostgres) {
  let isStopped = false;
  let transactions = 0;
  const worker = async (seed: number) => {
    for (let n = seed; !isStopped; n += 7919) {
      const id = (n * 7919) % ROWS;
      await source.sql('update accounts set balance = balance + $1 where id = $2', [n % 13, id]);
      await source.sql('insert into gone values ($1)', [n]);
      transactions++;
    }
  };
  const workers = [worker(1), worker(500)];
  return {
    transactions: () => transactions,
    stop: async () => {
      isStopped = true;
      await Promise.all(workers);
    },
  };
}

const DATABASES = ['postgres', 'logged', 'copied'];

/** A digest of every table of every database, with what amcheck and pg_visibility have to say. */
async function fingerprint(url: string): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  const names = (await queryRows(url, 'select datname::text from pg_database', {})).map(([name]) => String(name));
  for (const name of DATABASES.filter((database) => names.includes(database))) {
    const at = new URL(url);
    at.pathname = `/${name}`;
    const tables = await queryRows(
      at.href,
      `select oid::regclass::text from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace and relpersistence = 'p' order by 1`,
      {},
    );
    for (const [table] of tables) {
      const [digest] = await queryRows(
        at.href,
        `select count(*)::text, sum(hashtextextended(t::text, 0))::text,
                (select count(*)::int from verify_heapam('${String(table)}')),
                (select count(*)::int from pg_check_visible('${String(table)}')) + (select count(*)::int from pg_check_frozen('${String(table)}'))
         from ${String(table)} t`,
        {},
      );
      found[`${name}.${String(table)}`] = digest;
    }
    await queryRows(
      at.href,
      `select bt_index_check(c.oid, true) from pg_class c join pg_index i on i.indexrelid = c.oid join pg_am a on a.oid = c.relam
       where a.amname = 'btree' and c.relpersistence = 'p' and i.indisvalid`,
      {},
    );
  }
  return found;
}

async function recoveredFingerprint(world: World, source: TestPostgres): Promise<Record<string, unknown>> {
  const [store] = world.stores;
  if (!store) throw new Error('no vault');
  const cluster = await recoverDatabase({
    store,
    point: await chooseDatabaseBackup(store, 'orders', { kind: 'latest' }),
    keyRing: world.keyRing,
    pool: world.pool,
    dataDirectory: join(await tempDir('pg'), 'data'),
    binaries: [source.bin],
    searchPath: [],
    address: undefined,
    log: silentLog,
  });
  try {
    await cluster.promote();
    return await fingerprint(cluster.url);
  } finally {
    await cluster.stop();
  }
}

/** Waits until a vault has all WAL that the source has written by now. */
async function untilArchived(context: BackupContext, source: TestPostgres, systemId: string): Promise<void> {
  const [store] = context.stores;
  if (!store) throw new Error('no vault');
  const [row] = await source.sql<{ lsn: string }>('select pg_current_wal_flush_lsn()::text as lsn');
  const written = parseLsn(row?.lsn ?? '') ?? 0n;
  for (;;) {
    const { end } = await walCoverage(store, systemId, { resource: 'orders' });
    if (end && end.lsn >= written) return;
    await context.clock.sleep(50);
  }
}

/** Paths that are not the same; what no two backups have in common left out. */
function differences(one: string, other: string): string[] {
  const skipped = /^(?:backup_label|backup_manifest|global\/pg_control|pg_wal\/.*)$/;
  const paths = new Set([...filesBelow(one), ...filesBelow(other)].filter((path) => !skipped.test(path)));
  return [...paths].filter((path) => {
    const [a, b] = [join(one, path), join(other, path)];
    return !existsSync(a) || !existsSync(b) || !readFileSync(a).equals(readFileSync(b));
  });
}
