import { spawn } from 'node:child_process';
import { codeOf, DrError, messageOf } from '../base/errors.ts';
import { redact } from '../base/redact.ts';
import type { CommandConfig } from '../config/types.ts';
import type { StepContext } from './contract.ts';

/** What is kept of a program's output, bytes of its end. */
const OUTPUT_BYTES = 64 * 1024;
/** How long a program may take to end after SIGTERM, milliseconds. */
const KILL_MS = 5000;
/** How long output is waited for after the program has ended, milliseconds. */
const PIPES_MS = 1000;

export interface ProgramEnd {
  /** Undefined when a signal ended it. */
  readonly code: number | undefined;
  readonly signal: string | undefined;
  /** The end of what it wrote to standard output and error, in the order in which it came, without secrets. */
  readonly output: string;
}

/** `run` with its placeholders filled in. Throws `config` for one that is missing or too many. */
export function fillArguments(
  name: string,
  written: readonly string[],
  values: Readonly<Record<string, string>>,
): string[] {
  const used = new Set<string>();
  const filled = written.map((argument, i) =>
    // The program itself is never filled in.
    i === 0
      ? argument
      : argument.replace(/\{([a-z][A-Za-z0-9-]*)\}/g, (_, key: string) => {
          const value = Object.hasOwn(values, key) ? values[key] : undefined;
          if (value === undefined) {
            throw new DrError('config', `command ${name} needs the argument "${key}"`, {
              where: `commands.${name}`,
              next: `Give it in the runbook: with: { command: ${name}, arguments: { ${key}: … } }.`,
            });
          }
          used.add(key);
          return value;
        }),
  );
  const unknown = Object.keys(values).filter((key) => !used.has(key));
  if (unknown.length > 0) {
    throw new DrError('config', `command ${name} has no place for the argument "${unknown.join('", "')}"`, {
      where: `commands.${name}`,
      next: `Write {${unknown[0]}} where it belongs in commands.${name}.run, or leave it out in the runbook.`,
    });
  }
  return filled;
}

/**
 * Runs a program without a shell, with an environment of its own and nothing on its standard input. When the signal is aborted the
 * whole process group gets SIGTERM, and SIGKILL 5 s later. Throws `config` for a program that cannot be started.
 */
export async function runProgram(
  argv: readonly string[],
  { environment, workingDirectory }: Pick<CommandConfig, 'environment' | 'workingDirectory'>,
  { run, signal }: Pick<StepContext, 'run' | 'signal'>,
): Promise<ProgramEnd> {
  signal.throwIfAborted();
  const [program = '', ...rest] = argv;
  const child = spawn(program, rest, {
    cwd: workingDirectory ?? '/',
    // A group of its own, so that what it starts goes with it.
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: '/',
      LANG: 'C.UTF-8',
      DR_RUN_ID: run.id,
      DR_MODE: run.mode,
      DR_SITE: run.site,
      DR_FROM: run.from,
      ...environment,
    },
  });
  let output = Buffer.alloc(0);
  const take = (chunk: Buffer) => {
    output = Buffer.concat([output, chunk]).subarray(-OUTPUT_BYTES);
  };
  child.stdout.on('data', take);
  child.stderr.on('data', take);
  const kill = (how: NodeJS.Signals) => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, how);
    } catch (error) {
      if (codeOf(error) !== 'ESRCH') throw error;
    }
  };
  let hard: NodeJS.Timeout | undefined;
  const stop = () => {
    kill('SIGTERM');
    hard = setTimeout(() => kill('SIGKILL'), KILL_MS);
  };
  signal.addEventListener('abort', stop, { once: true });
  try {
    const end = await new Promise<Omit<ProgramEnd, 'output'>>((resolve, reject) => {
      child.once('error', reject);
      // 'close' comes when everything that was written has been read. A daemon that it left behind may hold the pipes for ever.
      child.once('exit', (code, by) => {
        const end = { code: code ?? undefined, signal: by ?? undefined };
        const patience = setTimeout(() => resolve(end), PIPES_MS);
        child.once('close', () => {
          clearTimeout(patience);
          resolve(end);
        });
      });
    });
    signal.throwIfAborted();
    return { ...end, output: redact(output.toString('utf8')).trim() };
  } catch (error) {
    if (signal.aborted || child.pid !== undefined) throw error;
    throw new DrError('config', `${program} cannot be started: ${messageOf(error)}`, {
      where: program,
      next: 'Install it on this machine, or correct its path in the configuration.',
      cause: error,
    });
  } finally {
    signal.removeEventListener('abort', stop);
    clearTimeout(hard);
    child.stdout.destroy();
    child.stderr.destroy();
  }
}
