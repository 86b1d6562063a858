import { type BigIntStats, constants } from 'node:fs';
import { lstat, open, readdir, readlink } from 'node:fs/promises';
import { codeOf, fileError, messageOf } from '../base/errors.ts';
import { globMatcher } from '../base/glob.ts';
import type { Note } from './manifest.ts';
import type { EntryHead, PackWriter } from './pack-writer.ts';
import type { PreviousBackup } from './previous/previous-backup.ts';

const READ_BYTES = 1024 * 1024;
/** Runs of zeros of this size, at multiples of it, become holes in a file that is sparse. */
const HOLE_BYTES = 64 * 1024;

export interface WalkOptions {
  readonly root: string;
  /** Globs on the path relative to the root. */
  readonly exclude: readonly string[];
  readonly pack: PackWriter;
  /** What it is compared with. */
  readonly previous?: PreviousBackup | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onFile?: (relativePath: string) => void;
}

export interface WalkResult {
  readonly files: number;
  readonly notes: Note[];
}

/**
 * Packs a directory tree as it is: files, folders, symbolic and hard links, modes, owners, times, sparse files, any file name.
 * What vanishes or changes meanwhile, or cannot be read, is noted; only a root that cannot be read is an error.
 */
export async function packDirectory(options: WalkOptions): Promise<WalkResult> {
  const root = await lstat(options.root, { bigint: true }).catch((error: unknown) => {
    throw fileError(error, options.root, 'read the directory to back up');
  });
  if (!root.isDirectory()) {
    throw fileError(Object.assign(new Error('it is not a directory'), { code: 'ENOTDIR' }), options.root, 'back up');
  }
  const walk = new Walk(options);
  await options.pack.add(headOf(Buffer.alloc(0), 'directory', root));
  await walk.directory(Buffer.from(options.root), Buffer.alloc(0), true);
  return { files: walk.files, notes: walk.notes };
}

class Walk {
  readonly notes: Note[] = [];
  files = 0;
  readonly #options: WalkOptions;
  readonly #excludes: (path: string) => string | undefined;
  /** First path of every inode with several names. */
  readonly #linked = new Map<string, Buffer>();
  readonly #buffer = Buffer.allocUnsafe(READ_BYTES);

  constructor(options: WalkOptions) {
    this.#options = options;
    this.#excludes = globMatcher(options.exclude);
  }

  async directory(absolute: Buffer, relative: Buffer, isRoot = false): Promise<void> {
    this.#options.signal?.throwIfAborted();
    let names: Buffer[];
    try {
      names = await readdir(absolute, { encoding: 'buffer' });
    } catch (error) {
      if (isRoot) throw fileError(error, this.#options.root, 'read the directory to back up');
      this.#noteFailure(relative, error);
      return;
    }
    // In byte order, so that equal trees make equal backups.
    names.sort(Buffer.compare);
    for (const name of names) {
      const below = relative.length === 0 ? name : Buffer.concat([relative, Buffer.from('/'), name]);
      if (this.#isExcluded(below)) continue;
      await this.#entry(Buffer.concat([absolute, Buffer.from('/'), name]), below);
    }
  }

  async #entry(absolute: Buffer, relative: Buffer): Promise<void> {
    let stats: BigIntStats;
    try {
      stats = await lstat(absolute, { bigint: true });
    } catch (error) {
      this.#noteFailure(relative, error);
      return;
    }
    const { pack } = this.#options;
    if (stats.isDirectory()) {
      await pack.add(headOf(relative, 'directory', stats));
      await this.directory(absolute, relative);
    } else if (stats.isSymbolicLink()) {
      await this.#symlink(absolute, relative, stats);
    } else if (stats.isFile()) {
      await this.#fileOrHardLink(absolute, relative, stats);
    } else {
      this.#note('skipped', relative, 'neither file, directory nor link (a socket, pipe or device)');
    }
  }

  async #symlink(absolute: Buffer, relative: Buffer, stats: BigIntStats): Promise<void> {
    try {
      const target = await readlink(absolute, { encoding: 'buffer' });
      await this.#options.pack.add({ ...headOf(relative, 'symlink', stats), target });
      this.files++;
    } catch (error) {
      this.#noteFailure(relative, error);
    }
  }

  async #fileOrHardLink(absolute: Buffer, relative: Buffer, stats: BigIntStats): Promise<void> {
    const inode = `${stats.dev}:${stats.ino}`;
    const first = stats.nlink > 1n ? this.#linked.get(inode) : undefined;
    if (first) {
      await this.#options.pack.add({ ...headOf(relative, 'hardlink', stats), target: first });
      this.files++;
      return;
    }
    if (await this.#file(absolute, relative)) {
      if (stats.nlink > 1n) this.#linked.set(inode, relative);
      this.files++;
    }
  }

  /** Packs the content of one file; false if it could not be opened. */
  async #file(absolute: Buffer, relative: Buffer): Promise<boolean> {
    // Never through a link that took the file's place since it was listed; never blocking on a pipe.
    const flags = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);
    const file = await open(absolute, flags).catch((error: unknown) => this.#noteFailure(relative, error));
    if (!file) return false;
    try {
      const before = await file.stat({ bigint: true });
      if (!before.isFile()) {
        this.#note('changed', relative, 'it became something else than a file while the directory was read');
        return false;
      }
      this.#options.onFile?.(relative.toString('utf8'));
      const { pack } = this.#options;
      await pack.begin(headOf(relative, 'file', before), Number(before.size), this.#options.previous?.lookup(relative));
      const isSparse = before.blocks * 512n < before.size;
      try {
        await this.#content(file, isSparse);
      } catch (error) {
        if (codeOf(error) === undefined || codeOf(error) !== 'EIO') throw error;
        this.#note('unreadable', relative, `${messageOf(error)}; its content is cut off there`);
      }
      const size = await pack.end();
      const after = await file.stat({ bigint: true });
      if (after.mtimeNs !== before.mtimeNs || after.size !== before.size || BigInt(size) !== before.size) {
        this.#note('changed', relative, 'it changed while it was read: its content may mix two states');
      }
      return true;
    } finally {
      await file.close();
    }
  }

  async #content(file: import('node:fs/promises').FileHandle, isSparse: boolean): Promise<void> {
    const { pack, signal } = this.#options;
    for (;;) {
      signal?.throwIfAborted();
      const { bytesRead } = await file.read(this.#buffer, 0, READ_BYTES, null);
      if (bytesRead === 0) return;
      if (!isSparse) {
        await pack.write(this.#buffer.subarray(0, bytesRead));
        continue;
      }
      for (let at = 0; at < bytesRead; at += HOLE_BYTES) {
        const block = this.#buffer.subarray(at, Math.min(at + HOLE_BYTES, bytesRead));
        if (block.length === HOLE_BYTES && isZero(block)) await pack.hole(block.length);
        else await pack.write(block);
      }
    }
  }

  #isExcluded(relative: Buffer): boolean {
    const text = relative.toString('utf8');
    return this.#excludes(text) !== undefined;
  }

  #noteFailure(relative: Buffer, error: unknown): undefined {
    const vanished = codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR';
    this.#note(vanished ? 'vanished' : 'unreadable', relative, messageOf(error));
  }

  #note(kind: Note['kind'], relative: Buffer, detail: string): void {
    this.notes.push({ kind, subject: relative.toString('utf8'), detail });
  }
}

function headOf(relative: Buffer, type: EntryHead['type'], stats: BigIntStats): EntryHead {
  return {
    path: relative,
    type,
    mode: Number(stats.mode & 0o7777n),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    mtimeNs: stats.mtimeNs,
  };
}

const zeros = Buffer.alloc(HOLE_BYTES);

function isZero(block: Buffer): boolean {
  return block.equals(zeros);
}
