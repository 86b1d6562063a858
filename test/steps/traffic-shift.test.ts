import { describe, expect, it } from 'vitest';
import type { Config } from '../../src/config/types.ts';
import type { HttpProbe } from '../../src/steps/ports.ts';
import { trafficShift } from '../../src/steps/traffic-shift.ts';
import { MemoryTraffic, MemoryZone } from '../../src/traffic/memory.ts';
import { FastClock } from '../runbook/world.ts';
import { stepContext } from './context.ts';

const minute = 60_000;
const east = '192.0.2.10';
const west = '198.51.100.10';
const well: HttpProbe = { status: 200, body: 'ok', ms: 20, detail: 'answers 200' };
const ill: HttpProbe = { status: 500, body: '', ms: 20, detail: 'answers 500' };

function world(
  options: { shifting?: 'gradual' | 'whole'; checks?: boolean; probe?: (percent: number) => HttpProbe } = {},
) {
  const clock = new FastClock();
  const zone = new MemoryZone();
  const shifts: number[] = [];
  const driver = new MemoryTraffic(
    {
      record: 'orders.example.com',
      type: 'A',
      ttlSeconds: 30,
      values: [east],
      shifting: options.shifting ?? 'gradual',
    },
    zone,
  );
  const percent = () => zone.shares.find(({ value }) => value === west)?.percent ?? 0;
  const shift = driver.shift.bind(driver);
  driver.shift = async (split, replaces, signal) => {
    shifts.push(split.percent);
    return await shift(split, replaces, signal);
  };
  const config = {
    sites: { east: { name: 'east', region: 'r1', vault: 'east' }, west: { name: 'west', region: 'r2', vault: 'west' } },
    vaults: { east: {}, west: {} },
    active: 'east',
    databases: {},
    data: {},
    configuration: {},
    objects: {},
    traffic: { orders: { name: 'orders', endpoints: { east, west } } },
    validation: {
      http: options.checks === false ? [] : [{ site: 'west', url: 'http://west/', status: 200, contains: undefined }],
      stabilizeMs: minute,
      triggers: {
        errors: { above: 0.05, overMs: 5 * minute },
        p95: { aboveMs: 2000, overMs: 5 * minute },
        health: { failures: 3, withinMs: 2 * minute },
        prometheus: undefined,
      },
    },
  };
  const context = (signal = new AbortController().signal) => {
    const made = stepContext(config as unknown as Partial<Config>, { mode: 'switchover', clock, signal });
    Object.assign(made.world, {
      traffic: () => driver,
      probes: { http: async () => (options.probe ?? (() => well))(percent()) },
    });
    return { ...made, each: 'orders', notes: made.notes };
  };
  return { clock, zone, shifts, driver, context, percent };
}

describe('traffic.shift', () => {
  it('goes up step by step, and watches every window to its end after each', async () => {
    const { clock, shifts, zone, context } = world();
    const begun = clock.now();
    await trafficShift.run(context(), {});
    expect(shifts).toEqual([10, 25, 50, 100]);
    expect(zone.values).toEqual([west]);
    expect(clock.now() - begun).toBeGreaterThanOrEqual(4 * 5 * minute);
  });

  it('takes everything back by itself when the site fails under the load, long before the window is over', async () => {
    const { clock, shifts, zone, context } = world({ probe: (percent) => (percent >= 25 ? ill : well) });
    const begun = clock.now();
    await expect(trafficShift.run(context(), {})).rejects.toMatchObject({
      kind: 'check-failed',
      message: expect.stringContaining('3 health checks failed'),
      next: expect.stringContaining(`All traffic goes to ${east} again`),
      retryable: false,
    });
    expect(shifts).toEqual([10, 25, 0]);
    expect(zone.values).toEqual([east]);
    expect(clock.now() - begun).toBeLessThan(7 * minute);
  });

  it('goes on where it was interrupted, and watches that step anew', async () => {
    const stop = new AbortController();
    let looks = 0;
    const { shifts, context } = world({
      probe: (percent) => {
        if (percent === 25 && ++looks === 10) stop.abort(new Error('Ctrl-C'));
        return well;
      },
    });
    await expect(trafficShift.run(context(stop.signal), {})).rejects.toThrow();
    expect(await trafficShift.done(context(), {})).toBeUndefined();
    await trafficShift.run(context(), {});
    expect(shifts).toEqual([10, 25, 25, 50, 100]);
    expect(await trafficShift.done(context(), {})).toMatchObject({ values: [west] });
  });

  it('refuses to go on blindly', async () => {
    const { shifts, context } = world({ checks: false });
    await expect(trafficShift.run(context(), {})).rejects.toMatchObject({ kind: 'config' });
    expect(shifts).toEqual([]);
    expect((await trafficShift.plan(context(), {})).problems[0]?.what).toContain('blindly');
  });

  it('switches at once where the record has one answer for all', async () => {
    const { shifts, zone, context, clock } = world({ shifting: 'whole', checks: false });
    const begun = clock.now();
    await trafficShift.run(context(), {});
    expect([shifts, zone.values]).toEqual([[100], [west]]);
    expect(clock.now()).toBe(begun);
    await trafficShift.undo(context(), {}, undefined);
    expect(zone.values).toEqual([east]);
  });

  it('takes only steps that rise to 100', async () => {
    const accepts = (steps: number[]) => trafficShift.params.safeParse({ steps }).success;
    expect([[100], [1, 100], [10, 25, 50, 100]].map(accepts)).toEqual([true, true, true]);
    expect([[], [50], [50, 25, 100], [10, 10, 100], [0, 100], [50, 101]].map(accepts)).toEqual(Array(6).fill(false));
  });
});
