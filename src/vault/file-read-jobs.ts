/** Small files to be read one after the other. */
export interface ReadBatch {
  readonly id: number;
  readonly paths: readonly string[];
}

/** What became of some files of a batch, in its order; the last answer to a batch says that it is done. */
export interface ReadAnswer {
  readonly id: number;
  /** Their contents, one behind the other. */
  readonly bytes: ArrayBuffer;
  /** The length of each; -1 for one that could not be read, and is to be read again by whoever can explain why. */
  readonly lengths: readonly number[];
  readonly done: boolean;
}
