import { type Clock, systemClock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import type {
  Body,
  ByteRange,
  CallOptions,
  CreateOptions,
  FolderOptions,
  ListOptions,
  ObjectInfo,
  ObjectStore,
  ReadOutcome,
  StoreStats,
} from './store.ts';

/** How often a vault that was away is looked at again, at most. */
const LOOK_EVERY_MS = 5000;

/**
 * A vault that was not there, or not the right one, when it was opened: nothing is written to its place (an unmounted directory
 * would take everything) until `look` finds the right vault there again.
 */
export class GuardedStore implements ObjectStore {
  readonly #store: ObjectStore;
  readonly #look: () => Promise<DrError | undefined>;
  readonly #clock: Clock;
  #reason: DrError | undefined;
  #lookedAtMs: number;
  #looking: Promise<void> | undefined;

  /** `look` resolves to why the vault cannot be used, or to undefined when it can. */
  constructor(
    store: ObjectStore,
    reason: DrError | undefined,
    look: () => Promise<DrError | undefined>,
    clock: Clock = systemClock,
  ) {
    this.#store = store;
    this.#reason = reason;
    this.#look = look;
    this.#clock = clock;
    this.#lookedAtMs = clock.now();
  }

  /** A vault that is looked at before its first use: its directory or prefix may be there without being a vault. */
  static lazily(store: ObjectStore, look: () => Promise<DrError | undefined>, clock?: Clock): GuardedStore {
    const unseen = new DrError('unreachable', `vault ${store.name} has not been looked at yet`);
    const guarded = new GuardedStore(store, unseen, look, clock);
    guarded.#lookedAtMs = Number.NEGATIVE_INFINITY;
    return guarded;
  }

  get name(): string {
    return this.#store.name;
  }

  get region(): string {
    return this.#store.region;
  }

  get location(): string {
    return this.#store.location;
  }

  get stats(): StoreStats {
    return this.#store.stats;
  }

  /** Vaults are prepared by enrolment, which does not go through here. */
  async prepare(): Promise<void> {
    await this.#ready();
  }

  async create(key: string, body: Body, options?: CreateOptions): Promise<'created' | 'exists'> {
    await this.#ready();
    return await this.#store.create(key, body, options);
  }

  async overwrite(key: string, body: Body, options?: CreateOptions): Promise<void> {
    await this.#ready();
    await this.#store.overwrite(key, body, options);
  }

  async read(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer> {
    await this.#ready();
    return await this.#store.read(key, range, options);
  }

  async *readEach(keys: Iterable<string>, options?: CallOptions): AsyncGenerator<ReadOutcome> {
    await this.#ready();
    yield* this.#store.readEach(keys, options);
  }

  async stat(key: string, options?: CallOptions): Promise<ObjectInfo | undefined> {
    await this.#ready();
    return await this.#store.stat(key, options);
  }

  async *list(prefix: string, options?: ListOptions): AsyncGenerator<ObjectInfo> {
    await this.#ready();
    yield* this.#store.list(prefix, options);
  }

  async *names(prefix: string, options?: ListOptions): AsyncGenerator<string> {
    await this.#ready();
    yield* this.#store.names(prefix, options);
  }

  async folders(prefix: string, options?: FolderOptions): Promise<string[]> {
    await this.#ready();
    return await this.#store.folders(prefix, options);
  }

  async delete(keys: readonly string[], options?: CallOptions): Promise<void> {
    await this.#ready();
    await this.#store.delete(keys, options);
  }

  get locks(): ObjectStore['locks'] {
    return this.#reason === undefined ? this.#store.locks : undefined;
  }

  get versions(): ObjectStore['versions'] {
    return this.#reason === undefined ? this.#store.versions : undefined;
  }

  async close(): Promise<void> {
    await this.#store.close();
  }

  async #ready(): Promise<void> {
    if (this.#reason === undefined) return;
    if (this.#looking || this.#clock.now() - this.#lookedAtMs >= LOOK_EVERY_MS) {
      this.#looking ??= this.#lookAgain().finally(() => {
        this.#looking = undefined;
      });
      await this.#looking;
    }
    if (this.#reason !== undefined) throw this.#reason;
  }

  async #lookAgain(): Promise<void> {
    this.#lookedAtMs = this.#clock.now();
    this.#reason = await this.#look();
  }
}
