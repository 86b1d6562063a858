import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { clone } from './places.ts';
import { noteProcess, type Running, startIn } from './processes.ts';

const main = join(clone, 'src/main.ts');

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Starts `dr daemon` as it runs at a site. */
export function startDaemon(root: string, env: NodeJS.ProcessEnv): Running {
  // The configuration is named on the command line, as in a unit file, although the environment has it too.
  const args = [main, '--config', String(env['DR_CONFIG']), 'daemon'];
  return startIn(root, 'daemon-east', process.execPath, args, { env });
}

/** Runs a command of dr to its end. `show`: the person who watches sees it live, as if they had typed it. */
export async function runDr(
  root: string,
  env: NodeJS.ProcessEnv,
  args: readonly string[],
  show: 'show' | 'hide' = 'hide',
): Promise<Ran> {
  const child = spawn(process.execPath, [main, '--config', String(env['DR_CONFIG']), ...args], {
    cwd: clone,
    env,
    // Progress goes to standard error, straight to the terminal if there is one; the result is wanted here too.
    stdio: ['ignore', 'pipe', show === 'show' ? 'inherit' : 'pipe'],
  });
  if (child.pid !== undefined) noteProcess(root, child.pid);
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    if (show === 'show') process.stdout.write(text);
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const [code]: (number | null)[] = await once(child, 'close');
  return { code: code ?? null, stdout, stderr };
}

/** The `result` of a command with --json. Exit codes in `accept` (besides 0) are news, not failures. */
export async function askDr<T>(
  root: string,
  env: NodeJS.ProcessEnv,
  args: readonly string[],
  accept: readonly number[] = [],
): Promise<T> {
  const { code, stdout, stderr } = await runDr(root, env, [...args, '--json']);
  if (code !== 0 && !(code !== null && accept.includes(code)))
    throw new Error(`dr ${args.join(' ')} failed (exit ${code}):\n${stdout}${stderr}`.trimEnd());
  const document: { result: T } = JSON.parse(stdout);
  return document.result;
}
