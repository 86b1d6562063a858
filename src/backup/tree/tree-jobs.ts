import type { ExtendedAttribute } from '../../base/file-attributes.ts';

/** What the main thread and those that read a directory tree say to each other. Paths and names are bytes; buffers are transferred. */

/** Entries of which a list job answers the facts at once. */
export const CHUNK_ENTRIES = 256;

/** Lists a directory: its names in byte order, and the facts of the first CHUNK_ENTRIES. */
export interface ListJob {
  readonly kind: 'list';
  readonly directory: Uint8Array;
}

export interface ListResult {
  /** Joined by zero bytes. */
  readonly names: Uint8Array;
  readonly facts: EntryFacts;
}

/** Looks at entries of one directory. */
export interface LookJob {
  readonly kind: 'look';
  readonly directory: Uint8Array;
  readonly names: Uint8Array;
}

/** What is known of entries without opening them; `index` counts the names of the job. */
export interface EntryFacts {
  /** FACT_COUNT numbers of each entry. */
  readonly numbers: BigInt64Array;
  /** Entries that could not be looked at; their numbers are 0. */
  readonly failures: readonly Failure[];
  /** Where symbolic links point. */
  readonly targets: ReadonlyArray<{ readonly index: number; readonly target: Uint8Array }>;
  /** Of those that have any. */
  readonly attributes: readonly EntryAttributes[];
}

/** Reads files whole. They must fit `buffer` together; one that has grown beyond it is left out. */
export interface ReadJob {
  readonly kind: 'read';
  readonly directory: Uint8Array;
  readonly names: Uint8Array;
  readonly buffer: ArrayBuffer;
}

export interface ReadResult {
  readonly buffer: ArrayBuffer;
  /** FACT_COUNT numbers of each file, as they were when its reading began. */
  readonly numbers: BigInt64Array;
  /** An `Outcome` of each file. */
  readonly outcomes: Uint8Array;
  /** Where in the buffer each file begins, and how many bytes it has there. */
  readonly places: Uint32Array;
  readonly failures: readonly Failure[];
  readonly attributes: readonly EntryAttributes[];
}

/** How the reading of a file went. */
export const Outcome = {
  whole: 0,
  /** It changed meanwhile: what was read may mix two states. */
  changed: 1,
  /** An input/output error: what was read is what comes before. A failure says which. */
  cutOff: 2,
  /** Not opened: a failure says why. */
  failed: 3,
  /** No file any more. */
  notAFile: 4,
  /** It has grown and does not fit any more. */
  tooLarge: 5,
} as const;

export interface Failure {
  readonly index: number;
  readonly code: string | undefined;
  readonly message: string;
}

export interface EntryAttributes {
  readonly index: number;
  readonly attributes: readonly ExtendedAttribute[];
  /** Why they could not be read. */
  readonly failure?: string;
}

export type TreeJob = ListJob | LookJob | ReadJob;
export type TreeResult = ListResult | EntryFacts | ReadResult;

/** An answer. `waitedMs`: how long the thread waited for anything but a processor, for disks above all. */
export interface TreeAnswer {
  readonly id: number;
  readonly result?: TreeResult;
  readonly failure?: { readonly code: string | undefined; readonly message: string };
  readonly tookMs: number;
  readonly waitedMs: number;
}
