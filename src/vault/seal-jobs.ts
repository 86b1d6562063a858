import type { FileAttributes, UnsetAttribute } from '../base/file-attributes.ts';

/** What the main thread and the sealing workers say to each other. All buffers are transferred, not copied. */

/** Seals `raw[0..length)` and hashes its slices. */
export interface SealJob {
  readonly kind: 'seal';
  readonly raw: ArrayBuffer;
  readonly length: number;
  /** Offset and length of each slice of which the digest is wanted. */
  readonly slices: ReadonlyArray<readonly [offset: number, length: number]>;
  readonly counter: number;
  readonly context: string;
  readonly secret: Uint8Array | undefined;
  readonly level: number;
}

export interface SealResult {
  /** The frame, alone in its buffer from the beginning. */
  readonly frame: ArrayBuffer;
  readonly frameBytes: number;
  /** SHA-256 of each slice, 32 bytes each. */
  readonly digests: Uint8Array;
  /** The raw buffer given back for reuse. */
  readonly raw: ArrayBuffer;
}

/**
 * Seals a frame in its own buffer, which goes to the worker and comes back: a long backup works with a few buffers that are used
 * again and again. A new one per frame costs page faults and garbage collections (a fifth of all CPU, measured). Shared memory
 * would spare the transfer, but V8 copies into it byte by byte where source and target are aligned differently.
 */
export interface SealInPlaceJob {
  readonly kind: 'seal-in-place';
  /** Raw content behind the first FRAME_HEADER_BYTES; FRAME_OVERHEAD_BYTES longer than the content. */
  readonly buffer: ArrayBuffer;
  readonly length: number;
  /** In the order of their offsets, without gaps between them. */
  readonly runs: readonly SealRun[];
  readonly counter: number;
  readonly context: string;
  readonly secret: Uint8Array | undefined;
  readonly level: number;
}

/** Consecutive raw bytes of one file: what gets one digest. */
export interface SealRun {
  readonly offset: number;
  readonly length: number;
  /** Compared and hashed by blocks of this many bytes. */
  readonly blockBytes?: number | undefined;
  /**
   * What is known of the same place in the previous backup: the first 16 bytes of the SHA-256 of each block, or without blocks the 32 bytes
   * of the whole. What equals it is not sealed.
   */
  readonly previous?: Uint8Array | undefined;
  /** With blocks of which nothing is known: the digest of the same run as it was stored, 32 bytes. */
  readonly whole?: Uint8Array | undefined;
}

/** What is left of the runs of a frame when all that has not changed is taken out. */
export interface KeptRuns {
  /** Raw bytes left. */
  readonly length: number;
  /** Of what is left of each run (of the whole run where it has no blocks), 32 bytes each. */
  readonly digests: Uint8Array;
  /** First 16 bytes of the SHA-256 of every block of every run; zeros for a run without blocks. */
  readonly blockDigests: Uint8Array;
  /** For each of these blocks 1 if it is left, else 0. */
  readonly changed: Uint8Array;
}

export interface SealInPlaceResult extends KeptRuns {
  /** The buffer given back; the frame begins it. */
  readonly buffer: ArrayBuffer;
  /** 0 when nothing has changed: there is no frame then. */
  readonly frameBytes: number;
}

/** A run of a frame and where its pieces go. */
export interface RunTarget {
  readonly rawOffset: number;
  readonly length: number;
  /** Expected digest, 32 bytes: SHA-256, or with `blockBytes` the SHA-256 over those of its blocks. */
  readonly digest: Uint8Array;
  readonly blockBytes: number | undefined;
  readonly slices: readonly SliceTarget[];
}

/** Where one slice of a run goes: into an open file, or as the whole content of a new one. */
export interface SliceTarget {
  /** Offset in the run. */
  readonly skip: number;
  readonly length: number;
  readonly to:
    | { readonly fd: number; readonly position: number }
    | { readonly create: Uint8Array; readonly attributes: FileAttributes }
    | { readonly nowhere: true };
  /** The file's name for errors. */
  readonly name: string;
}

/** Opens frames (one read of consecutive bytes) and writes their slices. */
export interface WriteJob {
  readonly kind: 'write';
  readonly bytes: ArrayBuffer;
  readonly byteOffset: number;
  readonly frames: ReadonlyArray<{
    readonly offset: number;
    readonly length: number;
    readonly counter: number;
    readonly context: string;
    readonly secret: Uint8Array | undefined;
    readonly where: string;
    readonly runs: readonly RunTarget[];
  }>;
}

export interface WriteResult {
  /** Raw bytes written (or, with `nowhere`, checked). */
  readonly bytes: number;
  /** Created files of which extended attributes could not be set. */
  readonly unset: ReadonlyArray<{ readonly name: string; readonly attributes: readonly UnsetAttribute[] }>;
}

export type Job = SealJob | SealInPlaceJob | WriteJob;
export type JobResult = SealResult | SealInPlaceResult | WriteResult;

/** A failed job; `DrError`s keep their facts, file errors their code. */
export interface JobFailure {
  readonly message: string;
  readonly kind?: string;
  readonly where?: string | undefined;
  readonly next?: string | undefined;
  readonly code?: string | undefined;
  readonly path?: string | undefined;
}
