import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { redact } from '../../src/base/redact.ts';
import { type LoadedConfig, loadConfig, parseConfig } from '../../src/config/load.ts';
import { ConfigError, formatProblem } from '../../src/config/problems.ts';
import { retentionPolicies } from '../../src/daemon/watched.ts';
import { exampleText, recipient } from './example.ts';

let directory: string;
let key: string;
const env = { ORDERS_DATABASE_URL: 'postgresql://dr:s3cr%40t-word@db.east:5432/orders?sslmode=require' };

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'dr-config-'));
  key = await recipient();
});
afterAll(() => rm(directory, { recursive: true, force: true }));

async function load(
  text: string | Uint8Array,
  environment: Record<string, string> = env,
  site?: string,
): Promise<LoadedConfig> {
  const file = join(directory, 'dr.yaml');
  await writeFile(file, text);
  return loadConfig(file, environment, { site });
}

/** What is wrong with the example after one replacement, one line per problem. */
async function problemsOf(from: string, to: string, environment: Record<string, string> = env): Promise<string[]> {
  const text = exampleText(key);
  expect(text).toContain(from);
  return problemsOfText(
    text.replace(from, () => to),
    environment,
  );
}

async function problemsOfText(text: string, environment: Record<string, string> = env): Promise<string[]> {
  const error = await load(text, environment).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error === undefined) return [];
  if (!(error instanceof ConfigError)) throw error;
  expect(error.kind).toBe('config');
  return error.problems.map(formatProblem);
}

async function warningsOf(from: string, to: string): Promise<string[]> {
  const text = exampleText(key);
  expect(text).toContain(from);
  return (await load(text.replace(from, () => to))).warnings.map(formatProblem);
}

describe('a good file', () => {
  test('the example of the issue, with every default filled in', async () => {
    const { config, warnings, site } = await load(exampleText(key));
    expect(warnings).toEqual([]);
    expect(site).toBe('east');
    expect(config.objectives).toEqual({ rtoMs: 3_600_000, rpoMs: 900_000 });
    expect(config.source.text).toContain('${ORDERS_DATABASE_URL}');
    expect(config.databases['orders']).toEqual({
      name: 'orders',
      url: env.ORDERS_DATABASE_URL,
      schedule: { kind: 'every', everyMs: 21_600_000, text: 'every 6 hours' },
      retentionMs: 30 * 86_400_000,
      keep: { last: 3, timeZone: 'UTC' },
      rpoMs: 900_000,
      wal: { enabled: true, flushEveryMs: 5000, slot: 'dr_orders', durable: 'all' },
      recover: {
        west: {
          dataDirectory: '/srv/west/orders',
          port: 5433,
          listen: '127.0.0.1',
          url: 'postgresql://dr:s3cr%40t-word@127.0.0.1:5433/orders?sslmode=require',
          user: undefined,
          parameters: {},
        },
      },
    });
    expect(config.data['uploads']).toMatchObject({
      kind: 'data',
      retentionMs: 90 * 86_400_000,
      rpoMs: undefined,
      exclude: [],
      allowEmpty: false,
    });
    expect(config.configuration['settings']).toMatchObject({ kind: 'configuration', schedule: { kind: 'on-change' } });
    expect(config.traffic['orders']?.driver).toMatchObject({
      kind: 'route53',
      routing: 'simple',
      zone: 'Z123',
      ttlSeconds: 30,
      nameservers: undefined,
    });
    expect(config.vaults['west']).toMatchObject({ name: 'west', forcePathStyle: true, credentials: undefined });
    expect(config.daemon.listen).toEqual({ host: '127.0.0.1', port: 8080 });
    expect(config.backup).toMatchObject({ compressionLevel: 3, partBytes: 16 * 2 ** 20, keepAtLeast: 3 });
    expect(config.backup.workers).toBeGreaterThan(0);
    expect(config.validation).toEqual({
      http: [],
      stabilizeMs: 60_000,
      triggers: {
        errors: { above: 0.05, overMs: 300_000 },
        p95: { aboveMs: 2000, overMs: 300_000 },
        health: { failures: 3, withinMs: 120_000 },
        prometheus: undefined,
      },
    });
    expect(config.runbooks).toBeUndefined();
  });

  test('the seed configuration, once its variables are set', async () => {
    const text = await readFile(new URL('../../config/dr.yaml', import.meta.url), 'utf8');
    const variables = {
      ...env,
      DR_BUCKET_EAST: 'acme-east',
      DR_BUCKET_WEST: 'acme-west',
      DR_AGE_RECIPIENT: key,
      DR_HOSTED_ZONE: 'Z1',
    };
    const { config, warnings } = await load(text, variables);
    expect(warnings).toEqual([]);
    expect(config.databases['orders']?.retentionMs).toBe(30 * 86_400_000);
    expect(config.data['uploads']?.retentionMs).toBe(90 * 86_400_000);
    expect(config.configuration['settings']?.retentionMs).toBe(365 * 86_400_000);
    const names = [...text.matchAll(/\$\{([A-Z_]+)\}/g)].map((match) => match[1]);
    expect([...new Set(names)].sort()).toEqual([...Object.keys(variables), 'NAME'].sort());
  });

  test('without continuous WAL, a check expects no WAL between base backups; retention stays as it is', async () => {
    const policyOf = async (text: string) => retentionPolicies((await load(text)).config).get('orders');
    const text = exampleText(key);
    const archived = await policyOf(text);
    expect(archived).not.toHaveProperty('basesOnly');
    const without = text
      .replace(/^ +wal:.*\n/m, '')
      .replace('every 6 hours', 'every 6 hours\n    wal: { enabled: false }\n    rpo: 1 day');
    expect(await policyOf(without)).toEqual({ ...archived, basesOnly: true });
  });

  test('retention in its long form: rules of the calendar beside the age', async () => {
    const long =
      'retention: { age: 30 days, last: 5, daily: 14, weekly: 8, monthly: "12", yearly: 3, timeZone: Europe/Berlin }';
    const text = exampleText(key)
      .replace('retention: 30 days', long)
      .replace('retention: 90 days', 'retention: { monthly: 6 }');
    const { config } = await load(text);
    expect(config.databases['orders']).toMatchObject({
      retentionMs: 30 * 86_400_000,
      keep: { last: 5, daily: 14, weekly: 8, monthly: 12, yearly: 3, timeZone: 'Europe/Berlin' },
    });
    expect(config.data['uploads']).toMatchObject({
      retentionMs: 90 * 86_400_000,
      keep: { last: 3, daily: undefined, monthly: 6, timeZone: 'UTC' },
    });
    expect(retentionPolicies(config).get('orders')).toEqual({
      kind: 'database',
      retentionMs: 30 * 86_400_000,
      keepAtLeast: 5,
      periods: { daily: 14, weekly: 8, monthly: 12, yearly: 3, timeZone: 'Europe/Berlin' },
    });
    for (const [wrong, reason] of [
      ['{ age: 30 days, monthy: 12 }', /unknown key; did you mean monthly/],
      ['{ monthly: 0 }', /whole number from 1/],
      ['{ timeZone: Berlin }', /not a time zone/],
      ['{ age: 5 }', /length of time/],
      ['5', /must be a length of time like 30 days, or rules/],
      ['{ age: 1 hour }', /shorter than the 6 h between two backups/],
    ] as const) {
      expect(await problemsOf('retention: 30 days', `retention: ${wrong}`)).toEqual([expect.stringMatching(reason)]);
    }
  });

  test('sections with nothing below them are empty, and defaults need not be written', async () => {
    const { config } = await load(`version: 1
vaults: { a: { region: r1, url: "file:///v/a" }, b: { region: r2, url: "file:///v/b" } }
sites: { here: { region: r1, vault: a }, there: { region: r2, vault: b } }
active: here
encryption: none
databases:
data:
  files: { path: /srv/files }
`);
    expect(config.databases).toEqual({});
    expect(config.data['files']?.schedule.text).toBe('daily');
    expect(config.objectives).toEqual({ rtoMs: 3_600_000, rpoMs: 900_000 });
    expect(config.encryption).toBe('none');
  });

  test('relative runbooks belong to the folder of the file', () => {
    const { config } = parseConfig(`${exampleText(key)}runbooks: ./books\n`, '/etc/dr/dr.yaml', env);
    expect(config.runbooks).toBe('/etc/dr/books');
  });

  test('the site this process runs at is checked', async () => {
    expect((await load(exampleText(key), env, 'west')).site).toBe('west');
    await expect(load(exampleText(key), env, 'wset')).rejects.toMatchObject({
      kind: 'usage',
      message: 'there is no site "wset"; did you mean west?',
    });
  });
});

describe('references to the environment', () => {
  test('a missing one is named, also where it stands, and nothing else is said about that place', async () => {
    expect(await problemsOfText(exampleText(key), {})).toEqual([
      'databases.orders.url: the environment variable ORDERS_DATABASE_URL is not set: set it before dr starts (line 13, column 10)',
    ]);
    expect(await problemsOfText(exampleText(key), { ORDERS_DATABASE_URL: '' })).toEqual([
      expect.stringContaining('is empty'),
    ]);
  });

  test('defaults, escapes and numbers', async () => {
    const text = exampleText(key)
      .replace('port: 5433', 'port: "${WEST_PORT:-6000}"')
      .replace('select count(*) > 0 from orders', () => "select '$${x}' = '${WORD}'");
    const { config } = await load(text, { ...env, WORD: 'w' });
    expect(config.databases['orders']?.recover['west']?.port).toBe(6000);
    expect(config.verification.checks['orders']).toEqual(["select '${x}' = 'w'"]);
    expect(await problemsOf('port: 5433', 'port: "${WEST_PORT}"', { ...env, WEST_PORT: '99999' })).toEqual([
      expect.stringContaining('databases.orders.recover.west.port: must be a whole number from 1 to 65535'),
    ]);
    expect(await problemsOf('active: east', 'active: ${not a name}')).toEqual([
      expect.stringContaining('is no reference'),
    ]);
  });

  test('a password never shows, in whatever form it comes back', async () => {
    await load(exampleText(key));
    const text = redact(`pg says: password "s3cr@t-word" or s3cr%40t-word is wrong for ${env.ORDERS_DATABASE_URL}`);
    expect(text).not.toContain('s3cr');
    const problems = await problemsOf('"${ORDERS_DATABASE_URL}"', '"${ORDERS_DATABASE_URL}:bad"', {
      ORDERS_DATABASE_URL: 'mysql://dr:another-secret@host/orders',
    });
    expect(problems.join()).toContain('cannot be read as a PostgreSQL URL');
    expect(problems.join()).not.toContain('another-secret');
  });

  test('a secret that stands in the file itself is warned of', async () => {
    expect(await warningsOf('"${ORDERS_DATABASE_URL}"', '"postgresql://dr:literally@db/orders"')).toEqual([
      'databases.orders.url: a secret stands in the file: put it into the environment and write ${NAME} (line 13, column 10)',
    ]);
  });
});

describe('what cannot be read', () => {
  test.each([
    ['', 'the file is empty'],
    ['# only a comment\n', 'the file is empty'],
    ['- 1\n- 2\n', 'must be a mapping'],
    ['just words', 'must be a mapping'],
    ['version: 1\nvaults: {east: [}\n', 'this is not YAML'],
    ['version: 1\nversion: 1\n', 'this key stands twice'],
    ['version: 1\n\tactive: east\n', 'tab'],
    ['version: 1\n---\nversion: 1\n', 'several YAML documents'],
    ['a: &a [*a, *a]\n', ''],
  ])('%j', async (text, reason) => {
    const problems = await problemsOfText(text);
    expect(problems.length).toBeGreaterThan(0);
    expect(problems.join()).toContain(reason);
  });

  test('malformed YAML is shown with its line, without the passwords in it', async () => {
    const problems = await problemsOfText('version: 1\nurl: "postgresql://dr:hidden-word@db/x\nactive: [\n');
    expect(problems.join()).toMatch(/line \d+, column \d+/);
    expect(problems.join()).not.toContain('hidden-word');
  });

  test('no file, a folder, a file that is no text', async () => {
    await expect(loadConfig(join(directory, 'absent.yaml'), env)).rejects.toMatchObject({
      kind: 'config',
      message: expect.stringContaining('does not exist'),
    });
    await mkdir(join(directory, 'folder'), { recursive: true });
    await expect(loadConfig(join(directory, 'folder'), env)).rejects.toMatchObject({
      kind: 'config',
      message: expect.stringContaining('is a folder'),
    });
    await expect(load(new Uint8Array([0xff, 0xfe, 0x00]))).rejects.toMatchObject({
      kind: 'config',
      message: expect.stringContaining('UTF-8'),
    });
  });
});

describe('all problems at once, each with its place', () => {
  test('shape', async () => {
    const text = exampleText(key)
      .replace('version: 1', 'version: 2')
      .replace('retention: 30 days', 'retension: 30 days')
      .replace('schedule: daily, retention', 'schedule: dayly, retention')
      .replace('forcePathStyle: true', 'forcePathStyle: perhaps')
      .replace('type: A,', 'type: MX,')
      .replace('/srv/west/etc', 'srv/west/etc');
    expect(await problemsOfText(text)).toEqual([
      'version: must be 1: this dr reads version 1 of the configuration (line 1, column 10)',
      'vaults.west.forcePathStyle: must be true or false (line 5, column 110)',
      'databases.orders.retension: unknown key; did you mean retention? (line 15, column 5)',
      expect.stringContaining('data.uploads.schedule: "dayly" is not a cadence: write every 6 hours'),
      'configuration.settings.recover.west.path: "srv/west/etc" is not absolute: write the whole path from / (line 21, column 99)',
      'traffic.orders.route53.type: must be one of A, AAAA, CNAME (line 23, column 70)',
    ]);
  });

  test('an unknown key does not hide broken rules', async () => {
    const text = exampleText(key)
      .replace('retention: 30 days', 'retension: 30 days')
      .replace('active: east', 'active: eest');
    expect(await problemsOfText(text)).toEqual([
      'active: there is no site "eest"; did you mean east? (line 9, column 9)',
      'databases.orders.retension: unknown key; did you mean retention? (line 15, column 5)',
    ]);
  });

  test.each([
    ['databases:\n', 'database:\n', 'database: unknown key; did you mean databases?'],
    ['flushEvery: 5s', 'flushevery: 5s', 'wal.flushevery: unknown key; did you mean flushEvery?'],
    ['vault: west', 'vualt: west', 'sites.west.vualt: unknown key; did you mean vault?'],
    ['recipients:', 'recipient:', 'encryption.recipient: unknown key; did you mean recipients?'],
    ['flushEvery: 5s', 'flushEvery: 5', 'flushEvery: must be a length of time with its unit'],
    ['  orders:\n    url', '  my orders:\n    url', 'databases."my orders": names have up to 63'],
    ['active: east\n', '', 'active: is missing: the name of a site'],
    ['zone: Z123', 'zone: example.com', 'zone: must be the id of a hosted zone'],
  ])('%j → %j', async (from, to, reason) => {
    expect((await problemsOf(from, to)).join('\n')).toContain(reason);
  });
});
