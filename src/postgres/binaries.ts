import { execFile } from 'node:child_process';
import { access, constants, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { DrError, messageOf } from '../base/errors.ts';

const run = promisify(execFile);

/** An installed PostgreSQL server. */
export interface PostgresBinaries {
  /** Directory that holds the `postgres` executable. */
  readonly bin: string;
  readonly major: number;
  /** As the executable says it: `17.10`. */
  readonly version: string;
}

/**
 * Finds the server executables of one major version: recovery needs the very major version that wrote the data.
 *
 * Looks in `directories` first (each a `bin` directory, or an installation directory that contains one), then where
 * Debian, the PGDG packages of Red Hat and SUSE, Homebrew and Postgres.app install, then in `searchPath`
 * (the directories of PATH, which only the caller knows).
 * @throws DrError `local` that lists where it looked and which versions it saw there.
 */
export async function findPostgres(
  major: number,
  directories: readonly string[],
  searchPath: readonly string[] = [],
): Promise<PostgresBinaries> {
  const configured = directories.flatMap((directory) => [directory, join(directory, 'bin')]);
  const looked: string[] = [];
  const seen: string[] = [];
  for (const bin of new Set([...configured, ...(await usualPlaces(major)), ...searchPath])) {
    looked.push(bin);
    const program = join(bin, 'postgres');
    if (!(await executable(program))) continue;
    try {
      const version = await versionOf(program);
      if (version.major === major) return { bin, ...version };
      seen.push(`${program} is ${version.version}`);
    } catch (error) {
      seen.push(`${program} does not run: ${messageOf(error).trim()}`);
    }
  }
  throw new DrError(
    'local',
    `PostgreSQL ${major} is needed to recover this database and is not installed here${seen.length > 0 ? ` (${seen.join('; ')})` : ''}`,
    {
      where: looked.join(', '),
      next: `Install the PostgreSQL ${major} server (package postgresql-${major} or postgresql${major}-server), or name its directory under postgresql.binaries in the configuration.`,
    },
  );
}

async function usualPlaces(major: number): Promise<string[]> {
  const places = [
    `/usr/lib/postgresql/${major}/bin`,
    `/usr/lib/postgresql${major}/bin`,
    `/usr/pgsql-${major}/bin`,
    `/usr/local/pgsql/bin`,
    `/opt/homebrew/opt/postgresql@${major}/bin`,
    `/usr/local/opt/postgresql@${major}/bin`,
    `/home/linuxbrew/.linuxbrew/opt/postgresql@${major}/bin`,
    `/Applications/Postgres.app/Contents/Versions/${major}/bin`,
  ];
  // Nix, asdf and self-built servers live under /opt/<something> often enough.
  for (const name of await readdir('/opt').catch(() => [])) {
    if (/^(postgres|pgsql|postgresql)/.test(name)) places.push(join('/opt', name, 'bin'));
  }
  return places;
}

async function executable(path: string): Promise<boolean> {
  return await access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

async function versionOf(program: string): Promise<{ major: number; version: string }> {
  const { stdout } = await run(program, ['--version'], { timeout: 20_000, cwd: '/' });
  const match = /\(PostgreSQL\)\s+((\d+)\S*)/.exec(stdout);
  if (match?.[1] === undefined) throw new Error(`unexpected answer to --version: ${stdout.trim()}`);
  return { major: Number(match[2]), version: match[1] };
}
