/** How strictly a lock holds: `governance` yields to whoever has a special right, `compliance` to nobody, not even the owner of the account. */
export type LockMode = 'governance' | 'compliance';

/** Object Lock of one vault, as configured. */
export interface LockPolicy {
  readonly mode: LockMode;
  /** How long what belongs to a resource is locked, milliseconds, by resource. */
  readonly byResource: Readonly<Record<string, number>>;
  /** How long everything else is locked: the longest of all. */
  readonly otherwiseMs: number;
}

/** Most that a lock lasts longer than it must. */
const MOST_SLACK_MS = 7 * 86_400_000;

/**
 * What is not locked, because it is removed or written over all the time: leases, hints, probes, and the pieces of WAL segments that
 * are still open (the whole segment that replaces them is).
 */
const unlocked = /^(?:leases|hints|heartbeats|probes)\/|^wal\/.*\.[0-9A-F]{8}-[0-9A-F]{8}$/;
const ofResource = /^(?:manifests|indexes|parts|verifications)\/([^/]+)\//;

/** How long the object of this name must stay locked from now on, milliseconds; 0 = not at all. */
export function lockPeriodMs(policy: LockPolicy, key: string): number {
  if (unlocked.test(key)) return 0;
  const resource = ofResource.exec(key)?.[1];
  const period = resource === undefined ? undefined : policy.byResource[resource];
  return period ?? policy.otherwiseMs;
}

/**
 * How much longer than it must a lock is made: what later backups use again then needs a longer one only once in this time, and not
 * with each of them.
 */
export function lockSlackMs(periodMs: number): number {
  return Math.min(MOST_SLACK_MS, periodMs / 8);
}
