import { z } from 'zod';
import { formatBytes, formatDuration } from '../base/units.ts';
import { defineStep, runModes } from './contract.ts';
import { databasePlace, describePlace, memberOf, pointOf } from './places.ts';
import { type DatabaseState, recoveredDatabaseSchema, recoveryTargetSchema, resourcePointSchema } from './ports.ts';

export const restoredDatabaseOutputs = recoveredDatabaseSchema.extend({
  targeted: z.boolean().describe('Somebody asked for another moment than the latest.'),
});

export const databaseRestore = defineStep({
  name: 'database.restore',
  summary: 'Restore the base backup and replay the WAL to the target; the server stays read-only',
  effect: 'changes',
  modes: runModes,
  inDrill:
    'Restores into the scratch directory; the server listens on a private socket only, also for a database that lives in a volume.',
  over: 'databases',
  params: z.object({
    points: z.record(z.string(), resourcePointSchema).describe('Recovery points, from assess.resources.'),
    at: recoveryTargetSchema.describe('Which moment to bring back; usually ${{ run.at }}.'),
  }),
  outputs: restoredDatabaseOutputs.extend({
    archivedTo: z
      .string()
      .describe('LSN where the archive ended when the restore began: database.replay goes on from there.'),
  }),
  timeoutMs: 12 * 3_600_000,
  async plan(context, { points }) {
    const name = memberOf(context);
    const place = databasePlace(context, name);
    const state = await context.world.recovery.databaseState(place, context.signal);
    const point = points && pointOf(points, name);
    const size = point
      ? `${formatBytes(point.bytes)} from vault ${point.vault}, backup ${point.backupId}`
      : 'the chosen backup';
    return {
      target: describePlace(place),
      present: describeState(state),
      will: [
        `restore ${size}`,
        ...(place.volume
          ? [
              `fill the volume by a Job of ${place.volume.restore?.image}`,
              'start its server, which recovers with cp, and see by SQL that it stands at the target',
            ]
          : ['replay the WAL to the target']),
        place.isolated ? 'serve it on a private socket' : 'serve it read-only',
      ],
      problems:
        state.state === 'foreign'
          ? [{ what: `${describePlace(place)} ${state.detail}`, next: 'Move it away or empty it.' }]
          : [],
    };
  },
  async done(context, { at }) {
    const place = databasePlace(context, memberOf(context));
    const state = await context.world.recovery.databaseState(place, context.signal);
    if (state.state !== 'recovered' && state.state !== 'promoted') return undefined;
    if (state.runId !== context.run.id) return undefined;
    context.note(`${place.name} was found recovered to ${state.recovered.replayedTo}`);
    return { ...state.recovered, targeted: at.kind !== 'latest', archivedTo: state.recovered.replayedTo };
  },
  async run(context, { points, at }) {
    const { world, signal, progress, clock } = context;
    const name = memberOf(context);
    const place = databasePlace(context, name);
    const point = pointOf(points, name);
    const begun = clock.now();
    // Asked before: what is archived from now on is not in it for certain.
    const end = await world.recovery.archivedTo(point, signal);
    const recovered = await world.recovery.restoreDatabase(place, point, at, progress, signal);
    const took = formatDuration(clock.now() - begun);
    context.note(
      `${name}: ${formatBytes(recovered.bytes)} from vault ${point.vault} replayed to ${recovered.replayedTo} in ${took}, read-only at ${recovered.where}`,
    );
    if (recovered.lastCommitAtMs !== undefined)
      context.note(`${name}: last commit that came back: ${new Date(recovered.lastCommitAtMs).toISOString()}`);
    return { ...recovered, targeted: at.kind !== 'latest', archivedTo: end?.lsn ?? recovered.replayedTo };
  },
  async undo(context) {
    const place = databasePlace(context, memberOf(context));
    if (!place.isolated) {
      context.note(`${place.directory} stays as it is: what was restored outside a drill is removed by a person only`);
      return;
    }
    await context.world.recovery.discardDatabase(place, context.signal);
    context.note(`${place.directory} removed`);
  },
});

/** What lies at a place, in words. */
export function describeState(state: DatabaseState): string {
  switch (state.state) {
    case 'empty':
      return 'nothing is there';
    case 'partial':
      return `an unfinished restore${state.runId ? ` of run ${state.runId}` : ''} is there and will be begun anew`;
    case 'recovered':
      return `recovered by run ${state.runId} to ${state.recovered.replayedTo}, read-only`;
    case 'promoted':
      return `a primary, promoted by run ${state.runId} on timeline ${state.timeline}`;
    case 'foreign':
      return state.detail;
  }
}
