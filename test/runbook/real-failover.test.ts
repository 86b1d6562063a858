import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseLsn } from '../../src/postgres/lsn.ts';
import { listRunIds, readJournal } from '../../src/runbook/journal.ts';
import { readReport } from '../../src/runbook/run-report.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { networkOnly, startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { type Ended, startNode, type TestProcess } from '../harness/process.ts';
import { type Route53Server, startRoute53 } from '../harness/route53/server.ts';
import { tempDir } from '../harness/temp.ts';

// The whole of it with real parts: PostgreSQL, the archiver, two vaults of files, the Route 53 driver against a server of our own, and
// `dr failover` as a process that is killed again and again.

let root: string;
let east: TestPostgres;
let archiver: TestProcess;
let dns: Route53Server;
let health: ReturnType<typeof createServer>;
let environment: Record<string, string | undefined>;
let westPort: number;
let lastOrder: number;

const vaultOf = (name: string) => join(root, `vault-${name}`);
const dr = (...args: string[]): TestProcess =>
  startNode('src/main.ts', args, { env: environment as NodeJS.ProcessEnv });
const finished = async (...args: string[]): Promise<Ended> => await dr(...args).ended;
const west = () => new FileStore({ name: 'west', region: 'eu-central-1', root: vaultOf('west') });

beforeAll(async () => {
  root = await tempDir('failover');
  // As most servers are set up: dr has no way in but the network.
  east = await startPostgres({ version: 17, hba: networkOnly });
  await east.sql('create table orders (id bigint primary key, placed timestamptz default now())');
  await east.sql('insert into orders select generate_series(1, 5000)');
  await Promise.all(['uploads/a/b', 'etc', 'west'].map((name) => mkdir(join(root, name), { recursive: true })));
  await writeFile(join(root, 'uploads/a/b/photo.bin'), Buffer.alloc(300_000, 7));
  await writeFile(join(root, 'etc/app.conf'), 'limit = 10\n');
  dns = await startRoute53({ zoneId: 'Z1TEST', zoneName: 'demo.test' });
  westPort = await freePort();
  health = createServer((_, response) => void answerHealth(response));
  await new Promise<void>((resolve) => health.listen(0, '127.0.0.1', resolve));
  const identity = await generateX25519Identity();
  const recipient = await identityToRecipient(identity);
  await writeFile(join(root, 'identity.txt'), `${identity}\n`, { mode: 0o600 });
  await writeFile(join(root, 'dr.yaml'), configText(recipient));
  environment = {
    ...process.env,
    DR_CONFIG: join(root, 'dr.yaml'),
    DR_IDENTITY_FILE: join(root, 'identity.txt'),
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
  };
  dns.zone.seed({ name: 'orders.demo.test', type: 'A', ttl: 30, values: ['192.0.2.10'] });
  const enrolled = await finished('backup', 'uploads', 'settings');
  expect(enrolled.code, enrolled.stderr).toBe(0);
  archiver = startNode('test/runbook/archiver-child.ts', [
    east.replicationUrl,
    recipient,
    vaultOf('east'),
    vaultOf('west'),
  ]);
  await archiver.waitFor(/streaming/);
  const taken = await finished('backup', 'orders');
  expect(taken.code, taken.stderr).toBe(0);
}, 60_000);

afterAll(async () => {
  health?.close();
  await dns?.close();
  // The recovered server is meant to outlive dr; here it ends with the test.
  const pid = Number.parseInt(await readFile(join(root, 'west/orders/postmaster.pid'), 'utf8').catch(() => ''), 10);
  if (pid > 1) kill(pid);
});

describe('dr failover with real parts', () => {
  it('plans without a trace', async () => {
    const before = await filesBelow(vaultOf('west'));
    const { stdout, stderr, code } = await finished('failover', '--plan');
    // The old primary lives: the plan says that a failover would stop at the fence.
    expect(stdout, stderr).toContain('the old primary of orders answers and is writable');
    expect(code).toBe(14);
    expect((await filesBelow(vaultOf('west'))).filter((name) => !/wal|heartbeats/.test(name))).toEqual(
      before.filter((name) => !/wal|heartbeats/.test(name)),
    );
    expect(existsSync(join(root, 'west/orders'))).toBe(false);
  });

  it('drills beside living production and removes every trace of it', async () => {
    const calls = dns.calls.length;
    // The first one is killed with its server running: the second one goes on with it, and cleans up after both.
    const killed = dr('failover', '--drill');
    await killed.waitFor(/sql\[orders\]: /);
    await killed.kill9();
    expect(await scratchOfDrills()).toHaveLength(1);
    const { code, stdout, stderr } = await finished('failover', '--drill', '--json');
    expect(code, stdout + stderr).toBe(0);
    const { result } = JSON.parse(stdout);
    expect(result.outcome).toBe('succeeded');
    expect(result.steps.find((step: { id: string }) => step.id === 'sql[orders]').evidence.join('\n')).toContain(
      'select count(*) >= 5000 from orders: ok',
    );
    expect(await scratchOfDrills()).toEqual([]);
    expect(await readdir(join(root, 'west'))).toEqual([]);
    expect(dns.calls.slice(calls).filter((call) => call.startsWith('Change'))).toEqual([]);
    expect(stderr).not.toMatch(/AGE-SECRET-KEY/);
  });

  it('recovers after the old site is destroyed, although dr is killed again and again', async () => {
    await east.sql('insert into orders select generate_series(5001, 6000)');
    lastOrder = 6000;
    const [position] = await east.sql<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn');
    await until(async () => (parseLsn(await heartbeatLsn()) ?? 0n) >= (parseLsn(position?.lsn ?? '') ?? 0n));
    await east.kill9();
    await archiver.kill9();
    await rm(vaultOf('east'), { recursive: true, force: true });

    // Killed as soon as each of these is reported: in the middle of the work of a step.
    for (const moment of [
      /site: /,
      /database\[orders\]: /,
      /sql\[orders\]: /,
      /promote\[orders\]: /,
      /active: /,
      /traffic\[orders\]: /,
    ]) {
      const process = dr('failover', '--yes', '--reason', 'region lost');
      await process.waitFor(moment);
      await process.kill9();
    }
    const { code, stdout, stderr } = await finished('failover', '--yes', '--json');
    expect(code, stdout + stderr).toBe(0);

    const client = new pg.Client({ host: '127.0.0.1', port: westPort, user: 'postgres', database: 'postgres' });
    await client.connect();
    const { rows } = await client.query<{ last: string; standby: boolean }>(
      'select max(id) as last, pg_is_in_recovery() as standby from orders',
    );
    await client.query('insert into orders values (7000)');
    await client.end();
    expect(rows[0]).toEqual({ last: String(lastOrder), standby: false });
    expect((await readFile(join(root, 'west/uploads/a/b/photo.bin'))).equals(Buffer.alloc(300_000, 7))).toBe(true);
    expect(await readFile(join(root, 'west/etc/app.conf'), 'utf8')).toBe('limit = 10\n');

    const [id = ''] = await listRunIds(west());
    const { state, entries } = await readJournal(west(), id);
    expect(state.outcome).toBe('succeeded');
    expect(entries.filter(({ event }) => event.type === 'run-resumed').length).toBe(6);
    const report = await readReport(west(), id);
    expect(report.reason).toBe('region lost');
    expect(report.resources.map(({ name, status }) => `${name} ${status}`)).toEqual([
      'orders recovered',
      'uploads recovered',
      'settings recovered',
    ]);
    expect(report.resources[0]?.lossMs).toBeLessThan(15 * 60_000);
    expect(report.rto.met).toBe(true);
    expect(dns.zone.published('orders.demo.test', 'A')?.[0]?.values).toEqual(['198.51.100.10']);
    const markdown = await readFile(join(vaultOf('west'), `runs/${id}/report.md`), 'utf8');
    expect(markdown).toContain('west is serving');
    const journals = await Promise.all(
      entries.map(({ number }) =>
        readFile(join(vaultOf('west'), `runs/${id}/journal/${String(number).padStart(6, '0')}.json`), 'utf8'),
      ),
    );
    expect(journals.join('')).not.toContain('AGE-SECRET');

    const again = await finished('failover', '--yes', '--to', 'west');
    expect(again.code).toBe(11);
    expect(again.stderr).toContain('west is the active site');
    const listed = await finished('runs');
    expect(listed.stdout).toContain(id);
  });
});

/** What lies in the scratch folder beside what backups remember there. */
async function scratchOfDrills(): Promise<string[]> {
  return (await readdir(join(root, 'scratch'))).filter((name) => name !== 'previous');
}

async function answerHealth(response: import('node:http').ServerResponse): Promise<void> {
  const client = new pg.Client({ host: '127.0.0.1', port: westPort, user: 'postgres', database: 'postgres' });
  try {
    await client.connect();
    const { rows } = await client.query<{ standby: boolean }>('select pg_is_in_recovery() as standby');
    response.statusCode = rows[0]?.standby ? 503 : 200;
  } catch {
    response.statusCode = 503;
  } finally {
    await client.end().catch(() => {});
    response.end('orders');
  }
}

async function heartbeatLsn(): Promise<string> {
  try {
    return JSON.parse(await readFile(join(vaultOf('west'), 'heartbeats/orders.json'), 'utf8')).lsn;
  } catch {
    return '';
  }
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 50));
}

async function filesBelow(directory: string): Promise<string[]> {
  return (await readdir(directory, { recursive: true })).sort();
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  server.close();
  return typeof address === 'object' && address ? address.port : 0;
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Gone already.
  }
}

function configText(recipient: string): string {
  const address = health.address();
  const healthPort = typeof address === 'object' && address ? address.port : 0;
  return `version: 1
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: { region: eu-west-1, url: "file://${vaultOf('east')}" }
  west: { region: eu-central-1, url: "file://${vaultOf('west')}" }
sites:
  east: { region: eu-west-1, vault: east }
  west: { region: eu-central-1, vault: west }
active: east
encryption: { recipients: ["${recipient}"] }
databases:
  orders:
    url: "${east.url}"
    schedule: every 6 hours
    retention: 30 days
    recover: { west: { dataDirectory: ${root}/west/orders, port: ${westPort}, listen: 127.0.0.1 } }
data:
  uploads: { path: ${root}/uploads, schedule: daily, retention: 90 days, recover: { west: { path: ${root}/west/uploads } } }
configuration:
  settings: { path: ${root}/etc, schedule: on change, retention: 1 year, recover: { west: { path: ${root}/west/etc } } }
traffic:
  orders: { route53: { zone: Z1TEST, record: orders.demo.test, type: A, ttl: 30, endpoint: "${dns.endpoint}", nameservers: ["${dns.nameserver}"] }, endpoints: { east: 192.0.2.10, west: 198.51.100.10 } }
verification: { checks: { orders: ["select count(*) >= 5000 from orders"] } }
validation:
  http: [{ site: east, url: "http://127.0.0.1:1/", status: 200 }, { site: west, url: "http://127.0.0.1:${healthPort}/", status: 200, contains: orders }]
  stabilize: 1s
postgresql: { binaries: ["${east.bin}"] }
scratch: ${root}/scratch
`;
}
