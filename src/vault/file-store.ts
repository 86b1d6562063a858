import { randomBytes } from 'node:crypto';
import { link, lstat, open, rename, unlink } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { forEachLimit, mapInOrder } from '../base/concurrency.ts';
import { codeOf, DrError, fileError } from '../base/errors.ts';
import { freeBuffer } from '../base/free-memory.ts';
import { type Log, silentLog } from '../base/log.ts';
import { readRange } from './file-read.ts';
import { FileReader } from './file-reader.ts';
import { FileRoot, isAbsent, orUndefined, syncDirectory, temporaryFolder } from './file-root.ts';
import { hasFile, walkFiles, walkNames } from './file-walk.ts';
import { compareKeys, requireFolder, requireKeyPrefix, requireObjectKey } from './object-key.ts';
import { readEachAlone } from './read-each.ts';
import type {
  Body,
  ByteRange,
  CallOptions,
  CreateOptions,
  FolderOptions,
  ListOptions,
  ObjectInfo,
  ObjectStore,
  ReadOutcome,
  RequestKind,
} from './store.ts';
import { UsageMeter } from './usage.ts';

/** Fewer objects than this are read without a thread for it: that takes 30 ms to start. */
const WORTH_A_THREAD = 200;
/** Objects that the thread reads at a time. */
const READ_BATCH = 128;
/** Bytes per write call: larger ones cost more CPU in the kernel than they save in calls. */
const WRITE_BYTES = 1024 * 1024;

/**
 * A vault in a directory. Objects are files; an object appears whole or not at all: it is written and synced under `.tmp/`
 * and then linked to its name, which fails when the name is taken. Directories are synced before `created` is answered.
 */
export class FileStore implements ObjectStore {
  readonly name: string;
  readonly region: string;
  readonly location: string;
  readonly stats = new UsageMeter();
  readonly #root: FileRoot;

  constructor(options: { readonly name: string; readonly region: string; readonly root: string; readonly log?: Log }) {
    this.name = options.name;
    this.region = options.region;
    const root = resolve(options.root);
    this.location = pathToFileURL(root).href;
    this.#root = new FileRoot(root, options.name, this.location, options.log ?? silentLog);
  }

  async prepare(): Promise<void> {
    await this.#doing('prepare the directory of', '', () => this.#root.make());
  }

  async create(key: string, body: Body, options: CreateOptions = {}): Promise<'created' | 'exists'> {
    await this.#begin('create', options, key);
    return this.#doing('store an object in', key, async () => {
      const target = this.#root.pathOf(key);
      // Knowing early spares writing the body; the link below decides all the same.
      if ((await orUndefined(lstat(target))) !== undefined) return this.#taken(target);
      const temp = await this.#writeTemporary(body, options);
      try {
        const linked = await this.#place(key, target, async () => {
          try {
            await link(temp, target);
            return true;
          } catch (error) {
            if (codeOf(error) !== 'EEXIST') throw error;
            // NFS: the answer to a link that worked may be lost, and the call repeated by the client finds its own.
            return (await lstat(temp)).nlink === 2;
          }
        });
        return linked ? 'created' : await this.#taken(target);
      } finally {
        await unlink(temp).catch(() => {}); // What stays is swept after a day.
      }
    });
  }

  async overwrite(key: string, body: Body, options: CreateOptions = {}): Promise<void> {
    await this.#begin('overwrite', options, key);
    await this.#doing('store an object in', key, async () => {
      const target = this.#root.pathOf(key);
      const temp = await this.#writeTemporary(body, options);
      try {
        await this.#place(key, target, () => rename(temp, target));
      } catch (error) {
        await unlink(temp).catch(() => {});
        throw error;
      }
    });
  }

  async read(key: string, range?: ByteRange, options: CallOptions = {}): Promise<Buffer> {
    await this.#begin('read', options, key);
    const where = `${this.location}/${key}`;
    return this.#doing('read an object of', key, async () => {
      const path = this.#root.pathOf(key);
      if (await this.#root.requireInside(dirname(path))) {
        try {
          const bytes = await readRange(path, range, where, key);
          this.stats.received(bytes.length);
          return bytes;
        } catch (error) {
          if (!isAbsent(error)) throw error;
        }
      }
      // Missing, or the whole volume with it since it was last looked at?
      await this.#root.require();
      throw new DrError('not-found', `vault ${this.name} has no object ${key}`, { where });
    });
  }

  async *readEach(keys: Iterable<string>, options: CallOptions = {}): AsyncGenerator<ReadOutcome> {
    const all = [...keys];
    if (all.length < WORTH_A_THREAD) return yield* readEachAlone(this, all, options);
    const batches: string[][] = [];
    for (let at = 0; at < all.length; at += READ_BATCH) batches.push(all.slice(at, at + READ_BATCH));
    await using reader = new FileReader();
    for await (const outcomes of mapInOrder(batches, 3, (batch) => this.#readBatch(reader, batch, options))) {
      yield* outcomes;
      // All of a batch lie in one buffer, or a few.
      for (const outcome of outcomes) if ('bytes' in outcome) freeBuffer(outcome.bytes);
    }
  }

  async stat(key: string, options: CallOptions = {}): Promise<ObjectInfo | undefined> {
    await this.#begin('stat', options, key);
    return this.#doing('look for an object in', key, async () => {
      const path = this.#root.pathOf(key);
      if (!(await this.#root.requireInside(dirname(path)))) return undefined;
      const info = await orUndefined(lstat(path));
      return info?.isFile() ? { key, size: info.size, modifiedMs: info.mtimeMs } : undefined;
    });
  }

  list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo, void, undefined> {
    return this.#walk(prefix, options, () => walkFiles(this.#root.path, prefix, options));
  }

  names(prefix: string, options: ListOptions = {}): AsyncGenerator<string, void, undefined> {
    return this.#walk(prefix, options, () => walkNames(this.#root.path, prefix, options));
  }

  async *#walk<T>(
    prefix: string,
    options: ListOptions,
    start: () => AsyncGenerator<readonly T[], void>,
  ): AsyncGenerator<T, void, undefined> {
    requireKeyPrefix(prefix, this.location);
    await this.#begin('list', options);
    const folder = this.#root.pathOf(prefix.slice(0, prefix.lastIndexOf('/') + 1));
    if (!(await this.#doing('list the objects of', prefix, () => this.#root.requireInside(folder)))) return;
    const walk = start();
    try {
      for (;;) {
        const next = await this.#doing('list the objects of', prefix, () => walk.next());
        if (next.done === true) return;
        for (const found of next.value) {
          this.#stopIfAborted(options);
          yield found;
        }
      }
    } finally {
      await walk.return(undefined);
    }
  }

  async folders(prefix: string, options: FolderOptions = {}): Promise<string[]> {
    requireFolder(prefix, this.location);
    await this.#begin('list', options);
    return this.#doing('list the folders of', prefix, async () => {
      if (!(await this.#root.requireInside(this.#root.pathOf(prefix)))) return [];
      const all = await this.#root.directoriesIn(prefix);
      const names: string[] = [];
      // An empty directory is what a killed deletion leaves: an object store has no such thing.
      await forEachLimit(options.emptyToo ? [] : all, 16, async (name) => {
        if (await hasFile(this.#root.path, `${prefix}${name}/`)) names.push(name);
      });
      return (options.emptyToo ? all : names).sort((a, b) => compareKeys(`${a}/`, `${b}/`));
    });
  }

  async delete(keys: readonly string[], options: CallOptions = {}): Promise<void> {
    for (const key of keys) requireObjectKey(key, this.location);
    await this.#begin('delete', options);
    const folders = new Set<string>();
    await forEachLimit(keys, 16, async (key) => {
      this.#stopIfAborted(options);
      await this.#doing('delete an object of', key, async () => {
        const path = this.#root.pathOf(key);
        if (!(await this.#root.requireInside(dirname(path)))) return;
        const info = await orUndefined(lstat(path));
        if (info === undefined || info.isDirectory()) return;
        await orUndefined(unlink(path));
        folders.add(dirname(path));
      });
    });
    // Durable before the next step of retention: a part must never be gone while its manifest is still there.
    await this.#doing('delete objects of', '', async () => {
      for (const folder of folders) await orUndefined(syncDirectory(folder));
      for (const folder of folders) await this.#root.removeEmpty(folder);
    });
  }

  async close(): Promise<void> {}

  async #readBatch(reader: FileReader, keys: readonly string[], options: CallOptions): Promise<ReadOutcome[]> {
    this.#stopIfAborted(options);
    const inside = new Map<string, boolean>();
    const found: string[] = [];
    for (const key of keys) {
      requireObjectKey(key, this.location);
      const folder = dirname(this.#root.pathOf(key));
      if (!inside.has(folder)) inside.set(folder, await this.#root.requireInside(folder).catch(() => false));
      if (inside.get(folder)) found.push(key);
    }
    const contents = await reader.read(found.map((key) => this.#root.pathOf(key)));
    const bytesOf = new Map(found.map((key, i) => [key, contents[i]]));
    const outcomes: ReadOutcome[] = [];
    for (const key of keys) {
      const bytes = bytesOf.get(key);
      if (bytes) {
        this.stats.asked('read');
        this.stats.received(bytes.length);
        outcomes.push({ key, bytes });
        continue;
      }
      // Whatever it is, the ordinary way says it in the ordinary words.
      for await (const outcome of readEachAlone(this, [key], options)) outcomes.push(outcome);
    }
    return outcomes;
  }

  async #begin(kind: RequestKind, options: CallOptions, key?: string): Promise<void> {
    if (key !== undefined) requireObjectKey(key, this.location);
    this.#stopIfAborted(options);
    this.stats.asked(kind);
    await this.#doing('open', '', () => (kind === 'read' ? this.#root.requireLately() : this.#root.require()));
  }

  #stopIfAborted(options: CallOptions): void {
    if (!options.signal?.aborted) return;
    throw new DrError('interrupted', `stopped while using vault ${this.name}`, {
      where: this.location,
      cause: options.signal.reason,
    });
  }

  async #doing<T>(what: string, key: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw fileError(error, key === '' ? this.location : `${this.location}/${key}`, `${what} vault ${this.name}`);
    }
  }

  /** Somebody was first: their entry is made durable too, since the caller may rely on it from now on. */
  async #taken(target: string): Promise<'exists'> {
    await orUndefined(syncDirectory(dirname(target)));
    return 'exists';
  }

  async #writeTemporary(body: Body, options: CallOptions): Promise<string> {
    await this.#root.readyTemporaryFolder();
    const path = join(this.#root.path, temporaryFolder, `${process.pid}-${randomBytes(9).toString('hex')}`);
    const handle = await open(path, 'wx', 0o640).catch(async (error: unknown) => {
      // The folder went with a directory that was emptied or replaced: is it still a vault at all?
      if (codeOf(error) !== 'ENOENT') throw error;
      this.#root.forget(dirname(path));
      await this.#root.require();
      await this.#root.readyTemporaryFolder();
      return await open(path, 'wx', 0o640);
    });
    try {
      let at = 0;
      for (const view of body instanceof Uint8Array ? [body] : body) {
        for (let done = 0; done < view.length; ) {
          this.#stopIfAborted(options);
          const { bytesWritten } = await handle.write(view, done, Math.min(WRITE_BYTES, view.length - done), at);
          done += bytesWritten;
          at += bytesWritten;
        }
      }
      await handle.datasync();
      this.stats.sent(at);
    } catch (error) {
      await unlink(path).catch(() => {});
      throw error;
    } finally {
      await handle.close();
    }
    return path;
  }

  /** Runs `put` in the object's directory, made as often as a concurrent deletion takes it away; then syncs it. */
  async #place<T>(key: string, target: string, put: () => Promise<T>): Promise<T> {
    const folder = dirname(target);
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#root.ensureDirectory(folder);
        const result = await put();
        // Gone already: somebody deleted the object since.
        await orUndefined(syncDirectory(folder));
        return result;
      } catch (error) {
        const code = codeOf(error);
        if (code === 'ENOENT' && attempt < 100) {
          await this.#root.require();
          this.#root.forget(folder);
          continue;
        }
        if (code !== undefined && /^(ENOTSUP|EOPNOTSUPP|ENOSYS|EXDEV|EMLINK|EPERM)$/.test(code)) {
          throw new DrError('refused', `the file system cannot create an object atomically (${code} from link)`, {
            where: `${this.location}/${key}`,
            next: 'Put the vault on one file system that has hard links: ext4, XFS, ZFS, APFS, NFS.',
            cause: error,
          });
        }
        throw error;
      }
    }
  }
}
