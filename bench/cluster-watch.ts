// What watching a cluster costs: memory and CPU of the daemon with 10,000 objects, and how soon a burst is backed up.
// npm run build && node bench/cluster-watch.ts [--objects 10000] [--burst 1000] [--idle 60]; the daemon runs as in the image.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { listBackupIds, readManifest } from '../src/backup/catalog.ts';
import { silentLog } from '../src/base/log.ts';
import type { ClusterObject } from '../src/cluster/contract.ts';
import { openVault } from '../src/vault/open.ts';
import { KubernetesServer } from '../test/harness/kubernetes/server.ts';
import { nodeBinary, startProcess } from '../test/harness/process.ts';
import { tempDir } from '../test/harness/temp.ts';
import { cpuSeconds, highWaterBytes } from './measure.ts';

const { values } = parseArgs({
  options: {
    objects: { type: 'string', default: '10000' },
    burst: { type: 'string', default: '1000' },
    idle: { type: 'string', default: '60' },
  },
});
const count = Number(values.objects);
const burst = Number(values.burst);
const idleSeconds = Number(values.idle);
const NAMESPACES = 50;
/** Status changes a second in a cluster where people do nothing. */
const NOISE_PER_SECOND = 5;

const server = await KubernetesServer.start({ tls: true });
const { objects } = server;
for (let i = 0; i < NAMESPACES; i++) {
  add({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: `team-${i}`, labels: { tier: 'production' } } });
}
for (let i = 0; i < count; i++) add(objectNumber(i));
// What controllers make of them is seen and not kept.
for (let i = 0; i < count / 2; i++) add(podNumber(i));

const folder = await tempDir('cluster-watch');
const kubeconfig = join(folder, 'kubeconfig');
writeFileSync(kubeconfig, server.kubeconfig());
const config = join(folder, 'dr.yaml');
writeFileSync(
  config,
  `version: 1
vaults:
  east: { region: r-east, url: "file://${folder}/vault-east" }
  west: { region: r-west, url: "file://${folder}/vault-west" }
sites: { east: { region: r-east, vault: east, cluster: { kubeconfig: ${kubeconfig} } }, west: { region: r-west, vault: west } }
active: east
encryption: none
configuration: { cluster: { kubernetes: { selector: "tier=production" } } }
verification: { schedule: never }
daemon: { listen: "127.0.0.1:0" }
scratch: ${folder}/scratch
`,
);
const facts = { forcePathStyle: false, endpoint: undefined, credentials: undefined };
const vault = openVault({ name: 'east', region: 'r-east', url: `file://${folder}/vault-east`, ...facts }, silentLog);

const began = performance.now();
const flags = ['--max-semi-space-size=4', '--heap-growing-percent=50'];
const program = [join(import.meta.dirname, '../dist/main.js'), 'daemon', '--config', config, '--site', 'east'];
const env = { ...process.env, MALLOC_ARENA_MAX: '2', NODE_ENV: 'production' };
await using daemon = startProcess(nodeBinary, [...flags, ...program], { env });
const { pid } = daemon;
const [, url = ''] = await daemon.waitFor(/"url":"(http:[^"]+)"/);
const first = await newestWith(count);
say(`first backup of ${first.entries} entries, ${(first.logicalBytes / 1e6).toFixed(1)} MB`, seconds(began));
// The second look, for what changed while nobody watched, finds nothing.
await until(async () => (await runs()) >= 2 && !(await isWorking()));
say('everything watched, second look done', seconds(began));
say('watches', String(server.watchCount));
memory('after the start');

await idle('idle, nothing happens', () => {});
let turn = 0;
await idle(`idle, ${NOISE_PER_SECOND} status changes a second`, () => {
  const name = `object-${(turn++ * 5) % count}`;
  const deployment = objects.typeOf({ apiVersion: 'apps/v1', kind: 'Deployment' });
  const place = `team-${Number(name.slice(7)) % NAMESPACES}`;
  objects.merge(deployment, place, name, { status: { replicas: turn } }, { subresource: 'status' });
});
const before = (await listBackupIds(vault, 'cluster')).length;
for (let i = 0; i < burst; i++) add(configMap(`burst-${i}`, i));
const last = performance.now();
const cpu = cpuSeconds(pid);
const found = await newestWith(count + burst);
say(`burst of ${burst} backed up after the last change (10 s of them quiet)`, seconds(last));
say('CPU for it', `${(cpuSeconds(pid) - cpu).toFixed(1)} s`);
say('stored for it', `${(found.storedBytes / 1e3).toFixed(0)} kB`);
say('backups for it', String((await listBackupIds(vault, 'cluster')).length - before));
await until(async () => !(await isWorking()));
memory('after the burst');
await daemon.stop('SIGTERM');
await server[Symbol.asyncDispose]();

function add(object: ClusterObject): void {
  objects.create(object, undefined, { manager: 'kubectl' });
}

/** Of every ten objects: five ConfigMaps of 1 kB, two Deployments, two Services, one Role. */
function objectNumber(i: number): ClusterObject {
  const [name, namespace] = [`object-${i}`, `team-${i % NAMESPACES}`];
  const labels = { app: name, 'app.kubernetes.io/managed-by': 'helm' };
  const metadata = { name, namespace, labels };
  const kind = i % 10;
  if (kind === 0 || kind === 5) {
    const env = Array.from({ length: 10 }, (_, n) => ({ name: `VARIABLE_${n}`, value: `value ${n} of ${name}` }));
    const container = {
      name: 'main',
      image: `registry.example.com/${name}:1.2.3`,
      env,
      ports: [{ containerPort: 8080 }],
    };
    const template = { metadata: { labels }, spec: { containers: [container] } };
    return {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata,
      spec: { replicas: 2, selector: { matchLabels: labels }, template },
    };
  }
  if (kind === 1 || kind === 6)
    return { apiVersion: 'v1', kind: 'Service', metadata, spec: { selector: labels, ports: [{ port: 80 }] } };
  if (kind === 2) {
    const rules = [{ apiGroups: [''], resources: ['configmaps'], verbs: ['get'] }];
    return { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'Role', metadata, rules };
  }
  return configMap(name, i);
}

function configMap(name: string, i: number): ClusterObject {
  const text = Array.from(
    { length: 12 },
    (_, n) => `setting.${n} = ${name} has the value ${n * i} here, and a comment behind it`,
  ).join('\n');
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, namespace: `team-${i % NAMESPACES}` },
    data: { 'app.properties': text },
  };
}

function podNumber(i: number): ClusterObject {
  const owner = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: `object-${i}-5d`, uid: 'u', controller: true };
  const spec = { containers: [{ name: 'main', image: 'registry.example.com/app:1.2.3' }] };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: `pod-${i}`, namespace: `team-${i % NAMESPACES}`, ownerReferences: [owner] },
    spec,
  };
}

async function newestWith(wanted: number) {
  for (;;) {
    // The daemon makes the vault.
    const id = (await listBackupIds(vault, 'cluster').catch(() => [])).at(-1);
    const manifest = id === undefined ? undefined : await readManifest(vault, 'cluster', id);
    // A file for each object and one for its managers, and folders.
    if (manifest && manifest.entries >= 2 * wanted) return manifest;
    await pause(100);
  }
}

async function job(): Promise<{ runs: number; working: boolean }> {
  const response = await fetch(`${url}/state`);
  const state = (await response.json()) as { jobs: { name: string; runs: number; working: boolean }[] };
  return state.jobs.find(({ name }) => name === 'backup cluster') ?? { runs: 0, working: true };
}
async function runs(): Promise<number> {
  return (await job()).runs;
}
async function isWorking(): Promise<boolean> {
  return (await job()).working;
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await pause(200);
}

async function idle(what: string, disturb: () => void): Promise<void> {
  const cpu = cpuSeconds(pid);
  const began = performance.now();
  for (let i = 0; i < idleSeconds * NOISE_PER_SECOND; i++) {
    disturb();
    await pause(1000 / NOISE_PER_SECOND);
  }
  const took = (performance.now() - began) / 1000;
  say(what, `${(((cpuSeconds(pid) - cpu) / took) * 100).toFixed(2)} % of a core`);
  memory(what);
}

function memory(when: string): void {
  const rss = Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;
  say(`memory, ${when}`, `${rss.toFixed(0)} MiB now, ${(highWaterBytes(pid) / 2 ** 20).toFixed(0)} MiB at most`);
}

function seconds(since: number): string {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`;
}

function say(what: string, value: string): void {
  process.stdout.write(`${what}: ${value}\n`);
}
