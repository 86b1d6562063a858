import { backupLease, backupResource, type ResourceSource } from '../backup/backup-resource.ts';
import { recentNames } from '../backup/catalog.ts';
import type { BackupContext, TakenBackup } from '../backup/context.ts';
import { writeWatchHeartbeat } from '../backup/status/watch.ts';
import { waitForArchive, withPassingArchiver } from '../backup/wal/ensure.ts';
import { messageOf } from '../base/errors.ts';
import type { DatabasePlace, DirectoryPlace, ObjectsPlace, SitePlaces } from '../config/sites.ts';
import type { Cadence } from '../config/types.ts';
import { layout, timeOfId } from '../vault/layout.ts';
import type { Job } from './job.ts';
import type { RoleKeeper } from './role.ts';

export interface BackupJobsOptions {
  /** Where everything is at the site of this daemon. */
  readonly places: SitePlaces;
  readonly role: RoleKeeper;
  /** For backups of this site. */
  readonly context: BackupContext;
  /** Resolves when the WAL of a database is being received; throws when that takes too long. */
  untilReceiving(database: string, signal: AbortSignal): Promise<void>;
  /** A backup is not in every vault. */
  onLost(vaults: readonly string[]): void;
}

/** What is backed up on change is looked at whole this often too, because watches can be lost. */
const FULL_LOOK: Cadence = { kind: 'every', everyMs: 3_600_000, text: 'on change, and a full look every hour' };

export function backupJobName(resource: string): string {
  return `backup ${resource}`;
}

/** One job for each resource that has a place at this site. They work only while the site is active. */
export function backupJobs(options: BackupJobsOptions): Job[] {
  const { databases, directories, objects } = options.places;
  return [
    ...Object.values(databases).map((place) => databaseJob(options, place)),
    ...Object.values(directories).map((place) => directoryJob(options, place)),
    ...Object.values(objects).map((place) => objectsJob(options, place)),
  ];
}

function databaseJob(options: BackupJobsOptions, { database, url }: DatabasePlace): Job {
  return job(options, database.name, 'backup', database.schedule, async (context, signal) => {
    const source = { type: 'database' as const, name: database.name, url };
    if (database.wal.enabled) {
      await options.untilReceiving(database.name, signal);
      return await backupResource(context, { ...source, ensureWal: waitForArchive(context, database) });
    }
    return await withPassingArchiver(
      context,
      { name: database.name, url },
      async (ensureWal) => await backupResource(context, { ...source, ensureWal }),
    );
  });
}

function directoryJob(options: BackupJobsOptions, { directory, path }: DirectoryPlace): Job {
  const { name, kind, exclude, allowEmpty, schedule } = directory;
  const lane = kind === 'configuration' ? 'configuration' : 'backup';
  return changeJob(options, name, lane, schedule, { type: 'directory', name, kind, path, exclude, allowEmpty });
}

function objectsJob(options: BackupJobsOptions, { objects, cluster }: ObjectsPlace): Job {
  const { name, select, exclude, allowEmpty, schedule } = objects;
  const source = { type: 'objects', name, select, exclude, allowEmpty, cluster } as const;
  return changeJob(options, name, 'configuration', schedule, source);
}

/** A job for what may be backed up on change, and may be found unchanged. */
function changeJob(
  options: BackupJobsOptions,
  name: string,
  lane: string,
  schedule: Cadence,
  source: ResourceSource,
): Job {
  const onChange = schedule.kind === 'on-change';
  const made = job(options, name, lane, onChange ? FULL_LOOK : schedule, async (context) => {
    const lookedMs = context.clock.now();
    const taken = await backupResource(context, source);
    if (taken.unchanged) await tellUnchanged(context, name, taken.manifest.id, lookedMs);
    return taken;
  });
  // A change may have come while nobody watched, so the first look is always due.
  return onChange ? { ...made, lastDone: async () => 'never' } : made;
}

function job(
  options: BackupJobsOptions,
  resource: string,
  lane: string,
  cadence: Cadence,
  take: (context: BackupContext, signal: AbortSignal) => Promise<TakenBackup>,
): Job {
  const { role, context } = options;
  const log = context.log.child({ resource });
  return {
    name: backupJobName(resource),
    lane,
    lease: backupLease(resource),
    cadence,
    seed: resource,
    enabled: () => role.state.role === 'active',
    lastDone: async (signal) => {
      const newest = await newestStart(context, resource, signal);
      const active = role.state.active;
      // What was taken before this site became active is of another history.
      const ofBefore = active !== undefined && active.generation > 1 && (newest ?? 0) < Date.parse(active.since);
      return ofBefore || newest === undefined ? 'never' : newest;
    },
    run: async (signal) => {
      // The role may have changed since the last question.
      await role.refresh();
      signal.throwIfAborted();
      const taken = await take({ ...context, log, signal }, signal);
      if (taken.lost.length > 0) options.onLost(taken.lost.map(({ vault }) => vault));
      const { id, logicalBytes, storedBytes, reusedBytes, notes } = taken.manifest;
      const { vaults, unchanged } = taken;
      return unchanged
        ? { backup: id, unchanged }
        : { backup: id, logicalBytes, storedBytes, reusedBytes, vaults, notes: notes.length };
    },
  };
}

/** When the newest backup over all vaults that answer was begun, milliseconds since 1970. Throws when none answers. */
async function newestStart(
  { stores, clock }: BackupContext,
  resource: string,
  signal: AbortSignal,
): Promise<number | undefined> {
  let newest: number | undefined;
  const failures: unknown[] = [];
  await Promise.all(
    stores.map(async (store) => {
      try {
        const id = (await recentNames(store, layout.manifests(resource), clock.now(), signal)).at(-1);
        const startMs = id === undefined ? undefined : timeOfId(id);
        if (startMs !== undefined) newest = Math.max(startMs, newest ?? 0);
      } catch (error) {
        failures.push(error);
      }
    }),
  );
  signal.throwIfAborted();
  if (failures.length === stores.length && stores.length > 0) throw failures[0];
  return newest;
}

/** Tells every vault that its newest backup is still what the directory holds. */
async function tellUnchanged(
  { stores, site, log, signal }: BackupContext,
  resource: string,
  backupId: string,
  unchangedAtMs: number,
): Promise<void> {
  await Promise.all(
    stores.map(async (store) => {
      try {
        await writeWatchHeartbeat(store, { resource, backupId, unchangedAtMs, site }, signal);
      } catch (error) {
        log.debug({ vault: store.name, reason: messageOf(error) }, 'the vault was not told that nothing has changed');
      }
    }),
  );
}
