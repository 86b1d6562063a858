import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseLsn } from '../../src/postgres/lsn.ts';
import { listRunIds } from '../../src/runbook/journal.ts';
import { readReport } from '../../src/runbook/run-report.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { networkOnly, startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { type Ended, startNode, type TestProcess } from '../harness/process.ts';
import { type Route53Server, startRoute53 } from '../harness/route53/server.ts';
import { tempDir } from '../harness/temp.ts';

// The same disaster again and again: `dr failover` is killed with -9 at random moments, and resumed until it ends. DR_FAILOVERS=100 does it
// as often; DR_SEED repeats a history.
const rounds = Number(process.env['DR_FAILOVERS'] ?? 1);
const seed = Number(process.env['DR_SEED'] ?? Date.now() % 1_000_000);
const random = mulberry(seed);

let root: string;
let east: TestPostgres;
let dns: Route53Server;
let westPort: number;
let environment: NodeJS.ProcessEnv;
let undisturbedMs = 0;

const vaultOf = (name: string) => join(root, `vault-${name}`);
const west = () => new FileStore({ name: 'west', region: 'eu-central-1', root: vaultOf('west') });
const dr = (...args: string[]): TestProcess => startNode('src/main.ts', args, { env: environment });
const finished = async (...args: string[]): Promise<Ended> => await dr(...args).ended;
const failover = ['failover', '--yes', '--reason', 'a test', '--json'];

beforeAll(async () => {
  root = await tempDir('kill-failover');
  // As most servers are set up: dr has no way in but the network.
  east = await startPostgres({ version: 17, hba: networkOnly });
  await east.sql('create table orders (id bigint primary key)');
  await east.sql('insert into orders select generate_series(1, 20000)');
  await mkdir(join(root, 'uploads'), { recursive: true });
  await writeFile(join(root, 'uploads/photo.bin'), Buffer.alloc(300_000, 7));
  dns = await startRoute53({ zoneId: 'Z1TEST', zoneName: 'demo.test' });
  westPort = await freePort();
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
  const enrolled = await finished('backup', 'uploads');
  expect(enrolled.code, enrolled.stderr).toBe(0);
  const archiver = startNode('test/runbook/archiver-child.ts', [
    east.replicationUrl,
    recipient,
    vaultOf('east'),
    vaultOf('west'),
  ]);
  await archiver.waitFor(/streaming/);
  const taken = await finished('backup', 'orders');
  expect(taken.code, taken.stderr).toBe(0);
  await east.sql('insert into orders select generate_series(20001, 25000)');
  const [position] = await east.sql<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn');
  while ((parseLsn(await heartbeatLsn()) ?? 0n) < (parseLsn(position?.lsn ?? '') ?? 0n)) await pause(50);
  await east.kill9();
  await archiver.kill9();
}, 60_000);

afterAll(async () => {
  await stopRecovered();
  await dns?.close();
});

describe(`failovers killed with -9 at random moments (seed ${seed})`, () => {
  it(
    'each ends with one writable primary, every commit, DNS at the right site, and a whole report',
    async () => {
      await worldAnew();
      const begun = performance.now();
      await endsWell('undisturbed');
      undisturbedMs = performance.now() - begun;
      for (let round = 1; round <= rounds; round++) {
        await worldAnew();
        const kills = 1 + Math.floor(random() * 3);
        for (let kill = 0; kill < kills; kill++) {
          const process = dr(...failover);
          await Promise.race([pause(random() * undisturbedMs), process.ended]);
          await process.kill9();
        }
        await endsWell(`round ${round} of seed ${seed}, ${kills} kills`);
      }
    },
    120_000 + rounds * 60_000,
  );
});

/** Gives the command again until it has ended, and looks at everything. */
async function endsWell(what: string): Promise<void> {
  const { code, stdout, stderr } = await finished(...failover);
  // 11: the last kill came after the end, and nothing fails back by itself.
  expect([0, 11], `${what}: ${stdout}${stderr}`).toContain(code);
  const ids = await listRunIds(west());
  expect(ids, what).toHaveLength(1);
  const report = await readReport(west(), ids[0] ?? '');
  expect(report, what).toMatchObject({ outcome: 'succeeded', runbook: 'failover', site: 'west' });
  expect(
    report.resources.map(({ name, status }) => `${name} ${status}`),
    what,
  ).toEqual(['orders recovered', 'uploads recovered']);
  expect(
    report.steps.every(({ status }) => status === 'done' || status === 'skipped'),
    what,
  ).toBe(true);
  expect(dns.zone.published('orders.demo.test', 'A')?.[0]?.values, what).toEqual(['198.51.100.10']);
  const client = new pg.Client({ host: '127.0.0.1', port: westPort, user: 'postgres', database: 'postgres' });
  await client.connect();
  const { rows } = await client.query(
    'select count(*)::int as n, max(id)::int as last, pg_is_in_recovery() as standby from orders',
  );
  await client.query('create table if not exists writable ()');
  await client.end();
  expect(rows[0], what).toEqual({ n: 25_000, last: 25_000, standby: false });
  expect((await readFile(join(root, 'west/uploads/photo.bin'))).length, what).toBe(300_000);
}

/** As it was right after the disaster. */
async function worldAnew(): Promise<void> {
  await stopRecovered();
  for (const vault of ['east', 'west']) {
    for (const folder of ['runs', 'leases', 'holds', 'records/active']) {
      await rm(join(vaultOf(vault), folder), { recursive: true, force: true });
    }
  }
  await rm(join(root, 'west'), { recursive: true, force: true });
  await mkdir(join(root, 'west'));
  dns.zone.seed({ name: 'orders.demo.test', type: 'A', ttl: 30, values: ['192.0.2.10'] });
}

async function stopRecovered(): Promise<void> {
  const pid = Number.parseInt(await readFile(join(root, 'west/orders/postmaster.pid'), 'utf8').catch(() => ''), 10);
  if (!(pid > 1)) return;
  try {
    process.kill(pid, 'SIGQUIT');
    for (;;) {
      process.kill(pid, 0);
      await pause(20);
    }
  } catch {
    // It has ended.
  }
}

async function heartbeatLsn(): Promise<string> {
  try {
    return JSON.parse(await readFile(join(vaultOf('west'), 'heartbeats/orders.json'), 'utf8')).lsn;
  } catch {
    return '';
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  server.close();
  return typeof address === 'object' && address ? address.port : 0;
}

async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

/** A small generator of random numbers that a seed repeats. */
function mulberry(from: number): () => number {
  let state = from;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

function configText(recipient: string): string {
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
traffic:
  orders: { route53: { zone: Z1TEST, record: orders.demo.test, type: A, ttl: 30, endpoint: "${dns.endpoint}", nameservers: ["${dns.nameserver}"] }, endpoints: { east: 192.0.2.10, west: 198.51.100.10 } }
validation: { stabilize: 1s }
postgresql: { binaries: ["${east.bin}"] }
scratch: ${root}/scratch
`;
}
