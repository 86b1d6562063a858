import { DrError, isAbort, messageOf } from '../../base/errors.ts';
import { layout } from '../../vault/layout.ts';
import type { LostVault } from '../../vault/mirror.ts';
import { sha256 } from '../../vault/seal.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { listBackupIds } from '../catalog.ts';
import { decodeManifest, type Manifest } from '../manifest.ts';

/** The newest backup of a resource over all vaults, and which of them have it. */
export interface NewestBackup {
  readonly id: string;
  /** Undefined when no vault gives a manifest of it that can be read. */
  readonly manifest: Manifest | undefined;
  /** SHA-256 of the manifest as stored, hexadecimal. */
  readonly manifestSha256: string;
  /** Vaults that have this manifest. */
  readonly holders: readonly ObjectStore[];
  /** Vaults that answer and do not have it. */
  readonly lacking: readonly ObjectStore[];
  /** Vaults whose manifest of it is damaged or another one, and why. */
  readonly differing: readonly LostVault[];
  /** Vaults that do not answer, and why. */
  readonly away: readonly LostVault[];
}

/** Asks every vault for its newest backup of a resource; undefined when none of those that answer has any. */
export async function findNewest(
  stores: readonly ObjectStore[],
  resource: string,
  signal?: AbortSignal,
): Promise<NewestBackup | undefined> {
  const away: LostVault[] = [];
  const ids = new Map<ObjectStore, string | undefined>();
  await eachVault(stores, away, signal, async (store) => {
    ids.set(store, (await listBackupIds(store, resource)).at(-1));
  });
  const id = [...ids.values()]
    .flatMap((known) => known ?? [])
    .sort()
    .at(-1);
  if (id === undefined) return undefined;
  const key = layout.manifest(resource, id);
  const found = new Map<ObjectStore, { manifest: Manifest; digest: string }>();
  const differing: LostVault[] = [];
  const having = stores.filter((store) => ids.get(store) === id);
  await eachVault(having, away, signal, async (store) => {
    try {
      const bytes = await store.read(key, undefined, { signal });
      const manifest = decodeManifest(bytes, `${store.location}/${key}`);
      if (manifest.id !== id || manifest.resource !== resource) throw another(store, key);
      found.set(store, { manifest, digest: sha256(bytes).toString('hex') });
    } catch (error) {
      if (!(error instanceof DrError) || !['corrupt', 'refused'].includes(error.kind)) throw error;
      differing.push(lost(store, error));
    }
  });
  const [first] = found.values();
  for (const [store, { digest }] of found) {
    if (digest !== first?.digest) differing.push(lost(store, another(store, key)));
  }
  return {
    id,
    manifest: first?.manifest,
    manifestSha256: first?.digest ?? '',
    holders: stores.filter((store) => found.has(store) && found.get(store)?.digest === first?.digest),
    lacking: stores.filter((store) => ids.has(store) && ids.get(store) !== id),
    differing,
    away,
  };
}

/** Does something with each vault; those that do not answer are added to `away`. */
export async function eachVault(
  stores: readonly ObjectStore[],
  away: LostVault[],
  signal: AbortSignal | undefined,
  work: (store: ObjectStore) => Promise<void>,
): Promise<void> {
  await Promise.all(
    stores.map(async (store) => {
      try {
        await work(store);
      } catch (error) {
        if (signal?.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
        away.push(lost(store, error));
      }
    }),
  );
}

export function lost(store: ObjectStore, error: unknown, what?: string): LostVault {
  return { vault: store.name, reason: what ?? messageOf(error), error };
}

function another(store: ObjectStore, key: string): DrError {
  return new DrError('conflict', 'the manifest of the newest backup is not the one of the other vaults', {
    where: `${store.location}/${key}`,
    next: 'Run `dr vault check` on both vaults: one of them was damaged or tampered with.',
  });
}
