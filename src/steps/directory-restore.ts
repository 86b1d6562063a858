import { z } from 'zod';
import { formatBytes } from '../base/units.ts';
import { defineStep, runModes } from './contract.ts';
import { isObjects, planObjects, runObjects } from './objects-restore.ts';
import { directoryPlace, memberOf, pointOf } from './places.ts';
import { resourcePointSchema } from './ports.ts';

export const restoredDirectoryOutputs = z.object({
  path: z.string().describe('Where it lies now: a folder, or a cluster.'),
  bytes: z.number().describe('Bytes of content.'),
  entries: z.number().describe('Files, folders and links, or objects.'),
  recoveredToMs: z.number().describe('The moment that came back, milliseconds since 1970.'),
});

const params = z.object({
  points: z.record(z.string(), resourcePointSchema).describe('Recovery points, from assess.resources.'),
});

function directoryRestore(over: 'data' | 'configuration', what: string) {
  return defineStep({
    name: `${over}.restore`,
    summary: `Restore ${what} from its chosen backup`,
    effect: 'changes',
    modes: runModes,
    inDrill:
      over === 'data'
        ? 'Restores into the scratch directory.'
        : 'Restores into the scratch directory; of objects the API server of the recovery site checks every one and stores none (dry run).',
    over,
    params,
    outputs: restoredDirectoryOutputs,
    timeoutMs: 12 * 3_600_000,
    async plan(context, { points }) {
      const name = memberOf(context);
      const point = points && pointOf(points, name);
      const size = point
        ? `${formatBytes(point.bytes)} from vault ${point.vault}, backup ${point.backupId}`
        : 'the chosen backup';
      if (isObjects(context, name)) return await planObjects(context, name, size);
      const place = directoryPlace(context, name);
      const state = await context.world.recovery.directoryState(place, context.signal);
      const present = {
        empty: 'nothing is there',
        partial: 'an unfinished restore is there and will be begun anew',
        complete: 'restored already',
        foreign: state.state === 'foreign' ? state.detail : '',
      };
      return {
        target: place.path,
        present: present[state.state],
        will: [`restore ${size}`],
        problems:
          state.state === 'foreign'
            ? [{ what: `${place.path} ${state.detail}`, next: 'Move it away or empty it.' }]
            : [],
      };
    },
    async done(context, { points }) {
      const name = memberOf(context);
      // Applying objects once more finds out by itself what is there.
      if (isObjects(context, name)) return undefined;
      const place = directoryPlace(context, name);
      const state = await context.world.recovery.directoryState(place, context.signal);
      if (state.state !== 'complete' || state.runId !== context.run.id) return undefined;
      context.note(`${place.path} was found restored`);
      const { bytes, entries } = state;
      return { path: place.path, bytes, entries, recoveredToMs: pointOf(points, name).recoveryPointMs };
    },
    async run(context, { points }) {
      const name = memberOf(context);
      const point = pointOf(points, name);
      if (isObjects(context, name)) return await runObjects(context, name, point);
      const place = directoryPlace(context, name);
      const restored = await context.world.recovery.restoreDirectory(place, point, context.progress, context.signal);
      context.note(
        `${name}: ${restored.entries} entries, ${formatBytes(restored.bytes)} from vault ${point.vault} at ${place.path}`,
      );
      for (const warning of restored.warnings) context.note(`${name}: not restored: ${warning}`);
      const { bytes, entries } = restored;
      return { path: place.path, bytes, entries, recoveredToMs: point.recoveryPointMs };
    },
    async undo(context) {
      if (isObjects(context, memberOf(context))) {
        // A drill stored nothing.
        const stays = 'what was restored in the cluster stays: it is removed by a person only';
        if (context.run.mode !== 'drill') context.note(stays);
        return;
      }
      const place = directoryPlace(context, memberOf(context));
      if (context.run.mode !== 'drill') {
        context.note(`${place.path} stays as it is: what was restored outside a drill is removed by a person only`);
        return;
      }
      await context.world.recovery.discardDirectory(place, context.signal);
      context.note(`${place.path} removed`);
    },
  });
}

export const dataRestore = directoryRestore('data', 'a data set');
export const configurationRestore = directoryRestore('configuration', 'a configuration');
