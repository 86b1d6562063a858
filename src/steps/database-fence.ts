import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import { printableUrl } from '../base/redact.ts';
import { formatDuration } from '../base/units.ts';
import { serverOf, serverStopped } from './cluster/fence-evidence.ts';
import { defineStep, type StepContext } from './contract.ts';
import { databaseUrl, memberOf } from './places.ts';
import type { Heartbeat } from './ports.ts';

/** Heartbeats that have to stay away before a writer counts as silent. */
const MISSED_BEATS = 3;
/** How wrong the clocks of two sites may be when an age is computed from both, milliseconds. */
const SKEW_MS = 60_000;
/** A heartbeat that still moves after this many of its intervals belongs to something that lives. */
const PATIENCE_BEATS = 6;

const observed = z.object({
  database: z.string(),
  vault: z.string(),
  writtenAtMs: z.number(),
  observedAtMs: z.number(),
});

export const fenceOutputs = z.object({
  proof: z
    .enum(['dead', 'stopped', 'read-only', 'quiet', 'accepted'])
    .describe(
      'dead: neither it nor its archive gave a sign. stopped: it does not answer, and the cluster of its site wants no copy of it and has no pod. read-only: it refused a write. quiet: a planned move has locked its writers out, and nothing was written since. accepted: a person took the risk by name.',
    ),
  detail: z.string(),
  lastSignOfLifeMs: z
    .number()
    .optional()
    .describe(
      'Of a failover: the last heartbeat of its archive, milliseconds since 1970. It may have written until then.',
    ),
});

export const databaseFence = defineStep({
  name: 'database.fence',
  summary: 'Prove that the old primary cannot write any more',
  effect: 'changes',
  modes: ['failover', 'switchover', 'failback'],
  over: 'databases',
  params: z.object({
    heartbeats: z
      .array(observed)
      .default([])
      .describe('What assess.witnesses saw: the longer ago, the shorter the wait here.'),
    quiet: z
      .boolean()
      .default(false)
      .describe('True: the living primary was made quiet before (database.quiesce), and must still be so.'),
    nextXid: z
      .string()
      .optional()
      .describe('In a planned move, from database.catch-up: what must not have moved since.'),
  }),
  outputs: fenceOutputs,
  timeoutMs: 5 * 60_000,
  async plan(context, { quiet = false }) {
    const { run, world, signal } = context;
    const name = memberOf(context);
    const url = databaseUrl(context, name, run.from);
    const probe = await world.probes.database(url, signal);
    const lives = probe.session && probe.inRecovery !== true;
    const server = serverOf(context, name);
    if (run.mode !== 'failover' || quiet) {
      return {
        target: `old primary of ${name} at ${printableUrl(url)}`,
        present: probe.detail,
        will: ['see that it is still quiet and has written nothing since; stop otherwise'],
        problems: [],
      };
    }
    return {
      target: `old primary of ${name} at ${printableUrl(url)}`,
      present: probe.detail,
      will: run.acceptedSplitBrain
        ? [`go on without proof, because ${run.acceptedSplitBrain} accepts that`]
        : [
            ...(lives && server ? [`expect that it was stopped before: ${server.entry} wants 0 then`] : []),
            'see that it does not answer and that its archive stands still, or that it refuses a write; stop otherwise',
          ],
      problems:
        lives && !server && !run.acceptedSplitBrain
          ? [
              {
                what: `the old primary of ${name} answers and is writable`,
                next: 'Stop it, or plan a switchover instead of a failover.',
              },
            ]
          : [],
    };
  },
  async run(context, params) {
    const { run, note } = context;
    const name = memberOf(context);
    if (run.acceptedSplitBrain !== undefined) {
      const detail = `${run.acceptedSplitBrain} accepted that the old primary of ${name} may still accept writes`;
      note(detail);
      return { proof: 'accepted' as const, detail, ...(await lastSign(context, name)) };
    }
    const url = databaseUrl(context, name, run.from);
    if (run.mode !== 'failover' || params.quiet)
      return { proof: 'quiet' as const, detail: await requireQuiet(context, name, url, params.nextXid) };
    return { ...(await prove(context, name, url, params.heartbeats)), ...(await lastSign(context, name)) };
  },
  // It only looked.
  async undo() {},
});

/** For the loss in the report. */
async function lastSign(context: StepContext, name: string): Promise<{ lastSignOfLifeMs?: number }> {
  const last = await newestHeartbeat(context, name);
  return last ? { lastSignOfLifeMs: last.writtenAtMs } : {};
}

/** Proves in a failover that it cannot write; throws when it cannot be proven. */
async function prove(
  context: StepContext,
  name: string,
  url: string,
  heartbeats: ReadonlyArray<z.output<typeof observed>>,
) {
  const answer = await lookAtServer(context, name, url);
  if (answer !== undefined) return { proof: 'read-only' as const, detail: answer };
  const stopped = await serverStopped(context, name);
  if (stopped !== undefined) return { proof: 'stopped' as const, detail: `it does not answer, and ${stopped}` };
  const silence = await waitForSilence(context, name, heartbeats);
  // It may have come back while its archive was watched.
  const again = await lookAtServer(context, name, url);
  if (again !== undefined) return { proof: 'read-only' as const, detail: again };
  return { proof: 'dead' as const, detail: silence };
}

/** In a planned move the old primary lives: it must still be as quiet as `database.quiesce` made it, with nothing written since. */
async function requireQuiet(
  context: StepContext,
  name: string,
  url: string,
  nextXid: string | undefined,
): Promise<string> {
  const { world, signal, note } = context;
  const state = await world.writers.look(url, signal);
  const moved =
    nextXid !== undefined && state.nextXid !== nextXid ? ['it has written since its last WAL was replayed'] : [];
  const loud = [...state.loud, ...moved];
  if (loud.length > 0) {
    throw new DrError('refused', `the old primary of ${name} is not quiet any more: ${loud.join('; ')}`, {
      where: printableUrl(url),
      next: 'Find out who writes there, stop it, and begin the move anew with --new: the old site works on until then.',
    });
  }
  const detail = `no session, no role that may log in, a write was refused (${state.refusal}), and nothing was written since`;
  note(`old primary of ${name}: ${detail}`);
  return detail;
}

/** What proves that a server that answers is read-only; undefined when it does not answer. Throws when it may write. */
async function lookAtServer(context: StepContext, name: string, url: string): Promise<string | undefined> {
  const { world, signal, note } = context;
  const where = printableUrl(url);
  const probe = await world.probes.database(url, signal);
  note(`old primary of ${name} at ${where}: ${probe.detail}`);
  if (probe.reach !== 'connected') return undefined;
  if (!probe.session)
    throw unfenced(name, `it answers at ${where} but lets nobody in to see whether it writes (${probe.detail})`);
  const { proof, detail } = await world.probes.refusesWrites(url, signal);
  note(`a write at the old primary of ${name}: ${detail}`);
  if (proof) return detail;
  throw unfenced(name, `it answers at ${where} and did not refuse a write (${detail})`);
}

/** Waits until the archive of the old site has provably stood still for long enough; says what was seen. */
async function waitForSilence(
  context: StepContext,
  name: string,
  seenBefore: ReadonlyArray<z.output<typeof observed>>,
): Promise<string> {
  const { clock, signal, note } = context;
  let seen = await newestHeartbeat(context, name);
  if (seen === undefined) {
    throw unfenced(
      name,
      'it does not answer from here, and no vault has a heartbeat of its archive, so a network partition looks the same',
    );
  }
  const earlier = seenBefore.filter(({ database, vault }) => database === name && vault === seen?.vault);
  const unchanged = earlier.filter(({ writtenAtMs }) => writtenAtMs === seen?.writtenAtMs);
  let since = Math.min(clock.now(), ...unchanged.map(({ observedAtMs }) => observedAtMs));
  const patientUntil = clock.now() + PATIENCE_BEATS * seen.everyMs + SKEW_MS;
  for (;;) {
    const needed = MISSED_BEATS * seen.everyMs;
    const stoodStillMs = clock.now() - since;
    const ageMs = clock.now() - seen.writtenAtMs;
    if (stoodStillMs >= needed || ageMs >= needed + SKEW_MS) {
      const detail = `it does not answer, and its archive (vault ${seen.vault}, ${seen.lsn}) has stood still for ${formatDuration(Math.max(stoodStillMs, ageMs))}`;
      note(`old primary of ${name}: ${detail}`);
      return detail;
    }
    await clock.sleep(Math.min(1000, needed - stoodStillMs), signal);
    const next = await newestHeartbeat(context, name);
    if (next && next.writtenAtMs !== seen.writtenAtMs) {
      if (clock.now() > patientUntil) {
        throw unfenced(
          name,
          `it does not answer from here, but its archive still moves (${next.lsn} in vault ${next.vault}): the network is parted and the old site works on`,
        );
      }
      seen = next;
      since = clock.now();
    }
  }
}

async function newestHeartbeat(context: StepContext, name: string): Promise<Heartbeat | undefined> {
  const beats = await context.world.recovery.heartbeats(name, context.signal);
  return beats.filter(({ site }) => site !== context.run.site).sort((a, b) => b.writtenAtMs - a.writtenAtMs)[0];
}

function unfenced(name: string, why: string): DrError {
  return new DrError('refused', `it is not proven that the old primary of ${name} cannot write: ${why}`, {
    where: `database ${name}`,
    next: 'Stop the old primary or cut it off, then run the same command again. If you know that it cannot write, or take the loss of what it still accepts: add --accept-split-brain "YOUR NAME"; it is recorded.',
    retryable: false,
  });
}
