import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cleaned } from '../../../src/backup/objects-restore/clean.ts';
import type { BackedObjects } from '../../../src/backup/objects-restore/read.ts';
import { rename } from '../../../src/backup/objects-restore/rename.ts';
import { countOutcomes, failureOfAll } from '../../../src/backup/objects-restore/result.ts';
import { DrError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import type { ClusterObject } from '../../../src/cluster/contract.ts';
import { refOf, showRef } from '../../../src/cluster/contract.ts';
import { loadSettings } from '../../../src/cluster/kubeconfig.ts';
import { KubernetesCluster } from '../../../src/cluster/kubernetes.ts';
import { settingsFor } from '../../cluster/support.ts';
import { KubernetesServer } from '../../harness/kubernetes/server.ts';
import { backedUp, everything, fill, restore, shopObjects } from './shop.ts';

/*
 * A restore from one namespace into another of the same cluster, here of the API server of the harness, and with
 * `KUBECONFIG=… npm run test:kubernetes` of any real cluster: an API server and an administrator; no pod has to run. Everything is written into
 * two namespaces `dr-test-…` and one definition, which are removed.
 */
const kubeconfig = process.env['KUBECONFIG'];
const isReal = process.env['DR_TEST_KUBERNETES'] === '1' && kubeconfig !== undefined;
const [from, to] = [`dr-test-${randomUUID().slice(0, 8)}`, `dr-test-${randomUUID().slice(0, 8)}`];
const group = `${from}.example`;

/** As an object of a cluster may have them, and no number of JavaScript. */
const serials = { first: 9_007_199_254_740_993n, last: -9_223_372_036_854_775_807n, small: 7 };

let server: KubernetesServer | undefined;
let cluster: KubernetesCluster;
let backed: BackedObjects;

/** The shop without what a real cluster takes offence at or would act on, in this namespace. */
function objectsOf(namespace: string): ClusterObject[] {
  const widgets = { kind: 'Widget', plural: 'widgets', singular: 'widget', listKind: 'WidgetList' };
  const schema = { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } };
  const definition: ClusterObject = {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `widgets.${group}` },
    spec: {
      group,
      scope: 'Namespaced',
      names: widgets,
      versions: [{ name: 'v1', served: true, storage: true, schema }],
    },
  };
  const own = shopObjects
    .filter(({ metadata, kind }) => metadata.namespace === 'shop' || (kind === 'Namespace' && metadata.name === 'shop'))
    .filter(({ metadata }) => metadata.name !== 'kube-root-ca.crt')
    .map((object) => prepared(structuredClone(object)));
  for (const object of own) rename(object as never, new Map([['shop', namespace]]));
  return [definition, ...own];
}

function prepared(object: ClusterObject): ClusterObject {
  if (object.kind === 'Widget') return { ...object, apiVersion: `${group}/v1`, serials };
  // Addresses that are taken, certificates that are none, and a class that a real cluster would have to have.
  if (object.kind === 'Service' && object.metadata.name === 'orders')
    return { ...object, spec: { selector: { app: 'orders' }, ports: [{ name: 'http', port: 80, protocol: 'TCP' }] } };
  if (object.kind === 'Secret') return { ...object, type: 'Opaque' };
  if (object.kind === 'PersistentVolumeClaim') {
    const { annotations: _annotations, finalizers: _finalizers, ...metadata } = object.metadata;
    const spec = {
      accessModes: ['ReadWriteOnce'],
      storageClassName: 'dr-test',
      resources: { requests: { storage: '1Gi' } },
    };
    return { ...object, metadata, spec };
  }
  const text = JSON.stringify(object)
    .replace('"priorityClassName":"important",', '')
    .replaceAll('"containers":', '"restartPolicy":"Never","containers":');
  const other = JSON.parse(
    /Job$/.test(object.kind) ? text : text.replaceAll('"restartPolicy":"Never",', ''),
  ) as ClusterObject;
  if (object.kind !== 'StatefulSet') return other;
  return JSON.parse(
    JSON.stringify(other).replace('{"storageClassName"', '{"accessModes":["ReadWriteOnce"],"storageClassName"'),
  );
}

function namesOf({ objects }: BackedObjects): Map<string, ClusterObject> {
  return new Map(objects.map((object) => [showRef(refOf(object)), cleaned(object)]));
}

beforeAll(async () => {
  server = isReal ? undefined : await KubernetesServer.start();
  const settings = server ? settingsFor(server) : loadSettings({ env: { KUBECONFIG: kubeconfig } });
  cluster = new KubernetesCluster(settings, { log: silentLog });
  const [definition, ...own] = objectsOf(from);
  if (definition) await fill(cluster, [definition]);
  const deadline = AbortSignal.timeout(30_000);
  for (;;) {
    // A kind is served some moments after its definition.
    const isServed = await cluster
      .type({ apiVersion: `${group}/v1`, kind: 'Widget' }, deadline)
      .catch((error: unknown) => {
        if (error instanceof DrError && error.kind === 'not-found') return undefined;
        throw error;
      });
    if (isServed) break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await fill(cluster, own);
  const select = { ...everything, namespaces: [from], clusterObjects: false };
  backed = await backedUp(cluster, select);
}, 60_000);

afterAll(async () => {
  for (const name of [from, to]) await cluster.delete({ apiVersion: 'v1', kind: 'Namespace', name }).catch(() => {});
  const definition = {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    name: `widgets.${group}`,
  };
  await cluster.delete(definition).catch(() => {});
  cluster.close();
  await server?.[Symbol.asyncDispose]();
});

const options = { namespaces: new Map([[from, to]]), scaleToZero: true };

test('a dry run stores nothing; the restore brings back each object; once more changes nothing', async () => {
  const dry = await restore(backed, cluster, { ...options, dryRun: true });
  expect(failureOfAll(dry)).toBeUndefined();
  await expect(cluster.get({ apiVersion: 'v1', kind: 'Namespace', name: to })).rejects.toMatchObject({
    kind: 'not-found',
  });

  const first = await restore(backed, cluster, options);
  expect(first.objects.filter(({ error }) => error)).toEqual([]);
  const select = { ...everything, namespaces: [to], clusterObjects: false };
  const restored = namesOf(await backedUp(cluster, select));
  const expected = namesOf(backed);
  for (const object of expected.values()) {
    rename(object as never, options.namespaces);
    const name = showRef(refOf(object));
    const found = restored.get(name);
    expect(found, name).toBeDefined();
    // What waits is otherwise than it was: that is the matter of the tests in memory.
    if (!/^(Job|CronJob|Deployment|StatefulSet) /.test(name)) expect(found, name).toEqual(object);
  }
  const widgets = (await cluster.list({ apiVersion: `${group}/v1`, kind: 'Widget' }, { namespace: to })).objects;
  expect(widgets.map((widget) => widget['serials'])).toEqual([serials]);
  const orders = await cluster.get({ apiVersion: 'apps/v1', kind: 'Deployment', name: 'orders', namespace: to });
  expect(orders).toMatchObject({ spec: { replicas: 0 }, metadata: { annotations: { 'dr.io/replicas': '3' } } });

  const again = await restore(backed, cluster, options);
  const counts = countOutcomes(again.objects);
  expect(again.objects.filter(({ outcome }) => outcome === 'changed' || outcome === 'created')).toEqual([]);
  expect(counts.unchanged).toBe(first.objects.length - counts.left);
  const dryAgain = countOutcomes((await restore(backed, cluster, { ...options, dryRun: true })).objects);
  expect(dryAgain).toMatchObject({ created: 0, changed: 0, failed: 0 });
}, 60_000);

test('what somebody else changed meanwhile is a conflict with their name, and comes back when it is forced', async () => {
  const settings = { apiVersion: 'v1', kind: 'ConfigMap', name: 'settings', namespace: to };
  await cluster.merge(settings, { data: { mode: 'theirs' } }, { manager: 'somebody' });
  const only = { ...options, only: [`ConfigMap/${from}/settings`] };
  const refused = await restore(backed, cluster, only);
  expect(refused.objects.find(({ error }) => error)?.error?.conflicts).toEqual([
    { manager: 'somebody', field: '.data.mode' },
  ]);
  expect(failureOfAll(await restore(backed, cluster, { ...only, force: true }))).toBeUndefined();
  expect(await cluster.get(settings)).toMatchObject({ data: { mode: 'on' } });
}, 60_000);
