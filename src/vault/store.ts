/** One stored object. */
export interface ObjectInfo {
  readonly key: string;
  /** Bytes as stored. */
  readonly size: number;
  /** When the store says it was written, milliseconds since 1970. */
  readonly modifiedMs: number;
}

/** A range of bytes of an object. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** Bytes to store: one view or several that belong together (never copied by the drivers). */
export type Body = Uint8Array | readonly Uint8Array[];

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface ListOptions extends CallOptions {
  /** Only keys after this one ... */
  readonly startAfter?: string | undefined;
  /** ... and before this one. */
  readonly before?: string | undefined;
}

export interface FolderOptions extends CallOptions {
  /** A driver with real directories may then name empty ones too, which are no folders: it need not look into each. */
  readonly emptyToo?: boolean;
}

export interface CreateOptions extends CallOptions {
  /** SHA-256 of the whole body (32 bytes) where the caller has it already: drivers that send one need not hash again. */
  readonly sha256?: Uint8Array | undefined;
}

/** One of many objects read: its content, or why it could not be read. */
export type ReadOutcome =
  | { readonly key: string; readonly bytes: Buffer }
  | { readonly key: string; readonly error: unknown };

export type RequestKind = 'create' | 'overwrite' | 'read' | 'stat' | 'list' | 'delete';

/** What a driver did since it was opened, as plain numbers for metrics. */
export interface StoreStats {
  /** Requests sent, every retry and every page of a listing included. */
  readonly requests: Readonly<Record<RequestKind, number>>;
  /** Requests that were sent again after a failure. */
  readonly retries: number;
  /** Bytes of object content received from the store. */
  readonly bytesIn: number;
  /** Bytes of object content sent to the store. */
  readonly bytesOut: number;
}

/**
 * The object store of one vault: the whole of what `dr` asks of S3, a directory or memory.
 *
 * Keys are relative (`manifests/orders/…json`), of the characters `A-Za-z0-9._=-` in segments parted by `/`, at most 512
 * long; no segment begins with a dot or is longer than 200; no key is a prefix-with-slash of another (a directory store
 * could not hold both). Any other key is `refused` before the store is asked (`object-key.ts`).
 * What `create` has answered is durable. Listings are complete and in byte order of the key.
 *
 * Every method throws `DrError`: `not-found` (no such object), `unreachable` (no answer after the driver's own retries),
 * `denied` (credentials refused), `local` (disk full, read-only), `corrupt`, always with `where` = "<location>/<key>".
 */
export interface ObjectStore {
  /** The vault's name in the configuration. */
  readonly name: string;
  readonly region: string;
  /** Where it is, without credentials: `s3://bucket/prefix`, `file:///dir`. */
  readonly location: string;
  readonly stats: StoreStats;

  /**
   * Makes the place itself where a driver can: the directory of a file vault (never a bucket). Only enrolment calls it:
   * everywhere else a directory that is not there is an unmounted volume, thus `unreachable`.
   */
  prepare(): Promise<void>;
  /**
   * Stores an object only if the key is free: atomic, durable, all or nothing; of concurrent callers exactly one is told
   * `created`. A retry inside the driver after a lost answer that finds its own content there says `created`.
   */
  create(key: string, body: Body, options?: CreateOptions): Promise<'created' | 'exists'>;
  /** Stores an object whatever was there, in one step: for hints that nothing depends on (the last caller wins), and for repair. */
  overwrite(key: string, body: Body, options?: CreateOptions): Promise<void>;
  /** The object, or exactly `range` of it; a range that reaches past the end is `corrupt`. */
  read(key: string, range?: ByteRange, options?: CallOptions): Promise<Buffer>;
  /**
   * Many small objects whole, in the order of `keys`, as cheaply as the driver can; their bytes are gone when the next one is asked for.
   * Throws only when it is stopped.
   */
  readEach(keys: Iterable<string>, options?: CallOptions): AsyncIterable<ReadOutcome>;
  stat(key: string, options?: CallOptions): Promise<ObjectInfo | undefined>;
  /** All objects whose key begins with `prefix` (a plain string prefix). */
  list(prefix: string, options?: ListOptions): AsyncIterable<ObjectInfo>;
  /** The keys that `list` gives, in the same order: a directory need not ask for size and time of each file. */
  names(prefix: string, options?: ListOptions): AsyncIterable<string>;
  /** The distinct next segments below `prefix` (which ends in `/` or is empty), without slash, in order: "folders" only. */
  folders(prefix: string, options?: FolderOptions): Promise<string[]>;
  /** Removes objects; keys that are not there are no error. */
  delete(keys: readonly string[], options?: CallOptions): Promise<void>;
  close(): Promise<void>;
}

/** All bytes of a body as one buffer. */
export function bodyBytes(body: Body): Uint8Array {
  return body instanceof Uint8Array ? body : Buffer.concat(body);
}

/** Length of a body in bytes. */
export function bodyLength(body: Body): number {
  return body instanceof Uint8Array ? body.length : body.reduce((sum, piece) => sum + piece.length, 0);
}
