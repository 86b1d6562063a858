import { z } from 'zod';
import { DrError, isAbort, messageOf } from '../base/errors.ts';
import { formatLsn, type Lsn, parseLsn } from '../postgres/lsn.ts';
import { defineStep, type StepContext } from './contract.ts';
import { restoredDatabaseOutputs } from './database-restore.ts';
import { databasePlace, describePlace, memberOf, pointOf } from './places.ts';
import { type RecoveredDatabase, type ResourcePoint, resourcePointSchema } from './ports.ts';

const POLL_MS = 500;
/** How long the vault that is restored from may lag behind another one that tells of more. */
const LAG_MS = 15_000;

export const databaseReplay = defineStep({
  name: 'database.replay',
  summary: 'Replay what was archived since the restore began: the old primary may have lived until it was fenced',
  effect: 'changes',
  modes: ['failover'],
  over: 'databases',
  params: z.object({
    points: z.record(z.string(), resourcePointSchema).describe('Recovery points, from assess.resources.'),
    archivedTo: z
      .string()
      .optional()
      .describe('From database.restore: where the archive ended then. When it still does, there is nothing to do.'),
  }),
  outputs: restoredDatabaseOutputs,
  timeoutMs: 30 * 60_000,
  async plan(context) {
    const isLatest = context.run.at.kind === 'latest';
    return {
      target: describePlace(databasePlace(context, memberOf(context))),
      present: 'what is archived by then will be known when the old primary is fenced',
      will: [
        isLatest ? 'replay what was archived since the restore began' : 'nothing: an earlier moment was asked for',
      ],
      problems: [],
    };
  },
  async done(context) {
    const state = await context.world.recovery.databaseState(databasePlace(context, memberOf(context)), context.signal);
    if (state.state !== 'promoted' || state.runId !== context.run.id) return undefined;
    context.note(`${memberOf(context)} is promoted already: nothing more can be replayed`);
    return { ...state.recovered, targeted: context.run.at.kind !== 'latest' };
  },
  async run(context, { points, archivedTo }) {
    const { world, run, signal, progress, note } = context;
    const name = memberOf(context);
    const place = databasePlace(context, name);
    const recovered = await restored(context);
    if (run.at.kind !== 'latest') {
      note(`${name} stays where it is: an earlier moment was asked for`);
      return { ...recovered, targeted: true };
    }
    const end = await archiveEnd(context, name, pointOf(points, name));
    const known = parseLsn(archivedTo ?? recovered.replayedTo) ?? 0n;
    if (end === undefined || end <= known) {
      if (end !== undefined) note(`${name}: nothing was archived since it was restored`);
      return { ...recovered, targeted: false };
    }
    try {
      const further = await world.recovery.catchUp(place, progress, signal);
      note(`${name}: replayed on from ${recovered.replayedTo} to ${further.replayedTo}, the end of the archive`);
      return { ...further, targeted: false };
    } catch (error) {
      // A failover does not end because a little more cannot be had, as long as what came back before is still served.
      const isRefused = error instanceof DrError && error.kind === 'refused';
      const isServed = async () => (await world.recovery.askDatabase(place, ['select 1'], signal)).length === 1;
      if (!isRefused || !(await isServed().catch(() => false))) throw error;
      note(`${name}: the archive reaches to ${formatLsn(end)}, which is LOST: ${messageOf(error)}`);
      return { ...recovered, targeted: false };
    }
  },
  // What was replayed is a copy that nobody writes to.
  async undo(context) {
    context.note(`${describePlace(databasePlace(context, memberOf(context)))} stays as it is, read-only`);
  },
});

async function restored(context: StepContext): Promise<RecoveredDatabase> {
  const place = databasePlace(context, memberOf(context));
  const state = await context.world.recovery.databaseState(place, context.signal);
  if (state.state === 'recovered' && state.runId === context.run.id) return state.recovered;
  throw new DrError('refused', `this run has not recovered ${place.name}`, {
    where: describePlace(place),
    next: 'Restore it first: database.restore.',
  });
}

/**
 * Where the archive ends now, after a while for the vault to answer, and to get what another one tells of. Undefined when it does not answer:
 * then what came back is all there is.
 */
async function archiveEnd(context: StepContext, name: string, point: ResourcePoint): Promise<Lsn | undefined> {
  const { world, run, signal, clock, note } = context;
  const until = clock.now() + LAG_MS;
  for (;;) {
    const isLast = clock.now() >= until;
    try {
      const beats = await world.recovery.heartbeats(name, signal);
      const told = beats.filter(({ site }) => site !== run.site).map(({ lsn }) => parseLsn(lsn) ?? 0n);
      const end = parseLsn((await world.recovery.archivedTo(point, signal))?.lsn ?? '') ?? 0n;
      const missing = told.find((lsn) => lsn > end);
      if (missing === undefined) return end;
      if (isLast) {
        note(
          `${name}: vault ${point.vault} ends at ${formatLsn(end)}, another one at ${formatLsn(missing)}: that is LOST`,
        );
        return end;
      }
    } catch (error) {
      if (signal.aborted || isAbort(error)) throw error;
      if (isLast) {
        note(`${name}: vault ${point.vault} does not say how far the archive reaches now: ${messageOf(error)}`);
        return undefined;
      }
    }
    await clock.sleep(POLL_MS, signal);
  }
}
