import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { silentLog } from '../../src/base/log.ts';
import type { Lsn } from '../../src/postgres/lsn.ts';
import type { RecoverOptions, RunningCluster } from '../../src/postgres/recovery.ts';
import { queryOnce } from '../../src/postgres/server-process-sql.ts';
import { type CopiedBackup, type CopiedWal, copyBackup, copyWal, currentLsn } from './base-backup.ts';
import { type PostgresMajor, startPostgres, type TestPostgres } from './postgres.ts';
import { startNode, type TestProcess } from './process.ts';
import { tempDir } from './temp.ts';

/** Bytes of a WAL segment of the source: small, so that its WAL has many. */
export const sourceSegmentBytes = 1024 * 1024;

/** A source with orders 1 to 3 in the base backup and 4 to `last` in the WAL; each order notes its LSN and time. */
export interface RecoverySource {
  readonly server: TestPostgres;
  readonly backup: CopiedBackup;
  readonly wal: CopiedWal;
  /** End of the commit of each order, and a moment between it and the next. */
  readonly orders: ReadonlyArray<{ id: number; lsn: Lsn; afterMs: number }>;
}

export async function recoverySource(version: PostgresMajor): Promise<RecoverySource> {
  const server = await startPostgres({
    version,
    initdb: ['--wal-segsize=1'],
    settings: { wal_keep_size: '1GB', max_connections: 30 },
  });
  await server.sql('create table orders(id int primary key, filler text)');
  const order = async (id: number) => {
    await server.sql('insert into orders select $1::int, repeat(md5($1::int::text), 100)', [id]);
    const lsn = await currentLsn(server);
    // The clock of commits has microseconds: the next commit is certainly later than this.
    const [row] = await server.sql<{ ms: number }>(
      'select extract(epoch from clock_timestamp()) * 1000 as ms, pg_sleep(0.005)',
    );
    return { id, lsn, afterMs: Math.ceil(Number(row?.ms)) };
  };
  const orders = [];
  for (const id of [1, 2, 3]) orders.push(await order(id));
  const backup = await copyBackup(server, async () => {
    // More than a segment between the start and the end of the backup.
    await server.sql('create table during as select g, md5(g::text) from generate_series(1, 30000) g');
  });
  for (let id = 4; id <= 12; id++) {
    orders.push(await order(id));
    // Full pages fill segments: the WAL spans several.
    await server.sql(`create table t${id} as select g, md5(g::text) from generate_series(1, 8000) g`);
  }
  orders.push(await order(13));
  const wal = await copyWal(server);
  return { server, backup, wal, orders };
}

/** A fresh copy of the base backup, as a restore leaves it, and options to recover it. */
export async function restoredBackup(
  source: RecoverySource,
  changes: Partial<RecoverOptions> = {},
): Promise<RecoverOptions> {
  const dataDirectory = join(await tempDir('r'), 'data');
  cpSync(source.backup.directory, dataDirectory, { recursive: true });
  return {
    dataDirectory,
    binaries: { bin: source.server.bin, major: source.server.version, version: String(source.server.version) },
    target: { kind: 'latest', endLsn: source.wal.endLsn },
    timeline: 1,
    fetchWal: source.wal.fetch,
    recorded: {},
    address: undefined,
    log: silentLog,
    ...changes,
  };
}

export async function orderIds(cluster: RunningCluster): Promise<number[]> {
  const rows = await queryOnce<{ id: number }>(cluster.url, 'select id from orders order by id');
  return rows.map((row) => row.id);
}

export const upTo = (last: number) => Array.from({ length: last }, (_, index) => index + 1);

/** Runs the recovery in a process of its own, to be killed: it prints `stuck` when it needs `stuckAt`, `reached` at the target. */
export async function recoverInChild(
  options: RecoverOptions,
  source: RecoverySource,
  stuckAt = '',
): Promise<TestProcess> {
  const archive = await tempDir('a');
  for (const [name, content] of source.wal.files) writeFileSync(join(archive, name), content);
  const { log: _, fetchWal: __, target: ___, ...plain } = options;
  const script = join(archive, 'recover.ts');
  const src = join(import.meta.dirname, '../../src');
  writeFileSync(
    script,
    `import { readFile } from 'node:fs/promises';
     import { silentLog } from '${src}/base/log.ts';
     import { recover } from '${src}/postgres/recovery.ts';
     await recover({
       ...${JSON.stringify(plain)},
       log: silentLog,
       target: { kind: 'latest', endLsn: ${source.wal.endLsn}n },
       fetchWal: async (name) => {
         if (name === '${stuckAt}') {
           console.log('stuck');
           await new Promise(() => {});
         }
         return await readFile('${archive}/' + name).catch(() => undefined);
       },
     });
     console.log('reached');
     setInterval(() => {}, 1000);`,
  );
  return startNode(script);
}
