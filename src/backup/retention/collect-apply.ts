import type { Clock } from '../../base/clock.ts';
import { DrError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { formatDuration } from '../../base/units.ts';
import { layout } from '../../vault/layout.ts';
import { acquireLease, type Lease } from '../../vault/lease.ts';
import type { ObjectStore } from '../../vault/store.ts';
import {
  type DeadObjects,
  manifestRemoval,
  type Needs,
  RETENTION_LEASE,
  type Removal,
  removalOf,
} from './collect-check.ts';
import { findDead } from './collect-dead.ts';
import { doubt, everyBackup, type SurveyedBackup, surveyVault, unionOf, type VaultSurvey } from './collect-survey.ts';
import { readHolds, whyHeld } from './holds.ts';

/** Objects deleted between two looks at holds and lease; also S3's limit of one request. */
const BATCH = 1000;
/** Clocks further apart than this make ages meaningless. */
const SKEW_LIMIT_MS = 3_600_000;

interface ApplyOptions {
  readonly stores: readonly ObjectStore[];
  readonly clock: Clock;
  readonly log: Log;
  readonly graceMs: number;
  readonly signal?: AbortSignal | undefined;
}

interface Target {
  readonly store: ObjectStore;
  readonly survey: VaultSurvey;
  readonly check: Needs;
}

/**
 * Deletes from one vault, under its lease: expired manifests, then, after a second look that must show all that the first one showed,
 * what nothing needs. Fills `done` as it goes, so that a failure half way still says what has gone.
 */
export async function deleteFromVault(
  options: ApplyOptions,
  { store, survey, check }: Target,
  done: { readonly removals: Removal[]; readonly notes: string[] },
): Promise<void> {
  const { clock, log } = options;
  const lease = await acquireLease(store, RETENTION_LEASE, {
    purpose: 'retention',
    clock,
    log,
    signal: options.signal,
  });
  const signal = options.signal ? AbortSignal.any([options.signal, lease.signal]) : lease.signal;
  const remove = async (keys: readonly string[]) => {
    for (let at = 0; at < keys.length; at += BATCH) {
      await requireLeave(options.stores, lease, signal);
      await store.delete(keys.slice(at, at + BATCH), { signal });
    }
  };
  try {
    await requireSameTime(store, lease, clock);
    const before = await again(store, survey, new Map(), signal);
    const expired = [...check.expired.values()];
    await remove(expired.map(({ resource, id }) => layout.manifest(resource, id)));
    done.removals.push(...expired.map(manifestRemoval));
    const after = await again(store, before, check.expired, signal);
    const needed = unionOf(everyBackup(after), check.needed);
    const { stores, graceMs } = options;
    const dead = await findDead({ ...check, needed, store, stores, nowMs: clock.now(), graceMs, signal }, done.notes);
    for (const groups of batchesOf(dead)) {
      await remove(groups.flatMap(({ keys }) => keys));
      done.removals.push(...groups.map(removalOf));
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

/** Looks at the manifests again. They only ever go by retention, so one that is missing without having been expired stops everything. */
async function again(
  store: ObjectStore,
  known: VaultSurvey,
  expired: ReadonlyMap<string, SurveyedBackup>,
  signal: AbortSignal,
): Promise<VaultSurvey> {
  const now = await surveyVault(store, signal, known);
  const [damaged] = now.unreadable;
  if (damaged) throw doubt(store, damaged.key, 'a manifest cannot be read', damaged.error);
  for (const [resource, backups] of known.backups) {
    for (const id of backups.keys()) {
      if (expired.has(`${resource}/${id}`) || now.backups.get(resource)?.has(id)) continue;
      throw doubt(store, layout.manifest(resource, id), 'a manifest that was there is not listed any more');
    }
  }
  return now;
}

/** Throws unless the lease is still ours and no hold has been set since. */
async function requireLeave(stores: readonly ObjectStore[], lease: Lease, signal: AbortSignal): Promise<void> {
  const held = whyHeld(await readHolds(stores, signal));
  if (held !== undefined) {
    throw new DrError('refused', `nothing more is deleted: ${held}`, { next: 'See `dr hold list`.' });
  }
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
