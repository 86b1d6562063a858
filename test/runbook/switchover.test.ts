import { describe, expect, it } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { listRunIds, readJournal } from '../../src/runbook/journal.ts';
import { loadRunbook, shippedRunbooks } from '../../src/runbook/load.ts';
import { planRun } from '../../src/runbook/plan.ts';
import { executeRun } from '../../src/runbook/run.ts';
import { failureOf, Mortal, TestWorld } from './world.ts';

/** A world in which the old site lives. */
async function livingWorld(runbook = 'switchover'): Promise<TestWorld> {
  const world = await TestWorld.create(runbook);
  world.oldSiteDead = false;
  return world;
}

/** Either the move is complete, or the old site works on as if nothing had been: never anything between. */
function expectOneWriter(world: TestWorld, where = ''): void {
  const promoted = world.recovery.isPromoted('orders');
  expect([promoted, world.quiet], where).toEqual(promoted ? [true, true] : [false, false]);
}

describe.each(['switchover', 'failback'] as const)('the shipped %s', (mode) => {
  it('makes the old primary quiet only when everything is restored, and loses nothing', async () => {
    const world = await livingWorld(mode);
    const result = await world.run({ mode });
    expect(result.error).toBeUndefined();
    expect(result.outcome).toBe('succeeded');
    expectOneWriter(world);
    expect(world.recovery.effects.indexOf('catch up orders')).toBeGreaterThan(
      world.recovery.effects.indexOf('restore uploads'),
    );
    expect(world.zone.values).toEqual(['198.51.100.10']);
    const { resources, rto, steps } = result.report;
    expect(resources.find(({ name }) => name === 'orders')).toMatchObject({ lossMs: 0, met: true });
    expect(rto.downtimeMs).toBeLessThanOrEqual(rto.achievedMs);
    expect(steps.find(({ id }) => id === 'fence[orders]')?.evidence.join()).toContain('nothing was written since');
  });
});

describe('a switchover that cannot be finished', () => {
  it('is taken back when the archive does not get the last bytes: the old site works on', async () => {
    const world = await livingWorld();
    world.recovery.archivedTo = '0/3000000';
    const result = await world.run({ mode: 'switchover' });
    expect(result).toMatchObject({
      outcome: 'failed',
      error: { message: expect.stringContaining('0/3FFFF00 is needed') },
    });
    expectOneWriter(world);
    expect(world.redirects).toEqual([]);
    expect(await readFailures(world)).toContain('quiesce[orders] undone');
  });

  it('is taken back when somebody writes to the old primary after its last WAL was replayed', async () => {
    const world = await livingWorld();
    const kind = world.registry.get('database.catch-up');
    if (!kind) throw new Error('no such step');
    world.registry = new Map(world.registry).set(kind.name, {
      ...kind,
      run: async (context, params) => {
        const outputs = await kind.run(context, params);
        world.nextXid++;
        return outputs;
      },
    });
    const runbook = await loadRunbook(shippedRunbooks, 'switchover', world.registry);
    const result = await world.run({ mode: 'switchover', runbook });
    expect(result.outcome).toBe('failed');
    expect(result.error?.message).toContain('it has written since its last WAL was replayed');
    expectOneWriter(world);
  });

  it('replays once more when autovacuum wrote meanwhile', async () => {
    const world = await livingWorld();
    let looks = 0;
    const nextXid = world.nextXid;
    Object.defineProperty(world, 'nextXid', { get: () => nextXid + (++looks < 4 ? looks : 4), set: () => {} });
    const result = await world.run({ mode: 'switchover' });
    expect(result.outcome).toBe('succeeded');
    expect(world.recovery.effects.filter((effect) => effect === 'catch up orders').length).toBeGreaterThan(1);
  });

  it('refuses data whose newest backup is too old, before anything is touched', async () => {
    const world = await livingWorld();
    world.clock.pass(3_600_000);
    const result = await world.run({ mode: 'switchover' });
    expect(result.error).toMatchObject({ kind: 'refused', next: expect.stringContaining('dr backup uploads') });
    expect(world.recovery.effects).toEqual([]);
    expect(world.quiet).toBe(false);
  });
});

describe('giving up a switchover', () => {
  it('opens the old primary again, and ends the run', async () => {
    const world = await livingWorld();
    const killed = new Mortal();
    // Dies as soon as the old primary is quiet.
    const point = killed.point.bind(killed);
    killed.point = (what) => {
      if (what === 'after the old primary was made quiet') killed.dead = true;
      point(what);
    };
    await failureOf(world.run({ mode: 'switchover' }, killed));
    expect(world.quiet).toBe(true);
    const given = await world.run({ mode: 'switchover', giveUp: true });
    expect(given.outcome).toBe('abandoned');
    expectOneWriter(world);
    const [id = ''] = await listRunIds(world.west);
    expect((await readJournal(world.west, id)).state.status).toBe('finished');
    await expect(world.run({ mode: 'switchover', giveUp: true })).rejects.toMatchObject({ kind: 'not-found' });
  });

  it('is refused once the promotion has begun: there is only the way forward', async () => {
    const world = await livingWorld();
    world.recovery.failures.set('open orders', new DrError('refused', 'no'));
    const stopped = await world.run({ mode: 'switchover' });
    expect(stopped.outcome).toBeUndefined();
    await expect(world.run({ mode: 'switchover', giveUp: true })).rejects.toMatchObject({
      kind: 'refused',
      next: expect.stringContaining('Go on with it'),
    });
    expect((await world.run({ mode: 'switchover' })).outcome).toBe('succeeded');
    expectOneWriter(world);
  });

  it('does not forget a primary that cannot be opened', async () => {
    const world = await livingWorld();
    world.recovery.archivedTo = '0/3000000';
    const engine = world.engine();
    const reopen = engine.world.writers.reopen;
    let fails = true;
    Object.assign(engine.world.writers, {
      reopen: async (url: string, signal: AbortSignal) => {
        if (fails) throw new DrError('unreachable', 'the old primary does not answer');
        return await reopen(url, signal);
      },
    });
    const result = await executeRun(engine, world.request({ mode: 'switchover' }));
    expect(result).toMatchObject({ outcome: undefined, error: { message: 'the old primary does not answer' } });
    fails = false;
    expect((await world.run({ mode: 'switchover' })).outcome).toBe('failed');
    expectOneWriter(world);
  });
});

describe('a plan of a switchover', () => {
  it('touches nothing and names what it would lock', async () => {
    const world = await livingWorld();
    const plan = await planRun(world.engine(), world.request({ mode: 'switchover' }));
    expect(plan.ready).toBe(true);
    expect(world.writes).toEqual([]);
    expect(world.quiet).toBe(false);
    expect(plan.steps.find(({ id }) => id === 'quiesce[orders]')?.will.join()).toContain('nobody can write');
  });
});

describe('kill -9 during a switchover', () => {
  it('at any moment: the same command ends with exactly one writable primary', async () => {
    const calm = await livingWorld();
    const undisturbed = new Mortal();
    await calm.run({ mode: 'switchover' }, undisturbed);
    const moments = undisturbed.passed.length;
    expect(moments).toBeGreaterThan(60);
    for (let moment = 1; moment <= moments; moment++) {
      const world = await livingWorld();
      const mortal = new Mortal(moment);
      await failureOf(world.run({ mode: 'switchover' }, mortal)).catch(() => {});
      const where = `killed ${undisturbed.passed[moment - 1]}`;
      expect(mortal.dead, where).toBe(true);
      const last = await world.run({ mode: 'switchover' });
      const ids = await listRunIds(world.west);
      if (ids.length > 1) continue;
      expect(last.outcome, where).toBe('succeeded');
      expectOneWriter(world, where);
      expect(world.zone.values, where).toEqual(['198.51.100.10']);
    }
  });
});

describe('failure of every step of a switchover in turn', () => {
  it('ends with exactly one writable primary, at the old site before the promotion and at the new one after it', async () => {
    const reference = await livingWorld();
    const specs = reference.runbook.stages.flatMap(({ groups }) => groups.flat());
    for (const { id, kind } of specs) {
      const world = await livingWorld();
      world.registry = new Map(world.registry).set(kind.name, {
        ...kind,
        run: async () => {
          throw new DrError('refused', `${kind.name} fails in this test`, { next: 'Nothing.' });
        },
      });
      const runbook = await loadRunbook(shippedRunbooks, 'switchover', world.registry);
      const result = await world.run({ mode: 'switchover', runbook });
      const promoted = world.recovery.isPromoted('orders');
      const after = specs.findIndex((spec) => spec.id === id) > specs.findIndex((spec) => spec.id === 'promote');
      if (kind.name === 'hold.set' || kind.name === 'database.slot') expect(result.outcome).toBe('degraded');
      else expect(promoted, id).toBe(after);
      // Stopped between "quiesce" and "promote" it would be neither here nor there.
      if (id !== 'promote') expectOneWriter(world, id);
    }
  });
});

async function readFailures(world: TestWorld): Promise<string[]> {
  const [id = ''] = await listRunIds(world.west);
  const { state } = await readJournal(world.west, id);
  return state.steps.map(({ plan, status }) => `${plan.id} ${status}`);
}
