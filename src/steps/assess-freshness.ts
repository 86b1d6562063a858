import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import { defineStep, type StepContext } from './contract.ts';
import { duration } from './params.ts';
import { type ResourcePoint, resourcePointSchema } from './ports.ts';

export const assessFreshness = defineStep({
  name: 'assess.freshness',
  summary: 'See that the newest backups of data are young enough for a planned move',
  effect: 'none',
  runsInPlan: true,
  modes: ['switchover', 'failback'],
  params: z.object({
    points: z.record(z.string(), resourcePointSchema).describe('Recovery points, from assess.resources.'),
    within: duration('15m').describe(
      'How old they may be: what was written later does not move. Databases lose nothing.',
    ),
  }),
  outputs: z.object({ oldestMs: z.number().describe('Age of the oldest one, milliseconds.') }),
  timeoutMs: 60_000,
  async plan({ run }) {
    return {
      target: `backups of data of ${run.from}`,
      present: 'looked at while planning, see the evidence',
      will: ['stop the move if one is too old'],
      problems: [],
    };
  },
  async run(context, { points, within }) {
    const ages = agesOf(context, points);
    for (const { name, ms } of ages) context.note(`${name}: the newest backup is ${formatDuration(ms)} old`);
    const old = ages.filter(({ ms }) => ms > within);
    if (old.length > 0) {
      const names = old.map(({ name }) => name).join(' ');
      throw new DrError(
        'refused',
        `what was written to ${names.replaceAll(' ', ', ')} in the last ${formatDuration(Math.max(...old.map(({ ms }) => ms)))} would not move`,
        {
          where: `site ${context.run.from}`,
          next: `Stop what writes there, run "dr backup ${names}" at ${context.run.from}, then give the same command again.`,
        },
      );
    }
    return { oldestMs: Math.max(0, ...ages.map(({ ms }) => ms)) };
  },
});

function agesOf(
  { clock }: StepContext,
  points: Readonly<Record<string, ResourcePoint>>,
): Array<{ name: string; ms: number }> {
  return Object.values(points)
    .filter(({ kind }) => kind === 'data')
    .map(({ resource, recoveryPointMs }) => ({ name: resource, ms: Math.max(0, clock.now() - recoveryPointMs) }));
}
