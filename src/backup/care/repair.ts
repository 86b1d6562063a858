import type { Clock } from '../../base/clock.ts';
import { DrError, isAbort, messageOf } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import type { OnProgress } from '../../base/progress.ts';
import { layout } from '../../vault/layout.ts';
import { acquireLease } from '../../vault/lease.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { copyNewerKeys } from '../keys/copy-newer.ts';
import { RETENTION_LEASE } from '../retention/collect-check.ts';
import { everyBackup, type SurveyedBackup, unionOf, type VaultSurvey } from '../retention/collect-survey.ts';
import { type BackupFacts, decideRetention, type RetentionPolicy } from '../retention/retention.ts';
import { surveyForCare } from './care-survey.ts';
import { copyBackup } from './repair-backup.ts';
import { copyRecords, type FailedRecord } from './repair-records.ts';

export interface RepairOptions {
  /** Vaults that may have what the target lacks, best first. One that does not answer is left out. */
  readonly from: readonly ObjectStore[];
  readonly to: ObjectStore;
  /** By resource: what retention would delete anyway is not brought back. Without policy a resource is copied whole. */
  readonly policies: ReadonlyMap<string, RetentionPolicy>;
  readonly clock: Clock;
  readonly log: Log;
  readonly onProgress?: OnProgress | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface RepairResult {
  readonly vault: string;
  /** Backups that the target has now and lacked before. */
  readonly copied: ReadonlyArray<{ readonly resource: string; readonly id: string; readonly bytes: number }>;
  /** Backups that it still lacks, and why. */
  readonly failed: ReadonlyArray<{ readonly resource: string; readonly id: string; readonly error: unknown }>;
  /** Holds, records, verification reports, journals and configurations copied. */
  readonly records: number;
  /** Records that could not be copied. */
  readonly failedRecords: readonly FailedRecord[];
  /** Vaults of `from` that could not be read. */
  readonly unread: ReadonlyArray<{ readonly vault: string; readonly error: unknown }>;
}

/** A backup that a vault lacks. */
export interface MissingBackup {
  readonly resource: string;
  readonly id: string;
  readonly recoveryPointMs: number;
  readonly storedBytes: number;
  /** Vaults that have it. */
  readonly sources: readonly ObjectStore[];
}

/**
 * Gives a vault that was away what it missed: holds and records first, then backups, newest first. Copies objects as they are (no
 * identity is needed), checks every byte, and can be interrupted and repeated at any time. Holds the lease `retention` of the target, so
 * that what arrives is not collected before its manifest has. WAL is `wal/sync.ts`. What is foreign is passed over. Throws when the target fails or no source answers.
 */
export async function copyMissing(options: RepairOptions): Promise<RepairResult> {
  const { from, to, clock, log } = options;
  const lease = await acquireLease(to, RETENTION_LEASE, { purpose: 'repair', clock, log, signal: options.signal });
  const signal = options.signal ? AbortSignal.any([options.signal, lease.signal]) : lease.signal;
  try {
    const target = await surveyForCare(to, signal);
    const { surveys, unread } = await readSources(from, target, signal);
    const sources = surveys.map(({ store }) => store);
    const records = await copyRecords({ from: sources, to, nowMs: clock.now(), log, signal });
    await copyNewerKeys({ from: sources, to, log, signal });
    const missing = findMissing(surveys, target, options.policies, clock.now());
    const copied: Array<{ resource: string; id: string; bytes: number }> = [];
    const failed: Array<{ resource: string; id: string; error: unknown }> = damagedEverywhere(surveys, target);
    const total = missing.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
    const there = new Set<string>();
    let done = 0;
    for (const { resource, id, sources } of missing) {
      const before = done;
      const onBytes = (bytes: number) => {
        done += bytes;
        const detail = `${resource} ${id}`;
        options.onProgress?.({ task: `repair ${to.name}`, done, total: Math.max(total, done), unit: 'bytes', detail });
      };
      try {
        await lease.stillHeld();
        const beforeCommit = () => lease.stillHeld();
        await copyBackup({ sources, target: to, resource, id, there, onBytes, beforeCommit, signal });
        copied.push({ resource, id, bytes: done - before });
      } catch (error) {
        if (signal.aborted || isAbort(error) || !isOfThisBackup(error)) throw error;
        log.warn({ vault: to.name, resource, backup: id, error }, 'a backup could not be copied');
        failed.push({ resource, id, error });
      }
    }
    return { vault: to.name, copied, failed, unread, ...records };
  } catch (error) {
    throw signal.aborted && !options.signal?.aborted ? signal.reason : error;
  } finally {
    await lease.release();
  }
}

/** The backups that `target` lacks and retention would keep if it had them, newest first. */
export function findMissing(
  sources: readonly VaultSurvey[],
  target: VaultSurvey,
  policies: ReadonlyMap<string, RetentionPolicy>,
  nowMs: number,
): MissingBackup[] {
  const missing: MissingBackup[] = [];
  const all = Map.groupBy(unionOf(everyBackup(target), ...sources.map(everyBackup)), ({ resource }) => resource);
  const damaged = new Set(target.unreadable.map(({ key }) => key));
  for (const [resource, backups] of all) {
    const kept = keptOf(backups, policies.get(resource), nowMs);
    for (const backup of backups) {
      const { id, recoveryPointMs, storedBytes } = backup;
      // One that is there but damaged is in the way: create-only. Mending is another matter.
      if (target.backups.get(resource)?.has(id) || damaged.has(layout.manifest(resource, id)) || !kept.has(id))
        continue;
      const holders = sources.filter((source) => source.backups.get(resource)?.has(id)).map(({ store }) => store);
      missing.push({ resource, id, recoveryPointMs, storedBytes, sources: holders });
    }
  }
  return missing.sort((a, b) => b.recoveryPointMs - a.recoveryPointMs);
}

/** Backups that the target lacks and whose manifest no source has undamaged. */
function damagedEverywhere(
  sources: readonly VaultSurvey[],
  target: VaultSurvey,
): Array<{ resource: string; id: string; error: unknown }> {
  const found = new Map<string, { resource: string; id: string; error: unknown }>();
  const known = new Set(target.unreadable.map(({ key }) => key));
  for (const { resource, id, key, error } of sources.flatMap(({ unreadable }) => unreadable)) {
    if (known.has(key) || [target, ...sources].some(({ backups }) => backups.get(resource)?.has(id))) continue;
    found.set(key, { resource, id, error });
  }
  return [...found.values()];
}

/** Holds are left aside: they keep what is there and are no reason to bring back what has gone. */
function keptOf(
  backups: readonly SurveyedBackup[],
  policy: RetentionPolicy | undefined,
  nowMs: number,
): ReadonlySet<string> {
  if (!policy) return new Set(backups.map(({ id }) => id));
  return new Set(decideRetention(policy, factsOf(backups), nowMs, false).flatMap(({ id, keep }) => (keep ? [id] : [])));
}

/**
 * `resource/id` of the base backups of a vault that need only the WAL that makes them consistent: they lie beyond the window, or the WAL of their
 * database is not archived all the time.
 */
export function keptAlone(
  survey: VaultSurvey,
  policies: ReadonlyMap<string, RetentionPolicy>,
  nowMs: number,
): ReadonlySet<string> {
  const found = new Set<string>();
  for (const [resource, backups] of survey.backups) {
    const policy = policies.get(resource);
    const decisions = policy ? decideRetention(policy, factsOf([...backups.values()]), nowMs, false) : [];
    // What has expired and is still there has lost its WAL already, or will.
    for (const { id, keep, alone } of decisions)
      if (alone || !keep || policy?.basesOnly) found.add(`${resource}/${id}`);
  }
  return found;
}

function factsOf(backups: readonly SurveyedBackup[]): BackupFacts[] {
  return backups.map(({ id, recoveryPointMs, finishedAtMs }) => ({
    id,
    recoveryPointMs,
    finishedAtMs,
    readable: true,
  }));
}

async function readSources(
  from: readonly ObjectStore[],
  target: VaultSurvey,
  signal: AbortSignal,
): Promise<{ surveys: VaultSurvey[]; unread: Array<{ vault: string; error: unknown }> }> {
  const surveys: VaultSurvey[] = [];
  const unread: Array<{ vault: string; error: unknown }> = [];
  for (const store of from) {
    try {
      surveys.push(await surveyForCare(store, signal, target));
    } catch (error) {
      if (signal.aborted) throw error;
      unread.push({ vault: store.name, error });
    }
  }
  const [first] = unread;
  if (surveys.length === 0 && first) {
    throw new DrError('unreachable', 'no vault to copy from could be read', {
      where: unread.map(({ vault, error }) => `${vault}: ${messageOf(error)}`).join('; '),
      next: 'Run `dr doctor` to see what each vault refuses.',
      cause: first.error,
    });
  }
  return { surveys, unread };
}

/** What is wrong with one backup does not keep the others from being copied; what is wrong with the target does. */
function isOfThisBackup(error: unknown): boolean {
  return error instanceof DrError && ['corrupt', 'conflict', 'refused', 'not-found'].includes(error.kind);
}
