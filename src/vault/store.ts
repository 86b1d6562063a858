import { DrError } from '../base/errors.ts';
import type { LockPolicy } from './lock-policy.ts';

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

export type RequestKind = 'create' | 'overwrite' | 'read' | 'stat' | 'list' | 'delete' | 'lock';

/** Requests as object stores bill them: `PUT` writes and locks, `GET` reads and asks (HEAD), `LIST` each page of a listing, `DELETE` is free. */
export type Operation = 'PUT' | 'GET' | 'LIST' | 'DELETE';

/** What was asked of one vault for one purpose. */
export interface Usage {
  readonly requests: Readonly<Record<Operation, number>>;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

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
  /** The same by what it was done for (`base/activity.ts`). */
  readonly byActivity: ReadonlyMap<string, Usage>;
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
  /** Removes objects; keys that are not there are no error. Throws `LockedError` where some are locked: all others are gone then. */
  delete(keys: readonly string[], options?: CallOptions): Promise<void>;
  /** Object Lock, where this vault locks what it stores. */
  readonly locks?: ObjectLocks | undefined;
  /** Versions of objects, where the store may keep them. */
  readonly versions?: ObjectVersions | undefined;
  close(): Promise<void>;
}

/** Object Lock of a vault: what is stored cannot be removed by anybody before its time. */
export interface ObjectLocks {
  readonly policy: LockPolicy;
  /**
   * Makes sure that these objects stay locked as long as if they were stored now, or until `untilMs` where that is given; a name that
   * ends in `/` means everything below. Cheap to call: only what is not locked long enough costs a request. Returns how many locks were
   * made longer. Throws `not-found` for an object that is not there, `denied` without the right (s3:PutObjectRetention).
   */
  extend(keys: readonly string[], options?: CallOptions & { readonly untilMs?: number | undefined }): Promise<number>;
  /** Until when the object is locked, milliseconds since 1970; undefined when it is not, or these credentials may not know. */
  lockedUntil(key: string, options?: CallOptions): Promise<number | undefined>;
  /** Proves on a fresh object that the store enforces locks, also against these credentials. Leaves it behind until its lock ends. */
  prove(options?: CallOptions): Promise<LockProof>;
}

/** What was found out about Object Lock on a fresh object. */
export interface LockProof {
  /** Why locks do not hold here; undefined when they do. */
  readonly broken?: string | undefined;
  /** True: these credentials may remove locked objects all the same (s3:BypassGovernanceRetention). */
  readonly mayBypass: boolean;
  /** False: these credentials may not make locks longer (s3:PutObjectRetention), so that what is used again may go too early. */
  readonly mayExtend: boolean;
  /** The bucket locks by itself whatever is stored, for that many days: leases too, which dr removes all the time. */
  readonly defaultDays?: number | undefined;
}

/** An object that a delete marker hides: its content is still there. */
export interface HiddenObject extends ObjectInfo {
  /** When it was hidden, milliseconds since 1970. */
  readonly hiddenMs: number;
}

/** Versions: what was deleted without naming its version is only hidden. */
export interface ObjectVersions {
  /** True when the store keeps versions; undefined when these credentials may not know. */
  areKept(options?: CallOptions): Promise<boolean | undefined>;
  /** Hidden objects below a prefix, in order of their keys. Throws `refused` where the store has no versions, `denied` without the right. */
  hidden(prefix: string, options?: CallOptions): AsyncIterable<HiddenObject>;
  /** The content that is hidden. Throws `not-found` when there is none. */
  readHidden(key: string, options?: CallOptions): Promise<Buffer>;
  /** Takes the delete markers away. Throws `denied` without the right (s3:DeleteObjectVersion). */
  reveal(keys: readonly string[], options?: CallOptions): Promise<void>;
  /** Removes all versions of these objects for good, hidden ones too. Throws as `delete`. */
  purge(keys: readonly string[], options?: CallOptions): Promise<void>;
}

/** Some objects could not be removed because they are locked. */
export class LockedError extends DrError {
  readonly locked: ReadonlySet<string>;
  /** When the last of those locks ends that were looked at, milliseconds since 1970. */
  readonly untilMs: number | undefined;

  constructor(locked: readonly string[], untilMs: number | undefined, where: string) {
    const until = untilMs === undefined ? '' : ` until ${new Date(untilMs).toISOString()}`;
    const what = locked.length === 1 ? 'an object is locked' : `${locked.length} objects are locked`;
    super('refused', `${what}${until} and cannot be removed`, {
      where,
      next: 'Nothing: Object Lock works. They can be removed when their locks have ended.',
    });
    this.locked = new Set(locked);
    this.untilMs = untilMs;
  }
}

/** All bytes of a body as one buffer. */
export function bodyBytes(body: Body): Uint8Array {
  return body instanceof Uint8Array ? body : Buffer.concat(body);
}

/** Length of a body in bytes. */
export function bodyLength(body: Body): number {
  return body instanceof Uint8Array ? body.length : body.reduce((sum, piece) => sum + piece.length, 0);
}
