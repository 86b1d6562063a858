import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import { runCli } from '../../src/commands/cli.ts';
import type { Area } from '../../src/report/doctor.ts';
import { allFiles } from '../e2e/world.ts';
import { freePort, startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { type Route53Server, startRoute53 } from '../harness/route53/server.ts';
import { S3Server } from '../harness/s3-server/server.ts';
import { tempDir } from '../harness/temp.ts';

const password = 'doctors-never-tell-1729';
let root: string;
let source: TestPostgres;
let s3: S3Server;
let dns: Route53Server;
let identity: string;
let port: number;
let healthy: string;
/** Milliseconds that dr's clock is ahead of everybody else's. */
let aheadMs = 0;
const clock: Clock = { now: () => Date.now() + aheadMs, sleep: systemClock.sleep };

beforeAll(async () => {
  [root, source, s3, dns, port, identity] = await Promise.all([
    tempDir('doc'),
    startPostgres({ password, fsync: true, settings: { max_slot_wal_keep_size: '1GB' } }),
    S3Server.start({ buckets: ['acme'] }),
    startRoute53({ zoneId: 'ZTEST', zoneName: 'example.com' }),
    freePort(),
    generateX25519Identity(),
  ]);
  dns.zone.seed({ name: 'orders.example.com', type: 'A', ttl: 30, values: ['192.0.2.10'] });
  writeFileSync(join(root, 'identity.txt'), `${identity}\n`, { mode: 0o600 });
  mkdirSync(join(root, 'uploads'));
  writeFileSync(join(root, 'uploads', 'photo.jpg'), 'x'.repeat(5000));
  writeFileSync(join(root, 'uploads', 'junk.tmp'), 'x');
  await source.sql("create role weak login password 'weak-and-never-told'");
  healthy = `version: 1
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: { region: eu-west-1, url: "file://${root}/vault-east" }
  west:
    region: eu-central-1
    url: "s3://acme/dr"
    endpoint: "${s3.endpoint}"
    forcePathStyle: true
    credentials: { accessKeyId: "${s3.accessKeyId}", secretAccessKey: "\${S3_SECRET}" }
sites:
  east: { region: eu-west-1, vault: east }
  west: { region: eu-central-1, vault: west }
active: east
encryption: { recipients: ["${await identityToRecipient(identity)}"] }
databases:
  orders:
    url: "\${ORDERS_DATABASE_URL}"
    schedule: every 6 hours
    retention: 30 days
    recover: { west: { dataDirectory: ${root}/west/orders, port: ${port} } }
data:
  uploads:
    path: ${root}/uploads
    schedule: daily
    retention: 90 days
    exclude: ["*.tmp"]
    recover: { west: { path: ${root}/west/uploads } }
traffic:
  orders:
    route53:
      zone: ZTEST
      record: orders.example.com
      type: A
      ttl: 30
      endpoint: "${dns.endpoint}"
      credentials: { accessKeyId: AKIDRTEST, secretAccessKey: "\${DNS_SECRET}" }
    endpoints: { east: 192.0.2.10, west: 198.51.100.10 }
scratch: ${root}/scratch
postgresql: { binaries: ["${source.bin}"] }
`;
});
afterAll(async () => {
  await Promise.all([source?.stop('immediate'), s3?.stop(), dns?.close()]);
});

beforeEach(() => {
  aheadMs = 0;
});
afterEach(() => s3.faults.clear());

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function dr(
  args: readonly string[],
  options: { edit?: (text: string) => string; url?: string } = {},
): Promise<Ended> {
  const config = join(root, 'dr.yaml');
  writeFileSync(config, options.edit ? options.edit(healthy) : healthy);
  let stdout = '';
  let stderr = '';
  const code = await runCli({
    args,
    env: {
      PATH: '/nowhere',
      DR_CONFIG: config,
      S3_SECRET: s3.secretAccessKey,
      DNS_SECRET: 'dns-never-tells-1729',
      ORDERS_DATABASE_URL: options.url ?? source.url,
    },
    version: '0.0.0',
    stdout: { write: (text: string) => (stdout += text) },
    stderr: { write: (text: string) => (stderr += text) },
    clock,
    signal: new AbortController().signal,
  });
  for (const secret of [password, identity, s3.secretAccessKey, 'dns-never-tells-1729', 'weak-and-never-told']) {
    expect(stdout + stderr).not.toContain(secret);
  }
  return { code, stdout, stderr };
}

/** The findings of one call, as `verdict what` by area; and that each trouble says how to mend it. */
async function examine(args: readonly string[] = [], options: Parameters<typeof dr>[1] = {}) {
  const { code, stdout } = await dr(['doctor', '--json', ...args], options);
  const { result } = JSON.parse(stdout) as { result: { areas: Area[]; counts: Record<string, number> } };
  const areas: Record<string, string[]> = {};
  for (const { name, findings } of result.areas) {
    areas[name] = findings.map(({ verdict, what }) => `${verdict} ${what}`);
    for (const { verdict, what, next } of findings) {
      expect(verdict === 'ok' || (next ?? '') !== '', `says how to mend: ${name}: ${what}`).toBe(true);
    }
  }
  const bad = Object.values(areas)
    .flat()
    .filter((line) => line.startsWith('fail'));
  expect(code).toBe(bad.length > 0 ? 14 : 0);
  return { code, areas, bad, counts: result.counts };
}

const withIdentity = () => ['--identity', join(root, 'identity.txt')];
const contains = (text: string) => expect.arrayContaining([expect.stringContaining(text)]);

describe('before the first backup', () => {
  test('nothing fails, and nothing is made', async () => {
    const { areas, bad } = await examine();
    expect(bad).toEqual([]);
    expect(areas['vault east (eu-west-1)']).toEqual([
      `warn the directory file://${root}/vault-east does not exist yet`,
    ]);
    expect(areas['vault west (eu-central-1)']).toEqual(contains('warn there is no vault at s3://acme/dr yet'));
    expect(areas['vault west (eu-central-1)']).toEqual(contains('ok create-only writes are honoured'));
    expect(areas['database orders at east']).toEqual(contains('warn replication slot dr_orders does not exist yet'));
    await expect(allFiles(join(root, 'vault-east'))).rejects.toThrow('ENOENT');
    expect(await source.sql('select * from pg_replication_slots')).toEqual([]);
    const left = s3.requests.filter(({ operation }) => operation === 'PutObject').map(({ key }) => key);
    expect(left.every((key) => key.startsWith('dr/probes/'))).toBe(true);
  });
});

describe('a system that works', () => {
  beforeAll(async () => {
    const taken = await dr(['backup']);
    expect(taken.code, taken.stdout + taken.stderr).toBe(0);
    await source.sql("select pg_create_physical_replication_slot('dr_orders', true)");
  });

  test('is found well; nothing is changed; nothing is left in the vaults', async () => {
    const before = { files: await allFiles(join(root, 'vault-east')), serial: dns.zone.serial };
    const { areas, bad } = await examine(withIdentity());
    expect(bad).toEqual([]);
    expect(areas['vault east (eu-west-1)']?.map((line) => line.replace(/\(.*\)/, '()'))).toEqual([
      `ok file://${root}/vault-east answers and is a vault of format 2 ()`,
      'ok create-only writes are honoured, one after the other and at once',
      'ok objects can be listed',
      'ok objects can be read, whole and in part',
      'ok the clock of the store agrees with the one here within 1 s',
      'ok objects can be deleted',
      'ok not immutable: whoever can write to this directory can also delete there',
    ]);
    expect(areas['encryption']).toEqual(contains('ok it opens the newest 4 backups in the vaults'));
    expect(areas['database orders at east']).toEqual(contains('ok a replication connection can be opened'));
    expect(areas['database orders at east']).toEqual(contains('ok it is the system that was backed up last'));
    expect(areas['database orders at east']).toEqual(contains('warn nobody reads replication slot dr_orders'));
    expect(areas['data uploads at east']).toEqual([
      `ok ${root}/uploads can be read: 1 entry, 4.9 KiB`,
      'ok the exclusion "*.tmp" leaves out 1 of what was looked at',
    ]);
    expect(areas['recovery of orders at west, seen from this machine']).toEqual(contains(`is in ${source.bin}`));
    expect(areas['traffic orders']).toEqual(contains('ok these credentials may change the record'));
    expect({ files: await allFiles(join(root, 'vault-east')), serial: dns.zone.serial }).toEqual(before);
  });

  test('is shown as text: grouped, with advice under what is not well, and a conclusion', async () => {
    const { code, stdout } = await dr(['doctor']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^vault east \(eu-west-1\)\n {2}ok {4}file:/m);
    expect(stdout).toMatch(/^ {2}warn {2}nobody reads .*\n {8}next: Start `dr daemon`/m);
    expect(stdout).toMatch(/\nNothing fails; one warning, \d+ checks ok\.\n$/);
  });

  test('from the recovery site: what is missing for a recovery here fails, elsewhere it warns', async () => {
    const taken = createServer().listen(port, '127.0.0.1');
    mkdirSync(join(root, 'west/orders'), { recursive: true });
    writeFileSync(join(root, 'west/orders/PG_VERSION'), '17');
    const edit = (text: string) => text.replace(/postgresql: .*\n/, '');
    try {
      const there = await examine(['--site', 'west'], { edit });
      expect(there.bad).toEqual([
        expect.stringContaining('fail PostgreSQL 17 is needed to recover this database and is not installed here'),
        `fail ${root}/west/orders holds 1 entries that no run of dr put there`,
        `fail port ${port} on 127.0.0.1 is taken by another program`,
      ]);
      expect(there.areas['data uploads at east']).toEqual([
        `ok ${root}/uploads is at site east: run \`dr doctor\` there to look at it`,
      ]);
      expect(there.areas['encryption']).toEqual(contains('warn no identity was given'));
      const here = await examine([], { edit });
      expect(here.bad).toEqual([]);
      expect(here.areas['recovery of orders at west, seen from this machine']).toEqual(contains('warn port'));
      expect(here.areas['encryption']).toEqual(contains('ok no identity was given'));
      expect((await examine(['--site', 'east'], { edit })).areas).not.toHaveProperty([
        'recovery of orders at west, seen from this machine',
      ]);
    } finally {
      taken.close();
      rmSync(join(root, 'west'), { recursive: true });
    }
  });

  test('another identity opens nothing: FAIL, for the recipients and for each backup', async () => {
    const file = join(root, 'other.txt');
    writeFileSync(file, await generateX25519Identity(), { mode: 0o600 });
    const { areas } = await examine(['--identity', file]);
    expect(areas['encryption']).toEqual(contains('fail the identity belongs to none of the configured recipients'));
    expect(
      areas['encryption']?.filter((line) => /^fail backup .* in vault west: .*does not open/.test(line)),
    ).toHaveLength(2);
    const { areas: absent } = await examine(['--identity', join(root, 'absent.txt')]);
    expect(absent['encryption']).toEqual(contains('fail cannot read the identity file'));
  });

  test('clocks that differ: 10 s warn, 90 s fail, of stores and servers', async () => {
    aheadMs = 10_000;
    const little = await examine();
    expect(little.bad).toEqual([]);
    expect(little.areas['vault west (eu-central-1)']).toEqual(contains('warn the clock of the store is'));
    expect(little.areas['database orders at east']).toEqual(contains('warn the clock of the server is'));
    aheadMs = -90_000;
    const much = await examine();
    expect(much.areas['vault east (eu-west-1)']).toEqual(contains('fail the clock of the store is 1 min 3'));
    expect(much.areas['database orders at east']).toEqual(contains('fail the clock of the server is 1 min 3'));
  });

  test('a vault that was enrolled and is gone: FAIL, not "new"', async () => {
    renameSync(join(root, 'vault-east'), join(root, 'away'));
    try {
      const { areas } = await examine();
      expect(areas['vault east (eu-west-1)']).toEqual([
        `fail the vault east was enrolled at file://${root}/vault-east and is not there now`,
      ]);
      mkdirSync(join(root, 'vault-east'));
      const emptied = await examine();
      expect(emptied.areas['vault east (eu-west-1)']?.[0]).toContain('fail the vault east was enrolled');
    } finally {
      rmSync(join(root, 'vault-east'), { recursive: true, force: true });
      renameSync(join(root, 'away'), join(root, 'vault-east'));
    }
  });

  test('two names for one place: FAIL', async () => {
    const edit = (text: string) =>
      text.replace(
        'vaults:\n',
        `vaults:\n  alias: { region: eu-north-1, url: "s3://acme/dr", endpoint: "${s3.endpoint}/", forcePathStyle: true, credentials: { accessKeyId: "${s3.accessKeyId}", secretAccessKey: "\${S3_SECRET}" } }\n`,
      );
    const { bad } = await examine([], { edit });
    expect(bad).toEqual(contains('it is the same place as vault'));
  });

  test('a store that ignores conditions, one that forbids deletion, wrong credentials, no bucket', async () => {
    s3.faults.add({ kind: 'ignore-condition' }, { times: Number.POSITIVE_INFINITY });
    expect((await examine()).areas['vault west (eu-central-1)']).toEqual(contains('create-only writes are ignored'));
    s3.faults.clear();
    const isDelete = ({ operation }: { operation: string }) => operation.startsWith('Delete');
    s3.faults.add(
      { kind: 'status', status: 403, code: 'AccessDenied' },
      { times: Number.POSITIVE_INFINITY, matches: isDelete },
    );
    const kept = await examine();
    expect(kept.bad).toEqual([]);
    expect(kept.areas['vault west (eu-central-1)']?.at(-1)).toMatch(/^warn .*(denied|refuse|AccessDenied)/i);
    s3.faults.clear();
    const wrongKey = (text: string) => text.replace(s3.accessKeyId, 'somebody-else');
    expect((await examine([], { edit: wrongKey })).areas['vault west (eu-central-1)']?.[0]).toMatch(/^fail /);
    const noBucket = (text: string) => text.replace('s3://acme/dr', 's3://nothing/dr');
    expect((await examine([], { edit: noBucket })).bad).toEqual(
      contains('bucket nothing of vault west does not exist'),
    );
  });

  test('a database: no right to replicate, a wrong password, nobody there', async () => {
    const weak = source.url.replace(`postgres:${password}`, 'weak:weak-and-never-told');
    const { areas } = await examine([], { url: weak });
    expect(areas['database orders at east']).toEqual(contains('fail role weak may not replicate'));
    const wrong = await examine([], { url: source.url.replace(password, 'weak-and-never-told') });
    expect(wrong.bad).toEqual(contains('password authentication failed'));
    // What the newest backup says is known all the same.
    expect(wrong.areas['recovery of orders at west, seen from this machine']).toEqual(contains(`is in ${source.bin}`));
    expect((await examine([], { url: 'postgresql://dr@127.0.0.1:9/orders' })).bad).toEqual(contains('ECONNREFUSED'));
  });

  test('folders: missing, empty, an exclusion that matches nothing', async () => {
    const missing = (text: string) => text.replace(`path: ${root}/uploads`, `path: ${root}/uplaods`);
    expect((await examine([], { edit: missing })).areas['data uploads at east']?.[0]).toMatch(/^fail .*ENOENT/);
    mkdirSync(join(root, 'empty'));
    const empty = (text: string) => text.replace(`path: ${root}/uploads`, `path: ${root}/empty`);
    const { areas } = await examine([], { edit: empty });
    expect(areas['data uploads at east']).toEqual([
      `fail ${root}/empty is empty: a backup that captures nothing counts as failed`,
      'warn the exclusion "*.tmp" matches nothing',
    ]);
  });

  test('a runbook that does not load fails; a long TTL warns', async () => {
    mkdirSync(join(root, 'runbooks'));
    writeFileSync(join(root, 'runbooks/failover.yaml'), 'name: failover\nstages: 5\n');
    const broken = await examine([], { edit: (text) => `${text}runbooks: ${root}/runbooks\n` });
    expect(broken.areas['configuration and runbooks']).toEqual(contains('fail the runbooks have'));
    dns.zone.seed({ name: 'orders.example.com', type: 'A', ttl: 600, values: ['192.0.2.10'] });
    const slow = await examine();
    expect(slow.bad).toEqual([]);
    expect(slow.areas['traffic orders']).toEqual(contains('warn the TTL of orders.example.com A is 600 s'));
  });
});
