import { DrError } from '../../base/errors.ts';
import { printableUrl } from '../../base/redact.ts';
import { showRef } from '../../cluster/contract.ts';
import { checkCluster } from '../../postgres/checks.ts';
import { withClient } from '../../postgres/query.ts';
import { reopenServer } from '../../postgres/quiesce.ts';
import type { Finding, RecoveryPort, ResourcePoint } from '../ports.ts';
import { networkProbes } from '../probes.ts';
import { createSlot } from '../recovery-database.ts';
import { recoveryPointOf } from '../recovery-point.ts';
import { databaseNameOf } from '../recovery-port.ts';
import { textAt } from './fields.ts';
import { find } from './sites.ts';
import { type DatabaseInVolume, isInVolume, VolumeDatabases, type VolumeParts } from './volume-databases.ts';
import { majorOf, volumePlace } from './volume-place.ts';
import { workloadRef } from './workload-state.ts';

/** The port with databases that live in volumes of StatefulSets; everything else goes where it went before. */
export function withVolumes<Port extends RecoveryPort>(port: Port, parts: VolumeParts): Port {
  const volumes = new VolumeDatabases(parts);
  const urlFor = (place: DatabaseInVolume) => (database: string) => {
    const url = new URL(volumes.url(place));
    url.pathname = `/${encodeURIComponent(database)}`;
    return url.toString();
  };
  const own: Partial<RecoveryPort> = {
    preflight: async (place, point, signal) =>
      isInVolume(place) ? await examine(parts, place, point, signal) : await port.preflight(place, point, signal),
    databaseState: async (place, signal) =>
      isInVolume(place) ? await volumes.state(place, signal) : await port.databaseState(place, signal),
    restoreDatabase: async (place, point, at, onProgress, signal) =>
      isInVolume(place)
        ? await volumes.restore(place, point, at, onProgress, signal)
        : await port.restoreDatabase(place, point, at, onProgress, signal),
    checkDatabase: async (place, sql, signal) => {
      if (!isInVolume(place)) return await port.checkDatabase(place, sql, signal);
      return await checkCluster({
        urlFor: urlFor(place),
        database: databaseNameOf(volumes.url(place)),
        amcheck: 'sample',
        mayCreateExtension: false,
        sql,
        signal,
      });
    },
    askDatabase: async (place, sql, signal) => {
      if (!isInVolume(place)) return await port.askDatabase(place, sql, signal);
      const answers = await networkProbes.answers(volumes.url(place), sql, signal);
      if (answers) return answers;
      throw new DrError('check-failed', `the recovered ${place.name} does not answer the questions of the runbook`, {
        where: printableUrl(volumes.url(place)),
        next: 'Correct the statements, or look at the log of its pod.',
      });
    },
    promoteDatabase: async (place, signal) =>
      isInVolume(place) ? await volumes.promote(place, signal) : await port.promoteDatabase(place, signal),
    catchUp: async (place, onProgress, signal) =>
      isInVolume(place)
        ? await volumes.catchUp(place, onProgress, signal)
        : await port.catchUp(place, onProgress, signal),
    openDatabase: async (place, signal) =>
      isInVolume(place) ? await reopenServer(volumes.url(place), signal) : await port.openDatabase(place, signal),
    reserveWal: async (place, slot, signal) =>
      isInVolume(place)
        ? await withClient(volumes.url(place), { signal }, async (query) => await createSlot(query, slot))
        : await port.reserveWal(place, slot, signal),
  };
  return Object.assign(Object.create(port) as Port, own);
}

/** Looks whether the volume could be filled and its server started, before anything is done. */
async function examine(
  parts: VolumeParts,
  place: DatabaseInVolume,
  point: ResourcePoint,
  signal: AbortSignal,
): Promise<Finding[]> {
  const shown = showRef(workloadRef(place.volume));
  const cluster = await parts.cluster(place.site);
  const object = await find(cluster, workloadRef(place.volume), signal);
  if (object === undefined) {
    const isPromised = Object.values(parts.config.objects).some(({ recover }) => Object.hasOwn(recover, place.site));
    if (isPromised) return [{ ok: true, what: `${shown} is not there yet: it comes with its configuration` }];
    return [{ ok: false, what: `${shown} is not in the cluster of ${place.site}`, next: 'Create it with 0 replicas.' }];
  }
  const findings: Finding[] = [];
  const volume = volumePlace(place.volume, object, place.directory);
  const chosen = await recoveryPointOf(
    parts.stores,
    { resource: place.name, vault: point.vault, backupId: point.backupId, at: { kind: 'latest' } },
    signal,
  );
  const { majorVersion, tablespaces } = chosen.database;
  const major = majorOf(volume.image);
  if (major !== undefined && major !== majorVersion) {
    findings.push({
      ok: false,
      what: `${shown} runs ${volume.image}, and ${place.name} is of PostgreSQL ${majorVersion}`,
      next: `Give it an image of PostgreSQL ${majorVersion}.`,
    });
  } else
    findings.push({ ok: true, what: `${shown} runs ${volume.image} for ${place.name} of PostgreSQL ${majorVersion}` });
  if (tablespaces.length > 0 && volume.mountPath.replace(/\/$/, '') === place.directory.replace(/\/$/, '')) {
    findings.push({
      ok: false,
      what: `${place.name} has tablespaces, and its data directory is the volume itself: they lie beside it`,
      next: `Set PGDATA to a folder in the volume (${volume.mountPath}/pgdata) and write that as dataDirectory.`,
    });
  }
  const wanted = textAt(volume.template, 'spec', 'resources', 'requests', 'storage');
  const room = wanted === undefined ? undefined : bytesOf(wanted);
  if (room !== undefined && room < point.bytes) {
    findings.push({
      ok: false,
      what: `the volume of ${shown} has ${wanted}, and ${place.name} has more`,
      next: 'Make the claim larger.',
    });
  }
  return findings;
}

/** A quantity of Kubernetes in bytes: `10Gi`, `500M`; undefined for other forms. */
function bytesOf(quantity: string): number | undefined {
  const [, number = '', unit = ''] = /^(\d+(?:\.\d+)?)([KMGTP]i?|k)?$/.exec(quantity) ?? [];
  if (number === '') return undefined;
  const power = unit === '' ? 0 : 'KMGTP'.indexOf(unit[0]?.toUpperCase() ?? '') + 1;
  return Number(number) * (unit.endsWith('i') ? 1024 : 1000) ** power;
}
