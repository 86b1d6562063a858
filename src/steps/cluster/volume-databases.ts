import type { DatabaseRecoveryPoint } from '../../backup/recover-database.ts';
import type { Clock } from '../../base/clock.ts';
import { DrError, isAbort, messageOf } from '../../base/errors.ts';
import type { OnProgress } from '../../base/progress.ts';
import { printableUrl } from '../../base/redact.ts';
import type { Cluster, ClusterObject } from '../../cluster/contract.ts';
import { showRef } from '../../cluster/contract.ts';
import type { WorkloadConfig } from '../../config/types.ts';
import { formatLsn } from '../../postgres/lsn.ts';
import type { DatabasePlace, DatabaseState, RecoveredDatabase, RecoveryTarget, ResourcePoint } from '../ports.ts';
import { momentOf } from '../recovery-assess.ts';
import { type RecoveryParts, recoveryPointOf } from '../recovery-point.ts';
import { find } from './sites.ts';
import { steady } from './steady.ts';
import { fillVolume, requireUser } from './volume-fill.ts';
import { markOf, restoredAnnotation, type VolumeMark } from './volume-mark.ts';
import { volumePlace } from './volume-place.ts';
import { Replay } from './volume-replay.ts';
import { forgetTarget, lookAtServer, promoteServer, type ServerLook } from './volume-server.ts';
import { describePods, podsOf, troubleOf, wantedOf, workloadRef } from './workload-state.ts';

const LOOK_EVERY_MS = 1000;
/** How long a StatefulSet may take to come with the configuration that is restored at the same time, milliseconds. */
const COMES_WITHIN_MS = 30 * 60_000;
/** Restarts of the server's container after which its trouble is no passing one. */
const RESTARTS_MAX = 4;

export interface VolumeParts extends RecoveryParts {
  readonly cluster: (site: string) => Promise<Cluster>;
  readonly clock: Clock;
}

/** A place whose database lives in the volume of a StatefulSet. */
export type DatabaseInVolume = DatabasePlace & { readonly volume: WorkloadConfig };

export function isInVolume(place: DatabasePlace): place is DatabaseInVolume {
  return place.volume !== undefined;
}

/**
 * Databases in volumes of StatefulSets. A Job of dr lays the data directory and its WAL out; the stock server of the StatefulSet recovers with `cp`,
 * stops at the target and stays read-only: only then it is looked at whether it is there, by SQL. What a run has done is written on the
 * StatefulSet, so that any dr can go on.
 */
export class VolumeDatabases {
  readonly #parts: VolumeParts;

  constructor(parts: VolumeParts) {
    this.#parts = { ...parts, cluster: async (site) => steady(await parts.cluster(site), parts.clock) };
  }

  async state(place: DatabaseInVolume, signal: AbortSignal): Promise<DatabaseState> {
    const cluster = await this.#parts.cluster(place.site);
    const object = await find(cluster, workloadRef(place.volume), signal);
    const mark = object && markOf(object);
    if (object === undefined) return { state: 'empty' };
    if (mark === undefined) {
      if (wantedOf(object) === 0) return { state: 'empty' };
      const what = `${showRef(workloadRef(place.volume))} runs, and no run of dr has filled its volume`;
      return { state: 'foreign', detail: what };
    }
    const { run: runId, state, recovered, timeline } = mark;
    if (recovered === undefined) return { state: 'partial', runId };
    if (state === 'promoted' || (state === 'promoting' && runId !== place.runId))
      return { state: 'promoted', runId, recovered, timeline: timeline ?? recovered.timeline + 1 };
    return { state: 'recovered', runId, recovered };
  }

  async restore(
    place: DatabaseInVolume,
    point: ResourcePoint,
    at: RecoveryTarget,
    onProgress: OnProgress,
    signal: AbortSignal,
  ): Promise<RecoveredDatabase> {
    const cluster = await this.#parts.cluster(place.site);
    const object = await this.#awaitObject(cluster, place, onProgress, signal);
    const present = markOf(object);
    const isOurs = present?.run === place.runId && present.backup === point.backupId && present.vault === point.vault;
    if (!isOurs) await this.#requireIdle(cluster, place, object, signal);
    const chosen = await this.#chosen({ vault: point.vault, backup: point.backupId, at }, place, signal);
    const begin: VolumeMark = isOurs
      ? present
      : { run: place.runId, vault: point.vault, backup: point.backupId, at, state: 'filling', round: 0 };
    if (begin.state === 'filling') {
      await this.#mark(cluster, place, begin, signal);
      await fillVolume(
        this.#parts.clock,
        cluster,
        place,
        begin,
        volumePlace(place.volume, object, place.directory),
        onProgress,
        signal,
      );
      await this.#mark(cluster, place, { ...begin, state: 'filled' }, signal);
    }
    return await this.#finish(cluster, place, begin, chosen, point.bytes, onProgress, signal);
  }

  /** Adds what has been archived since: the server is stopped, a Job adds the WAL, the server goes on where it stood. */
  async catchUp(place: DatabaseInVolume, onProgress: OnProgress, signal: AbortSignal): Promise<RecoveredDatabase> {
    const cluster = await this.#parts.cluster(place.site);
    const object = await cluster.get(workloadRef(place.volume), signal);
    const mark = markOf(object);
    const isReady = mark?.state === 'recovered' || mark?.state === 'catching-up';
    if (mark === undefined || mark.run !== place.runId || !isReady || mark.at.kind !== 'latest') {
      throw new DrError(
        'refused',
        `${place.name} is not recovered to the latest moment: it cannot be replayed further`,
        {
          where: showRef(workloadRef(place.volume)),
          next: 'Begin anew with --new, without --at.',
        },
      );
    }
    const volume = volumePlace(place.volume, object, place.directory);
    requireUser(place, volume);
    const round = mark.state === 'recovered' ? mark.round + 1 : mark.round;
    const next: VolumeMark = { ...mark, state: 'catching-up', round };
    await this.#mark(cluster, place, next, signal);
    await this.#stop(cluster, place, onProgress, signal);
    await fillVolume(this.#parts.clock, cluster, place, next, volume, onProgress, signal);
    const chosen = await this.#chosen(next, place, signal);
    return await this.#finish(cluster, place, next, chosen, mark.recovered?.bytes ?? 0, onProgress, signal);
  }

  /** Starts the server and waits until it has proven that it stands at the target. */
  async #finish(
    cluster: Cluster,
    place: DatabaseInVolume,
    begin: VolumeMark,
    chosen: DatabaseRecoveryPoint,
    bytes: number,
    onProgress: OnProgress,
    signal: AbortSignal,
  ): Promise<RecoveredDatabase> {
    const { at } = begin;
    await this.#setCount(cluster, place, 1, signal);
    const replay = new Replay(chosen, this.#parts);
    const look = await this.#awaitTarget(cluster, place, replay, onProgress, signal);
    const { lastCommitAtMs } = look;
    const recovered: RecoveredDatabase = {
      where: printableUrl(this.url(place)),
      replayedTo: formatLsn(look.lsn),
      timeline: chosen.plan.timeline,
      ...(lastCommitAtMs === undefined ? {} : { lastCommitAtMs }),
      recoveredToMs: momentReached(look, chosen, at),
      bytes,
    };
    await this.#mark(cluster, place, { ...begin, state: 'recovered', recovered }, signal);
    return recovered;
  }

  async promote(place: DatabaseInVolume, signal: AbortSignal): Promise<{ timeline: number }> {
    const cluster = await this.#parts.cluster(place.site);
    const mark = markOf(await cluster.get(workloadRef(place.volume), signal));
    if (mark?.run !== place.runId || mark.recovered === undefined) {
      throw new DrError('refused', `this run has not recovered ${place.name} in its volume`, {
        where: showRef(workloadRef(place.volume)),
        next: 'Begin anew with --new.',
      });
    }
    if (mark.state === 'recovered') await this.#mark(cluster, place, { ...mark, state: 'promoting' }, signal);
    const { timeline } = await promoteServer(this.url(place), this.#parts.clock, signal);
    await this.#mark(cluster, place, { ...mark, state: 'promoted', timeline }, signal);
    return { timeline };
  }

  /** How clients of the site reach it: through the Service of the StatefulSet. */
  url({ name, site }: DatabasePlace): string {
    const url = this.#parts.config.databases[name]?.recover[site]?.url;
    if (url !== undefined) return url;
    throw new DrError('internal', `database ${name} has no place at ${site}`);
  }

  async #chosen(mark: Pick<VolumeMark, 'vault' | 'backup' | 'at'>, { name }: DatabasePlace, signal: AbortSignal) {
    return await recoveryPointOf(this.#parts.stores, { resource: name, backupId: mark.backup, ...mark }, signal);
  }

  /** The StatefulSet; one that comes with a configuration is waited for. */
  async #awaitObject(
    cluster: Cluster,
    place: DatabaseInVolume,
    onProgress: OnProgress,
    signal: AbortSignal,
  ): Promise<ClusterObject> {
    const { clock } = this.#parts;
    const begun = clock.now();
    for (;;) {
      const object = await find(cluster, workloadRef(place.volume), signal);
      if (object) return object;
      if (clock.now() - begun > COMES_WITHIN_MS) return await cluster.get(workloadRef(place.volume), signal);
      const detail = `${showRef(workloadRef(place.volume))} is not there yet`;
      onProgress({ task: 'wait', done: (clock.now() - begun) / 1000, total: 0, unit: 'seconds', detail });
      await clock.sleep(LOOK_EVERY_MS, signal);
    }
  }

  /** A volume that a server uses is never written to. */
  async #requireIdle(
    cluster: Cluster,
    place: DatabaseInVolume,
    object: ClusterObject,
    signal: AbortSignal,
  ): Promise<void> {
    const shown = showRef(workloadRef(place.volume));
    const pods = await podsOf(cluster, object, signal);
    if (wantedOf(object) === 0 && pods.length === 0) return;
    throw new DrError('refused', `${shown} runs: nothing is restored into a volume that a server uses`, {
      where: `wants ${wantedOf(object)}; pods: ${describePods(pods) || 'none'}`,
      next: `If nothing in it is needed: kubectl scale --replicas=0 ${shown.split(' ')[0]?.toLowerCase()}/${place.volume.name} -n ${place.volume.namespace}, delete its claim, and run the same command again.`,
    });
  }

  /** Waits until the server has proven that it stands at the target; says how it stands. */
  async #awaitTarget(
    cluster: Cluster,
    place: DatabaseInVolume,
    replay: Replay,
    onProgress: OnProgress,
    signal: AbortSignal,
  ): Promise<ServerLook> {
    const { clock } = this.#parts;
    for (;;) {
      const look = await lookAtServer(this.url(place), signal).catch((error: unknown) => {
        if (signal.aborted || isAbort(error)) throw error;
        return messageOf(error);
      });
      if (typeof look !== 'string') {
        replay.requireOurs(look, place);
        const verdict = await replay.judge(look, clock.now(), signal);
        if (verdict === 'reached') return look;
        if (verdict === 'at-end') {
          // At the end of the archive without having met the target, which lies in its covered time: nothing more is to be replayed.
          await forgetTarget(this.url(place), signal);
          await this.#restart(cluster, place, onProgress, signal);
        } else onProgress(replay.progress(look, place.name));
      } else {
        const object = await cluster.get(workloadRef(place.volume), signal);
        const pods = await podsOf(cluster, object, signal);
        this.#requireHope(place, pods);
        const detail = pods.length === 0 ? 'its pod is not there yet' : `${describePods(pods)}; ${look}`;
        onProgress({ task: `replay ${place.name}`, done: 0, total: 0, unit: 'bytes', detail });
      }
      await clock.sleep(LOOK_EVERY_MS, signal);
    }
  }

  /** A server that ends again and again will not come up by waiting. */
  #requireHope(place: DatabaseInVolume, pods: readonly ClusterObject[]): void {
    for (const pod of pods) {
      const statuses = (pod['status'] as { containerStatuses?: ReadonlyArray<{ restartCount?: number }> } | undefined)
        ?.containerStatuses;
      const restarts = Math.max(0, ...(statuses ?? []).map(({ restartCount }) => restartCount ?? 0));
      if (restarts < RESTARTS_MAX) continue;
      throw new DrError(
        'check-failed',
        `the server of ${place.name} ends again and again: ${troubleOf(pod) ?? `${restarts} restarts`}`,
        {
          where: `Pod ${place.volume.namespace}/${pod.metadata.name}`,
          next: `Read its log (kubectl logs -n ${place.volume.namespace} ${pod.metadata.name} --previous): a setting that is lower than at the original, a library that the image lacks. Settings go under recover.${place.site}.parameters.`,
        },
      );
    }
  }

  async #restart(
    cluster: Cluster,
    place: DatabaseInVolume,
    onProgress: OnProgress,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#stop(cluster, place, onProgress, signal);
    await this.#setCount(cluster, place, 1, signal);
  }

  async #stop(cluster: Cluster, place: DatabaseInVolume, onProgress: OnProgress, signal: AbortSignal): Promise<void> {
    await this.#setCount(cluster, place, 0, signal);
    for (;;) {
      const pods = await podsOf(cluster, await cluster.get(workloadRef(place.volume), signal), signal);
      if (pods.length === 0) break;
      onProgress({ task: `stop ${place.name}`, done: 0, total: 0, unit: 'seconds', detail: describePods(pods) });
      await this.#parts.clock.sleep(LOOK_EVERY_MS, signal);
    }
  }

  async #setCount(
    cluster: Cluster,
    { volume }: DatabaseInVolume,
    replicas: number,
    signal: AbortSignal,
  ): Promise<void> {
    const ref = workloadRef(volume);
    if (wantedOf(await cluster.get(ref, signal)) === replicas) return;
    // It does not wait for its activation any more.
    const annotations = { 'dr.io/replicas': null };
    await cluster.merge(ref, { spec: { replicas }, metadata: { annotations } }, {}, signal);
  }

  async #mark(cluster: Cluster, { volume }: DatabaseInVolume, mark: VolumeMark, signal: AbortSignal): Promise<void> {
    const annotations = { [restoredAnnotation]: JSON.stringify(mark) };
    await cluster.merge(workloadRef(volume), { metadata: { annotations } }, {}, signal);
  }
}

/** Up to which moment everything is there, milliseconds since 1970: for the latest, what was laid out covers, whatever the archive covers by now. */
function momentReached(look: ServerLook, chosen: DatabaseRecoveryPoint, at: RecoveryTarget): number {
  if (at.kind === 'lsn') return look.lastCommitAtMs ?? Date.parse(chosen.manifest.recoveryPoint);
  const covered = at.kind === 'latest' ? look.coveredUntilMs : undefined;
  return covered ?? momentOf(chosen, at);
}
