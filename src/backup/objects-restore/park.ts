import type { ClusterObject, ObjectType } from '../../cluster/contract.ts';
import { replicasAnnotation, suspendAnnotation } from '../../cluster/parked.ts';
import { type Draft, inner } from './draft.ts';

/** What is known of an object that is there already. */
export interface LiveWorkload {
  /** `spec.replicas`; undefined where it has none. */
  readonly replicas: number | undefined;
  /** `spec.suspend`. */
  readonly suspended: boolean | undefined;
}

/** What becomes of how many copies run. */
export interface Parked {
  readonly note?: string;
  /** True: the object is left alone. */
  readonly isLeft?: boolean;
}

/** True for kinds of which a number of copies run. */
function isScaled(object: ClusterObject, type: Pick<ObjectType, 'subresources'> | undefined): boolean {
  if (/^(Deployment|StatefulSet|ReplicaSet|ReplicationController)$/.test(object.kind)) return true;
  return type?.subresources.includes('scale') === true && typeof inner(object, 'spec')?.['replicas'] === 'number';
}

/**
 * Decides how many copies of a restored workload run, in place. With `scaleToZero` none of those that are new: what it had is
 * noted in an annotation, for the runbook that activates it. What runs there already keeps its number, and one that is waiting goes on
 * waiting: repeating a restore neither stops nor starts anything.
 */
export function park(
  draft: Draft & ClusterObject,
  type: Pick<ObjectType, 'subresources'> | undefined,
  live: LiveWorkload | undefined,
  options: { readonly scaleToZero: boolean; readonly isAutoscaled: boolean },
): Parked {
  const spec = inner(draft, 'spec');
  if (spec === undefined) return {};
  const { scaleToZero, isAutoscaled } = options;
  if (draft.kind === 'Job') {
    // Whether it has run is in its status, and that does not come back; what it is cannot be changed afterwards.
    if (live) return { isLeft: true, note: 'it is there: a Job is not changed' };
    if (spec['suspend'] === true) return {};
    spec['suspend'] = true;
    return { note: 'suspended: whether it has run cannot be known; resume it if it must run (again)' };
  }
  if (draft.kind === 'Pod' && scaleToZero)
    return { isLeft: true, note: 'a Pod without a controller cannot wait: it is not restored with --scale-to-zero' };
  if (draft.kind === 'DaemonSet' && scaleToZero)
    return live ? {} : { note: 'a DaemonSet cannot be scaled to 0: it runs' };
  if (draft.kind === 'CronJob') {
    if (!scaleToZero || spec['suspend'] === true) return {};
    if (live && live.suspended !== true) return { note: 'it runs there already: not suspended' };
    spec['suspend'] = true;
    annotate(draft, suspendAnnotation, 'false');
    return {};
  }
  if (!isScaled(draft, type)) return {};
  const wanted = typeof spec['replicas'] === 'number' ? spec['replicas'] : 1;
  if (live?.replicas !== undefined && live.replicas > 0 && (scaleToZero || isAutoscaled)) {
    spec['replicas'] = live.replicas;
    return live.replicas === wanted ? {} : { note: `it runs there already: it keeps ${live.replicas} replicas` };
  }
  if (!scaleToZero || wanted === 0) return {};
  spec['replicas'] = 0;
  annotate(draft, replicasAnnotation, String(wanted));
  return {};
}

function annotate(draft: Draft, key: string, value: string): void {
  const metadata = inner(draft, 'metadata');
  if (metadata) metadata['annotations'] = { ...inner(metadata, 'annotations'), [key]: value };
}
