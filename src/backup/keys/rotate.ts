import type { Clock } from '../../base/clock.ts';
import { forEachLimit } from '../../base/concurrency.ts';
import { DrError, isAbort, messageOf } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import type { OnProgress } from '../../base/progress.ts';
import type { KeyOpeners, KeyPolicy } from '../../vault/key-object.ts';
import { acquireLease, type Lease } from '../../vault/lease.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { removeOldGenerations } from './remove-old.ts';
import { rewrap } from './rewrap.ts';
import { surveyKeys, type VaultKeys } from './survey.ts';

/** Held in every vault by whoever rewraps its keys. */
export const KEYS_LEASE = 'keys';
/** Data keys worked on at once: each waits for the vaults most of the time. */
const KEYS_IN_FLIGHT = 8;

export interface RotateOptions {
  /** Every configured vault, reachable or not. */
  readonly stores: readonly ObjectStore[];
  /** For whom data keys are to be wrapped from now on. */
  readonly policy: Exclude<KeyPolicy, 'none'>;
  /** What opens the old wraps; what opens the new ones as well proves them. */
  readonly openers: KeyOpeners;
  /** Remove the older generations too, so that nobody else opens what is in the vaults any more. */
  readonly removeOld: boolean;
  readonly clock: Clock;
  readonly log: Log;
  readonly onProgress?: OnProgress | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface FailedKey {
  readonly id: string;
  readonly error: DrError;
}

/** What was done in one vault. */
export interface RotatedVault {
  readonly vault: string;
  readonly keys: number;
  /** New generations written. */
  readonly written: number;
  /** Older generations removed. */
  readonly removed: number;
}

export interface RotateResult {
  readonly vaults: readonly RotatedVault[];
  /** Vaults that did not answer, or stopped answering: the daemon brings them up to date when they are back. */
  readonly away: ReadonlyArray<{ readonly vault: string; readonly reason: string }>;
  /** Data keys wrapped anew, and those that were wrapped for exactly these already. */
  readonly rewrapped: number;
  readonly already: number;
  /** Of those wrapped anew: opened again with an identity that was given. The others are right by construction. */
  readonly proven: number;
  /** Data keys that stay as they are, and why. */
  readonly failed: readonly FailedKey[];
  /** Why older generations stay although they were to go; undefined when they were not asked for. */
  readonly kept: ReadonlyArray<{ readonly vault: string; readonly objects: number; readonly why: string }>;
}

/** A vault that is being worked on. */
export interface RotatingVault extends VaultKeys {
  readonly lease: Lease;
  written: number;
  removed: number;
}

/**
 * Wraps every data key for those whom the policy names now: a new generation beside the old one, the same bytes in every vault; no data
 * is touched. Can be killed and repeated at any time: what is done already is found so. A vault that does not answer is left out and
 * named. Throws `lease-held` when another rotation runs, `unreachable` when no vault answers, and what KMS says when it does not wrap.
 */
export async function rotateKeys(options: RotateOptions): Promise<RotateResult> {
  const away = new Map<string, string>();
  const vaults = await openAll(options, away);
  const stop = new AbortController();
  const signal = AbortSignal.any([
    stop.signal,
    ...vaults.map(({ lease }) => lease.signal),
    ...(options.signal ? [options.signal] : []),
  ]);
  const counts = { rewrapped: 0, already: 0, proven: 0 };
  const failed: FailedKey[] = [];
  const kept: Array<RotateResult['kept'][number]> = [];
  try {
    const ids = [...new Set(vaults.flatMap(({ keys }) => [...keys.keys()]))].sort();
    const current = new Map<string, { readonly key: string; readonly bytes: Buffer }>();
    let done = 0;
    await forEachLimit(ids, KEYS_IN_FLIGHT, async (id) => {
      signal.throwIfAborted();
      try {
        const outcome = await rewrap(id, present(vaults, away), { ...options, signal }, (vault, error) => {
          options.log.warn({ vault: vault.store.name, error }, 'a vault dropped out of the rotation of keys');
          away.set(vault.store.name, messageOf(error));
        });
        counts[outcome.how]++;
        if (outcome.proven && outcome.how === 'rewrapped') counts.proven++;
        current.set(id, outcome);
      } catch (error) {
        if (signal.aborted || isAbort(error) || !isOfThisKey(error)) throw error;
        failed.push({ id, error });
      }
      options.onProgress?.({ task: 'rewrap keys', done: ++done, total: ids.length, unit: 'objects', detail: id });
    });
    if (options.removeOld) {
      kept.push(...(await removeOldGenerations(present(vaults, away), current, { ...options, signal })));
    }
  } catch (error) {
    const lost = vaults.find(({ lease }) => lease.signal.aborted);
    throw lost && !options.signal?.aborted ? lost.lease.signal.reason : error;
  } finally {
    stop.abort();
    await Promise.all(vaults.map(({ lease }) => lease.release()));
  }
  return {
    vaults: vaults.map(({ store, keys, written, removed }) => ({
      vault: store.name,
      keys: keys.size,
      written,
      removed,
    })),
    away: [...away].map(([vault, reason]) => ({ vault, reason })),
    ...counts,
    failed: failed.sort((a, b) => (a.id < b.id ? -1 : 1)),
    kept,
  };
}

function present(vaults: readonly RotatingVault[], away: ReadonlyMap<string, string>): RotatingVault[] {
  return vaults.filter(({ store }) => !away.has(store.name));
}

/** What keeps one data key as it is; anything else ends the rotation, because it would befall every other key as well. */
function isOfThisKey(error: unknown): error is DrError {
  return error instanceof DrError && ['wrong-key', 'corrupt', 'conflict', 'refused'].includes(error.kind);
}

async function openAll(options: RotateOptions, away: Map<string, string>): Promise<RotatingVault[]> {
  const { stores, clock, log, signal, onProgress } = options;
  const vaults: RotatingVault[] = [];
  let failure: unknown;
  try {
    // In the order of their names, so that two rotations never wait for each other's second lease.
    for (const store of [...stores].sort((a, b) => (a.name < b.name ? -1 : 1))) {
      try {
        const lease = await acquireLease(store, KEYS_LEASE, { purpose: 'rotation of keys', clock, log, signal });
        try {
          // Only now: what another rotation has written is seen.
          const { keys } = await surveyKeys(store, { onProgress, signal });
          vaults.push({ store, keys, lease, written: 0, removed: 0 });
        } catch (error) {
          await lease.release();
          throw error;
        }
      } catch (error) {
        if (signal?.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
        if (error.kind !== 'unreachable' && error.kind !== 'denied') throw error;
        failure ??= error;
        away.set(store.name, messageOf(error));
      }
    }
    if (vaults.length === 0) throw failure ?? new DrError('config', 'there is no vault');
    return vaults;
  } catch (error) {
    await Promise.all(vaults.map(({ lease }) => lease.release()));
    throw error;
  }
}
