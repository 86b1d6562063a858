import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { examineObjects } from '../../../src/backup/doctor/objects.ts';
import { ObjectsWatch } from '../../../src/backup/objects/watch-objects.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLog } from '../../../src/base/log.ts';
import type { ClusterObject } from '../../../src/cluster/contract.ts';
import { loadSettings } from '../../../src/cluster/kubeconfig.ts';
import { KubernetesCluster } from '../../../src/cluster/kubernetes.ts';
import { settingsFor } from '../../cluster/support.ts';
import { KubernetesServer } from '../../harness/kubernetes/server.ts';
import { backupWorld } from '../fixture.ts';
import { filesOf, objectFiles, selecting, take, type World } from './support.ts';

/*
 * Backups of objects and their watch, here with the API server of the harness, and with `KUBECONFIG=… npm run test:kubernetes` with any real
 * cluster: an API server and an administrator; no pod has to run. What is written lies in a namespace `dr-test-…` and two definitions, which
 * are removed; what a real cluster's controllers do meanwhile is the noise that must make no backup.
 */
const kubeconfig = process.env['KUBECONFIG'];
const isReal = process.env['DR_TEST_KUBERNETES'] === '1' && kubeconfig !== undefined;
const namespace = `dr-test-${randomUUID().slice(0, 8)}`;
const group = `${namespace}.example`;
const source = selecting({ namespaces: [namespace] });

let server: KubernetesServer | undefined;
let cluster: KubernetesCluster;
let world: World;

function definition(kind: string): ClusterObject {
  const plural = `${kind.toLowerCase()}s`;
  const schema = { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } };
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${group}` },
    spec: {
      group,
      scope: 'Namespaced',
      names: { kind, plural, singular: kind.toLowerCase(), listKind: `${kind}List` },
      versions: [{ name: 'v1', served: true, storage: true, schema }],
    },
  };
}

const labels = { app: 'orders' };
const pod = { containers: [{ name: 'main', image: 'registry.invalid/orders:1', env: [{ name: 'ON', value: 'yes' }] }] };
const custom: ClusterObject = {
  apiVersion: `${group}/v1`,
  kind: 'Widget',
  metadata: { name: 'wheel', namespace },
  spec: { size: 3 },
};
const settings = { apiVersion: 'v1', kind: 'ConfigMap', namespace, name: 'settings' } as const;
const objects: ClusterObject[] = [
  {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'settings', namespace },
    data: { colour: 'blue', script: '#!/bin/sh\necho\n' },
  },
  {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'login', namespace },
    type: 'Opaque',
    data: { password: 'czNjcjN0' },
  },
  { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'orders', namespace } },
  {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'orders', namespace },
    spec: { selector: labels, ports: [{ port: 80, protocol: 'TCP', targetPort: 80 }] },
  },
  {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name: 'data', namespace },
    spec: {
      accessModes: ['ReadWriteOnce'],
      storageClassName: 'dr-test-none',
      resources: { requests: { storage: '1Gi' } },
    },
  },
  {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'orders', namespace },
    spec: { replicas: 0, selector: { matchLabels: labels }, template: { metadata: { labels }, spec: pod } },
  },
  {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'Role',
    metadata: { name: 'shop:Reader', namespace },
    rules: [{ apiGroups: [''], resources: ['configmaps'], verbs: ['get'] }],
  },
  custom,
];
const lease: ClusterObject = {
  apiVersion: 'coordination.k8s.io/v1',
  kind: 'Lease',
  metadata: { name: 'orders', namespace },
  spec: { holderIdentity: 'a', leaseDurationSeconds: 15 },
};

/** Tries until the server has followed: what is defined is served a moment later. */
async function eventually<T>(work: () => Promise<T>): Promise<T> {
  for (const deadline = AbortSignal.timeout(30_000); ; ) {
    try {
      return await work();
    } catch (error) {
      deadline.throwIfAborted();
      if (!(error instanceof Error)) throw error;
      await systemClock.sleep(100, deadline);
    }
  }
}

beforeAll(async () => {
  world = await backupWorld();
  if (!isReal) server = await KubernetesServer.start();
  const found = server ? settingsFor(server) : loadSettings({ env: { KUBECONFIG: kubeconfig } });
  cluster = new KubernetesCluster(found, { log: silentLog });
  await cluster.create({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: namespace, labels: { tier: 'test' } },
  });
  await cluster.create(definition('Widget'));
  for (const object of [...objects, lease])
    await eventually(async () => await cluster.apply(object, { manager: 'kubectl' }));
});

afterAll(async () => {
  await cluster.delete({ apiVersion: 'v1', kind: 'Namespace', name: namespace });
  for (const kind of ['Widget', 'Gadget'])
    await cluster.delete({ ...definition(kind), name: definition(kind).metadata.name }).catch(() => {});
  cluster.close();
  await server?.[Symbol.asyncDispose]();
  await world.pool.close();
});

const where = isReal ? 'a real cluster (API server, administrator)' : 'the API server of the harness';
const ofNamespace = (files: ReadonlyMap<string, unknown>) =>
  objectFiles(files).filter((path) => path.startsWith('namespaces/'));

test(`${where}: what people wrote is in the backup as they wrote it, and nothing that the cluster added`, async () => {
  const { manifest } = await take(world, cluster, source);
  expect(manifest.notes).toEqual([]);
  const files = await filesOf(world, manifest);
  const folder = `namespaces/${namespace}`;
  expect(ofNamespace(files)).toEqual(
    [
      `${folder}/apps/Deployment/orders.yaml`,
      `${folder}/core/ConfigMap/settings.yaml`,
      `${folder}/core/PersistentVolumeClaim/data.yaml`,
      `${folder}/core/Service/orders.yaml`,
      `${folder}/core/ServiceAccount/orders.yaml`,
      `${folder}/${group}/Widget/wheel.yaml`,
      `${folder}/rbac.authorization.k8s.io/Role/shop%3A%52eader.yaml`,
    ].sort(),
  );
  for (const object of objects.filter(({ kind }) => kind !== 'Secret')) {
    const saved = [...files.values()].find(
      (file) =>
        (file as ClusterObject | null)?.kind === object.kind &&
        (file as ClusterObject).metadata?.namespace === namespace,
    );
    expect(saved).toMatchObject(object);
    expect(saved).not.toHaveProperty('status');
    expect(Object.keys((saved as ClusterObject).metadata).sort()).toEqual(['name', 'namespace']);
  }
  expect(files.get(`${folder}/core/Service/orders.yaml`)).not.toHaveProperty('spec.clusterIP');
  expect(objectFiles(files)).toContain(`cluster/apiextensions.k8s.io/CustomResourceDefinition/widgets.${group}.yaml`);
  expect(files.get(`cluster/core/Namespace/${namespace}.yaml`)).toEqual({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: namespace, labels: { tier: 'test' } },
  });
  expect(JSON.stringify(files.get(`managers/${folder}/apps/Deployment/orders.yaml`))).toContain('"manager":"kubectl"');
});

test(`${where}: Secrets only when they are asked for`, async () => {
  const only = { include: ['secrets'], exclude: [] };
  const { manifest } = await take(world, cluster, selecting({ namespaces: [namespace], kinds: only, secrets: true }));
  expect(ofNamespace(await filesOf(world, manifest))).toEqual([`namespaces/${namespace}/core/Secret/login.yaml`]);
});

test(`${where}: an administrator may read and watch everything that is wanted`, async () => {
  const { select } = source;
  const findings = await examineObjects({ cluster, select, onChange: true, signal: AbortSignal.timeout(60_000) });
  expect(findings.filter(({ verdict }) => verdict === 'fail')).toEqual([]);
});

test(`${where}: a change is noticed, noise is not, and a kind that is defined later is taken in`, async () => {
  // Only what lies in the namespace: others may be working in a real cluster.
  const select = {
    ...source.select,
    kinds: { include: ['configmaps', 'deployments', `*.${group}`, 'customresourcedefinitions'], exclude: [] },
  };
  const stop = new AbortController();
  let changes = 0;
  const watching = new ObjectsWatch(cluster, {
    select,
    exclude: [`cluster/apiextensions.k8s.io/CustomResourceDefinition/!(*.${group}).yaml`],
    clock: systemClock,
    log: silentLog,
    onChange: () => changes++,
  });
  const running = watching.run(stop.signal);
  const until = async (test: () => boolean) => {
    for (const deadline = AbortSignal.timeout(60_000); !test(); ) await systemClock.sleep(20, deadline);
  };
  try {
    await until(() => watching.state.kinds === 4 && watching.state.objects === 4);
    await watching.synced();
    changes = 0;
    await cluster.merge({ ...lease, name: 'orders', namespace }, { spec: { holderIdentity: 'b' } });
    // The controller notes what it did in the status, and in an annotation.
    await cluster.merge(settings, { metadata: { annotations: { 'control-plane.alpha.kubernetes.io/leader': 'x' } } });
    await cluster.merge(settings, { data: { colour: 'green' } });
    await until(() => changes > 0);
    expect(changes).toBe(1);
    await cluster.create(definition('Gadget'));
    await until(() => watching.state.kinds === 5);
    await watching.synced();
    const before = watching.state.objects;
    await eventually(async () => await cluster.create({ ...custom, kind: 'Gadget' }));
    await until(() => watching.state.objects === before + 1);
  } finally {
    stop.abort();
    await running;
  }
});
