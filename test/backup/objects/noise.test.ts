import { describe, expect, test } from 'vitest';
import { contentDigest, managersOf } from '../../../src/backup/objects/content.ts';
import { noiseOf, withoutNoise } from '../../../src/backup/objects/noise.ts';
import type { ClusterObject, ManagedFields, ObjectMeta } from '../../../src/cluster/contract.ts';
import { jobLabels } from '../../../src/cluster/job-object.ts';

/** Objects as an API server of version 1.32 gives them. */
const object = (
  kind: string,
  parts: Record<string, unknown> & { metadata?: Partial<ObjectMeta> } = {},
): ClusterObject => ({
  apiVersion: 'v1',
  kind,
  ...parts,
  metadata: { name: 'orders', namespace: 'shop', uid: 'u-1', resourceVersion: '7', ...parts.metadata },
});
const owner = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'orders', uid: 'u' };

const by = (manager: string, fieldsV1: unknown, rest: Partial<ManagedFields> = {}): ManagedFields => ({
  manager,
  operation: 'Update',
  time: '2026-11-23T10:00:00Z',
  fieldsV1,
  ...rest,
});

describe('what the cluster gives an object is not taken', () => {
  test('addresses and ports of a Service, unless they were asked for', () => {
    const spec = {
      clusterIP: '10.0.0.7',
      clusterIPs: ['10.0.0.7'],
      healthCheckNodePort: 30001,
      type: 'LoadBalancer',
      ports: [{ port: 80, nodePort: 30080 }],
    };
    const asked = by('kubectl', { 'f:spec': { 'f:type': {}, 'f:ports': { 'k:{"port":80}': { 'f:port': {} } } } });
    expect(withoutNoise(object('Service', { spec, metadata: { managedFields: [asked] } }))['spec']).toEqual({
      type: 'LoadBalancer',
      ports: [{ port: 80 }],
    });
    const fixed = by('kubectl', {
      'f:spec': {
        'f:clusterIP': {},
        'f:healthCheckNodePort': {},
        'f:ports': { 'k:{"port":80}': { 'f:nodePort': {} } },
      },
    });
    expect(withoutNoise(object('Service', { spec, metadata: { managedFields: [fixed] } }))['spec']).toEqual(spec);
    const headless = { clusterIP: 'None', clusterIPs: ['None'] };
    expect(withoutNoise(object('Service', { spec: headless }))['spec']).toEqual(headless);
  });

  test('the volume that a claim was bound to, unless a person named it', () => {
    const spec = { volumeName: 'pvc-1', storageClassName: 'fast' };
    const annotations = { 'pv.kubernetes.io/bound-by-controller': 'yes', 'pv.kubernetes.io/bind-completed': 'yes' };
    const bound = withoutNoise(object('PersistentVolumeClaim', { spec, metadata: { annotations } }));
    expect(bound).toMatchObject({ spec: { storageClassName: 'fast' } });
    expect(bound).not.toHaveProperty('spec.volumeName');
    expect(bound).not.toHaveProperty('metadata.annotations');
    expect(withoutNoise(object('PersistentVolumeClaim', { spec }))['spec']).toEqual(spec);
  });

  test('identities: of the object, of owners, of a volume and its claim, of a Job', () => {
    const owners = [{ apiVersion: 'v1', kind: 'ConfigMap', name: 'a', uid: 'u-2' }];
    expect(withoutNoise(object('ConfigMap', { metadata: { ownerReferences: owners, generation: 3 } }))).toEqual({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: {
        name: 'orders',
        namespace: 'shop',
        ownerReferences: [{ apiVersion: 'v1', kind: 'ConfigMap', name: 'a' }],
      },
    });
    const claimRef = { namespace: 'shop', name: 'data', uid: 'u', resourceVersion: '1' };
    expect(withoutNoise(object('PersistentVolume', { spec: { claimRef } }))).toHaveProperty('spec.claimRef', {
      namespace: 'shop',
      name: 'data',
    });
    const labels = { 'batch.kubernetes.io/controller-uid': 'u', 'job-name': 'orders' };
    const job = object('Job', {
      metadata: { labels },
      spec: { selector: { matchLabels: labels }, template: { metadata: { labels }, spec: {} } },
    });
    expect(JSON.stringify(withoutNoise(job))).not.toMatch(/uid|job-name|selector/);
  });

  test('node and account token of a Pod', () => {
    const token = { name: 'kube-api-access-x7' };
    const spec = {
      nodeName: 'node-1',
      volumes: [token, { name: 'data' }],
      containers: [{ name: 'a', volumeMounts: [{ ...token, mountPath: '/var' }] }],
    };
    expect(withoutNoise(object('Pod', { spec }))['spec']).toMatchObject({
      volumes: [{ name: 'data' }],
      containers: [{ name: 'a', volumeMounts: [] }],
    });
  });

  test('what a run of dr noted, but not that something waits for its activation', () => {
    const annotations = { 'dr.io/scaled': 'run-1', 'dr.io/replicas': '3', team: 'a' };
    expect(withoutNoise(object('Deployment', { metadata: { annotations } }))).toHaveProperty('metadata.annotations', {
      'dr.io/replicas': '3',
      team: 'a',
    });
  });

  test('standard finalizers, but not those of others', () => {
    const finalizers = [
      'kubernetes.io/pvc-protection',
      'service.kubernetes.io/load-balancer-cleanup',
      'foregroundDeletion',
      'argocd.argoproj.io/resources-finalizer',
    ];
    expect(withoutNoise(object('ConfigMap', { metadata: { finalizers } }))).toHaveProperty('metadata.finalizers', [
      'argocd.argoproj.io/resources-finalizer',
    ]);
  });
});

test.each<[string, ClusterObject, boolean]>([
  ['owned by a controller', object('Pod', { metadata: { ownerReferences: [{ ...owner, controller: true }] } }), true],
  ['owned by somebody else', object('Pod', { metadata: { ownerReferences: [owner] } }), false],
  ['being deleted', object('ConfigMap', { metadata: { deletionTimestamp: '2026-11-23T10:00:00Z' } }), true],
  ['a finished Pod', object('Pod', { status: { phase: 'Succeeded' } }), true],
  ['a Pod of a node', object('Pod', { metadata: { annotations: { 'kubernetes.io/config.mirror': 'x' } } }), true],
  ['the default account', object('ServiceAccount', { metadata: { name: 'default' } }), true],
  [
    'the default account with pull secrets',
    object('ServiceAccount', { metadata: { name: 'default' }, imagePullSecrets: [{ name: 'r' }] }),
    false,
  ],
  ['an own API of the server', object('APIService', { spec: { group: 'apps' } }), true],
  ['an API of another server', object('APIService', { spec: { service: { name: 'metrics' } } }), false],
  ['a system priority', object('PriorityClass', { metadata: { name: 'system-node-critical' } }), true],
  [
    'a provisioned volume',
    object('PersistentVolume', { metadata: { annotations: { 'pv.kubernetes.io/provisioned-by': 'csi' } } }),
    true,
  ],
  ['a Job of dr', object('Job', { metadata: { labels: { [jobLabels.verb]: 'backup' } } }), true],
  ['a Job of a runbook', object('Job', { metadata: { labels: { 'app.kubernetes.io/managed-by': 'dr' } } }), true],
  [
    'what the chart of dr made',
    object('ClusterRole', { metadata: { labels: { 'app.kubernetes.io/name': 'dr', 'helm.sh/chart': 'dr-0.1.0' } } }),
    true,
  ],
  ['an application of that name', object('Job', { metadata: { labels: { 'app.kubernetes.io/name': 'dr' } } }), false],
  ['what Helm made', object('Job', { metadata: { labels: { 'app.kubernetes.io/managed-by': 'Helm' } } }), false],
  ['a volume made by hand', object('PersistentVolume'), false],
])('%s', (_what, given, isNoise) => {
  expect(noiseOf(given) !== undefined).toBe(isNoise);
});

describe('the digest', () => {
  const workload = (replicas: number, managedFields: ManagedFields[]) =>
    contentDigest(object('Deployment', { spec: { replicas }, metadata: { managedFields } }));

  test('does not depend on the order of keys, on identities or on the status', () => {
    const a = object('ConfigMap', { data: { x: '1', y: '2' }, status: { a: 1 } });
    const b = object('ConfigMap', { data: { y: '2', x: '1' }, metadata: { resourceVersion: '9', uid: 'u-9' } });
    expect(contentDigest(a)).toBe(contentDigest(b));
    expect(contentDigest(a)).not.toBe(contentDigest(object('ConfigMap', { data: { x: '1', y: '3' } })));
  });

  test('does not see what an autoscaler does, but what a person does', () => {
    const scaler = by('kube-controller-manager', { 'f:spec': { 'f:replicas': {} } }, { subresource: 'scale' });
    expect(workload(2, [scaler])).toBe(workload(5, [scaler]));
    const person = by('kubectl', { 'f:spec': { 'f:replicas': {} } }, { subresource: 'scale' });
    expect(workload(2, [person])).not.toBe(workload(5, [person]));
  });
});

test('managers are told with the fields that they set, the last change first', () => {
  const managedFields = [
    by('helm', {
      'f:metadata': {
        'f:annotations': { '.': {}, 'f:kubectl.kubernetes.io/last-applied-configuration': {}, 'f:team': {} },
      },
      'f:spec': { 'f:template': { 'f:spec': { 'f:containers': { 'k:{"name":"a"}': { 'f:image': {} } } } } },
    }),
    by('on-call', { 'f:spec': { 'f:replicas': {} } }, { time: '2026-11-23T11:00:00Z' }),
    by('kubelet', { 'f:status': {} }, { subresource: 'status' }),
  ];
  expect(managersOf(object('Deployment', { metadata: { managedFields } }))).toEqual([
    { manager: 'on-call', operation: 'Update', time: '2026-11-23T11:00:00Z', fields: ['spec.replicas'] },
    {
      manager: 'helm',
      operation: 'Update',
      time: '2026-11-23T10:00:00Z',
      fields: ['metadata.annotations.team', 'spec.template.spec'],
    },
  ]);
});
