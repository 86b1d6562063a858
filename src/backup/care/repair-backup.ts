import { forEachLimit } from '../../base/concurrency.ts';
import { DrError, isAbort } from '../../base/errors.ts';
import { copyDataKey } from '../../vault/copy-key.ts';
import { layout } from '../../vault/layout.ts';
import { sha256 } from '../../vault/seal.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { decodeManifest, type Manifest } from '../manifest.ts';
import { replace } from './repair-replace.ts';

/** Objects copied at once; each is up to a part (16 MiB) in memory, twice while it is compared. */
const COPIES_IN_FLIGHT = 3;

export interface BackupCopy {
  /** Vaults that have its manifest, in the order in which they are asked. */
  readonly sources: readonly ObjectStore[];
  readonly target: ObjectStore;
  readonly resource: string;
  readonly id: string;
  /** Objects that this repair has already put (or found good) in the target: incremental backups share parts and keys. */
  readonly there: Set<string>;
  readonly onBytes: (bytes: number) => void;
  /** Throws when what was copied may not be relied upon any more (a lease was lost). Asked just before the manifest. */
  readonly beforeCommit: () => Promise<void> | void;
  readonly signal?: AbortSignal | undefined;
}

interface Content {
  readonly key: string;
  readonly size: number;
  readonly sha256: string;
}

/**
 * Copies one backup as it is stored: keys, parts, index, then the manifest, which makes it one. Every byte is checked against the
 * manifest on the way; what is damaged or missing in one source is taken from the next. What an earlier attempt has left in
 * the target is checked and not sent again, and replaced where it is damaged. Throws `corrupt` when no source has a good copy of some object, and what the target throws.
 */
export async function copyBackup(copy: BackupCopy): Promise<Manifest> {
  const { target, resource, id, signal } = copy;
  const { manifest, bytes } = await readSource(copy);
  const keyIds = new Set(
    [manifest.index, ...manifest.parts].flatMap(({ keyId }) => (keyId === undefined ? [] : [keyId])),
  );
  for (const keyId of keyIds) await copyKey(copy, keyId);
  await forEachLimit(manifest.parts, COPIES_IN_FLIGHT, (part) => copyContent(copy, part));
  await copyContent(copy, manifest.index);
  const key = layout.manifest(resource, id);
  await copy.beforeCommit();
  if ((await target.create(key, bytes, { signal })) === 'exists') await requireSame(target, key, bytes, signal);
  return manifest;
}

async function readSource(copy: BackupCopy): Promise<{ manifest: Manifest; bytes: Buffer }> {
  const key = layout.manifest(copy.resource, copy.id);
  return await fromAny(copy, key, async (source) => {
    const bytes = await source.read(key, undefined, { signal: copy.signal });
    const manifest = decodeManifest(bytes, `${source.location}/${key}`);
    if (manifest.id === copy.id && manifest.resource === copy.resource) return { manifest, bytes };
    throw new DrError('corrupt', 'the manifest is that of another backup', { where: `${source.location}/${key}` });
  });
}

async function copyContent(copy: BackupCopy, content: Content): Promise<void> {
  const { there, signal } = copy;
  if (there.has(content.key)) return;
  // What an interrupted backup or copy has left under the name may be half of it: then it is replaced.
  await replace({ ...copy, nowMs: 0, signal }, content.key, (bytes, where) => {
    if (bytes.length === content.size && sha256(bytes).toString('hex') === content.sha256) return;
    throw new DrError('corrupt', `${content.key} is not what its manifest says`, { where });
  });
  there.add(content.key);
  copy.onBytes(content.size);
}

/** The newest generation of a wrapped data key: without it what is sealed with it is of no use. */
async function copyKey({ sources, target, there, signal }: BackupCopy, keyId: string): Promise<void> {
  const prefix = layout.keyGenerations(keyId);
  if (there.has(prefix)) return;
  const { how, ...rest } = await copyDataKey(sources, target, keyId, signal);
  if (how === 'missing') {
    if ('cause' in rest && rest.cause instanceof DrError) throw rest.cause;
    throw new DrError('corrupt', `no other vault has the data key ${keyId}`, { where: prefix });
  }
  there.add(prefix);
}

/** What the first source gives that can. A source that does not answer counts as one that lacks it, unless it is the last. */
async function fromAny<T>(copy: BackupCopy, key: string, read: (source: ObjectStore) => Promise<T>): Promise<T> {
  let failure: unknown;
  for (const source of copy.sources) {
    try {
      return await read(source);
    } catch (error) {
      if (copy.signal?.aborted || isAbort(error)) throw error;
      // A damaged copy says more than one that could not be asked.
      if (!(failure instanceof DrError && failure.kind === 'corrupt')) failure = error;
    }
  }
  if (failure instanceof DrError && failure.kind !== 'not-found') throw failure;
  throw new DrError('corrupt', `no other vault has ${key}`, { where: key, cause: failure });
}

async function requireSame(
  target: ObjectStore,
  key: string,
  bytes: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<void> {
  if ((await target.read(key, undefined, { signal })).equals(bytes)) return;
  throw new DrError('conflict', `vault ${target.name} has another object under this name`, {
    where: `${target.location}/${key}`,
    next: 'One of the two vaults was damaged or tampered with: compare the object in both.',
  });
}
