import type { BoundedQueue } from '../../base/bounded-queue.ts';
import { codeOf, fileError, messageOf } from '../../base/errors.ts';
import { globMatcher } from '../../base/glob.ts';
import type { Attribute } from '../index-format.ts';
import type { Note } from '../manifest.ts';
import { type EntryHead, SHARED_FRAME_FILE_BYTES } from '../pack-writer.ts';
import type { PreviousBackup, PreviousEntry } from '../previous/previous-backup.ts';
import { type EntryStat, unpackStat } from './entry-stat.ts';
import { type Proven, sameFacts } from './proven.ts';
import { CHUNK_ENTRIES, type EntryFacts, type ListResult, type ReadResult } from './tree-jobs.ts';
import type { TreeReader } from './tree-reader.ts';

/** Files that are read together, at most, and their bytes, each with one more that shows its end; the rest is room to grow. */
const BATCH_FILES = 256;
const BATCH_BYTES = SHARED_FRAME_FILE_BYTES + 1;
/** Directories listed ahead of the one at work. */
const DIRECTORIES_AHEAD = 3;

/** A file of the tree, as it was found. */
export interface PlannedFile {
  readonly absolute: Buffer;
  /** Relative to the root. */
  readonly path: Buffer;
  readonly stat: EntryStat;
  readonly attributes: readonly Attribute[];
  readonly previous: PreviousEntry | undefined;
  /** When it has several names. */
  readonly inode: LinkedInode | undefined;
}

/** An inode with several names: `packed` is the one under which it was packed. */
export interface LinkedInode {
  packed: Buffer | undefined;
}

/** The tree in the order in which it is packed. */
export type TreeUnit =
  | { readonly kind: 'note'; readonly note: Note }
  /** A directory or symbolic link. */
  | { readonly kind: 'entry'; readonly head: EntryHead }
  /** Files of one directory that are being read; `content` has them in this order. */
  | {
      readonly kind: 'files';
      readonly files: readonly PlannedFile[];
      /** When their reading began. */
      readonly fromMs: number;
      readonly content: Promise<ReadResult>;
    }
  /** A file that is proven to be as the previous backup has it. */
  | { readonly kind: 'same'; readonly file: PlannedFile; readonly previous: PreviousEntry }
  /** A file to be read alone. */
  | { readonly kind: 'large'; readonly file: PlannedFile }
  /** A further name of an inode. */
  | { readonly kind: 'link'; readonly file: PlannedFile; readonly inode: LinkedInode };

/** Weight of a unit in the queue: what is read already counts for most. */
export function weightOf(unit: TreeUnit): number {
  return unit.kind === 'files' ? 64 : 1;
}

export interface PlanOptions {
  readonly root: string;
  /** Globs on the path relative to the root. */
  readonly exclude: readonly string[];
  readonly previous?: PreviousBackup | undefined;
  readonly reader: TreeReader;
  readonly proven: Proven;
  readonly queue: BoundedQueue<TreeUnit>;
}

/** Nobody wants the rest of the plan. */
class Cancelled extends Error {}

/**
 * Lists a tree and has its small files read ahead. The order is always the same: of each directory first itself, then its files and
 * links, then the directories below it, each in byte order of the names.
 */
export async function planTree(options: PlanOptions): Promise<void> {
  const plan = new Plan(options);
  const root = Buffer.from(options.root);
  try {
    await plan.directory(root, Buffer.alloc(0), options.reader.list(root));
    options.queue.close();
  } catch (error) {
    if (!(error instanceof Cancelled)) options.queue.fail(error);
  }
}

class Plan {
  readonly #options: PlanOptions;
  readonly #excludes: (path: string) => string | undefined;
  readonly #linked = new Map<string, LinkedInode>();
  #batch: PlannedFile[] = [];
  #batchBytes = 0;

  constructor(options: PlanOptions) {
    this.#options = options;
    this.#excludes = globMatcher(options.exclude);
  }

  async directory(absolute: Buffer, path: Buffer, listing: Promise<ListResult>): Promise<void> {
    let list: ListResult;
    try {
      list = await listing;
    } catch (error) {
      if (path.length === 0) throw fileError(error, this.#options.root, 'read the directory to back up');
      await this.#push(noteOf(path, codeOf(error), messageOf(error)));
      return;
    }
    const below: Array<{ readonly name: Buffer; readonly path: Buffer; readonly head: EntryHead }> = [];
    let known: EntryFacts | undefined = list.facts;
    for (const chunk of chunksOf(list.names)) {
      const facts: EntryFacts = known ?? (await this.#options.reader.look(absolute, joined(chunk)));
      known = undefined;
      await this.#chunk(absolute, path, chunk, facts, below);
      await this.#readBatch(absolute);
    }
    const listings: Array<Promise<ListResult>> = [];
    for (const [i, { name, path: inner, head }] of below.entries()) {
      for (let ahead = listings.length; ahead < Math.min(i + DIRECTORIES_AHEAD, below.length); ahead++) {
        listings.push(this.#list(join(absolute, below[ahead]?.name ?? name)));
      }
      await this.#push({ kind: 'entry', head });
      const own = listings[i];
      if (own) await this.directory(join(absolute, name), inner, own);
      // What is done is not kept: a directory may have a million below it.
      delete listings[i];
    }
  }

  #list(directory: Buffer): Promise<ListResult> {
    const listing = this.#options.reader.list(directory);
    // It is awaited when its turn comes, which a failure elsewhere may forestall.
    listing.catch(() => {});
    return listing;
  }

  async #chunk(
    directory: Buffer,
    path: Buffer,
    names: readonly Buffer[],
    facts: EntryFacts,
    below: Array<{ name: Buffer; path: Buffer; head: EntryHead }>,
  ): Promise<void> {
    const failures = new Map(facts.failures.map((failure) => [failure.index, failure]));
    const targets = new Map(facts.targets.map(({ index, target }) => [index, target]));
    const attributes = new Map(facts.attributes.map((of) => [of.index, of]));
    for (const [index, name] of names.entries()) {
      const inner = path.length === 0 ? name : join(path, name);
      if (this.#excludes(inner.toString('utf8')) !== undefined) continue;
      const failure = failures.get(index);
      if (failure) {
        await this.#push(noteOf(inner, failure.code, failure.message));
        continue;
      }
      const own = attributes.get(index);
      const stat = unpackStat(facts.numbers, index);
      // Of a file they are read once more with its content.
      if (own?.failure !== undefined && stat.kind !== 'file') await this.#push(attributesNote(inner, own.failure));
      const extended = attributesOf(own?.attributes);
      if (stat.kind === 'directory')
        below.push({ name, path: inner, head: headOf(inner, 'directory', stat, extended) });
      else if (stat.kind === 'symlink') {
        const target = Buffer.from(targets.get(index) ?? []);
        await this.#push({ kind: 'entry', head: { ...headOf(inner, 'symlink', stat, extended), target } });
      } else if (stat.kind === 'file') {
        const file = { absolute: join(directory, name), path: inner, stat, attributes: extended };
        await this.#file(directory, file, own?.failure === undefined);
      } else await this.#push({ kind: 'note', note: skippedNote(inner) });
    }
  }

  /** `complete`: all that is kept of the file besides its content is known. */
  async #file(directory: Buffer, found: Omit<PlannedFile, 'previous' | 'inode'>, complete: boolean): Promise<void> {
    const { path, stat } = found;
    const linked = stat.links > 1 ? this.#inodeOf(stat) : undefined;
    if (linked?.isKnown === true) {
      await this.#readBatch(directory);
      await this.#push({ kind: 'link', file: { ...found, previous: undefined, ...linked }, inode: linked.inode });
      return;
    }
    await this.#options.proven.learn(stat.dev, directory);
    const previous = this.#options.previous?.lookup(path);
    const file = { ...found, previous, inode: linked?.inode };
    if (previous?.stat && previous.isWhole && complete && sameFacts(previous.stat, stat)) {
      await this.#push({ kind: 'same', file, previous });
      return;
    }
    const bytes = Number(stat.size) + 1;
    if (bytes > BATCH_BYTES) {
      await this.#readBatch(directory);
      await this.#push({ kind: 'large', file });
      return;
    }
    if (this.#batch.length >= BATCH_FILES || this.#batchBytes + bytes > BATCH_BYTES) await this.#readBatch(directory);
    this.#batch.push(file);
    this.#batchBytes += bytes;
  }

  #inodeOf({ dev, ino }: EntryStat): { readonly inode: LinkedInode; readonly isKnown: boolean } {
    const key = `${dev}:${ino}`;
    const known = this.#linked.get(key);
    if (known) return { inode: known, isKnown: true };
    const inode: LinkedInode = { packed: undefined };
    this.#linked.set(key, inode);
    return { inode, isKnown: false };
  }

  /** Has the files that have come together read. */
  async #readBatch(directory: Buffer): Promise<void> {
    const files = this.#batch;
    if (files.length === 0) return;
    this.#batch = [];
    this.#batchBytes = 0;
    const names = joined(files.map(({ absolute }) => absolute.subarray(directory.length + 1)));
    const fromMs = this.#options.proven.begin();
    const content = this.#options.reader.read(directory, names);
    // As above.
    content.catch(() => {});
    await this.#push({ kind: 'files', files, fromMs, content });
  }

  async #push(unit: TreeUnit): Promise<void> {
    if (!(await this.#options.queue.push(unit, weightOf(unit)))) throw new Cancelled();
  }
}

export function headOf(
  path: Buffer,
  type: EntryHead['type'],
  { mode, uid, gid, mtimeNs }: Pick<EntryStat, 'mode' | 'uid' | 'gid' | 'mtimeNs'>,
  attributes: readonly Attribute[],
): EntryHead {
  return { path, type, mode, uid, gid, mtimeNs, ...(attributes.length === 0 ? {} : { attributes }) };
}

/** Attributes as they come from another thread. */
export function attributesOf(
  from: ReadonlyArray<{ readonly name: Uint8Array; readonly value: Uint8Array }> = [],
): readonly Attribute[] {
  return from.map(({ name, value }) => ({ name: Buffer.from(name), value: Buffer.from(value) }));
}

/** The note of an entry that could not be read. */
export function noteOf(path: Buffer, code: string | undefined, message: string): TreeUnit & { kind: 'note' } {
  const kind = code === 'ENOENT' || code === 'ENOTDIR' ? 'vanished' : 'unreadable';
  return { kind: 'note', note: { kind, subject: path.toString('utf8'), detail: message } };
}

export function attributesNote(path: Buffer, message: string): TreeUnit & { kind: 'note' } {
  const detail = `its extended attributes could not be read: ${message}`;
  return { kind: 'note', note: { kind: 'unreadable', subject: path.toString('utf8'), detail } };
}

function skippedNote(path: Buffer): Note {
  const detail = 'neither file, directory nor link (a socket, pipe or device)';
  return { kind: 'skipped', subject: path.toString('utf8'), detail };
}

function join(directory: Buffer, name: Buffer): Buffer {
  return Buffer.concat([directory, Buffer.from('/'), name]);
}

function joined(names: readonly Buffer[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(names.flatMap((name, i) => (i === 0 ? [name] : [separator, name]))));
}

const separator = Buffer.from([0]);

/** The names of a list, CHUNK_ENTRIES at a time: there may be millions. */
function* chunksOf(names: Uint8Array): Generator<Buffer[]> {
  const all = Buffer.from(names.buffer, names.byteOffset, names.byteLength);
  let chunk: Buffer[] = [];
  for (let at = 0; at < all.length; ) {
    const end = all.indexOf(0, at);
    const stop = end < 0 ? all.length : end;
    chunk.push(all.subarray(at, stop));
    at = stop + 1;
    if (chunk.length < CHUNK_ENTRIES) continue;
    yield chunk;
    chunk = [];
  }
  if (chunk.length > 0) yield chunk;
}
