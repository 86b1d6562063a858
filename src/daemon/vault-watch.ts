import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { checkVault } from '../vault/enrol.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { Service } from './service.ts';

/** Whether a vault answers, as last asked. */
export interface VaultState {
  readonly vault: string;
  /** Undefined while it has not been asked yet. */
  readonly up: boolean | undefined;
  /** Since when that is so, milliseconds since 1970. */
  readonly sinceMs: number;
  /** Why it is not up. */
  readonly error: unknown;
}

export interface VaultWatchOptions {
  readonly stores: readonly ObjectStore[];
  readonly clock: Clock;
  readonly log: Log;
  /** How often they are asked, milliseconds. */
  readonly everyMs: number;
  /** How long a vault may take to answer; default 20 s. */
  readonly timeoutMs?: number;
  /** A vault answers again: it may lack what was written meanwhile. */
  onReturn(vault: string): void;
}

/** Service: asks every vault every few seconds whether it is there and is the vault that it should be. */
export class VaultWatch implements Service {
  readonly name = 'vaults';
  readonly #options: VaultWatchOptions;
  readonly #states = new Map<string, VaultState>();
  #stop = new AbortController();
  #ended: Promise<void> | undefined;

  constructor(options: VaultWatchOptions) {
    this.#options = options;
  }

  states(): VaultState[] {
    return this.#options.stores.map(
      ({ name }) => this.#states.get(name) ?? { vault: name, up: undefined, sinceMs: 0, error: undefined },
    );
  }

  run(): Promise<void> {
    this.#stop = new AbortController();
    this.#ended = this.#keepAsking();
    return this.#ended;
  }

  async stop(_graceMs: number): Promise<void> {
    this.#stop.abort();
    await this.#ended?.catch(() => {});
  }

  async #keepAsking(): Promise<void> {
    const { stores, clock, everyMs } = this.#options;
    while (!this.#stop.signal.aborted) {
      await Promise.all(stores.map((store) => this.#ask(store)));
      await clock.sleep(everyMs, this.#stop.signal).catch(() => {});
    }
  }

  async #ask(store: ObjectStore): Promise<void> {
    const { clock, log, timeoutMs = 20_000, onReturn } = this.#options;
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(timeoutMs)]);
    let error: unknown;
    try {
      await checkVault(store, { signal });
    } catch (thrown) {
      if (this.#stop.signal.aborted) return;
      error = thrown;
    }
    const up = error === undefined;
    const before = this.#states.get(store.name);
    const vault = store.name;
    const sinceMs = before?.up === up ? before.sinceMs : clock.now();
    this.#states.set(vault, { vault, up, sinceMs, error });
    if (before?.up === up) return;
    if (!up) log.error({ vault, error }, 'this vault does not answer; the others go on');
    else if (before) {
      log.info({ vault, was: messageOf(before.error) }, 'this vault answers again');
      onReturn(vault);
    } else log.info({ vault, location: store.location }, 'this vault answers');
  }
}
