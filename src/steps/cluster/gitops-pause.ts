import { z } from 'zod';
import { DrError } from '../../base/errors.ts';
import { formatDuration } from '../../base/units.ts';
import type { Cluster, ClusterObject, ObjectRef } from '../../cluster/contract.ts';
import { showRef } from '../../cluster/contract.ts';
import type { GitopsConfig } from '../../config/types.ts';
import { defineStep, runModes, type StepContext } from '../contract.ts';
import {
  busyWith,
  describeGitops,
  gitopsRefs,
  isPaused,
  markOf,
  pausePatch,
  resumePatch,
  trace,
} from './gitops-kinds.ts';
import { parentEntry, parentProblems } from './gitops-parents.ts';
import { atSite, change, find, gitopsOf, ifUnreachable, siteOf, until, where } from './sites.ts';

/** How long a paused reconciler must be seen doing nothing, milliseconds: longer than its view of the API server lags behind. */
const QUIET_MS = 10_000;

const outputs = z.object({
  reached: z.boolean().describe('False: it is not at that site, or the cluster does not answer.'),
  changed: z.boolean().describe('False: it was so already.'),
});

export const gitopsPause = defineStep({
  name: 'gitops.pause',
  summary: 'Pause a reconciler of Argo CD or Flux, and see that it has stopped: it would put back what the run changes',
  effect: 'changes',
  modes: runModes,
  inDrill: 'Pauses nothing: the API server is asked by a dry run whether it would.',
  over: 'gitops',
  params: z.object({ site: where, ifUnreachable }),
  outputs,
  timeoutMs: 10 * 60_000,
  async plan(context, { site: side = 'recovery', ifUnreachable = 'stop' }) {
    return await describePlan(context, side, ifUnreachable, 'pause it, and watch until it does nothing any more', true);
  },
  // No `done`: what is paused stays, and watching is repeatable.
  async run(context, { site: side, ifUnreachable }) {
    const { run, note } = context;
    const entry = gitopsOf(context);
    const paused = await atSite(context, entry, side, ifUnreachable, async (cluster, site) => {
      const ref = await refOf(context, cluster, entry);
      const dryRun = run.mode === 'drill';
      const [problem] = await parentProblems(context, cluster, await cluster.get(ref, context.signal), site);
      if (problem)
        throw new DrError('refused', problem.what, {
          where: `cluster of ${site}`,
          next: problem.next ?? '',
        });
      if (!dryRun) await awaitParent(context, cluster, ref, site);
      let changed = false;
      const object = await change(
        context,
        cluster,
        ref,
        (present) => {
          changed = !isPaused(present);
          return changed ? pausePatch(present, run.id) : undefined;
        },
        { dryRun },
      );
      if (dryRun)
        note(
          `${showRef(ref)} ${describeGitops(await cluster.get(ref, context.signal))}; the API server would take the pause (dry run)`,
        );
      else
        note(`${showRef(ref)} at ${site} ${describeGitops(object)}; ${await awaitQuiet(context, cluster, ref, site)}`);
      return changed && !dryRun;
    });
    if (paused.elsewhere === undefined) return { reached: true, changed: paused.result };
    note(paused.elsewhere);
    return { reached: false, changed: false };
  },
  async undo(context, { site: side }, outputs) {
    if (context.run.mode === 'drill') return;
    await resume(context, side, outputs?.reached === false ? 'go-on' : 'stop', (mark) => mark === context.run.id);
  },
});

export const gitopsResume = defineStep({
  name: 'gitops.resume',
  summary: 'Let a reconciler that a run of dr paused go on as before; one that somebody else paused stays paused',
  effect: 'changes',
  modes: runModes,
  inDrill: 'Resumes nothing: only looks.',
  over: 'gitops',
  params: z.object({ site: where, ifUnreachable }),
  outputs,
  timeoutMs: 2 * 60_000,
  async plan(context, { site: side = 'recovery', ifUnreachable = 'stop' }) {
    return await describePlan(context, side, ifUnreachable, 'let it go on, if a run of dr has paused it', false);
  },
  // No `done`: what goes on is not changed.
  async run(context, { site: side, ifUnreachable }) {
    return await resume(context, side, ifUnreachable, () => true);
  },
  async undo(context, { site: side }, outputs) {
    if (context.run.mode === 'drill' || outputs?.changed === false) return;
    const entry = gitopsOf(context);
    const back = await atSite(context, entry, side, outputs?.reached === false ? 'go-on' : 'stop', async (cluster) => {
      const ref = await refOf(context, cluster, entry);
      await change(context, cluster, ref, (object) =>
        isPaused(object) ? undefined : pausePatch(object, context.run.id),
      );
      context.note(`${showRef(ref)} is paused again`);
    });
    if (back.elsewhere !== undefined) context.note(back.elsewhere);
  },
});

async function describePlan(
  context: StepContext,
  side: z.output<typeof where>,
  unreachable: z.output<typeof ifUnreachable>,
  will: string,
  asksParents: boolean,
) {
  const entry = gitopsOf(context);
  const site = siteOf(context, side);
  const target = `${entry.kind} ${entry.namespace}/${entry.name} in the cluster of ${site}`;
  const seen = await atSite(context, entry, side, unreachable, async (cluster) => {
    const object = await cluster.get(await refOf(context, cluster, entry), context.signal);
    return { object, problems: asksParents ? await parentProblems(context, cluster, object, site) : [] };
  });
  if (seen.elsewhere !== undefined) return { target, present: seen.elsewhere, will: ['nothing'], problems: [] };
  return { target, present: describeGitops(seen.result.object), will: [will], problems: seen.result.problems };
}

async function resume(
  context: StepContext,
  side: z.output<typeof where>,
  unreachable: z.output<typeof ifUnreachable>,
  isMeant: (run: string) => boolean,
): Promise<z.output<typeof outputs>> {
  const { note, run } = context;
  const entry = gitopsOf(context);
  const resumed = await atSite(context, entry, side, unreachable, async (cluster, site) => {
    const ref = await refOf(context, cluster, entry);
    let changed = false;
    const object = await change(
      context,
      cluster,
      ref,
      (present) => {
        const mark = markOf(present);
        changed = mark !== undefined && isMeant(mark.run);
        return mark !== undefined && changed ? resumePatch(present, mark) : undefined;
      },
      { dryRun: run.mode === 'drill' },
    );
    note(`${showRef(ref)} at ${site} ${changed ? '' : 'is left alone: it '}${describeGitops(object)}`);
    return changed && run.mode !== 'drill';
  });
  if (resumed.elsewhere === undefined) return { reached: true, changed: resumed.result };
  note(resumed.elsewhere);
  return { reached: false, changed: false };
}

/** The object in the version that the cluster has. */
async function refOf({ signal }: StepContext, cluster: Cluster, entry: GitopsConfig): Promise<ObjectRef> {
  const refs = gitopsRefs(entry);
  let missing: unknown;
  for (const ref of refs) {
    try {
      await cluster.type(ref, signal);
      return ref;
    } catch (error) {
      if (!(error instanceof DrError) || error.kind !== 'not-found') throw error;
      missing ??= error;
    }
  }
  throw missing;
}

/** An Application that heals others is paused before them. */
async function awaitParent(context: StepContext, cluster: Cluster, ref: ObjectRef, site: string): Promise<void> {
  const entry = parentEntry(context, await cluster.get(ref, context.signal), site);
  if (entry === undefined) return;
  const parent = { ...ref, namespace: entry.namespace, name: entry.name };
  await until(context, async () => {
    const object = await find(cluster, parent, context.signal);
    return object === undefined || (isPaused(object) && busyWith(object) === undefined)
      ? { over: true }
      : { detail: `${showRef(parent)}, which heals it, is not paused yet` };
  });
}

/** Watches until the controller has provably left it alone; says what was seen. */
async function awaitQuiet(context: StepContext, cluster: Cluster, ref: ObjectRef, site: string): Promise<string> {
  const { clock, signal } = context;
  let last: string | undefined;
  let since = clock.now();
  return await until(context, async () => {
    const object: ClusterObject = await cluster.get(ref, signal);
    if (!isPaused(object)) {
      throw new DrError('conflict', `somebody has let ${showRef(ref)} go on again`, {
        where: `cluster of ${site}`,
        next: 'An ApplicationSet, a parent Application, or Git itself sets its sync policy: pause that first, then run the same command again.',
        retryable: true,
      });
    }
    const busy = busyWith(object);
    const now = trace(object);
    if (busy !== undefined || now !== last) {
      last = now;
      since = clock.now();
      return { detail: busy ?? 'it is watched' };
    }
    const quietMs = clock.now() - since;
    if (quietMs < QUIET_MS) return { detail: `nothing for ${formatDuration(quietMs)}` };
    const proof = object.kind === 'Application' ? 'its controller has looked at it since, and ' : '';
    return { over: `${proof}it did nothing for ${formatDuration(quietMs)}` };
  });
}
