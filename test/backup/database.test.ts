import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { backupResource } from '../../src/backup/backup-resource.ts';
import { chooseDatabaseBackup, recoverDatabase } from '../../src/backup/recover-database.ts';
import { walCoverage } from '../../src/backup/wal/coverage.ts';
import { withPassingArchiver } from '../../src/backup/wal/ensure.ts';
import { silentLog } from '../../src/base/log.ts';
import { parseLsn } from '../../src/postgres/lsn.ts';
import { queryRows } from '../../src/postgres/query.ts';
import { startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { tempDir } from '../harness/temp.ts';
import { backupWorld } from './fixture.ts';

describe.each([15, 16, 17, 18] as const)('PostgreSQL %i, backed up without a daemon', (version) => {
  let world: Awaited<ReturnType<typeof backupWorld>>;
  let source: TestPostgres;
  let spaces: string;
  beforeAll(async () => {
    world = await backupWorld();
    source = await startPostgres({ version });
    spaces = await tempDir('space');
    if (process.getuid?.() === 0) execFileSync('chown', ['--reference', source.dataDirectory, spaces]);
    await source.sql(`create tablespace elsewhere location '${spaces}'`);
    await source.sql(`create table orders as select i, md5(i::text) as note from generate_series(1, 20000) i`);
    await source.sql('create table far (i int primary key) tablespace elsewhere');
    await source.sql('insert into far select generate_series(1, 5000)');
    await source.sql('create index on orders (note)');
  });
  afterAll(async () => {
    await source.stop();
    await world.pool.close();
  });

  test('comes back from each vault alone, with its tablespace, and leaves no slot behind', async () => {
    const database = { name: 'orders', url: source.url };
    const taken = await withPassingArchiver(
      world.context,
      database,
      async (ensureWal) => await backupResource(world.context, { type: 'database', ...database, ensureWal }),
    );
    expect(taken.vaults).toEqual(['east', 'west']);
    expect(taken.manifest.notes).toEqual([]);
    expect(await source.sql('select slot_name from pg_replication_slots')).toEqual([]);
    await source.kill9();
    for (const store of world.stores) {
      const point = await chooseDatabaseBackup(store, 'orders', { kind: 'latest' });
      const dataDirectory = path.join(await tempDir('pg'), 'data');
      const cluster = await recoverDatabase({
        store,
        point,
        keyRing: world.keyRing,
        pool: world.pool,
        dataDirectory,
        binaries: [source.bin],
        searchPath: [],
        address: undefined,
        log: silentLog,
      });
      try {
        const promoted = await cluster.promote();
        expect(promoted.timeline).toBe(2);
        const rows = await queryRows(
          cluster.url,
          'select (select count(*) from orders)::int, (select sum(i) from far)::int, (select count(distinct note) from orders)::int',
          { timeoutMs: 10_000 },
        );
        expect(rows[0]).toEqual([20000, 12502500, 20000]);
      } finally {
        await cluster.stop();
      }
      expect(readdirSync(`${dataDirectory}.tablespaces`)).toHaveLength(1);
    }
    await source.start();
  });
});

test('a moment after the last commit, covered by the archive, is reached although no later commit proves it', async () => {
  const world = await backupWorld();
  const [first] = world.stores;
  if (!first) throw new Error('no vault');
  await using source = await startPostgres({ version: 17 });
  await source.sql('create table orders (i int)');
  const database = { name: 'orders', url: source.url };
  let between = 0;
  await withPassingArchiver(world.context, database, async (ensureWal) => {
    await backupResource(world.context, { type: 'database', ...database, ensureWal });
    await source.sql('insert into orders values (1)');
    between = Date.now() + 50;
    await world.context.clock.sleep(100);
    // WAL that is no commit comes after that moment: a checkpoint and a change of segment.
    await source.sql('checkpoint');
    await source.sql('select pg_switch_wal()');
    const [row] = await source.sql<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn');
    const written = parseLsn(row?.lsn ?? '') ?? 0n;
    const { systemId } = (await chooseDatabaseBackup(first, 'orders', { kind: 'latest' })).database;
    for (let tries = 0; ; tries++) {
      const coverage = await walCoverage(first, systemId, { resource: 'orders' });
      if (coverage.end && coverage.end.lsn >= written && coverage.coveredUntilMs > between) break;
      if (tries > 600) throw new Error('the WAL is not archived');
      await world.context.clock.sleep(50);
    }
  });
  const point = await chooseDatabaseBackup(first, 'orders', { kind: 'time', atMs: between });
  const cluster = await recoverDatabase({
    store: first,
    point,
    keyRing: world.keyRing,
    pool: world.pool,
    dataDirectory: path.join(await tempDir('pg'), 'data'),
    binaries: [source.bin],
    searchPath: [],
    address: undefined,
    log: silentLog,
  });
  expect(await queryRows(cluster.url, 'select count(*)::int from orders', {})).toEqual([[1]]);
  await cluster.stop();
  await world.pool.close();
});

test('another system behind the same URL is refused until a person accepts it', async () => {
  const world = await backupWorld();
  const take = async (url: string, acceptNewSystem: boolean) =>
    await withPassingArchiver(
      world.context,
      { name: 'orders', url },
      async (ensureWal) =>
        await backupResource(world.context, { type: 'database', name: 'orders', url, ensureWal, acceptNewSystem }),
    );
  await using first = await startPostgres({ version: 17 });
  await using rebuilt = await startPostgres({ version: 17 });
  await take(first.url, false);
  await expect(take(rebuilt.url, false)).rejects.toMatchObject({
    kind: 'refused',
    next: expect.stringContaining('--accept-new-system'),
  });
  const accepted = await take(rebuilt.url, true);
  expect((await take(rebuilt.url, false)).manifest.database?.systemId).toBe(accepted.manifest.database?.systemId);
  await world.pool.close();
});
