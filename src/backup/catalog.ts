import { forEachLimit } from '../base/concurrency.ts';
import { DrError, messageOf } from '../base/errors.ts';
import { layout, timedId } from '../vault/layout.ts';
import type { ObjectStore } from '../vault/store.ts';
import { decodeManifest, type Manifest } from './manifest.ts';

/** Manifests read at once from one vault. */
const READS_IN_FLIGHT = 16;

/** A backup as one vault holds it. */
export interface CatalogEntry {
  readonly vault: string;
  readonly resource: string;
  readonly id: string;
  readonly manifest?: Manifest;
  /** Why the manifest could not be read. */
  readonly error?: unknown;
}

/** Names of the resources that have backups in a vault. */
export async function listResources(store: ObjectStore): Promise<string[]> {
  return await store.folders(layout.manifests());
}

/** Ids of a resource's backups in a vault, oldest first. */
export async function listBackupIds(store: ObjectStore, resource: string): Promise<string[]> {
  const prefix = layout.manifests(resource);
  const ids: string[] = [];
  for await (const key of store.names(prefix)) {
    if (key.endsWith('.json')) ids.push(key.slice(prefix.length, -'.json'.length));
  }
  return ids;
}

/** How far back the newest of many are looked for first, milliseconds. */
export const RECENT_MS = 35 * 86_400_000;

/**
 * The names below `prefix` of objects whose ids are of the last `RECENT_MS` (or whose clock was ahead), oldest first; where there is none, of
 * the time before. So the newest is found by a request or a few, however many there are.
 */
export async function recentNames(
  store: ObjectStore,
  prefix: string,
  nowMs: number,
  signal?: AbortSignal,
): Promise<string[]> {
  const starts = [RECENT_MS, 10 * RECENT_MS].flatMap((backMs) => {
    const sinceMs = nowMs - backMs;
    return sinceMs > 0 ? [{ startAfter: `${prefix}${timedId(sinceMs, '')}` }] : [];
  });
  for (const range of [...starts, {}]) {
    const names: string[] = [];
    for await (const key of store.names(prefix, { ...range, signal })) {
      if (key.endsWith('.json')) names.push(key.slice(prefix.length, -'.json'.length));
    }
    if (names.length > 0) return names;
  }
  return [];
}

/** Ids of a resource's backups in a vault, newest first; those before the recent ones are asked for when the first of them is wanted. */
export async function* newestIds(
  store: ObjectStore,
  resource: string,
  recentIds: readonly string[],
  signal?: AbortSignal,
): AsyncGenerator<string, void> {
  yield* recentIds.toReversed();
  const [first] = recentIds;
  if (first === undefined) return;
  const older: string[] = [];
  for await (const key of store.names(layout.manifests(resource), {
    before: layout.manifest(resource, first),
    signal,
  })) {
    if (key.endsWith('.json')) older.push(key.slice(layout.manifests(resource).length, -'.json'.length));
  }
  yield* older.reverse();
}

/** The id of a resource's oldest backup in a vault: one request, however many there are. */
export async function oldestBackupId(
  store: ObjectStore,
  resource: string,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const prefix = layout.manifests(resource);
  for await (const key of store.names(prefix, { signal })) {
    if (key.endsWith('.json')) return key.slice(prefix.length, -'.json'.length);
  }
  return undefined;
}

/** All backups of a resource in a vault, oldest first; a manifest that cannot be read is an entry with its error. */
export async function listBackups(store: ObjectStore, resource: string): Promise<CatalogEntry[]> {
  const ids = await listBackupIds(store, resource);
  const entries: CatalogEntry[] = new Array(ids.length);
  await forEachLimit(ids.entries(), READS_IN_FLIGHT, async ([place, id]) => {
    const common = { vault: store.name, resource, id };
    try {
      entries[place] = { ...common, manifest: await readManifest(store, resource, id) };
    } catch (error) {
      entries[place] = { ...common, error };
    }
  });
  return entries;
}

export async function readManifest(store: ObjectStore, resource: string, id: string): Promise<Manifest> {
  return manifestOf(await store.read(layout.manifest(resource, id)), store, resource, id);
}

/** The manifest in the bytes that a vault holds under its name. Throws `corrupt` and `refused`. */
export function manifestOf(bytes: Uint8Array, store: ObjectStore, resource: string, id: string): Manifest {
  const key = layout.manifest(resource, id);
  const manifest = decodeManifest(bytes, `${store.location}/${key}`);
  if (manifest.id !== id || manifest.resource !== resource) {
    throw new DrError('corrupt', `the manifest is that of backup ${manifest.id} of ${manifest.resource}`, {
      where: `${store.location}/${key}`,
      next: 'Restore from another vault (--vault NAME), then repair this one from it.',
    });
  }
  return manifest;
}

/**
 * The newest backup of a resource in a vault whose recovery point is not after `atMs`; undefined if there is none. A newer one whose
 * manifest is damaged is an error, never passed over in silence.
 */
export async function newestBackup(
  store: ObjectStore,
  resource: string,
  atMs: number = Number.POSITIVE_INFINITY,
): Promise<Manifest | undefined> {
  const recentIds = await recentNames(store, layout.manifests(resource), Math.min(atMs, Date.now()));
  for await (const id of newestIds(store, resource, recentIds)) {
    const manifest = await readManifest(store, resource, id);
    if (Date.parse(manifest.recoveryPoint) <= atMs) return manifest;
  }
  return undefined;
}

/** What went wrong with an entry, in one line. */
export function entryError(entry: CatalogEntry): string | undefined {
  return entry.error === undefined ? undefined : messageOf(entry.error);
}
