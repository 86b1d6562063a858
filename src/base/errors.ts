/** What went wrong, in classes that decide the exit code of a command and whether a retry can help. */
export type ErrorKind =
  | 'internal' // a defect of dr
  | 'usage' // wrong arguments
  | 'config' // the configuration cannot be used
  | 'objective-broken' // the work is done, but an objective is not met or a vault lacks its copy
  | 'lease-held' // somebody else is doing this
  | 'not-found' // no such resource, backup, recovery point, object
  | 'corrupt' // stored bytes are not what was written
  | 'wrong-key' // the identity cannot open this vault
  | 'unreachable' // a vault, database, DNS or HTTP endpoint does not answer
  | 'denied' // it answers, and refuses these credentials
  | 'refused' // dr refuses: going on could do harm
  | 'conflict' // the same name already holds different content
  | 'local' // disk full, read-only, permission, missing program
  | 'check-failed' // a validation or verification check said no
  | 'interrupted'; // a signal or an abort

/** Facts that turn a message into help: what failed (message), where, why and what to do next. */
export interface ErrorFacts {
  /** The thing concerned: a file, an object key with its vault, a URL without credentials. */
  readonly where?: string;
  /** What to do next, as one imperative sentence. */
  readonly next?: string;
  readonly cause?: unknown;
  /** True when the same call may succeed later without anybody changing anything. */
  readonly retryable?: boolean;
}

/** The one error class of dr: every failure that a person can act on is one of these. */
export class DrError extends Error {
  override readonly name = 'DrError';
  readonly kind: ErrorKind;
  readonly where: string | undefined;
  readonly next: string | undefined;
  readonly retryable: boolean;

  constructor(kind: ErrorKind, message: string, facts: ErrorFacts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.kind = kind;
    this.where = facts.where;
    this.next = facts.next;
    this.retryable = facts.retryable ?? kind === 'unreachable';
  }
}

/** The text of anything thrown, without a stack. */
export function messageOf(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') {
    return error.errors.map(messageOf).join('; ');
  }
  return error instanceof Error ? error.message : String(error);
}

/** The error code of a Node or PostgreSQL error (`ENOSPC`, `28P01`), where it has one. */
export function codeOf(error: unknown): string | undefined {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return undefined;
}

/** True for the rejection of an aborted signal, whoever threw it. */
export function isAbort(error: unknown): boolean {
  return (
    (error instanceof Error && (error.name === 'AbortError' || error.name === 'TimeoutError')) ||
    (error instanceof DrError && error.kind === 'interrupted')
  );
}

/** Turns a failed file operation into an error that says what to do; anything else passes through unchanged. */
export function fileError(error: unknown, path: string, doing: string): unknown {
  const code = codeOf(error);
  const next: Record<string, string> = {
    ENOSPC:
      'Free space there (df -h; df -i: files may be used up too) or choose another place, then run the command again.',
    EDQUOT: 'Raise the quota or choose another place, then run the command again.',
    EROFS: 'The file system is mounted read-only: choose a place that can be written.',
    EACCES: 'Give the user that runs dr access to it, or run dr as another user.',
    EPERM: 'Give the user that runs dr access to it, or run dr as another user.',
    ENOENT: 'Create it or correct the path.',
    ENOTDIR: 'A part of the path is a file where a directory is needed: correct the path.',
    EMFILE: 'Raise the limit of open files (ulimit -n).',
    EIO: 'The disk reports an input/output error: look at the kernel log and replace it.',
  };
  if (code === undefined || next[code] === undefined) return error;
  const kind = code === 'ENOENT' ? 'not-found' : 'local';
  return new DrError(kind, `cannot ${doing}: ${messageOf(error)}`, { where: path, next: next[code], cause: error });
}
