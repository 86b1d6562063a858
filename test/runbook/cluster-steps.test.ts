import { describe, expect, it } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { loadRunbook, shippedRunbooks } from '../../src/runbook/load.ts';
import { planRun } from '../../src/runbook/plan.ts';
import { executeRun } from '../../src/runbook/run.ts';
import { ClusterWorld } from './cluster-world.ts';
import { failureOf, Mortal } from './world.ts';

const before = { api: '3 of 3', nightly: 'due', 'orders-db': '1 of 1', all: 'automated', shop: 'automated' };
const fenced = { api: '0 of 0', nightly: 'suspended', 'orders-db': '0 of 0', all: 'paused', shop: 'paused' };
const parked = { api: '0 of 0', nightly: 'suspended' };
const started = { api: '3 of 3', nightly: 'due' };

describe('a failover between clusters', () => {
  it('stops the writers of the old site before the fence, and starts them at the new one after the promotion', async () => {
    const it = await ClusterWorld.create();
    const { world } = it;
    // Nothing but the cluster can say that the old primary is dead.
    world.recovery.heartbeat = undefined;
    const { outcome, error, report } = await world.run();
    expect([outcome, error]).toEqual(['succeeded', undefined]);
    expect([it.state('east'), it.state('west')]).toEqual([fenced, started]);
    const evidence = (id: string) => report.steps.find((step) => step.id === id)?.evidence.join('\n') ?? '';
    expect(evidence('gitops-old[shop]')).toMatch(
      /was paused by run .*its controller has looked at it since.* did nothing for/,
    );
    expect(evidence('writers-old[api]')).toContain('wants 0 (before: 3): 3 pods ended, the last is gone');
    expect(evidence('fence[orders]')).toContain('StatefulSet shop/orders-db at east wants 0 and has no pod');
    expect(evidence('start[api]')).toContain('3 of 3 ready');
    expect(world.clusters.effects.findIndex((each) => each.startsWith('west'))).toBe(
      world.clusters.effects.findLastIndex((each) => each.startsWith('east')) + 1,
    );
  });

  it('goes on when the cluster of the old site does not answer, and fences by other proof', async () => {
    const it = await ClusterWorld.create();
    it.world.clusters.dead.add('east');
    const { outcome, report } = await it.world.run();
    expect(outcome).toBe('succeeded');
    expect(report.steps.find(({ id }) => id === 'writers-old[api]')?.evidence.join()).toContain('does not answer');
    expect(report.steps.find(({ id }) => id === 'fence[orders]')?.evidence.join()).toContain('has stood still');
    expect(it.state('west')).toEqual(started);
  });

  it('stops at the fence when nobody could stop the writers; mended, the same command stops them and goes on', async () => {
    const it = await ClusterWorld.create();
    // It lives as long as its pod does.
    Object.defineProperty(it.world, 'oldSiteDead', { get: () => it.state('east')['orders-db'] === '0 of 0' });
    it.world.clusters.locked.add('east');
    const stopped = await it.world.run();
    expect(stopped.outcome).toBeUndefined();
    expect(stopped.error?.message).toContain('did not refuse a write');
    expect(it.world.recovery.isPromoted('orders')).toBe(false);
    it.world.clusters.locked.delete('east');
    const again = await it.world.run();
    expect(again).toMatchObject({ runId: stopped.runId, outcome: 'succeeded' });
    expect([it.state('east'), it.state('west')]).toEqual([fenced, started]);
  });

  it('does not take a pod on a lost node for gone', async () => {
    const it = await ClusterWorld.create();
    it.east.stuck.add('orders-db-0');
    it.world.recovery.heartbeat = undefined;
    const { outcome, report, error } = await it.world.run();
    expect(outcome).toBeUndefined();
    expect(error?.message).toContain('it is not proven that the old primary of orders cannot write');
    const scaled = report.steps.find(({ id }) => id === 'writers-old[orders-db]');
    expect(scaled?.evidence.join()).toContain('still there: orders-db-0 (Running');
    expect(it.world.recovery.isPromoted('orders')).toBe(false);
  });

  it('is planned with the real objects, and touches none', async () => {
    const it = await ClusterWorld.create();
    const plan = await planRun(it.world.engine(), it.world.request());
    expect(plan.steps.flatMap(({ problems }) => problems)).toEqual([]);
    const api = plan.steps.find(({ id }) => id === 'writers-old[api]');
    expect(api?.target).toBe('Deployment shop/api in the cluster of east');
    expect(api?.present).toMatch(/^wants 3, pods: api-.*Running/);
    expect(plan.steps.find(({ id }) => id === 'start[api]')?.will).toEqual([
      'scale it to 3 and wait until all are ready',
    ]);
    expect(it.world.clusters.effects).toEqual([]);
  });

  it('expects a primary that still lives to be stopped before the fence', async () => {
    const it = await ClusterWorld.create();
    it.world.oldSiteDead = false;
    const plan = await planRun(it.world.engine(), it.world.request());
    const fence = plan.steps.find(({ id }) => id === 'fence[orders]');
    expect(fence).toMatchObject({
      problems: [],
      will: ['expect that it was stopped before: orders-db wants 0 then', expect.stringContaining('stop otherwise')],
    });
  });

  it('is drilled without a write to any cluster', async () => {
    const it = await ClusterWorld.create();
    it.world.oldSiteDead = false;
    const { outcome, report } = await it.world.run({ mode: 'drill' });
    expect(outcome).toBe('succeeded');
    expect(report.steps.find(({ id }) => id === 'start[api]')?.evidence.join()).toContain('would take 3 (dry run)');
    expect([it.state('east'), it.state('west'), it.world.clusters.effects]).toEqual([before, parked, []]);
  });

  it('ends the same whenever it is killed around a change of a cluster', async () => {
    const counting = new Mortal();
    const first = await ClusterWorld.create();
    await first.world.run({}, counting);
    const moments = counting.passed.flatMap((what, i) => (/ (east|west) merge /.test(what) ? [i + 1] : []));
    expect(moments.length).toBeGreaterThanOrEqual(14);
    for (const moment of moments) {
      const it = await ClusterWorld.create();
      const mortal = new Mortal(moment);
      await failureOf(it.world.run({}, mortal));
      const resumed = await it.world.run();
      const where = `killed at ${mortal.passed.at(-1)}`;
      expect(resumed.outcome, where).toBe('succeeded');
      expect([it.state('east'), it.state('west')], where).toEqual([fenced, started]);
      expect([it.annotations('east'), it.annotations('west')], where).toEqual([
        first.annotations('east'),
        first.annotations('west'),
      ]);
    }
  });
});

describe('a database that comes back into a volume', () => {
  const sections = `workloads:
  orders-db: { kind: StatefulSet, namespace: shop, database: orders, sites: [west], restore: { image: "registry/dr:1" } }
`;

  it('goes through the shipped runbook like any other, and the plan says where', async () => {
    const it = await ClusterWorld.create('failover', sections);
    const plan = await planRun(it.world.engine(), it.world.request());
    expect(plan.steps.flatMap(({ problems }) => problems)).toEqual([]);
    const restore = plan.steps.find(({ id }) => id === 'database[orders]');
    expect(restore?.target).toMatch(/^volume of StatefulSet shop\/orders-db \(.*\/west\/orders\)$/);
    expect(restore?.will).toContain('fill the volume by a Job of registry/dr:1');
    expect(plan.steps.find(({ id }) => id === 'promote[orders]')?.target).toContain('volume of StatefulSet');
  });

  it('is drilled beside, without its volume', async () => {
    const it = await ClusterWorld.create('failover', sections);
    const { outcome } = await it.world.run({ mode: 'drill' });
    expect([outcome, it.world.clusters.effects]).toEqual(['succeeded', []]);
  });
});

describe('steps of clusters in a failover', () => {
  const kinds = ['gitops.pause', 'workload.scale', 'gitops.resume'];

  it('may fail, each in turn: the run is degraded or stops, and the same command goes on', async () => {
    for (const name of kinds) {
      const it = await ClusterWorld.create();
      const { world } = it;
      const kind = world.registry.get(name);
      if (!kind) throw new Error(name);
      let planted = 0;
      world.registry = new Map(world.registry).set(name, {
        ...kind,
        run: async (context, params) => {
          if (params['site'] === 'old' || planted++ > 0) return await kind.run(context, params);
          throw new DrError('local', 'a planted failure');
        },
      });
      const runbook = await loadRunbook(shippedRunbooks, 'failover', world.registry);
      const first = await world.run({ runbook });
      if (name === 'workload.scale')
        expect([first.outcome, first.error?.message]).toEqual([undefined, 'a planted failure']);
      if (name === 'gitops.resume') expect(first.outcome).toBe('degraded');
      else expect(first.outcome ?? (await world.run({ runbook })).outcome, name).toBe('succeeded');
      expect([it.state('east'), it.state('west')], name).toEqual([fenced, started]);
    }
  });

  it('may run twice', async () => {
    const it = await ClusterWorld.create();
    const { world } = it;
    for (const name of kinds) {
      const kind = world.registry.get(name);
      if (!kind) throw new Error(name);
      world.registry = new Map(world.registry).set(name, {
        ...kind,
        run: async (context, params) => {
          const first = await kind.run(context, params);
          const again = await kind.run(context, params);
          if (name === 'workload.scale') expect(again).toEqual(first);
          return again;
        },
      });
    }
    const runbook = await loadRunbook(shippedRunbooks, 'failover', world.registry);
    expect((await world.run({ runbook })).outcome).toBe('succeeded');
    expect([it.state('east'), it.state('west')]).toEqual([fenced, started]);
  });
});

describe('a switchover between clusters', () => {
  it('leaves the old applications alone until the traffic has moved, then lets the old site rest', async () => {
    const it = await ClusterWorld.create('switchover');
    it.world.oldSiteDead = false;
    const { outcome, error } = await it.world.run({ mode: 'switchover' });
    expect([error, outcome]).toEqual([undefined, 'succeeded']);
    expect([it.state('east'), it.state('west')]).toEqual([{ ...fenced, 'orders-db': '1 of 1' }, started]);
  });

  it('is the way back too: the old site gets what it had, and its reconcilers go on', async () => {
    const it = await ClusterWorld.create('switchover');
    it.world.oldSiteDead = false;
    await it.world.run({ mode: 'switchover' });
    const { west, east } = it.world.config.sites;
    if (!west || !east) throw new Error('two sites');
    const { stepRegistry } = await import('../../src/steps/registry.ts');
    for (const [uses, entry] of [
      ['workload.scale', 'api'],
      ['workload.scale', 'nightly'],
      ['gitops.resume', 'all'],
      ['gitops.resume', 'shop'],
    ] as const) {
      const kind = stepRegistry.get(uses);
      const engine = it.world.engine();
      await kind?.run(
        {
          run: {
            id: 'back',
            mode: 'failback',
            site: 'east',
            from: 'west',
            at: { kind: 'latest' },
            startedAtMs: 0,
            acceptedSplitBrain: undefined,
          },
          each: entry,
          world: { ...engine.world, site: east, from: west },
          clock: it.world.clock,
          log: engine.log,
          signal: engine.signal,
          progress: () => {},
          note: () => {},
        },
        uses === 'workload.scale' ? { to: 'kept' } : {},
      );
    }
    await it.settled();
    expect(it.state('east')).toEqual(before);
    expect(it.annotations('east')).toEqual({ api: ['dr.io/scaled'], nightly: ['dr.io/scaled'] });
  });
});

describe('a world without workloads', () => {
  it('has no such steps', async () => {
    const it = await ClusterWorld.create('failover', '');
    const { report } = await executeRun(it.world.engine(), it.world.request());
    expect(report.steps.filter(({ id }) => /^(gitops|start|writers)/.test(id))).toEqual([]);
  });
});
