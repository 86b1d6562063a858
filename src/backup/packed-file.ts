import { DrError } from '../base/errors.ts';
import { FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES, FRAME_RAW_BYTES } from '../vault/seal.ts';
import type { SealRun } from '../vault/seal-jobs.ts';
import { mergeAdjacent, overlayExtents, sliceExtents } from './extents.ts';
import { type Extent, type IndexEntry, isWholeRun } from './index-format.ts';
import { BLOCK_DIGEST_BYTES, type PreviousEntry, type StatFacts } from './previous/previous-backup.ts';

/** What is known of an entry before its content has been read. */
export type EntryHead = Omit<IndexEntry, 'extents' | 'checksum' | 'size' | 'blockBytes'>;

/** Raw content that fills up before it is sealed as one. */
export interface Frame {
  /** Goes to a sealing thread, and comes back for another frame. */
  readonly buffer: ArrayBuffer;
  /** Where the raw content goes. */
  readonly content: Uint8Array;
  used: number;
  readonly runs: Run[];
}

/** Bytes of one file that stand together in a frame. */
export interface Run {
  readonly file: PackedFile;
  readonly rawOffset: number;
  length: number;
  /** Where they belong in the file, in the order of the frame. */
  readonly pieces: Array<{ readonly position: number; length: number }>;
}

export function newFrame(buffer: ArrayBuffer = new ArrayBuffer(FRAME_RAW_BYTES + FRAME_OVERHEAD_BYTES)): Frame {
  return { buffer, content: new Uint8Array(buffer, FRAME_HEADER_BYTES, FRAME_RAW_BYTES), used: 0, runs: [] };
}

export interface FileFacts {
  readonly head: EntryHead;
  /** Compared by blocks of this many bytes; else as a whole. */
  readonly blockBytes: number | undefined;
  /** What it is compared with, if anything. */
  readonly previous: PreviousEntry | undefined;
  /** Only these blocks follow, ascending; all others are those of `previous`, up to `size`. */
  readonly overlay?: { readonly size: number; readonly blocks: readonly number[] };
  /** About how large it will be. */
  readonly expectedBytes: number;
  /** The digests of its blocks are wanted. */
  readonly keepDigests: boolean;
}

/** A file whose content is being written or whose frames are being sealed. */
export class PackedFile {
  readonly head: EntryHead;
  readonly blockBytes: number | undefined;
  previous: PreviousEntry | undefined;
  /** Frames of its own; else it stands among others in one that they share. */
  ownFrames: boolean;
  own: Frame | undefined;
  /** Slices handed to a frame and not sealed yet, plus one while the file is open. */
  outstanding = 1;
  /** Its end is known: what stands in a frame may be all of it. */
  ended = false;
  stat: StatFacts | undefined;
  /** Where the next byte goes. */
  position = 0;
  readonly #overlay: FileFacts['overlay'];
  /** Of the overlay's blocks, the one that is being written. */
  #block = 0;
  #digests: Buffer | undefined;
  #extents: Extent[] = [];

  constructor(facts: FileFacts, ownFrames: boolean) {
    this.head = facts.head;
    this.blockBytes = facts.blockBytes;
    this.previous = facts.previous;
    this.ownFrames = ownFrames;
    this.#overlay = facts.overlay;
    if (facts.keepDigests && this.blockBytes !== undefined) {
      this.#digests = Buffer.alloc(Math.ceil(facts.expectedBytes / this.blockBytes) * BLOCK_DIGEST_BYTES);
    }
    if (this.#overlay) this.#toBlock(0);
  }

  get size(): number {
    return this.#overlay?.size ?? this.position;
  }

  /** How many of `bytes` go to the current position. */
  room(bytes: number): number {
    if (this.blockBytes === undefined) return bytes;
    if (this.#overlay === undefined) return Math.min(bytes, FRAME_RAW_BYTES - (this.position % FRAME_RAW_BYTES));
    const blockEnd = Math.min(((this.#overlay.blocks[this.#block] ?? -1) + 1) * this.blockBytes, this.#overlay.size);
    if (blockEnd <= this.position) throw new DrError('internal', 'more content came than the changed blocks hold');
    return Math.min(bytes, blockEnd - this.position);
  }

  /** True when what comes next does not belong into the frame any more: frames of compared files end at multiples of their size. */
  leaves(frame: Frame): boolean {
    if (frame.used === FRAME_RAW_BYTES) return true;
    const first = frame.runs[0]?.pieces[0];
    if (this.blockBytes === undefined || this.#overlay || first === undefined) return false;
    return Math.floor(first.position / FRAME_RAW_BYTES) !== Math.floor(this.position / FRAME_RAW_BYTES);
  }

  /** Notes that `length` bytes at the current position were put at the end of the frame. */
  take(frame: Frame, length: number): void {
    const run = frame.runs.at(-1);
    const last = run?.file === this ? run.pieces.at(-1) : undefined;
    if (run && last && last.position + last.length === this.position) {
      last.length += length;
      run.length += length;
    } else if (run && last && this.blockBytes !== undefined) {
      run.pieces.push({ position: this.position, length });
      run.length += length;
    } else {
      frame.runs.push({ file: this, rawOffset: frame.used, length, pieces: [{ position: this.position, length }] });
      this.outstanding++;
    }
    frame.used += length;
    this.#advance(length);
  }

  /** Leaves a hole. */
  skip(length: number): void {
    this.position += length;
  }

  /** What the run is compared with; nothing when it is new in any case. */
  comparedWith(run: Run): Pick<SealRun, 'previous' | 'whole'> {
    const { previous, blockBytes } = this;
    if (!previous) return {};
    if (blockBytes !== undefined && !previous.hasBlockDigests) return { whole: wholeRun(previous, run)?.digest };
    if (blockBytes !== undefined) {
      const digests = run.pieces.map(({ position, length }) =>
        previous.blockDigests(position / blockBytes, Math.ceil(length / blockBytes)),
      );
      return { previous: Buffer.concat(digests) };
    }
    const [only] = previous.entry.extents;
    const isAll = this.ended && run.length === this.size && run.length === only?.length;
    return isAll && previous.isWhole && isSmall(previous.entry) ? { previous: only.digest } : {};
  }

  addExtent(extent: Extent): void {
    this.#extents.push(extent);
  }

  /** Keeps the digests of the blocks from `position` on. */
  addDigests(position: number, digests: Uint8Array): void {
    if (!this.#digests || this.blockBytes === undefined) return;
    const at = (position / this.blockBytes) * BLOCK_DIGEST_BYTES;
    if (this.#digests.length < at + digests.length) this.#digests = grown(this.#digests, at + digests.length);
    this.#digests.set(digests, at);
  }

  /**
   * Its extents in order, and the digests of all blocks where they are wanted. `partOf`: what this backup calls a part of the previous one.
   * Called once, last: what it took up is given back, because a file may have hundreds of thousands of extents.
   */
  finish(partOf: (part: number) => number): { readonly extents: Extent[]; readonly digests: Buffer | undefined } {
    const digests = this.#allDigests();
    const below = this.previous?.entry.extents;
    const written = mergeAdjacent(this.#extents.sort((a, b) => a.position - b.position));
    this.#extents = [];
    this.previous = undefined;
    const extents = this.#overlay && below ? overlayExtents(below, written, this.#overlay.size, partOf) : written;
    return { extents, digests };
  }

  #allDigests(): Buffer | undefined {
    if (!this.#digests || this.blockBytes === undefined) return undefined;
    const blocks = Math.ceil(this.size / this.blockBytes);
    const bytes = blocks * BLOCK_DIGEST_BYTES;
    if (!this.#overlay) return grown(this.#digests, bytes).subarray(0, bytes);
    const all = this.previous?.blockDigests(0, blocks) ?? Buffer.alloc(bytes);
    for (const block of this.#overlay.blocks) {
      const at = block * BLOCK_DIGEST_BYTES;
      this.#digests.copy(all, at, at, at + BLOCK_DIGEST_BYTES);
    }
    return all;
  }

  /** Throws when an overlay has not got all of its blocks. */
  requireComplete(): void {
    if (this.#overlay && this.#block < this.#overlay.blocks.length) {
      throw new DrError('internal', 'less content came than the changed blocks hold');
    }
  }

  #advance(length: number): void {
    this.position += length;
    if (!this.#overlay || this.blockBytes === undefined) return;
    const block = this.#overlay.blocks[this.#block] ?? 0;
    if (this.position >= Math.min((block + 1) * this.blockBytes, this.#overlay.size)) this.#toBlock(this.#block + 1);
  }

  #toBlock(index: number): void {
    this.#block = index;
    const block = this.#overlay?.blocks[index];
    if (block !== undefined) this.position = block * (this.blockBytes ?? 0);
  }
}

/** The run of the previous backup that is all of what stood where this one stands; undefined if there is no such. */
function wholeRun({ entry, isWhole }: PreviousEntry, { pieces }: Run): Extent | undefined {
  const [piece] = pieces;
  if (!isWhole || !piece || pieces.length > 1) return undefined;
  const [found, more] = sliceExtents(entry.extents, piece.position, piece.position + piece.length);
  const fits = found && found.position === piece.position && found.length === piece.length && isWholeRun(found);
  return fits && !more ? found : undefined;
}

/** A file of one run, stored whole and compared as a whole. */
export function isSmall({ blockBytes, extents, size }: IndexEntry): boolean {
  const [only] = extents;
  return blockBytes === undefined && extents.length === 1 && only?.length === size && only.runLength === size;
}

function grown(digests: Buffer, bytes: number): Buffer {
  if (digests.length >= bytes) return digests;
  const larger = Buffer.alloc(Math.max(bytes, 2 * digests.length));
  digests.copy(larger);
  return larger;
}
