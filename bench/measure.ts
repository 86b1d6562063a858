import { spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { forEachLimit } from '../src/base/concurrency.ts';
import { registerProcess } from '../test/harness/process.ts';
import { tempDir } from '../test/harness/temp.ts';

export interface Command {
  readonly program: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly user?: { readonly uid: number; readonly gid: number } | undefined;
  /** Exit codes that are no failure of the measurement; default 0. */
  readonly codes?: readonly number[];
}

/** One measured run. */
export interface Cost {
  /** Wall clock from before the process is started until everything it wrote is on disk. */
  readonly seconds: number;
  /** User and system time of the process and its children. */
  readonly cpuSeconds: number;
  /** Sum of the highest resident memory of each process of the tree; 0 where the system does not tell. */
  readonly peakBytes: number;
}

const SAMPLE_MS = 20;

/**
 * Runs a real process and measures it. The clock ends after every file below `written` has been fsynced here once more: next to
 * nothing for a program that did so itself, the truth about one that did not. `sync`: another way to do so.
 */
export async function measure(command: Command, written: string, sync = syncTree): Promise<Cost> {
  const peaks = new Map<number, number>();
  const timesFile = join(await tempDir('times'), 'times');
  // What children used is known to their parent only, and Node does not tell: bash does.
  const script = `exec 3>&2; TIMEFORMAT='%U %S'; { time "$@" 2>&3; } 2>"$TIMES"`;
  const began = performance.now();
  const child = spawn('bash', ['-c', script, 'bash', ...asUser(command)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...command.env, TIMES: timesFile },
    cwd: '/',
  });
  const { pid } = child;
  if (pid === undefined) throw new Error(`cannot start ${command.program}`);
  registerProcess(pid);
  const timer = setInterval(() => sample(pid, peaks), SAMPLE_MS);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += text));
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  clearInterval(timer);
  if (!(command.codes ?? [0]).includes(code ?? -1))
    throw new Error(`${command.program} ${command.args.join(' ')} ended with ${code}:\n${output}`);
  await sync(written);
  const seconds = (performance.now() - began) / 1000;
  const [user = 0, system = 0] = readFileSync(timesFile, 'utf8').trim().split(' ').map(Number);
  rmSync(timesFile);
  peaks.delete(pid);
  return { seconds, cpuSeconds: user + system, peakBytes: [...peaks.values()].reduce((sum, peak) => sum + peak, 0) };
}

/** Runs a command that is not measured. */
export async function run(command: Command): Promise<string> {
  const [program = '', ...args] = asUser(command);
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...command.env },
    cwd: '/',
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += text));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  if (code !== 0) throw new Error(`${command.program} ${command.args.join(' ')} ended with ${code}:\n${output}`);
  return output;
}

function asUser({ program, args, user }: Command): string[] {
  if (!user) return [program, ...args];
  const ids = [`--reuid=${user.uid}`, `--regid=${user.gid}`, '--clear-groups'];
  return ['setpriv', ...ids, program, ...args];
}

/** Takes the high-water marks of a process and all its descendants. */
function sample(root: number, peaks: Map<number, number>): void {
  const waiting = [root];
  for (let pid = waiting.pop(); pid !== undefined; pid = waiting.pop()) {
    try {
      // A process that is ending has no memory any more.
      peaks.set(pid, Math.max(peaks.get(pid) ?? 0, highWaterBytes(pid)));
      waiting.push(
        ...readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number),
      );
    } catch {
      // It ended between the two looks, or the system has no /proc.
    }
  }
}

/** Highest resident memory of a running process, bytes (Linux). */
export function highWaterBytes(pid: number): number {
  const kib = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kib ?? 0) * 1024;
}

/** CPU seconds that a running process has used (Linux). */
export function cpuSeconds(pid: number): number {
  return cpuFields(pid, 11);
}

/** CPU seconds of the children of a process that have ended (Linux). */
export function endedChildrenCpuSeconds(pid: number): number {
  return cpuFields(pid, 13);
}

/** Two neighbouring times of `/proc/<pid>/stat` (user and system, each in 1/100 s), counted from the field behind the name. */
function cpuFields(pid: number, first: number): number {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[first]) + Number(fields[first + 1])) / 100;
  } catch {
    return 0;
  }
}

/** `fsync` of every file and directory below `directory`. */
export async function syncTree(directory: string): Promise<void> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => entry.isFile() || entry.isDirectory()).map((e) => join(e.parentPath, e.name));
  await forEachLimit(paths, 8, async (path) => {
    const file = await open(path);
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  });
}

/** `syncfs` of the file system of `directory`: where there are too many files to open each. */
export async function syncFileSystem(directory: string): Promise<void> {
  await run({ program: 'sync', args: ['-f', directory] });
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

/** The value below which a share of the values lies (nearest rank). */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? 0;
}
