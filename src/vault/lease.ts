import { randomUUID } from 'node:crypto';
import { type Clock, systemClock } from '../base/clock.ts';
import { DrError, messageOf } from '../base/errors.ts';
import { type Log, silentLog } from '../base/log.ts';
import { formatDuration } from '../base/units.ts';
import { layout } from './layout.ts';
import { currentHolder, describeHolder, isHolderDead, type LeaseHolder } from './lease-holder.ts';
import { generations, type LeaseRecord, readLease } from './lease-record.ts';
import type { CallOptions, ObjectStore } from './store.ts';

/** How far clocks may differ, milliseconds. */
const SKEW_MS = 10_000;

export interface LeaseOptions extends CallOptions {
  /** For people: what it is held for. */
  readonly purpose: string;
  /** Lifetime without renewal, milliseconds; it is renewed every third of it. Default 30 s. */
  readonly ttlMs?: number;
  /** How far clocks may differ: an expired lease is taken this much later. Default 10 s. */
  readonly skewMs?: number;
  /** Default: this process. */
  readonly holder?: LeaseHolder;
  readonly clock?: Clock;
  readonly log?: Log;
}

/**
 * A lease that this process holds.
 *
 * It consists of create-only objects, one per generation; whoever creates generation N+1 acquires or renews, and of several
 * exactly one does. So the store, not a clock, decides who holds it: clocks only say when trying to take it is fair. The
 * generation is the fencing token: it only grows.
 */
export interface Lease {
  readonly name: string;
  /** The current generation; grows with every renewal. */
  readonly generation: number;
  /** Aborts, with a `DrError` as reason, when the lease was taken or could not be renewed in time. */
  readonly signal: AbortSignal;
  /** Asks the store; throws when the lease is lost. For the moment before an effect that only the holder may have. */
  stillHeld(): Promise<void>;
  /** Ends renewal and gives it back. Never throws: what cannot be given back expires by itself. */
  release(): Promise<void>;
}

/** Acquires a lease or throws `lease-held`, which says who has it, for what, since when and until when. */
export async function acquireLease(store: ObjectStore, name: string, options: LeaseOptions): Promise<Lease> {
  const clock = options.clock ?? systemClock;
  const holder = options.holder ?? (await currentHolder());
  const holding = randomUUID();
  const acquiredAt = clock.now();
  // Who loses a race looks again: the winner is then named, or has released it already.
  for (let attempt = 1; ; attempt++) {
    const current = await readLease(store, name, options);
    if (current && !(await isFree(current, holder, clock, options)))
      throw heldError(store, name, current, clock, options.skewMs);
    const record: LeaseRecord = {
      version: 1,
      generation: (current?.generation ?? 0) + 1,
      holding,
      holder,
      purpose: options.purpose,
      acquiredAt,
      expiresAt: clock.now() + (options.ttlMs ?? 30_000),
      released: false,
    };
    if (await isOurs(store, name, record, options)) return new HeldLease(store, name, record, clock, options);
    if (attempt === 20) throw heldError(store, name, current ?? record, clock, options.skewMs);
  }
}

async function isFree(current: LeaseRecord, self: LeaseHolder, clock: Clock, options: LeaseOptions): Promise<boolean> {
  if (current.released || clock.now() > current.expiresAt + (options.skewMs ?? SKEW_MS)) return true;
  return isHolderDead(current.holder, self);
}

/**
 * Creates a generation and makes sure that it is the highest: this process may have been paused since it looked, and the
 * generation it then creates have been used and cleared away long ago.
 */
async function isOurs(store: ObjectStore, name: string, record: LeaseRecord, options: CallOptions): Promise<boolean> {
  const key = layout.leaseGeneration(name, record.generation);
  if ((await store.create(key, Buffer.from(JSON.stringify(record)), options)) === 'exists') return false;
  return (await generations(store, name, options)).at(-1) === record.generation;
}

function heldError(store: ObjectStore, name: string, record: LeaseRecord, clock: Clock, skewMs = SKEW_MS): DrError {
  const since = new Date(record.acquiredAt).toISOString();
  const until = new Date(record.expiresAt).toISOString();
  const left = formatDuration(Math.max(0, record.expiresAt + skewMs - clock.now()));
  const message = `${describeHolder(record.holder)} holds the lease "${name}" (${record.purpose}) since ${since}, until ${until} unless renewed`;
  return new DrError('lease-held', message, {
    where: `${store.location}/${layout.leaseGeneration(name, record.generation)}`,
    next: `Wait until it is done; if that process is gone, the lease can be taken in ${left} at the earliest.`,
  });
}

class HeldLease implements Lease {
  readonly name: string;
  readonly signal: AbortSignal;
  readonly #store: ObjectStore;
  readonly #clock: Clock;
  readonly #ttlMs: number;
  readonly #log: Log;
  readonly #lost = new AbortController();
  readonly #stop = new AbortController();
  /** Renewals, checks and the release, one after the other. */
  #turn: Promise<void> = Promise.resolve();
  #record: LeaseRecord;

  constructor(store: ObjectStore, name: string, record: LeaseRecord, clock: Clock, options: LeaseOptions) {
    this.name = name;
    this.signal = this.#lost.signal;
    this.#store = store;
    this.#record = record;
    this.#clock = clock;
    this.#ttlMs = options.ttlMs ?? 30_000;
    this.#log = options.log ?? silentLog;
    void this.#renewAlways();
    void this.#watchExpiry();
  }

  get generation(): number {
    return this.#record.generation;
  }

  async stillHeld(): Promise<void> {
    if (this.#stop.signal.aborted) {
      throw new DrError('internal', `the lease "${this.name}" was given back already`, { where: this.#store.location });
    }
    await this.#inTurn(async () => {
      this.#requireUnexpired();
      await this.#requireHighest();
      // The answer may have been heard long after it was given: this process stood still.
      this.#requireUnexpired();
    });
  }

  async release(): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    if (this.signal.aborted) return;
    try {
      await this.#inTurn(async () => {
        await this.#requireHighest();
        await this.#createNext(true);
      });
    } catch (error) {
      const facts = { lease: this.name, vault: this.#store.name, reason: messageOf(error) };
      this.#log.warn(facts, 'the lease could not be given back and ends by its time');
    }
  }

  async #renewAlways(): Promise<void> {
    // After a failure sooner, so that several tries fit into the lifetime.
    for (let pauseMs = this.#ttlMs / 3; await this.#pause(pauseMs); ) {
      try {
        await this.#inTurn(async () => {
          if (this.#stop.signal.aborted) return;
          this.#requireUnexpired();
          await this.#requireHighest(this.#stop.signal);
          await this.#createNext(false, this.#stop.signal);
        });
        pauseMs = this.#ttlMs / 3;
      } catch (error) {
        if (this.signal.aborted || this.#stop.signal.aborted) return;
        this.#log.warn(
          { lease: this.name, vault: this.#store.name, reason: messageOf(error) },
          'a lease could not be renewed yet',
        );
        pauseMs = this.#ttlMs / 10;
      }
    }
  }

  /** Apart from renewal, so that a request that hangs does not keep the loss from being noticed. */
  async #watchExpiry(): Promise<void> {
    while (await this.#pause(Math.max(1, this.#record.expiresAt - this.#clock.now()))) {
      if (this.#clock.now() >= this.#record.expiresAt) return this.#loseByTime();
    }
  }

  /** False when the lease has ended. */
  async #pause(ms: number): Promise<boolean> {
    const ended = AbortSignal.any([this.#stop.signal, this.signal]);
    await this.#clock.sleep(ms, ended, { unref: true }).catch(() => {});
    return !ended.aborted;
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const result = this.#turn.then(() => {
      this.signal.throwIfAborted();
      return work();
    });
    this.#turn = result.catch(() => {});
    return result;
  }

  #requireUnexpired(): void {
    if (this.#clock.now() < this.#record.expiresAt) return;
    this.#loseByTime();
    this.signal.throwIfAborted();
  }

  /** Throws when another holding has a higher generation; adopts one of our own whose answer was lost. */
  async #requireHighest(signal?: AbortSignal): Promise<void> {
    if ((await generations(this.#store, this.name, { signal })).at(-1) === this.#record.generation) return;
    const highest = await readLease(this.#store, this.name, { signal });
    if (highest && highest.generation > this.#record.generation && highest.holding === this.#record.holding) {
      this.#record = highest;
      return;
    }
    this.#loseTo(highest);
  }

  async #createNext(released: boolean, signal?: AbortSignal): Promise<void> {
    const next: LeaseRecord = {
      ...this.#record,
      generation: this.#record.generation + 1,
      expiresAt: this.#clock.now() + (released ? 0 : this.#ttlMs),
      released,
    };
    if (!(await isOurs(this.#store, this.name, next, { signal }))) {
      // Lost, or an earlier write of ours whose answer never came has arrived at last: then on top of that.
      await this.#requireHighest(signal);
      return this.#createNext(released, signal);
    }
    this.#record = next;
    await this.#clearOld(signal);
  }

  /** All but the last two: numbering then never starts anew, and whoever reads the last but one still finds it. */
  async #clearOld(signal: AbortSignal | undefined): Promise<void> {
    try {
      const old = (await generations(this.#store, this.name, { signal })).slice(0, -2);
      const keys = old.map((generation) => layout.leaseGeneration(this.name, generation));
      if (keys.length > 0) await this.#store.delete(keys, { signal });
    } catch (error) {
      this.#log.debug({ lease: this.name, reason: messageOf(error) }, 'old generations stay until the next renewal');
    }
  }

  #loseByTime(): void {
    const until = new Date(this.#record.expiresAt).toISOString();
    this.#lose(
      new DrError('unreachable', `the lease "${this.name}" ended at ${until}: it was not renewed in time`, {
        where: this.#store.location,
        next: 'Check that this machine ran and reached the vault all the time, then start again.',
        retryable: false,
      }),
    );
  }

  #loseTo(other: LeaseRecord | undefined): never {
    const error = other
      ? heldError(this.#store, this.name, other, this.#clock)
      : new DrError('conflict', `the lease "${this.name}" was deleted while it was held`, {
          where: this.#store.location,
          next: 'Find out who deletes objects of the vault, then start again.',
        });
    this.#lose(error);
    throw error;
  }

  #lose(error: DrError): void {
    if (!this.#lost.signal.aborted && !this.#stop.signal.aborted) {
      this.#log.error({ lease: this.name, vault: this.#store.name, reason: error.message }, 'the lease is lost');
    }
    this.#lost.abort(error);
  }
}
