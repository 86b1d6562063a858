import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { serverUser } from '../test/harness/npm-postgres.ts';
import { type PostgresMajor, startPostgres, type TestPostgres } from '../test/harness/postgres.ts';
import { run } from './measure.ts';

/** PostgreSQL 15 as Debian packages it: the version that the packaged peer supports. */
export const debianBin = '/usr/lib/postgresql/15/bin';

const PGBENCH_BYTES_PER_SCALE = 15_700_000;
/** Share of the database that does not compress. */
const NOISE_SHARE = 1 / 8;
const NOISE_ROW_BYTES = 1024;

/** Installs a Debian package as root, or says how. */
export async function requirePackage(program: string, debianPackage: string): Promise<void> {
  if (existsSync(program)) return;
  const command = `apt-get install -y --no-install-recommends ${debianPackage}`;
  if (process.getuid?.() !== 0 || !existsSync('/usr/bin/apt-get')) {
    throw new Error(`${program} is missing. On Debian 12, as root: ${command}`);
  }
  console.error(`${program} is missing: ${command}`);
  await run({ program: 'apt-get', args: ['update'] });
  await run({
    program: 'apt-get',
    args: ['install', '-y', '--no-install-recommends', debianPackage],
    env: { DEBIAN_FRONTEND: 'noninteractive' },
  });
}

/**
 * A running server with about `bytes` of content: seven eighths pgbench (compresses well), one eighth random. PostgreSQL 15 is Debian's, a
 * newer one comes from npm.
 */
export async function startCluster(
  bytes: number,
  settings: Readonly<Record<string, string | number>>,
  version: PostgresMajor = 15,
): Promise<TestPostgres> {
  await requirePackage(join(debianBin, 'postgres'), 'postgresql-15');
  const server = await startPostgres({
    version,
    ...(version === 15 ? { bin: debianBin } : {}),
    settings: { max_wal_size: '8GB', autovacuum: 'off', shared_buffers: '128MB', ...settings },
  });
  const scale = Math.max(1, Math.round((bytes * (1 - NOISE_SHARE)) / PGBENCH_BYTES_PER_SCALE));
  const rows = Math.round((bytes * NOISE_SHARE) / NOISE_ROW_BYTES);
  await run({
    program: join(debianBin, 'pgbench'),
    args: ['-i', '-q', '-I', 'dtGvp', '-s', String(scale), server.url],
    user: serverUser,
  });
  await server.sql('create extension pgcrypto');
  await server.sql('create table noise (content bytea)');
  await server.sql('alter table noise alter content set storage external');
  await server.sql(`insert into noise select gen_random_bytes(${NOISE_ROW_BYTES}) from generate_series(1, ${rows})`);
  await server.sql('vacuum noise');
  await server.sql('checkpoint');
  return server;
}
