import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { chmod, chown, mkdir, open, readFile, readlink, realpath, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { codeOf, DrError, fileError, messageOf } from '../base/errors.ts';
import { LogTail } from './server-process-log.ts';
import { queryOnce, socketUrl } from './server-process-sql.ts';
import type { ServerUser } from './server-process-user.ts';

const run = promisify(execFile);
const pollMs = 25;

export interface StartServerOptions {
  /** Directory of the `postgres` executable. */
  readonly bin: string;
  readonly dataDirectory: string;
  /** From `resolveServerUser`. */
  readonly user: ServerUser | undefined;
  /** Settings for the command line (`-c name=value`): they win over every file until the server is started anew. */
  readonly settings: Readonly<Record<string, string>>;
  /** Receives the server's standard error; its directory is created. */
  readonly logFile: string;
}

/** What `postmaster.pid` says about a running server. */
interface PidFile {
  readonly pid: number;
  readonly port: number;
  readonly socketDirectory: string;
}

/**
 * A PostgreSQL server that runs in a session of its own: neither Ctrl-C nor the death of dr ends it. It was started here, or
 * started by an earlier dr and found again.
 */
export class ServerProcess {
  readonly dataDirectory: string;
  readonly pid: number;
  readonly port: number;
  readonly socketDirectory: string;
  readonly log: LogTail;
  readonly #child: ChildProcess | undefined;

  constructor(dataDirectory: string, facts: PidFile, log: LogTail, child?: ChildProcess) {
    this.dataDirectory = dataDirectory;
    this.pid = facts.pid;
    this.port = facts.port;
    this.socketDirectory = facts.socketDirectory;
    this.log = log;
    this.#child = child;
  }

  /** URL over the server's Unix socket. */
  url(role: string, database = 'postgres'): string {
    return socketUrl(this.socketDirectory, this.port, role, database);
  }

  running(): boolean {
    return this.#child === undefined
      ? isAlive(this.pid)
      : this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** The error for a server that ended by itself, with its own reason. */
  async ended(doing: string): Promise<DrError> {
    await this.log.poll();
    return new DrError('local', `the PostgreSQL server ended while ${doing}: ${this.log.reason()}`, {
      where: this.dataDirectory,
      next: `Read ${this.log.path}, remove the cause and run the command again.`,
    });
  }

  /**
   * Waits until a role can connect; of several roles the first that exists is taken.
   * @returns the role, or undefined when `until` says stop first.
   * @throws DrError `local` when the server ends, `denied` when it refuses all the roles.
   */
  async waitReady(
    roles: readonly string[],
    options: { signal?: AbortSignal | undefined; until?: () => boolean | Promise<boolean> } = {},
  ): Promise<string | undefined> {
    let candidates = [...roles];
    for (;;) {
      options.signal?.throwIfAborted();
      if (!this.running()) throw await this.ended('starting');
      const role = candidates[0];
      if (role === undefined) {
        throw new DrError('denied', `none of the roles ${roles.join(', ')} exists in the recovered server`, {
          where: this.dataDirectory,
          next: 'Name a superuser of this database in its URL in the configuration.',
        });
      }
      try {
        await queryOnce(this.url(role), 'select 1', [], { signal: options.signal, connectTimeoutMs: 10_000 });
        return role;
      } catch (error) {
        if (options.signal?.aborted === true) throw error;
        const code = codeOf(error);
        // 28000: no such role, or it may not log in. 57P03: starting up or recovering.
        if (code === '28000' && /does not exist|not permitted to log in/.test(messageOf(error))) {
          candidates = candidates.slice(1);
          continue;
        }
        if (code === '28000') {
          throw new DrError('denied', `the server does not let dr in: ${messageOf(error)}`, {
            where: this.socketDirectory,
            next: 'Allow it in pg_hba.conf (local all all peer, for the user that runs dr), then run the command again.',
          });
        }
        if (code !== '57P03' && code !== 'ECONNREFUSED' && code !== 'ENOENT' && code !== 'ECONNRESET') {
          if (!this.running()) throw await this.ended('starting');
          if (code !== undefined || !/terminated|timeout/i.test(messageOf(error))) throw error;
        }
      }
      if ((await options.until?.()) === true) return undefined;
      await delay(pollMs, undefined, { signal: options.signal });
    }
  }

  /** SIGHUP: it reads its configuration files again. */
  reload(): void {
    signalServer(this.pid, 'SIGHUP');
  }

  /**
   * Stops it and waits for the end. `fast`: sessions end, everything is written; `immediate`: at once, the next start
   * recovers. A server that does not end in `timeoutMs` is told `immediate`, then killed.
   */
  async stop(mode: 'fast' | 'immediate' = 'fast', timeoutMs = 120_000): Promise<void> {
    const steps: Array<[NodeJS.Signals, number]> = [
      ['SIGQUIT', 10_000],
      ['SIGKILL', 10_000],
    ];
    if (mode === 'fast') steps.unshift(['SIGINT', timeoutMs]);
    for (const [signal, patienceMs] of steps) {
      if (!this.running()) return;
      signalServer(this.pid, signal);
      const until = Date.now() + patienceMs;
      while (this.running() && Date.now() < until) await delay(10);
    }
    if (!this.running()) return;
    throw new DrError('local', `the PostgreSQL server (process ${this.pid}) does not end`, {
      where: this.dataDirectory,
      next: 'It hangs in the kernel, usually on a dead disk: look at the kernel log.',
    });
  }
}

/**
 * Starts a server on a data directory, which has to belong to the server's user (`handOver`), and waits until it has written
 * `postmaster.pid` or has ended: whether it accepts connections, and why not, is what `waitReady` tells.
 * @throws DrError `local` when there is no such program or the log cannot be written.
 */
export async function startServer(options: StartServerOptions): Promise<ServerProcess> {
  const { dataDirectory, user, logFile } = options;
  const made = await mkdir(dirname(logFile), { recursive: true });
  const log = await open(logFile, 'a').catch((error: unknown) => {
    throw fileError(error, logFile, 'write the log of the server');
  });
  let child: ChildProcess;
  let tail: LogTail;
  try {
    await chmod(dataDirectory, 0o700);
    for (const path of user === undefined ? [] : [logFile, made]) {
      if (user !== undefined && path !== undefined) await chown(path, user.uid, user.gid);
    }
    tail = new LogTail(logFile, (await log.stat()).size);
    const settings = Object.entries(options.settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    child = spawn(join(options.bin, 'postgres'), ['-D', dataDirectory, ...settings], {
      ...(user === undefined ? {} : { uid: user.uid, gid: user.gid }),
      cwd: dataDirectory,
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
      env: serverEnvironment(),
    });
    child.unref();
    await new Promise<void>((resolve, reject) => child.once('spawn', resolve).once('error', reject));
  } catch (error) {
    throw fileError(error, join(options.bin, 'postgres'), 'start the server');
  } finally {
    await log.close();
  }
  for (;;) {
    const facts = await readPidFile(dataDirectory);
    if (facts !== undefined && facts.pid === child.pid) return new ServerProcess(dataDirectory, facts, tail, child);
    if (child.exitCode !== null || child.signalCode !== null) {
      return new ServerProcess(dataDirectory, { pid: child.pid ?? 0, port: 0, socketDirectory: '' }, tail, child);
    }
    await delay(10);
  }
}

/** The environment of a server: none of the libpq variables and secrets that dr was started with. */
function serverEnvironment(): NodeJS.ProcessEnv {
  const kept = ['PATH', 'HOME', 'LANG', 'TZ', 'TMPDIR', 'LD_LIBRARY_PATH', 'DYLD_LIBRARY_PATH'];
  const entries = kept.map((name) => [name, process.env[name]] as const);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined));
}

/** The server that runs on a data directory, whoever started it; undefined when none does. */
export async function adoptServer(dataDirectory: string, logFile: string): Promise<ServerProcess | undefined> {
  const facts = await readPidFile(dataDirectory);
  if (facts === undefined || !isAlive(facts.pid)) return undefined;
  // After a reboot the number may belong to another program: a postmaster works in its data directory.
  const cwd = await readlink(`/proc/${facts.pid}/cwd`).catch(() => undefined);
  if (cwd !== undefined && cwd !== (await realpath(dataDirectory))) return undefined;
  const size = await stat(logFile).then(
    (found) => found.size,
    () => 0,
  );
  return new ServerProcess(dataDirectory, facts, new LogTail(logFile, size));
}

/** Lines of the file: process number, data directory, start time, port, socket directory, listen address, key, status. */
async function readPidFile(dataDirectory: string): Promise<PidFile | undefined> {
  const text = await readFile(join(dataDirectory, 'postmaster.pid'), 'utf8').catch(() => '');
  const lines = text.split('\n');
  const pid = Number(lines[0]);
  // The file grows while the server starts: it is complete once the status line is there.
  if (!(pid > 1) || (lines[7] ?? '') === '') return undefined;
  return { pid, port: Number(lines[3]), socketDirectory: lines[4] ?? '' };
}

/** The values that the configuration files of a data directory give to settings (`postgres -C`). */
export async function configuredSettings(
  options: Pick<StartServerOptions, 'bin' | 'dataDirectory' | 'user' | 'settings'>,
  names: readonly string[],
): Promise<Record<string, string>> {
  const given = Object.entries(options.settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  const values: Record<string, string> = {};
  for (const name of names) {
    try {
      const { stdout } = await run(join(options.bin, 'postgres'), ['-C', name, '-D', options.dataDirectory, ...given], {
        ...(options.user ?? {}),
        cwd: options.dataDirectory,
        env: serverEnvironment(),
        timeout: 30_000,
      });
      values[name] = stdout.trimEnd();
    } catch (error) {
      throw new DrError('local', `PostgreSQL cannot read the configuration of this cluster: ${firstFatal(error)}`, {
        where: options.dataDirectory,
        next: 'Correct its configuration files (postgresql.conf, postgresql.auto.conf), then run the command again.',
        cause: error,
      });
    }
  }
  return values;
}

function firstFatal(error: unknown): string {
  const text = error instanceof Error && 'stderr' in error ? String(error.stderr) : messageOf(error);
  return /(?:FATAL|ERROR):\s+(.*)/.exec(text)?.[1] ?? text.trim().split('\n').at(-1) ?? '';
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === 'EPERM';
  }
}

function signalServer(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (codeOf(error) !== 'ESRCH') throw error;
  }
}
