import { DrError } from '../base/errors.ts';
import { compareKeys, requireFolder, requireKeyPrefix, requireObjectKey } from './object-key.ts';
import { readEachAlone } from './read-each.ts';
import type {
  Body,
  ByteRange,
  CallOptions,
  CreateOptions,
  ListOptions,
  ObjectInfo,
  ObjectStore,
  ReadOutcome,
} from './store.ts';
import { bodyBytes } from './store.ts';
import { UsageMeter } from './usage.ts';

/** A vault in the memory of this process: for tests and rehearsals; gone with the process. */
export class MemoryStore implements ObjectStore {
  readonly name: string;
  readonly region: string;
  readonly location: string;
  readonly stats = new UsageMeter();
  readonly #objects = new Map<string, { readonly bytes: Buffer; readonly modifiedMs: number }>();
  readonly #now: () => number;

  constructor(options: {
    readonly name: string;
    readonly region?: string;
    readonly location?: string;
    now?: () => number;
  }) {
    this.name = options.name;
    this.region = options.region ?? 'memory';
    this.location = options.location ?? `memory://${options.name}`;
    this.#now = options.now ?? Date.now;
  }

  async prepare(): Promise<void> {}

  async create(key: string, body: Body, options: CreateOptions = {}): Promise<'created' | 'exists'> {
    this.#begin('create', options, key);
    if (this.#objects.has(key)) return 'exists';
    this.#put(key, body);
    return 'created';
  }

  async overwrite(key: string, body: Body, options: CreateOptions = {}): Promise<void> {
    this.#begin('overwrite', options, key);
    this.#put(key, body);
  }

  async read(key: string, range?: ByteRange, options: CallOptions = {}): Promise<Buffer> {
    this.#begin('read', options, key);
    const object = this.#objects.get(key);
    const where = `${this.location}/${key}`;
    if (!object) throw new DrError('not-found', `vault ${this.name} has no object ${key}`, { where });
    const end = range ? range.offset + range.length : object.bytes.length;
    if (end > object.bytes.length) {
      throw new DrError('corrupt', `${key} has ${object.bytes.length} bytes, ${end} are needed`, { where });
    }
    this.stats.received(end - (range?.offset ?? 0));
    return Buffer.from(object.bytes.subarray(range?.offset ?? 0, end));
  }

  readEach(keys: Iterable<string>, options: CallOptions = {}): AsyncGenerator<ReadOutcome> {
    return readEachAlone(this, keys, options);
  }

  async stat(key: string, options: CallOptions = {}): Promise<ObjectInfo | undefined> {
    this.#begin('stat', options, key);
    return this.#info(key);
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo, void, undefined> {
    const { startAfter = '', before } = options;
    requireKeyPrefix(prefix, this.location);
    this.#begin('list', options);
    for (const key of [...this.#objects.keys()].sort(compareKeys)) {
      if (!key.startsWith(prefix) || key <= startAfter) continue;
      if (before !== undefined && key >= before) return;
      const info = this.#info(key);
      if (info) yield info;
    }
  }

  async *names(prefix: string, options: ListOptions = {}): AsyncGenerator<string, void, undefined> {
    for await (const { key } of this.list(prefix, options)) yield key;
  }

  async folders(prefix: string, options: CallOptions = {}): Promise<string[]> {
    requireFolder(prefix, this.location);
    this.#begin('list', options);
    const found = new Set<string>();
    for (const key of this.#objects.keys()) {
      const slash = key.startsWith(prefix) ? key.indexOf('/', prefix.length) : -1;
      if (slash !== -1) found.add(key.slice(prefix.length, slash));
    }
    // In the order that S3 has, which sorts the name with its slash.
    return [...found].sort((a, b) => compareKeys(`${a}/`, `${b}/`));
  }

  async delete(keys: readonly string[], options: CallOptions = {}): Promise<void> {
    for (const key of keys) requireObjectKey(key, this.location);
    this.#begin('delete', options);
    for (const key of keys) this.#objects.delete(key);
  }

  async close(): Promise<void> {}

  #begin(kind: keyof typeof this.stats.requests, options: CallOptions, key?: string): void {
    if (key !== undefined) requireObjectKey(key, this.location);
    if (options.signal?.aborted) {
      throw new DrError('interrupted', `stopped before ${kind} in vault ${this.name}`, {
        cause: options.signal.reason,
      });
    }
    this.stats.asked(kind);
  }

  #put(key: string, body: Body): void {
    const bytes = Buffer.from(bodyBytes(body));
    this.stats.sent(bytes.length);
    this.#objects.set(key, { bytes, modifiedMs: this.#now() });
  }

  #info(key: string): ObjectInfo | undefined {
    const object = this.#objects.get(key);
    return object && { key, size: object.bytes.length, modifiedMs: object.modifiedMs };
  }
}
