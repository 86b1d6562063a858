import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { backupResource } from '../../src/backup/backup-resource.ts';
import { withPassingArchiver } from '../../src/backup/ensure-wal.ts';
import { chooseDatabaseBackup, recoverDatabase } from '../../src/backup/recover-database.ts';
import { silentLog } from '../../src/base/log.ts';
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
        const { queryRows } = await import('../../src/postgres/query.ts');
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
