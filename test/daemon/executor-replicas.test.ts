import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { listBackups } from '../../src/backup/catalog.ts';
import { type RightsFeature, rights } from '../../src/cluster/rights.ts';
import { Kubelet } from '../harness/kubernetes/kubelet.ts';
import { KubernetesServer } from '../harness/kubernetes/server.ts';
import { startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { type DaemonTestWorld, daemonWorld, haveSucceeded, jobOf, type RunningDaemon } from './world.ts';

let postgres: TestPostgres;
let world: DaemonTestWorld;
let api: KubernetesServer;
let kubelet: Kubelet;
const daemons: RunningDaemon[] = [];

beforeAll(async () => {
  postgres = await startPostgres();
  await postgres.sql('create table orders(id bigserial primary key, note text)');
});
afterAll(async () => await postgres.stop('immediate'));

beforeEach(async () => {
  await postgres.sql('select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active');
  world = await daemonWorld(postgres);
  const { directory } = world;
  api = await KubernetesServer.start();
  const { objects } = api;
  // Exactly the rights of the table.
  const features: RightsFeature[] = ['executor', 'leader'];
  const rules = features.flatMap((feature) =>
    feature === 'steps'
      ? []
      : rights[feature].map(({ apiGroups, resources, verbs }) => ({ apiGroups, resources, verbs, namespace: 'dr' })),
  );
  api.accounts.set('dr-token', { name: 'system:serviceaccount:dr:dr', rules });
  writeFileSync(join(directory, 'kubeconfig'), api.kubeconfig('dr-token'));
  objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'dr' } }, undefined);
  for (const name of ['dr-a', 'dr-b']) objects.create(podOf(name), 'dr');
  kubelet = new Kubelet({ objects, root: directory, script: join(import.meta.dirname, '../../src/main.ts') });
  // Application data lies in a claim: only Jobs see it, at the path of the configuration.
  mkdirSync(join(directory, 'claims'));
  renameSync(world.uploads, join(directory, 'claims/uploads'));
  kubelet.claims.set('uploads-claim', join(directory, 'claims/uploads'));
  world.configure((text) =>
    text
      .replace(
        'east: { region: r-east, vault: east }',
        `east: { region: r-east, vault: east, cluster: { kubeconfig: ${directory}/kubeconfig } }`,
      )
      .replace('schedule: every 1 minute', 'schedule: every 6 hours')
      .replace('verification: { schedule: never }', 'verification: { schedule: every 6 hours }')
      .replace(
        'daemon: {',
        'executor: { kubernetes: { patience: 2s, volumes: { uploads: { claim: uploads-claim } } } }\ndaemon: { leader: { duration: 3s },',
      ),
  );
  writeFileSync(join(directory, 'identity'), world.identity, { mode: 0o600 });
});
afterEach(async () => {
  for (const daemon of daemons.splice(0)) await daemon[Symbol.asyncDispose]();
  await kubelet[Symbol.asyncDispose]();
  await api[Symbol.asyncDispose]();
});

/** The pod of a replica; here it is only the pattern of the Jobs. */
function podOf(name: string) {
  const env = [{ name: 'DR_IDENTITY_FILE', value: join(world.directory, 'identity') }];
  const container = { name: 'dr', image: 'dr:1', args: ['daemon', '--config', world.config], env };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: { serviceAccountName: 'dr', containers: [container] },
  };
}

async function replica(name: 'a' | 'b', identity = false): Promise<RunningDaemon> {
  const daemon = await world.startBrisk('east', {
    DR_POD_NAME: `dr-${name}`,
    DR_POD_NAMESPACE: 'dr',
    ...(identity && { DR_IDENTITY_FILE: join(world.directory, 'identity') }),
  });
  daemons.push(daemon);
  return daemon;
}

async function backupsOf(resource: string): Promise<number> {
  return (await listBackups(world.vaults.west, resource)).length;
}

const runsOf = (...words: string[]) => kubelet.runs.filter(({ args }) => words.every((word) => args.includes(word)));

test('Jobs do the backups and verifications, WAL stays in the daemon, and the vaults hold each once', async () => {
  const first = await replica('a');
  const state = await first.until('backups', (now) =>
    haveSucceeded(now, 'backup orders', 'backup uploads', 'backup settings'),
  );
  expect(state.wal?.[0]?.status?.state).toBe('streaming');
  expect(jobOf(state, 'backup uploads')?.failures).toBe(0);
  expect((await first.get('/metrics')).text).toMatch(/^dr_cluster_jobs_total\{verb="backup",outcome="succeeded"\} 2$/m);
  await first.process.stop('SIGTERM');
  // Only where the identity is, and a backup was there when the daemon began.
  const second = await replica('b', true);
  await second.until('a verification', (now) => haveSucceeded(now, 'verify uploads'));
  expect([await backupsOf('orders'), await backupsOf('uploads'), await backupsOf('settings')]).toEqual([1, 1, 1]);
  expect([
    runsOf('backup', 'orders').length,
    runsOf('backup', 'uploads').length,
    runsOf('verify', 'uploads').length,
  ]).toEqual([1, 1, 1]);
  // Configuration is watched and backed up where its folder is.
  expect(runsOf('backup', 'settings')).toEqual([]);
});

test('the leader is killed with -9 while a Job runs: the other replica follows it to its end, and nothing is done twice', async () => {
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  kubelet.beforeStart = async (pod) => {
    if (pod.metadata.labels?.['dr.io/resource'] === 'uploads') await held;
  };
  const a = await replica('a');
  await a.until(
    'its Job waits',
    ({ clusterJobs }) => clusterJobs?.some(({ resource, pod }) => resource === 'uploads' && pod !== undefined) === true,
  );
  const b = await replica('b');
  await b.until('b stands by', ({ leader }) => leader?.role === 'standby');
  await a.process.kill9();
  await b.until(
    'b leads and follows the Job',
    (state) =>
      state.leader?.role === 'leader' && state.clusterJobs?.some(({ resource }) => resource === 'uploads') === true,
  );
  release();
  await b.until(
    'it has ended well',
    (state) => haveSucceeded(state, 'backup uploads', 'backup orders') && state.clusterJobs === undefined,
  );
  expect([await backupsOf('uploads'), runsOf('backup', 'uploads').length]).toEqual([1, 1]);
  expect(await backupsOf('orders')).toBe(1);
});

test('the pod is evicted in the middle of the backup: another one does it, once', async () => {
  kubelet.freezes = true;
  const daemon = await replica('a');
  await daemon.until(
    'the pod runs',
    ({ clusterJobs }) => clusterJobs?.some(({ resource }) => resource === 'uploads') === true,
  );
  const pod = () => kubelet.runningPods().find((name) => name.includes('uploads')) ?? '';
  await expect.poll(pod).not.toBe('');
  kubelet.freezes = false;
  kubelet.evict(pod());
  await daemon.until('it is done', (state) => haveSucceeded(state, 'backup uploads'));
  expect([await backupsOf('uploads'), runsOf('backup', 'uploads').length]).toEqual([1, 2]);
});

test('an image that cannot be pulled is told as the reason of the failed backup', async () => {
  kubelet.missingImages.add('dr:1');
  const daemon = await replica('a');
  const state = await daemon.until('the backup has failed', (now) => (jobOf(now, 'backup uploads')?.failures ?? 0) > 0);
  expect(jobOf(state, 'backup uploads')?.lastError).toMatch(
    /has not begun after 2 s: ImagePullBackOff: Back-off pulling image "dr:1"/,
  );
  expect((await daemon.get('/metrics')).text).toMatch(
    /^dr_cluster_jobs_total\{verb="backup",outcome="not-started"\} [12]$/m,
  );
  expect(kubelet.jobs().filter(({ metadata }) => metadata.labels?.['dr.io/resource'] === 'uploads')).toEqual([]);
});

test('the daemon is told to stop while a Job runs: it ends at once, the Job goes on, and the next start learns its end', async () => {
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  kubelet.beforeStart = async () => await held;
  const first = await replica('a');
  await first.until('Jobs wait', ({ clusterJobs }) => clusterJobs?.length === 2);
  const { code, stderr } = await first.process.stop('SIGTERM');
  expect(code, stderr).toBe(0);
  const next = await replica('b');
  await next.until('it follows them', ({ clusterJobs }) => clusterJobs?.length === 2);
  release();
  await next.until('both are done', (state) => haveSucceeded(state, 'backup uploads', 'backup orders'));
  expect([await backupsOf('uploads'), await backupsOf('orders'), kubelet.runs.length]).toEqual([1, 1, 2]);
});
