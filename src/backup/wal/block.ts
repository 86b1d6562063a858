import { createHash } from 'node:crypto';
import { type Lsn, segmentName, segmentStart } from '../../postgres/lsn.ts';
import { FRAME_RAW_BYTES } from '../../vault/seal.ts';
import type { FrameInput } from './sealer.ts';

/** Larger segments are archived in blocks of this size, so that memory does not grow with them. */
const BLOCK_BYTES = 16 * 1024 * 1024;

/** Bytes of the blocks in which WAL of this segment size is archived: normally one block is one segment. */
export function blockBytesOf(segmentBytes: number): number {
  return Math.min(segmentBytes, BLOCK_BYTES);
}

/** Frame buffers used again and again: a segment costs no allocation. */
export class FrameBuffers {
  readonly #spare: ArrayBuffer[] = [];
  readonly #bytes: number;

  constructor(blockBytes: number) {
    this.#bytes = Math.min(blockBytes, FRAME_RAW_BYTES);
  }

  take(): ArrayBuffer {
    return this.#spare.pop() ?? new ArrayBuffer(this.#bytes);
  }

  give(buffers: readonly ArrayBuffer[]): void {
    for (const buffer of buffers) if (this.#spare.length < 8) this.#spare.push(buffer);
  }
}

/**
 * The raw WAL of one block while it fills. Kept whole until the block is, so that any vault can be given any stretch of it: one that was
 * away gets one large piece where the others have several small ones.
 */
export class WalBlock {
  readonly timeline: number;
  readonly start: Lsn;
  readonly segmentBytes: number;
  readonly segment: string;
  /** Bytes of a full block. */
  readonly bytes: number;
  /** Bytes that have come so far. */
  received = 0;
  /** The server's clock when it sent the newest byte. */
  endClockMs = 0;
  readonly #frameBytes: number;
  readonly #buffers: FrameBuffers;
  readonly #hash = createHash('sha256');
  #frames: ArrayBuffer[] = [];

  constructor(timeline: number, start: Lsn, segmentBytes: number, buffers: FrameBuffers) {
    this.timeline = timeline;
    this.start = start;
    this.segmentBytes = segmentBytes;
    this.segment = segmentName(timeline, start, segmentBytes);
    this.bytes = blockBytesOf(segmentBytes);
    this.#frameBytes = Math.min(this.bytes, FRAME_RAW_BYTES);
    this.#buffers = buffers;
  }

  get end(): Lsn {
    return this.start + BigInt(this.received);
  }

  get isFull(): boolean {
    return this.received === this.bytes;
  }

  /** Where the block begins in its segment. */
  get offset(): number {
    return Number(this.start - segmentStart(this.start, this.segmentBytes));
  }

  /** Copies as much of `view` as fits; returns how many bytes that were. */
  append(view: Uint8Array): number {
    const take = Math.min(view.length, this.bytes - this.received);
    for (let at = 0; at < take; ) {
      const frame = Math.floor(this.received / this.#frameBytes);
      const inFrame = this.received % this.#frameBytes;
      if (frame === this.#frames.length) this.#frames.push(this.#buffers.take());
      const length = Math.min(take - at, this.#frameBytes - inFrame);
      const piece = view.subarray(at, at + length);
      new Uint8Array(this.#frames[frame] ?? new ArrayBuffer(0), inFrame, length).set(piece);
      this.#hash.update(piece);
      this.received += length;
      at += length;
    }
    return take;
  }

  /** Views of the bytes `from` to `to` (offsets in the block), cut at frame boundaries. */
  views(from: number, to: number): Uint8Array[] {
    const views: Uint8Array[] = [];
    for (let at = from; at < to; ) {
      const inFrame = at % this.#frameBytes;
      const length = Math.min(to - at, this.#frameBytes - inFrame);
      views.push(
        new Uint8Array(this.#frames[Math.floor(at / this.#frameBytes)] ?? new ArrayBuffer(0), inFrame, length),
      );
      at += length;
    }
    return views;
  }

  /** SHA-256 of the bytes `from` to `to`, hexadecimal. */
  sha256(from: number, to: number): string {
    if (from === 0 && to === this.received) return this.#hash.copy().digest('hex');
    const hash = createHash('sha256');
    for (const view of this.views(from, to)) hash.update(view);
    return hash.digest('hex');
  }

  /** The whole content for the sealer, which gives the buffers back: afterwards this block holds none. */
  lendFrames(): FrameInput[] {
    const frames = this.#frames.map((buffer, i) => ({
      buffer,
      length: Math.min(this.#frameBytes, this.received - i * this.#frameBytes),
    }));
    this.#frames = [];
    return frames;
  }

  /** Gives the buffers back unused. */
  release(): void {
    this.#buffers.give(this.#frames);
    this.#frames = [];
  }
}

/** A piece of a block as one vault holds it; offsets in the block. */
export interface BlockPiece {
  readonly from: number;
  readonly to: number;
  readonly key: string;
  /** How often its content was merged: pieces of one level are merged when there are MERGE_AT of them. */
  readonly level: number;
}

/** A piece found in a vault that has to be what the server sends, or the archive is of another history. */
export interface Expectation {
  readonly from: number;
  readonly to: number;
  readonly sha256: string;
  readonly key: string;
}

const MERGE_AT = 16;

/** The pieces of one block in one vault: what is there, and what to write next. */
export class BlockPieces {
  /** The pieces that cover the block from its beginning without a hole. */
  readonly #cover: BlockPiece[] = [];
  /** Keys that can go once the block is stored whole. */
  readonly #other: string[] = [];
  expected: Expectation[] = [];

  /** Takes over what an earlier session left. `cover` in order, without holes. */
  adopt(cover: readonly Expectation[], other: readonly string[], expected: readonly Expectation[]): void {
    this.#cover.splice(0, this.#cover.length, ...cover.map(({ from, to, key }) => ({ from, to, key, level: 0 })));
    this.#other.push(...other);
    this.expected.push(...expected);
  }

  /** Offset up to which this vault has the block. */
  get covered(): number {
    return this.#cover.at(-1)?.to ?? 0;
  }

  /**
   * Where the next piece begins, and the pieces that it makes superfluous. Normally it begins where the last one ended; now and then it
   * takes the last 16 small ones (and 16 of those) with it, so that a quiet database does not leave thousands of objects in a segment.
   */
  next(): { from: number; level: number; replaces: readonly BlockPiece[] } {
    let at = this.#cover.length;
    let level = 0;
    for (;;) {
      let first = at;
      while (first > 0 && this.#cover[first - 1]?.level === level) first--;
      if (at - first < MERGE_AT) break;
      at = first;
      level++;
    }
    const replaces = this.#cover.slice(at);
    return { from: replaces[0]?.from ?? this.covered, level, replaces };
  }

  /** A piece as `next` proposed it is stored; returns the keys that can be deleted. */
  stored(piece: BlockPiece): string[] {
    const at = this.#cover.findIndex(({ from }) => from >= piece.from);
    const replaced = at === -1 ? [] : this.#cover.splice(at);
    this.#cover.push(piece);
    return replaced.map(({ key }) => key).filter((key) => key !== piece.key);
  }

  /** All keys of pieces: what a whole block replaces. */
  get keys(): string[] {
    return [...this.#cover.map(({ key }) => key), ...this.#other];
  }
}
