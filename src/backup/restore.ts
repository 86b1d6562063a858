import { type FileHandle, open } from 'node:fs/promises';
import { forEachLimit, Semaphore } from '../base/concurrency.ts';
import { DrError, fileError } from '../base/errors.ts';
import type { OnProgress } from '../base/progress.ts';
import type { KeyRing } from '../vault/keys.ts';
import type { RunTarget, SliceTarget } from '../vault/seal-jobs.ts';
import type { SealPool } from '../vault/seal-pool.ts';
import type { ObjectStore } from '../vault/store.ts';
import { extentsProblem } from './extents.ts';
import { type Extent, type IndexEntry, treeChecksum } from './index-format.ts';
import { readIndex } from './index-reader.ts';
import { isFromCluster, type Manifest } from './manifest.ts';
import { type FilePlan, type FramePlan, ReadPlan, type RunPlan } from './restore-plan.ts';
import { RestoreTarget } from './restore-target.ts';
import { readReferenced } from './stored-object.ts';

/** Data keys read and unwrapped at once: a backup may name those of a hundred earlier ones. */
const KEYS_IN_FLIGHT = 16;
/** Slices planned before they are worked off: bounds memory whatever the size of the backup. Two such batches are in memory. */
const BATCH_SLICES = 10_000;
/** What an entry takes of that besides its slices. */
const ENTRY_SLICES = 4;

/**
 * A large file is flushed to disk every so many bytes while the rest is still being read: the kernel by itself would keep gigabytes
 * for the end, when nothing else is left to do.
 */
const FLUSH_BYTES = 64 * 1024 * 1024;

export interface RestoreOptions {
  readonly store: ObjectStore;
  readonly manifest: Manifest;
  readonly keyRing: KeyRing;
  readonly pool: SealPool;
  /** New or empty directory. */
  readonly target: string;
  /** Restore user and group ids; default: when running as root. */
  readonly owners?: boolean;
  /** Another absolute place for an entry (tablespaces). */
  readonly relocate?: (entryPath: string) => string | undefined;
  readonly onProgress?: OnProgress | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface RestoreResult {
  readonly entries: number;
  readonly bytes: number;
  /** What of the backup could not be set there (extended attributes, owners), one line for each kind: for people. */
  readonly warnings: readonly string[];
}

/**
 * Restores one backup from one vault into an empty directory: frames are read, authenticated, decompressed, checked and written in
 * parallel, each slice to its place. Either everything is there and verified, or this throws and the directory keeps its marker
 * of an incomplete restore.
 */
export async function restoreBackup(options: RestoreOptions): Promise<RestoreResult> {
  const { store, manifest, keyRing, target } = options;
  const directory = new RestoreTarget(target, {
    owners: options.owners ?? (isFromCluster(manifest) ? false : undefined),
    ...(options.relocate ? { relocate: options.relocate } : {}),
  });
  // Keys and index first: a wrong identity or a missing index must not leave anything behind.
  await openKeys(store, manifest, keyRing);
  await directory.prepare(`backup ${manifest.id} of ${manifest.resource}`);
  const restore = new Restore(options, directory);
  try {
    await restore.all(readIndex(store, manifest, keyRing, options.signal));
    await directory.complete();
  } catch (error) {
    await restore.abandon();
    await directory.close();
    throw fileError(error, target, 'restore');
  }
  return { entries: manifest.entries, bytes: restore.bytes, warnings: directory.warnings };
}

/** Reads the whole of a backup and checks every digest without writing anything. */
export async function readBackup(
  options: Omit<RestoreOptions, 'target' | 'owners' | 'relocate'>,
): Promise<RestoreResult> {
  const restore = new Restore(options, undefined);
  await restore.all(readIndex(options.store, options.manifest, options.keyRing, options.signal));
  return { entries: options.manifest.entries, bytes: restore.bytes, warnings: [] };
}

async function openKeys(store: ObjectStore, manifest: Manifest, keyRing: KeyRing): Promise<void> {
  const ids = new Set([manifest.index, ...manifest.parts].flatMap(({ keyId }) => (keyId === undefined ? [] : [keyId])));
  await forEachLimit(ids, KEYS_IN_FLIGHT, async (id) => {
    await keyRing.open(store, id);
  });
}

class Restore {
  readonly #options: Omit<RestoreOptions, 'target' | 'owners' | 'relocate'>;
  readonly #target: RestoreTarget | undefined;
  readonly #plan = new ReadPlan();
  readonly #open = new Set<FilePlan>();
  readonly #reads: Semaphore;
  readonly #running = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | undefined;
  #flushing = false;
  bytes = 0;

  constructor(options: Omit<RestoreOptions, 'target' | 'owners' | 'relocate'>, target: RestoreTarget | undefined) {
    this.#options = options;
    this.#target = target;
    this.#reads = new Semaphore(Math.max(6, options.pool.depth + 2));
  }

  /** Restores the entries in batches: the next one is planned while the one before is worked off. */
  async all(entries: AsyncIterable<IndexEntry>): Promise<void> {
    let starting: Promise<void> = Promise.resolve();
    try {
      let batch = 0;
      for await (const entry of entries) {
        batch += await this.#take(entry);
        if (batch < BATCH_SLICES) continue;
        await starting;
        starting = this.#start();
        // It is awaited later, when an error in the index may have come before.
        starting.catch(() => {});
        batch = 0;
      }
      await starting;
      await this.#start();
    } finally {
      await starting.catch(() => {});
      // Nothing is closed under a thread that writes.
      await Promise.all(this.#running);
    }
    this.#throwIfFailed();
  }

  /** Plans one entry; returns how many slices it counts for. */
  async #take(entry: IndexEntry): Promise<number> {
    if (entry.type !== 'file') {
      await this.#target?.addOther(entry);
      return ENTRY_SLICES;
    }
    this.#checkShape(entry);
    const absolute = await this.#target?.place(entry);
    const file: FilePlan = {
      entry,
      absolute,
      outstanding: entry.extents.length,
      handle: undefined,
      opened: undefined,
      unflushed: 0,
      flush: undefined,
    };
    if (entry.extents.length === 0 && absolute) {
      await this.#handleOf(file, absolute);
      await this.#finish(file);
    }
    this.#plan.add(file);
    return entry.extents.length + ENTRY_SLICES;
  }

  /** Begins to read and write everything planned so far; resolves when the last read has begun. */
  async #start(): Promise<void> {
    for (const frames of this.#plan.take()) {
      await this.#reads.acquire();
      this.#throwIfFailed();
      const job: Promise<void> = this.#restoreFrames(frames)
        .catch((error: unknown) => {
          this.#failure ??= { error };
        })
        .finally(() => {
          this.#running.delete(job);
          this.#reads.release();
        });
      this.#running.add(job);
    }
  }

  #throwIfFailed(): void {
    if (this.#failure) throw this.#failure.error;
  }

  /** Closes what is open after a failure. */
  async abandon(): Promise<void> {
    for (const file of this.#open) {
      const handle = await file.handle?.catch(() => undefined);
      await handle?.close().catch(() => undefined);
    }
  }

  async #restoreFrames(planned: readonly FramePlan[]): Promise<void> {
    const { store, manifest, pool, signal, onProgress } = this.#options;
    const [first, last] = [planned[0], planned.at(-1)];
    if (!first || !last) return;
    signal?.throwIfAborted();
    const part = manifest.parts[first.extent.part];
    if (!part) throw this.#damaged(`the index names part ${first.extent.part}, which the manifest does not have`);
    const where = `${store.location}/${part.key}`;
    const secret = part.keyId === undefined ? undefined : (await this.#options.keyRing.open(store, part.keyId)).secret;
    const offset = first.extent.frameOffset;
    const length = last.extent.frameOffset + last.extent.frameLength - offset;
    const range = { offset, length };
    const bytes = await readReferenced(store, part.key, `a part of backup ${manifest.id}`, { range, signal });
    const frames = [];
    for (const { extent, runs } of planned) {
      frames.push({
        offset: extent.frameOffset - offset,
        length: extent.frameLength,
        counter: extent.counter,
        context: part.context,
        secret,
        where: `${where} (bytes ${extent.frameOffset}–${extent.frameOffset + extent.frameLength - 1})`,
        runs: await Promise.all(runs.map((run) => this.#runTarget(run))),
      });
    }
    const job = { kind: 'write' as const, bytes: bytes.buffer as ArrayBuffer, byteOffset: bytes.byteOffset, frames };
    const { bytes: written, unset } = await pool.write(job);
    // Not in one expression with the await: other runs add theirs meanwhile.
    this.bytes += written;
    for (const { name, attributes } of unset) this.#target?.unset.add(name, attributes);
    for (const { runs } of planned) {
      for (const { extent, file } of runs.flatMap(({ slices }) => slices)) {
        if (--file.outstanding === 0) await this.#finish(file);
        else this.#flushEarly(file, extent.length);
      }
    }
    onProgress?.({
      task: `restore ${manifest.resource}`,
      done: this.bytes,
      total: manifest.logicalBytes,
      unit: 'bytes',
      detail: `from ${store.name}`,
    });
  }

  async #runTarget({ extent, blockBytes, slices }: RunPlan): Promise<RunTarget> {
    return {
      rawOffset: extent.rawOffset,
      length: extent.runLength,
      digest: extent.digest,
      blockBytes,
      slices: await Promise.all(slices.map((slice) => this.#sliceTarget(slice.extent, slice.file))),
    };
  }

  async #sliceTarget(extent: Extent, file: FilePlan): Promise<SliceTarget> {
    const { entry, absolute } = file;
    const common = {
      skip: extent.skip,
      length: extent.length,
      name: absolute?.toString('utf8') ?? entry.path.toString('utf8'),
    };
    if (!absolute || !this.#target) return { ...common, to: { nowhere: true } };
    if (extent.length === entry.size) {
      return { ...common, to: { create: absolute, attributes: this.#target.attributesOf(entry) } };
    }
    const handle = await this.#handleOf(file, absolute);
    return { ...common, to: { fd: handle.fd, position: extent.position } };
  }

  async #handleOf(file: FilePlan, absolute: Buffer): Promise<FileHandle> {
    file.handle ??= open(absolute, 'wx', 0o600);
    this.#open.add(file);
    file.opened = await file.handle;
    return file.opened;
  }

  /** Begins a flush of a file where enough has come together; one at a time, so that reading goes on. */
  #flushEarly(file: FilePlan, bytes: number): void {
    file.unflushed += bytes;
    if (!file.opened || file.unflushed < FLUSH_BYTES || this.#flushing) return;
    this.#flushing = true;
    file.unflushed = 0;
    const flush = Promise.all([file.flush, file.opened.datasync()]).then(() => {});
    // The kernel reports a failed write once: it must reach `finish`.
    file.flush = flush;
    flush
      .catch(() => {})
      .finally(() => {
        this.#flushing = false;
      });
  }

  async #finish(file: FilePlan): Promise<void> {
    const { entry } = file;
    const handle = await file.handle;
    if (!handle) return;
    this.#open.delete(file);
    try {
      await file.flush;
      // Also makes holes at the end, and the size of a file that is nothing but one.
      await handle.truncate(entry.size);
      this.#target?.setAttributes(handle.fd, entry);
    } finally {
      await handle.close();
    }
  }

  /** Extents must lie in order inside the file and their runs, and add up to its recorded checksum. */
  #checkShape(entry: IndexEntry): void {
    const problem = extentsProblem(entry.extents, entry.size);
    if (problem !== undefined) throw this.#damaged(problem);
    if (!entry.checksum?.equals(treeChecksum(entry.extents, entry.size))) {
      throw this.#damaged(`the checksum of ${entry.path.toString('utf8')} does not fit its extents`);
    }
  }

  #damaged(reason: string): DrError {
    const { store, manifest } = this.#options;
    return new DrError('corrupt', `the index of backup ${manifest.id} is damaged: ${reason}`, {
      where: `${store.location}/${manifest.index.key}`,
      next: 'Restore from another vault (--vault NAME), then repair this one from it.',
    });
  }
}
