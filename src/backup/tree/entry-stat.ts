import { type BigIntStats, constants } from 'node:fs';
import type { StatFacts } from '../previous/previous-backup.ts';

/** Numbers that `packStat` writes of each entry. */
export const FACT_COUNT = 10;

/** What a file system says of an entry. */
export interface EntryStat extends StatFacts {
  readonly kind: 'file' | 'directory' | 'symlink' | 'other';
  /** Permission bits, 12 of them. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Names of this inode. */
  readonly links: number;
  /** Fewer bytes on disk than in the file: it has holes. */
  readonly isSparse: boolean;
}

/** Writes the numbers of an entry to `numbers`, as entry `index`: a compact way from thread to thread. */
export function packStat(numbers: BigInt64Array, index: number, stats: BigIntStats): void {
  const { mode, uid, gid, nlink, blocks, size, mtimeNs, ctimeNs, ino, dev } = stats;
  numbers.set([mode, uid, gid, nlink, blocks, size, mtimeNs, ctimeNs, ino, dev], index * FACT_COUNT);
}

export function unpackStat(numbers: BigInt64Array, index: number): EntryStat {
  const [
    mode = 0n,
    uid = 0n,
    gid = 0n,
    links = 0n,
    blocks = 0n,
    size = 0n,
    mtimeNs = 0n,
    ctimeNs = 0n,
    ino = 0n,
    dev = 0n,
  ] = numbers.subarray(index * FACT_COUNT, (index + 1) * FACT_COUNT);
  return {
    kind: kindOf(Number(mode) & constants.S_IFMT),
    mode: Number(mode) & 0o7777,
    uid: Number(uid),
    gid: Number(gid),
    links: Number(links),
    isSparse: blocks * 512n < size,
    size,
    mtimeNs,
    ctimeNs,
    ino,
    dev,
  };
}

function kindOf(type: number): EntryStat['kind'] {
  if (type === constants.S_IFREG) return 'file';
  if (type === constants.S_IFDIR) return 'directory';
  return type === constants.S_IFLNK ? 'symlink' : 'other';
}
