import type { Cluster, ClusterObject, ObjectRef } from './contract.ts';
import { isJson, type Json } from './json.ts';

/** A Job and its newest pod, as far as dr looks at them. Times in milliseconds since 1970, by the clock of the cluster. */
export interface JobState {
  readonly ref: ObjectRef;
  readonly uid: string;
  readonly labels: Readonly<Record<string, string>>;
  /** `suspended`: what it reads is being prepared. `waiting`: no container of it runs. */
  readonly phase: 'suspended' | 'waiting' | 'running' | 'leaving' | 'succeeded' | 'failed';
  readonly pod: string | undefined;
  /** What it waits for or why it failed, in the cluster's words: `ImagePullBackOff: Back-off pulling image "dr:2"`. */
  readonly reason: string | undefined;
  /** What the program said when it ended. */
  readonly message: string | undefined;
  /** Pods before the newest one: ended by the cluster, or replaced. */
  readonly replaced: ReadonlyArray<{ readonly pod: string; readonly reason: string }>;
}

/** The Jobs with these labels. */
export async function listJobs(
  cluster: Cluster,
  namespace: string,
  labels: string,
  signal?: AbortSignal,
): Promise<ClusterObject[]> {
  const found: ClusterObject[] = [];
  let next: string | undefined;
  do {
    const page = await cluster.list(
      { apiVersion: 'batch/v1', kind: 'Job' },
      { namespace, labels, continue: next },
      signal,
    );
    found.push(...page.objects);
    next = page.continue;
  } while (next !== undefined);
  return found;
}

/** Whether a Job has ended, and how; undefined while it has not. */
export function endOf(job: ClusterObject): 'succeeded' | 'failed' | undefined {
  const status = isJson(job['status']) ? job['status'] : {};
  const isTrue = (type: string) => conditionOf(status, type)?.['status'] === 'True';
  if (isTrue('Complete')) return 'succeeded';
  return isTrue('Failed') ? 'failed' : undefined;
}

/** Looks at a Job and its pods. Throws `not-found` when it is gone. */
export async function lookAtJob(cluster: Cluster, ref: ObjectRef, signal?: AbortSignal): Promise<JobState> {
  const job = await cluster.get(ref, signal);
  const query = { namespace: ref.namespace, labels: `job-name=${ref.name}` };
  const { objects } = await cluster.list({ apiVersion: 'v1', kind: 'Pod' }, query, signal);
  const pods = objects
    .filter(({ metadata }) => metadata.ownerReferences?.some(({ uid }) => uid === job.metadata.uid) === true)
    .sort((a, b) => String(a.metadata.creationTimestamp).localeCompare(String(b.metadata.creationTimestamp)));
  return stateOf(job, ref, pods);
}

function stateOf(job: ClusterObject, ref: ObjectRef, pods: readonly ClusterObject[]): JobState {
  const { uid = '', labels = {} } = job.metadata;
  const newest = pods.at(-1);
  const common = {
    ref,
    uid,
    labels,
    pod: newest?.metadata.name,
    message: newest && lastWords(newest),
    replaced: pods.slice(0, -1).map((pod) => ({ pod: pod.metadata.name, reason: whyPodEnded(pod) ?? 'replaced' })),
  };
  const end = endOf(job);
  if (end !== undefined) {
    const status = isJson(job['status']) ? job['status'] : {};
    const condition = conditionOf(status, 'Failed');
    const why = newest && whyPodEnded(newest);
    const said = [condition?.['reason'], condition?.['message']].filter((each) => each !== undefined).join(': ');
    return { ...common, phase: end, reason: end === 'failed' ? (why ?? said) : undefined };
  }
  const spec = isJson(job['spec']) ? job['spec'] : {};
  if (spec['suspend'] === true) return { ...common, phase: 'suspended', reason: undefined };
  if (newest === undefined) {
    const reason = 'no pod was made yet: a quota or an admission check may refuse it (kubectl describe job)';
    return { ...common, phase: 'waiting', reason };
  }
  if (newest.metadata.deletionTimestamp !== undefined) {
    return { ...common, phase: 'leaving', reason: whyPodEnded(newest) ?? 'its pod is being ended' };
  }
  const { phase } = isJson(newest['status']) ? newest['status'] : {};
  // A pod that has ended: the Job tells soon whether it counts.
  if (phase === 'Running' || phase === 'Succeeded' || phase === 'Failed')
    return { ...common, phase: 'running', reason: undefined };
  return { ...common, phase: 'waiting', reason: whyPodWaits(newest) };
}

function whyPodWaits(pod: ClusterObject): string {
  const status = isJson(pod['status']) ? pod['status'] : {};
  for (const container of [...statuses(status, 'initContainerStatuses'), ...statuses(status, 'containerStatuses')]) {
    const state = isJson(container['state']) ? container['state'] : {};
    const waiting = isJson(state['waiting']) ? state['waiting'] : {};
    if (waiting['reason'] !== undefined && waiting['reason'] !== 'PodInitializing') return told(waiting);
  }
  const scheduled = conditionOf(status, 'PodScheduled');
  if (scheduled?.['status'] === 'False') return told(scheduled);
  return 'its pod has not begun';
}

/** Why the cluster ended a pod, or with which code it ended itself; undefined while neither. */
function whyPodEnded(pod: ClusterObject): string | undefined {
  const status = isJson(pod['status']) ? pod['status'] : {};
  if (status['reason'] !== undefined) return told(status);
  const disruption = conditionOf(status, 'DisruptionTarget');
  if (disruption?.['status'] === 'True') return told(disruption);
  const ended = terminated(status);
  if (!ended || ended['exitCode'] === 0) return undefined;
  return `${String(ended['reason'] ?? 'Error')}: exit code ${String(ended['exitCode'])}`;
}

function lastWords(pod: ClusterObject): string | undefined {
  const message = terminated(isJson(pod['status']) ? pod['status'] : {})?.['message'];
  return typeof message === 'string' ? message : undefined;
}

function terminated(status: Json): Json | undefined {
  for (const { state } of statuses(status, 'containerStatuses')) {
    if (isJson(state) && isJson(state['terminated'])) return state['terminated'];
  }
  return undefined;
}

function told({ reason, message }: Json): string {
  return [reason, message].filter((each) => typeof each === 'string' && each !== '').join(': ');
}

function conditionOf(status: Json, type: string): Json | undefined {
  return statuses(status, 'conditions').find((condition) => condition['type'] === type);
}

function statuses(status: Json, key: string): readonly Json[] {
  const value = status[key];
  return Array.isArray(value) ? value.filter((each) => isJson(each)) : [];
}
