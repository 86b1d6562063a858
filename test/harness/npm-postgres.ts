import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { dirname, join, parse, relative } from 'node:path';
import { testRoot } from './temp.ts';

export type PostgresMajor = 15 | 16 | 17 | 18;

export const postgresMajors: readonly PostgresMajor[] = [15, 16, 17, 18];

const modules = join(import.meta.dirname, '../../node_modules');

/** Operating system user for servers: undefined = our own; PostgreSQL refuses root, so root gets another one. */
export const serverUser: { readonly uid: number; readonly gid: number } | undefined =
  process.getuid?.() === 0 ? unprivilegedUser() : undefined;

function unprivilegedUser(): { uid: number; gid: number } {
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith('postgres:'));
  const [, , uid, gid] = line?.split(':') ?? [];
  return uid === undefined || gid === undefined ? { uid: 65534, gid: 65534 } : { uid: Number(uid), gid: Number(gid) };
}

/** The versions that npm could install for this system. */
export function npmPostgresVersions(): PostgresMajor[] {
  return postgresMajors.filter((major) => packageOf(major) !== undefined);
}

function packageOf(major: PostgresMajor): string | undefined {
  const here = `${process.platform}-${process.arch}`;
  const name = here === 'linux-x64' ? `pg${major}` : `pg${major}-${here}`;
  const path = join(modules, name);
  return existsSync(join(path, 'native/bin/postgres')) ? path : undefined;
}

/**
 * Directory of `postgres`, `initdb` and `pg_ctl` of one version from npm, in a state in which the server's user can run
 * them. Libraries' symbolic links do not survive npm's packing (an install script makes them, where scripts are
 * allowed): they are made here when missing. A checkout that is read-only or not reachable for the server's user is copied.
 */
export function usableNpmPostgres(major: PostgresMajor): string {
  const source = packageOf(major);
  if (source === undefined) {
    throw new Error(`npm has no PostgreSQL ${major} for ${process.platform}-${process.arch} here: run npm install`);
  }
  const copy = join(testRoot(), 'postgres', String(major));
  if (existsSync(copy)) return join(copy, 'native/bin');
  if (reachable(join(source, 'native/bin/postgres'))) {
    try {
      makeLinks(source);
      if (runs(source)) return join(source, 'native/bin');
    } catch {
      // Read-only checkout: the copy gets the links.
    }
  }
  const draft = `${copy}.${process.pid}`;
  mkdirSync(dirname(copy), { recursive: true });
  cpSync(join(source, 'native'), join(draft, 'native'), { recursive: true, verbatimSymlinks: true });
  makeLinks(draft);
  try {
    renameSync(draft, copy);
  } catch (error) {
    // Another worker was faster; its copy is as good.
    rmSync(draft, { recursive: true, force: true });
    if (!existsSync(copy)) throw error;
  }
  if (!runs(copy))
    throw new Error(`PostgreSQL ${major} from npm does not run on this machine: ${copy}/native/bin/postgres`);
  return join(copy, 'native/bin');
}

function makeLinks(base: string): void {
  const links: Array<{ source: string; target: string }> = JSON.parse(
    existsSync(join(base, 'native/pg-symlinks.json'))
      ? readFileSync(join(base, 'native/pg-symlinks.json'), 'utf8')
      : '[]',
  );
  for (const { source, target } of links) {
    const at = join(base, target);
    if (lstatSync(at, { throwIfNoEntry: false }) === undefined) symlinkSync(relative(dirname(target), source), at);
  }
}

/** True when the server's user may enter every folder on the way and run the file. */
function reachable(file: string): boolean {
  if (serverUser === undefined) return true;
  const { uid, gid } = serverUser;
  for (let path = file; path !== parse(path).root; path = dirname(path)) {
    const { mode, uid: owner, gid: group } = statSync(path);
    const bit = owner === uid ? 0o100 : group === gid ? 0o010 : 0o001;
    if ((mode & bit) === 0) return false;
  }
  return true;
}

function runs(base: string): boolean {
  try {
    execFileSync(join(base, 'native/bin/postgres'), ['--version'], { ...serverUser, stdio: 'ignore', cwd: '/' });
    return true;
  } catch {
    return false;
  }
}
