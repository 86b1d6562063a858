import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** A process of the demo's world. */
export interface Running {
  readonly name: string;
  readonly pid: number;
  readonly child: ChildProcess;
  /** What it writes to standard output and standard error. */
  readonly logFile: string;
  readonly exited: Promise<unknown>;
}

export interface StartOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly user?: { readonly uid: number; readonly gid: number } | undefined;
}

/**
 * Starts a process in a session of its own, so that Ctrl-C in the terminal does not reach it, and notes it in the world: whoever
 * ends the world later finds it there. Its command line must name the world's folder, which is how it is told from strangers.
 */
export function startIn(
  root: string,
  name: string,
  program: string,
  args: readonly string[],
  options: StartOptions,
): Running {
  if (!args.some((arg) => arg.includes(root))) throw new Error(`the command line of ${name} does not name ${root}`);
  mkdirSync(join(root, 'log'), { recursive: true });
  const logFile = join(root, 'log', `${name}.log`);
  const log = openSync(logFile, 'a');
  const child = spawn(program, args, {
    cwd: '/',
    env: options.env,
    ...options.user,
    detached: true,
    stdio: ['ignore', log, log],
  });
  closeSync(log);
  const exited = once(child, 'exit').catch(() => undefined);
  const { pid } = child;
  if (pid === undefined) throw new Error(`cannot start ${program}`);
  noteProcess(root, pid);
  // The demo waits for what it wants to wait for; with --keep it ends before its processes.
  child.unref();
  return { name, pid, child, logFile, exited };
}

/** Notes a process that must end with the world. */
export function noteProcess(root: string, pid: number): void {
  mkdirSync(join(root, 'processes'), { recursive: true });
  writeFileSync(join(root, 'processes', String(pid)), '');
}

/** The first match in what the process writes; throws with its last lines when it ends before. */
export async function waitForOutput(running: Running, pattern: RegExp): Promise<RegExpExecArray> {
  for (;;) {
    const ended = running.child.exitCode !== null || running.child.signalCode !== null;
    const match = pattern.exec(readFileSync(running.logFile, 'utf8'));
    if (match) return match;
    if (ended) throw new Error(`${running.name} ended before it was ready:\n${lastLines(running.logFile)}`);
    await sleep(25);
  }
}

export function lastLines(file: string, count = 15): string {
  return existsSync(file) ? readFileSync(file, 'utf8').trimEnd().split('\n').slice(-count).join('\n') : '(no output)';
}

/** SIGKILL to a process and its children, without warning, and waits until they are gone. */
export async function killHard(pid: number): Promise<void> {
  const pids = [pid, ...childrenOf(pid)];
  for (const each of pids) signal(each, 'SIGKILL');
  await waitUntilGone(pids, 10_000);
}

/** Process numbers of the direct children, where the system tells them by file (elsewhere they notice that the parent is gone). */
function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

async function waitUntilGone(pids: readonly number[], withinMs: number): Promise<boolean> {
  const until = Date.now() + withinMs;
  while (pids.some(isAlive)) {
    if (Date.now() > until) return false;
    await sleep(20);
  }
  return true;
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A process that nobody has waited for yet is dead in all but name.
    return !/^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    // No /proc here: the signal was accepted, so it lives.
    return code === 'EPERM' || (code === 'ENOENT' && !existsSync('/proc/self/stat'));
  }
}

/** Ends every process of a world: those that were noted, and every PostgreSQL server whose files lie in it. */
export async function stopWorld(root: string): Promise<void> {
  const noted = existsSync(join(root, 'processes')) ? readdirSync(join(root, 'processes')).map(Number) : [];
  const servers = serversIn(root);
  const others = noted.filter((pid) => !servers.some((server) => server.pid === pid) && belongsTo(pid, root));
  for (const pid of others) signal(pid, 'SIGKILL');
  for (const { pid } of servers) if (belongsTo(pid, root)) signal(pid, 'SIGQUIT');
  if (
    !(await waitUntilGone(
      servers.filter(({ pid }) => belongsTo(pid, root)).map(({ pid }) => pid),
      10_000,
    ))
  )
    for (const { pid } of servers) if (belongsTo(pid, root)) await killHard(pid);
  await waitUntilGone(others, 10_000);
  for (const { sharedMemory } of servers) freeSharedMemory(sharedMemory);
}

interface ServerFiles {
  readonly pid: number;
  /** Id of the System V segment that every PostgreSQL server holds. */
  readonly sharedMemory: string | undefined;
}

/** The servers that have or had their data directory below `root`. */
export function serversIn(root: string): ServerFiles[] {
  const found: ServerFiles[] = [];
  for (const entry of existsSync(root) ? readdirSync(root, { recursive: true, encoding: 'utf8' }) : []) {
    if (basename(entry) !== 'postmaster.pid') continue;
    try {
      const lines = readFileSync(join(root, entry), 'utf8').split('\n');
      const pid = Number.parseInt(lines[0] ?? '', 10);
      if (pid > 1) found.push({ pid, sharedMemory: lines[6]?.trim().split(/\s+/)[1] });
    } catch {
      // It has stopped meanwhile.
    }
  }
  return found;
}

/** A server that was killed leaves its segment (a few bytes) in the kernel until another one starts in the same folder. */
export function freeSharedMemory(id: string | undefined): void {
  if (id === undefined || !/^\d+$/.test(id)) return;
  try {
    execFileSync('ipcrm', ['-m', id], { stdio: 'ignore' });
  } catch {
    // The server removed it itself.
  }
}

/** A process number may have been given to somebody else: only a process whose command line names the world is ours. */
function belongsTo(pid: number, root: string): boolean {
  if (!isAlive(pid)) return false;
  try {
    if (existsSync(`/proc/${pid}/cmdline`)) return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(root);
    return execFileSync('ps', ['-ww', '-o', 'command=', '-p', String(pid)], { encoding: 'utf8' }).includes(root);
  } catch {
    return false;
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // Gone already.
  }
}

/** Removes a world's folder and what links to it. */
export function removeWorld(entry: string, root: string): void {
  // A server that is just ending may still write a file.
  rmSync(root, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  rmSync(entry, { recursive: true, force: true });
}
