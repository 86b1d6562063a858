import type { ClusterObject } from '../../cluster/contract.ts';
import { isOfOneRun } from '../../cluster/parked.ts';
import { noiseOf, withoutNoise } from '../objects/noise.ts';
import { type Draft, inner, records, wordsOf } from './draft.ts';

/** Why an object is not restored although a backup has it; undefined for one that is. */
export function whyLeftOut(object: ClusterObject): string | undefined {
  return noiseOf(object);
}

/**
 * The object as it is applied to any cluster: without identity, status and noise, and without what a cluster assigns (addresses, ports,
 * volumes), so that it is assigned anew. A copy: the object of the backup stays as it is.
 */
export function cleaned(object: ClusterObject): Draft & ClusterObject {
  const draft = structuredClone(withoutNoise(object)) as Draft & ClusterObject;
  // An owner has another identity there; with a wrong one the object would be collected as garbage.
  const metadata = inner(draft, 'metadata') ?? {};
  delete metadata['ownerReferences'];
  const annotations = Object.entries(wordsOf(draft, 'annotations'));
  const kept = annotations.filter(([name]) => !isOfOneRun(name));
  if (kept.length === 0) delete metadata['annotations'];
  else metadata['annotations'] = Object.fromEntries(kept);
  byKind[object.kind]?.(draft, inner(draft, 'spec') ?? {});
  return draft;
}

const byKind: Readonly<Record<string, (draft: Draft, spec: Draft) => void>> = {
  ClusterRole: (draft) => {
    // The rules of an aggregated role belong to the controller that gathers them.
    if (inner(draft, 'aggregationRule')) delete draft['rules'];
  },
  Pod: (_draft, spec) => {
    // The number of its class, which that cluster may give otherwise.
    if (spec['priorityClassName'] !== undefined) for (const key of ['priority', 'preemptionPolicy']) delete spec[key];
  },
  PersistentVolumeClaim: (_draft, spec) => {
    delete spec['volumeName'];
  },
  Service: (_draft, spec) => {
    if (spec['clusterIP'] !== 'None') delete spec['clusterIP'];
    // One family of addresses: that of the cluster.
    if (spec['ipFamilyPolicy'] === 'SingleStack') delete spec['ipFamilies'];
    for (const key of ['clusterIPs', 'healthCheckNodePort']) delete spec[key];
    for (const port of records(spec['ports'])) delete port['nodePort'];
  },
};
