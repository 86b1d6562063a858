import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { DrError } from '../../src/base/errors.ts';
import { jobLabels } from '../../src/cluster/job-object.ts';
import { isJson, type Json } from '../../src/cluster/json.ts';
import { openCluster } from '../../src/cluster/open.ts';
import { type RightsFeature, rights } from '../../src/cluster/rights.ts';
import type { ExecutorConfig } from '../../src/config/daemon-types.ts';
import { readBackupOutcome } from '../../src/daemon/command-results.ts';
import type { Task } from '../../src/daemon/executor.ts';
import { KubernetesExecutor } from '../../src/daemon/kubernetes-executor.ts';
import { alwaysLeads, type Leadership } from '../../src/daemon/leader.ts';
import { containerOf } from '../harness/kubernetes/containers.ts';
import { Kubelet } from '../harness/kubernetes/kubelet.ts';
import { KubernetesServer } from '../harness/kubernetes/server.ts';
import { tempDir } from '../harness/temp.ts';
import { memoryLog } from './support.ts';

const SLOT = Date.UTC(2026, 10, 23, 12);
const config: ExecutorConfig = {
  namespace: undefined,
  image: undefined,
  serviceAccount: undefined,
  requests: { cpu: '500m' },
  limits: { memory: '512Mi' },
  parallel: 4,
  ttlMs: 3_600_000,
  patienceMs: 500,
  nodeSelector: { disk: 'fast' },
  tolerations: [{ key: 'batch', operator: 'Exists' }],
  env: { PGPASSWORD: { secret: 'orders-db', key: 'password' } },
  scratch: { claim: undefined, sizeLimit: '5Gi' },
  volumes: {},
  mounts: [],
};

let root: string;
let server: KubernetesServer;
let kubelet: Kubelet;
let stops: Array<() => void>;

beforeEach(async () => {
  root = await tempDir('executor');
  server = await KubernetesServer.start();
  stops = [];
  const { objects } = server;
  kubelet = new Kubelet({ objects, root, script: join(import.meta.dirname, 'job-script.ts') });
  objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'dr' } }, undefined);
  const secret = {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'orders-db' },
    data: { password: Buffer.from('s3cret').toString('base64') },
  };
  objects.create(secret, 'dr');
  objects.create(ownPod, 'dr');
});
afterEach(async () => {
  for (const stop of stops) stop();
  await kubelet[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
});

/** The daemon's pod as the chart makes it, in what matters. */
const ownPod = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: {
    name: 'dr-0',
    labels: {
      'app.kubernetes.io/name': 'dr',
      'app.kubernetes.io/instance': 'prod',
      'app.kubernetes.io/component': 'daemon',
      'pod-template-hash': 'x',
    },
  },
  spec: {
    serviceAccountName: 'dr',
    securityContext: { runAsUser: 1000, fsGroup: 1000 },
    containers: [
      {
        name: 'dr',
        image: 'registry.example/dr:1',
        args: ['daemon', '--config', '/etc/dr/dr.yaml'],
        env: [
          { name: 'DR_SITE', value: 'east' },
          { name: 'DR_POD_NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
        ],
        volumeMounts: [
          { name: 'configuration', mountPath: '/etc/dr' },
          { name: 'scratch', mountPath: '/var/lib/dr' },
          { name: 'kube-api-access-abc', mountPath: '/var/run/secrets/kubernetes.io/serviceaccount' },
        ],
      },
    ],
    volumes: [
      { name: 'configuration', configMap: { name: 'dr' } },
      { name: 'scratch', persistentVolumeClaim: { claimName: 'dr-scratch' } },
      { name: 'kube-api-access-abc', projected: { sources: [{ serviceAccountToken: { path: 'token' } }] } },
    ],
  },
};

async function executor(change: Partial<ExecutorConfig> = {}, leadership: Leadership = alwaysLeads) {
  // An account with exactly the rights of the table, in its own namespace.
  const features: RightsFeature[] = ['executor', 'snapshots', 'leader'];
  const rules = features.flatMap((feature) =>
    feature === 'steps'
      ? []
      : rights[feature].map(({ apiGroups, resources, verbs }) => ({ apiGroups, resources, verbs, namespace: 'dr' })),
  );
  server.accounts.set('job-token', { name: 'system:serviceaccount:dr:dr', rules });
  const kubeconfig = join(root, 'kubeconfig');
  writeFileSync(kubeconfig, server.kubeconfig('job-token'));
  const { log, lines } = memoryLog();
  const cluster = await openCluster({ kubeconfig, context: undefined, env: {} }, log);
  const made = new KubernetesExecutor({
    cluster,
    config: { ...config, ...change },
    site: 'east',
    pod: { namespace: 'dr', name: 'dr-0' },
    scratch: '/var/lib/dr',
    paths: { photos: join(root, 'mnt/photos') },
    leadership,
    clock: systemClock,
    log,
    pollMs: 50,
  });
  stops.push(() => {
    made.letGo(new DrError('interrupted', 'the test is over'));
    cluster.close();
  });
  return { executor: made, lines };
}

function task(resource: string, change: Partial<Task> = {}): Task {
  return {
    verb: 'backup',
    resource,
    occurrenceMs: SLOT,
    args: [],
    wanted: () => true,
    told: (result) => ({ backup: readBackupOutcome(result, resource).id }),
    here: async () => {
      throw new Error('it is not done here');
    },
    ...change,
  };
}

const never = new AbortController().signal;
const jobNames = () =>
  kubelet
    .jobs()
    .map(({ metadata }) => metadata.name)
    .sort();

test('a Job runs the same command with the settings of the daemon, a restricted security and its own name for the occurrence', async () => {
  const { executor: jobs } = await executor();
  const facts = await jobs.run(task('fine', { args: ['--extra', 'x'] }), never);
  expect(facts).toMatchObject({ backup: 'id-of-fine', job: `dr-backup-east-fine-${(SLOT / 1000).toString(36)}-0` });
  const [run] = kubelet.runs;
  expect(run?.args).toEqual([
    '--config',
    '/etc/dr/dr.yaml',
    'backup',
    'fine',
    '--json',
    '--site',
    'east',
    '--if-none-since',
    '2026-11-23T12:00:00.000Z',
    '--extra',
    'x',
  ]);
  expect(run?.env).toMatchObject({ DR_SITE: 'east', PGPASSWORD: 's3cret', DR_POD_NAME: run?.pod });
  const [job] = kubelet.jobs();
  expect(job?.metadata.labels).toEqual({
    'dr.io/site': 'east',
    'dr.io/verb': 'backup',
    'dr.io/resource': 'fine',
    'dr.io/occurrence': String(SLOT),
    'app.kubernetes.io/name': 'dr',
    'app.kubernetes.io/instance': 'prod',
    'app.kubernetes.io/component': 'job',
    'app.kubernetes.io/managed-by': 'dr',
  });
  expect(job?.['spec']).toMatchObject({ backoffLimit: 0, ttlSecondsAfterFinished: 3600 });
  const [pod] = kubelet.pods();
  if (!pod) throw new Error('there is no pod');
  expect(pod['spec']).toMatchObject({
    restartPolicy: 'Never',
    automountServiceAccountToken: false,
    serviceAccountName: 'dr',
    nodeSelector: { disk: 'fast' },
    securityContext: { runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: 'RuntimeDefault' } },
  });
  const container = containerOf(pod);
  expect(container).toMatchObject({
    image: 'registry.example/dr:1',
    resources: { requests: { cpu: '500m' }, limits: { memory: '512Mi' } },
    securityContext: {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      runAsNonRoot: true,
      capabilities: { drop: ['ALL'] },
    },
  });
  // Settings come along; the token, the daemon's own claim and what selects the daemon do not.
  expect(container['volumeMounts']).toEqual([
    { name: 'configuration', mountPath: '/etc/dr' },
    { name: 'job-scratch', mountPath: '/var/lib/dr' },
    { name: 'job-tmp', mountPath: '/tmp' },
  ]);
  expect(isJson(pod['spec']) && pod['spec']['volumes']).toEqual([
    { name: 'configuration', configMap: { name: 'dr' } },
    { name: 'job-scratch', emptyDir: { sizeLimit: '5Gi' } },
    { name: 'job-tmp', emptyDir: {} },
  ]);
});

test('a failed Job tells why in its own words and is tried again under the next name; a success counts for its occurrence for ever', async () => {
  const { executor: jobs } = await executor();
  const failure = await jobs.run(task('bad'), never).catch((error: unknown) => error);
  expect(failure).toMatchObject({ kind: 'unreachable', message: 'the database does not answer', next: 'Start it.' });
  await jobs.run(task('bad'), never).catch(() => {});
  const base = `dr-backup-east-bad-${(SLOT / 1000).toString(36)}`;
  expect(jobNames()).toEqual([`${base}-0`, `${base}-1`]);
  expect(jobs.counts().ended).toEqual([{ verb: 'backup', outcome: 'failed', number: 2 }]);

  await jobs.run(task('fine'), never);
  expect(await jobs.run(task('fine'), never)).toMatchObject({ backup: 'id-of-fine' });
  expect(kubelet.runs.filter(({ args }) => args.includes('fine'))).toHaveLength(1);
});

test('a program that crashes, and a pod without memory, are told with the pod and the end of its log', async () => {
  const { executor: jobs } = await executor();
  const crash = await jobs.run(task('crash'), never).catch((error: unknown) => error);
  expect(crash).toMatchObject({ kind: 'unreachable', where: expect.stringMatching(/^pod dr\/dr-backup-east-crash-/) });
  expect(String((crash as Error).message)).toContain('exit code 1');

  const slow = jobs.run(task('slow'), never).catch((error: unknown) => error);
  await expect.poll(() => kubelet.runningPods().length).toBe(1);
  kubelet.outOfMemory(kubelet.runningPods()[0] ?? '');
  const killed = await slow;
  expect(killed).toMatchObject({ message: expect.stringContaining('OOMKilled: exit code 137') });
  expect((killed as DrError).next).toContain('executor.kubernetes.limits');
});

test.each([
  [
    'an image that cannot be pulled',
    () => kubelet.missingImages.add('registry.example/dr:1'),
    /ImagePullBackOff: Back-off pulling image "registry.example\/dr:1"/,
    /image/,
  ],
  ['no node with room', () => kubelet.fillNodes(), /Unschedulable: 0\/3 nodes are available/, /Make room/],
])('%s: the Job is given up after the patience, with the reason, and removed', async (_what, spoil, reason, next) => {
  spoil();
  const { executor: jobs } = await executor();
  const failure = await jobs.run(task('fine'), never).catch((error: unknown) => error);
  expect(failure).toMatchObject({
    kind: 'unreachable',
    message: expect.stringMatching(reason),
    next: expect.stringMatching(next),
  });
  expect(jobNames()).toEqual([]);
  expect(jobs.counts().ended).toEqual([{ verb: 'backup', outcome: 'not-started', number: 1 }]);
});

test('an evicted pod is replaced and the Job goes on; a pod on a lost node is given up after the patience', async () => {
  const { executor: jobs, lines } = await executor();
  const slow = jobs.run(task('slow'), never);
  await expect.poll(() => kubelet.runningPods().length).toBe(1);
  kubelet.evict(kubelet.runningPods()[0] ?? '');
  await expect.poll(() => kubelet.runningPods().length).toBe(1);
  await expect.poll(() => lines.some(({ sentence }) => sentence.includes('another one takes its place'))).toBe(true);
  writeFileSync(join(root, 'go'), '');
  expect(await slow).toMatchObject({ backup: 'id-of-slow' });
  expect(kubelet.runs).toHaveLength(2);
  expect(jobNames()).toHaveLength(1);

  const held = await holdingPod();
  const lost = jobs.run(task('fine'), never).catch((error: unknown) => error);
  const pod = await held.pod;
  kubelet.loseNode(pod);
  expect(await lost).toMatchObject({ message: expect.stringContaining('NodeLost') });
});

/** The next pod starts and stays as it is. */
async function holdingPod(): Promise<{ pod: Promise<string> }> {
  const pod = (async () => {
    await expect.poll(() => kubelet.runningPods().length, { timeout: 10_000, interval: 1 }).toBe(1);
    return kubelet.runningPods()[0] ?? '';
  })();
  return { pod };
}

test('two leaders at once make one Job, and both learn its result; whoever comes later follows what runs', async () => {
  const [one, two] = [await executor(), await executor()];
  const both = await Promise.all([one.executor.run(task('fine'), never), two.executor.run(task('fine'), never)]);
  expect(both.map((facts) => (facts as { job: string }).job)).toEqual([jobNames()[0], jobNames()[0]]);
  expect(kubelet.runs).toHaveLength(1);

  const slow = one.executor.run(task('slow'), never).catch((error: unknown) => error);
  await expect.poll(() => kubelet.runningPods().length).toBe(1);
  one.executor.letGo(new DrError('interrupted', 'stopped'));
  expect(await slow).toMatchObject({
    kind: 'lease-held',
    message: expect.stringContaining('goes on without this process'),
  });
  two.executor.adopt();
  await expect.poll(() => two.executor.running().length).toBe(1);
  await expect.poll(() => two.executor.running()[0]?.detail).toBe('42 % of 100 objects');
  const adopted = two.executor.run(task('slow'), never);
  writeFileSync(join(root, 'go'), '');
  expect(await adopted).toMatchObject({ backup: 'id-of-slow' });
  expect(kubelet.runs.filter(({ args }) => args.includes('slow'))).toHaveLength(1);
});

test('somebody asks while an earlier occurrence runs: it is waited for, and then done once more', async () => {
  const { executor: jobs } = await executor();
  const first = jobs.run(task('slow'), never);
  await expect.poll(() => kubelet.runningPods().length).toBe(1);
  const second = jobs.run(task('slow', { occurrenceMs: SLOT + 60_000 }), never);
  writeFileSync(join(root, 'go'), '');
  await Promise.all([first, second]);
  expect(kubelet.jobs().map(({ metadata }) => metadata.labels?.[jobLabels.occurrence])).toEqual([
    String(SLOT),
    String(SLOT + 60_000),
  ]);
});

test('what nobody wants any more is cancelled with its pod; what is only let go runs on', async () => {
  const { executor: jobs } = await executor();
  const stop = new AbortController();
  let wanted = true;
  const slow = jobs.run(task('slow', { wanted: () => wanted }), stop.signal).catch((error: unknown) => error);
  await expect.poll(() => kubelet.runningPods().length).toBe(1);
  wanted = false;
  stop.abort(new DrError('interrupted', 'not this site any more'));
  expect(await slow).toMatchObject({ kind: 'interrupted' });
  expect(jobNames()).toEqual([]);
  await expect.poll(() => kubelet.runningPods().length).toBe(0);
});

test('backups that another replica began are cancelled when the site is active no more; verifications go on', async () => {
  const before = await executor();
  const both = [task('slow'), task('slow', { verb: 'verify' })].map((each) =>
    before.executor.run(each, never).catch(() => {}),
  );
  await expect.poll(() => kubelet.runningPods().length).toBe(2);
  before.executor.letGo(new DrError('interrupted', 'stopped'));
  await Promise.all(both);
  const { executor: jobs } = await executor();
  jobs.endBackups();
  await expect.poll(() => kubelet.runningPods().length).toBe(1);
  expect(kubelet.jobs().map(({ metadata }) => metadata.labels?.[jobLabels.verb])).toEqual(['verify']);
});

test('the API server goes away while a Job runs, and answers are lost: nothing is made twice and the result is learnt', async () => {
  const { executor: jobs } = await executor();
  server.faults.next('create', { kind: 'lose-reply' }, 1, 'jobs');
  const failed = await jobs.run(task('slow'), never).then(
    () => undefined,
    (error: unknown) => error,
  );
  // A reply that was lost: the next try finds the Job.
  if (failed !== undefined) expect(failed).toMatchObject({ kind: 'unreachable' });
  const slow = jobs.run(task('slow'), never);
  await expect.poll(() => kubelet.runningPods().length).toBe(1);
  await expect.poll(() => jobs.running()[0]?.pod).toBe(kubelet.runningPods()[0]);
  await server.stop();
  writeFileSync(join(root, 'go'), '');
  await expect.poll(() => kubelet.runningPods().length).toBe(0);
  await server.listen();
  expect(await slow).toMatchObject({ backup: 'id-of-slow' });
  expect(kubelet.runs).toHaveLength(1);
});

test('a leader that is none any more makes no Job, and leaves what it follows to the one that leads', async () => {
  const state = {
    role: 'leader' as 'leader' | 'standby',
    identity: 'a',
    holder: 'b',
    generation: 1,
    sinceMs: 0,
    error: undefined,
  };
  const leadership: Leadership = {
    get state() {
      return { ...state };
    },
    leads: () => state.role === 'leader',
    keeps: () => true,
    confirm: async () => {
      if (state.role !== 'leader') throw new DrError('lease-held', 'b leads');
    },
  };
  const { executor: jobs } = await executor({}, leadership);
  const slow = jobs.run(task('slow'), never).catch((error: unknown) => error);
  await expect.poll(() => kubelet.runningPods().length).toBe(1);
  state.role = 'standby';
  expect(await slow).toMatchObject({ kind: 'lease-held' });
  expect(jobNames()).toHaveLength(1);
  expect(await jobs.run(task('fine'), never).catch((error: unknown) => error)).toMatchObject({ kind: 'lease-held' });
  expect(jobNames()).toHaveLength(1);
});

test('a volume is read from a snapshot: made before the Job begins, removed with its claim when it has ended', async () => {
  const { objects } = server;
  objects.create(definition, undefined);
  const claim = {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name: 'photos' },
    spec: { storageClassName: 'fast', resources: { requests: { storage: '2Gi' } } },
  };
  objects.create(claim, 'dr');
  mkdirSync(join(root, 'photos'));
  writeFileSync(join(root, 'photos', 'a.jpg'), 'a');
  kubelet.claims.set('photos', join(root, 'photos'));
  const seen: Json[] = [];
  kubelet.beforeStart = async () => {
    // What is written after the snapshot is not in it.
    writeFileSync(join(root, 'photos', 'b.jpg'), 'b');
    // The claims first.
    const made = objects.all().filter(({ kind }) => kind === 'VolumeSnapshot' || kind === 'PersistentVolumeClaim');
    seen.push(...made.sort((one, other) => one.kind.localeCompare(other.kind)));
  };
  const volumes = {
    photos: {
      claim: 'photos',
      subPath: undefined,
      snapshot: { class: 'csi', storageClass: undefined },
      runAsUser: 2000,
      runAsGroup: undefined,
    },
  };
  const { executor: jobs } = await executor({ volumes, patienceMs: 10_000 });
  await jobs.run(task('photos'), never);
  const [name = ''] = jobNames();
  expect(seen).toEqual([
    expect.objectContaining({ metadata: expect.objectContaining({ name: 'photos' }) }),
    expect.objectContaining({
      metadata: expect.objectContaining({ name, ownerReferences: [expect.objectContaining({ kind: 'Job', name })] }),
      spec: expect.objectContaining({
        storageClassName: 'fast',
        dataSource: expect.objectContaining({ name }),
        resources: { requests: { storage: '1Gi' } },
      }),
    }),
    expect.objectContaining({
      kind: 'VolumeSnapshot',
      spec: { volumeSnapshotClassName: 'csi', source: { persistentVolumeClaimName: 'photos' } },
    }),
  ]);
  expect(readdirSync(join(root, 'mnt/photos'))).toEqual(['a.jpg']);
  expect(kubelet.pods()[0]?.['spec']).toMatchObject({ securityContext: { runAsUser: 2000 } });
  const left = objects.all().filter(({ kind }) => kind === 'VolumeSnapshot' || kind === 'PersistentVolumeClaim');
  expect(left.map(({ metadata }) => metadata.name)).toEqual(['photos']);
});

const definition = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: 'volumesnapshots.snapshot.storage.k8s.io' },
  spec: {
    group: 'snapshot.storage.k8s.io',
    scope: 'Namespaced',
    names: { kind: 'VolumeSnapshot', plural: 'volumesnapshots' },
    versions: [{ name: 'v1', served: true, storage: true, subresources: { status: {} } }],
  },
};

test('without the right to make Jobs the missing rule is named', async () => {
  const { executor: jobs } = await executor();
  server.accounts.set('job-token', {
    name: 'system:serviceaccount:dr:dr',
    rules: [
      { apiGroups: ['batch'], resources: ['jobs'], verbs: ['list'], namespace: 'dr' },
      { apiGroups: [''], resources: ['pods'], verbs: ['get'], namespace: 'dr' },
    ],
  });
  const failure = await jobs.run(task('fine'), never).catch((error: unknown) => error);
  expect(failure).toMatchObject({
    kind: 'denied',
    next: expect.stringContaining('resources: ["jobs"], verbs: ["create"]'),
  });
});
