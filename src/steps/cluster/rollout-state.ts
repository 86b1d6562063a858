import type { ClusterObject } from '../../cluster/contract.ts';
import { at, conditionOf, numberAt, textAt } from './fields.ts';
import { wantedOf } from './workload-state.ts';

/** How far the cluster has followed what a workload wants. `failed`: its controller has given up. */
export interface RolloutState {
  readonly isComplete: boolean;
  readonly failed?: string;
  readonly detail: string;
}

/** Whether every copy that is wanted runs the newest template and is available, and no old one is left. */
export function rolloutState(object: ClusterObject): RolloutState {
  const { kind, metadata } = object;
  const status = (key: string) => numberAt(object, 'status', key) ?? 0;
  if (kind === 'CronJob') return { isComplete: true, detail: 'a CronJob has nothing to roll out' };
  if (status('observedGeneration') < (metadata.generation ?? 0))
    return { isComplete: false, detail: 'its controller has not seen the change yet' };
  const wanted = wantedOf(object);
  if (kind === 'DaemonSet') {
    const [updated, available] = [status('updatedNumberScheduled'), status('numberAvailable')];
    const isFresh = isOnDelete(object) || updated >= wanted;
    return { isComplete: isFresh && available >= wanted, detail: counts(wanted, updated, available) };
  }
  if (kind === 'StatefulSet') {
    const partition = numberAt(object, 'spec', 'updateStrategy', 'rollingUpdate', 'partition') ?? 0;
    const ready = status('readyReplicas');
    const updated = status('updatedReplicas');
    const isFresh = isOnDelete(object) || wanted === 0 || updated >= Math.max(0, wanted - partition);
    const isComplete = isFresh && ready >= wanted && status('replicas') === wanted;
    return { isComplete, detail: counts(wanted, updated, ready) };
  }
  const progressing = conditionOf(object, 'Progressing');
  const [updated, available] = [status('updatedReplicas'), status('availableReplicas')];
  const isComplete = updated >= wanted && available >= wanted && status('replicas') === wanted;
  const gaveUp = !isComplete && progressing?.['reason'] === 'ProgressDeadlineExceeded';
  return {
    isComplete,
    detail: counts(wanted, updated, available),
    ...(gaveUp && { failed: textAt(progressing, 'message') ?? 'its progress deadline has passed' }),
  };
}

function isOnDelete(object: ClusterObject): boolean {
  return at(object, 'spec', 'updateStrategy', 'type') === 'OnDelete';
}

function counts(wanted: number, updated: number, ready: number): string {
  return `${ready} of ${wanted} ready, ${updated} of the newest template`;
}
