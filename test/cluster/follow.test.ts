import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import type { ClusterObject } from '../../src/cluster/contract.ts';
import { type Followed, follow } from '../../src/cluster/follow.ts';
import { KubernetesCluster } from '../../src/cluster/kubernetes.ts';
import type { MemoryObjects } from '../../src/cluster/memory/objects.ts';
import { everything } from '../harness/kubernetes/rbac.ts';
import { KubernetesServer } from '../harness/kubernetes/server.ts';
import { hastyClock } from '../traffic/support.ts';
import { settingsFor } from './support.ts';

const configMaps = { apiVersion: 'v1', kind: 'ConfigMap' };
const config = (name: string, a = '1'): ClusterObject => {
  return { ...configMaps, metadata: { name, namespace: 'default' }, data: { a } };
};

let server: KubernetesServer;
let objects: MemoryObjects;
let cluster: KubernetesCluster;
let stop: AbortController;

beforeEach(async () => {
  server = await KubernetesServer.start();
  objects = server.objects;
  cluster = new KubernetesCluster(settingsFor(server), {
    log: silentLog,
    clock: hastyClock,
    attempts: 1,
    watchIdleMs: 150,
  });
  stop = new AbortController();
});

afterEach(async () => {
  stop.abort();
  cluster.close();
  await server[Symbol.asyncDispose]();
});

/** Follows and keeps what a consumer would know: the objects by name. */
function start(options: { limit?: number } = {}) {
  const known = new Map<string, string>();
  const events: Followed['type'][] = [];
  const troubles: string[] = [];
  let fresh = new Set<string>();
  const waiting: { test: () => boolean; wake: () => void }[] = [];
  const a = ({ data }: ClusterObject) => String((data as { a?: string } | undefined)?.a);
  const work = (async () => {
    for await (const event of follow(
      cluster,
      configMaps,
      { namespace: 'default', clock: hastyClock, ...options },
      stop.signal,
    )) {
      events.push(event.type);
      if (event.type === 'relist') fresh = new Set();
      if (event.type === 'present')
        for (const each of event.objects) fresh.add(each.metadata.name) && known.set(each.metadata.name, a(each));
      if (event.type === 'synced') for (const name of known.keys()) if (!fresh.has(name)) known.delete(name);
      if (event.type === 'changed') known.set(event.object.metadata.name, a(event.object));
      if (event.type === 'gone') known.delete(event.object.metadata.name);
      if (event.type === 'trouble') troubles.push(event.error.kind);
      for (const each of waiting) if (each.test()) each.wake();
    }
  })();
  const until = (test: () => boolean) =>
    Promise.race([work, new Promise<void>((wake) => (test() ? wake() : waiting.push({ test, wake })))]);
  return { known, events, troubles, until, work };
}

/** What the cluster really holds. */
const real = () =>
  new Map(
    objects
      .list(objects.typeOf(configMaps), { namespace: 'default' })
      .objects.map((each) => [each.metadata.name, (each['data'] as { a: string }).a]),
  );

it('notices a watch that silently stalls, and goes on from where it was', async () => {
  objects.create(config('orders'), undefined);
  server.faults.next('watch', { kind: 'stall' });
  const { known, events, troubles, until } = start();
  await until(() => events.includes('synced'));
  objects.create(config('stock'), undefined);
  await until(() => known.has('stock'));
  expect([...new Set(troubles)]).toEqual(['unreachable']);
  expect(events.filter((type) => type === 'relist')).toHaveLength(1);
});

it('takes a watch that has nothing to tell for what it is: servers send no bookmarks for a kind in which nothing happens', async () => {
  const { known, events, troubles, until } = start();
  await until(() => events.includes('synced'));
  const watches = () => server.calls.filter((call) => call.startsWith('watch')).length;
  // Longer than a watch may be silent, and than one that is not silent lasts.
  await vi.waitFor(() => expect(watches()).toBeGreaterThan(3), { timeout: 5000 });
  expect(troubles).toEqual([]);
  objects.create(config('orders'), undefined);
  await until(() => known.has('orders'));
  expect(events.filter((type) => type === 'relist')).toHaveLength(1);
});

it('goes on through restarts, throttling, forgetting and ended watches, and knows everything in the end', async () => {
  for (let i = 0; i < 12; i++) objects.create(config(`orders-${i}`), undefined);
  const { known, until } = start({ limit: 5 });
  await until(() => known.size === 12);
  const disturbances = [
    () => server.endWatches(),
    () => server.faults.next('watch', { kind: 'status', code: 429, retryAfter: 0 }),
    async () => {
      await server.stop();
      objects.create(config('while-away'), undefined);
      await server.listen();
    },
    async () => {
      await server.stop();
      objects.delete(objects.typeOf(configMaps), 'default', 'orders-3');
      objects.history.forget();
      await server.listen();
    },
    () => server.faults.next('list', { kind: 'status', code: 503 }, 2),
  ];
  for (const [i, disturb] of disturbances.entries()) {
    await disturb();
    objects.merge(objects.typeOf(configMaps), 'default', 'orders-1', { data: { a: `after ${i}` } });
    await until(() => known.get('orders-1') === `after ${i}`);
  }
  await until(() => known.has('while-away') && !known.has('orders-3'));
  expect([...known].sort()).toEqual([...real()].sort());
});

it('lists in one piece when the pages are forgotten before they are asked for', async () => {
  for (let i = 0; i < 9; i++) objects.create(config(`orders-${i}`), undefined);
  const forget = () => objects.history.forget();
  server.faults.next('list', { kind: 'before', act: () => {} });
  server.faults.before('list', forget);
  const { known, events, until } = start({ limit: 4 });
  await until(() => events.includes('synced'));
  expect(events.slice(0, 4)).toEqual(['relist', 'present', 'relist', 'present']);
  expect(known.size).toBe(9);
  const lists = server.calls.filter((call) => call.startsWith('list'));
  expect(lists.map((call) => /limit=(\d+)/.exec(call)?.[1])).toEqual(['4', '4', '0']);
});

it('tells of a missing right and goes on when it is given', async () => {
  server.accounts.set('admin-token', { name: 'dr', rules: [] });
  const { known, troubles, until } = start();
  await until(() => troubles.length > 0);
  expect(troubles[0]).toBe('denied');
  objects.create(config('orders'), undefined);
  server.accounts.set('admin-token', { name: 'dr', rules: everything });
  await until(() => known.has('orders'));
});

it('ends for a kind that the cluster does not have', async () => {
  const work = (async () => {
    for await (const _event of follow(
      cluster,
      { apiVersion: 'nowhere.example.com/v1', kind: 'Widget' },
      {},
      stop.signal,
    ));
  })();
  await expect(work).rejects.toMatchObject({ kind: 'not-found' });
});

it('keeps one watch, and none once it is stopped', async () => {
  objects.create(config('orders'), undefined);
  const { known, until, work } = start();
  await until(() => known.size === 1);
  objects.create(config('stock'), undefined);
  await until(() => known.size === 2);
  expect(server.watchCount).toBe(1);
  stop.abort();
  await work;
  const closed = () => new Promise<void>((resolve) => setImmediate(resolve));
  for (let i = 0; i < 1000 && server.watchCount > 0; i++) await closed();
  expect(server.watchCount).toBe(0);
});
