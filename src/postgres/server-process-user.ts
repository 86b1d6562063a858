import { execFile } from 'node:child_process';
import { lchown, lstat, readdir, readFile, realpath, stat } from 'node:fs/promises';
import { dirname, join, parse, resolve } from 'node:path';
import { promisify } from 'node:util';
import { forEachLimit } from '../base/concurrency.ts';
import { DrError, fileError } from '../base/errors.ts';

const run = promisify(execFile);

/** The operating system user that a server runs as. */
export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
  readonly name: string;
}

/**
 * Who runs the server: undefined = we ourselves. PostgreSQL refuses to run as root, so root chooses the configured user,
 * else the owner of the data directory, else `postgres`.
 * @throws DrError `config` for an unknown user, `local` when root finds nobody.
 */
export async function resolveServerUser(
  configured: string | undefined,
  dataDirectory: string,
): Promise<ServerUser | undefined> {
  if (process.getuid?.() !== 0) {
    // Another configured user could only be honoured by root; the files belong to us anyway.
    return undefined;
  }
  if (configured !== undefined) {
    const user = await lookUp(configured);
    if (user === undefined) {
      throw new DrError('config', `there is no operating system user "${configured}"`, {
        next: 'Create it, or correct `user` of this recovery target in the configuration.',
      });
    }
    return user;
  }
  const owner = await stat(dataDirectory).catch(() => undefined);
  if (owner !== undefined && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid, name: `uid ${owner.uid}` };
  const user = await lookUp('postgres');
  if (user === undefined) {
    throw new DrError('local', 'PostgreSQL does not run as root, and there is no user "postgres" here', {
      where: dataDirectory,
      next: 'Create a user for the server and set `user` of this recovery target, or run dr as an ordinary user.',
    });
  }
  return user;
}

async function lookUp(name: string): Promise<ServerUser | undefined> {
  const accounts = await readFile('/etc/passwd', 'utf8').catch(() => '');
  for (const line of accounts.split('\n')) {
    const [account, , uid, gid] = line.split(':');
    if (account === name && uid !== undefined && gid !== undefined) return { uid: Number(uid), gid: Number(gid), name };
  }
  // Directory services and macOS keep their accounts elsewhere: `id` knows them.
  try {
    const [uid, gid] = await Promise.all([run('id', ['-u', '--', name]), run('id', ['-g', '--', name])]);
    return { uid: Number(uid.stdout), gid: Number(gid.stdout), name };
  } catch {
    return undefined;
  }
}

/**
 * Makes sure that the server's user can get at the data directory and owns everything in it, tablespaces and an outside
 * `pg_wal` included. Does nothing when the server runs as we do.
 */
export async function handOver(dataDirectory: string, user: ServerUser | undefined): Promise<void> {
  if (user === undefined) return;
  await checkReachable(dataDirectory, user);
  const roots = [dataDirectory];
  for (const link of await linkedDirectories(dataDirectory)) {
    await checkReachable(link, user);
    roots.push(link);
  }
  for (const root of roots) {
    try {
      await own(root, user);
      await forEachLimit(await readdir(root, { recursive: true, withFileTypes: true }), 64, async (entry) => {
        await own(join(entry.parentPath, entry.name), user);
      });
    } catch (error) {
      throw fileError(error, root, `give the files to ${user.name}`);
    }
  }
}

async function own(path: string, user: ServerUser): Promise<void> {
  const { uid, gid } = await lstat(path);
  if (uid !== user.uid || gid !== user.gid) await lchown(path, user.uid, user.gid);
}

/** Targets of the symbolic links that belong to a cluster: tablespaces and a `pg_wal` on another disk. */
async function linkedDirectories(dataDirectory: string): Promise<string[]> {
  const names = await readdir(join(dataDirectory, 'pg_tblspc')).catch(() => []);
  const links = ['pg_wal', ...names.map((name) => join('pg_tblspc', name))].map((name) => join(dataDirectory, name));
  const found: string[] = [];
  for (const link of links) {
    if ((await lstat(link).catch(() => undefined))?.isSymbolicLink() === true) found.push(await realpath(link));
  }
  return found;
}

export async function checkReachable(directory: string, user: ServerUser): Promise<void> {
  const absolute = resolve(directory);
  for (let path = dirname(absolute); path !== parse(path).root; path = dirname(path)) {
    const { mode, uid, gid } = await stat(path);
    const bit = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001;
    if ((mode & bit) !== 0) continue;
    throw new DrError('local', `the user ${user.name}, which runs the server, cannot enter ${path}`, {
      where: absolute,
      next: `Choose another data directory, or allow it: chmod o+x ${path}`,
    });
  }
}
