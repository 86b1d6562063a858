import { DrError } from '../../base/errors.ts';
import type { Lsn } from '../../postgres/lsn.ts';
import { layout } from '../../vault/layout.ts';
import type { Body, ObjectStore } from '../../vault/store.ts';
import type { Expectation } from './block.ts';
import type { VaultWal } from './listing.ts';
import { readWalHeader, type WalHeader } from './object.ts';

/**
 * Stores a WAL object, never overwriting: what is there already has to be the same WAL (sealed with another session's key it has other
 * bytes). Anything else is a `conflict`, which is not retryable.
 */
export async function createWal(
  store: ObjectStore,
  object: { readonly key: string; readonly header: WalHeader; readonly body: Body },
  signal?: AbortSignal,
): Promise<'created' | 'exists'> {
  if ((await store.create(object.key, object.body, { signal })) === 'created') {
    await keepKeyLocked(store, object.header.keyId, signal);
    return 'created';
  }
  const there = await readWalHeader(store, object.key, undefined, signal);
  if (there.rawSha256 !== object.header.rawSha256 || there.length !== object.header.length) {
    throw lineageConflict(store, object.key);
  }
  return 'exists';
}

/** The key of a session is older than most of what it seals, and has to stay locked as long. A request only once in days. */
async function keepKeyLocked(store: ObjectStore, keyId: string | undefined, signal?: AbortSignal): Promise<void> {
  if (!store.locks || keyId === undefined) return;
  await store.locks.extend([layout.keyGenerations(keyId)], { signal }).catch((error: unknown) => {
    // WAL goes on without that right; `dr doctor` says that it is missing.
    if (!(error instanceof DrError && error.kind === 'denied')) throw error;
  });
}

/** The pieces that a vault has of an open block, with what they have to contain. */
export async function expectationsOf(
  store: ObjectStore,
  contents: VaultWal,
  block: { readonly timeline: number; readonly start: Lsn; readonly bytes: number },
  signal: AbortSignal,
): Promise<Expectation[]> {
  return await Promise.all(
    contents.piecesIn(block.timeline, block.start, block.bytes).map(async ({ key, size, from, to }) => {
      const header = await readWalHeader(store, key, size, signal);
      return { key, from, to, sha256: header.rawSha256 };
    }),
  );
}

/** Two servers wrote different WAL under one name. */
export function lineageConflict(store: ObjectStore, key: string): DrError {
  return new DrError(
    'conflict',
    'the vault already holds other WAL under this name: two histories of the same timeline',
    {
      where: `${store.location}/${key}`,
      next: 'Find the other server or dr that archives this system (a copy of the database, an old primary, a restore without promotion) and stop it; then take a new base backup of the right one under a new timeline (pg_promote). Nothing was overwritten.',
    },
  );
}
