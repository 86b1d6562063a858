import { DrError } from '../../src/base/errors.ts';
import type { ByteRange, ObjectInfo } from '../../src/vault/store.ts';

export interface StoredObject extends ObjectInfo {
  readonly bytes: Buffer;
}

/** What a vault holds. Everything happens at once: when, decides who calls. */
export class Objects {
  readonly name: string;
  readonly #objects = new Map<string, StoredObject>();
  readonly #now: () => number;
  #sorted: readonly string[] | undefined;

  constructor(name: string, now: () => number) {
    this.name = name;
    this.#now = now;
  }

  create(key: string, bytes: Buffer): 'created' | 'exists' {
    if (this.#objects.has(key)) return 'exists';
    this.overwrite(key, bytes);
    return 'created';
  }

  overwrite(key: string, bytes: Buffer): void {
    if (!this.#objects.has(key)) this.#sorted = undefined;
    this.#objects.set(key, { key, bytes, size: bytes.length, modifiedMs: this.#now() });
  }

  read(key: string, range?: ByteRange): Buffer {
    const object = this.#objects.get(key);
    if (!object) throw new DrError('not-found', `vault ${this.name} has no object ${key}`, { where: key });
    const bytes = range ? object.bytes.subarray(range.offset, range.offset + range.length) : object.bytes;
    if (range && bytes.length < range.length) throw new DrError('corrupt', `${key} is too short`, { where: key });
    return Buffer.from(bytes);
  }

  get(key: string): StoredObject | undefined {
    return this.#objects.get(key);
  }

  /** In the order of keys. */
  list(prefix: string, after = '', before?: string, limit = Number.POSITIVE_INFINITY): StoredObject[] {
    this.#sorted ??= [...this.#objects.keys()].sort();
    const found: StoredObject[] = [];
    for (const key of this.#sorted) {
      if (!key.startsWith(prefix) || key <= after) continue;
      if (found.length === limit || (before !== undefined && key >= before)) break;
      const object = this.#objects.get(key);
      if (object) found.push(object);
    }
    return found;
  }

  folders(prefix: string): string[] {
    const found = new Set<string>();
    for (const key of this.#objects.keys()) {
      const slash = key.startsWith(prefix) ? key.indexOf('/', prefix.length) : -1;
      if (slash !== -1) found.add(key.slice(prefix.length, slash));
    }
    return [...found].sort();
  }

  delete(keys: readonly string[]): void {
    for (const key of keys) this.#objects.delete(key);
    this.#sorted = undefined;
  }
}
