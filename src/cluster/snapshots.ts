import type { Clock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import type { Cluster, ClusterObject, ObjectRef } from './contract.ts';
import { isJson, type Json } from './json.ts';

/** A CSI VolumeSnapshot of a claim, and a claim that is made from it: for one Job, which owns both. */
export interface SnapshotPlan {
  readonly namespace: string;
  /** Of the snapshot and of the claim that is made from it. */
  readonly name: string;
  readonly source: string;
  readonly snapshotClass: string | undefined;
  readonly storageClass: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  /** The Job: when it goes, both go. */
  readonly owner: { readonly name: string; readonly uid: string };
}

const SNAPSHOT = { apiVersion: 'snapshot.storage.k8s.io/v1', kind: 'VolumeSnapshot' } as const;
const CLAIM = { apiVersion: 'v1', kind: 'PersistentVolumeClaim' } as const;
const LOOK_MS = 1000;

/** Makes both, or goes on with what is there already; resolves when a pod may use the claim. */
export async function prepareSnapshot(
  cluster: Cluster,
  plan: SnapshotPlan,
  options: { readonly patienceMs: number; readonly clock: Clock; readonly signal: AbortSignal },
): Promise<void> {
  const { signal } = options;
  const { namespace, name, source } = plan;
  const original = await cluster.get({ ...CLAIM, namespace, name: source }, signal);
  const spec = { volumeSnapshotClassName: plan.snapshotClass, source: { persistentVolumeClaimName: source } };
  await createOnce(cluster, { ...SNAPSHOT, metadata: metadataOf(plan), spec }, signal);
  const ready = await untilReady(cluster, { ...SNAPSHOT, namespace, name }, source, options);
  const wanted = isJson(original['spec']) ? original['spec'] : {};
  const resources = isJson(wanted['resources']) ? wanted['resources'] : {};
  const requests = isJson(resources['requests']) ? resources['requests'] : {};
  const claim = {
    ...CLAIM,
    metadata: metadataOf(plan),
    spec: {
      accessModes: ['ReadWriteOnce'],
      storageClassName: plan.storageClass ?? wanted['storageClassName'],
      volumeMode: 'Filesystem',
      dataSource: { apiGroup: 'snapshot.storage.k8s.io', kind: 'VolumeSnapshot', name },
      resources: { requests: { storage: ready['restoreSize'] ?? requests['storage'] } },
    },
  };
  await createOnce(cluster, claim, signal);
}

/** Removes both; what is gone already is fine. */
export async function removeSnapshot(
  cluster: Cluster,
  { namespace, name }: Pick<SnapshotPlan, 'namespace' | 'name'>,
  signal: AbortSignal,
): Promise<void> {
  for (const type of [CLAIM, SNAPSHOT]) {
    try {
      await cluster.delete({ ...type, namespace, name }, {}, signal);
    } catch (error) {
      if (!(error instanceof DrError && error.kind === 'not-found')) throw error;
    }
  }
}

async function untilReady(
  cluster: Cluster,
  ref: ObjectRef,
  source: string,
  { patienceMs, clock, signal }: { readonly patienceMs: number; readonly clock: Clock; readonly signal: AbortSignal },
): Promise<Json> {
  const untilMs = clock.now() + patienceMs;
  for (;;) {
    const { status } = await cluster.get(ref, signal);
    const now = isJson(status) ? status : {};
    if (now['readyToUse'] === true) return now;
    if (clock.now() >= untilMs) {
      const error = isJson(now['error']) ? now['error'] : {};
      const why = error['message'] === undefined ? 'the driver says nothing' : String(error['message']);
      throw new DrError(
        'unreachable',
        `the snapshot of volume ${source} is not ready after ${formatDuration(patienceMs)}: ${why}`,
        {
          where: `VolumeSnapshot ${ref.namespace}/${ref.name} in ${cluster.target}`,
          next: 'Look at the snapshot controller and the CSI driver; name a VolumeSnapshotClass (snapshot.class) if there is no default.',
        },
      );
    }
    await clock.sleep(LOOK_MS, signal);
  }
}

async function createOnce(cluster: Cluster, object: ClusterObject, signal: AbortSignal): Promise<void> {
  try {
    await cluster.create(object, {}, signal);
  } catch (error) {
    // Another leader has made it for the same Job.
    if (!(error instanceof DrError && error.kind === 'conflict')) throw error;
  }
}

function metadataOf({ namespace, name, labels, owner }: SnapshotPlan) {
  const ownerReferences = [{ apiVersion: 'batch/v1', kind: 'Job', name: owner.name, uid: owner.uid }];
  return { namespace, name, labels, ownerReferences };
}
