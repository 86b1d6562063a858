import type { ResourceKind } from '../manifest.ts';

/** How long backups of one resource are kept. */
export interface RetentionPolicy {
  readonly kind: ResourceKind;
  /** Every moment of this last stretch of time stays recoverable, milliseconds. */
  readonly retentionMs: number;
  /** Newest good backups that stay whatever their age; at least one always does. */
  readonly keepAtLeast: number;
}

/** What retention knows of one backup. Times are milliseconds since 1970. */
export interface BackupFacts {
  readonly id: string;
  /** False when its manifest cannot be read: the times are then those of its id, or 0. */
  readonly readable: boolean;
  readonly recoveryPointMs: number;
  readonly finishedAtMs: number;
  /** When it was last restored and checked with success. */
  readonly verifiedAtMs?: number | undefined;
  /** Its last verification failed: it does not count as a good one. */
  readonly failedVerification?: boolean | undefined;
}

/** Why a backup stays (`expired`: why it goes). The first that applies, in this order. */
export type RetentionRule =
  | 'held'
  | 'unreadable'
  | 'young'
  | 'window'
  | 'newest'
  | 'last-good'
  | 'newest-verified'
  | 'expired';

/** A backup stays for this long after a newer one was committed: one that began before may still be building on it. */
export const BASELINE_MS = 48 * 3_600_000;

export interface RetentionDecision {
  readonly id: string;
  readonly keep: boolean;
  readonly rule: RetentionRule;
}

/**
 * Decides for every backup of one resource in one vault whether it stays. Pure: the same arguments give the same answer.
 *
 * - While `held`, everything stays; so does what cannot be read, because nobody knows what depends on it.
 * - A backup stays while it is younger than the retention.
 * - The newest one at or before the beginning of that window stays too where moments between backups are promised: for a
 *   database it is the base that the WAL of the window's first hours is replayed onto, for a configuration backed up on change it is
 *   what was in force then.
 * - The newest one stays whatever its age and its verification, because the next backup uses its parts again; so does each that was the
 *   newest within the last 48 hours, because a backup that still runs may have begun on it.
 * - The newest `keepAtLeast` good ones and the newest verified one stay whatever their age.
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
  const base = policy.kind === 'data' ? undefined : readable.find((backup) => backup.recoveryPointMs <= windowStart);
  const good = readable.filter((backup) => backup.failedVerification !== true);
  const lastGood = new Set(good.slice(0, Math.max(1, policy.keepAtLeast)).map(({ id }) => id));
  const newest = newestWithin(readable, nowMs);
  const verified = readable.find((backup) => backup.verifiedAtMs !== undefined && !backup.failedVerification);
  return backups.map((backup) => {
    const rule = ruleFor(backup);
    return { id: backup.id, keep: rule !== 'expired', rule };
  });

  function ruleFor(backup: BackupFacts): RetentionRule {
    if (held) return 'held';
    if (!backup.readable) return 'unreadable';
    if (Math.max(backup.recoveryPointMs, backup.finishedAtMs) > windowStart) return 'young';
    if (backup.id === base?.id) return 'window';
    if (newest.has(backup.id)) return 'newest';
    if (lastGood.has(backup.id)) return 'last-good';
    if (backup.id === verified?.id) return 'newest-verified';
    return 'expired';
  }
}

/** The backups that were the newest by id, which is how the next backup finds its baseline, at some moment of the last 48 hours. */
function newestWithin(backups: readonly BackupFacts[], nowMs: number): ReadonlySet<string> {
  const found = new Set<string>();
  let supersededMs = Number.POSITIVE_INFINITY;
  for (const { id, finishedAtMs } of [...backups].sort((a, b) => (a.id < b.id ? 1 : -1))) {
    if (supersededMs <= nowMs - BASELINE_MS) break;
    found.add(id);
    supersededMs = Math.min(supersededMs, finishedAtMs);
  }
  return found;
}

/** By recovery point; ids, which begin with the time of the backup's start, decide between equal ones. */
function newestFirst(a: BackupFacts, b: BackupFacts): number {
  return b.recoveryPointMs - a.recoveryPointMs || (a.id < b.id ? 1 : a.id > b.id ? -1 : 0);
}
