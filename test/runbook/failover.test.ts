import { describe, expect, it } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { renderRunText } from '../../src/report/run-text.ts';
import { listRunIds, readJournal } from '../../src/runbook/journal.ts';
import { planRun } from '../../src/runbook/plan.ts';
import { executeRun } from '../../src/runbook/run.ts';
import { readReport } from '../../src/runbook/run-report.ts';
import { errorOfKind, failureOf, Mortal, TestWorld } from './world.ts';

describe('the shipped failover', () => {
  it('brings everything up, redirects, and reports what it achieved', async () => {
    const world = await TestWorld.create();
    const result = await world.run();
    expect(result.error).toBeUndefined();
    expect(result.outcome).toBe('succeeded');
    expect(world.zone.values).toEqual(['198.51.100.10']);
    expect(world.recovery.effects.toSorted()).toEqual([
      'open orders',
      'promote orders',
      'restore orders',
      'restore settings',
      'restore uploads',
      'slot orders',
    ]);
    const report = await readReport(world.west, result.runId);
    const { documents, ...stored } = report;
    expect(stored).toEqual(result.report);
    expect(Object.keys(documents ?? {})).toEqual(['md', 'html']);
    expect(await readReport(world.east, result.runId)).toEqual(report);
    expect(report.stages.map(({ name, status }) => `${name} ${status}`)).toEqual([
      'assess done',
      'activate done',
      'restore done',
      'validate done',
      'redirect done',
      'stabilize done',
    ]);
    const orders = report.resources.find(({ name }) => name === 'orders');
    // The last heartbeat came one second after what was recovered, and the site may have lived until the next one was due.
    expect(orders).toMatchObject({ status: 'recovered', lossMs: 6000, met: true, objectiveMs: 15 * 60_000 });
    expect(report.rto.met).toBe(true);
    // Watching for 30 s is not part of the recovery, but of the run.
    expect(report.endedAtMs - report.startedAtMs - report.rto.achievedMs).toBeGreaterThanOrEqual(30_000);
    expect(report.journal.entries).toBeGreaterThan(20);
  });

  it('stops before promotion when the old primary still writes, and goes on when a person accepts that by name', async () => {
    const world = await TestWorld.create();
    world.oldSiteDead = false;
    const stopped = await world.run();
    expect(stopped.outcome).toBeUndefined();
    expect(stopped.error).toMatchObject({
      kind: 'refused',
      message: expect.stringContaining('did not refuse a write'),
    });
    expect(stopped.error?.next).toContain('--accept-split-brain');
    expect(world.recovery.isPromoted('orders')).toBe(false);
    expect(world.redirects).toEqual([]);
    const told = renderRunText(stopped.report);
    expect(told).toMatch(/orders .* of 15 min: so far/);
    expect(told).not.toContain('service was back');

    const again = await world.run({ acceptSplitBrain: 'Ada Lovelace' });
    expect(again).toMatchObject({ runId: stopped.runId, resumed: true, outcome: 'succeeded' });
    expect(again.report.acceptedSplitBrain).toBe('Ada Lovelace');
    expect(world.recovery.effects.filter((effect) => effect === 'restore orders')).toHaveLength(1);
  });

  it('brings back what was archived between the restore and the fence, and counts the loss from there', async () => {
    const world = await TestWorld.create();
    // The old site lives, and writes, until the fence looks at its archive.
    const { heartbeat } = world.recovery;
    world.recovery.onEffect = (what) => {
      if (what !== 'restore orders' || !heartbeat) return;
      world.recovery.archivedTo = '0/5000000';
      world.recovery.heartbeat = { ...heartbeat, writtenAtMs: world.clock.now() - 20_000, lsn: '0/5000000' };
    };
    const result = await world.run();
    expect(result.outcome).toBe('succeeded');
    expect(world.recovery.effects.filter((what) => / orders$/.test(what)).slice(0, 3)).toEqual([
      'restore orders',
      'catch up orders',
      'promote orders',
    ]);
    const replay = result.report.steps.find(({ id }) => id === 'replay[orders]');
    expect(replay?.evidence.join()).toContain('replayed on from 0/4000000 to 0/5000000');
    const orders = result.report.resources.find(({ name }) => name === 'orders');
    const lastSign = world.recovery.heartbeat?.writtenAtMs ?? 0;
    expect(orders?.recoveredToMs).toBe(world.recovery.startedMs - 1000);
    // It may have lived until the next heartbeat was due.
    expect(orders?.lossMs).toBe(lastSign + 5000 - (orders?.recoveredToMs ?? 0));
  });

  it('does not replay beyond the moment that was asked for', async () => {
    const world = await TestWorld.create();
    world.recovery.onEffect = (what) => {
      if (what === 'restore orders') world.recovery.archivedTo = '0/5000000';
    };
    const at = { kind: 'time', atMs: world.recovery.startedMs - 60_000 } as const;
    const result = await world.run({ at });
    expect(result.outcome).toBe('succeeded');
    expect(world.recovery.effects).not.toContain('catch up orders');
  });

  it('goes on with what it has when the rest cannot be had, and says what is lost', async () => {
    const world = await TestWorld.create();
    world.recovery.onEffect = (what) => {
      if (what === 'restore orders') world.recovery.archivedTo = '0/5000000';
    };
    world.recovery.failures.set('catch up orders', new DrError('refused', 'the pod template names no user'));
    const result = await world.run();
    expect(result.outcome).toBe('succeeded');
    const replay = result.report.steps.find(({ id }) => id === 'replay[orders]');
    expect(replay?.evidence.join()).toContain('the archive reaches to 0/5000000, which is LOST: the pod template');
  });

  it('stops when the rest cannot be had and the server went with it; the same command goes on', async () => {
    const world = await TestWorld.create();
    world.recovery.onEffect = (what) => {
      if (what === 'restore orders') world.recovery.archivedTo = '0/5000000';
    };
    for (const what of ['catch up orders', 'ask']) world.recovery.failures.set(what, new DrError('refused', 'no Jobs'));
    const stopped = await world.run();
    expect(stopped.error?.message).toBe('no Jobs');
    expect(world.recovery.isPromoted('orders')).toBe(false);
    expect((await world.run()).outcome).toBe('succeeded');
    expect(world.recovery.effects).toContain('catch up orders');
  });

  it('does not give up what was archived because the vault was away for a moment', async () => {
    const world = await TestWorld.create();
    world.recovery.onEffect = (what) => {
      if (what !== 'restore orders') return;
      world.recovery.archivedTo = '0/5000000';
      world.recovery.failures.set('look at the archive', new DrError('unreachable', 'the vault is away'));
    };
    const result = await world.run();
    expect(result.outcome).toBe('succeeded');
    expect(world.recovery.failures.size).toBe(0);
    expect(world.recovery.effects).toContain('catch up orders');
  });

  it('waits a little for the vault to get what another one tells of', async () => {
    const world = await TestWorld.create();
    const { heartbeat } = world.recovery;
    world.recovery.onEffect = (what) => {
      if (what === 'restore orders' && heartbeat) world.recovery.heartbeat = { ...heartbeat, lsn: '0/6000000' };
    };
    const before = world.clock.now();
    const result = await world.run();
    expect(result.outcome).toBe('succeeded');
    expect(world.clock.now() - before).toBeGreaterThan(15_000);
    const replay = result.report.steps.find(({ id }) => id === 'replay[orders]');
    expect(replay?.evidence.join()).toContain('ends at 0/4000000, another one at 0/6000000: that is LOST');
  });

  it('takes a refused write as proof', async () => {
    const world = await TestWorld.create();
    world.oldSiteDead = false;
    world.oldPrimaryReadOnly = true;
    const { report, outcome } = await world.run();
    expect(outcome).toBe('succeeded');
    const fence = report.steps.find(({ id }) => id === 'fence[orders]');
    expect(fence?.evidence.join('\n')).toContain('refused: cannot execute CREATE TABLE');
  });

  it('refuses while the archive of an unreachable primary still moves', async () => {
    const world = await TestWorld.create();
    world.recovery.onHeartbeatRead = () => {
      const now = world.clock.now();
      world.recovery.heartbeat = { site: 'east', writtenAtMs: now, everyMs: 5000, lsn: `0/${now.toString(16)}` };
    };
    const { error } = await world.run();
    expect(error?.message).toContain('the network is parted');
    expect(world.recovery.isPromoted('orders')).toBe(false);
  });

  it('refuses when no heartbeat can tell a dead site from a parted network', async () => {
    const world = await TestWorld.create();
    world.recovery.heartbeat = undefined;
    expect((await world.run()).error?.message).toContain('no vault has a heartbeat');
  });

  it('goes on without a folder that cannot be restored, and says so', async () => {
    const world = await TestWorld.create();
    world.recovery.failures.set('restore uploads', new DrError('corrupt', 'part 000001 is damaged'));
    const { outcome, report } = await world.run();
    expect(outcome).toBe('degraded');
    expect(report.resources.find(({ name }) => name === 'uploads')).toMatchObject({
      status: 'lost',
      problem: 'part 000001 is damaged',
    });
  });

  it('stops before the point of no return when a check of the data says no', async () => {
    const world = await TestWorld.create();
    world.recovery.failedChecks = ['select count(*) > 0 from orders'];
    const { error, outcome } = await world.run();
    expect(outcome).toBeUndefined();
    expect(error).toMatchObject({
      kind: 'check-failed',
      message: expect.stringContaining('select count(*) > 0 from orders'),
    });
    expect(world.recovery.isPromoted('orders')).toBe(false);
  });

  it('retries what may pass by itself', async () => {
    const world = await TestWorld.create();
    world.recovery.failures.set('restore orders', new DrError('unreachable', 'vault west does not answer'));
    const { outcome, report } = await world.run();
    expect(outcome).toBe('succeeded');
    expect(report.steps.find(({ id }) => id === 'database[orders]')?.attempts).toBe(2);
  });

  it('refuses a place that holds something else, before anything is restored', async () => {
    const world = await TestWorld.create();
    const directory = world.config.databases['orders']?.recover['west']?.dataDirectory ?? '';
    world.recovery.put(directory, 'foreign');
    const { error } = await world.run();
    expect(error).toMatchObject({ kind: 'refused', message: expect.stringContaining('did not put there') });
    expect(world.recovery.effects).toEqual([]);
  });

  it('never takes over a database that another run promoted', async () => {
    const world = await TestWorld.create();
    const directory = world.config.databases['orders']?.recover['west']?.dataDirectory ?? '';
    world.recovery.put(directory, 'promoted', 'another-run');
    expect((await world.run()).error?.message).toContain('promoted by run another-run');
    expect(world.recovery.effects).toEqual([]);
  });
});

describe('a plan', () => {
  it('writes nothing anywhere and names every step with its target', async () => {
    const world = await TestWorld.create();
    const plan = await planRun(world.engine(), world.request());
    expect(world.writes).toEqual([]);
    expect(world.recovery.effects).toEqual([]);
    expect(world.redirects).toEqual([]);
    expect(plan.ready).toBe(true);
    expect(plan.steps.map(({ id }) => id)).toContain('promote[orders]');
    const redirect = plan.steps.find(({ uses }) => uses === 'traffic.redirect');
    expect(redirect).toMatchObject({ present: 'points to 192.0.2.10, TTL 30 s', problems: [] });
    expect(redirect?.will[0]).toBe('point it to 198.51.100.10');
    const restore = plan.steps.find(({ id }) => id === 'database[orders]');
    expect(restore?.will[0]).toContain('backup b-orders');
  });

  it('shows problems of every step at once', async () => {
    const world = await TestWorld.create();
    world.oldSiteDead = false;
    world.recovery.put(world.config.data['uploads']?.recover['west']?.path ?? '', 'foreign');
    const plan = await planRun(world.engine(), world.request());
    expect(plan.ready).toBe(false);
    const problems = plan.steps.filter((step) => step.problems.length > 0).map(({ id }) => id);
    expect(problems).toEqual(['site', 'data[uploads]', 'fence[orders]']);
  });

  it('forecasts from what earlier runs took', async () => {
    const world = await TestWorld.create();
    expect((await planRun(world.engine(), world.request())).forecastMs).toBeUndefined();
    await world.run();
    const plan = await planRun(world.engine(), world.request());
    expect(plan.unmeasured).toBe(0);
    expect(plan.forecastMs).toBeGreaterThanOrEqual(30_000);
  });
});

describe('a drill', () => {
  it('restores, checks and promotes a copy, and leaves production and itself as if nothing had been', async () => {
    const world = await TestWorld.create();
    world.oldSiteDead = false;
    const { outcome, report } = await world.run({ mode: 'drill' });
    expect(outcome).toBe('succeeded');
    expect(world.recovery.effects.toSorted()).toEqual([
      'promote orders',
      'restore orders',
      'restore settings',
      'restore uploads',
    ]);
    expect(world.recovery.places()).toEqual({});
    expect(world.redirects).toEqual([]);
    expect(world.zone.values).toEqual(['192.0.2.10']);
    // Journal, copies of it, reports, its own lease: and nothing else in any vault.
    expect(world.writes.filter((write) => !/ (runs\/|leases\/drill\/|delete)/.test(write))).toEqual([]);
    const skipped = report.steps.filter(({ status }) => status === 'skipped').map(({ id }) => id);
    expect(skipped).toEqual([
      'hold',
      'fence[orders]',
      'replay[orders]',
      'open[orders]',
      'slot[orders]',
      'active',
      'http',
      'traffic[orders]',
      'answers[orders]',
      'health',
    ]);
  });

  it('cleans up after a failure', async () => {
    const world = await TestWorld.create();
    world.recovery.failedChecks = ['it answers'];
    const { outcome, error } = await world.run({ mode: 'drill' });
    expect(outcome).toBe('failed');
    expect(error?.kind).toBe('check-failed');
    expect(world.recovery.places()).toEqual({});
  });

  it('cleans up when it is interrupted', async () => {
    const world = await TestWorld.create();
    const stop = new AbortController();
    const engine = world.engine(undefined, {
      signal: stop.signal,
      onProgress: () => stop.abort(new DrError('interrupted', 'Ctrl-C')),
    });
    const { outcome } = await executeRun(engine, world.request({ mode: 'drill' }));
    expect(outcome).toBe('interrupted');
    expect(world.recovery.places()).toEqual({});
  });

  it('keeps the run open when it cannot clean up, and the next drill does', async () => {
    const world = await TestWorld.create();
    world.recovery.failures.set('discard orders', new DrError('local', 'disk error'));
    const first = await world.run({ mode: 'drill' });
    expect(first.outcome).toBeUndefined();
    expect(first.error?.message).toBe('disk error');
    expect(Object.keys(world.recovery.places())).toHaveLength(1);
    const second = await world.run({ mode: 'drill' });
    expect(second).toMatchObject({ runId: first.runId, outcome: 'succeeded' });
    expect(world.recovery.places()).toEqual({});
  });

  it('does not keep a failover waiting', async () => {
    const world = await TestWorld.create();
    const result = await executeRun(
      world.engine(undefined, {
        onProgress: () => {},
        acquireLease: async (store, name, purpose) => {
          const lease = await world.engine().acquireLease(store, name, purpose);
          expect(name).toBe('drill');
          return lease;
        },
      }),
      world.request({ mode: 'drill' }),
    );
    expect(result.outcome).toBe('succeeded');
  });
});

describe('interruption', () => {
  it('is recorded, and the same command goes on', async () => {
    const world = await TestWorld.create();
    const stop = new AbortController();
    const engine = world.engine(undefined, {
      signal: stop.signal,
      onProgress: () => stop.abort(new DrError('interrupted', 'Ctrl-C')),
    });
    const first = await executeRun(engine, world.request());
    expect(first).toMatchObject({ outcome: undefined, error: { kind: 'interrupted' } });
    const { state } = await readJournal(world.west, first.runId);
    expect(state.status).toBe('stopped');
    const second = await world.run();
    expect(second).toMatchObject({ runId: first.runId, resumed: true, outcome: 'succeeded' });
  });

  it('of a run to another moment is not continued by accident', async () => {
    const world = await TestWorld.create();
    world.recovery.failedChecks = ['it answers'];
    const first = await world.run();
    const other = { at: { kind: 'time' as const, atMs: 1 } };
    const error = errorOfKind(await failureOf(world.run(other)), 'refused');
    expect(error.message).toContain(first.runId);
    expect(error.next).toContain('--new');
    world.recovery.failedChecks = [];
    const fresh = await world.run({ ...other, fresh: true });
    expect(fresh.runId).not.toBe(first.runId);
    expect((await readJournal(world.west, first.runId)).state.outcome).toBe('abandoned');
  });
});

describe('two executors at once', () => {
  it('one proceeds, the other says who has it', async () => {
    const world = await TestWorld.create();
    const engines = [world.engine(), world.engine()];
    const results = await Promise.allSettled(engines.map((engine) => executeRun(engine, world.request())));
    const [won] = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    const [lost] = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
    expect(won?.outcome).toBe('succeeded');
    expect(errorOfKind(lost, 'lease-held').message).toMatch(/ops@host-\d/);
    expect(await listRunIds(world.west)).toHaveLength(1);
    expect(world.recovery.effects.filter((effect) => effect.startsWith('promote'))).toHaveLength(1);
  });

  it('one that lost its lease touches nothing more', async () => {
    const world = await TestWorld.create();
    const thief = world.engine();
    let stolen = false;
    const paused = world.engine(undefined, {
      onProgress: () => {
        if (stolen) return;
        stolen = true;
        // As if this machine had slept: nobody renewed, and somebody else has begun.
        world.clock.pass(120_000);
      },
    });
    const error = await failureOf(executeRun(paused, world.request()));
    expect(error).toBeInstanceOf(DrError);
    expect(world.recovery.isPromoted('orders')).toBe(false);
    const result = await executeRun(thief, world.request());
    expect(result).toMatchObject({ outcome: 'succeeded', resumed: true });
    expect(world.redirects).toHaveLength(1);
  });
});

describe.each(['failover', 'drill'] as const)('kill -9 during a %s', (mode) => {
  it('at any moment: the same command brings it to the same end, and nothing happens twice', async () => {
    const calm = await TestWorld.create();
    const undisturbed = new Mortal();
    await calm.run({ mode }, undisturbed);
    const expected = await calm.outcome();
    const moments = undisturbed.passed.length;
    expect(moments).toBeGreaterThan(50);
    for (let moment = 1; moment <= moments; moment++) {
      const world = await TestWorld.create();
      const mortal = new Mortal(moment);
      await failureOf(world.run({ mode }, mortal)).then(
        (error) => {
          if (!mortal.dead) throw error;
        },
        () => {},
      );
      const where = `killed ${undisturbed.passed[moment - 1]}`;
      expect(mortal.dead, where).toBe(true);
      // The second process dies too, somewhere in what is left; the third one finishes.
      const second = new Mortal(1 + (moment % 7));
      await world.run({ mode }, second).catch((error: unknown) => {
        if (!second.dead) throw error;
      });
      let last = await world.run({ mode });
      // Everything was over before the kill: then the same command has begun another run.
      const ids = await listRunIds(world.west);
      if (ids.length > 1) continue;
      if (last.outcome === undefined) last = await world.run({ mode });
      expect(last.outcome, where).toBe('succeeded');
      expect(canonical(await world.outcome()), where).toEqual(canonical(expected));
      for (const id of ids) expect((await readJournal(world.west, id)).state.status, where).toBe('finished');
    }
  });
});

describe('failure of every step in turn', () => {
  it('beside one that it may go on without: when the command goes on, both are tried again', async () => {
    const world = await TestWorld.create();
    let full = true;
    const registry = new Map(world.registry);
    world.registry = registry;
    for (const name of ['database.restore', 'data.restore']) {
      const kind = registry.get(name);
      if (!kind) throw new Error(name);
      registry.set(name, {
        ...kind,
        run: async (context, params) => {
          if (full) throw new DrError('local', 'no space left on device');
          return await kind.run(context, params);
        },
      });
    }
    const { loadRunbook, shippedRunbooks } = await import('../../src/runbook/load.ts');
    const runbook = await loadRunbook(shippedRunbooks, 'failover', world.registry);
    const first = await executeRun(world.engine(), world.request({ runbook }));
    expect(first.error?.message).toBe('no space left on device');
    full = false;
    expect(await world.run({ runbook })).toMatchObject({ runId: first.runId, outcome: 'succeeded' });
  });

  it('leaves a journal that tells, and the same command goes on', async () => {
    const reference = await TestWorld.create();
    const kinds = reference.runbook.stages.flatMap(({ groups }) => groups.flat().map(({ kind }) => kind));
    // This world has no workloads: test/runbook/cluster-steps.test.ts has.
    for (const { name, over } of kinds) {
      if (over === 'workloads' || over === 'gitops') continue;
      const world = await TestWorld.create();
      let failed = false;
      const kind = world.registry.get(name);
      if (!kind) throw new Error(name);
      world.registry = new Map(world.registry).set(name, {
        ...kind,
        run: async (context, params) => {
          if (failed) return await kind.run(context, params);
          failed = true;
          throw new DrError('local', 'a planted failure');
        },
      });
      const engine = world.engine();
      const { loadRunbook, shippedRunbooks } = await import('../../src/runbook/load.ts');
      const runbook = await loadRunbook(shippedRunbooks, 'failover', world.registry);
      const first = await executeRun(engine, world.request({ runbook }));
      const tolerated =
        name === 'data.restore' || name === 'configuration.restore' || name === 'hold.set' || name === 'database.slot';
      if (tolerated) {
        expect(first.outcome, name).toBe('degraded');
        continue;
      }
      expect(first.outcome, name).toBeUndefined();
      expect(first.error?.message, name).toBe('a planted failure');
      expect((await readJournal(world.west, first.runId)).state.status, name).toBe('stopped');
      const second = await world.run({ runbook });
      expect(second, name).toMatchObject({ runId: first.runId, outcome: 'succeeded' });
      expect(world.redirects, name).toHaveLength(1);
    }
  });
});

function canonical(outcome: object): object {
  const { effects, ...rest } = outcome as { effects: string[] };
  return { ...rest, effects: effects.toSorted() };
}
