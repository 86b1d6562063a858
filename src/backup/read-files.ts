import { forEachLimit } from '../base/concurrency.ts';
import { DrError } from '../base/errors.ts';
import type { KeyRing } from '../vault/keys.ts';
import { openFrame } from '../vault/seal.ts';
import { runDigest } from '../vault/seal-runs.ts';
import type { ObjectStore } from '../vault/store.ts';
import { extentsProblem } from './extents.ts';
import type { IndexEntry } from './index-format.ts';
import { readIndex } from './index-reader.ts';
import type { Manifest } from './manifest.ts';
import { type FilePlan, type FramePlan, ReadPlan } from './restore-plan.ts';
import { readReferenced } from './stored-object.ts';

/** Reads of a vault at once. */
const READS_IN_FLIGHT = 6;

/** A backup as one vault holds it, with what opens it. */
export interface BackupSource {
  readonly store: ObjectStore;
  readonly manifest: Manifest;
  readonly keyRing: KeyRing;
}

/** The files of a backup by path: what its index says, without their content. A hard link is the file that it equals. */
export async function indexOfFiles(source: BackupSource, signal?: AbortSignal): Promise<Map<string, IndexEntry>> {
  const found = new Map<string, IndexEntry>();
  for await (const entry of readIndex(source.store, source.manifest, source.keyRing, signal)) {
    if (entry.type !== 'directory') found.set(entry.path.toString('utf8'), entry);
  }
  for (const [path, { type, target, path: bytes }] of found) {
    const equal = type === 'hardlink' ? found.get(target?.toString('utf8') ?? '') : undefined;
    if (equal) found.set(path, { ...equal, path: bytes });
  }
  return found;
}

/**
 * The content of some files of a backup, by path, in memory: for small files. Only the frames that hold them are read, each once, and every
 * digest is checked. Throws `corrupt` naming the part, or what the vault throws.
 */
export async function readFiles(
  { store, manifest, keyRing }: BackupSource,
  entries: Iterable<IndexEntry>,
  signal?: AbortSignal,
): Promise<Map<string, Buffer>> {
  const contents = new Map<IndexEntry, Buffer>();
  const plan = new ReadPlan();
  for (const entry of entries) {
    if (entry.type !== 'file') continue;
    const problem = extentsProblem(entry.extents, entry.size);
    if (problem !== undefined) throw damaged(problem, `${store.location}/${manifest.index.key}`);
    contents.set(entry, Buffer.alloc(entry.size));
    plan.add(planOf(entry));
  }
  await forEachLimit(plan.take(), READS_IN_FLIGHT, async (frames) => {
    const [first, last] = [frames[0], frames.at(-1)];
    const part = first && manifest.parts[first.extent.part];
    if (!first || !last || !part) throw damaged('the index names a part that is not there', manifest.index.key);
    const offset = first.extent.frameOffset;
    const length = last.extent.frameOffset + last.extent.frameLength - offset;
    const secret = part.keyId === undefined ? undefined : (await keyRing.open(store, part.keyId)).secret;
    const range = { offset, length };
    const bytes = await readReferenced(store, part.key, `a part of backup ${manifest.id}`, { range, signal });
    for (const frame of frames) {
      const at = frame.extent.frameOffset - offset;
      const seal = { secret, context: part.context };
      const where = `${store.location}/${part.key}`;
      const sealed = bytes.subarray(at, at + frame.extent.frameLength);
      spread(openFrame(sealed, frame.extent.counter, seal, where), frame, contents, where);
    }
  });
  return new Map([...contents].map(([entry, content]) => [entry.path.toString('utf8'), content]));
}

function spread(raw: Buffer, { runs }: FramePlan, contents: Map<IndexEntry, Buffer>, where: string): void {
  for (const { extent, blockBytes, slices } of runs) {
    const run = raw.subarray(extent.rawOffset, extent.rawOffset + extent.runLength);
    if (run.length !== extent.runLength || !runDigest(run, blockBytes).equals(extent.digest))
      throw damaged('content does not match its digest', where);
    for (const { extent: slice, file } of slices)
      contents.get(file.entry)?.set(run.subarray(slice.skip, slice.skip + slice.length), slice.position);
  }
}

function planOf(entry: IndexEntry): FilePlan {
  const nowhere = { absolute: undefined, handle: undefined, opened: undefined, flush: undefined };
  return { entry, ...nowhere, outstanding: entry.extents.length, unflushed: 0 };
}

function damaged(reason: string, where: string): DrError {
  return new DrError('corrupt', `the backup is damaged: ${reason}`, {
    where,
    next: 'Read it from another vault (--vault NAME), then repair this one from it.',
  });
}
