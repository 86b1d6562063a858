import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { backupResource } from '../../src/backup/backup-resource.ts';
import { layOutDatabase, walFileNames } from '../../src/backup/lay-out-database.ts';
import { chooseDatabaseBackup } from '../../src/backup/recover-database.ts';
import { walCoverage } from '../../src/backup/wal/coverage.ts';
import { withPassingArchiver } from '../../src/backup/wal/ensure.ts';
import type { WantedTarget } from '../../src/backup/wal/plan.ts';
import { parseLsn, segmentName, segmentStart } from '../../src/postgres/lsn.ts';
import { serverUser } from '../harness/npm-postgres.ts';
import { type PostgresMajor, startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { tempDir } from '../harness/temp.ts';
import { backupWorld } from './fixture.ts';

// A stock server, started with nothing but what lies in its data directory, recovers by `cp` alone: this is how a database comes
// back into the volume of a StatefulSet.

type World = Awaited<ReturnType<typeof backupWorld>>;

/** What a Job of dr does: fills the data directory and the folder of the WAL beside or inside it. */
async function layOut(world: World, at: WantedTarget, signal = new AbortController().signal) {
  const [store] = world.stores;
  if (!store) throw new Error('no vault');
  const point = await chooseDatabaseBackup(store, 'orders', at);
  const base = await tempDir('volume');
  return await layOutInto(world, path.join(base, 'pgdata'), at, signal, point);
}

async function layOutInto(
  world: World,
  dataDirectory: string,
  at: WantedTarget,
  signal: AbortSignal,
  known?: Awaited<ReturnType<typeof chooseDatabaseBackup>>,
) {
  const [store] = world.stores;
  if (!store) throw new Error('no vault');
  const point = known ?? (await chooseDatabaseBackup(store, 'orders', at));
  const walDirectory = path.join(dataDirectory, 'dr_archive');
  const { keyRing, pool } = world;
  const options = { store, point, keyRing, pool, dataDirectory, walDirectory, parameters: {}, onProgress: () => {} };
  const { walFiles } = await layOutDatabase({ ...options, signal });
  return { dataDirectory, walDirectory, walFiles, point };
}

/** What the entrypoint of the stock image does: the files belong to the user of the server. */
async function startStock(dataDirectory: string, version: PostgresMajor): Promise<TestPostgres> {
  if (serverUser) {
    execFileSync('chown', ['-R', `${serverUser.uid}:${serverUser.gid}`, dataDirectory]);
    execFileSync('chmod', ['o+x', path.dirname(dataDirectory)]);
  }
  return await startPostgres({ version, dataDirectory });
}

interface Standing {
  readonly standby: boolean;
  readonly state: string;
  readonly rows: number;
}

/** Waits until the server has replayed what it can, and says how it stands. */
async function standing(server: TestPostgres, rows: number): Promise<Standing> {
  const end = Date.now() + 30_000;
  for (;;) {
    const [row] = await server.sql<Standing>(
      `select pg_is_in_recovery() as standby, pg_get_wal_replay_pause_state() as state, (select count(*)::int from orders) as rows`,
    );
    if (row && (row.state === 'paused' || row.rows >= rows)) return row;
    if (Date.now() > end) throw new Error(`${JSON.stringify(row)}\n${server.log()}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function timelineOf(server: TestPostgres): Promise<number> {
  const [row] = await server.sql<{ file: string }>('select pg_walfile_name(pg_current_wal_lsn()) as file');
  return Number.parseInt(row?.file.slice(0, 8) ?? '', 16);
}

async function archivedUpTo(world: World, server: TestPostgres): Promise<bigint> {
  const [first] = world.stores;
  if (!first) throw new Error('no vault');
  await server.sql('select pg_switch_wal()');
  const [row] = await server.sql<{ lsn: string }>('select pg_current_wal_flush_lsn()::text as lsn');
  const written = parseLsn(row?.lsn ?? '') ?? 0n;
  const { systemId } = (await chooseDatabaseBackup(first, 'orders', { kind: 'latest' })).database;
  for (let tries = 0; tries < 600; tries++) {
    const coverage = await walCoverage(first, systemId, { resource: 'orders' });
    if (coverage.end && coverage.end.lsn >= written) return written;
    await world.context.clock.sleep(50);
  }
  throw new Error('the WAL is not archived');
}

describe.each([15, 18] as const)('a database laid out for a stock PostgreSQL %i', (version) => {
  let world: World;
  let source: TestPostgres;
  let between = 0;
  let betweenLsn = 0n;

  beforeAll(async () => {
    world = await backupWorld();
    source = await startPostgres({
      version,
      initdb: ['--wal-segsize=1'],
      // As a server that was a standby once, with an archive of its own: none of it may act in the copy.
      settings: {
        archive_mode: 'on',
        archive_command: 'false',
        primary_conninfo: 'host=192.0.2.1 port=5432 user=postgres',
        recovery_target_time: '2001-01-01 00:00:00+00',
      },
    });
    await source.sql('create table orders as select i, md5(i::text) as note from generate_series(1, 5000) i');
    const database = { name: 'orders', url: source.url };
    await withPassingArchiver(world.context, database, async (ensureWal) => {
      await backupResource(world.context, { type: 'database', ...database, ensureWal });
      await source.sql('insert into orders select i, md5(i::text) from generate_series(5001, 6000) i');
      const [row] = await source.sql<{ lsn: string; at: Date }>(
        'select pg_current_wal_insert_lsn()::text as lsn, clock_timestamp() as at',
      );
      between = (row?.at.getTime() ?? 0) + 1;
      betweenLsn = parseLsn(row?.lsn ?? '') ?? 0n;
      await world.context.clock.sleep(20);
      await source.sql('insert into orders select i, md5(i::text) from generate_series(6001, 9000) i');
      await archivedUpTo(world, source);
    });
  });
  afterAll(async () => {
    await source.stop('immediate');
    await world.pool.close();
  });

  test('recovers everything by itself, is read-only until it is promoted, and leaves no WAL folder then', async () => {
    const { dataDirectory, walDirectory } = await layOut(world, { kind: 'latest' });
    await using server = await startStock(dataDirectory, version);
    expect(await standing(server, 9000)).toMatchObject({ standby: true, state: 'not paused', rows: 9000 });
    await expect(server.sql('create table nope ()')).rejects.toMatchObject({ code: '25006' });
    const [settings] = await server.sql(
      `select current_setting('primary_conninfo') as conninfo, current_setting('archive_mode') as archiving`,
    );
    expect(settings).toEqual({ conninfo: '', archiving: 'off' });
    await server.promote();
    await server.sql('insert into orders values (9001)');
    expect(existsSync(walDirectory)).toBe(false);
    expect(await timelineOf(server)).toBe(2);
    // Nothing of the recovery is left that the next start would trip over.
    await server.restart();
    expect(await server.sql('select count(*)::int as n from orders')).toEqual([{ n: 9001 }]);
  });

  test.each(['time', 'lsn'] as const)('stops at a %s and waits there', async (kind) => {
    const at = kind === 'time' ? { kind, atMs: between } : { kind, lsn: betweenLsn };
    const { dataDirectory } = await layOut(world, at);
    await using server = await startStock(dataDirectory, version);
    expect(await standing(server, Number.POSITIVE_INFINITY)).toMatchObject({
      standby: true,
      state: 'paused',
      rows: 6000,
    });
    await server.promote();
    expect(await server.sql('select count(*)::int as n, max(i) as last from orders')).toEqual([
      { n: 6000, last: 6000 },
    ]);
  });

  test('lays out no WAL that came after the plan was made', async () => {
    const [store] = world.stores;
    if (!store) throw new Error('no vault');
    const known = await chooseDatabaseBackup(store, 'orders', { kind: 'latest' });
    const { segmentBytes } = known.database;
    const { timeline } = known.plan;
    const start = segmentStart(known.plan.endLsn - 1n, segmentBytes);
    const segmentOf = async (point: typeof known) => {
      const dataDirectory = path.join(await tempDir('volume'), 'pgdata');
      const { signal } = new AbortController();
      const { walDirectory } = await layOutInto(world, dataDirectory, { kind: 'latest' }, signal, point);
      return await readFile(path.join(walDirectory, segmentName(timeline, start, segmentBytes)));
    };
    const all = await segmentOf(known);
    // As if the plan had been made before the last bytes that this segment has came into the archive.
    const end = all.findLastIndex((byte) => byte !== 0) - 100;
    const endLsn = start + BigInt(end);
    const plan = { ...known.plan, endLsn, target: { kind: 'latest' as const, endLsn } };
    const cut = await segmentOf({ ...known, plan });
    expect(cut.subarray(0, end).equals(all.subarray(0, end))).toBe(true);
    expect(cut.subarray(end).equals(Buffer.alloc(segmentBytes - end))).toBe(true);
  });

  test('goes on where it was cut off, and takes no folder that holds something else', async () => {
    const base = await tempDir('volume');
    const dataDirectory = path.join(base, 'pgdata');
    const at = { kind: 'latest' } as const;
    const [store] = world.stores;
    if (!store) throw new Error('no vault');
    const point = await chooseDatabaseBackup(store, 'orders', at);
    const { keyRing, pool } = world;
    const common = { store, point, keyRing, pool, dataDirectory, parameters: {} };
    const walDirectory = path.join(dataDirectory, 'dr_archive');
    const onProgress = ({ task, done }: { task: string; done: number }) => {
      if (task.startsWith('WAL') && done === 1) throw new Error('evicted');
    };
    const signal = new AbortController().signal;
    await expect(layOutDatabase({ ...common, walDirectory, onProgress, signal })).rejects.toThrow('evicted');
    expect(existsSync(path.join(dataDirectory, 'standby.signal'))).toBe(false);
    const { walFiles } = await layOutInto(world, dataDirectory, at, signal);
    expect(walFiles).toBeGreaterThan(1);
    await using server = await startStock(dataDirectory, version);
    expect((await standing(server, 9000)).rows).toBe(9000);

    const foreign = path.join(base, 'wal');
    await mkdir(foreign);
    await writeFile(path.join(foreign, '000000010000000000000001'), 'not ours');
    const elsewhere = { ...common, dataDirectory: path.join(base, 'other'), onProgress: () => {} };
    await expect(layOutDatabase({ ...elsewhere, walDirectory: foreign, signal })).rejects.toMatchObject({
      kind: 'refused',
      message: 'the folder for the WAL is not empty',
    });
  });

  test('follows the database over a promotion, from a backup of before', async () => {
    const { dataDirectory } = await layOut(world, { kind: 'latest' });
    await using promoted = await startStock(dataDirectory, version);
    await standing(promoted, 9000);
    await promoted.promote();
    await withPassingArchiver(world.context, { name: 'orders', url: promoted.url }, async () => {
      await promoted.sql('insert into orders select i, md5(i::text) from generate_series(9001, 9500) i');
      await archivedUpTo(world, promoted);
    });
    const second = await layOut(world, { kind: 'latest' });
    expect(second.point.plan.line.map(({ timeline }) => timeline)).toEqual([1, 2]);
    const names = walFileNames(second.point.plan, second.point.database.segmentBytes);
    expect(names).toContain('00000002.history');
    await using server = await startStock(second.dataDirectory, version);
    expect(await standing(server, 9500)).toMatchObject({ standby: true, rows: 9500 });
    await server.promote();
    expect(await timelineOf(server)).toBe(3);
  });
});
