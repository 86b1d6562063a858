import { describe, expect, test } from 'vitest';
import { countOutcomes, failureOfAll } from '../../../src/backup/objects-restore/result.ts';
import { DrError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import { KubernetesCluster } from '../../../src/cluster/kubernetes.ts';
import { MemoryCluster } from '../../../src/cluster/memory/cluster.ts';
import { settingsFor } from '../../cluster/support.ts';
import { KubernetesServer } from '../../harness/kubernetes/server.ts';
import { hastyClock } from '../../traffic/support.ts';
import { backedShop, restore, restoredCount, shopObjects } from './shop.ts';

/** A cluster of which each apply passes through this first. */
function withApply(before: (kind: string, number: number) => void): MemoryCluster {
  const cluster = new MemoryCluster();
  const apply = cluster.apply.bind(cluster);
  let number = 0;
  cluster.apply = async (object, ...rest) => {
    before(object.kind, ++number);
    return await apply(object, ...rest);
  };
  return cluster;
}

describe('the API server', () => {
  test('is away for too long: it ends by name, claims nothing, and the same restore goes on', async () => {
    const backed = await backedShop();
    let isAway = false;
    const away = () => new DrError('unreachable', 'the API server does not answer', { next: 'Check it.' });
    const cluster = withApply((_kind, number) => {
      isAway ||= number === 9;
      if (isAway) throw away();
    });
    const version = cluster.version.bind(cluster);
    cluster.version = async (signal) => {
      if (isAway) throw away();
      return await version(signal);
    };
    let nowMs = 0;
    const clock = {
      now: () => nowMs,
      sleep: async (ms: number) => {
        nowMs += ms;
      },
    };
    const result = await restore(backed, cluster, { clock });
    expect(result.stopped).toMatchObject({
      kind: 'unreachable',
      message: expect.stringMatching(/away for 5 min/),
      next: expect.stringContaining('goes on'),
    });
    expect(failureOfAll(result)).toBe('unreachable');
    const counts = countOutcomes(result.objects);
    expect(counts.failed).toBe(0);
    expect(counts.created).toBeGreaterThan(0);
    expect(counts.created + counts['not-tried']).toBe(restoredCount);
    isAway = false;
    const again = await restore(backed, cluster, { clock });
    expect(failureOfAll(again)).toBeUndefined();
    expect(countOutcomes(again.objects)).toMatchObject({ unchanged: counts.created, created: counts['not-tried'] });
  });

  test('throttles and loses replies: nothing is done twice, nothing is missing', async () => {
    await using server = await KubernetesServer.start();
    const cluster = new KubernetesCluster(settingsFor(server), { log: silentLog, clock: hastyClock });
    for (let i = 0; i < 4; i++) {
      server.faults.next('patch', { kind: 'status', code: 429, retryAfter: 1 });
      server.faults.next('patch', { kind: 'lose-reply' });
      server.faults.next('list', { kind: 'status', code: 503 });
      server.faults.next('patch', { kind: 'drop' });
    }
    const result = await restore(await backedShop(), cluster, { clock: hastyClock });
    expect(failureOfAll(result)).toBeUndefined();
    expect(countOutcomes(result.objects).created).toBe(restoredCount);
    cluster.close();
  });

  test('fails for one kind for ever (a webhook that is down): it is named, the rest is there', async () => {
    await using server = await KubernetesServer.start();
    const cluster = new KubernetesCluster(settingsFor(server), { log: silentLog, clock: hastyClock });
    const message = 'Internal error occurred: failed calling webhook "validate.nginx.ingress.kubernetes.io"';
    server.faults.always('patch', { kind: 'status', code: 500, message }, 'ingresses');
    const result = await restore(await backedShop(), cluster, { clock: hastyClock });
    expect(countOutcomes(result.objects)).toMatchObject({ created: restoredCount - 1, failed: 1 });
    const [failed] = result.objects.filter(({ error }) => error);
    expect(failed).toMatchObject({
      ref: { kind: 'Ingress' },
      error: { kind: 'unreachable', message: expect.stringContaining('webhook') },
    });
    cluster.close();
  });

  test('does not take by apply what has something twice: it is created, and a second time it is as it should be', async () => {
    await using server = await KubernetesServer.start();
    const cluster = new KubernetesCluster(settingsFor(server), { log: silentLog, clock: hastyClock });
    const [where, key] = ['.spec.template.spec.containers[name="orders"].env', 'key [name="MODE"]'];
    const message = `failed to create typed patch object (shop/orders; apps/v1, Kind=Deployment): ${where}: duplicate entries for ${key}`;
    server.faults.always('patch', { kind: 'status', code: 500, message }, 'deployments');
    const backed = await backedShop();
    const first = await restore(backed, cluster, { clock: hastyClock });
    expect(countOutcomes(first.objects)).toMatchObject({ created: restoredCount, failed: 0 });
    // At once: it would be refused for ever.
    expect(server.calls.filter((call) => /^patch .*deployments/.test(call))).toHaveLength(1);
    // Of one that is there the server says it in other words.
    const there = `failed to create manager for existing fields: failed to convert new object (shop/orders; apps/v1, Kind=Deployment) to smd typed: errors:\n  ${where}: duplicate entries for ${key}`;
    server.faults.clear();
    server.faults.always('patch', { kind: 'status', code: 500, message: there }, 'deployments');
    const second = await restore(backed, cluster, { clock: hastyClock });
    expect(countOutcomes(second.objects)).toMatchObject({ unchanged: restoredCount - 1, failed: 0 });
    const deployment = { apiVersion: 'apps/v1', kind: 'Deployment', name: 'orders', namespace: 'shop' };
    await cluster.setScale(deployment, 9);
    const { objects } = await restore(backed, cluster, { clock: hastyClock, only: ['Deployment'] });
    expect(objects.find(({ error }) => error)?.error).toMatchObject({
      kind: 'refused',
      message: expect.stringContaining('MODE'),
    });
    cluster.close();
  });

  test('what fails because something else was not ready yet is tried once more at the end', async () => {
    let refused = 0;
    const cluster = withApply((kind) => {
      if (kind === 'Deployment' && refused++ === 0)
        throw new DrError('denied', 'the cluster does not admit it yet', { next: 'Wait.' });
    });
    const result = await restore(await backedShop(), cluster);
    expect(failureOfAll(result)).toBeUndefined();
    expect(refused).toBe(2);
  });
});

test('stopped in the middle, it says what was not tried', async () => {
  const stop = new AbortController();
  const cluster = withApply((_kind, number) => {
    if (number === 9) stop.abort(new DrError('interrupted', 'stopped by SIGTERM'));
  });
  const result = await restore(await backedShop(), cluster, { signal: stop.signal });
  expect(failureOfAll(result)).toBe('interrupted');
  const counts = countOutcomes(result.objects);
  expect(counts['not-tried']).toBeGreaterThan(0);
  expect(counts.failed).toBe(0);
});

test('an object that the server calls too large, and a namespace that is being deleted: named, the rest goes on', async () => {
  const backed = await backedShop();
  const metadata = { name: 'huge', namespace: 'shop' };
  const huge = { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { a: 'x'.repeat(1_600_000) } };
  const large = await restore({ ...backed, objects: [...backed.objects, huge] }, new MemoryCluster());
  expect(large.objects.filter(({ error }) => error)).toMatchObject([
    { ref: { name: 'huge' }, error: { kind: 'refused', message: expect.stringContaining('too large') } },
  ]);
  expect(countOutcomes(large.objects).created).toBe(restoredCount);

  const leaving = new MemoryCluster();
  await leaving.create({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'shop', finalizers: ['shop.example/wait'] },
  });
  await leaving.delete({ apiVersion: 'v1', kind: 'Namespace', name: 'shop' });
  const result = await restore(backed, leaving);
  const outside = shopObjects.filter(({ metadata: { namespace } }) => namespace === undefined).length;
  const counts = countOutcomes(result.objects);
  expect(counts.failed).toBe(restoredCount - outside);
  const [first] = result.objects.filter(({ error }) => error);
  expect(first?.error?.message).toMatch(/terminated|being deleted/);
});
