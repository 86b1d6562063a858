import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { parse } from 'yaml';
import type { Manifest } from '../../../src/backup/manifest.ts';
import { type ObjectsSource, takeObjectsBackup } from '../../../src/backup/objects/take-objects.ts';
import { restoreBackup } from '../../../src/backup/restore.ts';
import { silentLog } from '../../../src/base/log.ts';
import type { Cluster, ClusterObject } from '../../../src/cluster/contract.ts';
import { KubernetesCluster } from '../../../src/cluster/kubernetes.ts';
import type { MemoryObjects } from '../../../src/cluster/memory/objects.ts';
import { settingsFor } from '../../cluster/support.ts';
import type { KubernetesServer } from '../../harness/kubernetes/server.ts';
import { tempDir } from '../../harness/temp.ts';
import { hastyClock } from '../../traffic/support.ts';
import type { backupWorld } from '../fixture.ts';

export const shop: ObjectsSource = {
  name: 'cluster',
  select: {
    namespaces: ['shop'],
    selector: undefined,
    clusterObjects: true,
    kinds: { include: [], exclude: [] },
    secrets: false,
  },
  exclude: [],
  allowEmpty: false,
};

export function selecting(select: Partial<ObjectsSource['select']>, rest: Partial<ObjectsSource> = {}): ObjectsSource {
  return { ...shop, ...rest, select: { ...shop.select, ...select } };
}

/** Makes an object; later ones of the same name are refused. */
export function add(objects: MemoryObjects, object: ClusterObject, manager = 'kubectl'): ClusterObject {
  return objects.create(object, undefined, { manager });
}

export function configMap(name: string, namespace = 'shop', data: Record<string, string> = { a: '1' }): ClusterObject {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace }, data };
}

export const widgetDefinition: ClusterObject = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: 'widgets.example.com' },
  spec: {
    group: 'example.com',
    names: { kind: 'Widget', plural: 'widgets' },
    scope: 'Namespaced',
    versions: [{ name: 'v1', served: true, storage: true }],
  },
};

/** A small shop with everything that clusters add to it. */
export function seedShop(objects: MemoryObjects): void {
  const namespace = 'shop';
  add(objects, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace, labels: { tier: 'production' } } });
  add(objects, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'other' } });
  add(objects, {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: {
      name: 'orders',
      namespace,
      labels: { app: 'orders' },
      annotations: {
        'kubectl.kubernetes.io/last-applied-configuration': '{"old":true}',
        'deployment.kubernetes.io/revision': '7',
        'example.com/owner': 'team-a',
      },
    },
    spec: { replicas: 2, template: { spec: { containers: [{ name: 'orders', image: 'orders:1' }] } } },
  });
  const owner = { apiVersion: 'apps/v1', kind: 'Deployment', name: 'orders', uid: 'u', controller: true };
  add(objects, {
    apiVersion: 'apps/v1',
    kind: 'ReplicaSet',
    metadata: { name: 'orders-5d', namespace, ownerReferences: [owner] },
    spec: {},
  });
  add(objects, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: 'orders-5d-x',
      namespace,
      ownerReferences: [{ ...owner, kind: 'ReplicaSet', name: 'orders-5d' }],
    },
    spec: {},
  });
  add(objects, configMap('settings', namespace, { colour: 'blue' }));
  add(objects, configMap('kube-root-ca.crt'));
  add(objects, configMap('settings', 'other'));
  add(objects, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'login', namespace },
    type: 'Opaque',
    data: { password: 'czNjcjN0' },
  });
  add(objects, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'default-token-x', namespace },
    type: 'kubernetes.io/service-account-token',
    data: { token: 'dG9rZW4=' },
  });
  add(objects, { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default', namespace } });
  add(objects, { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'orders', namespace } });
  add(objects, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'orders', namespace },
    spec: { ports: [{ port: 80 }] },
  });
  add(objects, { apiVersion: 'v1', kind: 'Endpoints', metadata: { name: 'orders', namespace } });
  add(objects, { apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', metadata: { name: 'orders-x', namespace } });
  add(objects, { apiVersion: 'v1', kind: 'Event', metadata: { name: 'orders.1', namespace } });
  add(objects, {
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { name: 'orders-leader', namespace },
    spec: { holderIdentity: 'a' },
  });
  add(objects, {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name: 'cluster-admin', labels: { 'kubernetes.io/bootstrapping': 'rbac-defaults' } },
  });
  add(objects, {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name: 'shop:reader' },
    rules: [],
  });
  add(objects, { apiVersion: 'v1', kind: 'Node', metadata: { name: 'node-1' } });
  add(objects, widgetDefinition);
  add(objects, {
    apiVersion: 'example.com/v1',
    kind: 'Widget',
    metadata: { name: 'wheel', namespace, finalizers: ['example.com/wheel', 'foregroundDeletion'] },
    spec: { size: 3 },
  });
}

/** What of `seedShop` is configuration, without Secrets. */
export const shopFiles = [
  'cluster/apiextensions.k8s.io/CustomResourceDefinition/widgets.example.com.yaml',
  'cluster/core/Namespace/shop.yaml',
  'cluster/rbac.authorization.k8s.io/ClusterRole/shop%3Areader.yaml',
  'namespaces/shop/apps/Deployment/orders.yaml',
  'namespaces/shop/core/ConfigMap/settings.yaml',
  'namespaces/shop/core/Service/orders.yaml',
  'namespaces/shop/core/ServiceAccount/orders.yaml',
  'namespaces/shop/example.com/Widget/wheel.yaml',
];

/** A client of the API server of the tests that does not wait long. */
export function clientOf(server: KubernetesServer, token = 'admin-token'): KubernetesCluster {
  const options = { log: silentLog, clock: hastyClock, attempts: 2, watchIdleMs: 2000, idleMs: 2000 };
  return new KubernetesCluster(settingsFor(server, { token }), options);
}

export type World = Awaited<ReturnType<typeof backupWorld>>;

export async function take(world: World, cluster: Cluster, source = shop, newest?: Manifest) {
  return await takeObjectsBackup(world.context, source, cluster, newest);
}

/** The files of a backup, restored and parsed, by path. */
export async function filesOf(world: World, manifest: Manifest): Promise<Map<string, unknown>> {
  const [store] = world.stores;
  if (!store) throw new Error('no vault');
  const target = join(await tempDir(), 'restored');
  await restoreBackup({
    store,
    manifest,
    keyRing: world.keyRing,
    pool: world.pool,
    target,
  });
  const files = readdirSync(target, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const found = files.map(({ parentPath, name }) => {
    const absolute = join(parentPath, name);
    return [relative(target, absolute), parse(readFileSync(absolute, 'utf8'))] as const;
  });
  return new Map(found.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Paths of objects only. */
export function objectFiles(files: ReadonlyMap<string, unknown>): string[] {
  return [...files.keys()].filter((path) => path.startsWith('cluster/') || path.startsWith('namespaces/'));
}
