import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { DrError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import type { Cluster } from '../../src/cluster/contract.ts';
import { ClusterLease } from '../../src/cluster/lease.ts';
import { MemoryCluster } from '../../src/cluster/memory/cluster.ts';
import { openCluster } from '../../src/cluster/open.ts';
import { LeaderKeeper, ledBy, type Succession } from '../../src/daemon/leader.ts';
import { VaultSuccession } from '../../src/daemon/succession.ts';
import { MemoryStore } from '../../src/vault/memory-store.ts';
import { KubernetesServer } from '../harness/kubernetes/server.ts';
import { tempDir } from '../harness/temp.ts';
import { ManualClock, TestJob } from './support.ts';

const DURATION = 12_000;
const REF = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', namespace: 'dr', name: 'dr-east' };
const never = new AbortController().signal;

/** Time passes, and each of these reads the Lease every two seconds, as replicas do. */
async function pass(clock: ManualClock, ms: number, ...watching: readonly ClusterLease[]): Promise<void> {
  for (let left = ms; left > 0; left -= 2000) {
    await clock.advance(Math.min(2000, left));
    for (const lease of watching) await lease.look(never);
  }
}

function clusterWithNamespace(): MemoryCluster {
  const cluster = new MemoryCluster();
  cluster.objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'dr' } }, undefined);
  return cluster;
}

/** `skewMs`: how far the wall clock of this process is off; what counts is the other one. */
function leaseOf(cluster: Cluster, identity: string, clock: ManualClock, skewMs = 0): ClusterLease {
  const { namespace, name } = REF;
  return new ClusterLease(cluster, {
    namespace,
    name,
    identity,
    durationMs: DURATION,
    elapsed: () => clock.now(),
    now: () => clock.now() + skewMs,
  });
}

test('the Lease is taken once, renewed without another generation, and read as others write it', async () => {
  const cluster = clusterWithNamespace();
  const clock = new ManualClock();
  const a = leaseOf(cluster, 'a', clock);
  expect(await a.attempt(never)).toMatchObject({ mine: true, generation: 1 });
  await clock.advance(4000);
  expect(await a.attempt(never)).toMatchObject({ mine: true, generation: 1 });
  expect((await cluster.get(REF))['spec']).toEqual({
    holderIdentity: 'a',
    leaseDurationSeconds: 12,
    leaseTransitions: 1,
    acquireTime: '2026-01-01T00:00:00.000000Z',
    renewTime: '2026-01-01T00:00:04.000000Z',
  });
});

test.each([0, 86_400_000, -86_400_000])(
  'another process takes it over when its word has not changed for the whole duration, by its own clock; wall clocks may differ by %i ms',
  async (skewMs) => {
    const cluster = clusterWithNamespace();
    const clock = new ManualClock();
    const [a, b] = [leaseOf(cluster, 'a', clock), leaseOf(cluster, 'b', clock, skewMs)];
    await a.attempt(never);
    expect(await b.attempt(never)).toMatchObject({ mine: false, holder: 'a' });
    await pass(clock, DURATION, b);
    await a.attempt(never);
    expect(await b.attempt(never)).toMatchObject({ mine: false });
    await pass(clock, DURATION, b);
    expect(await b.attempt(never)).toMatchObject({ mine: false });
    await clock.advance(1);
    expect(await b.attempt(never)).toMatchObject({ mine: true, generation: 2 });
    expect(await a.attempt(never)).toMatchObject({ mine: false, holder: 'b', generation: 2 });
  },
);

test('after an outage of the API server the holder has the whole duration to speak again before another takes over', async () => {
  const cluster = clusterWithNamespace();
  const clock = new ManualClock();
  const [a, b] = [leaseOf(cluster, 'a', clock), leaseOf(cluster, 'b', clock)];
  await a.attempt(never);
  await b.attempt(never);
  // Nobody can read or write for an hour.
  await clock.advance(3_600_000);
  expect(await b.attempt(never)).toMatchObject({ mine: false, holder: 'a' });
  await pass(clock, DURATION - 1000, b);
  expect(await a.attempt(never)).toMatchObject({ mine: true, generation: 1 });
  expect(await b.attempt(never)).toMatchObject({ mine: false });
});

test('a Lease that was given back is taken at once; one that is not ours is not given back', async () => {
  const cluster = clusterWithNamespace();
  const clock = new ManualClock();
  const [a, b] = [leaseOf(cluster, 'a', clock), leaseOf(cluster, 'b', clock)];
  await a.attempt(never);
  await b.release(never);
  expect(await b.attempt(never)).toMatchObject({ mine: false });
  await a.release(never);
  expect(await b.attempt(never)).toMatchObject({ mine: true, generation: 2 });
});

test('of many that try at the same moment exactly one gets it; a reply that was lost is found again', async () => {
  await using server = await KubernetesServer.start();
  server.objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'dr' } }, undefined);
  const kubeconfig = join(await tempDir('lease'), 'kubeconfig');
  writeFileSync(kubeconfig, server.kubeconfig());
  const cluster = await openCluster({ kubeconfig, context: undefined, env: {} }, silentLog);
  const clock = new ManualClock();
  const all = ['a', 'b', 'c', 'd', 'e'].map((identity) => leaseOf(cluster, identity, clock));
  const held = async () =>
    (await Promise.all(all.map(async (lease) => await lease.attempt(never)))).filter(({ mine }) => mine);
  expect(await held()).toHaveLength(1);
  await pass(clock, DURATION + 1, ...all);
  const again = await held();
  expect(again).toHaveLength(1);

  server.faults.next('patch', { kind: 'lose-reply' });
  const holder = all.find(({ identity }) => identity === again[0]?.holder);
  await expect(holder?.attempt(never)).rejects.toMatchObject({ kind: 'unreachable' });
  expect(await holder?.attempt(never)).toMatchObject({ mine: true, generation: again[0]?.generation });
  cluster.close();
});

/** A cluster whose server can be away. */
function flaky(cluster: Cluster): { readonly cluster: Cluster; isDown: boolean } {
  const gate = {
    isDown: false,
    cluster: new Proxy(cluster, {
      get: (target, key) => {
        const value: unknown = Reflect.get(target, key);
        if (typeof value !== 'function') return value;
        return async (...given: unknown[]) => {
          if (gate.isDown) throw new DrError('unreachable', 'the API server does not answer');
          return await Reflect.apply(value, target, given);
        };
      },
    }),
  };
  return gate;
}

function keeperOf(lease: ClusterLease, clock: ManualClock, succession: Succession) {
  const roles: string[] = [];
  const keeper = new LeaderKeeper({
    lease,
    succession,
    clock,
    elapsed: () => clock.now(),
    log: silentLog,
    onChange: ({ role }) => roles.push(role),
  });
  return { keeper, roles };
}

test('a leader whose server is away counts itself out before another may take over, asks the vaults, and goes on when they name nobody', async () => {
  const clock = new ManualClock();
  const gate = flaky(clusterWithNamespace());
  const store = new MemoryStore({ name: 'east' });
  const { keeper, roles } = keeperOf(
    leaseOf(gate.cluster, 'a', clock),
    clock,
    new VaultSuccession('east', [store], silentLog, clock),
  );
  const running = keeper.run();
  await clock.advance(0);
  await expect.poll(() => keeper.state.role).toBe('leader');
  expect(keeper.leads()).toBe(true);
  await clock.advance(2500);
  const lastMs = clock.now();

  gate.isDown = true;
  let outMs = 0;
  for (let i = 0; i < 240 && keeper.state.role !== 'lapsed'; i++) {
    await clock.advance(100);
    await new Promise((resolve) => setImmediate(resolve));
    if (outMs === 0 && !keeper.leads()) outMs = clock.now();
    expect(keeper.keeps()).toBe(true);
  }
  expect(outMs - lastMs).toBeLessThanOrEqual((DURATION * 2) / 3);
  expect(keeper.leads()).toBe(false);
  await expect(keeper.confirm(never)).rejects.toMatchObject({ kind: 'lease-held', message: 'no replica leads now' });

  for (let i = 0; i < 200 && !keeper.leads(); i++) {
    await clock.advance(100);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  expect(keeper.leads()).toBe(true);
  expect(clock.now() - lastMs).toBeGreaterThanOrEqual(2 * DURATION - 2500);

  gate.isDown = false;
  for (let i = 0; i < 100 && keeper.state.role !== 'leader'; i++) {
    await clock.advance(100);
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(keeper.state).toMatchObject({ role: 'leader', generation: 1 });
  expect(roles).toEqual(['leader', 'lapsed', 'leader']);
  await keeper.stop(0);
  await running;
});

test('an API server that accepts requests and never answers counts as one that is away', async () => {
  await using server = await KubernetesServer.start();
  server.objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'dr' } }, undefined);
  const kubeconfig = join(await tempDir('lease'), 'kubeconfig');
  writeFileSync(kubeconfig, server.kubeconfig());
  const cluster = await openCluster({ kubeconfig, context: undefined, env: {} }, silentLog);
  const { namespace, name } = REF;
  const elapsed = () => performance.now();
  const lease = new ClusterLease(cluster, { namespace, name, identity: 'a', durationMs: 1500, elapsed, now: Date.now });
  const succession: Succession = { announce: async () => true, isSucceeded: async () => false };
  const keeper = new LeaderKeeper({
    lease,
    succession,
    clock: systemClock,
    elapsed,
    log: silentLog,
    onChange: () => {},
  });
  const running = keeper.run();
  await expect.poll(() => keeper.state.role, { timeout: 5000 }).toBe('leader');
  server.faults.always('get', { kind: 'hang' }, 'leases');
  const hungMs = performance.now();
  await expect.poll(() => keeper.state.role, { timeout: 10_000, interval: 20 }).toBe('lapsed');
  expect(performance.now() - hungMs).toBeLessThan(1500 + 2000);
  server.faults.clear();
  await expect.poll(() => keeper.state.role, { timeout: 10_000 }).toBe('leader');
  await keeper.stop(0);
  await running;
  cluster.close();
});

test('a process that stood still leads no more from the moment it wakes up, before it has asked anybody', async () => {
  const clock = new ManualClock();
  let stoodStillMs = 0;
  const cluster = clusterWithNamespace();
  const { namespace, name } = REF;
  const elapsed = () => clock.now() + stoodStillMs;
  const lease = new ClusterLease(cluster, {
    namespace,
    name,
    identity: 'a',
    durationMs: DURATION,
    elapsed,
    now: elapsed,
  });
  const succession: Succession = { announce: async () => true, isSucceeded: async () => false };
  const keeper = new LeaderKeeper({ lease, succession, clock, elapsed, log: silentLog, onChange: () => {} });
  const running = keeper.run();
  await expect.poll(() => keeper.leads()).toBe(true);
  stoodStillMs = DURATION;
  expect(keeper.leads()).toBe(false);

  // While it stood still another one has taken over.
  const b = leaseOf(cluster, 'b', clock);
  await b.attempt(never);
  await clock.advance(0);
  const other = new ManualClock();
  const late = leaseOf(cluster, 'c', other);
  await late.attempt(never);
  await pass(other, DURATION + 1, late);
  expect(await late.attempt(never)).toMatchObject({ mine: true, generation: 2 });
  const job = new TestJob(clock);
  const [led] = ledBy(keeper, [job]);
  expect(led?.mayBegin?.()).toBe(false);
  await expect(led?.run(never, 'scheduled')).rejects.toMatchObject({ kind: 'lease-held', message: 'c leads' });
  expect(job.started).toEqual([]);
  expect(keeper.state.role).toBe('standby');
  await keeper.stop(0);
  await running;
});

test('the vaults tell a leader without API server of its successor, if one of them can', async () => {
  const clock = new ManualClock();
  const [east, west] = [new MemoryStore({ name: 'east' }), new MemoryStore({ name: 'west' })];
  const stores = [east, west];
  const a = new VaultSuccession('east', stores, silentLog, clock);
  const b = new VaultSuccession('east', [west], silentLog, clock);
  expect(await a.isSucceeded(never)).toBeUndefined();
  expect(await a.announce('a leads', never)).toBe(true);
  expect(await a.isSucceeded(never)).toBe(false);
  expect(await b.announce('b leads', never)).toBe(true);
  expect(await a.isSucceeded(never)).toBe(true);
  expect(await b.isSucceeded(never)).toBe(false);
  // Of another site.
  expect(await new VaultSuccession('west', stores, silentLog, clock).announce('other', never)).toBe(true);
  expect(await b.isSucceeded(never)).toBe(false);
});
