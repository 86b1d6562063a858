import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import pg from 'pg';
import { parseLsn } from '../../src/postgres/lsn.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { freePort, networkOnly, startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { type Ended, startNode, type TestProcess } from '../harness/process.ts';
import { type Route53Server, startRoute53 } from '../harness/route53/server.ts';
import { tempDir } from '../harness/temp.ts';

/** Orders that were archived before the disaster. */
export const ORDERS = 25_000;
export const PHOTO_BYTES = 300_000;

export interface DisasterOptions {
  /** Folder of runbooks instead of the shipped ones. */
  readonly runbooks?: string;
}

/** A site with a database, uploads and a name, protected into two vaults, and then destroyed: what `dr failover` finds. */
export class DisasterWorld {
  readonly root: string;
  readonly east: TestPostgres;
  readonly dns: Route53Server;
  readonly westPort: number;
  readonly recipient: string;
  readonly environment: NodeJS.ProcessEnv;

  private constructor(facts: Pick<DisasterWorld, 'root' | 'east' | 'dns' | 'westPort' | 'recipient'>) {
    ({ root: this.root, east: this.east, dns: this.dns, westPort: this.westPort, recipient: this.recipient } = facts);
    this.environment = {
      ...process.env,
      DR_CONFIG: join(this.root, 'dr.yaml'),
      DR_IDENTITY_FILE: join(this.root, 'identity.txt'),
      AWS_ACCESS_KEY_ID: 'test',
      AWS_SECRET_ACCESS_KEY: 'test',
    };
  }

  static async create(name: string, options: DisasterOptions = {}): Promise<DisasterWorld> {
    const root = await tempDir(name);
    // As most servers are set up: dr has no way in but the network.
    const east = await startPostgres({ version: 17, hba: networkOnly });
    await east.sql('create table orders (id bigint primary key)');
    await east.sql('insert into orders select generate_series(1, 20000)');
    await mkdir(join(root, 'uploads'), { recursive: true });
    await writeFile(join(root, 'uploads/photo.bin'), Buffer.alloc(PHOTO_BYTES, 7));
    const dns = await startRoute53({ zoneId: 'Z1TEST', zoneName: 'demo.test' });
    const identity = await generateX25519Identity();
    const recipient = await identityToRecipient(identity);
    await writeFile(join(root, 'identity.txt'), `${identity}\n`, { mode: 0o600 });
    const world = new DisasterWorld({ root, east, dns, westPort: await freePort(), recipient });
    await writeFile(join(root, 'dr.yaml'), world.#configText(options));
    await world.#strike();
    return world;
  }

  /** The vault of the site that takes over. */
  get west(): FileStore {
    return new FileStore({ name: 'west', region: 'eu-central-1', root: this.vaultOf('west') });
  }

  vaultOf(name: string): string {
    return join(this.root, `vault-${name}`);
  }

  start(...args: string[]): TestProcess {
    return startNode('src/main.ts', args, { env: this.environment });
  }

  async run(...args: string[]): Promise<Ended> {
    return await this.start(...args).ended;
  }

  /** What clients find at the site that took over. */
  async served(): Promise<{ n: number; last: number; standby: boolean }> {
    const client = new pg.Client({ host: '127.0.0.1', port: this.westPort, user: 'postgres', database: 'postgres' });
    await client.connect();
    try {
      const { rows } = await client.query(
        'select count(*)::int as n, max(id)::int as last, pg_is_in_recovery() as standby from orders',
      );
      await client.query('create table if not exists writable ()');
      return rows[0];
    } finally {
      await client.end();
    }
  }

  /** As it was right after the disaster. */
  async anew(): Promise<void> {
    await this.stopRecovered();
    for (const vault of ['east', 'west']) {
      for (const folder of ['runs', 'leases', 'holds', 'records/active']) {
        await rm(join(this.vaultOf(vault), folder), { recursive: true, force: true });
      }
    }
    await rm(join(this.root, 'west'), { recursive: true, force: true });
    await mkdir(join(this.root, 'west'));
    this.dns.faults.clear();
    this.dns.zone.seed({ name: 'orders.demo.test', type: 'A', ttl: 30, values: ['192.0.2.10'] });
  }

  async stopRecovered(): Promise<void> {
    const pidFile = join(this.root, 'west/orders/postmaster.pid');
    const pid = Number.parseInt(await readFile(pidFile, 'utf8').catch(() => ''), 10);
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

  async close(): Promise<void> {
    await this.stopRecovered();
    await this.dns.close();
  }

  /** Backups, some more orders that only the WAL has, and the end. */
  async #strike(): Promise<void> {
    await this.#succeed('backup', 'uploads');
    const vaults = [this.vaultOf('east'), this.vaultOf('west')];
    const archiver = startNode('test/runbook/archiver-child.ts', [this.east.replicationUrl, this.recipient, ...vaults]);
    await archiver.waitFor(/streaming/);
    await this.#succeed('backup', 'orders');
    await this.east.sql(`insert into orders select generate_series(20001, ${ORDERS})`);
    const [position] = await this.east.sql<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn');
    while ((parseLsn(await this.#heartbeatLsn()) ?? 0n) < (parseLsn(position?.lsn ?? '') ?? 0n)) await pause(50);
    await this.east.kill9();
    await archiver.kill9();
  }

  async #succeed(...args: string[]): Promise<void> {
    const { code, stdout, stderr } = await this.run(...args);
    if (code !== 0) throw new Error(`dr ${args.join(' ')} ended with ${code}:\n${stdout}${stderr}`);
  }

  async #heartbeatLsn(): Promise<string> {
    try {
      return JSON.parse(await readFile(join(this.vaultOf('west'), 'heartbeats/orders.json'), 'utf8')).lsn;
    } catch {
      return '';
    }
  }

  #configText({ runbooks }: DisasterOptions): string {
    const { root, east, dns, westPort, recipient } = this;
    return `version: 1
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: { region: eu-west-1, url: "file://${this.vaultOf('east')}" }
  west: { region: eu-central-1, url: "file://${this.vaultOf('west')}" }
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
${runbooks === undefined ? '' : `runbooks: ${runbooks}\n`}`;
  }
}

export async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}
