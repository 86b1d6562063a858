import { rmdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { readManifest } from '../backup/catalog.ts';
import { recoveryBinaries } from '../backup/recover-database.ts';
import { walCoverage } from '../backup/wal/coverage.ts';
import { DrError, isAbort, messageOf } from '../base/errors.ts';
import { checkCluster } from '../postgres/checks.ts';
import { formatLsn } from '../postgres/lsn.ts';
import type { DatabasePlace, Finding, RecoveryPort, ResourcePoint } from './ports.ts';
import { networkProbes } from './probes.ts';
import { assessResource, heartbeatsIn } from './recovery-assess.ts';
import { DatabaseRecoveries } from './recovery-database.ts';
import { directoryState, discardDirectory, restoreDirectory } from './recovery-directory.ts';
import type { RecoveryParts } from './recovery-point.ts';
import { vacate } from './recovery-vacate.ts';

/** The real thing: vaults, backups and PostgreSQL servers. Close it when the run has ended or stopped. */
export function openRecovery(parts: RecoveryParts): RecoveryPort & AsyncDisposable {
  const { config, stores, keyRing } = parts;
  const databases = new DatabaseRecoveries(parts);
  return {
    assess: async (resource, at, signal) => await assessResource(stores, keyRing, resource, at, signal),
    heartbeats: async (database, signal) => await heartbeatsIn(stores, database, signal),
    preflight: async (place, point, signal) => await checkPrograms(parts, place, point, signal),
    databaseState: async (place) => await databases.state(place),
    restoreDatabase: async (place, point, at, onProgress, signal) =>
      await databases.restore(place, point, at, onProgress, signal),
    checkDatabase: async (place, sql, signal) => {
      const cluster = await databases.cluster(place, signal);
      const check = async (urlFor: (database: string) => string) =>
        await checkCluster({
          urlFor,
          database: databaseNameOf(config.databases[place.name]?.url),
          // Inside the time to recover only a part is looked at; the scheduled verification has looked at all of it.
          amcheck: 'sample',
          mayCreateExtension: false,
          sql,
          signal,
        });
      return await cluster.withAccess(check, signal);
    },
    askDatabase: async (place, sql, signal) => {
      const cluster = await databases.cluster(place, signal);
      const database = databaseNameOf(config.databases[place.name]?.url);
      const ask = async (urlFor: (database: string) => string) =>
        await networkProbes.answers(urlFor(database), sql, signal);
      const answers = await cluster.withAccess(ask, signal);
      if (answers) return answers;
      throw new DrError('check-failed', `the recovered ${place.name} does not answer the questions of the runbook`, {
        where: place.directory,
        next: 'Correct the statements, or look at the log of the recovered server.',
      });
    },
    promoteDatabase: async (place, signal) => await databases.promote(place, signal),
    archivedTo: async (point, signal) => await archivedTo(parts, point, signal),
    catchUp: async (place, onProgress, signal) => await databases.catchUp(place, onProgress, signal),
    openDatabase: async (place, signal) => await databases.open(place, signal),
    reserveWal: async (place, slot, signal) => await databases.reserveWal(place, slot, signal),
    vacate: async (place) => await vacate(place),
    discardDatabase: async (place) => {
      await databases.discard(place);
      await removeEmptyParent(place.directory);
    },
    directoryState: async (place) => await directoryState(place),
    restoreDirectory: async (place, point, onProgress, signal) =>
      await restoreDirectory(parts, place, point, onProgress, signal),
    discardDirectory: async (place) => {
      await discardDirectory(place);
      await removeEmptyParent(place.path);
    },
    restoreObjects: async (place, point, onProgress, signal) => {
      // Loaded by those who need it: most have no objects of a cluster.
      const { restoreToCluster } = await import('./recovery-objects.ts');
      return await restoreToCluster(parts, place, point, onProgress, signal);
    },
    [Symbol.asyncDispose]: async () => await databases.close(),
  };
}

async function archivedTo(
  { stores }: RecoveryParts,
  point: ResourcePoint,
  signal: AbortSignal,
): Promise<{ timeline: number; lsn: string } | undefined> {
  const store = stores.find(({ name }) => name === point.vault);
  const systemId = store && (await readManifest(store, point.resource, point.backupId)).database?.systemId;
  if (store === undefined || systemId === undefined) return undefined;
  const { end } = await walCoverage(store, systemId, { resource: point.resource, signal });
  return end && { timeline: end.timeline, lsn: formatLsn(end.lsn) };
}

async function checkPrograms(
  { config, stores, searchPath }: RecoveryParts,
  place: DatabasePlace,
  point: ResourcePoint,
  signal: AbortSignal,
): Promise<Finding[]> {
  try {
    const store = stores.find(({ name }) => name === point.vault);
    const manifest = store && (await readManifest(store, point.resource, point.backupId));
    if (!manifest?.database) return [{ ok: false, what: `backup ${point.backupId} of ${place.name} cannot be read` }];
    const { bin, version } = await recoveryBinaries(manifest.database, {
      binaries: config.postgresql.binaries,
      searchPath,
    });
    return [{ ok: true, what: `PostgreSQL ${version} for ${place.name} is in ${bin}` }];
  } catch (error) {
    if (signal.aborted || isAbort(error)) throw error;
    const next = error instanceof Error && 'next' in error ? String(error.next) : undefined;
    return [{ ok: false, what: messageOf(error), next }];
  }
}

/** The database that a connection string names, as libpq reads it: without one, the one called like the role. */
export function databaseNameOf(url: string | undefined): string {
  if (url === undefined || !URL.canParse(url)) return 'postgres';
  const { pathname, username } = new URL(url);
  return decodeURIComponent(pathname.slice(1) || username) || 'postgres';
}

/** The directory that held everything of a drill goes with the last thing in it. */
async function removeEmptyParent(path: string): Promise<void> {
  await rmdir(dirname(path)).catch(() => {});
}
