import { readManifest } from '../backup/catalog.ts';
import { restoreBackup } from '../backup/restore.ts';
import { RestoreTarget } from '../backup/restore-target.ts';
import { DrError } from '../base/errors.ts';
import type { OnProgress } from '../base/progress.ts';
import type { DirectoryPlace, DirectoryState, ResourcePoint } from './ports.ts';
import type { RecoveryParts } from './recovery-database.ts';
import { clearPlace, namesIn, readMarker, writeMarker } from './recovery-marker.ts';

/** What lies at the place of a data set or configuration. */
export async function directoryState(place: DirectoryPlace): Promise<DirectoryState> {
  const marker = await readMarker(place.path);
  const names = await namesIn(place.path);
  const unfinished = await RestoreTarget.unfinished(place.path);
  // Also an empty folder can be the whole of a restored data set: then the marker says so.
  if (marker?.state === 'complete' && marker.runId === place.runId && unfinished === undefined) {
    return { state: 'complete', runId: marker.runId, bytes: marker.bytes ?? 0, entries: marker.entries ?? 0 };
  }
  if (names.length === 0) return { state: 'empty' };
  if (unfinished !== undefined) return { state: 'partial', runId: marker?.runId };
  if (marker?.state === 'complete') return { state: 'foreign', detail: `holds what run ${marker.runId} restored` };
  // The restore was complete, and this process died before it could say so.
  if (marker?.state === 'restoring' && marker.runId === place.runId) return { state: 'partial', runId: marker.runId };
  return { state: 'foreign', detail: `holds ${names.length} entries that no run of dr put there` };
}

export async function restoreDirectory(
  parts: RecoveryParts,
  place: DirectoryPlace,
  point: ResourcePoint,
  onProgress: OnProgress,
  signal: AbortSignal,
): Promise<{ bytes: number; entries: number; warnings: readonly string[] }> {
  const state = await directoryState(place);
  if (state.state === 'foreign') {
    throw new DrError('refused', `${place.path} ${state.detail}`, {
      where: place.path,
      next: 'Move it away or empty the directory, if nothing in it is needed.',
    });
  }
  if (state.state === 'partial') await clearPlace(place.path, { keepDirectory: true });
  const store = parts.stores.find(({ name }) => name === point.vault);
  if (store === undefined) {
    throw new DrError('unreachable', `vault ${point.vault}, from which ${place.name} is restored, cannot be opened`, {
      next: 'Make it reachable, or begin anew from another vault with --new.',
    });
  }
  const marker = {
    format: 1 as const,
    runId: place.runId,
    resource: place.name,
    vault: point.vault,
    backupId: point.backupId,
  };
  await writeMarker(place.path, { ...marker, state: 'restoring' });
  const manifest = await readManifest(store, place.name, point.backupId);
  const { keyRing, pool } = parts;
  const { bytes, entries, warnings } = await restoreBackup({
    store,
    manifest,
    keyRing,
    pool,
    target: place.path,
    onProgress,
    signal,
  });
  await writeMarker(place.path, { ...marker, state: 'complete', bytes, entries });
  return { bytes, entries, warnings };
}

/** Removes what this run restored in a drill. */
export async function discardDirectory(place: DirectoryPlace): Promise<void> {
  const marker = await readMarker(place.path);
  if (marker === undefined && (await namesIn(place.path)).length === 0) return;
  if (marker?.runId !== place.runId) {
    throw new DrError('refused', 'this run did not put there what lies there', {
      where: place.path,
      next: 'Find out what it is and remove it by hand.',
    });
  }
  await clearPlace(place.path, { keepDirectory: false });
}
