import { Semaphore } from '../base/concurrency.ts';
import { DrError } from '../base/errors.ts';
import { FRAME_RAW_BYTES } from '../vault/seal.ts';
import type { SealPool } from '../vault/seal-pool.ts';
import { sliceExtents } from './extents.ts';
import { encodeEntry, type IndexEntry, treeChecksum } from './index-format.ts';
import { IndexWriter } from './index-writer.ts';
import type { Manifest, Part } from './manifest.ts';
import { type EntryHead, type Frame, newFrame, PackedFile } from './packed-file.ts';
import { PartTable } from './part-table.ts';
import { type PartOptions, PartWriter } from './part-writer.ts';
import { placeRuns } from './place-runs.ts';
import type { EntrySink, PreviousBackup, PreviousEntry, StatFacts } from './previous/previous-backup.ts';

export type { EntryHead } from './packed-file.ts';

/** Files up to this size share frames; a larger one has frames of its own, at multiples of the frame size. */
export const SHARED_FRAME_FILE_BYTES = FRAME_RAW_BYTES / 4;

export interface PackOptions extends Omit<PartOptions, 'parts'> {
  readonly pool: SealPool;
  readonly compressionLevel: number;
  /** Files larger than SHARED_FRAME_FILE_BYTES are compared by blocks of this many bytes, a divisor of FRAME_RAW_BYTES. */
  readonly blockBytes: number;
  /** What entries given to `begin`, `reuse` and `overlay` come from. */
  readonly previous?: PreviousBackup | undefined;
  /** Entries that do not count for the content digest. */
  readonly besideContent?: ((path: Buffer) => boolean) | undefined;
  /** Keeps what the next backup will compare with. */
  readonly sink?: EntrySink | undefined;
}

export interface PackResult {
  /** Everything that the index names: own parts and those of earlier backups. */
  readonly parts: Part[];
  /** Those that this backup has stored. */
  readonly ownParts: Part[];
  /** Raw bytes of each of `parts`, and how many of them the index names. */
  readonly partBytes: ReadonlyArray<{ readonly raw: number; readonly live: number }>;
  readonly index: Manifest['index'];
  readonly entries: number;
  readonly logicalBytes: number;
  /** Of these, what earlier backups had stored. */
  readonly reusedBytes: number;
  readonly storedBytes: number;
  readonly contentDigest: string;
}

/**
 * Turns a sequence of files into parts and an index, with bounded memory: raw bytes fill frames, a pool hashes, compares and seals them
 * on all cores, sealed frames fill parts, and parts go to all vaults while the next one fills. What equals the previous backup
 * is not stored: the index then names the parts of that one.
 */
export class PackWriter {
  readonly #options: PackOptions;
  readonly #frames: Semaphore;
  readonly #running = new Set<Promise<void>>();
  readonly #spareFrames: ArrayBuffer[] = [];
  readonly #table: PartTable;
  readonly #parts: PartWriter;
  readonly #index: IndexWriter;
  #shared: Frame | undefined;
  #file: PackedFile | undefined;
  #counter = 0;
  #entries = 0;
  #logicalBytes = 0;
  #reusedBytes = 0;
  #failure: unknown;

  constructor(options: PackOptions) {
    this.#options = options;
    this.#frames = new Semaphore(options.pool.depth);
    const { previous } = options;
    const raw = previous?.partBytes.map((part) => part.raw) ?? [];
    this.#table = new PartTable(previous && { parts: previous.manifest.parts, raw });
    this.#parts = new PartWriter({ ...options, parts: this.#table });
    this.#index = new IndexWriter(options, () => this.#counter++);
  }

  get logicalBytes(): number {
    return this.#logicalBytes;
  }

  /** Adds a directory or link. */
  async add(head: EntryHead): Promise<void> {
    await this.#finishEntry({ ...head, size: 0, extents: [] });
  }

  /** Opens a file of about `expectedBytes`; its content follows with `write`. What equals `previous` is not stored again. */
  async begin(head: EntryHead, expectedBytes: number, previous?: PreviousEntry): Promise<void> {
    const ownFrames = expectedBytes > SHARED_FRAME_FILE_BYTES;
    const blockBytes = ownFrames ? this.#options.blockBytes : undefined;
    // A small file stays whole in one frame: it is then restored, compared and addressed as one run.
    if (!ownFrames) await this.#makeRoom(expectedBytes);
    const comparable = previous?.entry.blockBytes === blockBytes ? previous : undefined;
    const keepDigests = this.#options.sink !== undefined;
    this.#open(new PackedFile({ head, blockBytes, previous: comparable, expectedBytes, keepDigests }, ownFrames));
  }

  /**
   * Opens a file of `size` bytes of which only the `blocks` (numbers of blocks of `previous.entry.blockBytes`, ascending) have changed: their
   * content follows with `write`, in this order. All others are those of `previous`, which must be whole; beyond its end they are zeros.
   */
  async overlay(head: EntryHead, previous: PreviousEntry, size: number, blocks: readonly number[]): Promise<void> {
    const { blockBytes } = previous.entry;
    if (blockBytes === undefined || !previous.isWhole) {
      throw new DrError('internal', 'a file is laid over one that cannot be used by blocks');
    }
    const changedBytes = blocks.length * blockBytes;
    const ownFrames = changedBytes > SHARED_FRAME_FILE_BYTES;
    if (!ownFrames) await this.#makeRoom(changedBytes);
    const keepDigests = this.#options.sink !== undefined;
    const file = new PackedFile(
      { head, blockBytes, previous, overlay: { size, blocks }, expectedBytes: size, keepDigests },
      ownFrames,
    );
    this.#open(file);
    this.#logicalBytes += size;
  }

  /** Adds a file whose content is known to be that of `previous`, which must be whole, without reading it. */
  async reuse(head: EntryHead, previous: PreviousEntry, stat?: StatFacts): Promise<void> {
    this.#throwIfFailed();
    const { size, checksum, blockBytes, extents } = previous.entry;
    if (checksum === undefined || !previous.isWhole) {
      throw new DrError('internal', 'content that must be stored again was to be used again');
    }
    const block = blockBytes === undefined ? {} : { blockBytes };
    const entry: IndexEntry = {
      ...head,
      ...block,
      size,
      checksum,
      extents: sliceExtents(extents, 0, size, this.#partOf),
    };
    this.#logicalBytes += size;
    const digests =
      blockBytes !== undefined && this.#options.sink
        ? previous.blockDigests(0, Math.ceil(size / blockBytes))
        : undefined;
    await this.#finishEntry(entry, digests, stat);
  }

  /** Appends content (copied before the call returns its promise). Resolves when there is room for more. */
  async write(chunk: Uint8Array): Promise<void> {
    this.#throwIfFailed();
    for (let at = 0; at < chunk.length; ) {
      const file = this.#openFile();
      const frame = await this.#frameOf(file);
      const length = Math.min(file.room(chunk.length - at), FRAME_RAW_BYTES - frame.used);
      frame.content.set(chunk.subarray(at, at + length), frame.used);
      const before = file.size;
      file.take(frame, length);
      this.#logicalBytes += file.size - before;
      at += length;
    }
  }

  /** Leaves a hole of `length` bytes at the current position of the open file. */
  async hole(length: number): Promise<void> {
    const file = this.#openFile();
    // A file compared by blocks has holes of whole blocks: what is beside them is stored as zeros.
    const block = file.blockBytes ?? 1;
    const before = Math.min(length, (block - (file.position % block)) % block);
    const after = (length - before) % block;
    if (before > 0) await this.write(new Uint8Array(before));
    file.skip(length - before - after);
    this.#logicalBytes += length - before - after;
    if (after > 0) await this.write(new Uint8Array(after));
  }

  /** Ends the open file; its real size is what was written. Returns that size. `stat`: what proves next time that it is unchanged. */
  async end(stat?: StatFacts): Promise<number> {
    const file = this.#openFile();
    file.requireComplete();
    this.#file = undefined;
    file.ended = true;
    file.stat = stat;
    const tail = file.own;
    file.own = undefined;
    if (tail && tail.used > 0) await this.#seal(tail);
    else if (tail) this.#spareFrames.push(tail.buffer);
    await this.#settle(file);
    return file.size;
  }

  /** Seals and stores what is left, then the index. After this the backup lacks only its manifest. */
  async finish(): Promise<PackResult> {
    if (this.#file) throw new DrError('internal', 'the backup was finished with a file open');
    if (this.#shared && this.#shared.used > 0) await this.#seal(this.#shared);
    this.#shared = undefined;
    await this.#drain();
    await this.#parts.close();
    await this.#drain();
    const index = await this.#index.store();
    const { parts, own, usage } = this.#table;
    return {
      parts,
      ownParts: own,
      partBytes: usage,
      index,
      entries: this.#entries,
      logicalBytes: this.#logicalBytes,
      reusedBytes: this.#reusedBytes,
      storedBytes: own.reduce((sum, part) => sum + part.size, index.size),
      contentDigest: this.#index.contentDigest,
    };
  }

  /** Waits until nothing runs any more, after a failure. */
  async abandon(): Promise<void> {
    await Promise.allSettled(this.#running);
  }

  #open(file: PackedFile): void {
    if (this.#file) throw new DrError('internal', 'a file was begun before the one before it was ended');
    this.#file = file;
  }

  #openFile(): PackedFile {
    if (!this.#file) throw new DrError('internal', 'content was written with no file open');
    return this.#file;
  }

  /** Sends the shared frame off when `bytes` do not fit any more. */
  async #makeRoom(bytes: number): Promise<void> {
    const full = this.#shared;
    if (!full || full.used + bytes <= FRAME_RAW_BYTES) return;
    this.#shared = undefined;
    await this.#seal(full);
  }

  /** The frame that the next byte of the file goes to. A full one is sealed only now: whether its file has ended is known now. */
  async #frameOf(file: PackedFile): Promise<Frame> {
    if (!file.ownFrames && this.#shared?.used === FRAME_RAW_BYTES) {
      const full = this.#shared;
      this.#shared = undefined;
      // What follows in a file that has filled a frame deserves its own.
      file.ownFrames = full.runs.at(-1)?.file === file;
      await this.#seal(full);
    }
    if (!file.ownFrames) {
      this.#shared ??= this.#newFrame();
      return this.#shared;
    }
    if (file.own && file.leaves(file.own)) {
      const full = file.own;
      file.own = undefined;
      await this.#seal(full);
    }
    file.own ??= this.#newFrame();
    return file.own;
  }

  #newFrame(): Frame {
    return newFrame(this.#spareFrames.pop());
  }

  /** Hands a frame to the pool; waits only when as many frames are under way as the pool can use. */
  async #seal(frame: Frame): Promise<void> {
    await this.#frames.acquire();
    this.#throwIfFailed();
    this.#track(this.#sealNow(frame).finally(() => this.#frames.release()));
  }

  async #sealNow(frame: Frame): Promise<void> {
    const { pool, key, backupId, compressionLevel } = this.#options;
    const counter = this.#counter++;
    const sealed = await pool.sealInPlace({
      kind: 'seal-in-place',
      buffer: frame.buffer,
      length: frame.used,
      runs: frame.runs.map((run) => ({
        offset: run.rawOffset,
        length: run.length,
        blockBytes: run.file.blockBytes,
        ...run.file.comparedWith(run),
      })),
      counter,
      context: backupId,
      secret: key?.secret,
      level: compressionLevel,
    });
    const placed =
      sealed.frameBytes === 0
        ? undefined
        : await this.#parts.append(new Uint8Array(sealed.buffer, 0, sealed.frameBytes), sealed.length);
    this.#spareFrames.push(sealed.buffer);
    const at = placed && {
      part: placed.part,
      frameOffset: placed.offset,
      frameLength: sealed.frameBytes,
      counter,
    };
    placeRuns(frame.runs, sealed, at, this.#partOf);
    for (const { file } of frame.runs) await this.#settle(file);
    await placed?.stored;
  }

  /** What this backup calls a part of the previous one, which it names from now on. */
  readonly #partOf = (part: number): number => this.#table.earlier(part);

  /** One outstanding piece of a file is done; the last one completes its entry. */
  async #settle(file: PackedFile): Promise<void> {
    if (--file.outstanding > 0) return;
    const { extents, digests } = file.finish(this.#partOf);
    const { head, blockBytes, size } = file;
    const block = blockBytes === undefined ? {} : { blockBytes };
    const entry = { ...head, ...block, size, extents, checksum: treeChecksum(extents, size) };
    await this.#finishEntry(entry, digests, file.stat);
  }

  async #finishEntry(entry: IndexEntry, digests?: Buffer, stat?: StatFacts): Promise<void> {
    this.#entries++;
    for (const { part, length } of entry.extents) {
      this.#table.addLive(part, length);
      if (!this.#table.isOwn(part)) this.#reusedBytes += length;
    }
    const line = encodeEntry(entry);
    await this.#index.add(entry, line);
    if (entry.type === 'file') await this.#options.sink?.add(entry, line, digests, stat);
  }

  #track(work: Promise<void>): void {
    const guarded: Promise<void> = work
      .catch((error: unknown) => {
        this.#failure ??= error;
      })
      .finally(() => this.#running.delete(guarded));
    this.#running.add(guarded);
  }

  async #drain(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
    this.#throwIfFailed();
  }

  #throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure;
    this.#options.signal?.throwIfAborted();
  }
}
