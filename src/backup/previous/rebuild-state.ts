import path from 'node:path';
import type { KeyRing } from '../../vault/keys.ts';
import type { ObjectStore } from '../../vault/store.ts';
import type { BackupContext } from '../context.ts';
import { encodeEntry } from '../index-format.ts';
import { readIndex } from '../index-reader.ts';
import type { Manifest } from '../manifest.ts';
import { StateReader } from './state-reader.ts';
import { StateWriter } from './state-writer.ts';

/**
 * Makes a state from the index of a backup in a vault, for a machine that knows nothing of it and can read it: a plain vault, or an
 * identity at hand. The digests of blocks are not in an index, so large files are compared by whole runs once. Throws what reading
 * the index throws; undefined where the disk fails.
 */
export async function rebuildState(
  context: Pick<BackupContext, 'log' | 'signal'>,
  folder: string,
  store: ObjectStore,
  found: { readonly manifest: Manifest; readonly manifestSha256: string },
  keyRing: KeyRing,
): Promise<StateReader | undefined> {
  const { manifest, manifestSha256 } = found;
  const writer = new StateWriter(folder, context.log);
  const frames = new Map<string, number>();
  const live = new Array<number>(manifest.parts.length).fill(0);
  try {
    for await (const entry of readIndex(store, manifest, keyRing, context.signal)) {
      for (const { part, frameOffset, rawOffset, runLength, length } of entry.extents) {
        live[part] = (live[part] ?? 0) + length;
        const frame = `${part}:${frameOffset}`;
        frames.set(frame, Math.max(frames.get(frame) ?? 0, rawOffset + runLength));
      }
      if (entry.type === 'file') await writer.add(entry, encodeEntry(entry), undefined, undefined);
    }
  } catch (error) {
    await writer.abandon();
    throw error;
  }
  // At least so many: what nothing names any more at the end of a frame, and frames of which nothing is named, are not known.
  const raw = new Array<number>(manifest.parts.length).fill(0);
  for (const [frame, bytes] of frames) {
    const part = Number(frame.slice(0, frame.indexOf(':')));
    raw[part] = (raw[part] ?? 0) + bytes;
  }
  const { resource, id: backupId } = manifest;
  const partBytes = manifest.parts.map((_, part) => [raw[part] ?? 0, live[part] ?? 0] as const);
  if (!(await writer.finish({ resource, backupId, manifestSha256, partBytes }))) return undefined;
  const reader = StateReader.open(path.join(folder, backupId));
  return typeof reader === 'string' ? undefined : reader;
}
