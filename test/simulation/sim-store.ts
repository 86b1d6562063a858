import { DrError } from '../../src/base/errors.ts';

import { readEachAlone } from '../../src/vault/read-each.ts';
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
} from '../../src/vault/store.ts';
import { UsageMeter } from '../../src/vault/usage.ts';
import type { Objects } from './objects.ts';
import type { Actor, Scheduler } from './scheduler.ts';

/** What watches every request for what must never happen. */
export interface Watch {
  sent(actor: Actor, vault: string, kind: string, keys: readonly string[]): void;
  /** Just before the store does it. */
  served(actor: Actor, vault: SimVault, kind: string, keys: readonly string[]): void;
}

/** A vault that all processes share. */
export interface SimVault {
  readonly objects: Objects;
  /** It does not answer. */
  away: boolean;
}

/** A vault as one process sees it: every request is a step of the scheduler, a listing one for each page. */
export class SimStore implements ObjectStore {
  readonly stats = new UsageMeter();
  readonly #vault: SimVault;
  readonly #actor: Actor;
  readonly #scheduler: Scheduler;
  readonly #watch: Watch;

  constructor(vault: SimVault, actor: Actor, scheduler: Scheduler, watch: Watch) {
    this.#vault = vault;
    this.#actor = actor;
    this.#scheduler = scheduler;
    this.#watch = watch;
  }

  get name() {
    return this.#vault.objects.name;
  }
  get region() {
    return `region-${this.name}`;
  }
  get location() {
    return `memory://${this.name}`;
  }

  async prepare(): Promise<void> {}

  create(key: string, body: Body, options: CreateOptions = {}): Promise<'created' | 'exists'> {
    const bytes = Buffer.concat(body instanceof Uint8Array ? [body] : [...body]);
    return this.#ask('create', [key], options, () => this.#vault.objects.create(key, bytes));
  }

  overwrite(key: string, body: Body, options: CreateOptions = {}): Promise<void> {
    const bytes = Buffer.concat(body instanceof Uint8Array ? [body] : [...body]);
    return this.#ask('overwrite', [key], options, () => this.#vault.objects.overwrite(key, bytes));
  }

  read(key: string, range?: ByteRange, options: CallOptions = {}): Promise<Buffer> {
    return this.#ask('read', [key], options, () => this.#vault.objects.read(key, range));
  }

  readEach(keys: Iterable<string>, options: CallOptions = {}): AsyncGenerator<ReadOutcome> {
    return readEachAlone(this, keys, options);
  }

  stat(key: string, options: CallOptions = {}): Promise<ObjectInfo | undefined> {
    return this.#ask('stat', [key], options, () => this.#vault.objects.get(key));
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo, void, undefined> {
    const size = this.#scheduler.calm ? 1000 : this.#scheduler.random.pick([2, 5, 1000, 1000, 1000]);
    for (let after = options.startAfter; ; ) {
      const work = () => this.#vault.objects.list(prefix, after, options.before, size);
      const page = await this.#ask('list', [prefix], options, work);
      yield* page;
      after = page.at(-1)?.key;
      if (page.length < size) return;
    }
  }

  async *names(prefix: string, options: ListOptions = {}): AsyncGenerator<string, void, undefined> {
    for await (const { key } of this.list(prefix, options)) yield key;
  }

  folders(prefix: string, options: FolderOptions = {}): Promise<string[]> {
    return this.#ask('list', [prefix], options, () => this.#vault.objects.folders(prefix));
  }

  delete(keys: readonly string[], options: CallOptions = {}): Promise<void> {
    return this.#ask('delete', keys, options, () => this.#vault.objects.delete(keys));
  }

  async close(): Promise<void> {}

  #ask<T>(kind: string, keys: readonly string[], options: CallOptions, work: () => T): Promise<T> {
    const { name } = this;
    const what = `${name} ${kind} ${keys.slice(0, 3).join(' ')}${keys.length > 3 ? ` and ${keys.length - 3} more` : ''}`;
    this.#watch.sent(this.#actor, name, kind, keys);
    const serve = () => {
      if (this.#vault.away) throw new DrError('unreachable', `vault ${name} does not answer`);
      this.#watch.served(this.#actor, this.#vault, kind, keys);
      return work();
    };
    return this.#scheduler.request(this.#actor, what, serve, options.signal);
  }
}
