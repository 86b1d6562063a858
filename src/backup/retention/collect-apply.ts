import type { Clock } from '../../base/clock.ts';
import { DrError } from '../../base/errors.ts';
import { formatDuration } from '../../base/units.ts';
import { layout } from '../../vault/layout.ts';
import { acquireLease, type Lease } from '../../vault/lease.ts';
import { LockedError, type ObjectStore } from '../../vault/store.ts';
import {
  type DeadObjects,
  GRACE_MS,
  manifestRemoval,
  RETENTION_LEASE,
  type Removal,
  removalOf,
} from './collect-check.ts';
import { findDead } from './collect-dead.ts';
import { type Look, lookAround, type RetentionOptions, requireNoneLost, type VaultState } from './collect-look.ts';
import { doubt, everyBackup, surveyVault, unionOf, type VaultSurvey } from './collect-survey.ts';
import { readHolds, whyHeld } from './holds.ts';

/** Objects deleted between two looks at holds and lease; also S3's limit of one request. */
const BATCH = 1000;
/** Clocks further apart than this make ages meaningless. */
const SKEW_LIMIT_MS = 3_600_000;

/**
 * Deletes from one vault, under its lease. Everything is decided anew once the lease is held: `seen`, from before, may be old, and tells
 * only whether manifests have been lost since. Expired manifests go first, then, after another look that must show all that the one
 * before showed, what nothing needs. Fills `done` as it goes, so that a failure half way still says what has gone.
 */
export async function deleteFromVault(
  options: RetentionOptions,
  seen: Look,
  store: ObjectStore,
  done: { readonly removals: Removal[]; readonly notes: string[] },
): Promise<void> {
  const { stores, clock, log, graceMs = GRACE_MS } = options;
  const lease = await acquireLease(store, RETENTION_LEASE, {
    purpose: 'retention',
    clock,
    log,
    signal: options.signal,
  });
  const signal = options.signal ? AbortSignal.any([options.signal, lease.signal]) : lease.signal;
  const locked = new Set<string>();
  let untilMs = 0;
  const remove = async (keys: readonly string[]) => {
    for (let at = 0; at < keys.length; at += BATCH) {
      await requireLeave(stores, lease, signal);
      await store.delete(keys.slice(at, at + BATCH), { signal }).catch((error: unknown) => {
        // What is locked stays until its lock has ended, and is found again by then.
        if (!(error instanceof LockedError)) throw error;
        untilMs = Math.max(untilMs, error.untilMs ?? 0);
        for (const key of error.locked) locked.add(key);
      });
    }
  };
  try {
    await requireSameTime(store, lease, clock);
    const now = await lookAround({ ...options, signal }, seen);
    const { state, survey } = requireDecided(now, seen, store);
    const { needs } = state;
    const expired = [...needs.expired.values()];
    await remove(expired.map(({ resource, id }) => layout.manifest(resource, id)));
    const gone = expired.filter(({ resource, id }) => !locked.has(layout.manifest(resource, id)));
    done.removals.push(...gone.map(manifestRemoval));
    const after = await surveyVault(store, signal, survey);
    requireReadable(store, after);
    requireNoneLost(store, state, after);
    const needed = unionOf(everyBackup(after), needs.needed);
    const check = { ...needs, needed, store, stores, reports: now.reports, nowMs: clock.now(), graceMs, signal };
    const dead = await findDead(check, done.notes);
    for (const groups of batchesOf(dead)) {
      await remove(groups.flatMap(({ keys }) => keys));
      done.removals.push(...groups.map((group) => removalOf(group, locked)).filter(({ objects }) => objects > 0));
    }
    if (locked.size > 0) {
      const until = untilMs > 0 ? `, the last that was looked at until ${new Date(untilMs).toISOString()}` : '';
      done.notes.push(`Object Lock keeps what retention would remove: ${locked.size} objects${until}`);
    }
  } catch (error) {
    throw signal.aborted && !options.signal?.aborted ? signal.reason : error;
  } finally {
    await lease.release();
  }
}

/** Small groups joined into batches, so that many of them do not mean many looks at holds and lease. */
function* batchesOf(dead: readonly DeadObjects[]): Generator<DeadObjects[]> {
  let batch: DeadObjects[] = [];
  let objects = 0;
  for (const group of dead) {
    batch.push(group);
    objects += group.keys.length;
    if (objects < BATCH) continue;
    yield batch;
    batch = [];
    objects = 0;
  }
  if (batch.length > 0) yield batch;
}

/** What was decided now, under the lease. Throws when it cannot be relied upon. */
function requireDecided(now: Look, seen: Look, store: ObjectStore): { state: VaultState; survey: VaultSurvey } {
  if (now.held !== undefined) throw held(now.held);
  const of = (look: Look) => look.vaults.find((each) => each.store === store);
  const [state, before] = [of(now), of(seen)];
  if (!state?.survey || !before) throw new DrError('internal', `vault ${store.name} was not looked at`);
  requireReadable(store, state.survey);
  requireNoneLost(store, before, state.survey);
  return { state, survey: state.survey };
}

function requireReadable(store: ObjectStore, { unreadable: [damaged] }: VaultSurvey): void {
  if (damaged) throw doubt(store, damaged.key, 'a manifest cannot be read', damaged.error);
}

function held(why: string): DrError {
  return new DrError('refused', `nothing more is deleted: ${why}`, { next: 'See `dr hold list`.' });
}

/** Throws unless the lease is still ours and no hold has been set since. */
async function requireLeave(stores: readonly ObjectStore[], lease: Lease, signal: AbortSignal): Promise<void> {
  const why = whyHeld(await readHolds(stores, signal));
  if (why !== undefined) throw held(why);
  await lease.stillHeld();
}

/** The lease was written just now: what the store says about when must fit our clock. */
async function requireSameTime(store: ObjectStore, lease: Lease, clock: Clock): Promise<void> {
  const key = layout.leaseGeneration(RETENTION_LEASE, lease.generation);
  const written = await store.stat(key);
  const skewMs = written ? clock.now() - written.modifiedMs : Number.NaN;
  if (Math.abs(skewMs) <= SKEW_LIMIT_MS) return;
  const what = written
    ? `differs from the clock of vault ${store.name} by ${formatDuration(Math.abs(skewMs))}`
    : 'cannot be compared';
  throw new DrError('refused', `nothing is deleted: the clock of this machine ${what}`, {
    where: `${store.location}/${key}`,
    next: 'Set the clock of this machine (NTP), then run `dr retention` again.',
  });
}
