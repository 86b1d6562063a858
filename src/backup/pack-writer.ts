import { Semaphore } from '../base/concurrency.ts';
import { DrError } from '../base/errors.ts';
import { layout } from '../vault/layout.ts';
import { FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES, FRAME_RAW_BYTES, sha256 } from '../vault/seal.ts';
import type { SealPool } from '../vault/seal-pool.ts';
import { type Extent, type IndexEntry, treeChecksum } from './index-format.ts';
import { IndexWriter } from './index-writer.ts';
import type { Part } from './manifest.ts';
import { type PartOptions, PartWriter } from './part-writer.ts';

/** What is known of an entry before its content has been read. */
export type EntryHead = Omit<IndexEntry, 'extents' | 'checksum' | 'size'>;

/** Files up to this size share frames; a larger one has frames of its own, at multiples of the frame size. */
const SHARED_FRAME_FILE_BYTES = FRAME_RAW_BYTES / 4;

export interface PackOptions extends PartOptions {
  readonly pool: SealPool;
  readonly compressionLevel: number;
}

export interface PackResult {
  readonly parts: Part[];
  readonly index: { key: string; size: number; sha256: string; context: string; keyId?: string };
  readonly entries: number;
  readonly logicalBytes: number;
  readonly storedBytes: number;
  readonly contentDigest: string;
}

/** A file whose content is being written or whose frames are being sealed. */
interface OpenFile {
  readonly head: EntryHead;
  readonly extents: Extent[];
  size: number;
  /** Slices handed to a frame and not sealed yet, plus one while the file is open. */
  outstanding: number;
  /** Large files fill frames of their own. */
  own: Frame | undefined;
}

interface Frame {
  /** Goes to a sealing thread, and comes back for another frame. */
  readonly buffer: ArrayBuffer;
  /** Where the raw content goes. */
  readonly content: Uint8Array;
  used: number;
  readonly slices: Array<{ file: OpenFile; position: number; rawOffset: number; length: number }>;
}

/**
 * Turns a sequence of files into parts and an index, with bounded memory: raw bytes fill frames, a pool seals them on all cores,
 * sealed frames fill parts, and parts go to all vaults while the next one fills.
 */
export class PackWriter {
  readonly #options: PackOptions;
  readonly #frames: Semaphore;
  readonly #running = new Set<Promise<void>>();
  readonly #spareFrames: ArrayBuffer[] = [];
  readonly #parts: PartWriter;
  readonly #index: IndexWriter;
  #shared: Frame | undefined;
  #file: OpenFile | undefined;
  #counter = 0;
  #entries = 0;
  #logicalBytes = 0;
  #failure: unknown;

  constructor(options: PackOptions) {
    this.#options = options;
    this.#frames = new Semaphore(options.pool.depth);
    this.#parts = new PartWriter(options);
    this.#index = new IndexWriter((raw) => this.#sealAlone(raw));
  }

  get logicalBytes(): number {
    return this.#logicalBytes;
  }

  /** Adds a directory or link. */
  async add(head: EntryHead): Promise<void> {
    await this.#finishEntry({ ...head, size: 0, extents: [] });
  }

  /** Opens a file of about `expectedBytes`; its content follows with `write`. */
  async begin(head: EntryHead, expectedBytes: number): Promise<void> {
    if (this.#file) throw new DrError('internal', 'a file was begun before the one before it was ended');
    // A small file stays whole in one frame: it is then restored, compared and addressed as one run.
    if (
      expectedBytes <= SHARED_FRAME_FILE_BYTES &&
      this.#shared &&
      this.#shared.used + expectedBytes > FRAME_RAW_BYTES
    ) {
      const full = this.#shared;
      this.#shared = undefined;
      await this.#seal(full);
    }
    this.#file = { head, extents: [], size: 0, outstanding: 1, own: undefined };
    if (expectedBytes > SHARED_FRAME_FILE_BYTES) this.#file.own = this.#newFrame();
  }

  /** Appends content (copied before the call returns its promise). Resolves when there is room for more. */
  async write(chunk: Uint8Array): Promise<void> {
    this.#throwIfFailed();
    for (let at = 0; at < chunk.length; ) {
      const file = this.#openFile();
      let frame = file.own;
      if (!frame) {
        this.#shared ??= this.#newFrame();
        frame = this.#shared;
      }
      const length = Math.min(chunk.length - at, FRAME_RAW_BYTES - frame.used);
      frame.content.set(chunk.subarray(at, at + length), frame.used);
      this.#addSlice(frame, file, length);
      at += length;
      if (frame.used === FRAME_RAW_BYTES) {
        if (file.own) file.own = undefined;
        else this.#shared = undefined;
        await this.#seal(frame);
        // What follows in this file has filled a frame already, so it deserves its own.
        file.own = this.#newFrame();
      }
    }
  }

  /** Leaves a hole of `length` bytes at the current position of the open file. */
  hole(length: number): void {
    const file = this.#openFile();
    file.size += length;
    this.#logicalBytes += length;
  }

  /** Ends the open file; its real size is what was written. Returns that size. */
  async end(): Promise<number> {
    const file = this.#openFile();
    this.#file = undefined;
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
    const index = await this.#writeIndex();
    const { parts } = this.#parts;
    return {
      parts,
      index,
      entries: this.#entries,
      logicalBytes: this.#logicalBytes,
      storedBytes: parts.reduce((sum, part) => sum + part.size, index.size),
      contentDigest: this.#index.contentDigest,
    };
  }

  /** Waits until nothing runs any more, after a failure. */
  async abandon(): Promise<void> {
    await Promise.allSettled(this.#running);
  }

  #openFile(): OpenFile {
    if (!this.#file) throw new DrError('internal', 'content was written with no file open');
    return this.#file;
  }

  #newFrame(): Frame {
    const buffer = this.#spareFrames.pop() ?? new ArrayBuffer(FRAME_RAW_BYTES + FRAME_OVERHEAD_BYTES);
    return { buffer, content: new Uint8Array(buffer, FRAME_HEADER_BYTES, FRAME_RAW_BYTES), used: 0, slices: [] };
  }

  #addSlice(frame: Frame, file: OpenFile, length: number): void {
    const last = frame.slices.at(-1);
    if (last && last.file === file && last.position + last.length === file.size) {
      last.length += length;
    } else {
      frame.slices.push({ file, position: file.size, rawOffset: frame.used, length });
      file.outstanding++;
    }
    frame.used += length;
    file.size += length;
    this.#logicalBytes += length;
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
      slices: frame.slices.map(({ rawOffset, length }) => [rawOffset, length] as const),
      counter,
      context: backupId,
      secret: key?.secret,
      level: compressionLevel,
    });
    const { part, offset, stored } = await this.#parts.append(new Uint8Array(sealed.buffer, 0, sealed.frameBytes));
    this.#spareFrames.push(sealed.buffer);
    for (const [i, slice] of frame.slices.entries()) {
      slice.file.extents.push({
        position: slice.position,
        length: slice.length,
        part,
        frameOffset: offset,
        frameLength: sealed.frameBytes,
        counter,
        rawOffset: slice.rawOffset,
        digest: Buffer.from(sealed.digests.subarray(32 * i, 32 * i + 32)),
      });
      await this.#settle(slice.file);
    }
    await stored;
  }

  /** One outstanding piece of a file is done; the last one completes its entry. */
  async #settle(file: OpenFile): Promise<void> {
    if (--file.outstanding > 0) return;
    const extents = file.extents.sort((a, b) => a.position - b.position);
    const checksum = treeChecksum(extents, file.size);
    await this.#finishEntry({ ...file.head, size: file.size, extents, checksum });
  }

  async #finishEntry(entry: IndexEntry): Promise<void> {
    this.#entries++;
    await this.#index.add(entry);
  }

  async #writeIndex(): Promise<PackResult['index']> {
    const { resource, backupId, key, mirror, signal } = this.#options;
    const pieces = await this.#index.finish();
    const objectKey = layout.index(resource, backupId);
    const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
    await mirror.create(objectKey, pieces, signal);
    return {
      key: objectKey,
      size,
      sha256: sha256(...pieces).toString('hex'),
      context: `${backupId}/index`,
      ...(key ? { keyId: key.id } : {}),
    };
  }

  async #sealAlone(raw: Uint8Array): Promise<Uint8Array> {
    const { pool, key, backupId, compressionLevel } = this.#options;
    const own = Uint8Array.from(raw);
    const counter = this.#counter++;
    const sealed = await pool.seal({
      kind: 'seal',
      raw: own.buffer,
      length: own.length,
      slices: [],
      counter,
      context: `${backupId}/index`,
      secret: key?.secret,
      level: compressionLevel,
    });
    return new Uint8Array(sealed.frame, 0, sealed.frameBytes);
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
