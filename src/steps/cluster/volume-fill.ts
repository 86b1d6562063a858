import { posix } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { DrError } from '../../base/errors.ts';
import type { OnProgress } from '../../base/progress.ts';
import type { Cluster } from '../../cluster/contract.ts';
import { showRef } from '../../cluster/contract.ts';
import { lookAtJob } from '../../cluster/jobs.ts';
import { numberAt } from './fields.ts';
import { find } from './sites.ts';
import type { DatabaseInVolume } from './volume-databases.ts';
import { jobName, volumeJob } from './volume-job.ts';
import type { VolumeMark } from './volume-mark.ts';
import { claimObject, type VolumePlace } from './volume-place.ts';
import { workloadRef } from './workload-state.ts';

const LOOK_EVERY_MS = 1000;

/** Fills the volume by a Job; one that this run has begun goes on. */
export async function fillVolume(
  clock: Clock,
  cluster: Cluster,
  place: DatabaseInVolume,
  mark: VolumeMark,
  volume: VolumePlace,
  onProgress: OnProgress,
  signal: AbortSignal,
): Promise<void> {
  const { restore, namespace } = place.volume;
  if (restore === undefined) throw new DrError('internal', `${place.volume.entry} has no "restore"`);
  if (volume.template !== undefined) await ensureClaim(cluster, place, volume, signal);
  const name = jobName(place.runId, place.name, mark.round);
  const ref = { apiVersion: 'batch/v1', kind: 'Job', namespace, name };
  const at =
    mark.at.kind === 'time' ? new Date(mark.at.atMs).toISOString() : mark.at.kind === 'lsn' ? mark.at.lsn : 'latest';
  const { directory } = place;
  const args = [
    '--to',
    directory,
    '--wal-to',
    posix.join(directory, 'dr_archive'),
    '--vault',
    mark.vault,
    '--backup',
    mark.backup,
    '--at',
    at,
  ];
  const job = volumeJob({
    name,
    runId: place.runId,
    database: place.name,
    site: place.site,
    place: volume,
    restore,
    args,
  });
  const known = await find(cluster, ref, signal);
  // One that failed is begun anew; what it left in the volume is gone on with.
  if (known && (await lookAtJob(cluster, ref, signal)).phase === 'failed') {
    await cluster.delete(ref, { propagation: 'Foreground', uid: known.metadata.uid }, signal);
    while (await find(cluster, ref, signal)) await clock.sleep(LOOK_EVERY_MS, signal);
  }
  if ((await find(cluster, ref, signal)) === undefined) await cluster.create(job, {}, signal);
  const begun = clock.now();
  for (;;) {
    const { phase, reason, message, pod } = await lookAtJob(cluster, ref, signal);
    if (phase === 'succeeded') return;
    if (phase === 'failed') {
      throw new DrError(
        'local',
        `the Job that fills the volume of ${place.name} failed: ${reason ?? 'no reason is known'}`,
        {
          where: `Job ${namespace}/${name}${message ? `: ${message.trim().slice(-600)}` : ''}`,
          next: `Read its log (kubectl logs -n ${namespace} job/${name}), mend that, and run the same command again.`,
          retryable: true,
        },
      );
    }
    const detail = `Job ${name}: ${phase}${reason ? ` (${reason})` : pod ? ` as ${pod}` : ''}`;
    onProgress({
      task: `fill the volume of ${place.name}`,
      done: (clock.now() - begun) / 1000,
      total: 0,
      unit: 'seconds',
      detail,
    });
    await clock.sleep(LOOK_EVERY_MS, signal);
  }
}

async function ensureClaim(
  cluster: Cluster,
  place: DatabaseInVolume,
  volume: VolumePlace,
  signal: AbortSignal,
): Promise<void> {
  const ref = { apiVersion: 'v1', kind: 'PersistentVolumeClaim', namespace: volume.namespace, name: volume.claim };
  if (await find(cluster, ref, signal)) return;
  const object = await cluster.get(workloadRef(place.volume), signal);
  await cluster.create(claimObject(object, volume), {}, signal);
}

/** An image that begins as root gives its files to a user that only it knows: a Job could not go in any more. */
export function requireUser({ volume, name }: DatabaseInVolume, { podSpec, container }: VolumePlace): void {
  const user = numberAt(container, 'securityContext', 'runAsUser') ?? numberAt(podSpec, 'securityContext', 'runAsUser');
  if (user !== undefined && user > 0) return;
  throw new DrError(
    'refused',
    `nothing says as which user the server of ${name} runs: WAL cannot be added to its volume`,
    {
      where: showRef(workloadRef(volume)),
      next: 'Set securityContext.runAsUser and fsGroup in its pod template (postgres images: 999, Alpine: 70), or plan a failover instead.',
    },
  );
}
