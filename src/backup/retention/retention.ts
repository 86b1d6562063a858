import type { ResourceKind } from '../manifest.ts';
import { type Period, type PeriodRules, periodOf, periods } from './periods.ts';

/** How long backups of one resource are kept. */
export interface RetentionPolicy {
  readonly kind: ResourceKind;
  /** Every moment of this last stretch of time stays recoverable, milliseconds. */
  readonly retentionMs: number;
  /** Newest good backups that stay whatever their age; at least one always does. */
  readonly keepAtLeast: number;
  /** Beside the age: one backup of each of the last days, weeks, months and years. */
  readonly periods?: PeriodRules | undefined;
  /**
   * A database whose WAL is not archived all the time (`wal.enabled: false`): holes between base backups are no news to a check. Nothing is
   * deleted because of it: it may have been archived until yesterday.
   */
  readonly basesOnly?: boolean | undefined;
}

/** What retention knows of one backup. Times are milliseconds since 1970. */
export interface BackupFacts {
  readonly id: string;
  /** False when its manifest cannot be read: the times are then those of its id, or 0. */
  readonly readable: boolean;
  readonly recoveryPointMs: number;
  readonly finishedAtMs: number;
  /**
   * When its manifest was stored in this vault, by the clock of the vault: a copy comes later. Undefined: not asked, thus when it was
   * finished.
   */
  readonly arrivedMs?: number | undefined;
  /** When it was last restored and checked with success. */
  readonly verifiedAtMs?: number | undefined;
  /** Its last verification failed: it does not count as a good one. */
  readonly failedVerification?: boolean | undefined;
}

/** Why a backup stays (`expired`: why it goes). */
export type RetentionRule =
  | 'held'
  | 'unreadable'
  | 'young'
  | 'window'
  | 'newest'
  | 'last-good'
  | 'newest-verified'
  | Period
  | 'expired';

export interface RetentionDecision {
  readonly id: string;
  readonly keep: boolean;
  /** All that keep it, in the order of `RetentionRule`; only `expired` for one that goes. */
  readonly rules: readonly RetentionRule[];
  /**
   * A database: beyond the window, it is kept as the moment that it stands for, and needs only the WAL that makes it consistent. Of
   * any other base backup all WAL from its beginning on is needed.
   */
  readonly alone: boolean;
}

/** A backup stays for this long after a newer one was committed: one that began before may still be building on it. */
export const BASELINE_MS = 48 * 3_600_000;

/**
 * Decides for every backup of one resource in one vault whether it stays. Pure: the same arguments give the same answer. A backup
 * stays when any rule keeps it.
 *
 * - While `held`, everything stays; so does what cannot be read, because nobody knows what depends on it.
 * - A backup stays while it is younger than the retention.
 * - The newest one at or before the beginning of that window stays too where moments between backups are promised: for a
 *   database it is the base that the WAL of the window's first hours is replayed onto, for a configuration backed up on change it is
 *   what was in force then. If its verification failed, so does the newest good one before it.
 * - The newest one stays whatever its age and its verification, because the next backup uses its parts again; so does each that was the
 *   newest within the last 48 hours, because a backup that still runs may have begun on it.
 * - The newest `keepAtLeast` good ones and the newest verified one stay whatever their age.
 * - Of each of the newest days, weeks, months and years that have a good backup, as many as the policy names, the newest one stays.
 *
 * For fixed backups what is deleted only grows with `nowMs`: a clock that goes back never deletes more.
 */
export function decideRetention(
  policy: RetentionPolicy,
  backups: readonly BackupFacts[],
  nowMs: number,
  held: boolean,
): RetentionDecision[] {
  const windowStart = nowMs - policy.retentionMs;
  const readable = backups.filter((backup) => backup.readable).sort(newestFirst);
  const good = readable.filter((backup) => backup.failedVerification !== true);
  const window = policy.kind === 'data' ? new Set<string>() : basesOfWindow(readable, windowStart);
  const newest = newestWithin(readable, nowMs);
  const lastGood = idsOf(good.slice(0, Math.max(1, policy.keepAtLeast)));
  const verified = good.find((backup) => backup.verifiedAtMs !== undefined);
  const ofPeriods = periods.map((period) => [period, newestOfEach(period, policy.periods, good)] as const);
  return backups.map((backup) => {
    const rules = rulesFor(backup);
    const keep = rules.length > 0;
    const alone = keep && !rules.some((rule) => ['held', 'unreadable', 'young', 'window'].includes(rule));
    return { id: backup.id, keep, rules: keep ? rules : ['expired'], alone };
  });

  function rulesFor(backup: BackupFacts): RetentionRule[] {
    const { id } = backup;
    const rules: RetentionRule[] = [];
    if (held) rules.push('held');
    if (!backup.readable) return [...rules, 'unreadable'];
    if (Math.max(backup.recoveryPointMs, backup.finishedAtMs) > windowStart) rules.push('young');
    if (window.has(id)) rules.push('window');
    if (newest.has(id)) rules.push('newest');
    if (lastGood.has(id)) rules.push('last-good');
    if (id === verified?.id) rules.push('newest-verified');
    for (const [period, ids] of ofPeriods) if (ids.has(id)) rules.push(period);
    return rules;
  }
}

/** Onto which the first moments of the window are recovered: the newest at or before its beginning, and the newest good one. */
function basesOfWindow(readable: readonly BackupFacts[], windowStart: number): ReadonlySet<string> {
  const before = readable.filter((backup) => backup.recoveryPointMs <= windowStart);
  return idsOf([...before.slice(0, 1), ...before.filter((backup) => !backup.failedVerification).slice(0, 1)]);
}

/** The backups that were the newest by id, which is how the next backup finds its baseline, at some moment of the last 48 hours. */
function newestWithin(backups: readonly BackupFacts[], nowMs: number): ReadonlySet<string> {
  const found = new Set<string>();
  let supersededMs = Number.POSITIVE_INFINITY;
  for (const { id, finishedAtMs, arrivedMs = 0 } of [...backups].sort((a, b) => (a.id < b.id ? 1 : -1))) {
    if (supersededMs <= nowMs - BASELINE_MS) break;
    found.add(id);
    supersededMs = Math.min(supersededMs, Math.max(finishedAtMs, arrivedMs));
  }
  return found;
}

/** The newest backup of each of the newest periods that have one, `rules[period]` of them. `newest`: newest first. */
function newestOfEach(
  period: Period,
  rules: PeriodRules | undefined,
  newest: readonly BackupFacts[],
): ReadonlySet<string> {
  const limit = rules?.[period] ?? 0;
  const found = new Map<string, string>();
  for (const { id, recoveryPointMs } of newest) {
    if (found.size >= limit) break;
    const name = periodOf(period, recoveryPointMs, rules?.timeZone ?? 'UTC');
    if (!found.has(name)) found.set(name, id);
  }
  return new Set(found.values());
}

function idsOf(backups: readonly BackupFacts[]): ReadonlySet<string> {
  return new Set(backups.map(({ id }) => id));
}

/** By recovery point; ids, which begin with the time of the backup's start, decide between equal ones. */
function newestFirst(a: BackupFacts, b: BackupFacts): number {
  return b.recoveryPointMs - a.recoveryPointMs || (a.id < b.id ? 1 : a.id > b.id ? -1 : 0);
}
