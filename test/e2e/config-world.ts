import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { MemoryCluster } from '../../src/cluster/memory/cluster.ts';
import { fill } from '../backup/objects-restore/shop.ts';
import { KubernetesServer } from '../harness/kubernetes/server.ts';
import { type Ended, startNode, type TestProcess } from '../harness/process.ts';
import { tempDir } from '../harness/temp.ts';

const main = join(import.meta.dirname, '../../src/main.ts');

/** Two sites with a cluster each, of which the eastern one runs the shop; two encrypted vaults; and the real program. */
export class ConfigWorld implements AsyncDisposable {
  readonly root: string;
  readonly east: KubernetesServer;
  west: KubernetesServer;
  readonly #env: Readonly<Record<string, string | undefined>>;

  private constructor(root: string, east: KubernetesServer, west: KubernetesServer) {
    this.root = root;
    this.east = east;
    this.west = west;
    this.#env = {
      PATH: process.env['PATH'],
      DR_TEST_ROOT: process.env['DR_TEST_ROOT'],
      DR_CONFIG: join(root, 'dr.yaml'),
      DR_IDENTITY_FILE: join(root, 'identity.txt'),
    };
  }

  static async make(): Promise<ConfigWorld> {
    const root = await tempDir('config');
    const [east, west] = await Promise.all([KubernetesServer.start(), KubernetesServer.start({ tls: true })]);
    const world = new ConfigWorld(root, east, west);
    await fill(world.eastern);
    world.kubeconfig('west', 'admin-token');
    writeFileSync(join(root, 'east.kubeconfig'), east.kubeconfig());
    mkdirSync(join(root, 'etc'));
    writeFileSync(join(root, 'etc', 'app.conf'), 'port = 80\nworkers = 4\n');
    const identity = await generateX25519Identity();
    writeFileSync(join(root, 'identity.txt'), `${identity}\n`, { mode: 0o600 });
    writeFileSync(
      join(root, 'dr.yaml'),
      `version: 1
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: { region: eu-west-1, url: "file://${root}/vault-east" }
  west: { region: eu-central-1, url: "file://${root}/vault-west" }
sites:
  east: { region: eu-west-1, vault: east, cluster: { kubeconfig: ${root}/east.kubeconfig } }
  west: { region: eu-central-1, vault: west, cluster: { kubeconfig: ${root}/west.kubeconfig } }
active: east
encryption: { recipients: ["${await identityToRecipient(identity)}"] }
validation: { stabilize: 1s }
configuration:
  cluster:
    kubernetes: { namespaces: [shop], secrets: true }
    recover: { west: { kubernetes: {} } }
  settings: { path: ${root}/etc, recover: { west: { path: ${root}/west/etc } } }
`,
    );
    return world;
  }

  /** The clusters as their people see them: past HTTP and RBAC. */
  get eastern(): MemoryCluster {
    return new MemoryCluster({ objects: this.east.objects });
  }

  get western(): MemoryCluster {
    return new MemoryCluster({ objects: this.west.objects });
  }

  /** Gives dr another account at the western cluster. */
  kubeconfig(name: 'west', token: string): void {
    writeFileSync(join(this.root, `${name}.kubeconfig`), this.west.kubeconfig(token));
  }

  /** An empty cluster in the west. */
  async freshWest(): Promise<void> {
    await this.west[Symbol.asyncDispose]();
    this.west = await KubernetesServer.start({ tls: true });
    this.kubeconfig('west', 'admin-token');
  }

  start(args: readonly string[]): TestProcess {
    return startNode(main, args, { cwd: this.root, env: this.#env });
  }

  async dr(...args: string[]): Promise<Ended> {
    return await this.start(args).ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.east[Symbol.asyncDispose](), this.west[Symbol.asyncDispose]()]);
  }
}
