import { DrError } from '../base/errors.ts';

/** `INCREMENTAL_MAGIC` in PostgreSQL's `basebackup_incremental.h`. */
const magic = 0xd3ae1f0d;
/** Magic number, count of blocks and truncation length, 4 bytes each, in the server's byte order. */
const fixedBytes = 12;

/** The pages of the server's relation files (`SHOW block_size`, `SHOW segment_size`). */
export interface BlockGeometry {
  /** Bytes of a block, 8192 unless the server was built otherwise. */
  readonly blockBytes: number;
  /** Blocks of a whole segment file, 131072 unless the server was built otherwise. */
  readonly segmentBlocks: number;
}

/** What changed in a relation file since the backup that the server was told about; the changed blocks' content follows. */
export interface BlockChanges {
  readonly blockBytes: number;
  /** Numbers of the blocks that follow, within this file, ascending. */
  readonly blocks: Uint32Array;
  /** Blocks below this one that do not follow are as they were in that backup, zeros where it had none. From here on, what does not follow is zeros. */
  readonly keptBlocks: number;
}

/**
 * Collects the header of an `INCREMENTAL.<name>` file as it arrives. Layout (`sendFile` in `basebackup.c`,
 * `make_incremental_rfile` in `reconstruct.c`): magic, count, truncation length, the block numbers, zeros up to a multiple of
 * the block size if any block follows, then the blocks in that order.
 */
export class IncrementalHeader {
  readonly #path: string;
  readonly #size: number;
  readonly #geometry: BlockGeometry;
  #bytes = Buffer.alloc(fixedBytes);
  #filled = 0;
  #padding = 0;
  #changes: BlockChanges | undefined;

  /** `size`: bytes of the whole incremental file, which must fit what its header says. */
  constructor(path: string, size: number, geometry: BlockGeometry) {
    this.#path = path;
    this.#size = size;
    this.#geometry = geometry;
    if (size < fixedBytes) throw this.#corrupt(`it has ${size} bytes`);
  }

  /** Once `write` has given something back. */
  get changes(): BlockChanges {
    if (this.#changes === undefined) throw this.incomplete();
    return this.#changes;
  }

  /** Takes the next bytes of the file. Undefined while the header is not complete; then what is left: the first bytes of the blocks. */
  write(chunk: Uint8Array): Uint8Array | undefined {
    let at = 0;
    while (this.#filled < this.#bytes.length) {
      const piece = chunk.subarray(at, at + this.#bytes.length - this.#filled);
      if (piece.length === 0) return undefined;
      this.#bytes.set(piece, this.#filled);
      this.#filled += piece.length;
      at += piece.length;
      if (this.#filled === fixedBytes) this.#begin();
    }
    this.#changes ??= this.#parse();
    const skipped = Math.min(this.#padding, chunk.length - at);
    this.#padding -= skipped;
    return this.#padding > 0 ? undefined : chunk.subarray(at + skipped);
  }

  /** The error of a file that ended within its header. */
  incomplete(): DrError {
    return this.#corrupt('its header is not complete');
  }

  /** The fixed fields are there: how long the rest is. */
  #begin(): void {
    const { blockBytes, segmentBlocks } = this.#geometry;
    const found = this.#bytes.readUInt32LE(0);
    if (found !== magic)
      throw this.#corrupt(`it begins with 0x${found.toString(16)} instead of 0x${magic.toString(16)}`);
    const count = this.#bytes.readUInt32LE(4);
    const kept = this.#bytes.readUInt32LE(8);
    if (count > segmentBlocks || kept > segmentBlocks) {
      throw this.#corrupt(`it has ${count} blocks and keeps ${kept}, but a file has at most ${segmentBlocks}`);
    }
    const headerBytes = fixedBytes + 4 * count;
    this.#padding = count === 0 ? 0 : (blockBytes - (headerBytes % blockBytes)) % blockBytes;
    const expected = headerBytes + this.#padding + count * blockBytes;
    if (expected !== this.#size) throw this.#corrupt(`it has ${this.#size} bytes instead of ${expected}`);
    const whole = Buffer.alloc(headerBytes);
    this.#bytes.copy(whole);
    this.#bytes = whole;
  }

  #parse(): BlockChanges {
    const { blockBytes, segmentBlocks } = this.#geometry;
    const blocks = new Uint32Array(this.#bytes.readUInt32LE(4));
    let before = -1;
    for (let i = 0; i < blocks.length; i++) {
      const block = this.#bytes.readUInt32LE(fixedBytes + 4 * i);
      if (block <= before || block >= segmentBlocks) throw this.#corrupt(`block ${block} comes after block ${before}`);
      blocks[i] = block;
      before = block;
    }
    return { blockBytes, blocks, keptBlocks: this.#bytes.readUInt32LE(8) };
  }

  #corrupt(why: string): DrError {
    return new DrError('corrupt', `the server sent an incremental file that cannot be one: ${why}`, {
      where: this.#path,
      next: 'Take the backup again. If it repeats, look for a foreign file of this name in the data directory and remove it, or switch summarize_wal off.',
    });
  }
}

/** Bytes of the file that results from laying the changes over the previous one. */
export function resultingBytes({ blockBytes, blocks, keptBlocks }: BlockChanges): number {
  return Math.max(keptBlocks, (blocks.at(-1) ?? -1) + 1) * blockBytes;
}
