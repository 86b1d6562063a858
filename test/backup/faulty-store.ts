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
  RequestKind,
} from '../../src/vault/store.ts';

/** A store that fails, lies or is watched as a test wants; otherwise the store behind it. */
export class FaultyStore implements ObjectStore {
  /** Called before every request; what it returns is thrown. */
  fail: (kind: RequestKind, key: string) => unknown = () => undefined;
  /** Called before every request, awaited: the place to do something in between. */
  before: (kind: RequestKind, key: string) => Promise<void> | void = () => {};
  /** Keys for which this is false are left out of listings, without a word. */
  listed: (key: string) => boolean = () => true;
  /** Keys for which this is true cannot be read or asked for yet, although listings may show them. */
  hidden: (key: string) => boolean = () => false;
  /** What was deleted, in order. */
  readonly deleted: string[] = [];
  readonly created: string[] = [];
  readonly #inner: ObjectStore;

  constructor(inner: ObjectStore) {
    this.#inner = inner;
  }

  /** The store itself, which neither fails nor lies. */
  get behind(): ObjectStore {
    return this.#inner;
  }
  get name() {
    return this.#inner.name;
  }
  get region() {
    return this.#inner.region;
  }
  get location() {
    return this.#inner.location;
  }
  get stats() {
    return this.#inner.stats;
  }

  async prepare(): Promise<void> {}

  async create(key: string, body: Body, options?: CreateOptions): Promise<'created' | 'exists'> {
    await this.#gate('create', key);
    const outcome = await this.#inner.create(key, body, options);
    if (outcome === 'created') this.created.push(key);
    return outcome;
  }

  async overwrite(key: string, body: Body, options?: CreateOptions): Promise<void> {
    await this.#gate('overwrite', key);
    await this.#inner.overwrite(key, body, options);
  }

  async read(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer> {
    await this.#gate('read', key);
    if (this.hidden(key)) throw new DrError('not-found', `vault ${this.name} has no object ${key}`);
    return await this.#inner.read(key, range, options);
  }

  readEach(keys: Iterable<string>, options?: CallOptions): AsyncGenerator<ReadOutcome> {
    return readEachAlone(this, keys, options);
  }

  async stat(key: string, options?: CallOptions): Promise<ObjectInfo | undefined> {
    await this.#gate('stat', key);
    if (this.hidden(key)) return undefined;
    return await this.#inner.stat(key, options);
  }

  async *names(prefix: string, options?: ListOptions): AsyncGenerator<string, void, undefined> {
    for await (const { key } of this.list(prefix, options)) yield key;
  }

  async *list(prefix: string, options?: ListOptions): AsyncGenerator<ObjectInfo, void, undefined> {
    await this.#gate('list', prefix);
    for await (const info of this.#inner.list(prefix, options)) {
      if (!this.listed(info.key)) continue;
      await this.#gate('list', info.key);
      yield info;
    }
  }

  async folders(prefix: string, options?: FolderOptions): Promise<string[]> {
    await this.#gate('list', prefix);
    return await this.#inner.folders(prefix, options);
  }

  async delete(keys: readonly string[], options?: CallOptions): Promise<void> {
    for (const key of keys) await this.#gate('delete', key);
    await this.#inner.delete(keys, options);
    this.deleted.push(...keys);
  }

  async close(): Promise<void> {}

  async #gate(kind: RequestKind, key: string): Promise<void> {
    await this.before(kind, key);
    const failure = this.fail(kind, key);
    if (failure !== undefined) throw failure;
  }
}
