import { readdirSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { describe, expect, test } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import type { ClusterObject } from '../../src/cluster/contract.ts';
import { KubernetesCluster } from '../../src/cluster/kubernetes.ts';
import { configMap, seedShop } from '../backup/objects/support.ts';
import { settingsFor } from '../cluster/support.ts';
import { type RunningDaemon, startDaemon } from '../daemon/world.ts';
import { helmPrograms } from '../harness/helm/programs.ts';
import { one, type Rendered, render } from '../harness/helm/render.ts';
import { rulesOf } from '../harness/kubernetes/rbac.ts';
import { KubernetesServer } from '../harness/kubernetes/server.ts';
import { tempDir } from '../harness/temp.ts';

const main = join(import.meta.dirname, '../../src/main.ts');
const namespace = 'backup';
const [helm] = helmPrograms();

/**
 * The chart against an API server with RBAC: what is rendered is applied, and the daemon runs with the rendered configuration
 * as the rendered service account, with the rights of the rendered roles and no others.
 */
class Installed implements AsyncDisposable {
  readonly server: KubernetesServer;
  readonly folder: string;
  readonly #rendered: Rendered;

  private constructor(server: KubernetesServer, folder: string, rendered: Rendered) {
    this.server = server;
    this.folder = folder;
    this.#rendered = rendered;
  }

  static async install(values: object): Promise<Installed> {
    if (helm === undefined) throw new Error('there is no Helm');
    const folder = await tempDir('installed');
    await mkdir(join(folder, 'scratch'));
    const identity = await generateX25519Identity();
    const config = {
      vaults: {
        east: { region: 'eu-west-1', url: `file://${folder}/vault-east` },
        west: { region: 'eu-central-1', url: `file://${folder}/vault-west` },
      },
      encryption: { recipients: [await identityToRecipient(identity)] },
      databases: null,
      configuration: {
        cluster: { kubernetes: { namespaces: ['shop'] }, schedule: 'on change after 200ms', retention: '1 year' },
      },
      verification: { schedule: 'never' },
    };
    const rendered = await render(helm, { values: { config, ...values }, namespace });
    const server = await KubernetesServer.start();
    server.objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } }, undefined, {
      manager: 'test',
    });
    seedShop(server.objects);
    const admin = new KubernetesCluster(settingsFor(server), { log: silentLog });
    for (const object of rendered.objects) await admin.apply(object, { manager: 'helm' });
    admin.close();
    server.calls.length = 0;
    const rules = rulesOf(server.objects, 'dr');
    server.accounts.set('dr-token', { name: `system:serviceaccount:${namespace}:dr`, rules });
    return new Installed(server, folder, rendered);
  }

  get objects(): readonly ClusterObject[] {
    return this.#rendered.objects;
  }

  /** As the pod starts it, but for its places: the folders and the port of this machine. */
  async start(): Promise<RunningDaemon> {
    const text = (one(this.#rendered, 'ConfigMap', 'dr')['data'] as Record<string, string>)['dr.yaml'] ?? '';
    const here = text.replace('0.0.0.0:8080', '127.0.0.1:0').replace('/var/lib/dr', join(this.folder, 'scratch'));
    expect(here).not.toBe(text);
    const [config, kubeconfig] = [join(this.folder, 'dr.yaml'), join(this.folder, 'kubeconfig')];
    await writeFile(config, here);
    await writeFile(kubeconfig, this.server.kubeconfig('dr-token'), { mode: 0o600 });
    const env = { KUBECONFIG: kubeconfig, DR_POD_NAME: 'dr-0', DR_POD_NAMESPACE: namespace };
    return await startDaemon(main, config, 'east', env);
  }

  backups(vault: 'east' | 'west'): string[] {
    try {
      return readdirSync(join(this.folder, `vault-${vault}`, 'manifests/cluster'));
    } catch {
      return [];
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]();
  }
}

describe.skipIf(helm === undefined)('installed: needs Helm (Linux on x64, or on the PATH)', () => {
  test('the API server takes every object, and takes it again unchanged', async () => {
    await using installed = await Installed.install({ rights: { configuration: true, executor: true } });
    const admin = new KubernetesCluster(settingsFor(installed.server), { log: silentLog });
    for (const object of installed.objects) {
      const { kind, apiVersion, metadata } = object;
      const ref = { kind, apiVersion, name: metadata.name, namespace: metadata.namespace };
      const before = await admin.get(ref);
      await admin.apply(object, { manager: 'helm' });
      expect((await admin.get(ref)).metadata.resourceVersion, kind).toBe(before.metadata.resourceVersion);
    }
    admin.close();
  });

  test('with rights to read configuration, and no others, the daemon backs it up at once and on change', async () => {
    await using installed = await Installed.install({ rights: { configuration: true, customGroups: ['example.com'] } });
    await using daemon = await installed.start();
    await expect.poll(() => installed.backups('west'), { timeout: 30_000 }).toHaveLength(1);
    await daemon.until('watching', ({ services }) => services?.some(({ name }) => name === 'watch cluster') === true);
    installed.server.objects.create(configMap('flags'), undefined, { manager: 'kubectl' });
    await expect.poll(() => installed.backups('east'), { timeout: 30_000 }).toHaveLength(2);
    expect((await daemon.get('/ready')).status).toBe(200);
    const { code, stderr } = await daemon.process.stop('SIGTERM');
    expect(code).toBe(0);
    expect(stderr).not.toMatch(/forbidden|denied/);
    const written = installed.server.calls.filter((call) => !/^(get|list|watch) /.test(call));
    expect(written).toEqual([]);
    // Not even asked for: Secrets stay out of what dr may read.
    expect(installed.server.calls.filter((call) => /\/secrets/.test(call))).toEqual([]);
  });

  test('with the rights of a leader it takes the Lease of its site, and leads', async () => {
    await using installed = await Installed.install({ rights: { leader: true }, replicas: 2 });
    await using daemon = await installed.start();
    const lease = () =>
      installed.server.objects.all().find(({ kind, metadata }) => kind === 'Lease' && metadata.name === 'dr-east');
    await expect.poll(lease, { timeout: 30_000 }).toMatchObject({
      metadata: { name: 'dr-east', namespace },
      spec: { holderIdentity: expect.stringMatching(/^dr-0_/) },
    });
    await expect
      .poll(async () => (await daemon.get('/ready')).text, { timeout: 30_000 })
      .toContain('this replica leads');
    expect(await daemon.get('/metrics')).toMatchObject({ text: expect.stringMatching(/^dr_leader 1$/m) });
  });

  test('custom resources whose group is not named are said to be missing, with the rule; the rest is backed up', async () => {
    await using installed = await Installed.install({ rights: { configuration: true } });
    await using daemon = await installed.start();
    const [said] = await daemon.process.waitFor(/Add the rule [^}]*\}/);
    expect(said).toContain('apiGroups: [\\"example.com\\"], resources: [\\"widgets\\"]');
    await expect.poll(() => installed.backups('west'), { timeout: 30_000 }).toHaveLength(1);
  });

  test('without any right it says what is missing, and works on', async () => {
    await using installed = await Installed.install({ serviceAccount: { automountToken: true } });
    await using daemon = await installed.start();
    const [said] = await daemon.process.waitFor(/may not \w+ \w+/);
    expect(said).toBe('may not list namespaces');
    expect((await daemon.get('/health')).status).toBe(200);
    expect(installed.backups('east')).toEqual([]);
  });
});
