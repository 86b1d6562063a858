/** What a client asked for, as fault rules see it. */
export interface S3Request {
  readonly operation: S3Operation;
  readonly bucket: string;
  readonly key: string;
  /** The version that is asked for. */
  readonly versionId?: string | undefined;
  /** Of DeleteObjects: what is to be removed. */
  deleted?: ReadonlyArray<{ readonly key: string; readonly versionId: string | undefined }>;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}

export type S3Operation =
  | 'PutObject'
  | 'GetObject'
  | 'HeadObject'
  | 'DeleteObject'
  | 'DeleteObjects'
  | 'ListObjectsV2'
  | 'CreateBucket'
  | 'HeadBucket'
  | 'ListObjectVersions'
  | 'GetBucketVersioning'
  | 'PutBucketVersioning'
  | 'GetObjectLockConfiguration'
  | 'PutObjectLockConfiguration'
  | 'GetObjectRetention'
  | 'PutObjectRetention'
  | 'Unknown';

export type Fault =
  /** An error answer; nothing is done. */
  | { readonly kind: 'status'; readonly status: number; readonly code: string }
  /** The connection is reset before anything is done. */
  | { readonly kind: 'reset' }
  /** The request is carried out, then the connection is reset instead of an answer. */
  | { readonly kind: 'lose-answer' }
  /** The request is carried out, then an error answer is sent. */
  | { readonly kind: 'lie'; readonly status: number; readonly code: string }
  /** The answer waits until the promise resolves. */
  | { readonly kind: 'slow'; readonly until: Promise<void> }
  /** Only the first bytes of the body of the answer are sent, then the connection is closed. */
  | { readonly kind: 'truncate'; readonly bytes: number }
  /** The conditions of a PutObject are ignored, as stores without conditional writes do. */
  | { readonly kind: 'ignore-condition' }
  /** A lock is ignored, as stores do that only take its headers. */
  | { readonly kind: 'ignore-lock' }
  /** A listing says that it is truncated and gives no token. */
  | { readonly kind: 'no-token' };

interface Rule {
  readonly fault: Fault;
  readonly matches: (request: S3Request) => boolean;
  left: number;
}

/** The faults that a server is to commit: rules in order, each for a number of requests. */
export class Faults {
  readonly #rules: Rule[] = [];

  /** The next `times` requests that match get the fault (default: one request, of any kind). */
  add(fault: Fault, options: { times?: number; matches?: (request: S3Request) => boolean } = {}): void {
    this.#rules.push({ fault, matches: options.matches ?? (() => true), left: options.times ?? 1 });
  }

  /** How many faults have not been committed yet. */
  get pending(): number {
    return this.#rules.reduce((sum, rule) => sum + (Number.isFinite(rule.left) ? rule.left : 0), 0);
  }

  clear(): void {
    this.#rules.length = 0;
  }

  take(request: S3Request): Fault | undefined {
    const rule = this.#rules.find((candidate) => candidate.left > 0 && candidate.matches(request));
    if (rule) rule.left--;
    return rule?.fault;
  }
}
