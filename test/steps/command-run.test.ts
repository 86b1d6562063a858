import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { registerSecret } from '../../src/base/redact.ts';
import type { CommandConfig } from '../../src/config/types.ts';
import { commandRun } from '../../src/steps/command-run.ts';
import type { RunMode } from '../../src/steps/contract.ts';
import { stepContext } from './context.ts';

const folder = mkdtempSync(join(tmpdir(), 'dr-command-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const sh = (script: string, ...rest: string[]) => ['/bin/sh', '-c', script, 'sh', ...rest] as [string, ...string[]];

function command(change: Partial<CommandConfig>): CommandConfig {
  return {
    name: 'tool',
    run: sh('exit 0'),
    check: undefined,
    repeatable: true,
    drill: false,
    timeoutMs: 30_000,
    workingDirectory: undefined,
    environment: {},
    ...change,
  };
}

function context(change: Partial<CommandConfig>, options: { mode?: RunMode; signal?: AbortSignal } = {}) {
  return stepContext({ commands: { tool: command(change) } }, options);
}

describe('command.run', () => {
  it('starts exactly what the configuration allows: no shell reads the arguments', async () => {
    const file = join(folder, 'seen');
    const run = sh('printf "%s" "$1" > "$2"', '{what}', '{where}');
    const values = { what: `$(touch ${folder}/owned); "x" \`id\``, where: file };
    await commandRun.run(context({ run }), { command: 'tool', arguments: values });
    expect(readFileSync(file, 'utf8')).toBe(values.what);
    expect(existsSync(join(folder, 'owned'))).toBe(false);
  });

  it('never fills in the program itself, and wants every place filled and every value used', async () => {
    await expect(commandRun.run(context({}), { command: 'tool', arguments: { more: '1' } })).rejects.toMatchObject({
      kind: 'config',
      message: 'command tool has no place for the argument "more"',
    });
    const needs = context({ run: sh('exit 0', '{replicas}') });
    await expect(commandRun.run(needs, { command: 'tool' })).rejects.toMatchObject({
      kind: 'config',
      message: 'command tool needs the argument "replicas"',
    });
    const strange = context({ run: ['/nonexistent/{name}', '{name}'] });
    await expect(commandRun.run(strange, { command: 'tool', arguments: { name: 'sh' } })).rejects.toMatchObject({
      kind: 'config',
      where: '/nonexistent/{name}',
    });
  });

  it('refuses what the configuration does not know, and says what it knows', async () => {
    await expect(commandRun.run(context({}), { command: 'rm' })).rejects.toMatchObject({
      kind: 'config',
      message: 'the configuration allows no command "rm"; known are tool',
    });
  });

  it('gives the program an environment of its own, and tells it about the run', async () => {
    process.env['DR_TEST_LEAK'] = 'leaked';
    const run = sh('echo "leak=$DR_TEST_LEAK site=$DR_SITE mode=$DR_MODE extra=$EXTRA"');
    const seen = context({ run, environment: { EXTRA: 'abc' } });
    await commandRun.run(seen, { command: 'tool' });
    expect(seen.notes).toEqual(['leak= site=west mode=failover extra=abc']);
    delete process.env['DR_TEST_LEAK'];
  });

  it('fails on an exit code with the last thing it said, without secrets', async () => {
    registerSecret('s3cr3t-value');
    const failing = context({ run: sh('echo first; echo "no such host s3cr3t-value" >&2; exit 3') });
    await expect(commandRun.run(failing, { command: 'tool' })).rejects.toMatchObject({
      kind: 'check-failed',
      message: 'command tool ended with exit code 3: no such host ***',
      retryable: true,
    });
    expect(JSON.stringify(failing.notes)).not.toContain('s3cr3t-value');
  });

  it('kills the program and everything it started when its time is up', async () => {
    const pids = join(folder, 'pids');
    const run = sh('sleep 600 & echo $! $$ > "$1"; wait', pids);
    await expect(commandRun.run(context({ run, timeoutMs: 500 }), { command: 'tool' })).rejects.toMatchObject({
      message: 'command tool did not end in its time and was killed',
    });
    for (const pid of readFileSync(pids, 'utf8').trim().split(' ')) {
      await expect.poll(() => existsSync(`/proc/${pid}`) && !isZombie(pid)).toBe(false);
    }
  });

  it('asks its check after an interruption instead of starting again', async () => {
    const mark = join(folder, 'done');
    const change = { run: sh('echo x >> "$1"', mark), check: sh('test -e "$1"', mark), repeatable: false };
    expect(await commandRun.done(context(change), { command: 'tool' })).toBeUndefined();
    await commandRun.run(context(change), { command: 'tool' });
    expect(await commandRun.done(context(change), { command: 'tool' })).toMatchObject({ started: true });
    expect(await commandRun.done(context({}), { command: 'tool' })).toBeUndefined();
  });

  it('starts nothing in a drill and nothing but its check in a plan', async () => {
    const mark = join(folder, 'drilled');
    const change = { run: sh('touch "$1"', mark) };
    const result = await commandRun.run(context(change, { mode: 'drill' }), { command: 'tool' });
    expect(result).toEqual({ started: false, output: '' });
    const plan = await commandRun.plan(context(change), { command: 'tool' });
    expect(plan.target).toContain(mark);
    expect(existsSync(mark)).toBe(false);
    await commandRun.run(context({ ...change, drill: true }, { mode: 'drill' }), { command: 'tool' });
    expect(existsSync(mark)).toBe(true);
    const gone = await commandRun.plan(context({ run: ['/nonexistent/tool'] }), { command: 'tool' });
    expect(gone.problems[0]?.what).toContain('/nonexistent/tool cannot be started');
  });
});

function isZombie(pid: string): boolean {
  return /^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
}
