import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import { printableUrl } from '../base/redact.ts';
import { formatDuration } from '../base/units.ts';
import { parseLsn } from '../postgres/lsn.ts';
import { defineStep, type StepContext } from './contract.ts';
import { restoredDatabaseOutputs } from './database-restore.ts';
import { databasePlace, databaseUrl, memberOf, pointOf } from './places.ts';
import { type RecoveredDatabase, type ResourcePoint, resourcePointSchema } from './ports.ts';

const POLL_MS = 200;
/** Rounds after which a server that should be quiet and still moves is given up. */
const ROUNDS = 5;

export const databaseDrain = defineStep({
  name: 'database.drain',
  summary: 'Wait until the last byte that the old primary has written is in the vault',
  effect: 'none',
  modes: ['switchover', 'failback'],
  over: 'databases',
  params: z.object({
    points: z.record(z.string(), resourcePointSchema).describe('Recovery points, from assess.resources.'),
    flushedTo: z.string().describe('From database.quiesce.'),
  }),
  outputs: z.object({ archivedTo: z.string().describe('The archive reaches at least to this LSN.') }),
  timeoutMs: 10 * 60_000,
  async plan(context, { points }) {
    const name = memberOf(context);
    const point = points && pointOf(points, name);
    const end = point && (await context.world.recovery.archivedTo(point, context.signal));
    return {
      target: `archive of ${name}${point ? ` in vault ${point.vault}` : ''}`,
      present: end ? `it reaches to ${end.lsn}` : 'it holds nothing yet',
      will: ['wait until it holds everything that was ever committed'],
      problems: [],
    };
  },
  async run(context, { points, flushedTo }) {
    const name = memberOf(context);
    const archivedTo = await drained(context, name, pointOf(points, name), flushedTo);
    return { archivedTo };
  },
});

export const databaseCatchUp = defineStep({
  name: 'database.catch-up',
  summary: 'Replay the last WAL of the quiet primary, and prove that nothing of it is missing',
  effect: 'changes',
  modes: ['switchover', 'failback'],
  over: 'databases',
  after: [{ uses: 'database.quiesce', modes: ['switchover', 'failback'] }],
  params: z.object({
    points: z.record(z.string(), resourcePointSchema).describe('Recovery points, from assess.resources.'),
  }),
  outputs: restoredDatabaseOutputs.extend({
    nextXid: z.string().describe('What the old primary would have written next: database.fence compares.'),
  }),
  timeoutMs: 30 * 60_000,
  async plan(context) {
    const place = databasePlace(context, memberOf(context));
    return {
      target: place.directory,
      present: 'what it replays will be known when the primary is quiet',
      will: ['replay to the last byte that the old primary has written'],
      problems: [],
    };
  },
  // No `done`: a server that has everything is where it should be after one more round.
  async run(context, { points }) {
    const { world, run, signal, note, progress } = context;
    const name = memberOf(context);
    const place = databasePlace(context, name);
    const url = databaseUrl(context, name, run.from);
    const point = pointOf(points, name);
    for (let round = 1; ; round++) {
      const quiet = await world.writers.look(url, signal);
      await drained(context, name, point, quiet.flushedTo);
      const recovered = await world.recovery.catchUp(place, progress, signal);
      requireReplayed(name, recovered, quiet.flushedTo);
      const { nextXid } = await world.writers.look(url, signal);
      if (nextXid === quiet.nextXid) {
        note(
          `${name}: replayed to ${recovered.replayedTo}; the old primary has written nothing beyond ${quiet.flushedTo}: nothing is lost`,
        );
        return { ...recovered, targeted: false, nextXid };
      }
      if (round === ROUNDS) {
        throw new DrError('refused', `the old primary of ${name} goes on writing although it was made quiet`, {
          where: printableUrl(url),
          next: 'Find out who writes (superusers are not locked out, nor background workers), stop it, then give the same command again.',
        });
      }
      note(`${name}: the old primary has written meanwhile (autovacuum, or a superuser); once more`);
    }
  },
  // What was replayed is a copy that nobody writes to: taking the move back needs nothing more here.
  async undo(context) {
    const { directory } = databasePlace(context, memberOf(context));
    context.note(`${directory} stays as it is, read-only`);
  },
});

/** Waits until the archive reaches `wanted`; says how far it is when it does not. */
async function drained(context: StepContext, name: string, point: ResourcePoint, wanted: string): Promise<string> {
  const { world, signal, clock, note } = context;
  const begun = clock.now();
  for (let seen = 'nothing'; ; ) {
    const end = await world.recovery.archivedTo(point, signal);
    seen = end?.lsn ?? seen;
    if (end && before(wanted, end.lsn)) {
      note(
        `${name}: vault ${point.vault} holds everything up to ${end.lsn}, ${formatDuration(clock.now() - begun)} after it was asked for`,
      );
      return end.lsn;
    }
    await clock.sleep(POLL_MS, signal).catch((cause: unknown) => {
      throw new DrError('check-failed', `the archive of ${name} reaches to ${seen}, and ${wanted} is needed`, {
        where: `vault ${point.vault}`,
        next: 'See that the daemon of the old site runs and reaches this vault (`dr status`), then give the same command again.',
        cause,
      });
    });
  }
}

function requireReplayed(name: string, { replayedTo, where }: RecoveredDatabase, wanted: string): void {
  if (before(wanted, replayedTo)) return;
  throw new DrError('check-failed', `${name} was replayed to ${replayedTo} only, and ${wanted} is needed`, {
    where,
    next: 'Give the same command again.',
    retryable: true,
  });
}

function before(a: string, b: string): boolean {
  return (parseLsn(a) ?? 0n) <= (parseLsn(b) ?? 0n);
}
