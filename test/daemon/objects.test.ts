import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { listBackupIds, readManifest } from '../../src/backup/catalog.ts';
import type { Manifest } from '../../src/backup/manifest.ts';
import { silentLog } from '../../src/base/log.ts';
import type { MemoryObjects } from '../../src/cluster/memory/objects.ts';
import { openVault } from '../../src/vault/open.ts';
import type { ObjectStore } from '../../src/vault/store.ts';
import { add, configMap, seedShop } from '../backup/objects/support.ts';
import { everything } from '../harness/kubernetes/rbac.ts';
import { KubernetesServer } from '../harness/kubernetes/server.ts';
import { startNode } from '../harness/process.ts';
import { tempDir } from '../harness/temp.ts';
import { haveSucceeded, jobOf, type RunningDaemon, startDaemon } from './world.ts';

const main = join(import.meta.dirname, '../../src/main.ts');
const job = 'backup cluster';

let server: KubernetesServer;
let objects: MemoryObjects;
let config: string;
let vault: ObjectStore;

beforeAll(async () => {
  server = await KubernetesServer.start();
  objects = server.objects;
  seedShop(objects);
  const directory = await tempDir('daemon-objects');
  const kubeconfig = join(directory, 'kubeconfig');
  writeFileSync(kubeconfig, server.kubeconfig());
  config = join(directory, 'dr.yaml');
  writeFileSync(
    config,
    `version: 1
vaults:
  east: { region: r-east, url: "file://${directory}/vault-east" }
  west: { region: r-west, url: "file://${directory}/vault-west" }
sites:
  east: { region: r-east, vault: east, cluster: { kubeconfig: ${kubeconfig} } }
  west: { region: r-west, vault: west }
active: east
encryption: none
configuration:
  cluster: { kubernetes: { namespaces: [shop] }, schedule: on change after 200ms }
verification: { schedule: never }
daemon: { listen: "127.0.0.1:0" }
scratch: ${directory}/scratch
`,
  );
  const facts = { forcePathStyle: false, endpoint: undefined, credentials: undefined };
  vault = openVault({ name: 'east', region: 'r-east', url: `file://${directory}/vault-east`, ...facts }, silentLog);
});
afterAll(async () => await server[Symbol.asyncDispose]());

async function dr(...args: string[]) {
  return await startNode(main, [...args, '--config', config, '--site', 'east']).ended;
}

async function newest(): Promise<Manifest> {
  const id = (await listBackupIds(vault, 'cluster')).at(-1);
  if (id === undefined) throw new Error('there is no backup');
  return await readManifest(vault, 'cluster', id);
}

/** Until the newest backup is another one than `before`. */
async function backupAfter(before: Manifest, daemon: RunningDaemon): Promise<Manifest> {
  for (;;) {
    const found = await newest();
    if (found.id !== before.id) return found;
    await daemon.until('a backup is made', (state) => jobOf(state, job)?.lastError === undefined);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const paint = (colour: string) => {
  const type = objects.typeOf({ apiVersion: 'v1', kind: 'ConfigMap' });
  objects.merge(type, 'shop', 'settings', { data: { colour } }, { manager: 'kubectl' });
};

test('commands back up, show and check objects of a cluster', async () => {
  const first = await dr('backup', 'cluster');
  expect(first.stdout + first.stderr).toMatch(/cluster +ok/);
  expect((await dr('backup', 'cluster')).stdout).toMatch(/cluster +unchanged/);
  expect((await newest()).source).toContain('cluster http://127.0.0.1');
  expect((await dr('doctor')).stdout).toMatch(/kinds can be read and watched, in 1 namespace/);

  const rules = ['', 'apps'].map((group) => ({
    apiGroups: [group],
    resources: ['*'],
    verbs: ['get', 'list', 'watch'],
  }));
  server.accounts.set('admin-token', { name: 'dr', rules });
  const limited = await dr('backup', 'cluster');
  expect(limited.stdout).toMatch(/cluster +INCOMPLETE/);
  expect(limited.stdout).toContain('unreadable widgets.example.com of namespace shop: dr may not list widgets');
  expect((await dr('backups', 'cluster')).stdout).toContain('DEGRADED');
  expect((await dr('status')).stdout).toContain('the newest backup of cluster is degraded');
  expect((await dr('doctor')).stdout).toMatch(/may not list or watch .*clusterroles/);
  server.accounts.set('admin-token', { name: 'admin', rules: everything });
}, 60_000);

test('the daemon backs up what changes, through restarts of the API server, and bursts', async () => {
  await using daemon = await startDaemon(main, config, 'east', {});
  await daemon.until('the first look is done', (state) => haveSucceeded(state, job));
  await daemon.until('everything is watched', (state) => state.watching?.[0]?.objects === 8);
  expect((await daemon.get('/metrics')).text).toContain('dr_watched_objects{resource="cluster"} 8');
  // What was read first counts as changed: a look that finds nothing.
  await daemon.until('the second look is done', (state) => (jobOf(state, job)?.runs ?? 0) >= 2);
  const first = await newest();

  paint('green');
  const second = await backupAfter(first, daemon);

  // The API server restarts and has forgotten; something changed meanwhile.
  await server.stop();
  paint('red');
  objects.history.forget();
  await server.listen();
  const third = await backupAfter(second, daemon);
  expect(third.notes).toEqual([]);

  // A burst.
  for (let i = 0; i < 1000; i++) add(objects, configMap(`burst-${i}`));
  const lastMs = Date.now();
  const files = 2 * 1000 + third.entries;
  for (let found = third; found.entries < files; ) found = await backupAfter(found, daemon);
  expect(Date.now() - lastMs).toBeLessThan(60_000);
  const { stderr } = await daemon.process.stop('SIGTERM');
  expect(stderr).not.toContain('"level":50');
}, 120_000);
