import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import { forSite } from '../config/sites.ts';
import type { TrafficDriver, TrafficState } from '../traffic/contract.ts';
import { defineStep, type StepContext } from './contract.ts';
import { memberOf } from './places.ts';
import { TriggerWatch } from './trigger-watch.ts';

const percentages = z
  .array(z.int().min(1).max(100))
  .min(1)
  .default([10, 25, 50, 100])
  .refine((steps) => steps.at(-1) === 100 && steps.every((step, i) => step > (steps[i - 1] ?? 0)), {
    error: 'must rise, and end with 100',
  })
  .describe('Percent of the traffic that goes to the recovery site, one after the other.');

export const trafficShift = defineStep({
  name: 'traffic.shift',
  summary: 'Shift the traffic to the recovery site step by step, and take it back by itself when a trigger fires',
  effect: 'changes',
  modes: ['switchover', 'failback'],
  over: 'traffic',
  after: [{ uses: 'database.promote', modes: ['switchover', 'failback'] }],
  params: z.object({ steps: percentages }),
  outputs: z.object({
    values: z.array(z.string()).describe('What gets traffic now.'),
    ttlSeconds: z.number().describe('How long resolvers may keep the old answer.'),
  }),
  timeoutMs: 2 * 60 * 60_000,
  async plan(context, { steps = [100] }) {
    const driver = context.world.traffic(memberOf(context));
    const { to } = endpointsOf(context);
    const state = await driver.current(context.signal);
    const findings = await driver.doctor(context.signal);
    const watch = watchOf(context);
    const gradual = driver.shifting === 'gradual';
    return {
      target: driver.target,
      present:
        state.values.length === 0
          ? 'there is no record'
          : `points to ${state.values.join(', ')}, TTL ${state.ttlSeconds} s`,
      will: gradual
        ? [
            `shift ${steps.join(' %, ')} % of the traffic to ${to}`,
            'watch errors, response times and health after each step; take everything back if a trigger fires',
          ]
        : [`point it to ${to} at once: this kind of record has one answer for all`],
      problems: [
        ...findings.filter(({ ok }) => !ok),
        ...(gradual && !watch.canSee ? [{ what: blind(context), next: BLIND_NEXT }] : []),
      ],
    };
  },
  async done(context) {
    const driver = context.world.traffic(memberOf(context));
    const { to } = endpointsOf(context);
    const state = await driver.current(context.signal);
    if (percentOf(state, to) !== 100) return undefined;
    context.note(`${driver.target} was found pointing to ${to} alone`);
    return { values: [...state.values], ttlSeconds: state.ttlSeconds };
  },
  async run(context, { steps }) {
    const { signal, note } = context;
    const driver = context.world.traffic(memberOf(context));
    const { to } = endpointsOf(context);
    const before = await driver.current(signal);
    if (driver.shifting === 'whole') await change(context, driver, 100);
    else await shiftGradually(context, driver, steps);
    const after = await driver.current(signal);
    note(`${driver.target} points to ${to} alone, TTL ${after.ttlSeconds} s`);
    return { values: [...after.values], ttlSeconds: before.ttlSeconds };
  },
  async undo(context) {
    const driver = context.world.traffic(memberOf(context));
    await change(context, driver, 0);
    context.note(`${driver.target} points back to ${endpointsOf(context).from}`);
  },
});

async function shiftGradually(context: StepContext, driver: TrafficDriver, steps: readonly number[]): Promise<void> {
  const { signal, note, progress, clock } = context;
  const { from, to } = endpointsOf(context);
  const watch = watchOf(context);
  if (!watch.canSee)
    throw new DrError('config', blind(context), { where: context.world.config.source.path, next: BLIND_NEXT });
  const begun = percentOf(await driver.current(signal), to);
  // After an interruption: the step that was being watched is watched again from its beginning.
  for (const percent of steps.filter((step) => step >= begun)) {
    await change(context, driver, percent);
    watch.restart();
    const since = clock.now();
    const decision = await watch.gate(signal, ({ reasons }) =>
      progress({
        task: 'watch',
        done: (clock.now() - since) / 1000,
        total: 0,
        unit: 'seconds',
        detail: `${percent} % at ${to}${reasons.length > 0 ? `: ${reasons.join('; ')}` : ''}`,
      }),
    );
    if (decision.decision === 'hold') {
      note(
        `${driver.target}: ${percent} % go to ${to}; nothing spoke against it in ${formatDuration(clock.now() - since)}`,
      );
      continue;
    }
    await change(context, driver, 0);
    throw new DrError('check-failed', `the traffic was taken back from ${to}: ${decision.reasons.join('; ')}`, {
      where: `${driver.target}, at ${percent} %`,
      next: `All traffic goes to ${from} again. Mend what failed at ${context.run.site}, then give the same command again: the shift begins anew.`,
      // Not by itself: what fired would fire again.
      retryable: false,
    });
  }
}

/** Gives the recovery site `percent` of the traffic, and waits until the provider has published that. */
async function change(context: StepContext, driver: TrafficDriver, percent: number): Promise<void> {
  const { signal, note } = context;
  const { from, to } = endpointsOf(context);
  const submitted = await driver.shift({ from, to, percent }, await driver.current(signal), signal);
  await driver.settled(submitted, signal);
  note(`${driver.target}: ${percent} % to ${to} (change ${submitted.id})`);
}

function percentOf({ values, shares }: TrafficState, to: string): number {
  if (shares) return shares.find(({ value }) => value === to)?.percent ?? 0;
  return values.length === 1 && values[0] === to ? 100 : 0;
}

function watchOf({ world, run, clock }: StepContext): TriggerWatch {
  const { triggers, http } = world.config.validation;
  const checks = http.filter(({ site }) => site === run.site);
  return new TriggerWatch({ policy: triggers, checks, probes: world.probes, clock });
}

const BLIND_NEXT =
  'Add a check of that site under validation.http, or both queries under validation.triggers.prometheus.';

function blind({ run }: StepContext): string {
  return `nothing is configured that shows how ${run.site} does: a gradual shift would go on blindly`;
}

function endpointsOf(context: StepContext): { from: string; to: string } {
  const { world, run } = context;
  const name = memberOf(context);
  const endpoint = (site: string) => {
    const found = forSite(world.config, site).endpoints[name];
    if (found !== undefined) return found;
    throw new DrError('config', `traffic ${name} has no endpoint at ${site}`, {
      where: world.config.source.path,
      next: `Add "endpoints.${site}" to traffic.${name}.`,
    });
  };
  return { from: endpoint(run.from), to: endpoint(run.site) };
}
