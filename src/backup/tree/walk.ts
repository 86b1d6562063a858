import { lstat } from 'node:fs/promises';
import { BoundedQueue } from '../../base/bounded-queue.ts';
import { fileError, messageOf } from '../../base/errors.ts';
import { readExtendedAttributes } from '../../base/file-attributes.ts';
import { libc, WITHOUT_LIBC } from '../../base/libc.ts';
import type { Attribute } from '../index-format.ts';
import type { Note } from '../manifest.ts';
import type { PackWriter } from '../pack-writer.ts';
import type { PreviousBackup, PreviousEntry } from '../previous/previous-backup.ts';
import { unpackStat } from './entry-stat.ts';
import { packAlone, packContent } from './pack-file.ts';
import { Proven } from './proven.ts';
import { Outcome, type ReadResult } from './tree-jobs.ts';
import {
  attributesNote,
  attributesOf,
  headOf,
  type LinkedInode,
  noteOf,
  type PlannedFile,
  planTree,
  type TreeUnit,
  weightOf,
} from './tree-plan.ts';
import { TreeReader } from './tree-reader.ts';

/** Weight of the units that wait between the planning and the packing of a tree: four reads of small files, or some hundred others. */
const AHEAD = 256;

export interface WalkOptions {
  readonly root: string;
  /** Globs on the path relative to the root. */
  readonly exclude: readonly string[];
  readonly pack: PackWriter;
  /** What it is compared with. */
  readonly previous?: PreviousBackup | undefined;
  /** Milliseconds since 1970, by the clock that local file systems use too. */
  readonly now: () => number;
  readonly signal?: AbortSignal | undefined;
  readonly onFile?: (relativePath: string) => void;
}

export interface WalkResult {
  readonly files: number;
  readonly notes: Note[];
}

/**
 * Packs a directory tree as it is: files, folders, symbolic and hard links, modes, owners, times, extended attributes and ACLs,
 * sparse files, any file name. What vanishes or changes meanwhile, or cannot be read, is noted; only a root that cannot be read
 * is an error. Threads list the tree and read its small files ahead; packing itself goes in one order, which is always the same.
 */
export async function packDirectory(options: WalkOptions): Promise<WalkResult> {
  const { root, exclude, previous, signal } = options;
  const proven = new Proven(options.now);
  const walk = new Walk(options, proven);
  await walk.root();
  const reader = new TreeReader();
  const queue = new BoundedQueue<TreeUnit>(AHEAD);
  // Also while a thread waits for a disk.
  const stop = () => void reader.close();
  signal?.addEventListener('abort', stop);
  const planned = planTree({ root, exclude, previous, reader, queue, proven });
  try {
    for await (const units of queue.batches()) {
      for (const unit of units) {
        signal?.throwIfAborted();
        await walk.unit(unit, reader);
        queue.release(weightOf(unit));
      }
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', stop);
    queue.cancel();
    await reader.close();
    await planned;
  }
  return { files: walk.files, notes: walk.notes };
}

class Walk {
  readonly notes: Note[] = [];
  files = 0;
  readonly #options: WalkOptions;
  readonly #proven: Proven;

  constructor(options: WalkOptions, proven: Proven) {
    this.#options = options;
    this.#proven = proven;
  }

  /** Packs the root directory itself. */
  async root(): Promise<void> {
    const { root, pack } = this.#options;
    const stats = await lstat(root, { bigint: true }).catch((error: unknown) => {
      throw fileError(error, root, 'read the directory to back up');
    });
    if (!stats.isDirectory()) {
      throw fileError(Object.assign(new Error('it is not a directory'), { code: 'ENOTDIR' }), root, 'back up');
    }
    const { uid, gid, mtimeNs } = stats;
    const stat = { mode: Number(stats.mode & 0o7777n), uid: Number(uid), gid: Number(gid), mtimeNs };
    await pack.add(headOf(Buffer.alloc(0), 'directory', stat, this.#rootAttributes()));
  }

  async unit(unit: TreeUnit, reader: TreeReader): Promise<void> {
    if (unit.kind === 'note') this.notes.push(unit.note);
    else if (unit.kind === 'entry') {
      await this.#options.pack.add(unit.head);
      if (unit.head.type !== 'directory') this.files++;
    } else if (unit.kind === 'same') await this.#same(unit.file, unit.previous);
    else if (unit.kind === 'files') await this.#files(unit, await unit.content, reader);
    else if (unit.kind === 'large') await this.#alone(unit.file);
    else await this.#link(unit.file, unit.inode);
  }

  #rootAttributes(): readonly Attribute[] {
    const calls = libc();
    if (!calls) {
      const detail = `extended attributes and ACLs are not kept: ${WITHOUT_LIBC}`;
      this.notes.push({ kind: 'other', subject: this.#options.root, detail });
      return [];
    }
    try {
      return attributesOf(readExtendedAttributes(Buffer.from(this.#options.root), calls));
    } catch (error) {
      this.notes.push(attributesNote(Buffer.alloc(0), messageOf(error)).note);
      return [];
    }
  }

  /** Takes over what the previous backup has of a file that is proven to be the same. */
  async #same(file: PlannedFile, previous: PreviousEntry): Promise<void> {
    const head = headOf(file.path, 'file', file.stat, file.attributes);
    await this.#options.pack.reuse(head, previous, previous.stat);
    this.#packed(file);
  }

  async #files(
    { files, fromMs }: TreeUnit & { kind: 'files' },
    content: ReadResult,
    reader: TreeReader,
  ): Promise<void> {
    const bytes = new Uint8Array(content.buffer);
    const failures = new Map(content.failures.map((failure) => [failure.index, failure]));
    const attributes = new Map(content.attributes.map((of) => [of.index, of]));
    for (const [index, file] of files.entries()) {
      const outcome = content.outcomes[index];
      const [at = 0, length = 0] = content.places.subarray(2 * index, 2 * index + 2);
      const failure = failures.get(index);
      if (outcome === Outcome.tooLarge) await this.#alone(file);
      else if (outcome === Outcome.failed) this.#note(noteOf(file.path, failure?.code, failure?.message ?? ''));
      else if (outcome === Outcome.notAFile) this.#note(replacedNote(file));
      else {
        this.#options.onFile?.(file.path.toString('utf8'));
        const own = attributes.get(index);
        if (own?.failure !== undefined) this.#note(attributesNote(file.path, own.failure));
        const stat = unpackStat(content.numbers, index);
        const head = headOf(file.path, 'file', stat, attributesOf(own?.attributes));
        const isWhole = outcome === Outcome.whole && own?.failure === undefined;
        const facts = isWhole ? this.#proven.factsOf(stat, fromMs) : undefined;
        await packContent(this.#options.pack, head, stat, file.previous, bytes.subarray(at, at + length), facts);
        if (outcome === Outcome.cutOff) this.#note(cutOffNote(file, failure?.message ?? ''));
        if (outcome === Outcome.changed) this.#note(changedNote(file));
        this.#packed(file);
      }
    }
    reader.release(content);
  }

  /** Packs one file by itself: a large one, or one that turned out so. */
  async #alone(file: PlannedFile): Promise<void> {
    const { pack, signal, onFile } = this.#options;
    const proven = this.#proven;
    const { outcome, failure, attributesFailure } = await packAlone({ pack, file, proven, signal, onFile });
    if (attributesFailure !== undefined) this.#note(attributesNote(file.path, attributesFailure));
    if (outcome === Outcome.failed) this.#note(noteOf(file.path, failure?.code, failure?.message ?? ''));
    else if (outcome === Outcome.notAFile) this.#note(replacedNote(file));
    else {
      if (outcome === Outcome.cutOff) this.#note(cutOffNote(file, failure?.message ?? ''));
      if (outcome === Outcome.changed) this.#note(changedNote(file));
      this.#packed(file);
    }
  }

  /** A further name of an inode: a hard link, unless the name before it could not be packed. */
  async #link(file: PlannedFile, inode: LinkedInode): Promise<void> {
    if (inode.packed === undefined) {
      await this.#alone({ ...file, inode });
      return;
    }
    await this.#options.pack.add({ ...headOf(file.path, 'hardlink', file.stat, []), target: inode.packed });
    this.files++;
  }

  #packed({ inode, path }: PlannedFile): void {
    if (inode) inode.packed ??= path;
    this.files++;
  }

  #note({ note }: { readonly note: Note }): void {
    this.notes.push(note);
  }
}

function replacedNote({ path }: PlannedFile): { note: Note } {
  const detail = 'it became something else than a file while the directory was read';
  return { note: { kind: 'changed', subject: path.toString('utf8'), detail } };
}

function cutOffNote({ path }: PlannedFile, message: string): { note: Note } {
  return {
    note: { kind: 'unreadable', subject: path.toString('utf8'), detail: `${message}; its content is cut off there` },
  };
}

function changedNote({ path }: PlannedFile): { note: Note } {
  const detail = 'it changed while it was read: its content may mix two states';
  return { note: { kind: 'changed', subject: path.toString('utf8'), detail } };
}
