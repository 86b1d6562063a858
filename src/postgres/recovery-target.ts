import { type FileHandle, open } from 'node:fs/promises';
import { codeOf, DrError, fileError } from '../base/errors.ts';
import { formatLsn, type Lsn } from './lsn.ts';

/** How far to replay. With the archive's end a target that cannot be reached because of a hole before it is told from one after it. */
export type RecoveryTarget =
  /** Everything that the archive has; `endLsn` is its first missing byte (it may lie inside of a record). */
  | { readonly kind: 'latest'; readonly endLsn: Lsn }
  /** Everything before this position, and the record that begins there. */
  | { readonly kind: 'lsn'; readonly lsn: Lsn; readonly endLsn?: Lsn }
  /**
   * Every commit up to this moment, inclusive; milliseconds since 1970. PostgreSQL knows that it is reached by a later
   * commit only. `covered`: the caller knows that the archive holds every commit up to this moment, so that replaying all of it
   * (proved to `endLsn`) without meeting a later commit is reaching the target.
   */
  | { readonly kind: 'time'; readonly atMs: number; readonly endLsn?: Lsn; readonly covered?: boolean };

export function describeTarget(target: RecoveryTarget): string {
  if (target.kind === 'latest') return `the end of the archive (${formatLsn(target.endLsn)})`;
  return target.kind === 'lsn' ? `LSN ${formatLsn(target.lsn)}` : new Date(target.atMs).toISOString();
}

/** How far replay came and what it had. */
export interface Reached {
  readonly replayedTo: Lsn;
  /** Newest commit that was replayed, milliseconds since 1970; undefined when the WAL contained none. */
  readonly lastCommitAtMs: number | undefined;
}

/** The error for a target that the WAL does not contain. */
export function unreached(target: RecoveryTarget, reached: Reached, missingSegment: string): DrError {
  const last =
    reached.lastCommitAtMs === undefined
      ? 'it contains no commit'
      : `its last commit is of ${new Date(reached.lastCommitAtMs).toISOString()}`;
  return new DrError(
    'not-found',
    `the recovery target ${describeTarget(target)} was not reached: the WAL can be replayed up to ${formatLsn(reached.replayedTo)}, ${last}, and segment ${missingSegment} has nothing after that`,
    {
      where: missingSegment,
      next: 'Recover to a moment or LSN in this range, to latest, or from a vault that has more.',
    },
  );
}

export interface PageSizes {
  readonly pageBytes: number;
  readonly segmentBytes: number;
}

/** Page headers of the WAL (`XLogPageHeaderData`, `XLogLongPageHeaderData` on a segment's first page), bytes. */
const shortHeader = 24n;
const longHeader = 40n;
/** `SizeOfXLogRecord`. */
const recordHeader = 24;

/**
 * Where the record ends that begins at `start`, the end of the last replayed one. PostgreSQL stops silently at a record that
 * it cannot read; this tells an incomplete record (ends beyond what the archive has) from a damaged one.
 * `read` gives 4 bytes at a position. Undefined when there is no record but zeros or nonsense.
 */
export async function recordEnd(
  start: Lsn,
  sizes: PageSizes,
  read: (at: Lsn) => Promise<number>,
): Promise<Lsn | undefined> {
  const at = pastHeader(start, sizes);
  const length = await read(at);
  return length < recordHeader ? undefined : advance(at, BigInt(length), sizes);
}

/**
 * What begins at `end`, the end of the last replayed record: a change of settings (`XLOG_PARAMETER_CHANGE`, rmgr 0 and info 0x60 of
 * `pg_control.h`) or anything else. Undefined when there is no record but zeros or nonsense.
 */
export async function recordKind(
  end: Lsn,
  sizes: PageSizes,
  read: (at: Lsn) => Promise<number>,
): Promise<'parameter-change' | 'other' | undefined> {
  const start = pastHeader(aligned(end), sizes);
  if ((await read(start)) < recordHeader) return undefined;
  // `xl_info` and `xl_rmid` of XLogRecord.
  const word = await read(pastHeader(advance(start, 16n, sizes), sizes));
  const [info, manager] = [word & 0xf0, (word >>> 8) & 0xff];
  return manager === 0 && info === 0x60 ? 'parameter-change' : 'other';
}

/**
 * Where the last complete record before `limit` ends, found by going through the records of the segment that begins at
 * `segment`. For the rare server that cannot be asked; it does not check the records themselves.
 */
export async function lastRecordEnd(
  segment: Lsn,
  limit: Lsn,
  sizes: PageSizes,
  read: (at: Lsn) => Promise<number>,
): Promise<Lsn> {
  // `xlp_rem_len`: what is left of a record that began in the segment before.
  let at = aligned(advance(segment + longHeader, BigInt(await read(segment + 16n)), sizes));
  const segmentEnd = segment + BigInt(sizes.segmentBytes);
  while (at < limit && at < segmentEnd) {
    const end = await recordEnd(at, sizes, read);
    if (end === undefined || end > limit) break;
    at = aligned(end);
  }
  return at;
}

/** Records begin at multiples of 8 (`MAXALIGN`). */
function aligned(at: Lsn): Lsn {
  return (at + 7n) & ~7n;
}

/** The first byte of content at a position. */
function pastHeader(at: Lsn, sizes: PageSizes): Lsn {
  return at % BigInt(sizes.pageBytes) === 0n ? at + headerAt(at, sizes) : at;
}

function headerAt(page: Lsn, sizes: PageSizes): bigint {
  return page % BigInt(sizes.segmentBytes) === 0n ? longHeader : shortHeader;
}

/** The position `length` bytes of content after `from`, not counting the headers of the pages between. */
function advance(from: Lsn, length: bigint, sizes: PageSizes): Lsn {
  const page = BigInt(sizes.pageBytes);
  let at = from;
  for (let left = length; ; ) {
    const room = page - (at % page);
    if (left <= room) return at + left;
    left -= room;
    at += room;
    at += headerAt(at, sizes);
  }
}

/** The 32-bit number at a position of a WAL segment file; undefined when there is no such file. */
export async function readWord(segmentFile: string, offset: number): Promise<number | undefined> {
  let file: FileHandle;
  try {
    file = await open(segmentFile, 'r');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw fileError(error, segmentFile, 'read a WAL segment');
  }
  try {
    const buffer = Buffer.alloc(4);
    await file.read(buffer, 0, 4, offset);
    return buffer.readUInt32LE(0);
  } finally {
    await file.close();
  }
}
