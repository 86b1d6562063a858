import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import type { ConnectionOptions } from '../../src/cluster/connection.ts';
import type { ClusterObject } from '../../src/cluster/contract.ts';
import { KubernetesCluster } from '../../src/cluster/kubernetes.ts';
import { KubernetesServer } from '../harness/kubernetes/server.ts';
import { skippingClock } from '../traffic/support.ts';
import { settingsFor } from './support.ts';

const orders = { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'default', name: 'orders' };
const object: ClusterObject = {
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'orders', namespace: 'default' },
};

let server: KubernetesServer;
const opened: KubernetesCluster[] = [];

beforeEach(async () => {
  server = await KubernetesServer.start();
  server.objects.create({ ...object, metadata: { name: 'known', namespace: 'default' } }, undefined);
});

afterEach(async () => {
  for (const each of opened.splice(0)) each.close();
  await server[Symbol.asyncDispose]();
});

function open(options: Partial<ConnectionOptions> = {}) {
  const clock = skippingClock();
  const cluster = new KubernetesCluster(settingsFor(server), { log: silentLog, clock, ...options });
  opened.push(cluster);
  return { cluster, clock };
}

const known = { ...orders, name: 'known' };
const failure = (work: Promise<unknown>) => work.then(() => undefined).catch((error: unknown) => error);
const count = (verb: string) =>
  server.calls.filter((call) => call.startsWith(`${verb} /api/v1/namespaces/default/configmaps`)).length;

describe('a server that throttles', () => {
  it('is given the time that it asks for, whatever the request', async () => {
    const { cluster, clock } = open();
    server.faults.next('*', { kind: 'status', code: 429, retryAfter: 7 }, 2, 'configmaps');
    await cluster.create(object);
    expect(clock.pauses).toEqual([7000, 7000]);
    expect(count('create')).toBe(3);
  });

  it('for long, is told to the caller with what it asks for', async () => {
    const { cluster } = open();
    server.faults.always('*', { kind: 'status', code: 429, retryAfter: 1, message: 'too many requests' }, 'configmaps');
    const error = await failure(cluster.list(orders));
    expect(error).toMatchObject({
      kind: 'unreachable',
      retryable: true,
      message: expect.stringContaining('too many requests'),
    });
    server.faults.clear();
    server.faults.always('*', { kind: 'status', code: 429, retryAfter: 600 }, 'configmaps');
    const { cluster: other, clock } = open();
    expect(await failure(other.list(orders))).toMatchObject({ kind: 'unreachable' });
    expect(clock.pauses).toEqual([]);
  });
});

describe('a server that fails', () => {
  it('is asked again for what can be asked twice', async () => {
    const { cluster } = open();
    for (const fault of [{ kind: 'status', code: 503 }, { kind: 'drop' }, { kind: 'lose-reply' }] as const) {
      server.faults.next('*', fault, 2, 'configmaps');
      expect((await cluster.get(known)).metadata.name).toBe('known');
      server.faults.next('patch', fault, 2, 'configmaps');
      await cluster.apply({ ...object, metadata: { ...known }, data: { a: fault.kind } }, { force: true });
    }
  });

  it('is not asked again to make an object: it may have made it', async () => {
    const { cluster } = open();
    server.faults.next('create', { kind: 'lose-reply' });
    expect(await failure(cluster.create(object))).toMatchObject({ kind: 'unreachable', retryable: true });
    expect(count('create')).toBe(1);
    expect(await failure(cluster.create(object))).toMatchObject({ kind: 'conflict' });
    const { resourceVersion } = (await cluster.get(orders)).metadata;
    server.faults.next('patch', { kind: 'status', code: 500 });
    const change = { data: { a: '1' }, metadata: { resourceVersion } };
    expect(await failure(cluster.merge(orders, change))).toMatchObject({ kind: 'unreachable' });
    expect(count('patch')).toBe(1);
  });

  it('and answers by a proxy in its own words, is told in those', async () => {
    const { cluster } = open({ attempts: 1 });
    server.faults.next('*', { kind: 'proxy', code: 502, text: '<html><h1>Bad Gateway</h1></html>' });
    const error = await failure(cluster.version());
    expect(error).toMatchObject({ kind: 'unreachable', message: expect.stringContaining('502: Bad Gateway') });
    server.faults.next('*', { kind: 'proxy', code: 200, text: '<html>sign in</html>' });
    expect(await failure(cluster.version())).toMatchObject({
      kind: 'unreachable',
      message: expect.stringContaining('no JSON'),
    });
  });

  it('silently, is given up after a while', async () => {
    const { cluster } = open({ idleMs: 50, attempts: 1 });
    server.faults.next('*', { kind: 'hang' });
    const error = await failure(cluster.version());
    expect(error).toMatchObject({ kind: 'unreachable', message: expect.stringContaining('silent') });
  });

  it('or is slow, is left at the deadline of the caller', async () => {
    const { cluster } = open();
    server.faults.always('*', { kind: 'hang' });
    const late = await failure(cluster.version(AbortSignal.timeout(50)));
    expect(late).toMatchObject({ kind: 'unreachable', retryable: true });
    const stop = new AbortController();
    const stopped = failure(cluster.version(stop.signal));
    stop.abort();
    expect(await stopped).toMatchObject({ kind: 'interrupted' });
  });

  it('is away, is told with its address and comes back', async () => {
    const { cluster } = open({ attempts: 2 });
    await cluster.get(known);
    await server.stop();
    const error = await failure(cluster.get(known));
    expect(error).toMatchObject({ kind: 'unreachable', where: expect.stringContaining(`127.0.0.1:${server.port}`) });
    expect(String(error)).toContain('ECONNREFUSED');
    await server.listen();
    expect((await cluster.get(known)).metadata.name).toBe('known');
  });
});

it('goes by few connections, however many the requests', async () => {
  const { cluster } = open();
  for (let i = 0; i < 20; i++) await cluster.get(known);
  for await (const _event of cluster.watch(orders, { resourceVersion: '1', timeoutSeconds: 0.05 })) break;
  await cluster.get(known);
  expect(server.connections).toBeLessThanOrEqual(3);
});

it('does not believe a certificate of an authority that it was not given', async () => {
  await using other = await KubernetesServer.start({ tls: true });
  const trusted = settingsFor(other);
  const cluster = new KubernetesCluster({ ...trusted, ca: undefined }, { log: silentLog });
  const error = await failure(cluster.version());
  expect(error).toMatchObject({
    kind: 'unreachable',
    retryable: false,
    next: expect.stringContaining('certificate-authority'),
  });
  cluster.close();
  const insecure = new KubernetesCluster({ ...trusted, ca: undefined, insecure: true }, { log: silentLog });
  expect((await insecure.version()).git).toBe('v1.32.3-test');
  insecure.close();
});

describe('a server that starts', () => {
  it.each([false, true])(
    'is asked for its kinds when it is ready: until then it tells of a few (plain: %s)',
    async (plain) => {
      await using other = await KubernetesServer.start({ plainDiscovery: plain });
      const cluster = new KubernetesCluster(settingsFor(other), {
        log: silentLog,
        clock: skippingClock(),
        attempts: 2,
      });
      other.isStarting = true;
      const unready = { kind: 'unreachable', retryable: true, message: expect.stringContaining('not ready') };
      expect(await failure(cluster.discover())).toMatchObject(unready);
      // Ready when it was asked, gone and back before it told.
      other.isStarting = false;
      other.faults.next('get', { kind: 'before', act: () => Object.assign(other, { isStarting: true }) }, 1, '/apis');
      expect(await failure(cluster.discover())).toMatchObject(unready);
      other.faults.next(
        'get',
        { kind: 'before', act: () => Object.assign(other, { isStarting: false }) },
        1,
        '/readyz',
      );
      expect((await cluster.discover()).types.map(({ kind }) => kind)).toContain('Deployment');
      cluster.close();
    },
  );

  it('or does not let dr ask whether it is ready, is taken as it is', async () => {
    const { cluster } = open();
    server.faults.always('get', { kind: 'status', code: 403, message: 'cannot get path "/readyz"' }, '/readyz');
    expect((await cluster.discover()).types.map(({ kind }) => kind)).toContain('Deployment');
  });
});

it('says what is missing where one of the servers behind it is down, and gives the rest', async () => {
  for (const plainDiscovery of [false, true]) {
    await using other = await KubernetesServer.start({ plainDiscovery });
    other.missing.add('metrics.k8s.io/v1beta1');
    const cluster = new KubernetesCluster(settingsFor(other), { log: silentLog, clock: skippingClock() });
    const { types, missing } = await cluster.discover();
    expect(missing).toEqual(['metrics.k8s.io/v1beta1']);
    expect(types.map(({ kind }) => kind)).toContain('Deployment');
    cluster.close();
  }
});

describe('a refusal', () => {
  const refused = async (code: number, message: string) => {
    const { cluster } = open({ attempts: 1 });
    server.faults.next('*', { kind: 'status', code, message }, 1, 'configmaps');
    return await failure(cluster.get(known));
  };

  it.each([
    [401, 'Unauthorized', 'denied', 'sign in again'],
    [403, 'exceeded quota: pods', 'denied', 'admission'],
    [410, 'too old', 'conflict', 'List the objects anew'],
    [413, 'limit is 3145728', 'refused', 'part it'],
    [500, 'etcdserver: request is too large', 'refused', 'part it'],
    [504, 'etcdserver: request timed out', 'unreachable', 'Wait'],
    [400, 'bad request', 'refused', 'Correct the object'],
  ])('%i (%s) is %s', async (code, message, kind, next) => {
    if (code === 401) server.faults.always('*', { kind: 'status', code, message }, 'configmaps');
    const error = await refused(code, message);
    expect(error).toMatchObject({
      kind,
      next: expect.stringContaining(next),
      message: expect.stringContaining(message),
    });
  });

  it('of an object that is too large says so', async () => {
    const { cluster } = open();
    const large = { ...object, data: { a: 'x'.repeat(1_600_000) } };
    expect(await failure(cluster.create(large))).toMatchObject({
      kind: 'refused',
      message: expect.stringContaining('too large'),
    });
  });
});
