import { type Clock, systemClock } from '../base/clock.ts';
import { isAbort, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { acquireLease } from '../vault/lease.ts';
import { readLease } from '../vault/lease-record.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { Succession } from './leader.ts';

/**
 * Who took over the work of a site, told in the vaults by a lease that every new leader takes and gives back at once: its generation is all
 * that matters. So it costs a few requests for each change of the leader, and more only while the API server is down.
 */
export class VaultSuccession implements Succession {
  readonly #name: string;
  readonly #stores: readonly ObjectStore[];
  readonly #clock: Clock;
  readonly #log: Log;
  /** The generation after our own announcement, by vault. */
  readonly #own = new Map<string, number>();

  constructor(site: string, stores: readonly ObjectStore[], log: Log, clock: Clock = systemClock) {
    this.#name = `leader-${site}`;
    this.#stores = stores;
    this.#clock = clock;
    this.#log = log;
  }

  async announce(purpose: string, signal: AbortSignal): Promise<boolean> {
    this.#own.clear();
    await Promise.all(
      this.#stores.map(async (store) => {
        try {
          const options = { purpose, signal, clock: this.#clock };
          const lease = await acquireLease(store, this.#name, options);
          await lease.release();
          const record = await readLease(store, this.#name, { signal });
          if (record) this.#own.set(store.name, record.generation);
        } catch (error) {
          this.#log.debug({ vault: store.name, reason: messageOf(error) }, 'the vault was not told who leads');
        }
      }),
    );
    return this.#own.size > 0;
  }

  async isSucceeded(signal: AbortSignal): Promise<boolean | undefined> {
    const answers = await Promise.all(
      this.#stores.map(async (store) => {
        const own = this.#own.get(store.name);
        if (own === undefined) return undefined;
        try {
          return ((await readLease(store, this.#name, { signal }))?.generation ?? 0) > own;
        } catch (error) {
          if (!isAbort(error)) {
            this.#log.debug({ vault: store.name, reason: messageOf(error) }, 'the vault does not say who leads');
          }
          return undefined;
        }
      }),
    );
    if (answers.includes(true)) return true;
    return answers.includes(false) ? false : undefined;
  }
}
