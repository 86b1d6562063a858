import type { Cluster, ClusterObject, ObjectRef } from '../../cluster/contract.ts';
import { replicasAnnotation, suspendAnnotation } from '../../cluster/parked.ts';
import type { WorkloadConfig } from '../../config/types.ts';
import { at, jsonAt, listAt, numberAt, textAt } from './fields.ts';

/** Which run changed the number of copies, and from what: `{"run":"…","from":3}`. Taken away when the run takes its change back. */
export const scaledAnnotation = 'dr.io/scaled';

export function workloadRef({ kind, namespace, name }: WorkloadConfig): ObjectRef {
  return { apiVersion: kind === 'CronJob' ? 'batch/v1' : 'apps/v1', kind, namespace, name };
}

/** How many copies it wants; a CronJob that is not suspended counts as one. */
export function wantedOf(object: ClusterObject): number {
  if (object.kind === 'CronJob') return at(object, 'spec', 'suspend') === true ? 0 : 1;
  if (object.kind === 'DaemonSet') return numberAt(object, 'status', 'desiredNumberScheduled') ?? 0;
  return numberAt(object, 'spec', 'replicas') ?? 1;
}

/** How many copies it had before somebody stopped it and kept the number; undefined when nobody did. */
export function keptOf({ kind, metadata }: ClusterObject): number | undefined {
  const written = metadata.annotations?.[kind === 'CronJob' ? suspendAnnotation : replicasAnnotation];
  if (kind === 'CronJob') return written === 'false' ? 1 : undefined;
  return written !== undefined && /^\d{1,5}$/.test(written) ? Number(written) : undefined;
}

/** How many copies are meant; undefined when nothing says so. */
export function countOf(entry: WorkloadConfig, object: ClusterObject, to: number | 'kept'): number | undefined {
  if (to !== 'kept') return object.kind === 'CronJob' ? Math.min(to, 1) : to;
  const kept = keptOf(object);
  if (kept !== undefined) return kept;
  const wanted = wantedOf(object);
  // A CronJob without the annotation was suspended by somebody else, for a reason of his own.
  if (wanted > 0 || object.kind === 'CronJob') return wanted;
  return entry.replicas;
}

/** What to say when nothing does. */
export function unknownCount({ entry }: WorkloadConfig): { what: string; next: string } {
  return {
    what: `nothing says how many copies of ${entry} there should be: it wants 0, and has no annotation dr.io/replicas`,
    next: `Add "replicas" to workloads.${entry}, or write a number under "to" in the runbook.`,
  };
}

/** The part of a merge patch that makes it want `count` copies and keeps, or forgets, how many it had. */
export function scalePatch(
  { kind }: ClusterObject,
  count: number,
  kept: number | undefined,
): { readonly spec: object; readonly annotations: Readonly<Record<string, string | null>> } {
  if (kind === 'CronJob')
    return {
      spec: { suspend: count === 0 },
      annotations: { [suspendAnnotation]: kept === undefined ? null : 'false' },
    };
  return {
    spec: { replicas: count },
    annotations: { [replicasAnnotation]: kept === undefined ? null : String(kept) },
  };
}

/** What the run that changed it last left: from how many. */
export function scaledBy({ metadata }: ClusterObject): { readonly run: string; readonly from: number } | undefined {
  try {
    const written: unknown = JSON.parse(metadata.annotations?.[scaledAnnotation] ?? 'null');
    const [run, from] = [textAt(written, 'run'), numberAt(written, 'from')];
    return run === undefined || from === undefined ? undefined : { run, from };
  } catch {
    return undefined;
  }
}

/**
 * Pods of the workload that may still run: also those that are being ended, and those on a node that is not heard of. A pod that has ended
 * for good (Succeeded, Failed) runs no more.
 */
export async function podsOf(cluster: Cluster, object: ClusterObject, signal: AbortSignal): Promise<ClusterObject[]> {
  const { namespace, uid } = object.metadata;
  if (object.kind === 'CronJob') {
    const jobs = (await all(cluster, { apiVersion: 'batch/v1', kind: 'Job' }, { namespace }, signal)).filter(
      (job) => ownerOf(job)?.uid === uid,
    );
    const owners = new Set(jobs.map(({ metadata }) => metadata.uid));
    const pods = await all(cluster, { apiVersion: 'v1', kind: 'Pod' }, { namespace, labels: 'job-name' }, signal);
    return pods.filter((pod) => mayRun(pod) && owners.has(ownerOf(pod)?.uid));
  }
  const labels = selectorOf(object);
  const pods = await all(cluster, { apiVersion: 'v1', kind: 'Pod' }, { namespace, labels }, signal);
  const strangers = await strangersOf(cluster, object, labels, signal);
  return pods.filter((pod) => mayRun(pod) && !strangers(ownerOf(pod)?.uid));
}

/** Owners of pods that the selector matches too although they belong to another workload. */
async function strangersOf(
  cluster: Cluster,
  object: ClusterObject,
  labels: string,
  signal: AbortSignal,
): Promise<(uid: string | undefined) => boolean> {
  const { namespace, uid } = object.metadata;
  // A pod without an owner was left behind by this one, or is about to be adopted.
  if (object.kind !== 'Deployment') return (owner) => owner !== undefined && owner !== uid;
  const sets = await all(cluster, { apiVersion: 'apps/v1', kind: 'ReplicaSet' }, { namespace, labels }, signal);
  const others = new Set(
    sets.filter((set) => ownerOf(set) !== undefined && ownerOf(set)?.uid !== uid).map(({ metadata }) => metadata.uid),
  );
  return (owner) => owner !== undefined && others.has(owner);
}

/** What controls an object; undefined when nothing does. */
export function ownerOf({ metadata }: ClusterObject) {
  return metadata.ownerReferences?.find(({ controller }) => controller === true);
}

function mayRun(pod: ClusterObject): boolean {
  const phase = textAt(pod, 'status', 'phase');
  return phase !== 'Succeeded' && phase !== 'Failed';
}

/** The label selector of a workload as requests take it. */
export function selectorOf(object: ClusterObject): string {
  const same = Object.entries(jsonAt(object, 'spec', 'selector', 'matchLabels')).map(
    ([key, value]) => `${key}=${value}`,
  );
  const rules = listAt(object, 'spec', 'selector', 'matchExpressions').map((rule) => {
    const { key, operator, values } = rule;
    const list = Array.isArray(values) ? values.join(',') : '';
    if (operator === 'Exists') return String(key);
    if (operator === 'DoesNotExist') return `!${key}`;
    return `${key} ${operator === 'NotIn' ? 'notin' : 'in'} (${list})`;
  });
  return [...same, ...rules].join(',');
}

/** All objects of a kind, page by page. */
export async function all(
  cluster: Cluster,
  type: { readonly apiVersion: string; readonly kind: string },
  query: { readonly namespace: string | undefined; readonly labels?: string },
  signal: AbortSignal,
): Promise<ClusterObject[]> {
  const found: ClusterObject[] = [];
  let next: string | undefined;
  do {
    const page = await cluster.list(type, { ...query, continue: next }, signal);
    found.push(...page.objects);
    next = page.continue;
  } while (next !== undefined);
  return found;
}

/** Pods in words, with what keeps them from being ready or from ending. */
export function describePods(pods: readonly ClusterObject[]): string {
  const shown = pods.slice(0, 5).map((pod) => {
    const trouble = troubleOf(pod);
    const ending = pod.metadata.deletionTimestamp === undefined ? '' : ', is being ended';
    const node = textAt(pod, 'spec', 'nodeName');
    return `${pod.metadata.name} (${textAt(pod, 'status', 'phase') ?? 'not seen'}${ending}${node ? ` on ${node}` : ''}${trouble ? `: ${trouble}` : ''})`;
  });
  return [...shown, ...(pods.length > 5 ? [`and ${pods.length - 5} more`] : [])].join(', ');
}

/** Why a pod is not ready, as far as it says so. */
export function troubleOf(pod: ClusterObject): string | undefined {
  for (const container of [
    ...listAt(pod, 'status', 'initContainerStatuses'),
    ...listAt(pod, 'status', 'containerStatuses'),
  ]) {
    for (const state of ['waiting', 'terminated']) {
      const reason = textAt(container, 'state', state, 'reason');
      if (reason === undefined || reason === 'Completed' || reason === 'PodInitializing') continue;
      const message = textAt(container, 'state', state, 'message');
      return `${textAt(container, 'name') ?? 'a container'}: ${reason}${message ? `, ${message.trim().slice(-300)}` : ''}`;
    }
  }
  const scheduled = listAt(pod, 'status', 'conditions').find(({ type }) => type === 'PodScheduled');
  return scheduled?.['status'] === 'False' ? textAt(scheduled, 'message') : textAt(pod, 'status', 'reason');
}
