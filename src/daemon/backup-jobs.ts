import { backupLease, backupResource, type ResourceSource } from '../backup/backup-resource.ts';
import type { BackupContext, TakenBackup } from '../backup/context.ts';
import { writeWatchHeartbeat } from '../backup/status/watch.ts';
import { newestStart } from '../backup/taken-since.ts';
import { waitForArchive, withPassingArchiver } from '../backup/wal/ensure.ts';
import { messageOf } from '../base/errors.ts';
import { giveBackMemory } from '../base/free-memory.ts';
import { previousDue } from '../config/cadence.ts';
import type { DatabasePlace, DirectoryPlace, ObjectsPlace, SitePlaces } from '../config/sites.ts';
import type { Cadence } from '../config/types.ts';
import { type BackupOutcome as Outcome, readBackupOutcome as readOutcome } from './command-results.ts';
import type { Executor } from './executor.ts';
import type { Job } from './job.ts';
import type { RoleKeeper } from './role.ts';

export interface BackupJobsOptions {
  /** Where databases and data are backed up. */
  readonly executor: Executor;
  /** Other daemons of this site may do the same: what one of them has taken meanwhile is not taken again. */
  readonly replicated: boolean;
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
    // Between two backups of a cluster the daemon only watches, which needs a small part of their memory.
    const taken = await backupResource(context, source).finally(source.type === 'objects' ? giveBackMemory : undefined);
    if (taken.unchanged && !taken.takenBefore) await tellUnchanged(context, name, taken.manifest.id, lookedMs);
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
  const enabled = () => role.state.role === 'active';
  /** When somebody asked for a backup that has not been taken since; 0 = nobody did. */
  let askedMs = 0;
  /** Since when a backup is this one: its slot, unless somebody asked later or the site has become active since. */
  const occurrence = (): number => {
    const nowMs = context.clock.now();
    const { active } = role.state;
    const beginMs = active && active.generation > 1 ? Date.parse(active.since) : 0;
    return Math.max(previousDue(cadence, nowMs, resource) ?? nowMs, beginMs, askedMs);
  };
  const told = ({ id, lost, vaults, unchanged, logicalBytes, storedBytes, reusedBytes, notes }: Outcome): object => {
    if (lost.length > 0) options.onLost(lost.map(({ vault }) => vault));
    return unchanged
      ? { backup: id, unchanged }
      : { backup: id, logicalBytes, storedBytes, reusedBytes, vaults, notes: notes.length };
  };
  const read = (result: unknown): object => told(readOutcome(result, resource));
  return {
    name: backupJobName(resource),
    lane,
    lease: backupLease(resource),
    cadence,
    seed: resource,
    enabled,
    lastDone: async (signal) => {
      const newest = await newestStart(context, resource, signal);
      const active = role.state.active;
      // What was taken before this site became active is of another history.
      const ofBefore = active !== undefined && active.generation > 1 && (newest ?? 0) < Date.parse(active.since);
      return ofBefore || newest === undefined ? 'never' : newest;
    },
    run: async (signal, reason) => {
      // The role may have changed since the last question.
      await role.refresh();
      signal.throwIfAborted();
      if (reason === 'asked') askedMs = context.clock.now();
      const occurrenceMs = occurrence();
      const here = async (until: AbortSignal) => {
        // What is backed up on change is compared with the newest backup anyway, and may have changed since that.
        const guard = options.replicated && lane === 'backup' ? { unlessTakenSinceMs: occurrenceMs } : {};
        const taken = await take({ ...context, ...guard, log, signal: until }, until);
        return told({ ...taken.manifest, lost: taken.lost, vaults: taken.vaults, unchanged: taken.unchanged });
      };
      // What is backed up on change is small, and its folder is watched in this process anyway.
      const task = { verb: 'backup', resource, occurrenceMs, args: [], wanted: enabled, here } as const;
      const facts =
        lane === 'configuration' ? await here(signal) : await options.executor.run({ ...task, told: read }, signal);
      askedMs = 0;
      return facts;
    },
  };
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
