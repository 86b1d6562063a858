import type { Cluster, ClusterObject } from '../../cluster/contract.ts';
import { isSame, type Json } from '../../cluster/json.ts';
import { jsonAt, numberAt } from './fields.ts';
import { all, ownerOf, selectorOf } from './workload-state.ts';

/** One template that a workload had. */
export interface Revision {
  readonly number: number;
  readonly template: Json;
  /** The object that keeps it. */
  readonly keptBy: string;
}

/** Annotation of a ReplicaSet, written by the controller of Deployments. */
const revisionAnnotation = 'deployment.kubernetes.io/revision';

/**
 * The templates that a workload had, oldest first: of a Deployment in its ReplicaSets, of a StatefulSet or DaemonSet in its
 * ControllerRevisions. As far as `revisionHistoryLimit` keeps them.
 */
export async function revisionsOf(cluster: Cluster, object: ClusterObject, signal: AbortSignal): Promise<Revision[]> {
  const { namespace, uid } = object.metadata;
  const kind = object.kind === 'Deployment' ? 'ReplicaSet' : 'ControllerRevision';
  const labels = selectorOf(object);
  const kept = await all(cluster, { apiVersion: 'apps/v1', kind }, { namespace, labels }, signal);
  return kept
    .filter((each) => ownerOf(each)?.uid === uid)
    .flatMap((each): Revision[] => {
      const number =
        kind === 'ReplicaSet' ? Number(each.metadata.annotations?.[revisionAnnotation]) : numberAt(each, 'revision');
      if (number === undefined || !Number.isSafeInteger(number)) return [];
      const template =
        kind === 'ReplicaSet' ? jsonAt(each, 'spec', 'template') : jsonAt(each, 'data', 'spec', 'template');
      return [{ number, template: cleaned(template), keptBy: each.metadata.name }];
    })
    .sort((a, b) => a.number - b.number);
}

/** The revision whose template the workload has now; undefined while its controller has not kept it yet. */
export function currentRevision(object: ClusterObject, revisions: readonly Revision[]): Revision | undefined {
  const template = cleaned(jsonAt(object, 'spec', 'template'));
  return revisions.findLast((revision) => isSame(revision.template, template));
}

/** A template without what controllers add to the copy that they keep. */
function cleaned({ $patch: _patch, ...template }: Json): Json {
  const metadata = jsonAt(template, 'metadata');
  const { 'pod-template-hash': _hash, ...labels } = jsonAt(metadata, 'labels');
  const { creationTimestamp: _created, labels: _labels, ...others } = metadata;
  return { ...template, metadata: { ...others, ...(Object.keys(labels).length > 0 && { labels }) } };
}

/** The template of the workload as it compares with those of revisions. */
export function templateOf(object: ClusterObject): Json {
  return cleaned(jsonAt(object, 'spec', 'template'));
}
