import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import type { RetentionPolicy } from '../../src/backup/retention/retention.ts';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import { FileStore } from '../../src/vault/file-store.ts';
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

const hour = 3_600_000;

/** Short, so that nearly everything goes. */
export const policies: ReadonlyMap<string, RetentionPolicy> = new Map([
  ['uploads', { kind: 'data', retentionMs: hour, keepAtLeast: 2 }],
  ['settings', { kind: 'configuration', retentionMs: hour, keepAtLeast: 1 }],
]);

/**
 * The years that pass while a test runs for seconds: from each of these real moments on (milliseconds since 1970), clocks and the
 * times of files are ahead by so much.
 */
type Shifts = ReadonlyArray<readonly [fromMs: number, aheadMs: number]>;

function shiftsOf(folder: string): Shifts {
  return JSON.parse(readFileSync(path.join(folder, 'shifts.json'), 'utf8')) as Shifts;
}

function shifted(shifts: Shifts, realMs: number): number {
  return realMs + (shifts.findLast(([fromMs]) => fromMs <= realMs)?.[1] ?? 0);
}

export function shiftedClock(folder: string): Clock {
  const shifts = shiftsOf(folder);
  return { now: () => shifted(shifts, Date.now()), sleep: systemClock.sleep };
}

export function openShifted(folder: string): { readonly east: ObjectStore; readonly west: ObjectStore } {
  const shifts = shiftsOf(folder);
  const open = (name: string) => {
    const store = new FileStore({ name, region: `region-${name}`, root: path.join(folder, name) });
    return new ShiftedStore(store, (realMs) => shifted(shifts, realMs));
  };
  return { east: open('east'), west: open('west') };
}

/** A vault whose clock is that of the test. */
class ShiftedStore implements ObjectStore {
  readonly #store: FileStore;
  readonly #time: (realMs: number) => number;

  constructor(store: FileStore, time: (realMs: number) => number) {
    this.#store = store;
    this.#time = time;
  }

  get name() {
    return this.#store.name;
  }
  get region() {
    return this.#store.region;
  }
  get location() {
    return this.#store.location;
  }
  get stats() {
    return this.#store.stats;
  }
  async prepare(): Promise<void> {
    await this.#store.prepare();
  }
  async create(key: string, body: Body, options?: CreateOptions): Promise<'created' | 'exists'> {
    return await this.#store.create(key, body, options);
  }
  async overwrite(key: string, body: Body, options?: CreateOptions): Promise<void> {
    await this.#store.overwrite(key, body, options);
  }
  async read(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer> {
    return await this.#store.read(key, range, options);
  }
  readEach(keys: Iterable<string>, options: CallOptions = {}): AsyncGenerator<ReadOutcome> {
    return readEachAlone(this, keys, options);
  }
  async stat(key: string, options?: CallOptions): Promise<ObjectInfo | undefined> {
    const info = await this.#store.stat(key, options);
    return info && { ...info, modifiedMs: this.#time(info.modifiedMs) };
  }
  async *list(prefix: string, options?: ListOptions): AsyncGenerator<ObjectInfo> {
    for await (const info of this.#store.list(prefix, options)) {
      yield { ...info, modifiedMs: this.#time(info.modifiedMs) };
    }
  }
  async *names(prefix: string, options?: ListOptions): AsyncGenerator<string> {
    yield* this.#store.names(prefix, options);
  }
  async folders(prefix: string, options?: FolderOptions): Promise<string[]> {
    return await this.#store.folders(prefix, options);
  }
  async delete(keys: readonly string[], options?: CallOptions): Promise<void> {
    await this.#store.delete(keys, options);
  }
  async close(): Promise<void> {
    await this.#store.close();
  }
}

/** Every file below a directory, in order, with the digest of its content. */
export function contentOf(root: string): ReadonlyArray<readonly [name: string, digest: string]> {
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((name) => statSync(path.join(root, name)).isFile())
    .sort()
    .map(
      (name) =>
        [
          name,
          createHash('sha256')
            .update(readFileSync(path.join(root, name)))
            .digest('hex'),
        ] as const,
    );
}
