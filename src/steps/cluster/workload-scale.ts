import { z } from 'zod';
import { DrError } from '../../base/errors.ts';
import type { Cluster, ClusterObject } from '../../cluster/contract.ts';
import { showRef } from '../../cluster/contract.ts';
import type { WorkloadConfig } from '../../config/types.ts';
import { defineStep, runModes, type StepContext } from '../contract.ts';
import { awaitRollout } from './await-rollout.ts';
import { atSite, change, find, ifUnreachable, siteOf, until, type Where, where, workloadOf } from './sites.ts';
import { comesByRestore, workloadProblems } from './workload-problems.ts';
import {
  countOf,
  describePods,
  keptOf,
  podsOf,
  scaledAnnotation,
  scaledBy,
  scalePatch,
  unknownCount,
  wantedOf,
  workloadRef,
} from './workload-state.ts';

const to = z
  .union([z.int().min(0).max(10_000), z.literal('kept')])
  .describe(
    '0 = stopped, and how many copies it had is kept in its annotation dr.io/replicas. kept = as many as that says; without it `replicas` of the configuration, where it has none. Or a number. A CronJob is suspended by 0 and goes on otherwise.',
  );

const of = z
  .enum(['applications', 'databases', 'all'])
  .default('applications')
  .describe('databases: the workloads that are the server of a database (`database` in the configuration).');

export const workloadScale = defineStep({
  name: 'workload.scale',
  summary: 'Stop or start a workload in the cluster of a site, and wait until its pods are really gone or ready',
  effect: 'changes',
  modes: runModes,
  inDrill: 'Scales nothing: the API server is asked by a dry run whether it would.',
  over: 'workloads',
  params: z.object({ site: where, to, of, ifUnreachable }),
  outputs: z.object({
    reached: z.boolean().describe('False: it is not at that site, not of that sort, or the cluster does not answer.'),
    before: z.number().describe('How many copies it wanted before.'),
    after: z.number().describe('How many it wants now; all are ready, or for 0 no pod is left.'),
  }),
  timeoutMs: 10 * 60_000,
  async plan(context, { site: side = 'recovery', to = 'kept', of = 'applications', ifUnreachable = 'stop' }) {
    const entry = workloadOf(context);
    const target = `${showRef(workloadRef(entry))} in the cluster of ${siteOf(context, side)}`;
    const unmeant = notMeant(entry, of);
    if (unmeant !== undefined) return { target, present: unmeant, will: ['nothing'], problems: [] };
    const seen = await atSite(context, entry, side, ifUnreachable, async (cluster) => {
      const object = await present(context, cluster, entry, side);
      if (object === undefined) return undefined;
      const count = countOf(entry, object, to);
      const pods = count === 0 ? await podsOf(cluster, object, context.signal) : [];
      return { object, count, pods };
    });
    if (seen.elsewhere !== undefined) return { target, present: seen.elsewhere, will: ['nothing'], problems: [] };
    if (seen.result === undefined)
      return {
        target,
        present: 'it is not there yet',
        will: ['start it once its configuration is restored'],
        problems: [],
      };
    const { object, count, pods } = seen.result;
    return {
      target,
      present: describe(object, pods),
      will: [
        count === undefined
          ? 'start it'
          : count === 0
            ? 'scale it to 0 and wait until no pod is left'
            : `scale it to ${count} and wait until all are ready`,
      ],
      problems: [
        ...workloadProblems(context, entry, object, siteOf(context, side)),
        ...(count === undefined ? [unknownCount(entry)] : []),
        ...(object.kind === 'DaemonSet'
          ? [{ what: `${entry.entry} is a DaemonSet: it has no count`, next: 'Stop it another way.' }]
          : []),
      ],
    };
  },
  // No `done`: what is as it should be is not changed, and waiting is repeatable.
  async run(context, { site: side, to, of, ifUnreachable }) {
    const entry = workloadOf(context);
    const unmeant = notMeant(entry, of);
    if (unmeant !== undefined) {
      context.note(unmeant);
      return { reached: false, before: 0, after: 0 };
    }
    const scaled = await atSite(context, entry, side, ifUnreachable, async (cluster, site) =>
      context.run.mode === 'drill'
        ? await rehearse(context, cluster, entry, side, to)
        : await scale(context, cluster, entry, site, to),
    );
    if (scaled.elsewhere === undefined) return { reached: true, ...scaled.result };
    context.note(scaled.elsewhere);
    return { reached: false, before: 0, after: 0 };
  },
  async undo(context, { site: side, of }, outputs) {
    const entry = workloadOf(context);
    if (notMeant(entry, of) !== undefined || context.run.mode === 'drill') return;
    // A cluster that never answered was never changed.
    const unreachable = outputs?.reached === false ? 'go-on' : 'stop';
    const back = await atSite(context, entry, side, unreachable, async (cluster, site) => {
      let restored: number | undefined;
      await change(context, cluster, workloadRef(entry), (object) => {
        const mark = scaledBy(object);
        if (mark?.run !== context.run.id) return undefined;
        restored = mark.from;
        // What waits for its activation goes on waiting.
        const kept = mark.from === 0 ? wantedOf(object) || keptOf(object) : undefined;
        const { spec, annotations } = scalePatch(object, mark.from, kept);
        return { spec, metadata: { annotations: { ...annotations, [scaledAnnotation]: null } } };
      });
      if (restored === undefined) return;
      context.note(`${showRef(workloadRef(entry))} at ${site} wants ${restored} again`);
    });
    if (back.elsewhere !== undefined) context.note(back.elsewhere);
  },
});

async function scale(
  context: StepContext,
  cluster: Cluster,
  entry: WorkloadConfig,
  site: string,
  to: number | 'kept',
): Promise<{ before: number; after: number }> {
  const { run, note, signal } = context;
  const ref = workloadRef(entry);
  let before = 0;
  const object = await change(context, cluster, ref, (present) => {
    const patch = patchFor(context, entry, present, to);
    const mark = scaledBy(present);
    before = mark?.run === run.id ? mark.from : wantedOf(present);
    return patch;
  });
  const after = wantedOf(object);
  if (after > 0) {
    const detail = await awaitRollout(context, cluster, ref);
    note(`${showRef(ref)} at ${site}: ${detail}, ${before} were wanted before`);
    return { before, after };
  }
  const begun = await podsOf(cluster, object, signal);
  await until(context, async () => {
    const present = await cluster.get(ref, signal);
    if (wantedOf(present) > 0) throw putBack(context, entry, present, site);
    const pods = await podsOf(cluster, present, signal);
    return pods.length === 0 ? { over: true } : { detail: `still there: ${describePods(pods)}` };
  });
  const ended = begun.length === 0 ? 'no pod was there' : `${begun.length} pods ended, the last is gone`;
  note(`${showRef(ref)} at ${site} wants 0 (before: ${before}): ${ended}`);
  return { before, after };
}

/** The merge patch for the wanted count; undefined when it is so already. */
function patchFor(
  context: StepContext,
  entry: WorkloadConfig,
  object: ClusterObject,
  to: number | 'kept',
): Readonly<Record<string, unknown>> | undefined {
  if (object.kind === 'DaemonSet') {
    throw new DrError('refused', `${showRef(workloadRef(entry))} cannot be scaled: a DaemonSet has no count`, {
      where: `workloads.${entry.entry}`,
      next: 'Stop it another way (command.run, object.apply with a nodeSelector that fits no node), and take it out of the workloads.',
    });
  }
  const count = countOf(entry, object, to);
  const wanted = wantedOf(object);
  if (count === undefined) {
    const { what, next } = unknownCount(entry);
    throw new DrError('refused', what, { where: showRef(workloadRef(entry)), next });
  }
  const kept = count > 0 ? undefined : wanted > 0 ? wanted : keptOf(object);
  if (count === wanted && kept === keptOf(object)) return undefined;
  const mark = scaledBy(object);
  const from = mark?.run === context.run.id ? mark.from : wanted;
  const { spec, annotations } = scalePatch(object, count, kept);
  const scaled = JSON.stringify({ run: context.run.id, from });
  return { spec, metadata: { annotations: { ...annotations, [scaledAnnotation]: scaled } } };
}

/** Asks the server by a dry run whether it would take the change. */
async function rehearse(
  context: StepContext,
  cluster: Cluster,
  entry: WorkloadConfig,
  side: Where,
  to: number | 'kept',
): Promise<{ before: number; after: number }> {
  const ref = workloadRef(entry);
  const decide = (object: ClusterObject) => patchFor(context, entry, object, to);
  const found = await present(context, cluster, entry, side);
  if (found === undefined) {
    context.note(`${showRef(ref)} is not there yet: a run restores it with its configuration before`);
    return { before: 0, after: 0 };
  }
  const before = wantedOf(found);
  const after = wantedOf(await change(context, cluster, ref, decide, { dryRun: true }));
  context.note(`${showRef(ref)} wants ${before}; the API server would take ${after} (dry run)`);
  return { before, after: before };
}

/** The workload now; undefined where a run restores it before it comes to this step. */
async function present(
  context: StepContext,
  cluster: Cluster,
  entry: WorkloadConfig,
  side: Where,
): Promise<ClusterObject | undefined> {
  if (side === 'recovery' && comesByRestore(context, entry, context.run.site))
    return await find(cluster, workloadRef(entry), context.signal);
  return await cluster.get(workloadRef(entry), context.signal);
}

function notMeant({ entry, database }: WorkloadConfig, of: 'applications' | 'databases' | 'all'): string | undefined {
  if (of === 'all' || (of === 'databases') === (database !== undefined)) return undefined;
  return database === undefined
    ? `${entry} is an application: this step is for the servers of databases`
    : `${entry} is the server of database ${database}: this step is for applications`;
}

function putBack(context: StepContext, entry: WorkloadConfig, object: ClusterObject, site: string): DrError {
  const problems = workloadProblems(context, entry, object, site);
  const who = problems.map(({ what }) => what).join('; ') || 'an autoscaler, GitOps or a person';
  return new DrError(
    'conflict',
    `somebody scales ${showRef(workloadRef(entry))} up again: it wants ${wantedOf(object)}`,
    {
      where: `cluster of ${site}: ${who}`,
      next: 'Pause what does it (gitops.pause; annotation autoscaling.keda.sh/paused of a ScaledObject), then run the same command again.',
      retryable: true,
    },
  );
}

function describe(object: ClusterObject, pods: readonly ClusterObject[]): string {
  const kept = keptOf(object);
  return [
    `wants ${wantedOf(object)}`,
    ...(kept === undefined ? [] : [`had ${kept} before it was stopped`]),
    ...(pods.length > 0 ? [`pods: ${describePods(pods)}`] : []),
  ].join(', ');
}
