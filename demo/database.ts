import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';
import { findPostgres } from '../src/postgres/binaries.ts';
import { npmPostgresVersions, serverUser, usableNpmPostgres } from '../test/harness/npm-postgres.ts';
import { own } from '../test/harness/postgres.ts';
import { lastLines, type Running, startIn } from './processes.ts';

const run = promisify(execFile);

export interface Programs {
  readonly bin: string;
  readonly major: number;
}

/** PostgreSQL from npm, 17 first; where npm has none for this system, one that is installed. */
export async function findPrograms(searchPath: readonly string[]): Promise<Programs> {
  const [major] = npmPostgresVersions().sort((a, b) => preference(a) - preference(b));
  if (major !== undefined) return { bin: usableNpmPostgres(major), major };
  for (const installed of [17, 18, 16, 15]) {
    const found = await findPostgres(installed, [], searchPath).catch(() => undefined);
    if (found) return { bin: found.bin, major: installed };
  }
  throw new Error(
    'there is no PostgreSQL 15 to 18: npm has none for this system, and none is installed. Install the PostgreSQL server, then run the demo again.',
  );
}

const preference = (major: number) => (major === 17 ? 0 : 20 - major);

export interface Passwords {
  /** Superuser. */
  readonly postgres: string;
  /** The shop's role. */
  readonly shop: string;
  /** The role of dr: may replicate and read. */
  readonly dr: string;
}

export interface SiteDatabase {
  readonly root: string;
  readonly programs: Programs;
  readonly dataDirectory: string;
  readonly port: number;
  readonly passwords: Passwords;
}

/** Creates the cluster. */
export async function createCluster({ programs, dataDirectory, passwords }: SiteDatabase): Promise<void> {
  mkdirSync(dataDirectory, { recursive: true, mode: 0o700 });
  own(dataDirectory);
  const passwordFile = `${dataDirectory}.password`;
  writeFileSync(passwordFile, `${passwords.postgres}\n`, { mode: 0o600 });
  own(passwordFile);
  const words = '-U postgres -E UTF8 --locale=C --data-checksums --no-sync --auth=scram-sha-256'.split(' ');
  const args = ['-D', dataDirectory, ...words, `--pwfile=${passwordFile}`];
  await run(join(programs.bin, 'initdb'), args, { ...serverUser, cwd: '/' });
  rmSync(passwordFile);
  const settings = [
    ...['wal_level = replica', 'max_wal_senders = 10', 'max_replication_slots = 10', 'shared_buffers = 64MB'],
    'max_wal_size = 2GB',
    'max_slot_wal_keep_size = 10GB',
    // Only while the tables are filled.
    'fsync = off',
    // Nothing outside the folder of the demo: no sockets in /tmp, no segments in /dev/shm.
    ...["unix_socket_directories = ''", 'dynamic_shared_memory_type = mmap'],
  ];
  writeFileSync(join(dataDirectory, 'postgresql.conf'), `${settings.join('\n')}\n`);
  const access = ['host all all 127.0.0.1/32 scram-sha-256', 'host replication dr 127.0.0.1/32 scram-sha-256'];
  writeFileSync(join(dataDirectory, 'pg_hba.conf'), `${access.join('\n')}\n`);
}

/** Starts the server and waits until it answers. */
export async function startServer(database: SiteDatabase, env: NodeJS.ProcessEnv): Promise<Running> {
  const { root, programs, dataDirectory, port } = database;
  const args = ['-D', dataDirectory, '-p', String(port), '-h', '127.0.0.1'];
  const server = startIn(root, 'postgres-east', join(programs.bin, 'postgres'), args, { env, user: serverUser });
  for (;;) {
    if (server.child.exitCode !== null) throw new Error(`PostgreSQL did not start:\n${lastLines(server.logFile)}`);
    try {
      await query(urlOf(database, 'postgres', 'postgres'), 'select 1');
      return server;
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined;
      if (code !== '57P03' && code !== 'ECONNREFUSED') throw error;
      await sleep(50);
    }
  }
}

export function urlOf(
  database: Pick<SiteDatabase, 'port' | 'passwords'>,
  role: keyof Passwords,
  name = 'orders',
): string {
  return `postgresql://${role}:${database.passwords[role]}@127.0.0.1:${database.port}/${name}`;
}

/** The last result's rows. */
export async function query<Row extends object>(url: string, text: string): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  try {
    const result: pg.QueryResult<Row> | Array<pg.QueryResult<Row>> = await client.query<Row>(text);
    return (Array.isArray(result) ? result.at(-1)?.rows : result.rows) ?? [];
  } finally {
    await client.end();
  }
}

/** Makes the shop's roles, tables and history: years of invoices that have to come back with the orders of the last second. */
export async function fillDatabase(database: SiteDatabase, onProgress: (text: string) => void): Promise<number> {
  const { passwords } = database;
  const admin = urlOf(database, 'postgres', 'postgres');
  await query(admin, `create role shop login password '${passwords.shop}'`);
  await query(
    admin,
    `create role dr login replication password '${passwords.dr}' in role pg_read_all_data, pg_monitor`,
  );
  await query(admin, 'create database orders owner shop');
  const shop = urlOf(database, 'shop');
  await query(shop, readFileSync(join(import.meta.dirname, 'shop.sql'), 'utf8'));
  // Two sessions, because this machine has at least two cores.
  const invoices = 440_000;
  const half = invoices / 2;
  const fill = (from: number, to: number) =>
    query(
      shop,
      `insert into invoices select n, 1 + n % 20000, date '2020-01-01' + n / 200,
         'Invoice ' || n || repeat(' for goods as ordered and delivered, payable within thirty days', 6) || md5(n::text) || md5((n * 7)::text)
       from generate_series(${from}, ${to}) as n`,
    );
  const watch = setInterval(() => {
    void databaseBytes(shop).then(
      (bytes) => onProgress(`${Math.round(bytes / 1e6)} MB`),
      () => {},
    );
  }, 500);
  try {
    await Promise.all([fill(1, half), fill(half + 1, invoices)]);
  } finally {
    clearInterval(watch);
  }
  await query(shop, 'alter table invoices add primary key (id)');
  await query(admin, 'alter system set fsync = on');
  await query(admin, 'select pg_reload_conf()');
  return await databaseBytes(shop);
}

/** Size of the database in bytes, as the server says. */
export async function databaseBytes(url: string): Promise<number> {
  const [row] = await query<{ bytes: string }>(url, 'select pg_database_size(current_database())::text as bytes');
  return Number(row?.bytes);
}

/** Rows and a sum over the content of every row of the tables that do not change while the demo runs. */
export async function fingerprint(url: string): Promise<string> {
  const tables = ['customers', 'products', 'invoices'];
  const sums = tables.map(
    (table) =>
      `select '${table} ' || count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) as line from ${table} t`,
  );
  const rows = await query<{ line: string }>(url, sums.join(' union all '));
  return rows
    .map(({ line }) => line)
    .sort()
    .join('\n');
}
