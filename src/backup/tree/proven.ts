import { statfs } from 'node:fs/promises';
import type { StatFacts } from '../previous/previous-backup.ts';

/**
 * The facts that a file system gives of a file prove that it has not changed when all are equal to those at its last reading: size, time of
 * modification, inode, device, and the time of change of the inode, which no program can set. But only if any change since that
 * reading had to give it another time. That is not so of a file that was changed shortly before it was read ("racily clean", as git
 * calls it): a change right after the reading may get the same time, because
 * - clocks of file systems tick in steps: milliseconds mostly, up to two seconds;
 * - a program that writes through a mapping of the file gives it a new time only when it touches a page the first time since that page was
 *   last written to the disk, which Linux does after 30 s (`vm.dirty_expire_centisecs`) and a few more;
 * - the clock of a file server need not be ours.
 * So a file whose times lie within a margin before its reading, or after it, is read again the next time; that costs a reading, and
 * nothing is stored again. Whether our clock is right does not matter on a local disk: it gives both times.
 */
const LOCAL_MARGIN_MS = 60_000;
/** File servers, and whatever is not known to be a local disk: their clock may be off by as much. */
const OTHER_MARGIN_MS = 10 * 60_000;

/** `f_type` of file systems that take their times from the clock of this machine (linux/magic.h). */
const LOCAL = new Set([
  0xef53, // ext2, ext3, ext4
  0x58465342, // XFS
  0x9123683e, // Btrfs
  0x2fc12fc1, // ZFS
  0xf2f52010, // F2FS
  0xca451a4e, // bcachefs
  0x01021994, // tmpfs
  0x794c7630, // overlayfs
]);

/** Says of which files the facts prove something at the next backup. */
export class Proven {
  readonly #now: () => number;
  readonly #margins = new Map<bigint, number>();

  /** `now`: milliseconds since 1970. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** The moment before a file is read, to be given to `factsOf`. */
  begin(): number {
    return this.#now();
  }

  /** Finds out what kind of file system a device is, by a directory on it. */
  async learn(dev: bigint, directory: Buffer): Promise<void> {
    if (this.#margins.has(dev)) return;
    this.#margins.set(dev, OTHER_MARGIN_MS);
    const type = await statfs(directory).then(
      (facts) => facts.type,
      () => 0,
    );
    if (process.platform === 'linux' && LOCAL.has(type)) this.#margins.set(dev, LOCAL_MARGIN_MS);
  }

  /** What proves at the next backup that the file is as it was read; undefined if nothing does. */
  factsOf(stat: StatFacts, readFromMs: number): StatFacts | undefined {
    const { size, mtimeNs, ctimeNs, ino, dev } = stat;
    const marginMs = this.#margins.get(dev) ?? OTHER_MARGIN_MS;
    const settledNs = BigInt(Math.floor(readFromMs) - marginMs) * 1_000_000n;
    if (mtimeNs >= settledNs || ctimeNs >= settledNs) return undefined;
    return { size, mtimeNs, ctimeNs, ino, dev };
  }
}

export function sameFacts(a: StatFacts, b: StatFacts): boolean {
  return a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs && a.ino === b.ino && a.dev === b.dev;
}
