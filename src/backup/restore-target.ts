import { constants } from 'node:fs';
import {
  access,
  chmod,
  chown,
  lchown,
  link,
  lutimes,
  mkdir,
  open,
  readdir,
  readFile,
  rm,
  symlink,
  unlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { forEachLimit } from '../base/concurrency.ts';
import { codeOf, DrError, fileError } from '../base/errors.ts';
import type { IndexEntry } from './index-format.ts';

/** Stands in a restored directory until everything in it is complete and checked. */
export const INCOMPLETE_MARKER = '.dr-restore-incomplete';

/**
 * Seconds with fraction, as Node's file times want them: exact to a microsecond, which is what a double holds. The half
 * microsecond keeps the rounding of the double from falling into the microsecond before.
 */
export function secondsOf(mtimeNs: bigint): number {
  return (Number(mtimeNs / 1000n) + 0.5) / 1e6;
}

/**
 * The directory that a restore fills. It must be new or empty: dr never mixes restored files with others. What an interrupted
 * restore of dr left behind (recognised by its marker) is removed first.
 */
export class RestoreTarget {
  readonly root: string;
  readonly #owners: boolean;
  readonly #relocate: ((entryPath: string) => string | undefined) | undefined;
  readonly #made = new Set<string>();
  readonly #directories: IndexEntry[] = [];
  readonly #links: IndexEntry[] = [];
  readonly #files: Buffer[] = [];

  /**
   * `owners`: restore user and group ids (needs root). `relocate`: another absolute path for an entry, or undefined for its place
   * below the root (tablespaces).
   */
  constructor(root: string, options: { owners: boolean; relocate?: (entryPath: string) => string | undefined }) {
    this.root = path.resolve(root);
    this.#owners = options.owners;
    this.#relocate = options.relocate;
  }

  /** Makes the directory ready, or throws `refused` (not empty) or `local` (cannot be written). */
  async prepare(what: string): Promise<void> {
    try {
      await makeRoot(this.root);
      const present = await readdir(this.root);
      if (present.includes(INCOMPLETE_MARKER)) {
        await Promise.all(present.map((name) => rm(path.join(this.root, name), { recursive: true, force: true })));
      } else if (present.length > 0) {
        throw new DrError('refused', `the restore target is not empty (${present.length} entries)`, {
          where: this.root,
          next: 'Name a new or empty directory, or move away what is there: dr does not overwrite.',
        });
      }
      await writeFile(path.join(this.root, INCOMPLETE_MARKER), `${what}\n`, { flag: 'wx', mode: 0o600 });
    } catch (error) {
      throw fileError(error, this.root, 'prepare the restore target');
    }
  }

  /** What an unfinished restore into `root` was of; undefined if there is none. */
  static async unfinished(root: string): Promise<string | undefined> {
    try {
      return (await readFile(path.join(root, INCOMPLETE_MARKER), 'utf8')).trim();
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return undefined;
      throw fileError(error, root, 'read the restore target');
    }
  }

  /** Absolute path of an entry, its parent directories made. */
  async place(entry: IndexEntry): Promise<Buffer> {
    const absolute = this.#absolute(entry.path);
    const slash = absolute.lastIndexOf(47);
    const parent = absolute.subarray(0, slash);
    const name = parent.toString('latin1');
    if (!this.#made.has(name)) {
      await mkdir(parent, { recursive: true, mode: 0o700 });
      this.#made.add(name);
    }
    return absolute;
  }

  owner(entry: IndexEntry): { uid: number; gid: number } | undefined {
    return this.#owners ? { uid: entry.uid, gid: entry.gid } : undefined;
  }

  /** Remembers a restored file, for the final flush to disk. */
  addFile(absolute: Buffer): void {
    this.#files.push(absolute);
  }

  /** Directories are made now and get their attributes last; links are made last, so that nothing is written through one. */
  async addOther(entry: IndexEntry): Promise<void> {
    if (entry.type === 'directory') {
      await mkdir(this.#absolute(entry.path), { recursive: true, mode: 0o700 });
      this.#directories.push(entry);
    } else {
      this.#links.push(entry);
    }
  }

  /** Links, flush to disk, directory attributes, and last the removal of the marker: only now is the restore complete. */
  async complete(): Promise<void> {
    for (const entry of this.#links) await this.#makeLink(entry);
    await forEachLimit(this.#files, 8, flushToDisk);
    const deepestFirst = this.#directories.sort((a, b) => b.path.length - a.path.length);
    await unlink(path.join(this.root, INCOMPLETE_MARKER));
    for (const entry of deepestFirst) {
      const absolute = this.#absolute(entry.path);
      if (this.#owners) await chown(absolute, entry.uid, entry.gid);
      await chmod(absolute, entry.mode);
      await utimes(absolute, secondsOf(entry.mtimeNs), secondsOf(entry.mtimeNs));
      await flushToDisk(absolute);
    }
  }

  async #makeLink(entry: IndexEntry): Promise<void> {
    const absolute = await this.place(entry);
    const target = entry.target ?? Buffer.alloc(0);
    if (entry.type === 'hardlink') {
      await link(this.#absolute(target), absolute);
      return;
    }
    await symlink(target, absolute);
    if (this.#owners) await lchown(absolute, entry.uid, entry.gid);
    await lutimes(absolute, secondsOf(entry.mtimeNs), secondsOf(entry.mtimeNs));
  }

  #absolute(entryPath: Buffer): Buffer {
    const elsewhere = this.#relocate?.(entryPath.toString('utf8'));
    if (elsewhere !== undefined) return Buffer.from(elsewhere);
    return entryPath.length === 0 ? Buffer.from(this.root) : Buffer.concat([Buffer.from(`${this.root}/`), entryPath]);
  }
}

/** Makes the directory with its parents. Node says "not found" for a read-only file system and "exists" for a file: said rightly here. */
async function makeRoot(root: string): Promise<void> {
  try {
    await mkdir(root, { recursive: true, mode: 0o700 });
  } catch (error) {
    if (codeOf(error) === 'EEXIST') {
      throw new DrError('local', 'the restore target is a file, and a directory is needed', {
        where: root,
        next: 'Name a new or empty directory: dr does not overwrite.',
        cause: error,
      });
    }
    if (codeOf(error) === 'ENOENT') {
      let parent = path.dirname(root);
      while (parent !== path.dirname(parent) && !(await exists(parent))) parent = path.dirname(parent);
      await access(parent, constants.W_OK | constants.X_OK);
    }
    throw error;
  }
}

async function exists(place: string): Promise<boolean> {
  return await access(place).then(
    () => true,
    () => false,
  );
}

/** `fsync` of a file or directory, opened for it. A file without read permission for us was flushed by whoever could write it. */
async function flushToDisk(absolute: Buffer): Promise<void> {
  const file = await open(absolute, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0)).catch((error: unknown) => {
    if (codeOf(error) === 'EACCES') return undefined;
    throw error;
  });
  if (!file) return;
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
