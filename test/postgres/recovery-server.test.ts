import { execFileSync } from 'node:child_process';
import { appendFileSync, existsSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { expect, test } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { parseLsn } from '../../src/postgres/lsn.ts';
import { type RecoverOptions, recover } from '../../src/postgres/recovery.ts';
import { queryOnce } from '../../src/postgres/server-process-sql.ts';
import { copyBackup, copyWal, walUpTo } from '../harness/base-backup.ts';
import { freePort, own, startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { orderIds, type RecoverySource, recoverInChild, restoredBackup } from '../harness/recovery-source.ts';
import { tempDir } from '../harness/temp.ts';

/** A small source: order 1 in the backup, whatever `after` writes in the WAL. */
async function smallSource(server: TestPostgres, after: () => Promise<void>): Promise<RecoverySource> {
  await server.sql('create table orders(id int primary key)');
  await server.sql('insert into orders values (1)');
  const backup = await copyBackup(server);
  await after();
  return { server, backup, wal: await copyWal(server), orders: [] };
}

async function address(
  parameters: Record<string, string> = {},
): Promise<{ listen: string; port: number; parameters: Record<string, string> }> {
  return { listen: '127.0.0.1', port: await freePort(), parameters };
}

function tcp(options: RecoverOptions, password: string): string {
  return `postgresql://postgres:${password}@127.0.0.1:${options.address?.port}/postgres`;
}

test('a production server listens where it should, by its own access rules, and stays so when anybody starts it again', async () => {
  await using server = await startPostgres({
    password: 'right-one',
    settings: { archive_mode: 'on', archive_command: 'false' },
  });
  const source = await smallSource(server, async () => void (await server.sql('insert into orders values (2)')));
  await server.kill9();
  const options = await restoredBackup(source, { address: await address({ work_mem: '12345kB' }) });
  appendFileSync(join(options.dataDirectory, 'postgresql.auto.conf'), "synchronous_standby_names = 'gone'\n");
  const cluster = await recover(options);
  try {
    await cluster.promote();
    expect(
      (await queryOnce<{ id: number }>(tcp(options, 'right-one'), 'select id from orders order by id')).map(
        (row) => row.id,
      ),
    ).toEqual([1, 2]);
    await expect(queryOnce(tcp(options, 'wrong-one'), 'select 1')).rejects.toThrow(/password authentication failed/);
    // Access for the time of the recovery is over, and later changes of the cluster's own file count again.
    expect(readlinkSync(join(options.dataDirectory, 'dr_pg_hba.conf'))).toBe(
      join(options.dataDirectory, 'pg_hba.conf'),
    );
    appendFileSync(join(options.dataDirectory, 'pg_hba.conf'), 'host nowhere all 127.0.0.1/32 trust\n');
    const rules = await queryOnce<{ database: string[] }>(
      tcp(options, 'right-one'),
      'select database from pg_hba_file_rules',
    );
    expect(rules.map((rule) => rule.database[0])).toContain('nowhere');
    const show = async (name: string) =>
      (await queryOnce<Record<string, string>>(tcp(options, 'right-one'), `show ${name}`))[0]?.[name];
    expect(await show('archive_mode')).toBe('off');
    expect(await show('synchronous_standby_names')).toBe('');
    expect(await show('work_mem')).toBe('12345kB');
    expect(await show('fsync')).toBe('off'); // as the source has it, not as a copy would
  } finally {
    await cluster.stop();
  }
  await using again = await startPostgres({ dataDirectory: options.dataDirectory, password: 'right-one' });
  expect(await again.sql('show archive_mode')).toEqual([{ archive_mode: 'off' }]);
  expect(await again.sql('show work_mem')).toEqual([{ work_mem: '12345kB' }]);
  expect(await again.sql('show restore_command')).toEqual([{ restore_command: '' }]);
  expect(await again.sql('select count(*)::int as n from orders')).toEqual([{ n: 2 }]);
});

test('after a kill -9 the same call goes on with the standby, and with a promoted server leaves it running', async () => {
  await using server = await startPostgres({});
  const source = await smallSource(server, async () => void (await server.sql('insert into orders values (2)')));
  const options = await restoredBackup(source, { address: await address() });
  const killed = await recoverInChild(options, source);
  await killed.waitFor(/reached/);
  await killed.kill9();
  const second = await recover(options);
  expect((await second.promote()).timeline).toBe(2);
  await queryOnce(tcp(options, ''), 'insert into orders values (3)');
  const third = await recover(options);
  expect(third.server.pid).toBe(second.server.pid);
  expect(third.reached).toBeUndefined();
  expect((await third.promote()).timeline).toBe(2);
  expect((await queryOnce(tcp(options, ''), 'select from orders')).length).toBe(3);
  await third.stop();
});

test('settings that were raised on the source after the backup are raised here, in the middle of the replay', async () => {
  await using server = await startPostgres({ settings: { max_connections: 20, wal_keep_size: '1GB' } });
  const source = await smallSource(server, async () => {
    await server.sql('insert into orders values (2)');
    await server.sql("alter system set max_connections = '77'");
    await server.sql("alter system set max_prepared_transactions = '9'");
    await server.restart();
    await server.sql('insert into orders values (3)');
  });
  const cluster = await recover(await restoredBackup(source));
  expect(await orderIds(cluster)).toEqual([1, 2, 3]);
  expect(await queryOnce(cluster.url, 'show max_connections')).toEqual([{ max_connections: '77' }]);
  await cluster.stop();
});

test('a backup without configuration files gets the ones that it needs from what was recorded', async () => {
  await using server = await startPostgres({ settings: { max_connections: 123 } });
  const source = await smallSource(server, async () => void (await server.sql('insert into orders values (2)')));
  const options = await restoredBackup(source, { recorded: { max_connections: '123', shared_buffers: '16384' } });
  for (const name of ['postgresql.conf', 'pg_hba.conf', 'pg_ident.conf']) rmSync(join(options.dataDirectory, name));
  const cluster = await recover(options);
  await cluster.promote();
  expect(await queryOnce(cluster.url, 'show max_connections')).toEqual([{ max_connections: '123' }]);
  await cluster.stop();
  expect(readFileSync(join(options.dataDirectory, 'postgresql.conf'), 'utf8')).toContain("max_connections = '123'");
  expect(readFileSync(join(options.dataDirectory, 'pg_hba.conf'), 'utf8')).not.toContain('trust');
});

test('a copy listens nowhere, archives nothing, runs no foreign library and no job', async () => {
  const marker = join(await tempDir(), 'archived');
  await using server = await startPostgres({ settings: { archive_mode: 'on', archive_command: `touch ${marker}` } });
  const source = await smallSource(server, async () => void (await server.sql('insert into orders values (2)')));
  rmSync(marker, { force: true });
  const options = await restoredBackup(source);
  appendFileSync(
    join(options.dataDirectory, 'postgresql.auto.conf'),
    "shared_preload_libraries = 'pg_cron, pg_stat_statements, not_installed_here'\nssl = on\nprimary_conninfo = 'host=127.0.0.1'\nrecovery_target_time = '2001-01-01'\n",
  );
  const cluster = await recover(options);
  await cluster.promote();
  const show = async (name: string) =>
    (await queryOnce<Record<string, string>>(cluster.url, `show ${name}`))[0]?.[name];
  expect(await show('listen_addresses')).toBe('');
  expect(await show('archive_mode')).toBe('off');
  expect(await show('shared_preload_libraries')).toBe('pg_stat_statements');
  await queryOnce(cluster.url, 'select pg_switch_wal()');
  await cluster.stop();
  expect(existsSync(marker)).toBe(false);
  // A production server needs its libraries: the error names the one that is missing.
  const real = await restoredBackup(source, { address: await address() });
  appendFileSync(join(real.dataDirectory, 'postgresql.auto.conf'), "shared_preload_libraries = 'not_installed_here'\n");
  await expect(recover(real)).rejects.toMatchObject({ kind: 'local', where: 'not_installed_here' });
});

test('a database saved amid a transaction with very many savepoints comes back although its standby lets nobody in', async () => {
  await using server = await startPostgres({ settings: { wal_keep_size: '1GB' } });
  await server.sql('create table orders(id int primary key)');
  await server.sql('insert into orders values (1)');
  const busy = new pg.Client({ connectionString: server.url });
  busy.on('error', () => {});
  await busy.connect();
  await busy.query('begin');
  for (let id = 1000; id < 1100; id++) await busy.query(`savepoint s; insert into orders values (${id})`);
  const backup = await copyBackup(server);
  await server.sql('insert into orders values (2)');
  const wal = await copyWal(server);
  await server.kill9();
  const cluster = await recover(await restoredBackup({ server, backup, wal, orders: [] }));
  expect(await cluster.connect()).toBe(false);
  expect(cluster.reached?.replayedTo).toBe(wal.endLsn);
  await cluster.promote();
  expect(await orderIds(cluster)).toEqual([1, 2]);
  await cluster.stop();
});

test('recovery follows the archive over a promotion to the next timeline', async () => {
  await using server = await startPostgres({ settings: { wal_keep_size: '1GB' } });
  const source = await smallSource(server, async () => void (await server.sql('insert into orders values (2)')));
  await server.kill9();
  const first = await recover(await restoredBackup(source, { settings: { wal_keep_size: '1GB' } }));
  await first.promote();
  await queryOnce(first.url, 'insert into orders values (3)');
  const [row] = await queryOnce<{ lsn: string }>(first.url, 'select pg_current_wal_flush_lsn()::text as lsn');
  const endLsn = parseLsn(row?.lsn ?? '') ?? 0n;
  const later = await walUpTo(join(first.dataDirectory, 'pg_wal'), endLsn, 16 * 1024 * 1024);
  await first.stop();
  const files = new Map([...source.wal.files, ...later.files]);
  expect([...files.keys()]).toContain('00000002.history');
  const fetchWal = async (name: string) => files.get(name);
  const second = await recover(
    await restoredBackup(source, { fetchWal, timeline: 2, target: { kind: 'latest', endLsn } }),
  );
  expect(await orderIds(second)).toEqual([1, 2, 3]);
  // The archive already has a timeline 2: the next one is 3.
  expect((await second.promote()).timeline).toBe(3);
  await second.stop();
  // Without the second timeline's WAL the recovery says so instead of stopping at the switch.
  const only = async (name: string) => (name.startsWith('00000002000') ? undefined : files.get(name));
  const options = await restoredBackup(source, { fetchWal: only, timeline: 2, target: { kind: 'latest', endLsn } });
  await expect(recover(options)).rejects.toBeInstanceOf(DrError);
});

test.skipIf(!existsSync('/usr/lib/postgresql/15/bin/pg_basebackup'))(
  'a backup of pg_basebackup, with a tablespace, recovers',
  async () => {
    await using server = await startPostgres({ version: 15, settings: { wal_keep_size: '1GB' } });
    const [space, target, mapped] = [
      await tempDir('s'),
      join(await tempDir('d'), 'data'),
      join(await tempDir('m'), 'space'),
    ];
    own(space);
    await server.sql(`create tablespace other location '${space}'`);
    await server.sql('create table orders(id int) tablespace other');
    await server.sql('insert into orders values (1)');
    const args = ['-d', server.url, '-D', target, '-X', 'none', '-c', 'fast', '-T', `${space}=${mapped}`];
    execFileSync('/usr/lib/postgresql/15/bin/pg_basebackup', args, { stdio: 'pipe' });
    await server.sql('insert into orders values (2)');
    const wal = await copyWal(server);
    await server.kill9();
    const source = { server, wal, orders: [], backup: { directory: target, startLsn: 0n, endLsn: 0n } };
    const cluster = await recover({ ...(await restoredBackup(source)), dataDirectory: target });
    expect(await orderIds(cluster)).toEqual([1, 2]);
    expect(statSync(mapped).uid).toBe(statSync(target).uid);
    await cluster.stop();
  },
);
