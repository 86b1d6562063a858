import { DrError, isAbort, messageOf } from '../../base/errors.ts';
import { segmentName } from '../../postgres/lsn.ts';
import { layout } from '../../vault/layout.ts';
import { lockPeriodMs } from '../../vault/lock-policy.ts';
import type { ObjectLocks, ObjectStore } from '../../vault/store.ts';
import type { RetainedBackup, RetentionOptions, VaultState } from './collect-look.ts';
import type { SurveyedBackup } from './collect-survey.ts';

/** How far ahead the locks of what is kept reach, at least; a quarter of the period where that is less. Longer than retention is ever late. */
const AHEAD_MS = 14 * 86_400_000;

/**
 * Keeps locked what is kept longer than its lock was made for: the last good backups when no new ones come, those of a calendar rule, what
 * was in force when a configuration last changed, everything under a hold; beside them what makes the place a vault. Everything younger
 * was locked long enough when its backup was taken. Does nothing in vaults without Object Lock, and where `objectLock.for` is a
 * fixed length. What goes wrong becomes a note: retention itself is not concerned.
 */
export async function keepLocks(
  { store, survey, backups }: VaultState,
  { clock, signal }: Pick<RetentionOptions, 'clock' | 'signal'>,
  notes: string[],
): Promise<void> {
  const { locks } = store;
  if (!locks || !survey) return;
  const nowMs = clock.now();
  try {
    await extendAhead(locks, await fixtures(store, signal), nowMs, signal);
    for (const decision of backups) {
      const backup = survey.backups.get(decision.resource)?.get(decision.id);
      if (!backup || !isKeptBeyond(decision, backup, locks, nowMs)) continue;
      await extendAhead(locks, await needsOf(store, backup, signal), nowMs, signal);
    }
  } catch (error) {
    if (signal?.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
    notes.push(`locks could not be made longer: ${messageOf(error)} (${error.where}). ${error.next ?? ''}`.trimEnd());
  }
}

function isKeptBeyond(
  { keep, rules }: RetainedBackup,
  backup: SurveyedBackup,
  { policy }: ObjectLocks,
  nowMs: number,
): boolean {
  const periodMs = policy.byResource[backup.resource];
  if (!keep || periodMs === undefined || rules.every((rule) => rule === 'young')) return false;
  return backup.finishedAtMs + periodMs < nowMs + aheadMs(periodMs);
}

async function extendAhead(
  locks: ObjectLocks,
  keys: readonly string[],
  nowMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const byPeriod = Map.groupBy(keys, (key) => lockPeriodMs(locks.policy, key));
  for (const [periodMs, group] of byPeriod) await locks.extend(group, { untilMs: nowMs + aheadMs(periodMs), signal });
}

function aheadMs(periodMs: number): number {
  return Math.min(AHEAD_MS, periodMs / 4);
}

/** What belongs to no backup and is needed as long as there is one. */
async function fixtures(store: ObjectStore, signal: AbortSignal | undefined): Promise<string[]> {
  const keys: string[] = [];
  for (const prefix of ['FORMAT', 'dr-', 'records/', layout.holds]) {
    for await (const { key } of store.list(prefix, { signal })) keys.push(key);
  }
  let configuration: string | undefined;
  for await (const { key } of store.list(layout.ownConfiguration(''), { signal })) configuration = key;
  return configuration === undefined ? keys : [...keys, configuration];
}

/** Everything that a restore of the backup alone reads. */
async function needsOf(
  store: ObjectStore,
  { resource, id, parts, keyIds, wal }: SurveyedBackup,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const keys = [layout.manifest(resource, id), layout.index(resource, id), ...keyIds.map(layout.keyGenerations)];
  for (const [owner, use] of parts) {
    const numbers = typeof use === 'number' ? Array.from({ length: use }, (_, number) => number) : use;
    for (const number of numbers) keys.push(layout.part(resource, owner, number));
  }
  if (!wal) return keys;
  for (const folder of await store.folders(layout.walSystem(wal.systemId), { signal })) {
    const timeline = Number.parseInt(folder, 16);
    const prefix = layout.wal(wal.systemId, timeline);
    const first = `${prefix}${segmentName(timeline, wal.from, wal.segmentBytes)}`;
    const before = `${prefix}${segmentName(timeline, wal.until, wal.segmentBytes)}`;
    for await (const { key } of store.list(prefix, { before, signal })) if (key >= first) keys.push(key);
  }
  return keys;
}
