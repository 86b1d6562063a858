import { join } from 'node:path';
import { type DatabaseRecoveryPoint, recoverDatabase } from '../backup/recover-database.ts';
import { RestoreTarget } from '../backup/restore-target.ts';
import { DrError } from '../base/errors.ts';
import type { OnProgress } from '../base/progress.ts';
import { formatLsn } from '../postgres/lsn.ts';
import { type Query, withClient } from '../postgres/query.ts';
import { reopenServer } from '../postgres/quiesce.ts';
import type { RunningCluster } from '../postgres/recovery.ts';
import { adoptServer } from '../postgres/server-process.ts';
import type { DatabasePlace, DatabaseState, RecoveredDatabase, RecoveryTarget, ResourcePoint } from './ports.ts';
import { momentOf } from './recovery-assess.ts';
import { clearPlace, namesIn, type RunMarker, readMarker, writeMarker } from './recovery-marker.ts';
import { type RecoveryParts, recoveryPointOf } from './recovery-point.ts';

export type { RecoveryParts } from './recovery-point.ts';

/**
 * Recovered databases of one process. A server that has not been promoted needs this process to feed it with WAL; after a crash it
 * is recovered again from what its marker says, which repeats nothing that is already on disk.
 */
export class DatabaseRecoveries {
  readonly #parts: RecoveryParts;
  readonly #clusters = new Map<string, RunningCluster>();

  constructor(parts: RecoveryParts) {
    this.#parts = parts;
  }

  async state(place: DatabasePlace): Promise<DatabaseState> {
    const { directory } = place;
    const names = await namesIn(directory);
    if (names.length === 0) return { state: 'empty' };
    const marker = await readMarker(directory);
    if (marker === undefined) {
      const unfinished = await RestoreTarget.unfinished(directory);
      if (unfinished !== undefined) return { state: 'partial', runId: undefined };
      return { state: 'foreign', detail: `holds ${names.length} entries that no run of dr put there` };
    }
    const { runId, recovered, timeline } = marker;
    if (recovered === undefined) return { state: 'partial', runId };
    if (marker.state === 'promoted')
      return { state: 'promoted', runId, recovered, timeline: timeline ?? recovered.timeline + 1 };
    // Told to promote, and nobody has seen the end: for its own run not yet promoted, for any other hands off.
    if (marker.state === 'promoting' && runId !== place.runId) {
      return { state: 'promoted', runId, recovered, timeline: recovered.timeline + 1 };
    }
    return { state: 'recovered', runId, recovered };
  }

  async restore(
    place: DatabasePlace,
    point: ResourcePoint,
    at: RecoveryTarget,
    onProgress: OnProgress,
    signal: AbortSignal,
  ): Promise<RecoveredDatabase> {
    await this.#makeRoom(place, point);
    const marker: RunMarker = {
      format: 1,
      runId: place.runId,
      resource: place.name,
      vault: point.vault,
      backupId: point.backupId,
      at,
      state: 'restoring',
    };
    await writeMarker(place.directory, marker);
    return await this.#recordRecovery(
      place,
      marker,
      point.bytes,
      await this.#recover(place, marker, onProgress, signal),
    );
  }

  /** Replays what the archive has got since: the server is started again where it stood, with a new target. */
  async catchUp(place: DatabasePlace, onProgress: OnProgress, signal: AbortSignal): Promise<RecoveredDatabase> {
    const marker = await this.#ownMarker(place);
    if (marker.state !== 'recovered' || marker.at?.kind !== 'latest') {
      throw new DrError(
        'refused',
        `${place.name} is not recovered to the latest moment: it cannot be replayed further`,
        {
          where: place.directory,
          next: 'Begin anew with --new, without --at.',
        },
      );
    }
    await this.#clusters.get(place.directory)?.stop('fast');
    this.#clusters.delete(place.directory);
    const result = await this.#recover(place, marker, onProgress, signal);
    return await this.#recordRecovery(place, marker, marker.recovered?.bytes ?? 0, result);
  }

  /** Lets the roles in again that a planned move has locked out of the original. */
  async open(place: DatabasePlace, signal: AbortSignal): Promise<readonly string[]> {
    const cluster = await this.cluster(place, signal);
    return await cluster.withAccess(async (urlFor) => await reopenServer(urlFor('postgres'), signal), signal);
  }

  /** Keeps WAL for the archive of the new lineage. */
  async reserveWal(
    place: DatabasePlace,
    slot: string,
    signal: AbortSignal,
  ): Promise<{ created: boolean; from: string }> {
    const cluster = await this.cluster(place, signal);
    return await cluster.withAccess(
      async (urlFor) =>
        await withClient(urlFor('postgres'), { signal }, async (query) => await createSlot(query, slot)),
      signal,
    );
  }

  async #recordRecovery(
    place: DatabasePlace,
    marker: RunMarker,
    bytes: number,
    { cluster, chosen }: { cluster: RunningCluster; chosen: DatabaseRecoveryPoint },
  ): Promise<RecoveredDatabase> {
    const at = marker.at ?? { kind: 'latest' };
    const { reached } = cluster;
    if (reached === undefined)
      throw new DrError('internal', 'the recovered server has been promoted already', { where: place.directory });
    const { lastCommitAtMs } = reached;
    const recovered: RecoveredDatabase = {
      where: this.#whereOf(place, cluster),
      replayedTo: formatLsn(reached.replayedTo),
      timeline: chosen.plan.timeline,
      ...(lastCommitAtMs === undefined ? {} : { lastCommitAtMs }),
      recoveredToMs:
        at.kind === 'lsn' ? (lastCommitAtMs ?? Date.parse(chosen.manifest.recoveryPoint)) : momentOf(chosen, at),
      bytes,
    };
    await writeMarker(place.directory, { ...marker, state: 'recovered', recovered });
    return recovered;
  }

  async promote(place: DatabasePlace, signal: AbortSignal): Promise<{ timeline: number }> {
    const marker = await this.#ownMarker(place);
    const cluster = await this.cluster(place, signal);
    if (marker.state === 'recovered') await writeMarker(place.directory, { ...marker, state: 'promoting' });
    const { timeline } = await cluster.promote({ signal });
    await writeMarker(place.directory, { ...marker, state: 'promoted', timeline });
    return { timeline };
  }

  /** The running server at a place; recovered again when the process that fed it has died. */
  async cluster(place: DatabasePlace, signal: AbortSignal): Promise<RunningCluster> {
    const known = this.#clusters.get(place.directory);
    if (known?.server.running()) return known;
    const marker = await this.#ownMarker(place);
    return (await this.#recover(place, marker, () => {}, signal)).cluster;
  }

  /** Stops and removes an isolated database with everything that belongs to it. */
  async discard(place: DatabasePlace): Promise<void> {
    if (!place.isolated) {
      throw new DrError('refused', 'only the isolated copy of a drill is removed', {
        where: place.directory,
        next: 'Remove a database of the real site by hand.',
      });
    }
    await this.#stop(place.directory);
    await clearPlace(place.directory, { keepDirectory: false });
  }

  /** Stops what nobody could use without this process: servers that have not been promoted. */
  async close(): Promise<void> {
    for (const [directory, cluster] of this.#clusters) {
      this.#clusters.delete(directory);
      if ((await readMarker(directory))?.state !== 'promoted' && cluster.server.running()) await cluster.stop('fast');
    }
  }

  async #makeRoom(place: DatabasePlace, point: ResourcePoint): Promise<void> {
    const state = await this.state(place);
    if (state.state === 'foreign' || (state.state === 'promoted' && state.runId !== place.runId)) {
      throw new DrError('refused', `something else is at the place of ${place.name}`, {
        where: place.directory,
        next: 'Move it away or empty the directory, if nothing in it is needed.',
      });
    }
    const marker = await readMarker(place.directory);
    const same = marker?.runId === place.runId && marker.backupId === point.backupId && marker.vault === point.vault;
    if (state.state === 'empty' || same) return;
    // Of an earlier run that was given up: it may have been replayed further than this one wants to go.
    await this.#stop(place.directory);
    await clearPlace(place.directory, { keepDirectory: true });
  }

  async #recover(
    place: DatabasePlace,
    marker: RunMarker,
    onProgress: OnProgress,
    signal: AbortSignal,
  ): Promise<{ cluster: RunningCluster; chosen: DatabaseRecoveryPoint }> {
    const { config, stores, keyRing, pool, searchPath, log } = this.#parts;
    const at = marker.at ?? { kind: 'latest' };
    const chosen = await recoveryPointOf(stores, { ...marker, at }, signal);
    const store = stores.find(({ name }) => name === marker.vault);
    if (store === undefined) throw new DrError('internal', `vault ${marker.vault} is lost`);
    const database = config.databases[place.name];
    const target = database?.recover[place.site];
    const cluster = await recoverDatabase({
      store,
      point: chosen,
      keyRing,
      pool,
      dataDirectory: place.directory,
      binaries: config.postgresql.binaries,
      searchPath,
      address:
        place.isolated || !target
          ? undefined
          : { listen: target.listen, port: target.port, parameters: target.parameters },
      user: target?.user,
      roles: database ? rolesOf(database.url) : [],
      onProgress,
      signal,
      log,
    });
    this.#clusters.set(place.directory, cluster);
    return { cluster, chosen };
  }

  async #ownMarker(place: DatabasePlace): Promise<RunMarker> {
    const marker = await readMarker(place.directory);
    if (marker && marker.runId === place.runId && marker.recovered) return marker;
    throw new DrError('refused', `this run has not recovered ${place.name} here`, {
      where: place.directory,
      next: 'Begin anew with --new.',
    });
  }

  #whereOf(place: DatabasePlace, cluster: RunningCluster): string {
    const target = this.#parts.config.databases[place.name]?.recover[place.site];
    if (place.isolated || !target) return `socket ${cluster.server.socketDirectory}`;
    return `${target.listen}:${target.port}`;
  }

  async #stop(directory: string): Promise<void> {
    const cluster = this.#clusters.get(directory);
    this.#clusters.delete(directory);
    if (cluster) return await cluster.stop('immediate');
    const server = await adoptServer(directory, join(directory, 'log', 'dr-recovery.log'));
    await server?.stop('immediate');
  }
}

/** Creates a physical replication slot that keeps WAL from now on, unless it is there. */
export async function createSlot(query: Query, slot: string): Promise<{ created: boolean; from: string }> {
  const find = async () =>
    await query('select restart_lsn::text from pg_replication_slots where slot_name = $1', [slot]);
  const [[known] = []] = await find();
  if (known !== undefined) return { created: false, from: String(known) };
  await query('select pg_create_physical_replication_slot($1, true)', [slot]);
  const [[from] = []] = await find();
  return { created: true, from: String(from) };
}

/** The role of a connection string: it exists in the recovered database too. */
function rolesOf(url: string): string[] {
  try {
    const role = decodeURIComponent(new URL(url).username);
    return role === '' ? [] : [role];
  } catch {
    return [];
  }
}
