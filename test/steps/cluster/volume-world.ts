import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { type Clock, systemClock } from '../../../src/base/clock.ts';
import { silentLog } from '../../../src/base/log.ts';
import type { ClusterObject } from '../../../src/cluster/contract.ts';
import { MemoryCluster } from '../../../src/cluster/memory/cluster.ts';
import { MemoryObjects } from '../../../src/cluster/memory/objects.ts';
import { parseConfig } from '../../../src/config/load.ts';
import type { Config } from '../../../src/config/types.ts';
import { parseLsn } from '../../../src/postgres/lsn.ts';
import { withVolumes } from '../../../src/steps/cluster/volume-port.ts';
import type { DatabasePlace } from '../../../src/steps/ports.ts';
import { openRecovery } from '../../../src/steps/recovery-port.ts';
import { FileStore } from '../../../src/vault/file-store.ts';
import { KeyRing } from '../../../src/vault/keys.ts';
import { SealPool } from '../../../src/vault/seal-pool.ts';
import { Controllers } from '../../harness/kubernetes/controllers.ts';
import { Kubelet } from '../../harness/kubernetes/kubelet.ts';
import { serverUser } from '../../harness/npm-postgres.ts';
import { freePort, own, startPostgres, type TestPostgres } from '../../harness/postgres.ts';
import { forgetProcess, registerProcess, startNode, type TestProcess } from '../../harness/process.ts';
import { tempDir } from '../../harness/temp.ts';

/** Looks again sooner than in production. */
const impatient: Clock = {
  now: () => systemClock.now(),
  sleep: async (ms, ...more) => await systemClock.sleep(Math.min(ms, 50), ...more),
};

/**
 * A cluster whose pods really run, as far as a database in a volume needs them: the Job is `dr` as a process, with what its pod says; the pod of the StatefulSet is a stock PostgreSQL over the same directory. The volume is a folder of this machine.
 */
export class VolumeWorld {
  readonly root: string;
  readonly config: Config;
  readonly source: TestPostgres;
  readonly objects = new MemoryObjects();
  readonly controllers: Controllers;
  readonly kubelet: Kubelet;
  /** The Jobs wait until this resolves. */
  hold: Promise<void> | undefined;
  readonly #identity: string;
  readonly #pool = new SealPool(1);
  #archiver: TestProcess | undefined;
  #server: ChildProcess | undefined;
  #busy = false;
  #due = false;

  private constructor(root: string, config: Config, source: TestPostgres, identity: string) {
    this.root = root;
    this.config = config;
    this.source = source;
    this.#identity = identity;
    this.objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } }, undefined);
    this.controllers = new Controllers(this.objects);
    this.setEnvironment({});
    this.kubelet = new Kubelet({
      objects: this.objects,
      root: join(root, 'node'),
      script: join(import.meta.dirname, 'dr-in-pod.ts'),
    });
    this.kubelet.beforeStart = async () => await this.hold;
    for (const table of ['/pods', 'apps/statefulsets']) {
      this.objects.history.watch(table, this.objects.history.revision, {
        onChange: () => setImmediate(() => void this.#kubelet()),
        onBookmark: () => {},
      });
    }
  }

  static async create(): Promise<VolumeWorld> {
    const root = await tempDir('volume');
    await chmod(root, 0o755);
    const source = await startPostgres({ version: 17 });
    await source.sql('create table orders as select i from generate_series(1, 5000) i');
    const identity = await generateX25519Identity();
    const recipient = await identityToRecipient(identity);
    const port = await freePort();
    await writeFile(join(root, 'identity.txt'), `${identity}\n`, { mode: 0o600 });
    const text = configText(root, source.url, recipient, port);
    await writeFile(join(root, 'dr.yaml'), text);
    const { config } = parseConfig(text, join(root, 'dr.yaml'), {});
    const world = new VolumeWorld(root, config, source, identity);
    for (const folder of ['pv', 'uploads', 'node']) await mkdir(join(root, folder));
    await world.#backUp(recipient);
    return world;
  }

  readonly place = (runId = 'run-1'): DatabasePlace => ({
    name: 'orders',
    runId,
    directory: this.dataDirectory,
    isolated: false,
    site: 'west',
    volume: this.config.workloads['orders-db'],
  });

  get dataDirectory(): string {
    return join(this.root, 'pv/pgdata');
  }

  /** The port that runbooks use, as one process has it. */
  recovery() {
    const stores = ['west', 'east'].map(
      (name) => new FileStore({ name, region: `region-${name}`, root: join(this.root, `vault-${name}`) }),
    );
    const parts = {
      config: this.config,
      stores,
      keyRing: new KeyRing([this.#identity]),
      pool: this.#pool,
      searchPath: [],
      log: silentLog,
    };
    const cluster = async () => new MemoryCluster({ objects: this.objects });
    return withVolumes(openRecovery(parts), { ...parts, cluster, clock: impatient });
  }

  /** The StatefulSet as a restored configuration leaves it. */
  createStatefulSet(changes: Record<string, unknown> = {}): void {
    const labels = { app: 'orders-db' };
    const object: ClusterObject = {
      apiVersion: 'apps/v1',
      kind: 'StatefulSet',
      metadata: { name: 'orders-db', namespace: 'shop', annotations: { 'dr.io/replicas': '1' } },
      spec: {
        replicas: 0,
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            securityContext: { runAsUser: 999, fsGroup: 999 },
            containers: [
              {
                name: 'postgres',
                image: 'postgres:17',
                env: [{ name: 'PGDATA', value: this.dataDirectory }],
                volumeMounts: [{ name: 'data', mountPath: join(this.root, 'pv') }],
              },
            ],
          },
        },
        volumeClaimTemplates: [{ metadata: { name: 'data' }, spec: { resources: { requests: { storage: '10Gi' } } } }],
        ...changes,
      },
    };
    this.objects.create(object, undefined, { manager: 'kubectl-create' });
  }

  /** The Secret that the Job takes its environment from. */
  setEnvironment(more: Record<string, string>): void {
    const values = { DR_TEST_ROOT: this.root, ...more };
    const data = Object.fromEntries(
      Object.entries(values).map(([key, value]) => [key, Buffer.from(value).toString('base64')]),
    );
    const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'dr-env', namespace: 'shop' } };
    if (this.object('Secret')) this.objects.delete(this.objects.typeOf(secret), 'shop', 'dr-env');
    this.objects.create({ ...secret, data }, undefined);
  }

  object(kind: string): ClusterObject | undefined {
    return this.objects.all().find((each) => each.kind === kind);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.controllers.isAlive = false;
    await this.kubelet[Symbol.asyncDispose]();
    await this.#stopServer();
    await this.#archiver?.kill9();
    await this.source.stop('immediate');
    await this.#pool.close();
  }

  serverLog(): string {
    return readFileSync(join(this.root, 'server.log'), 'utf8');
  }

  async #backUp(recipient: string): Promise<void> {
    const { root, source } = this;
    const enrolled = await this.#dr('backup', 'uploads').ended;
    if (enrolled.code !== 0) throw new Error(enrolled.stderr);
    const vaults = ['east', 'west'].map((name) => join(root, `vault-${name}`));
    this.#archiver = startNode('test/runbook/archiver-child.ts', [source.replicationUrl, recipient, ...vaults]);
    await this.#archiver.waitFor(/streaming/);
    const taken = await this.#dr('backup', 'orders').ended;
    if (taken.code !== 0) throw new Error(taken.stderr);
    await this.write(5001, 6000);
  }

  /** Jobs made from now on wait until what it returns is called. */
  holdJobs(): () => void {
    let release = () => {};
    this.hold = new Promise((resolve) => {
      release = resolve;
    });
    return () => {
      release();
      this.hold = undefined;
    };
  }

  /** Orders that are committed at the source, and archived. */
  async write(from: number, to: number): Promise<void> {
    await this.source.sql('insert into orders select generate_series($1::int, $2::int)', [from, to]);
    await this.#archived();
  }

  /** Takes back what `write` wrote. */
  async unwrite(from: number): Promise<void> {
    await this.source.sql('delete from orders where i >= $1::int', [from]);
    await this.#archived();
  }

  async #archived(): Promise<void> {
    const { source } = this;
    const [position] = await source.sql<{ lsn: string }>('select pg_current_wal_flush_lsn()::text as lsn');
    const wanted = parseLsn(position?.lsn ?? '') ?? 0n;
    while ((parseLsn(this.#heartbeat().lsn) ?? 0n) < wanted) await pause(50);
  }

  /** The archive's last sign of life. */
  #heartbeat(): { lsn: string } {
    try {
      return JSON.parse(readFileSync(join(this.root, 'vault-west/heartbeats/orders.json'), 'utf8'));
    } catch {
      return { lsn: '' };
    }
  }

  #dr(...args: string[]): TestProcess {
    const { root } = this;
    const variables = { DR_CONFIG: join(root, 'dr.yaml'), DR_IDENTITY_FILE: join(root, 'identity.txt') };
    return startNode('src/main.ts', args, { env: { ...process.env, ...variables } });
  }

  async #kubelet(): Promise<void> {
    this.#due = true;
    if (this.#busy) return;
    this.#busy = true;
    while (this.#due) {
      this.#due = false;
      await this.#sync();
    }
    this.#busy = false;
  }

  async #sync(): Promise<void> {
    const set = this.object('StatefulSet');
    const pod = this.objects.all().find(({ kind, metadata }) => kind === 'Pod' && metadata.name === 'orders-db-0');
    const isWanted = this.controllers.isAlive && (set?.['spec'] as { replicas?: number } | undefined)?.replicas === 1;
    // A server over an empty volume would make itself a new database: here it does nothing.
    const hasData = existsSync(join(this.dataDirectory, 'PG_VERSION'));
    if (isWanted && pod && hasData && this.#server === undefined) {
      // A pod is gone only when its process has ended.
      this.controllers.stuck.add('orders-db-0');
      this.#startServer();
    }
    if (isWanted || this.#server === undefined) return;
    await this.#stopServer();
    this.controllers.stuck.delete('orders-db-0');
    if (pod) this.objects.delete(this.objects.typeOf(pod), 'shop', 'orders-db-0');
  }

  /** As the stock image does it: its files belong to the server's user, and nothing but `postgres` is started. */
  #startServer(): void {
    if (serverUser) execFileSync('chown', ['-R', `${serverUser.uid}:${serverUser.gid}`, this.dataDirectory]);
    own(join(this.root, 'pv'));
    const log = openSync(join(this.root, 'server.log'), 'a');
    const sockets = join(this.root, 'pv');
    const args = ['-D', this.dataDirectory, '-c', 'listen_addresses=127.0.0.1', '-k', sockets];
    this.#server = spawn(join(this.source.bin, 'postgres'), args, {
      ...serverUser,
      cwd: '/',
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    const { pid } = this.#server;
    if (pid === undefined) return;
    registerProcess(pid);
    this.#server.once('exit', () => forgetProcess(pid));
  }

  async #stopServer(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined || server.exitCode !== null) return;
    const ended = once(server, 'exit');
    server.kill('SIGINT');
    await ended;
  }
}

async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

function configText(root: string, url: string, recipient: string, port: number): string {
  return `version: 1
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: { region: region-east, url: "file://${root}/vault-east" }
  west: { region: region-west, url: "file://${root}/vault-west" }
sites:
  east: { region: region-east, vault: east }
  west: { region: region-west, vault: west, cluster: { context: west } }
active: east
encryption: { recipients: ["${recipient}"] }
databases:
  orders:
    url: "${url}"
    recover:
      west: { dataDirectory: ${root}/pv/pgdata, port: ${port}, url: "postgresql://postgres@127.0.0.1:${port}/postgres" }
data:
  uploads: { path: ${root}/uploads, allowEmpty: true }
workloads:
  orders-db: { kind: StatefulSet, namespace: shop, database: orders, sites: [west], restore: { image: "dr:test", identity: dr-identity, environment: dr-env } }
scratch: ${root}/scratch
`;
}
