import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { DrError } from '../../src/base/errors.ts';
import { runCli } from '../../src/commands/cli.ts';
import type { CommandContext, CommandResult } from '../../src/commands/context.ts';
import { exitCodes } from '../../src/commands/exit-codes.ts';
import type { Verb } from '../../src/commands/verb.ts';
import { verbs } from '../../src/commands/verbs.ts';
import { exampleText } from '../config/example.ts';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const password = 'correct-horse-battery';
let directory: string;
let config: string;
let identity: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'dr-cli-'));
  config = join(directory, 'dr.yaml');
  identity = await generateX25519Identity();
  await writeFile(config, exampleText(await identityToRecipient(identity)));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The real program, in a process of its own, in an empty working directory. */
async function dr(args: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  const child = spawn(process.execPath, [main, ...args], {
    cwd: directory,
    env: { PATH: process.env['PATH'], ORDERS_DATABASE_URL: `postgresql://dr:${password}@db/orders`, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data) => (stdout += data));
  child.stderr.on('data', (data) => (stderr += data));
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { code, stdout, stderr };
}

/** The same in this process, with verbs of the test's own. */
async function inProcess(
  work: (context: CommandContext) => Promise<CommandResult>,
  args: readonly string[] = [],
  signal?: AbortSignal,
): Promise<Ended> {
  let stdout = '';
  let stderr = '';
  const verb: Verb = {
    name: 'try',
    summary: 'try',
    description: 'Try.',
    arguments: [],
    flags: [],
    examples: ['dr try'],
    failures: [],
    wired: true,
    bind: () => work,
  };
  const code = await runCli(
    {
      args: ['try', ...args],
      env: { DR_CONFIG: config, ORDERS_DATABASE_URL: 'postgresql://dr@db/orders' },
      version: '1.2.3',
      stdout: { write: (text) => (stdout += text) },
      stderr: { write: (text) => (stderr += text) },
      clock: systemClock,
      signal: signal ?? new AbortController().signal,
    },
    [verb],
  );
  return { code, stdout, stderr };
}

describe('dr, as a program', () => {
  test('validate shows what the configuration promises', async () => {
    const { code, stdout, stderr } = await dr(['validate', '--config', config]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain(`${config} is valid.`);
    expect(stdout).toMatch(/^orders +database +every 6 hours, WAL every 5 s +5 s +15 min +30 d +west$/m);
    expect(stdout).toMatch(/^uploads +data +daily +24 h +- +90 d +west$/m);
    expect(stdout).not.toContain(password);
  });

  test('--json is one document, wherever it stands; $DR_CONFIG names the file', async () => {
    for (const args of [
      ['validate', '--json'],
      ['--json', 'validate'],
    ]) {
      const { code, stdout } = await dr(args, { DR_CONFIG: config });
      expect(code).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({
        ok: true,
        command: 'validate',
        result: { site: 'east', warnings: [], active: 'east' },
      });
      expect(stdout).not.toContain(password);
    }
  });

  test('warnings go to standard error, and into the document', async () => {
    const file = join(directory, 'doubtful.yaml');
    await writeFile(file, exampleText(await identityToRecipient(identity)).replace('ttl: 30', 'ttl: 600'));
    const plain = await dr(['validate', '--config', file]);
    expect(plain.stderr).toContain('warning: traffic.orders.route53.ttl: clients may keep the old address for 10 min');
    expect(plain.stdout).toContain('is valid, with one warning.');
    const json = await dr(['validate', '--config', file, '--json']);
    expect(json.stderr).toBe('');
    expect(JSON.parse(json.stdout).result.warnings).toHaveLength(1);
  });

  test('a configuration that cannot be used: exit 3, every problem, no secret', async () => {
    const file = join(directory, 'bad.yaml');
    await writeFile(file, exampleText('age1nonsense').replace('retention: 30 days', 'retension: 30 days'));
    const { code, stdout, stderr } = await dr(['validate', '--config', file]);
    expect(code).toBe(3);
    expect(stdout).toBe('');
    expect(stderr).toContain('dr: the configuration has 2 problems:');
    expect(stderr).toContain('databases.orders.retension: unknown key; did you mean retention? (line 15, column 5)');
    expect(stderr).toContain(`where: ${file}`);
    const json = await dr(['validate', '--config', file, '--json']);
    expect(json.code).toBe(3);
    expect(JSON.parse(json.stdout)).toMatchObject({
      ok: false,
      command: 'validate',
      error: { kind: 'config', problems: [{}, { line: 15 }] },
    });
  });

  test('validate reads all runbooks too: exit 3 with file and line, or where each comes from', async () => {
    const folder = join(directory, 'books');
    const file = join(directory, 'books.yaml');
    await mkdir(folder);
    await writeFile(file, `${exampleText(await identityToRecipient(identity))}runbooks: books\n`);
    const book = (to: string) =>
      `version: 1\nname: mine\nsummary: x\nmodes: [failover]\nstages:\n  assess:\n    - { id: a, uses: ${to} }\n`;
    await writeFile(join(folder, 'mine.yaml'), book('notify, with: { to: oncall, text: hello }'));
    const bad = await dr(['validate', '--config', file]);
    expect(bad.code).toBe(3);
    expect(bad.stderr).toContain(
      `${join(folder, 'mine.yaml')}:7: step "a": the configuration has no notification "oncall"`,
    );
    await writeFile(join(folder, 'mine.yaml'), book('wait'));
    const good = await dr(['validate', '--config', file]);
    expect(good.stdout).toContain(`Runbooks:  mine in ${folder}\n           corruption, failback, failover, `);
    expect(good.code).toBe(0);
  });

  test('no configuration: exit 3, says how to name one', async () => {
    const { code, stderr } = await dr(['validate']);
    expect(code).toBe(3);
    expect(stderr).toContain('does not exist');
    expect(stderr).toContain(`where: ${join(directory, 'config/dr.yaml')}`);
    expect(stderr).toContain('--config FILE or $DR_CONFIG');
  });

  test.each([
    [[], 'no verb given'],
    [['validat'], "unknown command 'validat'; did you mean validate?"],
    [['validate', '--jsn'], "unknown option '--jsn'; did you mean --json?"],
    [['restore', 'orders'], "required option '--to <dir>' not specified"],
    [['restore', '--to', '/x'], "missing required argument 'resource'"],
    [['restore', 'orders', '--to', '/x', '--at', '2026-01-01 00:00'], 'does not say its time zone'],
    [['failover', '--plan', '--drill'], 'exclude each other'],
    [['validate', '--log-level', 'loud'], '--log-level loud is not known'],
    [['validate', '--site', 'wset'], 'there is no site "wset"; did you mean west?'],
  ])('wrong arguments %j: exit 2', async (args, reason) => {
    const { code, stdout, stderr } = await dr(args, { DR_CONFIG: config });
    expect(stderr).toContain(reason);
    expect(stderr).toContain('next:');
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  });

  test('wrong arguments with --json are a document', async () => {
    const { code, stdout } = await dr(['validat', '--json']);
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toMatchObject({ ok: false, error: { kind: 'usage' } });
  });

  test('--version, --help', async () => {
    expect(await dr(['--version'])).toEqual({ code: 0, stdout: '0.1.0\n', stderr: '' });
    const { code, stdout } = await dr(['--help']);
    expect(code).toBe(0);
    for (const verb of verbs) expect(stdout).toContain(verb.summary.split(',')[0]?.slice(0, 20));
    for (const { code: exit } of Object.values(exitCodes)) expect(stdout).toMatch(new RegExp(`^ +${exit}  `, 'm'));
  });

  test('a reader that goes away does not matter', async () => {
    const child = spawn(process.execPath, [main, '--help'], { stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout.destroy();
    let stderr = '';
    child.stderr.on('data', (data) => (stderr += data));
    expect(await new Promise((resolve) => child.on('close', resolve))).toBe(0);
    expect(stderr).toBe('');
  });
});

describe('every verb', () => {
  test.each(verbs.map((verb) => [verb.name, verb] as const))(
    '%s: help has its options, an example and its exit codes',
    async (name, verb) => {
      let stdout = '';
      const outside = {
        args: [name, '--help'],
        env: {},
        version: '0',
        stdout: { write: (text: string) => (stdout += text) },
        stderr: { write: () => {} },
        clock: systemClock,
        signal: new AbortController().signal,
      };
      expect(await runCli(outside)).toBe(0);
      for (const example of verb.examples) expect(stdout).toContain(`$ ${example}`);
      for (const [flag] of verb.flags) expect(stdout).toContain(flag);
      for (const flag of ['--config <file>', '--json', '--identity <file>', '--site <name>'])
        expect(stdout).toContain(flag);
      for (const failure of verb.failures) expect(stdout).toMatch(new RegExp(`^ +${exitCodes[failure].code}  `, 'm'));
    },
  );

  test('the exit codes are all different, and none is success', () => {
    const codes = Object.values(exitCodes).map(({ code }) => code);
    expect(new Set(codes).size).toBe(codes.length);
    expect(codes).not.toContain(0);
  });

  test('a handler that is there is used', () => {
    for (const verb of verbs) {
      // A planned move is executed by the same handler as a failover.
      const handler = ['switchover', 'failback'].includes(verb.name) ? 'failover' : verb.name;
      const there = existsSync(new URL(`../../src/commands/${handler}.ts`, import.meta.url));
      expect(`${verb.name}: ${verb.wired}`).toBe(`${verb.name}: ${there}`);
    }
  });
});

describe('the work of a verb', () => {
  test('good and bad news: text, document, exit code', async () => {
    const good = async () => ({ data: { lsn: 5n }, text: 'all is well' });
    const bad = async () => ({
      data: { broken: ['orders'] },
      text: 'orders is late',
      failure: 'objective-broken' as const,
    });
    expect(await inProcess(good)).toEqual({ code: 0, stdout: 'all is well\n', stderr: '' });
    expect(await inProcess(bad)).toEqual({ code: 4, stdout: 'orders is late\n', stderr: '' });
    expect(JSON.parse((await inProcess(bad, ['--json'])).stdout)).toEqual({
      ok: false,
      command: 'try',
      result: { broken: ['orders'] },
    });
  });

  test.each(Object.keys(exitCodes) as (keyof typeof exitCodes)[])('the error %s has its exit code', async (kind) => {
    const ended = await inProcess(async () => {
      throw new DrError(kind, 'it did not work', { where: 'there', next: 'Try another way.' });
    });
    expect(ended.code).toBe(exitCodes[kind].code);
    expect(ended.stdout).toBe('');
    expect(ended.stderr).toContain('dr: it did not work\n  where: there\n  next:  Try another way.\n');
  });

  test('what nobody foresaw: exit 1, the stack in the log', async () => {
    const ended = await inProcess(async () => {
      throw new TypeError('x is undefined');
    });
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain('dr: unexpected error: x is undefined');
    expect(ended.stderr).toContain('cli.test.ts');
  });

  test('an operation that was stopped is an interruption, in whatever words it says so', async () => {
    const stop = new AbortController();
    const ended = await inProcess(
      async (context) => {
        stop.abort();
        context.signal.throwIfAborted();
        throw new Error('not reached');
      },
      [],
      stop.signal,
    );
    expect(ended.code).toBe(130);
    expect(ended.stderr).toContain('stopped before it was finished');
  });

  test('the configuration is read once, with its site; say is silent with --json', async () => {
    const work = async (context: CommandContext) => {
      const [first, second] = await Promise.all([context.loadConfig(), context.loadConfig()]);
      context.say('working');
      return { data: { same: first === second, site: first.site }, text: '' };
    };
    const ended = await inProcess(work, ['--json', '--site', 'west']);
    expect(JSON.parse(ended.stdout).result).toEqual({ same: true, site: 'west' });
    expect(ended.stderr).toBe('');
    expect((await inProcess(work)).stderr).toBe('working\n');
  });
});

describe('the identity', () => {
  const read = (args: readonly string[]) =>
    inProcess(async (context) => {
      const identities = await context.loadIdentities();
      context.log.warn({ identities }, 'never do this');
      return {
        data: { count: identities?.length ?? 'none', shown: identities?.[0] ?? '' },
        text: String(identities?.[0]),
      };
    }, args);

  async function file(content: string, mode = 0o600): Promise<string> {
    const path = join(await mkdtemp(join(directory, 'identity-')), 'identity.txt');
    await writeFile(path, content);
    await chmod(path, mode);
    return path;
  }

  test('is read from the file that is named, and never shown', async () => {
    const path = await file(`# created: today\n${identity}\n`);
    const ended = await read(['--json', '--identity', path]);
    expect(JSON.parse(ended.stdout).result.count).toBe(1);
    expect(ended.stdout + ended.stderr).not.toContain(identity);
    expect((await read(['--json'])).stdout).toContain('"count": "none"');
  });

  test('warns of a file that others can read', async () => {
    expect((await read(['--identity', await file(identity, 0o644)])).stderr).toContain('chmod 600');
  });

  test.each([
    ['age1qqqq\n', 8, 'holds a public key'],
    ['nothing\n', 8, 'holds no age identity'],
    ['age-encryption.org/v1\n-> scrypt x 18\n', 8, 'protected by a passphrase'],
  ])('%j: exit %i', async (content, code, reason) => {
    const ended = await read(['--identity', await file(content)]);
    expect(ended.code).toBe(code);
    expect(ended.stderr).toContain(reason);
  });

  test('a file that is not there: exit 6', async () => {
    expect((await read(['--identity', join(directory, 'absent')])).code).toBe(6);
  });
});
