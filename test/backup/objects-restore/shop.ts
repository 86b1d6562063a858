import { parseObjectPath, readSummary, summaryPath } from '../../../src/backup/objects/layout.ts';
import { readObjects } from '../../../src/backup/objects/read-objects.ts';
import type { BackedObjects } from '../../../src/backup/objects-restore/read.ts';
import { readObject } from '../../../src/backup/objects-restore/read.ts';
import type { ObjectsResult } from '../../../src/backup/objects-restore/result.ts';
import { type RestoreObjectsOptions, restoreObjects } from '../../../src/backup/objects-restore/run.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLog } from '../../../src/base/log.ts';
import type { Cluster, ClusterObject } from '../../../src/cluster/contract.ts';
import { MemoryCluster } from '../../../src/cluster/memory/cluster.ts';
import type { ObjectSelection } from '../../../src/config/types.ts';

type Spec = Readonly<Record<string, unknown>>;

function object(apiVersion: string, kind: string, name: string, rest: Spec = {}): ClusterObject {
  return { apiVersion, kind, metadata: { name }, ...rest };
}

function inShop(apiVersion: string, kind: string, name: string, rest: Spec = {}): ClusterObject {
  return { apiVersion, kind, metadata: { name, namespace: 'shop' }, ...rest };
}

const rbac = 'rbac.authorization.k8s.io';

function pods(name: string, more: Spec = {}, container: Spec = {}): Spec {
  return {
    metadata: { labels: { app: name } },
    spec: { ...more, containers: [{ name, image: `registry.example/${name}:1.4.2`, ...container }] },
  };
}

/** A definition of `Widget`s of shop.example, as people install it. */
export const widgetDefinition = object('apiextensions.k8s.io/v1', 'CustomResourceDefinition', 'widgets.shop.example', {
  spec: {
    group: 'shop.example',
    scope: 'Namespaced',
    names: { kind: 'Widget', plural: 'widgets', singular: 'widget', listKind: 'WidgetList' },
    versions: [{ name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: { type: 'object' } } }],
  },
});

/** Everything that an application of some size has. In no useful order: what comes first is the restore's matter. */
export const shopObjects: readonly ClusterObject[] = [
  object('v1', 'Namespace', 'shop', { metadata: { name: 'shop', labels: { tier: 'production' } } }),
  widgetDefinition,
  inShop('shop.example/v1', 'Widget', 'blue', { spec: { size: 3 } }),
  inShop('networking.k8s.io/v1', 'Ingress', 'front', {
    spec: { ingressClassName: 'nginx', rules: [{ host: 'shop.example' }], tls: [{ secretName: 'front-tls' }] },
  }),
  object('networking.k8s.io/v1', 'IngressClass', 'nginx', { spec: { controller: 'k8s.io/ingress-nginx' } }),
  inShop('apps/v1', 'Deployment', 'orders', {
    spec: {
      replicas: 3,
      selector: { matchLabels: { app: 'orders' } },
      template: pods(
        'orders',
        { serviceAccountName: 'orders', imagePullSecrets: [{ name: 'registry' }], priorityClassName: 'important' },
        {
          envFrom: [{ configMapRef: { name: 'settings' } }, { secretRef: { name: 'database' } }],
          resources: { requests: { cpu: '500m', memory: '1Gi' }, limits: { memory: '2Gi' } },
        },
      ),
    },
  }),
  inShop('apps/v1', 'StatefulSet', 'queue', {
    spec: {
      replicas: 2,
      serviceName: 'queue',
      selector: { matchLabels: { app: 'queue' } },
      template: pods('queue', {}, { resources: { requests: { cpu: '1', memory: '512Mi' } } }),
      volumeClaimTemplates: [
        {
          metadata: { name: 'data' },
          spec: { storageClassName: 'fast', resources: { requests: { storage: '10Gi' } } },
        },
      ],
    },
  }),
  inShop('batch/v1', 'CronJob', 'report', {
    spec: { schedule: '0 3 * * *', suspend: false, jobTemplate: { spec: { template: pods('report') } } },
  }),
  inShop('batch/v1', 'Job', 'migrate', { spec: { template: pods('migrate') } }),
  inShop('autoscaling/v2', 'HorizontalPodAutoscaler', 'orders', {
    spec: {
      minReplicas: 2,
      maxReplicas: 9,
      scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: 'orders' },
    },
  }),
  inShop('v1', 'Service', 'orders', {
    spec: {
      type: 'NodePort',
      clusterIP: '10.96.4.7',
      clusterIPs: ['10.96.4.7'],
      ipFamilies: ['IPv4'],
      ipFamilyPolicy: 'SingleStack',
      selector: { app: 'orders' },
      ports: [{ name: 'http', port: 80, protocol: 'TCP', nodePort: 31080 }],
    },
  }),
  inShop('v1', 'Service', 'queue', {
    spec: { clusterIP: 'None', selector: { app: 'queue' }, ports: [{ port: 5672 }] },
  }),
  inShop('v1', 'PersistentVolumeClaim', 'uploads', {
    metadata: {
      name: 'uploads',
      namespace: 'shop',
      annotations: { 'pv.kubernetes.io/bind-completed': 'yes', 'pv.kubernetes.io/bound-by-controller': 'yes' },
      finalizers: ['kubernetes.io/pvc-protection'],
    },
    spec: {
      accessModes: ['ReadWriteOnce'],
      storageClassName: 'fast',
      volumeName: 'pvc-5e1f',
      resources: { requests: { storage: '20Gi' } },
    },
  }),
  object('storage.k8s.io/v1', 'StorageClass', 'fast', { provisioner: 'ebs.csi.aws.com' }),
  object('scheduling.k8s.io/v1', 'PriorityClass', 'important', { value: 1000 }),
  inShop('v1', 'ConfigMap', 'settings', { data: { url: 'http://orders.shop.svc:80', mode: 'on' } }),
  inShop('v1', 'ConfigMap', 'kube-root-ca.crt', { data: { 'ca.crt': 'of the other cluster' } }),
  inShop('v1', 'Secret', 'database', { type: 'Opaque', data: { password: 'c2VzYW1l' } }),
  inShop('v1', 'Secret', 'registry', { type: 'kubernetes.io/dockerconfigjson', data: { '.dockerconfigjson': 'e30=' } }),
  inShop('v1', 'Secret', 'front-tls', { type: 'kubernetes.io/tls', data: { 'tls.key': 'a2V5' } }),
  inShop('v1', 'ServiceAccount', 'orders'),
  inShop(`${rbac}/v1`, 'RoleBinding', 'orders', {
    roleRef: { apiGroup: rbac, kind: 'Role', name: 'orders' },
    subjects: [
      { kind: 'ServiceAccount', name: 'orders', namespace: 'shop' },
      { kind: 'User', apiGroup: rbac, name: 'system:serviceaccount:shop:orders' },
    ],
  }),
  inShop(`${rbac}/v1`, 'Role', 'orders', { rules: [{ apiGroups: [''], resources: ['configmaps'], verbs: ['get'] }] }),
  object(`${rbac}/v1`, 'ClusterRoleBinding', 'shop-nodes', {
    roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: 'shop-nodes' },
    subjects: [{ kind: 'ServiceAccount', name: 'orders', namespace: 'shop' }],
  }),
  object(`${rbac}/v1`, 'ClusterRole', 'shop-nodes', {
    rules: [{ apiGroups: [''], resources: ['nodes'], verbs: ['list'] }],
  }),
  inShop('networking.k8s.io/v1', 'NetworkPolicy', 'inside', {
    spec: {
      podSelector: {},
      ingress: [
        { from: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'shop' } } }] },
        {
          from: [
            {
              namespaceSelector: {
                matchExpressions: [
                  { key: 'kubernetes.io/metadata.name', operator: 'In', values: ['shop', 'monitoring'] },
                ],
              },
            },
          ],
        },
      ],
    },
  }),
  inShop('policy/v1', 'PodDisruptionBudget', 'orders', {
    spec: { minAvailable: 1, selector: { matchLabels: { app: 'orders' } } },
  }),
  object('admissionregistration.k8s.io/v1', 'ValidatingWebhookConfiguration', 'shop-policy', {
    webhooks: [
      {
        name: 'policy.shop.example',
        admissionReviewVersions: ['v1'],
        sideEffects: 'None',
        clientConfig: { service: { namespace: 'shop', name: 'orders', path: '/judge' } },
      },
    ],
  }),
];

/** How many of them a restore brings back: all but what every cluster makes by itself. */
export const restoredCount = shopObjects.length - 1;

/** Fills a cluster as people do, so that others than dr own the fields. */
export async function fill(cluster: Cluster, objects: readonly ClusterObject[] = shopObjects): Promise<void> {
  const rank = ({ kind }: ClusterObject) => (kind === 'Namespace' ? 0 : kind === 'CustomResourceDefinition' ? 1 : 2);
  for (const each of objects.toSorted((a, b) => rank(a) - rank(b)))
    await cluster.create(each, { manager: 'kubectl-create' });
}

export const everything: ObjectSelection = {
  namespaces: ['shop'],
  selector: undefined,
  clusterObjects: true,
  kinds: { include: [], exclude: [] },
  secrets: true,
};

/** A cluster as a backup of it would have it, without a vault between. */
export async function backedUp(cluster: Cluster, select: ObjectSelection = everything): Promise<BackedObjects> {
  const files = new Map<string, string>();
  await readObjects({ cluster, select, exclude: [] }, async ({ path, text }) => {
    files.set(path, text);
  });
  return {
    summary: readSummary(files.get(summaryPath) ?? '', summaryPath),
    objects: [...files].filter(([path]) => parseObjectPath(path)).map(([path, text]) => readObject(text, path)),
  };
}

/** The shop in a cluster of its own, backed up. */
export async function backedShop(
  objects: readonly ClusterObject[] = shopObjects,
  select = everything,
): Promise<BackedObjects> {
  const source = new MemoryCluster();
  await fill(source, objects);
  return await backedUp(source, select);
}

/** Restores with everything at its default. */
export async function restore(
  backed: BackedObjects,
  cluster: Cluster,
  options: Partial<RestoreObjectsOptions> = {},
): Promise<ObjectsResult> {
  return await restoreObjects(backed, {
    cluster,
    name: 'shop',
    namespaces: new Map(),
    only: [],
    scaleToZero: false,
    servedVersions: false,
    force: false,
    dryRun: false,
    clock: systemClock,
    log: silentLog,
    signal: new AbortController().signal,
    ...options,
  });
}
