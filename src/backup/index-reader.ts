import { DrError } from '../base/errors.ts';
import type { KeyRing } from '../vault/keys.ts';
import { openFrame, readFrameHeader, sha256 } from '../vault/seal.ts';
import type { ObjectStore } from '../vault/store.ts';
import { decodeEntry, type IndexEntry } from './index-format.ts';
import type { Manifest } from './manifest.ts';
import { readReferenced } from './stored-object.ts';

/**
 * The entries of a backup, in the order of its index, read from one vault and checked: size, SHA-256, every frame, the number of
 * entries and the sum of their bytes against the manifest. Throws `corrupt` naming the index, `wrong-key`, or what the vault throws.
 */
export async function* readIndex(
  store: ObjectStore,
  manifest: Manifest,
  keyRing: KeyRing,
  signal?: AbortSignal,
): AsyncGenerator<IndexEntry> {
  const { key, size, sha256: digest, context, keyId } = manifest.index;
  const where = `${store.location}/${key}`;
  const damaged = (reason: string) =>
    new DrError('corrupt', `the index of backup ${manifest.id} is damaged: ${reason}`, {
      where,
      next: 'Restore from another vault (--vault NAME), then repair this one from it.',
    });
  const sealed = await readReferenced(store, key, `the index of backup ${manifest.id}`, { signal });
  if (sealed.length !== size) throw damaged(`it has ${sealed.length} bytes instead of ${size}`);
  if (sha256(sealed).toString('hex') !== digest) throw damaged('it does not match its SHA-256');
  const secret = keyId === undefined ? undefined : (await keyRing.open(store, keyId)).secret;
  let entries = 0;
  let bytes = 0;
  for (let at = 0; at < sealed.length; ) {
    const header = readFrameHeader(sealed.subarray(at), where);
    const frame = sealed.subarray(at, at + header.frameBytes);
    const raw = openFrame(frame, header.counter, { secret, context }, where);
    at += header.frameBytes;
    for (const line of linesOf(raw)) {
      const entry = decodeEntry(line, where);
      entries++;
      bytes += entry.size;
      yield entry;
    }
  }
  if (entries !== manifest.entries) throw damaged(`it lists ${entries} entries; the manifest says ${manifest.entries}`);
  if (bytes !== manifest.logicalBytes)
    throw damaged(`its files add up to ${bytes} bytes; the manifest says ${manifest.logicalBytes}`);
}

function* linesOf(raw: Buffer): Generator<Buffer> {
  for (let at = 0; at < raw.length; ) {
    const end = raw.indexOf(10, at);
    const stop = end < 0 ? raw.length : end;
    yield raw.subarray(at, stop);
    at = stop + 1;
  }
}
