import { mkdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { WalArchiver, type WalArchiverOptions } from '../../../src/backup/wal/archiver.ts';
import { fetchWalFile } from '../../../src/backup/wal/reader.ts';
import type { WalArchiverStatus } from '../../../src/backup/wal/status.ts';
import { DrError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import { parseLsn, segmentName } from '../../../src/postgres/lsn.ts';
import { KeyRing } from '../../../src/vault/keys.ts';
import { MemoryStore } from '../../../src/vault/memory-store.ts';
import { readEachAlone } from '../../../src/vault/read-each.ts';
import { SealPool } from '../../../src/vault/seal-pool.ts';
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
} from '../../../src/vault/store.ts';
import type { TestPostgres } from '../../harness/postgres.ts';

/** A vault that can be taken away, stalled or watched. */
export class TroubledStore implements ObjectStore {
  readonly inner: ObjectStore;
  /** Every call fails as if the network were gone. */
  away = false;
  /** Creations wait until it resolves. */
  stall: Promise<void> | undefined;
  /** How long each creation takes, at least. */
  slowMs = 0;
  onCreate: ((key: string) => void) | undefined;

  constructor(inner: ObjectStore) {
    this.inner = inner;
  }

  get name(): string {
    return this.inner.name;
  }
  get region(): string {
    return this.inner.region;
  }
  get location(): string {
    return this.inner.location;
  }
  get stats(): ObjectStore['stats'] {
    return this.inner.stats;
  }
  prepare(): Promise<void> {
    return this.inner.prepare();
  }
  async create(key: string, body: Body, options?: CreateOptions): Promise<'created' | 'exists'> {
    this.#check();
    await this.stall;
    if (this.slowMs > 0) await new Promise((resolve) => setTimeout(resolve, this.slowMs));
    this.#check();
    const answer = await this.inner.create(key, body, options);
    this.onCreate?.(key);
    return answer;
  }
  async overwrite(key: string, body: Body, options?: CreateOptions): Promise<void> {
    this.#check();
    await this.inner.overwrite(key, body, options);
  }
  async read(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer> {
    this.#check();
    return await this.inner.read(key, range, options);
  }
  readEach(keys: Iterable<string>, options?: CallOptions): AsyncGenerator<ReadOutcome> {
    return readEachAlone(this, keys, options);
  }
  async stat(key: string, options?: CallOptions): Promise<ObjectInfo | undefined> {
    this.#check();
    return await this.inner.stat(key, options);
  }
  async *list(prefix: string, options?: ListOptions): AsyncIterable<ObjectInfo> {
    this.#check();
    yield* this.inner.list(prefix, options);
  }
  async *names(prefix: string, options?: ListOptions): AsyncIterable<string> {
    this.#check();
    yield* this.inner.names(prefix, options);
  }
  async folders(prefix: string, options?: FolderOptions): Promise<string[]> {
    this.#check();
    return await this.inner.folders(prefix, options);
  }
  async delete(keys: readonly string[], options?: CallOptions): Promise<void> {
    this.#check();
    await this.inner.delete(keys, options);
  }
  close(): Promise<void> {
    return this.inner.close();
  }

  #check(): void {
    if (this.away) throw new DrError('unreachable', `vault ${this.name} does not answer`, { where: this.location });
  }
}

export interface WalWorld {
  readonly east: TroubledStore;
  readonly west: TroubledStore;
  readonly stores: readonly TroubledStore[];
  readonly keyRing: KeyRing;
  readonly recipient: string;
  readonly pool: SealPool;
  /** A new archiver over the two vaults, as a new process would have it. */
  archiver(url: string, options?: Partial<WalArchiverOptions>): WalArchiver;
  close(): Promise<void>;
}

export async function walWorld(): Promise<WalWorld> {
  const identity = await generateIdentity();
  const recipient = await identityToRecipient(identity);
  const pool = new SealPool(2);
  const [east, west] = ['east', 'west'].map((name) => new TroubledStore(new MemoryStore({ name }))) as [
    TroubledStore,
    TroubledStore,
  ];
  const stores = [east, west];
  const running: WalArchiver[] = [];
  return {
    east,
    west,
    stores,
    keyRing: new KeyRing([identity]),
    recipient,
    pool,
    archiver: (url, options = {}) => {
      const archiver = new WalArchiver({
        resource: 'orders',
        url,
        slot: 'dr',
        flushEveryMs: 50,
        durable: 'all',
        stores,
        keyPolicy: { recipients: [recipient] },
        pool,
        compressionLevel: 1,
        site: 'east',
        log: silentLog,
        retryBaseMs: 20,
        retryMaxMs: 200,
        repairEveryMs: 50,
        ...options,
      });
      running.push(archiver);
      return archiver;
    },
    close: async () => {
      await Promise.all(running.map((archiver) => archiver.stop({ drain: false })));
      await pool.close();
    },
  };
}

/** Resolves when the status is as wanted; asks again every few milliseconds because nothing announces it. */
export async function until(
  archiver: WalArchiver,
  wanted: (status: WalArchiverStatus) => boolean,
  limitMs = 30_000,
): Promise<WalArchiverStatus> {
  const end = Date.now() + limitMs;
  for (;;) {
    const status = archiver.status();
    if (wanted(status)) return status;
    if (Date.now() > end) throw new Error(`not reached: ${JSON.stringify(status, undefined, 1)}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Where the server's WAL ends, as flushed. */
export async function walEnd(server: TestPostgres): Promise<bigint> {
  const [row] = await server.sql<{ lsn: string }>('select pg_current_wal_flush_lsn()::text as lsn');
  return parseLsn(row?.lsn ?? '') ?? 0n;
}

/** Waits until every vault (or the named ones) has everything before `lsn`. */
export async function durableAt(archiver: WalArchiver, lsn: bigint, vaults?: readonly string[]): Promise<void> {
  await until(archiver, (status) =>
    status.vaults
      .filter(({ name }) => vaults === undefined || vaults.includes(name))
      .every(({ durableLsn }) => (parseLsn(durableLsn ?? '') ?? 0n) >= lsn),
  );
}

/**
 * Compares what a vault gives back with the server's own pg_wal, from the segment of `from` to `to`. Returns the number of segments;
 * throws at the first difference or hole.
 */
export async function compareWithServer(
  store: ObjectStore,
  keyRing: KeyRing,
  server: TestPostgres,
  from: bigint,
  to: bigint,
  options: { segmentBytes?: number; timeline?: number; systemId?: string } = {},
): Promise<number> {
  const segmentBytes = BigInt(options.segmentBytes ?? 16 * 1024 * 1024);
  const systemId = options.systemId ?? (await systemIdOf(server));
  const timeline = options.timeline ?? 1;
  let compared = 0;
  for (let start = from - (from % segmentBytes); start < to; start += segmentBytes) {
    const name = segmentName(timeline, start, Number(segmentBytes));
    const archived = await fetchWalFile(store, keyRing, systemId, name);
    if (!archived) throw new Error(`vault ${store.name} lacks ${name}`);
    const original = await readFile(join(server.dataDirectory, 'pg_wal', name));
    const length = Number(to - start < segmentBytes ? to - start : segmentBytes);
    if (archived.length !== Number(segmentBytes)) throw new Error(`${name} has ${archived.length} bytes`);
    if (!archived.subarray(0, length).equals(original.subarray(0, length))) {
      const first = archived.findIndex((byte, i) => i < length && byte !== original[i]);
      throw new Error(`${name} in vault ${store.name} differs from byte ${first} on (of ${length})`);
    }
    compared++;
  }
  return compared;
}

export async function systemIdOf(server: TestPostgres): Promise<string> {
  const [row] = await server.sql<{ id: string }>('select system_identifier::text as id from pg_control_system()');
  return row?.id ?? '';
}

/** Keys of a vault below a prefix. */
export async function keysOf(store: ObjectStore, prefix = ''): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix)) keys.push(key);
  return keys;
}

export function emptyDirectory(path: string): string {
  mkdirSync(path, { recursive: true });
  return path;
}
