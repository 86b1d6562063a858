import type { ClusterObject, ObjectRef } from '../../cluster/contract.ts';
import type { GitopsConfig } from '../../config/types.ts';
import { at, conditionOf, jsonAt, textAt } from './fields.ts';

/** On what a run paused: `{"run":"…","automated":…}`, with what resuming puts back. */
export const pausedAnnotation = 'dr.io/paused';

/** Asks the controller of Argo CD to look at an Application at once; it takes the annotation away when it has. */
const refreshAnnotation = 'argocd.argoproj.io/refresh';

/** API versions to try, newest first: what the cluster has is used. */
const versions: Readonly<Record<GitopsConfig['kind'], readonly string[]>> = {
  Application: ['argoproj.io/v1alpha1'],
  Kustomization: ['kustomize.toolkit.fluxcd.io/v1', 'kustomize.toolkit.fluxcd.io/v1beta2'],
  HelmRelease: ['helm.toolkit.fluxcd.io/v2', 'helm.toolkit.fluxcd.io/v2beta2', 'helm.toolkit.fluxcd.io/v2beta1'],
};

export function gitopsRefs({ kind, namespace, name }: GitopsConfig): readonly ObjectRef[] {
  return versions[kind].map((apiVersion) => ({ apiVersion, kind, namespace, name }));
}

interface Mark {
  readonly run: string;
  /** Of an Application: what `spec.syncPolicy.automated` was. */
  readonly automated?: unknown;
}

export function markOf({ metadata }: ClusterObject): Mark | undefined {
  try {
    const written: unknown = JSON.parse(metadata.annotations?.[pausedAnnotation] ?? 'null');
    const run = textAt(written, 'run');
    return run === undefined ? undefined : { run, automated: at(written, 'automated') };
  } catch {
    return undefined;
  }
}

/** Whether it changes nothing in the cluster by itself. */
export function isPaused(object: ClusterObject): boolean {
  if (object.kind !== 'Application') return at(object, 'spec', 'suspend') === true;
  const automated = at(object, 'spec', 'syncPolicy', 'automated');
  return automated === undefined || automated === null || at(automated, 'enabled') === false;
}

/** The merge patch that pauses it and keeps what it takes away. */
export function pausePatch(object: ClusterObject, run: string): Readonly<Record<string, unknown>> {
  if (object.kind !== 'Application')
    return { spec: { suspend: true }, metadata: { annotations: { [pausedAnnotation]: JSON.stringify({ run }) } } };
  const automated = at(object, 'spec', 'syncPolicy', 'automated');
  const annotations = { [pausedAnnotation]: JSON.stringify({ run, automated }), [refreshAnnotation]: 'normal' };
  return { spec: { syncPolicy: { automated: null } }, metadata: { annotations } };
}

/** The merge patch that lets it go on as it did before it was paused. */
export function resumePatch(object: ClusterObject, mark: Mark): Readonly<Record<string, unknown>> {
  const annotations = { [pausedAnnotation]: null };
  if (object.kind !== 'Application') return { spec: { suspend: false }, metadata: { annotations } };
  return { spec: { syncPolicy: { automated: mark.automated ?? {} } }, metadata: { annotations } };
}

/**
 * What says that the controller still works on it, or has not seen the pause; undefined when nothing does. Argo CD takes the annotation of
 * the refresh away once it has reconciled the Application as it is now. Flux leaves a suspended object alone and writes nothing, so that only the end of
 * what it was doing shows: the caller looks for a while.
 */
export function busyWith(object: ClusterObject): string | undefined {
  if (object.kind === 'Application') {
    if (object.metadata.annotations?.[refreshAnnotation] !== undefined)
      return 'its controller has not looked at it since the change';
    if (Object.keys(jsonAt(object, 'operation')).length > 0) return 'a sync is about to begin';
    const phase = textAt(object, 'status', 'operationState', 'phase');
    return phase === 'Running' || phase === 'Terminating' ? `a sync is under way (${phase})` : undefined;
  }
  const working = conditionOf(object, 'Reconciling');
  return working?.['status'] === 'True'
    ? `a reconciliation is under way (${textAt(working, 'message') ?? textAt(working, 'reason') ?? 'no detail'})`
    : undefined;
}

/** What the controller has written last: as long as it stays, it did nothing. */
export function trace(object: ClusterObject): string {
  const status = jsonAt(object, 'status');
  return JSON.stringify(object.kind === 'Application' ? [status['operationState'], status['history']] : status);
}

/** How it is, in words. */
export function describeGitops(object: ClusterObject): string {
  const mark = markOf(object);
  if (!isPaused(object)) {
    const applied = textAt(object, 'status', 'lastAppliedRevision') ?? textAt(object, 'status', 'sync', 'revision');
    return `reconciles by itself${applied ? `, last revision ${applied}` : ''}`;
  }
  return mark === undefined ? 'was paused by somebody else' : `was paused by run ${mark.run}`;
}
