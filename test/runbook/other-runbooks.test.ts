import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { answerApproval } from '../../src/runbook/approval.ts';
import { listRunIds } from '../../src/runbook/journal.ts';
import { loadRunbook, shippedRunbooks } from '../../src/runbook/load.ts';
import { planRun } from '../../src/runbook/plan.ts';
import { executeRun } from '../../src/runbook/run.ts';
import { stepRegistry } from '../../src/steps/registry.ts';
import { failureOf, Mortal, TestWorld } from './world.ts';

const shipped = readdirSync(shippedRunbooks).map((file) => file.replace('.yaml', ''));
const at = { kind: 'time', atMs: Date.UTC(2025, 11, 31, 23) } as const;

/** Answers every question of a run with yes, as somebody elsewhere would. */
function agreeing(world: TestWorld) {
  const engine = world.engine();
  return {
    ...engine,
    onEntry: async (entry: Parameters<typeof engine.onEntry>[0], state: Parameters<typeof engine.onEntry>[1]) => {
      await engine.onEntry(entry, state);
      if (entry.event.type !== 'approval-requested') return;
      const { step } = entry.event;
      const [runId = ''] = await listRunIds(world.west);
      const given = { name: 'Ada', account: 'ada', at: new Date(world.clock.now()).toISOString() };
      await answerApproval(world.west, { runId, step, answer: 'approve', ...given });
    },
  };
}

describe.each(shipped)('the shipped runbook %s', (name) => {
  const mode =
    name === 'failback' ? 'failback' : name === 'failover' || name === 'corruption' ? 'failover' : 'switchover';

  it('loads against the registry, and its plan touches nothing', async () => {
    const runbook = await loadRunbook(shippedRunbooks, name, stepRegistry);
    expect(runbook.name).toBe(name);
    expect(runbook.modes).toContain('drill');
    const world = await TestWorld.create(name);
    world.oldSiteDead = name === 'failover';
    const plan = await planRun(world.engine(), world.request({ mode, at }));
    expect(plan.steps.flatMap(({ problems }) => problems)).toEqual([]);
    expect(plan.steps.every(({ skip, will }) => skip !== undefined || will.length > 0)).toBe(true);
    expect(world.writes).toEqual([]);
  });

  it('is drilled without a trace in production', async () => {
    const world = await TestWorld.create(name);
    world.oldSiteDead = false;
    const { outcome } = await world.run({ mode: 'drill', at });
    expect(outcome).toBe('succeeded');
    expect([world.quiet, world.redirects, Object.keys(world.recovery.places())]).toEqual([false, [], []]);
  });
});

describe('corruption', () => {
  it('wants a moment before the damage', async () => {
    const world = await TestWorld.create('corruption');
    world.oldSiteDead = false;
    const result = await world.run({});
    expect(result.error).toMatchObject({ kind: 'usage', next: expect.stringContaining('--at') });
    expect(world.recovery.effects).toEqual([]);
  });

  it('compares, asks a person, locks the damaged database, and cuts over', async () => {
    const world = await TestWorld.create('corruption');
    world.oldSiteDead = false;
    world.dataDamaged = true;
    const result = await executeRun(agreeing(world), world.request({ at }));
    expect(result.error).toBeUndefined();
    expect(result.outcome).toBe('succeeded');
    expect([world.quiet, world.recovery.isPromoted('orders')]).toEqual([true, true]);
    const evidence = (id: string) => result.report.steps.find((step) => step.id === id)?.evidence.join('\n');
    expect(evidence('scope')).toContain('corruption:');
    expect(evidence('compare[orders]')).toContain('recovered: 5000; at east: 4200');
    expect(result.report.approvals).toMatchObject([{ step: 'quiesce[orders]', name: 'Ada (ada)' }]);
  });

  it('leaves the living system alone when nobody agrees', async () => {
    const world = await TestWorld.create('corruption');
    world.oldSiteDead = false;
    const result = await world.run({ at });
    expect(result.outcome).toBeUndefined();
    expect(result.error?.message).toMatch(/approv|answer/);
    expect([world.quiet, world.recovery.isPromoted('orders'), world.redirects]).toEqual([false, false, []]);
  });
});

describe('leaving a region', () => {
  it('does not wait for young backups of data, and still loses nothing of a database', async () => {
    const world = await TestWorld.create('region-evacuation');
    world.oldSiteDead = false;
    world.clock.pass(24 * 3_600_000);
    world.recovery.heartbeat = undefined;
    const result = await world.run({ mode: 'switchover' });
    expect(result.outcome).toBe('degraded');
    expect(result.report.resources.find(({ name }) => name === 'orders')).toMatchObject({ lossMs: 0 });
    expect([world.quiet, world.recovery.isPromoted('orders')]).toEqual([true, true]);
  });

  it('survives a kill at the promotion', async () => {
    const world = await TestWorld.create('region-evacuation');
    world.oldSiteDead = false;
    const mortal = new Mortal();
    const point = mortal.point.bind(mortal);
    mortal.point = (what) => {
      if (what === 'after promote orders') mortal.dead = true;
      point(what);
    };
    await failureOf(world.run({ mode: 'switchover' }, mortal));
    expect((await world.run({ mode: 'switchover' })).outcome).toBe('succeeded');
  });
});
