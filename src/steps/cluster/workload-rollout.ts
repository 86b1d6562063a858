import { z } from 'zod';
import { DrError } from '../../base/errors.ts';
import type { Cluster, ClusterObject } from '../../cluster/contract.ts';
import { showRef } from '../../cluster/contract.ts';
import type { WorkloadConfig } from '../../config/types.ts';
import { defineStep, runModes, type StepContext } from '../contract.ts';
import { awaitRollout } from './await-rollout.ts';
import { patchBetween, textAt } from './fields.ts';
import { currentRevision, type Revision, revisionsOf, templateOf } from './rollout-history.ts';
import { rolloutState } from './rollout-state.ts';
import { atSite, change, ifUnreachable, siteOf, where, workloadOf } from './sites.ts';
import { workloadProblems } from './workload-problems.ts';
import { workloadRef } from './workload-state.ts';

/** On the pod template: the run that restarted the pods. */
const restartedAnnotation = 'dr.io/restarted-by';
/** On the workload: `RUN FROM TO`, so that the same run does not go back twice. */
const rolledBackAnnotation = 'dr.io/rolled-back';

const action = z
  .enum(['wait', 'restart', 'undo'])
  .default('wait')
  .describe(
    'wait: until every copy runs the newest template and is ready. restart: all pods are replaced, one after the other. undo: back to the template before.',
  );

export const workloadRollout = defineStep({
  name: 'workload.rollout',
  summary: 'Wait until a workload runs as it should, restart its pods, or go back to its template before',
  effect: 'changes',
  modes: runModes,
  inDrill: 'Changes nothing: the API server is asked by a dry run whether it would; "wait" looks once.',
  over: 'workloads',
  params: z.object({
    site: where,
    do: action,
    revision: z
      .int()
      .min(1)
      .optional()
      .describe('With "undo": the revision to go back to (kubectl rollout history); default: the one before.'),
    ifUnreachable,
  }),
  outputs: z.object({
    reached: z.boolean().describe('False: it is not at that site, or the cluster does not answer.'),
    from: z.number().optional().describe('With "undo": the revision that it had.'),
    to: z.number().optional().describe('With "undo": the revision whose template it has now.'),
  }),
  timeoutMs: 10 * 60_000,
  async plan(context, { site: side = 'recovery', do: what = 'wait', revision, ifUnreachable = 'stop' }) {
    const entry = workloadOf(context);
    const target = `${showRef(workloadRef(entry))} in the cluster of ${siteOf(context, side)}`;
    const seen = await atSite(context, entry, side, ifUnreachable, async (cluster, site) => {
      const object = await cluster.get(workloadRef(entry), context.signal);
      const { detail } = rolloutState(object);
      const images = imagesOf(object);
      const problems = what === 'undo' ? workloadProblems(context, entry, object, site) : [];
      const goal = what === 'undo' ? await choose(context, cluster, entry, object, revision) : undefined;
      return { present: `${detail}; ${images}`, goal, problems };
    });
    if (seen.elsewhere !== undefined) return { target, present: seen.elsewhere, will: ['nothing'], problems: [] };
    const { present, goal, problems } = seen.result;
    const will = {
      wait: 'wait until every copy runs the newest template and is ready',
      restart: 'replace all pods, and wait until the new ones are ready',
      undo: `go back to revision ${goal?.to.number} (kept by ${goal?.to.keptBy}), and wait until it runs`,
    };
    return { target, present, will: [will[what]], problems };
  },
  // No `done`: annotations say what this run has done already, and waiting is repeatable.
  async run(context, { site: side, do: what, revision, ifUnreachable }) {
    const { note, run } = context;
    const entry = workloadOf(context);
    const ref = workloadRef(entry);
    const rolled = await atSite(context, entry, side, ifUnreachable, async (cluster, site) => {
      const dryRun = run.mode === 'drill';
      let numbers: { from?: number; to?: number } = {};
      if (what === 'restart')
        await change(context, cluster, ref, (object) => restartPatch(context, entry, object), { dryRun });
      if (what === 'undo') numbers = await goBack(context, cluster, entry, revision);
      const at = `${showRef(ref)} at ${site}`;
      if (dryRun) {
        const { detail } = rolloutState(await cluster.get(ref, context.signal));
        note(`${at}: ${detail}${what === 'wait' ? '' : `; the API server would take the ${what} (dry run)`}`);
        return numbers;
      }
      const detail = await awaitRollout(context, cluster, ref);
      if (what === 'restart') note(`${at}: its pods were replaced`);
      if (what === 'undo')
        note(`${at}: revision ${numbers.from} was taken back, it runs what revision ${numbers.to} was`);
      note(`${at}: ${detail}`);
      return numbers;
    });
    if (rolled.elsewhere === undefined) return { reached: true, ...rolled.result };
    note(rolled.elsewhere);
    return { reached: false };
  },
  async undo(context, { site: side, do: what }, outputs) {
    const entry = workloadOf(context);
    if (what !== 'undo' || context.run.mode === 'drill') {
      context.note('nothing to take back: pods that were replaced are as the template says');
      return;
    }
    const back = await atSite(context, entry, side, outputs?.reached === false ? 'go-on' : 'stop', async (cluster) => {
      const object = await cluster.get(workloadRef(entry), context.signal);
      const mark = rolledBack(object);
      if (mark?.run !== context.run.id) return;
      const former = (await revisionsOf(cluster, object, context.signal)).find(({ number }) => number === mark.from);
      if (former === undefined) {
        throw new DrError('not-found', `revision ${mark.from} of ${showRef(workloadRef(entry))} is not kept any more`, {
          where: cluster.target,
          next: 'Apply the manifest that you want (kubectl apply, GitOps).',
        });
      }
      await change(context, cluster, workloadRef(entry), (present) => ({
        ...templatePatch(present, former),
        metadata: { annotations: { [rolledBackAnnotation]: null } },
      }));
      context.note(`${showRef(workloadRef(entry))} has the template of revision ${mark.from} again`);
    });
    if (back.elsewhere !== undefined) context.note(back.elsewhere);
  },
});

function restartPatch(
  { run }: StepContext,
  entry: WorkloadConfig,
  object: ClusterObject,
): Readonly<Record<string, unknown>> | undefined {
  if (object.kind === 'CronJob') throw notRolled(entry);
  if (textAt(object, 'spec', 'template', 'metadata', 'annotations', restartedAnnotation) === run.id) return undefined;
  return { spec: { template: { metadata: { annotations: { [restartedAnnotation]: run.id } } } } };
}

async function goBack(
  context: StepContext,
  cluster: Cluster,
  entry: WorkloadConfig,
  wanted: number | undefined,
): Promise<{ from: number; to: number }> {
  const { run, signal } = context;
  const ref = workloadRef(entry);
  const object = await cluster.get(ref, signal);
  const mark = rolledBack(object);
  if (mark?.run === run.id) return { from: mark.from, to: mark.to };
  const { from, to } = await choose(context, cluster, entry, object, wanted);
  const decide = (present: ClusterObject) => {
    // Decided for another template than this one: whoever changed it meanwhile has the say.
    if (JSON.stringify(templateOf(present)) !== JSON.stringify(templateOf(object))) {
      throw new DrError('conflict', `somebody changed the template of ${showRef(ref)} in the meantime`, {
        where: cluster.target,
        next: 'Look who (metadata.managedFields), then run the same command again.',
      });
    }
    const annotations = { [rolledBackAnnotation]: `${run.id} ${from} ${to.number}` };
    return { ...templatePatch(present, to), metadata: { annotations } };
  };
  await change(context, cluster, ref, decide, { dryRun: run.mode === 'drill' });
  return { from, to: to.number };
}

/** The revision to go back to. */
async function choose(
  { signal }: StepContext,
  cluster: Cluster,
  entry: WorkloadConfig,
  object: ClusterObject,
  wanted: number | undefined,
): Promise<{ from: number; to: Revision }> {
  if (object.kind === 'CronJob') throw notRolled(entry);
  const revisions = await revisionsOf(cluster, object, signal);
  const current = currentRevision(object, revisions);
  const others = revisions.filter(({ number }) => number !== current?.number);
  const to = wanted === undefined ? others.at(-1) : others.find(({ number }) => number === wanted);
  if (to !== undefined && current !== undefined) return { from: current.number, to };
  const kept = revisions.map(({ number }) => number).join(', ') || 'none';
  const why =
    current === undefined
      ? 'its controller has not kept the present template yet'
      : wanted === current.number
        ? `it runs revision ${wanted} already`
        : `there is no ${wanted === undefined ? 'earlier revision' : `revision ${wanted}`}`;
  throw new DrError('not-found', `${showRef(workloadRef(entry))} cannot go back: ${why}`, {
    where: `${cluster.target}; revisions that are kept: ${kept}`,
    next: 'See `kubectl rollout history`; revisionHistoryLimit says how many are kept.',
    retryable: current === undefined,
  });
}

/** A merge patch that makes the template exactly that of the revision. */
function templatePatch(object: ClusterObject, { template }: Revision): { spec: { template: object } } {
  return { spec: { template: patchBetween(templateOf(object), template) } };
}

function rolledBack({ metadata }: ClusterObject): { run: string; from: number; to: number } | undefined {
  const [run = '', from, to] = (metadata.annotations?.[rolledBackAnnotation] ?? '').split(' ');
  return run === '' ? undefined : { run, from: Number(from), to: Number(to) };
}

function imagesOf(object: ClusterObject): string {
  const containers = templateOf(object)['spec'];
  const list = (containers as { containers?: ReadonlyArray<{ image?: string }> } | undefined)?.containers ?? [];
  return `images ${list.map(({ image }) => image ?? '?').join(', ') || 'unknown'}`;
}

function notRolled({ entry }: WorkloadConfig): DrError {
  return new DrError('refused', `${entry} is a CronJob: it has no pods to replace and keeps no revisions`, {
    where: `workloads.${entry}`,
    next: 'Use workload.scale (0 suspends it), or object.apply.',
  });
}
