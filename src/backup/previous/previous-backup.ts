import type { IndexEntry } from '../index-format.ts';
import type { Manifest } from '../manifest.ts';

/** Bytes kept of the SHA-256 of each block, to find out whether it has changed. */
export const BLOCK_DIGEST_BYTES = 16;

/** What a file system said of a file whose content was read: equal facts prove equal content. */
export interface StatFacts {
  readonly size: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
  readonly ino: bigint;
  readonly dev: bigint;
}

/** A file as the previous backup has it. */
export interface PreviousEntry {
  /** Its extents name parts by their position in the previous manifest's list. */
  readonly entry: IndexEntry;
  /** Absent where they prove nothing. */
  readonly stat?: StatFacts | undefined;
  /** True when all of its content can be used again: `reuse` and `overlay` need that. */
  readonly isWhole: boolean;
  /**
   * The first BLOCK_DIGEST_BYTES of the SHA-256 of `count` blocks of `entry.blockBytes`, from block `first` on. Zeros, which no digest is,
   * for holes, beyond the end, and for blocks whose content must be stored again.
   */
  blockDigests(first: number, count: number): Buffer;
  /** False where they are not known (its index was read from a vault): it can be compared by whole runs. */
  readonly hasBlockDigests: boolean;
}

/** The newest backup of a resource, with what a new one may use of it. */
export interface PreviousBackup {
  readonly manifest: Manifest;
  /** True when every part that it names can be used again. */
  readonly isWhole: boolean;
  /** Raw bytes stored in each of its parts, and those that it still uses; by position in its manifest's list. */
  readonly partBytes: ReadonlyArray<{ readonly raw: number; readonly live: number }>;
  /** Share of the raw bytes in these parts that it does not use any more: 0 for a full backup. */
  readonly waste: number;
  /**
   * The same, with the content of parts that are hardly used any more to be stored again (`condemnedParts`): for a backup that reads everything.
   * `partBytes`: the usual size of a part.
   */
  rewriting(partBytes: number): PreviousBackup;
  /** What it has under this path, if that is a file; undefined too when what is known of it is damaged: it is then stored again. */
  lookup(path: Buffer): PreviousEntry | undefined;
  /** All of its files, in the order in which they were packed; those of which what is known is damaged are left out. */
  files(): Iterable<PreviousEntry>;
}

/** Takes what the next backup will want to know of a file. */
export interface EntrySink {
  /** `line`: the entry as the index has it. `digests`: of its blocks, BLOCK_DIGEST_BYTES each, as `PreviousEntry.blockDigests` gives them. */
  add(entry: IndexEntry, line: Buffer, digests: Buffer | undefined, stat: StatFacts | undefined): Promise<void> | void;
}
