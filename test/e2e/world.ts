import { existsSync } from 'node:fs';
import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { expect } from 'vitest';
import { type PostgresMajor, usableNpmPostgres } from '../harness/npm-postgres.ts';
import { freePort } from '../harness/postgres.ts';
import { type Ended, startNode, type TestProcess } from '../harness/process.ts';
import { tempDir } from '../harness/temp.ts';

const main = join(import.meta.dirname, '../../src/main.ts');

/** Where one vault of the world is: the lines of its entry in the configuration. */
export interface VaultPlace {
  readonly url: string;
  readonly endpoint?: string;
}

export interface OperatorOptions {
  readonly vaults: { readonly east: VaultPlace; readonly west: VaultPlace };
  /** Connection string of the database `orders`, as the environment gives it; without it there is no database. */
  readonly databaseUrl?: string | undefined;
  /** Directory of PostgreSQL's programs. */
  readonly bin?: string | undefined;
  /** Credentials and the like. */
  readonly env?: Readonly<Record<string, string>>;
  readonly flushEvery?: string;
}

/** A machine with a configuration, an identity and folders, on which an operator types `dr …`. */
export interface Operator {
  readonly root: string;
  readonly uploads: string;
  readonly settings: string;
  readonly config: string;
  readonly identityFile: string;
  readonly identity: string;
  /** The real program in a process of its own, to its end. `env` replaces what the machine has. */
  dr(args: readonly string[], env?: Readonly<Record<string, string>>): Promise<Ended>;
  /** The same, still running. */
  start(args: readonly string[], env?: Readonly<Record<string, string>>): TestProcess;
  /** Another configuration file: this one's text, changed. */
  variant(edit: (text: string) => string): Promise<string>;
  /** Everything that any process wrote so far: where no secret may be. */
  said(): string;
}

export async function makeOperator(options: OperatorOptions): Promise<Operator> {
  const root = await tempDir('op');
  const [uploads, settings] = [join(root, 'uploads'), join(root, 'etc')];
  await Promise.all([uploads, settings].map(async (directory) => await mkdir(directory)));
  const identity = await generateX25519Identity();
  const identityFile = join(root, 'identity.txt');
  await writeFile(identityFile, `# made for a test\n${identity}\n`, { mode: 0o600 });
  const config = join(root, 'dr.yaml');
  await writeFile(config, await configText(root, await identityToRecipient(identity), options));
  const outputs: string[] = [];
  const start: Operator['start'] = (args, env = {}) => {
    const child = startNode(main, args, {
      cwd: root,
      env: {
        PATH: process.env['PATH'],
        DR_TEST_ROOT: process.env['DR_TEST_ROOT'],
        DR_CONFIG: config,
        DR_IDENTITY_FILE: identityFile,
        ...(options.databaseUrl === undefined ? {} : { ORDERS_DATABASE_URL: options.databaseUrl }),
        ...options.env,
        ...env,
      },
    });
    void child.ended.then(({ stdout, stderr }) => outputs.push(stdout, stderr));
    return child;
  };
  return {
    root,
    uploads,
    settings,
    config,
    identityFile,
    identity,
    start,
    dr: async (args, env) => await start(args, env).ended,
    variant: async (edit) => {
      const path = join(root, `dr-${Math.random().toString(36).slice(2)}.yaml`);
      await writeFile(path, edit(await readFile(config, 'utf8')));
      return path;
    },
    said: () => outputs.join('\n'),
  };
}

async function configText(root: string, recipient: string, options: OperatorOptions): Promise<string> {
  const vault = ({ url, endpoint }: VaultPlace, region: string) =>
    `{ region: ${region}, url: "${url}"${endpoint === undefined ? '' : `, endpoint: "${endpoint}", forcePathStyle: true`} }`;
  const database =
    options.databaseUrl === undefined
      ? ''
      : `databases:
  orders:
    url: "\${ORDERS_DATABASE_URL}"
    schedule: every 6 hours
    retention: 30 days
    wal: { flushEvery: ${options.flushEvery ?? '1s'} }
    recover: { west: { dataDirectory: ${root}/west/orders, port: ${await freePort()} } }
`;
  const checks =
    options.databaseUrl === undefined
      ? ''
      : 'verification: { checks: { orders: ["select count(*) > 0 from orders"] } }\n';
  return `version: 1
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: ${vault(options.vaults.east, 'eu-west-1')}
  west: ${vault(options.vaults.west, 'eu-central-1')}
sites:
  east: { region: eu-west-1, vault: east }
  west: { region: eu-central-1, vault: west }
active: east
encryption: { recipients: ["${recipient}"] }
${database}data:
  uploads: { path: ${root}/uploads, schedule: daily, retention: 90 days, recover: { west: { path: ${root}/west/uploads } } }
configuration:
  settings: { path: ${root}/etc, schedule: on change, retention: 1 year, recover: { west: { path: ${root}/west/etc } } }
${checks}daemon: { listen: "127.0.0.1:${await freePort()}" }
scratch: ${root}/scratch
${options.bin === undefined ? '' : `postgresql: { binaries: ["${options.bin}"] }\n`}`;
}

/** A distribution's PostgreSQL 15 with pgbench, pg_amcheck and pg_verifybackup where it is installed, else npm's. */
export function bestPostgres(): {
  readonly version: PostgresMajor;
  readonly bin: string;
  readonly has: (program: string) => boolean;
} {
  const debian = '/usr/lib/postgresql/15/bin';
  const bin = existsSync(join(debian, 'postgres')) ? debian : usableNpmPostgres(15);
  return { version: 15, bin, has: (program) => existsSync(join(bin, program)) };
}

/** The result of a command that must have succeeded with --json. */
export function resultOf<Result>(ended: Ended): Result {
  expect(ended.code, ended.stdout + ended.stderr).toBe(0);
  return (JSON.parse(ended.stdout) as { result: Result }).result;
}

/** Every file below a directory, by path: for a look through a whole file vault. */
export async function allFiles(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

/** What stands in any output or any stored object although it is secret: each with the place of its first appearance. */
export async function leaks(
  secrets: Readonly<Record<string, string>>,
  places: { readonly outputs: string; readonly directories: readonly string[] },
): Promise<string[]> {
  const found: string[] = [];
  const search = (text: Buffer, where: string) => {
    for (const [name, secret] of Object.entries(secrets)) if (text.includes(secret)) found.push(`${name} in ${where}`);
  };
  search(Buffer.from(places.outputs), 'the output of a command');
  for (const directory of places.directories) {
    for (const file of await allFiles(directory)) search(await readFile(file), file);
  }
  return found;
}

/** Lets PostgreSQL's user (when the tests run as root) pass through a directory. */
export async function passable(directory: string): Promise<string> {
  await mkdir(directory, { recursive: true });
  await chmod(directory, 0o755);
  return directory;
}

/** A failure as the person on call sees it: nothing on standard output, and one block that says what and what to do. */
export function expectHelp(ended: Ended, code: number, ...facts: readonly (string | RegExp)[]): void {
  expect(ended.code, ended.stdout + ended.stderr).toBe(code);
  expect(ended.stdout).toBe('');
  expect(ended.stderr).toMatch(/^dr: .+/m);
  expect(ended.stderr).toMatch(/^ {2}next: +\S+/m);
  expect(ended.stderr).not.toMatch(/^ +at .+\(?file:/m);
  for (const fact of facts)
    expect(ended.stderr).toMatch(fact instanceof RegExp ? fact : new RegExp(escapeRegExp(fact)));
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
