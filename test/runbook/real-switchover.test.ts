import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readReport } from '../../src/runbook/run-report.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { networkOnly, startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { type Ended, startNode, type TestProcess } from '../harness/process.ts';
import { type Route53Server, startRoute53 } from '../harness/route53/server.ts';
import { tempDir } from '../harness/temp.ts';

// Planned moves there and back with real parts, a daemon at each site, and clients that never stop writing: every transaction that was
// acknowledged to one of them must be there afterwards. DR_SWITCHOVERS=20 moves it as often.
const moves = Number(process.env['DR_SWITCHOVERS'] ?? 2);

let root: string;
let original: TestPostgres;
let dns: Route53Server;
let ports: Record<'east' | 'west', number>;
let daemons: Record<'east' | 'west', TestProcess>;
let clients: Clients;

const dr = (site: string, ...args: string[]): TestProcess => startNode('src/main.ts', args, { env: environment(site) });
const finished = async (site: string, ...args: string[]): Promise<Ended> => await dr(site, ...args).ended;

beforeAll(async () => {
  root = await tempDir('switchover');
  // As most servers are set up: dr has no way in but the network.
  original = await startPostgres({ version: 17, hba: networkOnly });
  await original.sql('create role app login');
  await original.sql('create table orders (client int, id bigint, primary key (client, id))');
  await original.sql('grant all on orders to app');
  ports = { east: original.port, west: await freePort() };
  await mkdir(join(root, 'uploads'), { recursive: true });
  await mkdir(join(root, 'west'), { recursive: true });
  await writeFile(join(root, 'uploads/photo.bin'), Buffer.alloc(50_000, 7));
  dns = await startRoute53({ zoneId: 'Z1TEST', zoneName: 'demo.test' });
  dns.zone.seed({ name: 'orders.demo.test', type: 'A', ttl: 1, values: ['192.0.2.10'] });
  const identity = await generateX25519Identity();
  await writeFile(join(root, 'identity.txt'), `${identity}\n`, { mode: 0o600 });
  await writeFile(join(root, 'dr.yaml'), configText(await identityToRecipient(identity)));
  const first = await finished('east', 'backup', 'uploads');
  expect(first.code, first.stderr).toBe(0);
  daemons = { east: dr('east', 'daemon'), west: dr('west', 'daemon') };
  await protectedAt('east');
  clients = new Clients(Object.values(ports), 4);
}, 120_000);

afterAll(async () => {
  await clients?.stop();
  for (const daemon of Object.values(daemons ?? {})) await daemon.kill9();
  await dns?.close();
  for (const directory of [join(root, 'west/orders'), original?.dataDirectory ?? root]) {
    const pid = Number.parseInt(await readFile(join(directory, 'postmaster.pid'), 'utf8').catch(() => ''), 10);
    if (pid > 1) kill(pid);
  }
});

describe('planned moves under load', () => {
  it(
    'lose no transaction, there and back',
    async () => {
      const downtimes: number[] = [];
      for (let move = 1; move <= moves; move++) {
        const [from, to, verb] =
          move % 2 === 1 ? (['east', 'west', 'switchover'] as const) : (['west', 'east', 'failback'] as const);
        await protectedAt(from);
        await clients.untilCommitted(50);
        const fresh = await finished(from, 'backup', 'uploads');
        expect(fresh.code, fresh.stderr).toBe(0);
        const { code, stdout, stderr } = await finished(to, verb, '--to', to, '--yes', '--reason', 'a test', '--json');
        expect(code, stdout + stderr).toBe(0);
        const { result } = JSON.parse(stdout);
        expect(result.outcome).toBe('succeeded');
        expect(result.resources.find(({ name }: { name: string }) => name === 'orders')).toMatchObject({ lossMs: 0 });
        // The clients go on at the new site by themselves: their roles are open there, and only there.
        await clients.untilCommitted(20);
        expect(await missing(ports[to]), `move ${move}`).toEqual([]);
        expect(await writable(ports[from])).toBe(false);
        expect(await writable(ports[to])).toBe(true);
        const address = to === 'west' ? '198.51.100.10' : '192.0.2.10';
        expect(dns.zone.published('orders.demo.test', 'A')?.[0]?.values).toEqual([address]);
        const report = await readReport(vault(to), result.runId);
        expect(report.rto.downtimeMs).toBeGreaterThan(0);
        expect(existsSync(`${place(to)}.before-${result.runId}`)).toBe(move > 1);
        downtimes.push(report.rto.downtimeMs ?? 0);
      }
      process.stdout.write(`nobody could write for ${downtimes.join(', ')} ms\n`);
    },
    60_000 + moves * 60_000,
  );
});

/** Clients that write where they can, each its own numbers, and remember what was acknowledged. */
class Clients {
  readonly acknowledged: number[];
  readonly #ports: readonly number[];
  readonly #running: Promise<void>[];
  #stopped = false;

  constructor(at: readonly number[], count: number) {
    this.#ports = at;
    this.acknowledged = Array.from({ length: count }, () => 0);
    this.#running = this.acknowledged.map((_, client) => this.#write(client));
  }

  async untilCommitted(more: number): Promise<void> {
    const goal = this.acknowledged.map((id) => id + more);
    await until(async () => this.acknowledged.every((id, client) => id >= (goal[client] ?? 0)));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#running);
  }

  async #write(client: number): Promise<void> {
    for (let turn = 0; !this.#stopped; turn++) {
      const port = this.#ports[turn % this.#ports.length];
      const session = new pg.Client({ host: '127.0.0.1', port, user: 'app', database: 'postgres' });
      session.on('error', () => {});
      try {
        await session.connect();
        while (!this.#stopped) {
          const id = (this.acknowledged[client] ?? 0) + 1;
          // The number may be there already: its commit was not acknowledged because the session ended.
          await session.query('insert into orders values ($1, $2) on conflict do nothing', [client, id]);
          this.acknowledged[client] = id;
        }
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 20));
      } finally {
        await session.end().catch(() => {});
      }
    }
  }
}

/** Acknowledged transactions that are not there. */
async function missing(port: number): Promise<string[]> {
  const acknowledged = [...clients.acknowledged];
  const rows = await ask(port, 'select client, count(*)::int as n, max(id)::int as last from orders group by client');
  return acknowledged.flatMap((id, client) => {
    const row = rows.find((found) => found['client'] === client);
    // Numbers have no gaps: as many as the highest one.
    const whole = row !== undefined && row['n'] === row['last'] && Number(row['last']) >= id;
    return whole ? [] : [`client ${client}: ${id} acknowledged, found ${JSON.stringify(row)}`];
  });
}

async function writable(port: number): Promise<boolean> {
  const session = new pg.Client({ host: '127.0.0.1', port, user: 'app', database: 'postgres' });
  session.on('error', () => {});
  try {
    await session.connect();
    await session.query('begin; delete from orders where client = -1; commit');
    return true;
  } catch {
    return false;
  } finally {
    await session.end().catch(() => {});
  }
}

async function ask(port: number, sql: string): Promise<Record<string, unknown>[]> {
  const session = new pg.Client({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres' });
  await session.connect();
  try {
    return (await session.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await session.end();
  }
}

/** The site is active, and its database is protected there: a base backup of its lineage and the archive behind it. */
async function protectedAt(site: 'east' | 'west'): Promise<void> {
  await until(async () => {
    const beat = await heartbeat(site);
    return beat?.site === site && beat.connected && (await backedUpAt(site));
  });
}

async function backedUpAt(site: string): Promise<boolean> {
  const { stdout } = await finished(site, 'backups', 'orders', '--json');
  // Nothing but an error while there is no backup yet.
  const { result } = JSON.parse(stdout || '{}') as { result?: { backups: Array<{ site?: string }> } };
  return result?.backups.at(-1)?.site === site;
}

async function heartbeat(site: 'east' | 'west'): Promise<{ site: string; connected: boolean } | undefined> {
  try {
    return JSON.parse(await readFile(join(root, `vault-${site}/heartbeats/orders.json`), 'utf8'));
  } catch {
    return undefined;
  }
}

function vault(site: string): FileStore {
  return new FileStore({ name: site, region: `region-${site}`, root: join(root, `vault-${site}`) });
}

function place(site: string): string {
  return site === 'east' ? original.dataDirectory : join(root, 'west/orders');
}

function environment(site: string): NodeJS.ProcessEnv {
  return {
    ...process.env,
    DR_CONFIG: join(root, 'dr.yaml'),
    DR_SITE: site,
    DR_IDENTITY_FILE: join(root, 'identity.txt'),
    DR_SCRATCH: join(root, `scratch-${site}`),
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
  };
}

/** Waits for something that the daemons do; says what they said when it does not come. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!(await condition())) {
    if (performance.now() > deadline) {
      const said: string[] = [];
      for (const [site, daemon] of Object.entries(daemons)) {
        await daemon.kill9();
        said.push(`daemon ${site}: ${(await daemon.ended).stderr.slice(-4000)}`);
      }
      throw new Error(`it did not come in a minute: ${condition}\n${said.join('\n')}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
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
  return `version: 1
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: { region: region-east, url: "file://${root}/vault-east" }
  west: { region: region-west, url: "file://${root}/vault-west" }
sites:
  east: { region: region-east, vault: east }
  west: { region: region-west, vault: west }
active: east
encryption: { recipients: ["${recipient}"] }
databases:
  orders:
    url: "postgresql://postgres@127.0.0.1:${ports.east}/postgres"
    schedule: every 6 hours
    retention: 30 days
    wal: { flushEvery: 200ms }
    recover:
      east: { dataDirectory: ${original.dataDirectory}, port: ${ports.east}, listen: 127.0.0.1 }
      west: { dataDirectory: ${root}/west/orders, port: ${ports.west}, listen: 127.0.0.1 }
data:
  uploads: { path: ${root}/uploads, schedule: daily, retention: 90 days, recover: { west: { path: ${root}/west/uploads } } }
traffic:
  orders: { route53: { zone: Z1TEST, record: orders.demo.test, type: A, ttl: 1, endpoint: "${dns.endpoint}", nameservers: ["${dns.nameserver}"] }, endpoints: { east: 192.0.2.10, west: 198.51.100.10 } }
verification: { schedule: never }
validation: { stabilize: 1s }
daemon: { listen: "127.0.0.1:0" }
postgresql: { binaries: ["${original.bin}"] }
scratch: "\${DR_SCRATCH}"
`;
}
