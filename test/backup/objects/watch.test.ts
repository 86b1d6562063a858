import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ObjectsWatch } from '../../../src/backup/objects/watch-objects.ts';
import { silentLog } from '../../../src/base/log.ts';
import type { ClusterObject } from '../../../src/cluster/contract.ts';
import type { KubernetesCluster } from '../../../src/cluster/kubernetes.ts';
import type { MemoryObjects } from '../../../src/cluster/memory/objects.ts';
import { everything } from '../../harness/kubernetes/rbac.ts';
import { KubernetesServer } from '../../harness/kubernetes/server.ts';
import { hastyClock } from '../../traffic/support.ts';
import { add, clientOf, configMap, seedShop, selecting, shop, widgetDefinition } from './support.ts';

let server: KubernetesServer;
let objects: MemoryObjects;
let cluster: KubernetesCluster;
let stop: AbortController;
let running: Promise<void> | undefined;

beforeEach(async () => {
  server = await KubernetesServer.start();
  objects = server.objects;
  stop = new AbortController();
});

afterEach(async () => {
  stop.abort();
  await running;
  cluster.close();
  await server[Symbol.asyncDispose]();
});

/** A watch that has read everything, with the changes that it tells of from then on. */
async function watch(source = shop, token = 'admin-token') {
  cluster = clientOf(server, token);
  const seen = { changes: 0 };
  const waiting: { test: () => boolean; wake: () => void }[] = [];
  const watching = new ObjectsWatch(cluster, {
    ...source,
    clock: hastyClock,
    log: silentLog,
    refreshMs: 60_000,
    onChange: () => {
      seen.changes++;
      for (const each of waiting) if (each.test()) each.wake();
    },
  });
  running = watching.run(stop.signal);
  running.catch(() => {});
  await until(() => watching.state.kinds > 5);
  await watching.synced();
  seen.changes = 0;
  /** Until `test` is so after a change. */
  const changed = (test = () => true) => new Promise<void>((wake) => waiting.push({ test, wake }));
  return { watching, seen, changed };
}

/** Another definition than that of widgets. */
function definitionOf(name: string): Pick<ClusterObject, 'metadata' | 'spec'> {
  const names = { kind: `${name[0]?.toUpperCase()}${name.slice(1)}`, plural: `${name}s` };
  return { metadata: { name: `${name}s.example.com` }, spec: { ...(widgetDefinition['spec'] as object), names } };
}

/** Looks again with every turn of the loop: for what happens within moments. */
async function until(test: () => boolean): Promise<void> {
  while (!test()) await new Promise<void>((resolve) => setTimeout(resolve, 5));
}

const typeOf = (apiVersion: string, kind: string) => objects.typeOf({ apiVersion, kind });
const merge = (apiVersion: string, kind: string, name: string, change: Record<string, unknown>, namespace = 'shop') =>
  objects.merge(typeOf(apiVersion, kind), namespace, name, change, { manager: 'kubectl' });
const paint = (colour: string) => merge('v1', 'ConfigMap', 'settings', { data: { colour } });

describe('a watch of objects', () => {
  test('tells of what a backup would store, and of nothing else', async () => {
    seedShop(objects);
    const { seen, changed } = await watch();
    // All of this is noise.
    merge('coordination.k8s.io/v1', 'Lease', 'orders-leader', { spec: { holderIdentity: 'b' } });
    add(objects, { apiVersion: 'v1', kind: 'Event', metadata: { name: 'orders.2', namespace: 'shop' } });
    merge('v1', 'ConfigMap', 'settings', {
      metadata: { annotations: { 'control-plane.alpha.kubernetes.io/leader': 'x' } },
    });
    objects.merge(
      typeOf('apps/v1', 'Deployment'),
      'shop',
      'orders',
      { status: { readyReplicas: 1 } },
      { subresource: 'status' },
    );
    objects.delete(typeOf('v1', 'Pod'), 'shop', 'orders-5d-x');
    merge('v1', 'ConfigMap', 'settings', { data: { colour: 'red' } }, 'other');
    merge('v1', 'Secret', 'login', { data: { password: 'bmV1' } });
    // And this, which comes last, is not.
    const told = changed();
    paint('green');
    await told;
    const deleted = changed();
    objects.delete(typeOf('v1', 'ConfigMap'), 'shop', 'settings');
    await deleted;
    const defined = changed();
    merge(
      'apiextensions.k8s.io/v1',
      'CustomResourceDefinition',
      'widgets.example.com',
      { metadata: { labels: { a: 'b' } } },
      '',
    );
    await defined;
    expect(seen.changes).toBe(3);
  });

  test('keeps little: digests, not objects', async () => {
    seedShop(objects);
    const { watching } = await watch();
    expect(watching.state).toMatchObject({ objects: 8, troubles: [] });
  });

  test('takes in kinds that are defined later, and lets go of those that are removed', async () => {
    add(objects, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } });
    const { watching, changed } = await watch();
    const before = watching.state.kinds;
    add(objects, widgetDefinition);
    await until(() => watching.state.kinds === before + 1);
    await watching.synced();
    const told = changed();
    add(objects, { apiVersion: 'example.com/v1', kind: 'Widget', metadata: { name: 'wheel', namespace: 'shop' } });
    await told;
    objects.delete(typeOf('apiextensions.k8s.io/v1', 'CustomResourceDefinition'), undefined, 'widgets.example.com');
    await until(() => watching.state.kinds === before);
  });

  test('finds what changed while the server was away, had forgotten, throttled, or a watch had stalled', async () => {
    seedShop(objects);
    const { changed } = await watch();
    const afterEnd = (fault?: () => void) => () => {
      fault?.();
      server.endWatches();
    };
    const throttled = { kind: 'status', code: 429, retryAfter: 0 } as const;
    const disturbances: [string, () => unknown][] = [
      ['watches end', afterEnd()],
      ['a watch stalls', afterEnd(() => server.faults.next('watch', { kind: 'stall' }, 1, 'configmaps'))],
      ['throttled', afterEnd(() => server.faults.next('watch', throttled, 100))],
      ['restarted', () => server.stop().then(() => server.listen())],
    ];
    for (const [name, disturb] of disturbances) {
      const told = changed();
      await disturb();
      paint(name);
      await told;
    }
    server.faults.clear();
    await server.stop();
    objects.delete(typeOf('v1', 'ConfigMap'), 'shop', 'settings');
    objects.history.forget();
    const gone = changed();
    await server.listen();
    await gone;
  });

  test('a namespace that begins to be selected is a change, and so is what then happens in it', async () => {
    seedShop(objects);
    const { watching, changed, seen } = await watch(selecting({ namespaces: undefined, selector: 'tier=production' }));
    const before = watching.state.objects;
    merge('v1', 'ConfigMap', 'settings', { data: { colour: 'red' } }, 'other');
    const chosen = changed();
    objects.merge(typeOf('v1', 'Namespace'), undefined, 'other', { metadata: { labels: { tier: 'production' } } });
    await chosen;
    expect(seen.changes).toBe(1);
    const inside = changed();
    merge('v1', 'ConfigMap', 'settings', { data: { colour: 'blue' } }, 'other');
    await inside;
    expect(watching.state.objects).toBe(before + 2);
    const left = changed();
    objects.merge(typeOf('v1', 'Namespace'), undefined, 'other', { metadata: { labels: { tier: null } } });
    await left;
  });
});

describe('a watch without all rights', () => {
  const account = (rules: Parameters<KubernetesServer['accounts']['set']>[1]['rules']) =>
    server.accounts.set('limited', { name: 'dr', rules });
  const read = ['get', 'list', 'watch'];

  test('says which kind it cannot watch, watches the rest, and goes on when the right is given', async () => {
    seedShop(objects);
    const rules = [
      { apiGroups: [''], resources: ['configmaps', 'namespaces', 'services', 'serviceaccounts'], verbs: read },
      { apiGroups: ['apps'], resources: ['*'], verbs: read },
    ];
    account(rules);
    const { watching, changed } = await watch(shop, 'limited');
    expect(watching.state.troubles.join()).toContain('widgets.example.com of namespace shop: dr may not list widgets');
    const told = changed();
    paint('green');
    await told;
    account(everything);
    await until(() => watching.state.troubles.length === 0);
  });

  test('watches namespace by namespace where roles allow no more', async () => {
    seedShop(objects);
    account([
      { apiGroups: [''], resources: ['namespaces'], verbs: read },
      { apiGroups: ['*'], resources: ['*'], verbs: read, namespace: 'shop' },
      { apiGroups: ['*'], resources: ['*'], verbs: read, namespace: 'other' },
    ]);
    const { watching, changed } = await watch(
      selecting({ namespaces: ['shop', 'other'], clusterObjects: false }),
      'limited',
    );
    await until(() => watching.state.objects === 8);
    expect(watching.state.troubles).toEqual([]);
    for (const namespace of ['shop', 'other']) {
      const told = changed();
      merge('v1', 'ConfigMap', 'settings', { data: { colour: namespace } }, namespace);
      await told;
    }
  });
});

test('a kind whose name is excluded, or whose file is, tells nothing', async () => {
  seedShop(objects);
  add(objects, configMap('lock'));
  const { seen, changed } = await watch(selecting({}, { exclude: ['namespaces/*/core/ConfigMap/lock.yaml'] }));
  merge('v1', 'ConfigMap', 'lock', { data: { holder: 'b' } });
  const told = changed();
  paint('green');
  await told;
  expect(seen.changes).toBe(1);
});

test('a kind that nobody may watch is said once, and is no reason to ask for it again and again', async () => {
  seedShop(objects);
  server.faults.always('watch', { kind: 'status', code: 405, message: 'watching is not supported' }, 'widgets');
  const { watching, changed } = await watch();
  await until(() => watching.state.troubles.length === 1);
  expect(watching.state.troubles[0]).toMatch(/^widgets.example.com of namespace shop: .*watching is not supported/);
  const asked = () => server.calls.filter((call) => call.startsWith('watch') && call.includes('/widgets')).length;
  const before = asked();
  for (const colour of ['green', 'red', 'blue']) {
    const told = changed();
    paint(colour);
    await told;
  }
  expect(asked()).toBe(before);
  // A definition that changes may have mended it.
  server.faults.clear();
  merge(
    'apiextensions.k8s.io/v1',
    'CustomResourceDefinition',
    'widgets.example.com',
    { metadata: { labels: { a: 'b' } } },
    '',
  );
  await until(() => watching.state.troubles.length === 0);
});

test('namespaces that a selector chooses are followed even when they are not backed up themselves', async () => {
  seedShop(objects);
  for (let i = 0; i < 5; i++) add(objects, { ...widgetDefinition, ...definitionOf(`part${i}`) });
  const kinds = { include: ['configmaps', '*.example.com'], exclude: [] };
  const { watching, changed } = await watch(selecting({ namespaces: undefined, selector: 'tier=production', kinds }));
  expect(watching.state.objects).toBe(3);
  const told = changed();
  paint('green');
  await told;
});
