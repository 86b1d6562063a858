import { readManifest } from '../backup/catalog.ts';
import { readBackedObjects } from '../backup/objects-restore/read.ts';
import { renamesBetween } from '../backup/objects-restore/rename.ts';
import type { ObjectsResult } from '../backup/objects-restore/result.ts';
import { restoreObjects } from '../backup/objects-restore/run.ts';
import { systemClock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import type { OnProgress } from '../base/progress.ts';
import type { ObjectsPlace, ResourcePoint } from './ports.ts';
import type { RecoveryParts } from './recovery-database.ts';

/** How long an API server may be away: databases and the rest of the run wait for this step, and it is tried again. */
const PATIENCE_MS = 60_000;

/** Restores a configuration into the cluster of a site; with `dryRun` the API server checks everything and stores nothing. */
export async function restoreToCluster(
  { config, stores, keyRing, log }: RecoveryParts,
  place: ObjectsPlace,
  point: ResourcePoint,
  onProgress: OnProgress,
  signal: AbortSignal,
): Promise<ObjectsResult & { readonly bytes: number }> {
  const { name, cluster, site, scaleToZero, dryRun } = place;
  const store = stores.find((each) => each.name === point.vault);
  if (store === undefined) {
    throw new DrError('unreachable', `vault ${point.vault}, from which ${name} is restored, cannot be opened`, {
      next: 'Make it reachable, or begin anew from another vault with --new.',
    });
  }
  const manifest = await readManifest(store, name, point.backupId);
  const backed = await readBackedObjects({ store, manifest, keyRing }, signal);
  const result = await restoreObjects(backed, {
    cluster,
    name,
    namespaces: renamesBetween(config.objects[name]?.recover ?? {}, manifest.site, site),
    only: [],
    scaleToZero,
    servedVersions: false,
    force: false,
    dryRun,
    clock: systemClock,
    log,
    signal,
    onProgress,
    patienceMs: PATIENCE_MS,
  });
  return { ...result, bytes: manifest.logicalBytes };
}
