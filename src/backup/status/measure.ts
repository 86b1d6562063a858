import { DrError, messageOf } from '../../base/errors.ts';
import { formatLsn, type Lsn, parseLsn } from '../../postgres/lsn.ts';
import { layout } from '../../vault/layout.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { newestIds, readManifest, recentNames } from '../catalog.ts';
import type { Manifest } from '../manifest.ts';
import { readWalHeartbeat } from '../wal/heartbeat.ts';
import { type ListedWal, VaultWal } from '../wal/listing.ts';
import { contiguousEnd, rangeOfName } from '../wal/names.ts';
import { readWalHeader } from '../wal/object.ts';
import type { VaultPoint, WatchedResource } from './model.ts';
import { readWatchHeartbeat } from './watch.ts';

/** Backups tried, newest first, until one can be used. */
const TRIES = 5;

/** Looks at one resource in one vault. Never throws, except when interrupted: what goes wrong is in `problem`. */
export async function measureResource(
  store: ObjectStore,
  resource: WatchedResource,
  nowMs: number,
  signal?: AbortSignal,
): Promise<VaultPoint> {
  try {
    const recentIds = await recentNames(store, layout.manifests(resource.name), nowMs, signal);
    const found = { vault: store.name, recentIds };
    let problem: VaultPoint['problem'];
    let tries = 0;
    for await (const id of newestIds(store, resource.name, recentIds, signal)) {
      if (tries++ === TRIES) break;
      let manifest: Manifest;
      try {
        manifest = await readManifest(store, resource.name, id);
      } catch (error) {
        if (!isContent(error)) throw error;
        problem ??= { kind: 'content', message: `${layout.manifest(resource.name, id)}: ${messageOf(error)}` };
        continue;
      }
      const point = await pointOf(store, resource, manifest, signal);
      if ('problem' in point) problem ??= point.problem;
      if (point.recoveryPointMs === undefined) continue;
      return { ...found, backup: manifest, ...point, ...(problem ? { problem } : {}) };
    }
    return { ...found, backup: undefined, recoveryPointMs: undefined, ...(problem ? { problem } : {}) };
  } catch (error) {
    if (signal?.aborted) throw error;
    const problem = { kind: 'vault' as const, message: messageOf(error) };
    const nothing = { recentIds: [], backup: undefined, recoveryPointMs: undefined };
    return { vault: store.name, ...nothing, problem };
  }
}

type Point = Pick<VaultPoint, 'recoveryPointMs' | 'walEnd'> | Pick<VaultPoint, 'recoveryPointMs' | 'problem'>;

async function pointOf(
  store: ObjectStore,
  resource: WatchedResource,
  manifest: Manifest,
  signal: AbortSignal | undefined,
): Promise<Point> {
  const takenMs = Date.parse(manifest.recoveryPoint);
  if (manifest.database && resource.wal) return await walPoint(store, manifest, manifest.database, signal);
  if (manifest.kind === 'database') return { recoveryPointMs: takenMs };
  const watch = await orNothing(readWatchHeartbeat(store, resource.name, signal));
  const unchangedMs = watch?.backupId === manifest.id ? Date.parse(watch.unchangedAt) : 0;
  return { recoveryPointMs: Math.max(takenMs, unchangedMs) };
}

/**
 * How far the WAL in this vault reaches from a base backup on without a hole, and which moment that is: what the header of the last
 * object says, or the heartbeat, when the WAL that it speaks of is there (an idle database writes none, and is current all the same).
 */
async function walPoint(
  store: ObjectStore,
  manifest: Manifest,
  database: NonNullable<Manifest['database']>,
  signal: AbortSignal | undefined,
): Promise<Point> {
  const { systemId, timeline, segmentBytes } = database;
  const [startLsn, endLsn] = [parseLsn(database.startLsn) ?? 0n, parseLsn(database.endLsn) ?? 0n];
  const wal = await VaultWal.read(store, systemId, { timeline, lsn: startLsn }, segmentBytes, signal);
  const end = contiguousEnd(wal.ranges(), startLsn);
  if (end < endLsn) {
    const reach = end === startLsn ? 'is missing' : `ends at ${formatLsn(end)}, before ${database.endLsn}`;
    const message = `the WAL that base backup ${manifest.id} needs ${reach}`;
    return { recoveryPointMs: undefined, problem: { kind: 'content', message } };
  }
  const walEnd = formatLsn(end);
  let recoveryPointMs = Date.parse(manifest.recoveryPoint);
  const last = wal.objects.find((object) => endOfListed(object, segmentBytes) === end);
  if (last) {
    const header = await orNothing(readWalHeader(store, last.key, last.size, signal));
    recoveryPointMs = Math.max(recoveryPointMs, header?.serverClockMs ?? 0);
  }
  const heartbeat = await orNothing(readWalHeartbeat(store, manifest.resource, signal));
  const spoken = heartbeat?.systemId === systemId ? parseLsn(heartbeat.lsn) : undefined;
  if (heartbeat && spoken !== undefined && spoken <= end) {
    recoveryPointMs = Math.max(recoveryPointMs, heartbeat.serverClockMs);
  }
  if (spoken !== undefined && spoken > end) {
    const message = `the WAL has a hole at ${walEnd}: it is said to reach ${heartbeat?.lsn}`;
    return { recoveryPointMs, walEnd, problem: { kind: 'content', message } };
  }
  return { recoveryPointMs, walEnd };
}

function endOfListed({ name }: ListedWal, segmentBytes: number): Lsn | undefined {
  return name.kind === 'history' ? undefined : rangeOfName(name, segmentBytes).end;
}

/** A hint that is damaged or has just been replaced is no hint. */
async function orNothing<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (isContent(error)) return undefined;
    throw error;
  }
}

function isContent(error: unknown): boolean {
  return error instanceof DrError && ['corrupt', 'refused', 'not-found'].includes(error.kind);
}
