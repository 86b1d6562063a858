import { constants } from 'node:fs';
import { lstat, mkdir, open, readdir, realpath, rmdir, stat, unlink } from 'node:fs/promises';
import { dirname, join, relative, sep } from 'node:path';
import { codeOf, DrError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { layout } from './layout.ts';

/** Where objects are written before they get their name; no key can begin with a dot. */
export const temporaryFolder = '.tmp';
const DAY_MS = 86_400_000;

/** Directories remembered, at most. */
const REMEMBERED = 20_000;
/** How long a look at the root counts for reading, milliseconds. */
const LATELY_MS = 1000;

/** True when there is no such file (or a file where the path needs a directory). */
export function isAbsent(error: unknown): boolean {
  const code = codeOf(error);
  return code === 'ENOENT' || code === 'ENOTDIR';
}

/** The result, or undefined when there is no such file. */
export async function orUndefined<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

/** Makes the entries of a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } catch (error) {
    // Some network file systems have no such call for directories: their server makes entries durable by itself.
    const code = codeOf(error);
    if (code !== 'EINVAL' && code !== 'ENOTSUP' && code !== 'EBADF') throw error;
  } finally {
    await handle.close();
  }
}

/** The directory of a file vault: whether it is there, its sub-directories and its temporary files. */
export class FileRoot {
  readonly path: string;
  readonly #vault: string;
  readonly #location: string;
  readonly #log: Log;
  #identity: string | undefined;
  #realPath: string | undefined;
  #sweptMs = 0;
  /** When the root was last found to be there, by performance.now(). */
  #foundMs = Number.NEGATIVE_INFINITY;
  /** Directories whose whole path from the root is known to be durable and inside the root. */
  readonly #known = new Set<string>();
  /** Directories that are known to be inside the root. */
  readonly #inside = new Set<string>();

  constructor(path: string, vault: string, location: string, log: Log) {
    this.path = path;
    this.#vault = vault;
    this.#location = location;
    this.#log = log;
  }

  /** The path of a key or folder, without slash at its end. */
  pathOf(key: string): string {
    return join(this.path, key.replace(/\/$/, ''));
  }

  /** Creates the directory with its parents, durably. */
  async make(): Promise<void> {
    // Enrolment takes the place as it finds it, also after a vault that was there before.
    this.#identity = undefined;
    this.#forgetAll();
    const first = await mkdir(this.path, { recursive: true, mode: 0o750 }).catch((error: unknown) => {
      if (codeOf(error) !== 'EEXIST' && codeOf(error) !== 'ENOTDIR') throw error;
      throw new DrError('config', `vault ${this.#vault} cannot be made: a file is in the way`, {
        where: this.#location,
        next: `Correct the url of vault ${this.#vault}, or move the file away.`,
        cause: error,
      });
    });
    if (first === undefined) return;
    for (let made = this.path; ; made = dirname(made)) {
      await syncDirectory(dirname(made));
      if (made === first || dirname(made) === made) return;
    }
  }

  /**
   * The same for reading, unless it was there a moment ago: who then finds a file missing asks again with `require`. What is
   * written, deleted or listed must never meet an empty mount point, so it always asks.
   */
  async requireLately(): Promise<void> {
    if (performance.now() - this.#foundMs > LATELY_MS) await this.require();
  }

  /** Throws `unreachable` when the directory is gone or another one without a vault has taken its place (unmounted). */
  async require(): Promise<void> {
    const info = await orUndefined(stat(this.path));
    if (info === undefined || !info.isDirectory()) {
      throw new DrError('unreachable', `the directory of vault ${this.#vault} is not there`, {
        where: this.#location,
        next: `Mount its volume or correct the url of vault ${this.#vault}.`,
        retryable: false,
      });
    }
    const identity = `${info.dev}:${info.ino}`;
    if (identity === this.#identity) {
      this.#foundMs = performance.now();
      return;
    }
    if (this.#identity !== undefined && (await orUndefined(lstat(join(this.path, layout.marker)))) === undefined) {
      throw new DrError(
        'unreachable',
        `the directory of vault ${this.#vault} has been replaced by one without a vault`,
        {
          where: this.#location,
          next: 'Mount its volume again; if it was moved, restart dr.',
          retryable: false,
        },
      );
    }
    this.#identity = identity;
    this.#foundMs = performance.now();
    this.#forgetAll();
  }

  #forgetAll(): void {
    this.#realPath = undefined;
    this.#known.clear();
    this.#inside.clear();
  }

  /** True when the directory is there (or was a moment ago); throws `refused` when a symbolic link takes it out of the vault. */
  async requireInside(directory: string): Promise<boolean> {
    if (this.#known.has(directory) || this.#inside.has(directory)) return true;
    this.#realPath ??= await realpath(this.path);
    const actual = await orUndefined(realpath(directory));
    if (actual === undefined) return false;
    if (actual === join(this.#realPath, relative(this.path, directory))) {
      if (this.#inside.size > REMEMBERED) this.#inside.clear();
      this.#inside.add(directory);
      return true;
    }
    throw new DrError('refused', `${directory} is reached through a symbolic link`, {
      where: this.#location,
      next: 'Replace the link by the directory itself: dr does not leave the directory of a vault.',
    });
  }

  /** Makes a directory below the root, never the root itself, with every entry on the way to it durable. */
  async ensureDirectory(directory: string): Promise<void> {
    if (this.#known.has(directory)) return;
    let at = this.path;
    for (const part of relative(this.path, directory).split(sep)) {
      if (part === '') continue;
      const parent = at;
      at = join(at, part);
      if (this.#known.has(at)) continue;
      try {
        await mkdir(at, { mode: 0o750 });
      } catch (error) {
        if (codeOf(error) !== 'EEXIST') throw error;
      }
      // Also when it was there already: its maker may have been killed before this point.
      await syncDirectory(parent);
    }
    await this.requireInside(directory);
    if (this.#known.size > REMEMBERED) this.#known.clear();
    this.#known.add(directory);
  }

  /** Forgets that a directory is there. */
  forget(directory: string): void {
    for (let at = directory; at !== this.path && at.startsWith(this.path); at = dirname(at)) this.#drop(at);
  }

  #drop(directory: string): void {
    this.#known.delete(directory);
    this.#inside.delete(directory);
  }

  /** Removes a directory and its parents as far as they are empty; the root stays. */
  async removeEmpty(directory: string): Promise<void> {
    for (let at = directory; at !== this.path && at.startsWith(this.path); at = dirname(at)) {
      this.#drop(at);
      try {
        await rmdir(at);
      } catch (error) {
        const code = codeOf(error);
        if (code === 'ENOENT') continue;
        if (code === 'ENOTEMPTY' || code === 'EEXIST') return;
        throw error;
      }
    }
  }

  /** Names of the directories in a folder, without those that begin with a dot. */
  async directoriesIn(folder: string): Promise<string[]> {
    const entries = (await orUndefined(readdir(this.pathOf(folder), { withFileTypes: true }))) ?? [];
    return entries.filter((entry) => entry.isDirectory() && isListed(entry.name)).map((entry) => entry.name);
  }

  /** Makes the temporary folder and, once a day, removes what killed processes left in it. */
  async readyTemporaryFolder(): Promise<void> {
    const folder = join(this.path, temporaryFolder);
    await this.ensureDirectory(folder);
    const now = Date.now();
    if (now - this.#sweptMs < DAY_MS) return;
    this.#sweptMs = now;
    for (const name of (await orUndefined(readdir(folder))) ?? []) {
      const path = join(folder, name);
      try {
        const info = await orUndefined(lstat(path));
        if (info?.isFile() && now - info.mtimeMs > DAY_MS) await orUndefined(unlink(path));
      } catch (error) {
        this.#log.warn(
          { vault: this.#vault, path, reason: messageOf(error) },
          'an old temporary file could not be removed',
        );
      }
    }
  }
}

/** False for what is never an object: names with a leading dot (`.tmp`, `.snapshot`) and what mkfs puts into every volume. */
export function isListed(name: string): boolean {
  return !name.startsWith('.') && name !== 'lost+found';
}
