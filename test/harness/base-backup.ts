import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import pg from 'pg';
import { type Lsn, parseLsn, parseSegmentName, segmentStart } from '../../src/postgres/lsn.ts';
import type { TestPostgres } from './postgres.ts';
import { tempDir } from './temp.ts';

/** A base backup made without dr: by PostgreSQL's own functions and a copy of the files. */
export interface CopiedBackup {
  readonly directory: string;
  readonly startLsn: Lsn;
  /** Consistent from here on. */
  readonly endLsn: Lsn;
}

const emptied = [
  'pg_wal',
  'pg_replslot',
  'pg_dynshmem',
  'pg_notify',
  'pg_serial',
  'pg_snapshots',
  'pg_stat_tmp',
  'pg_subtrans',
];

/** Takes a base backup of a running server by copying; `during` runs between start and end. */
export async function copyBackup(server: TestPostgres, during?: () => Promise<void>): Promise<CopiedBackup> {
  const directory = join(await tempDir('b'), 'data');
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  try {
    const started = await client.query<{ lsn: string }>("select pg_backup_start('test', true)::text as lsn");
    await during?.();
    cpSync(server.dataDirectory, directory, {
      recursive: true,
      filter: (source) => {
        const [top = '', ...rest] = relative(server.dataDirectory, source).split('/');
        return !top.startsWith('postmaster.') && (rest.length === 0 || !emptied.includes(top));
      },
    });
    const stopped = await client.query<{ lsn: string; labelfile: string }>(
      'select lsn::text, labelfile from pg_backup_stop(false)',
    );
    writeFileSync(join(directory, 'backup_label'), stopped.rows[0]?.labelfile ?? '');
    mkdirSync(join(directory, 'pg_wal', 'archive_status'), { recursive: true });
    return {
      directory,
      startLsn: parseLsn(started.rows[0]?.lsn ?? '') ?? 0n,
      endLsn: parseLsn(stopped.rows[0]?.lsn ?? '') ?? 0n,
    };
  } finally {
    await client.end();
  }
}

/** The WAL of a server as an archive has it: everything up to an LSN, the last segment cut in the middle. */
export interface CopiedWal {
  readonly endLsn: Lsn;
  readonly files: Map<string, Buffer>;
  fetch(name: string): Promise<Uint8Array | undefined>;
}

/** Copies all WAL that the server has flushed. */
export async function copyWal(server: TestPostgres): Promise<CopiedWal> {
  const [row] = await server.sql<{ lsn: string; bytes: number }>(
    `select pg_current_wal_flush_lsn()::text as lsn, (select setting::int from pg_settings where name = 'wal_segment_size') as bytes`,
  );
  const endLsn = parseLsn(row?.lsn ?? '') ?? 0n;
  return await walUpTo(join(server.dataDirectory, 'pg_wal'), endLsn, row?.bytes ?? 0);
}

/** WAL files of a directory, cut at an LSN. */
export async function walUpTo(directory: string, endLsn: Lsn, segmentBytes: number): Promise<CopiedWal> {
  const files = new Map<string, Buffer>();
  for (const name of await readdir(directory)) {
    const start = parseSegmentName(name, segmentBytes)?.start;
    if (start === undefined && !name.endsWith('.history')) continue;
    if (start !== undefined && start >= endLsn) continue;
    const content = await readFile(join(directory, name));
    const cut = start !== undefined && start === segmentStart(endLsn, segmentBytes);
    files.set(name, cut ? content.subarray(0, Number(endLsn - start)) : content);
  }
  return { endLsn, files, fetch: async (name) => files.get(name) };
}

/** Position of the end of the server's WAL. */
export async function currentLsn(server: TestPostgres): Promise<Lsn> {
  const [row] = await server.sql<{ lsn: string }>('select pg_current_wal_insert_lsn()::text as lsn');
  return parseLsn(row?.lsn ?? '') ?? 0n;
}
