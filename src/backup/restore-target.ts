import { constants } from 'node:fs';
import {
  access,
  type FileHandle,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rm,
  symlink,
  unlink,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { forEachLimit } from '../base/concurrency.ts';
import { codeOf, DrError, fileError } from '../base/errors.ts';
import { type FileAttributes, removeInheritedAcls, setFileAttributes } from '../base/file-attributes.ts';
import { libc } from '../base/libc.ts';
import type { IndexEntry } from './index-format.ts';
import { UnsetAttributes } from './unset-attributes.ts';

/** Stands in a restored directory until everything in it is complete and checked. */
export const INCOMPLETE_MARKER = '.dr-restore-incomplete';

const slash = 0x2f;

/** From so many files on everything is made durable at once instead of file by file. */
const FILES_SYNCED_EACH = 1000;

/**
 * The directory that a restore fills. It must be new or empty: dr never mixes restored files with others. What an interrupted
 * restore of dr left behind (recognised by its marker) is removed first.
 */
export class RestoreTarget {
  readonly root: string;
  /** Extended attributes that could not be set. */
  readonly unset = new UnsetAttributes();
  readonly #owners: boolean;
  readonly #ownersWanted: boolean;
  readonly #relocate: ((entryPath: string) => string | undefined) | undefined;
  readonly #made = new Set<string>();
  readonly #directories: IndexEntry[] = [];
  readonly #links: IndexEntry[] = [];
  /** Restored outside of the root. */
  readonly #elsewhere: Buffer[] = [];
  /** The root, open from the beginning on: only so does the flush of its file system report every failed write since. */
  #rootHandle: FileHandle | undefined;
  #files = 0;
  #foreign = 0;

  /**
   * `owners`: restore user and group ids; by default when running as root, who alone may. `relocate`: another absolute path for an
   * entry, or undefined for its place below the root (tablespaces).
   */
  constructor(
    root: string,
    options: { owners?: boolean | undefined; relocate?: (entryPath: string) => string | undefined },
  ) {
    this.root = path.resolve(root);
    this.#owners = options.owners ?? process.getuid?.() === 0;
    this.#ownersWanted = options.owners ?? true;
    this.#relocate = options.relocate;
  }

  /** What could not be restored, in lines for people. */
  get warnings(): string[] {
    const { lines } = this.unset;
    if (this.#foreign === 0) return lines;
    return [`the owners of ${this.#foreign} entries: only root can set them, so they belong to this user`, ...lines];
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
      // Else everything made below would inherit them.
      removeInheritedAcls(Buffer.from(this.root));
      this.#rootHandle = await open(this.root, constants.O_RDONLY);
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

  /** Absolute path of a file, its parent directories made. */
  async place(entry: IndexEntry): Promise<Buffer> {
    const absolute = this.#absolute(entry.path);
    if (entry.type === 'file') this.#files++;
    this.#noteElsewhere(absolute);
    const parent = absolute.subarray(0, absolute.lastIndexOf(slash));
    const name = parent.toString('latin1');
    if (!this.#made.has(name)) {
      await mkdir(parent, { recursive: true, mode: 0o700 });
      // A hint only: entries of a directory stand together.
      if (this.#made.size > 1000) this.#made.clear();
      this.#made.add(name);
    }
    return absolute;
  }

  /** What a restored entry gets besides its content. */
  attributesOf({ mode, uid, gid, mtimeNs, attributes: extended = [] }: IndexEntry): FileAttributes {
    if (this.#owners) return { mode, owner: { uid, gid }, mtimeNs, extended };
    if (this.#ownersWanted && (uid !== process.getuid?.() || gid !== process.getgid?.())) this.#foreign++;
    return { mode, owner: undefined, mtimeNs, extended };
  }

  /** Gives a restored file (open), or a directory or link (by its path) all that. */
  setAttributes(of: number | Buffer, entry: IndexEntry): void {
    const kind = entry.type === 'hardlink' ? 'file' : entry.type;
    this.unset.add(entry.path.toString('utf8'), setFileAttributes(of, kind, this.attributesOf(entry)));
  }

  /** Directories are made now and get their attributes last; links are made last, so that nothing is written through one. */
  async addOther(entry: IndexEntry): Promise<void> {
    if (entry.type === 'directory') {
      const absolute = this.#absolute(entry.path);
      await mkdir(absolute, { recursive: true, mode: 0o700 });
      this.#noteElsewhere(absolute);
      this.#directories.push(entry);
    } else {
      this.#links.push(entry);
    }
  }

  /**
   * Links, directory attributes, everything to the disk, and last the removal of the marker: only now is the restore complete. When
   * this returns, no crash takes anything back.
   */
  async complete(): Promise<void> {
    for (const entry of this.#links) await this.#makeLink(entry);
    // Before modes that may keep us from opening what is to be flushed.
    const flushEach = !libc() || this.#files < FILES_SYNCED_EACH;
    if (flushEach) await flushTree(Buffer.from(this.root));
    await forEachLimit(this.#elsewhere, 8, flushToDisk);
    const deepestFirst = this.#directories.sort((a, b) => b.path.length - a.path.length);
    const root = deepestFirst.find(({ path: name }) => name.length === 0);
    for (const [i, entry] of deepestFirst.entries()) {
      if (entry === root) continue;
      const absolute = this.#absolute(entry.path);
      this.setAttributes(absolute, entry);
      if (flushEach) await flushToDisk(absolute);
      // What sets attributes is synchronous, for speed: others get their turn in between.
      else if (i % 100 === 0) await setImmediate();
    }
    if (!flushEach) await this.#flushAll();
    await unlink(path.join(this.root, INCOMPLETE_MARKER));
    if (root) this.setAttributes(Buffer.from(this.root), root);
    await this.#rootHandle?.sync();
    await this.close();
    await flushToDisk(Buffer.from(path.dirname(this.root)));
  }

  /** Lets go of the directory, also after a failure. */
  async close(): Promise<void> {
    await this.#rootHandle?.close();
    this.#rootHandle = undefined;
  }

  /**
   * One flush of the whole file system: it writes what others have in memory too, yet takes a fraction of the time of thousands of
   * flushes of single files.
   */
  async #flushAll(): Promise<void> {
    try {
      if (this.#rootHandle) await libc()?.syncFileSystem(this.#rootHandle.fd);
    } catch (error) {
      // A sandbox may forbid it; anything else is a disk that failed.
      if (codeOf(error) !== 'ENOSYS' && codeOf(error) !== 'EPERM') throw error;
      await flushTree(Buffer.from(this.root));
    }
  }

  #noteElsewhere(absolute: Buffer): void {
    const root = Buffer.from(this.root);
    const isBelow = absolute.subarray(0, root.length).equals(root) && (absolute[root.length] ?? slash) === slash;
    if (!isBelow) this.#elsewhere.push(absolute);
  }

  async #makeLink(entry: IndexEntry): Promise<void> {
    const absolute = await this.place(entry);
    const target = entry.target ?? Buffer.alloc(0);
    if (entry.type === 'hardlink') {
      await link(this.#absolute(target), absolute);
      return;
    }
    await symlink(target, absolute);
    this.setAttributes(absolute, entry);
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

/** `fsync` of all files and directories below a directory, and of itself. */
async function flushTree(directory: Buffer): Promise<void> {
  const below: Buffer[] = [];
  const files: Buffer[] = [];
  for (const entry of await readdir(directory, { encoding: 'buffer', withFileTypes: true })) {
    const absolute = Buffer.concat([directory, Buffer.from('/'), entry.name]);
    if (entry.isDirectory()) below.push(absolute);
    else if (entry.isFile()) files.push(absolute);
  }
  await forEachLimit(files, 8, flushToDisk);
  for (const inner of below) await flushTree(inner);
  await flushToDisk(directory);
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
