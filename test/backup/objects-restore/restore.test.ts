import { describe, expect, test } from 'vitest';
import { cleaned } from '../../../src/backup/objects-restore/clean.ts';
import { failureOfAll, type ObjectsResult } from '../../../src/backup/objects-restore/result.ts';
import type { ClusterObject, ObjectRef } from '../../../src/cluster/contract.ts';
import { refOf, showRef } from '../../../src/cluster/contract.ts';
import { MemoryCluster } from '../../../src/cluster/memory/cluster.ts';
import { backedShop, backedUp, fill, restore, restoredCount, shopObjects, widgetDefinition } from './shop.ts';

function outcomes({ objects }: ObjectsResult): Record<string, number> {
  return Object.fromEntries(
    Object.entries(Object.groupBy(objects, ({ outcome }) => outcome)).map(([key, list]) => [key, list?.length ?? 0]),
  );
}

function of(result: ObjectsResult, name: string) {
  return result.objects.find(({ ref }) => showRef(ref) === name);
}

async function get(cluster: MemoryCluster, apiVersion: string, kind: string, name: string, namespace?: string) {
  return await cluster.get({ apiVersion, kind, name, namespace });
}

const deployment = (namespace = 'shop'): ObjectRef => ({
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  name: 'orders',
  namespace,
});

function meant(objects: readonly ClusterObject[]): Map<string, ClusterObject> {
  return new Map(objects.map((each) => [showRef(refOf(each)), cleaned(each)]));
}

describe('into an empty cluster', () => {
  test('everything comes back as it was, object by object, and a second time changes nothing', async () => {
    const backed = await backedShop();
    const target = new MemoryCluster();
    const first = await restore(backed, target);
    expect(first.objects.filter(({ error }) => error)).toEqual([]);
    // The Job is restored otherwise: it waits for a person.
    expect(outcomes(first)).toEqual({ created: restoredCount });
    const [source, restored] = [meant(backed.objects), meant((await backedUp(target)).objects)];
    expect([...restored.keys()].sort()).toEqual([...source.keys()].sort());
    const job = 'Job shop/migrate';
    for (const [name, object] of source) if (name !== job) expect(restored.get(name), name).toEqual(object);
    expect(restored.get(job)).toMatchObject({ spec: { suspend: true } });
    expect(first.extras).toEqual([]);
    expect(failureOfAll(first)).toBeUndefined();

    const before = target.objects.history.revision;
    const second = await restore(backed, target);
    expect(outcomes(second)).toEqual({ unchanged: restoredCount - 1, left: 1 });
    expect(target.objects.history.revision).toBe(before);
  });

  test('in the order of what needs what', async () => {
    const backed = await backedShop();
    const target = new MemoryCluster();
    const applied: string[] = [];
    const apply = target.apply.bind(target);
    target.apply = async (object, ...rest) => {
      const after = await apply(object, ...rest);
      applied.push(object.kind);
      return after;
    };
    await restore(backed, target);
    const place = (kind: string) => applied.indexOf(kind);
    const expected = [
      'CustomResourceDefinition',
      'Namespace',
      'ServiceAccount',
      'RoleBinding',
      'StorageClass',
      'PersistentVolumeClaim',
      'ConfigMap',
      'Deployment',
      'Widget',
      'Ingress',
      'ValidatingWebhookConfiguration',
    ];
    expect(expected.map(place)).toEqual(expected.map(place).toSorted((a, b) => a - b));
    expect(place('Role')).toBeLessThan(place('RoleBinding'));
    expect(expected.map(place).includes(-1)).toBe(false);
  });

  test('what the old cluster assigned is assigned anew', async () => {
    const target = new MemoryCluster();
    // What a run of dr noted about the old volume is not true of the new one.
    const marked = shopObjects.map((object) => {
      const annotations = { ...object.metadata.annotations, 'dr.io/restored': '{"run":"x"}' };
      return object.metadata.name === 'uploads' ? { ...object, metadata: { ...object.metadata, annotations } } : object;
    });
    await restore(await backedShop(marked), target);
    const service = await get(target, 'v1', 'Service', 'orders', 'shop');
    expect(service['spec']).toEqual({
      type: 'NodePort',
      ipFamilyPolicy: 'SingleStack',
      selector: { app: 'orders' },
      ports: [{ name: 'http', port: 80, protocol: 'TCP' }],
    });
    expect((await get(target, 'v1', 'Service', 'queue', 'shop'))['spec']).toMatchObject({ clusterIP: 'None' });
    const claim = await get(target, 'v1', 'PersistentVolumeClaim', 'uploads', 'shop');
    expect(claim['spec']).not.toHaveProperty('volumeName');
    expect(claim.metadata.annotations).toBeUndefined();
  });

  test('--only: what matches, with its namespace, and nothing else', async () => {
    const target = new MemoryCluster();
    const result = await restore(await backedShop(), target, { only: ['ConfigMap/shop/*', 'ClusterRole'] });
    expect(result.objects.map(({ ref }) => showRef(ref))).toEqual([
      'Namespace shop',
      'ClusterRole shop-nodes',
      'ConfigMap shop/settings',
    ]);
    await expect(restore(await backedShop(), target, { only: ['Deployment/stop/*'] })).rejects.toMatchObject({
      kind: 'not-found',
      message: expect.stringContaining('Deployment/stop/*'),
    });
  });
});

describe('workloads wait with 0 replicas', () => {
  test('with what they had in an annotation; what runs already is neither stopped nor started', async () => {
    const backed = await backedShop();
    const target = new MemoryCluster();
    const first = await restore(backed, target, { scaleToZero: true });
    const orders = await target.get(deployment());
    expect(orders).toMatchObject({ spec: { replicas: 0 }, metadata: { annotations: { 'dr.io/replicas': '3' } } });
    const queue = await get(target, 'apps/v1', 'StatefulSet', 'queue', 'shop');
    expect(queue).toMatchObject({ spec: { replicas: 0 }, metadata: { annotations: { 'dr.io/replicas': '2' } } });
    const report = await get(target, 'batch/v1', 'CronJob', 'report', 'shop');
    expect(report).toMatchObject({ spec: { suspend: true }, metadata: { annotations: { 'dr.io/suspend': 'false' } } });
    expect(first.findings.map(({ what }) => what).join('\n')).toMatch(
      /shop-policy asks the service shop\/orders.*wait with 0 replicas/,
    );
    expect(outcomes(await restore(backed, target, { scaleToZero: true }))).toEqual({
      unchanged: restoredCount - 1,
      left: 1,
    });

    // Activated by a runbook, and then restored once more by mistake.
    await target.setScale(deployment(), 3);
    await target.merge(deployment(), { metadata: { annotations: { 'dr.io/replicas': null } } });
    const again = await restore(backed, target, { scaleToZero: true });
    expect((await target.get(deployment()))['spec']).toMatchObject({ replicas: 3 });
    expect(outcomes(again)).toEqual({ unchanged: restoredCount - 1, left: 1 });
    await target.setScale(deployment(), 5, { manager: 'kube-controller-manager' });
    const scaled = await restore(backed, target, { scaleToZero: true });
    expect((await target.get(deployment()))['spec']).toMatchObject({ replicas: 5 });
    expect(of(scaled, 'Deployment shop/orders')?.note).toContain('keeps 5 replicas');
  });

  test('what a step of dr set is no conflict: a site that was fenced gets the newer number to come back with', async () => {
    const backed = await backedShop();
    const target = new MemoryCluster();
    await fill(
      target,
      shopObjects.filter(({ kind }) => kind !== 'Service'),
    );
    await target.merge(deployment(), { metadata: { annotations: { 'dr.io/replicas': '2' } }, spec: { replicas: 0 } });
    const result = await restore(backed, target, { scaleToZero: true });
    expect(of(result, 'Deployment shop/orders')).toMatchObject({ outcome: 'changed' });
    const orders = await target.get(deployment());
    expect(orders).toMatchObject({ spec: { replicas: 0 }, metadata: { annotations: { 'dr.io/replicas': '3' } } });
  });

  test('an autoscaled workload keeps its size also without that', async () => {
    const backed = await backedShop();
    const target = new MemoryCluster();
    await restore(backed, target);
    await target.setScale(deployment(), 7, { manager: 'kube-controller-manager' });
    const again = await restore(backed, target);
    expect(failureOfAll(again)).toBeUndefined();
    expect((await target.get(deployment()))['spec']).toMatchObject({ replicas: 7 });
  });
});

describe('into a cluster that has something', () => {
  test('conflicts name the manager and the field, the rest goes on, and nothing of theirs is changed without --force-conflicts', async () => {
    const backed = await backedShop();
    const target = new MemoryCluster();
    // In memory lists are owned as a whole: a Service that lacks its node port would be another conflict.
    await fill(
      target,
      shopObjects.filter(({ kind }) => kind !== 'Service'),
    );
    const image = { template: { spec: { containers: [{ name: 'orders', image: 'registry.example/orders:2.0.0' }] } } };
    await target.merge(deployment(), { spec: image }, { manager: 'argocd-controller' });
    const extra = {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'new', namespace: 'shop' },
      data: { a: '1' },
    };
    await target.create(extra, { manager: 'kubectl-create' });
    const result = await restore(backed, target);
    expect(of(result, 'Deployment shop/orders')).toMatchObject({
      outcome: 'failed',
      error: {
        kind: 'conflict',
        conflicts: [{ manager: 'argocd-controller', field: '.spec.template.spec.containers' }],
      },
    });
    expect(failureOfAll(result)).toBe('conflict');
    expect(result.objects.filter(({ outcome }) => outcome === 'failed')).toHaveLength(1);
    expect(result.extras.map(showRef)).toEqual(['ConfigMap shop/new']);
    expect(await target.get(deployment())).toMatchObject({ spec: image });

    const forced = await restore(backed, target, { force: true });
    expect(of(forced, 'Deployment shop/orders')).toMatchObject({ outcome: 'changed' });
    expect(JSON.stringify(await target.get(deployment()))).toContain('orders:1.4.2');
    expect((await get(target, 'v1', 'ConfigMap', 'new', 'shop'))['data']).toEqual({ a: '1' });
  });

  test('--diff says what would change and stores nothing', async () => {
    const backed = await backedShop();
    const target = new MemoryCluster();
    await restore(backed, target, { only: ['Namespace/shop', 'ConfigMap/shop/*', 'Secret/shop/*'] });
    const settings = { apiVersion: 'v1', kind: 'ConfigMap', name: 'settings', namespace: 'shop' };
    await target.merge(settings, { data: { mode: 'off' } });
    const database = { apiVersion: 'v1', kind: 'Secret', name: 'database', namespace: 'shop' };
    await target.merge(database, { data: { password: 'bmV3' } });
    const before = target.objects.history.revision;
    const result = await restore(backed, target, { dryRun: true, force: true });
    expect(target.objects.history.revision).toBe(before);
    const lines = (name: string) => of(result, name)?.hunks?.flatMap(({ lines }) => lines) ?? [];
    expect(of(result, 'ConfigMap shop/settings')?.outcome).toBe('changed');
    expect(lines('ConfigMap shop/settings')).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^- {2}mode: "?off"?$/),
        expect.stringMatching(/^\+ {2}mode: "?on"?$/),
      ]),
    );
    expect(lines('Secret shop/database')).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^- {2}password: "?\(secret, before\)"?$/),
        expect.stringMatching(/^\+ {2}password: "?\(secret, after\)"?$/),
      ]),
    );
    expect(JSON.stringify(result)).not.toMatch(/c2VzYW1l|bmV3/);
    expect(of(result, 'Deployment shop/orders')?.outcome).toBe('created');
    expect(of(result, 'Widget shop/blue')).toMatchObject({
      outcome: 'created',
      unasked: 'its definition comes with it',
    });
    expect(result.images).toEqual(
      ['migrate', 'orders', 'queue', 'report'].map((name) => `registry.example/${name}:1.4.2`),
    );
  });
});

describe('what is missing is named', () => {
  test('a definition, and the rest goes on', async () => {
    const backed = await backedShop();
    const without = { ...backed, objects: backed.objects.filter(({ kind }) => kind !== 'CustomResourceDefinition') };
    const target = new MemoryCluster();
    const result = await restore(without, target);
    expect(of(result, 'Widget shop/blue')).toMatchObject({
      outcome: 'failed',
      error: { kind: 'not-found', message: expect.stringContaining('no kind Widget in shop.example/v1') },
    });
    expect(outcomes(result)).toEqual({ created: restoredCount - 2, failed: 1 });
    expect(failureOfAll(result)).toBe('not-found');
  });

  test('what --only leaves out, and the backup has', async () => {
    const result = await restore(await backedShop(), new MemoryCluster(), {
      only: ['Deployment', 'Widget'],
      namespaces: new Map([['shop', 'shop-dr']]),
      dryRun: true,
    });
    expect(of(result, 'Widget shop-dr/blue')?.error?.next).toContain(
      '--only "CustomResourceDefinition/widgets.shop.example"',
    );
    expect(result.findings.find(({ what }) => what.includes('pull secret shop-dr/registry'))?.next).toContain(
      '--only "Secret/shop/registry"',
    );
  });

  test('a version that is not served: the served one is offered, and taken when it is wished', async () => {
    const backed = await backedShop();
    const target = new MemoryCluster();
    const spec = widgetDefinition['spec'] as { versions: object[] };
    const versions = spec.versions.map((version) => ({ ...version, name: 'v2' }));
    await target.create({ ...widgetDefinition, spec: { ...spec, versions } });
    const without = { ...backed, objects: backed.objects.filter(({ kind }) => kind !== 'CustomResourceDefinition') };
    const refused = of(await restore(without, target), 'Widget shop/blue');
    expect(refused?.error).toMatchObject({ kind: 'not-found', next: expect.stringContaining('--served-versions') });
    expect(refused?.error?.message).toContain('shop.example/v2');
    const taken = await restore(without, target, { servedVersions: true });
    expect(of(taken, 'Widget shop/blue')).toMatchObject({
      outcome: 'created',
      note: expect.stringContaining('shop.example/v2'),
    });
    expect((await get(target, 'shop.example/v2', 'Widget', 'blue', 'shop'))['spec']).toEqual({ size: 3 });
  });

  test('classes, Secrets and pull secrets, quotas', async () => {
    const gone = /^(StorageClass|PriorityClass|IngressClass|Secret)$/;
    const quota: ClusterObject = {
      apiVersion: 'v1',
      kind: 'ResourceQuota',
      metadata: { name: 'team', namespace: 'shop' },
      spec: { hard: { 'requests.cpu': '3', 'requests.memory': '100Gi', pods: '10', 'requests.storage': '30Gi' } },
    };
    const backed = await backedShop([...shopObjects.filter(({ kind }) => !gone.test(kind)), quota]);
    const { findings } = await restore(backed, new MemoryCluster(), { dryRun: true, scaleToZero: true });
    const said = findings.map(({ verdict, what }) => `${verdict} ${what}`).join('\n');
    expect(said).toContain(
      'fail StorageClass fast is missing: PersistentVolumeClaim shop/uploads, StatefulSet shop/queue need it',
    );
    expect(said).toContain('fail PriorityClass important is missing: Deployment shop/orders needs it');
    expect(said).toContain('fail IngressClass nginx is missing: Ingress shop/front needs it');
    expect(said).toContain('fail pull secret shop/registry is missing');
    expect(said).toContain('fail Secret shop/database is missing');
    // 3 × 500m and 2 × 1 of 3; 20 Gi and 2 × 10 Gi of 30.
    expect(said).toMatch(/ResourceQuota shop\/team will be exceeded .*requests\.cpu: 0 used and 3\.5 restored, of 3/);
    expect(said).toMatch(/requests\.storage: 0 used and 40Gi restored, of 30Gi/);
    expect(said).not.toMatch(/exceeded.*(memory|pods):/);
    // The Job and the CronJob say nothing about what they need.
    expect(said).toMatch(/counts requests\.cpu, and containers of (CronJob|Job) shop\/\w+ do not say theirs/);
  });

  test('a right for one kind: it is named with the rule, and the rest goes on', async () => {
    const backed = await backedShop();
    const target = new MemoryCluster({ allows: ({ verb }, { plural }) => !(plural === 'secrets' && verb === 'patch') });
    const result = await restore(backed, target);
    expect(outcomes(result)).toEqual({ created: restoredCount - 3, failed: 3 });
    expect(of(result, 'Secret shop/database')?.error).toMatchObject({
      kind: 'denied',
      next: expect.stringContaining('resources: ["secrets"], verbs: ["patch"]'),
    });
    expect(failureOfAll(result)).toBe('denied');
  });

  test('a right to list: what is there is not known, and is applied all the same', async () => {
    const backed = await backedShop();
    const target = new MemoryCluster({ allows: ({ verb }, { plural }) => !(plural === 'secrets' && verb === 'list') });
    const result = await restore(backed, target);
    expect(of(result, 'Secret shop/database')?.outcome).toBe('applied');
    expect(result.findings.map(({ what }) => what).join('\n')).toContain('secrets in shop cannot be listed');
    expect(failureOfAll(result)).toBeUndefined();
  });
});

test('a namespace gets another name, and what refers to it too', async () => {
  const backed = await backedShop();
  const target = new MemoryCluster();
  const result = await restore(backed, target, { namespaces: new Map([['shop', 'shop-dr']]) });
  expect(outcomes(result)).toEqual({ created: restoredCount });
  const rbac = 'rbac.authorization.k8s.io/v1';
  expect((await get(target, rbac, 'RoleBinding', 'orders', 'shop-dr'))['subjects']).toEqual([
    { kind: 'ServiceAccount', name: 'orders', namespace: 'shop-dr' },
    { kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: 'system:serviceaccount:shop-dr:orders' },
  ]);
  expect((await get(target, rbac, 'ClusterRoleBinding', 'shop-nodes'))['subjects']).toEqual([
    { kind: 'ServiceAccount', name: 'orders', namespace: 'shop-dr' },
  ]);
  const policy = await get(target, 'networking.k8s.io/v1', 'NetworkPolicy', 'inside', 'shop-dr');
  expect(JSON.stringify(policy['spec'])).toContain('"kubernetes.io/metadata.name":"shop-dr"');
  expect(JSON.stringify(policy['spec'])).toContain('"values":["shop-dr","monitoring"]');
  const webhook = await get(target, 'admissionregistration.k8s.io/v1', 'ValidatingWebhookConfiguration', 'shop-policy');
  expect(JSON.stringify(webhook['webhooks'])).toContain(
    '"service":{"name":"orders","namespace":"shop-dr","path":"/judge"}',
  );
  // Content of applications is theirs; a person is told where it names the old one.
  expect((await get(target, 'v1', 'ConfigMap', 'settings', 'shop-dr'))['data']).toMatchObject({
    url: 'http://orders.shop.svc:80',
  });
  expect(result.findings.map(({ what }) => what).join('\n')).toContain('ConfigMap shop-dr/settings: data.url');
  await expect(get(target, 'v1', 'Namespace', 'shop')).rejects.toMatchObject({ kind: 'not-found' });
});
