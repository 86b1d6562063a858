import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { testRoot } from './temp.ts';

const repository = join(import.meta.dirname, '../..');

/** The Node of the repository (24), whatever runs the tests: it runs TypeScript directly. */
export const nodeBinary = [join(repository, 'node_modules/node/bin/node'), process.execPath].find(existsSync) ?? 'node';

/** How a process ended, and everything it wrote. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A real process under test. */
export interface TestProcess extends AsyncDisposable {
  readonly pid: number;
  readonly child: ChildProcess;
  /** Resolves when it has ended, never rejects. */
  readonly ended: Promise<Ended>;
  /** The first match in what it wrote so far or will write on either stream; rejects when it ends without. */
  waitFor(pattern: RegExp): Promise<RegExpExecArray>;
  /** Sends the signal and waits for the end. */
  stop(signal?: NodeJS.Signals): Promise<Ended>;
  kill9(): Promise<Ended>;
}

/** Starts a program; whatever still runs at the end of the test run is killed by `global-setup.ts`. */
export function startProcess(program: string, args: readonly string[], options: SpawnOptions = {}): TestProcess {
  const root = testRoot();
  const child = spawn(program, args, { cwd: repository, ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  const { pid } = child;
  if (pid === undefined) throw new Error(`cannot start ${program} ${args.join(' ')}`);
  registerProcess(pid, root);
  let stdout = '';
  let stderr = '';
  const listeners = new Set<() => void>();
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    for (const listener of listeners) listener();
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    for (const listener of listeners) listener();
  });
  const ended = new Promise<Ended>((resolve) => {
    child.once('close', (code, signal) => {
      forgetProcess(pid, root);
      resolve({ code, signal, stdout, stderr });
    });
  });
  const stop = async (signal: NodeJS.Signals = 'SIGTERM') => {
    child.kill(signal);
    return await ended;
  };
  return {
    pid,
    child,
    ended,
    stop,
    kill9: () => stop('SIGKILL'),
    [Symbol.asyncDispose]: async () => void (await stop('SIGKILL')),
    waitFor: async (pattern) => {
      return await new Promise((resolve, reject) => {
        const look = () => {
          const match = pattern.exec(stdout) ?? pattern.exec(stderr);
          if (match === null) return;
          listeners.delete(look);
          resolve(match);
        };
        listeners.add(look);
        look();
        void ended.then((end) => {
          listeners.delete(look);
          reject(
            new Error(`${basename(program)} ended (${end.code ?? end.signal}) before ${pattern}:\n${stdout}${stderr}`),
          );
        });
      });
    },
  };
}

/** Starts a TypeScript or JavaScript file of the repository with its Node. */
export function startNode(script: string, args: readonly string[] = [], options: SpawnOptions = {}): TestProcess {
  return startProcess(nodeBinary, [script, ...args], options);
}

/** Notes a process that must not outlive the test run. */
export function registerProcess(pid: number, root = testRoot()): void {
  writeFileSync(join(root, 'processes', String(pid)), '');
}

export function forgetProcess(pid: number, root = testRoot()): void {
  rmSync(join(root, 'processes', String(pid)), { force: true });
}

/** Kills what a broken test left behind: registered processes and every server whose data directory lies in the root. */
export function killLeftovers(root: string): void {
  const pids = new Set<number>();
  for (const name of readdirSync(join(root, 'processes'))) pids.add(Number(name));
  for (const entry of readdirSync(root, { recursive: true, encoding: 'utf8' })) {
    if (basename(entry) !== 'postmaster.pid') continue;
    try {
      pids.add(Number.parseInt(readFileSync(join(root, entry), 'utf8'), 10));
    } catch {
      // The server removed its file meanwhile: it has stopped.
    }
  }
  for (const pid of pids) {
    if (!(pid > 1) || !belongsTo(pid, root)) continue;
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // Gone already.
    }
  }
}

/** A process number may have been given to somebody else: only a process that names this root is ours. */
function belongsTo(pid: number, root: string): boolean {
  if (!existsSync('/proc/self/environ')) return true;
  try {
    const facts = readFileSync(`/proc/${pid}/environ`, 'latin1') + readFileSync(`/proc/${pid}/cmdline`, 'latin1');
    return facts.includes(root);
  } catch {
    return false;
  }
}
