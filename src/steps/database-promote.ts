import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import { defineStep, runModes } from './contract.ts';
import { describeState } from './database-restore.ts';
import { databasePlace, describePlace, memberOf } from './places.ts';

export const databasePromote = defineStep({
  name: 'database.promote',
  summary: 'Make the recovered database the writable primary',
  effect: 'changes',
  modes: runModes,
  inDrill: 'Promotes the isolated copy, to prove that it would work.',
  over: 'databases',
  after: [{ uses: 'database.fence', modes: ['failover', 'switchover', 'failback'] }],
  params: z.object({}),
  outputs: z.object({ timeline: z.number().describe('The new timeline.') }),
  timeoutMs: 10 * 60_000,
  async plan(context) {
    const place = databasePlace(context, memberOf(context));
    const state = await context.world.recovery.databaseState(place, context.signal);
    return {
      target: describePlace(place),
      present: describeState(state),
      will: ['promote it: from then on it accepts writes, on a new timeline'],
      problems: [],
    };
  },
  async done(context) {
    const place = databasePlace(context, memberOf(context));
    const state = await context.world.recovery.databaseState(place, context.signal);
    if (state.state !== 'promoted' || state.runId !== context.run.id) return undefined;
    context.note(`${place.name} was found promoted on timeline ${state.timeline}`);
    return { timeline: state.timeline };
  },
  async run(context) {
    const place = databasePlace(context, memberOf(context));
    const state = await context.world.recovery.databaseState(place, context.signal);
    const ours = (state.state === 'recovered' || state.state === 'promoted') && state.runId === context.run.id;
    if (!ours) {
      throw new DrError('refused', `there is nothing of this run to promote: ${describeState(state)}`, {
        where: place.directory,
        next: 'See what happened to the restored database; begin anew with --new.',
      });
    }
    const { timeline } = await context.world.recovery.promoteDatabase(place, context.signal);
    context.note(`${place.name} is the primary, on timeline ${timeline}`);
    return { timeline };
  },
});
