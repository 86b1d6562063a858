import { listBackupIds, readManifest } from '../backup/catalog.ts';
import type { Manifest } from '../backup/manifest.ts';
import type { WalPosition } from '../backup/wal/listing.ts';
import { parseLsn } from '../postgres/lsn.ts';
import type { ObjectStore } from '../vault/store.ts';

/** The PostgreSQL system of the newest backup of a database; undefined if there is no backup. Throws when no vault answers. */
export async function newestSystem(stores: readonly ObjectStore[], database: string): Promise<string | undefined> {
  return await firstAnswer(stores, async (store) => {
    const id = (await listBackupIds(store, database)).at(-1);
    return id === undefined ? undefined : (await readManifest(store, database, id)).database?.systemId;
  });
}

/**
 * From where on the WAL of a database is needed: the start of the oldest backup of the same PostgreSQL system as the newest one.
 * Undefined without a backup. Throws when no vault answers.
 */
export async function oldestNeededWal(
  stores: readonly ObjectStore[],
  database: string,
): Promise<WalPosition | undefined> {
  return await firstAnswer(stores, async (store) => {
    const ids = await listBackupIds(store, database);
    const last = ids.at(-1);
    if (last === undefined) return undefined;
    const newest = await readManifest(store, database, last);
    for (const id of ids) {
      const manifest = id === last ? newest : await readManifest(store, database, id);
      if (manifest.database?.systemId === newest.database?.systemId) return startOf(manifest);
    }
    return undefined;
  });
}

function startOf({ database }: Manifest): WalPosition | undefined {
  const lsn = database && parseLsn(database.startLsn);
  return database && lsn !== undefined ? { timeline: database.timeline, lsn } : undefined;
}

async function firstAnswer<T>(
  stores: readonly ObjectStore[],
  ask: (store: ObjectStore) => Promise<T | undefined>,
): Promise<T | undefined> {
  const failures: unknown[] = [];
  for (const store of stores) {
    try {
      const answer = await ask(store);
      if (answer !== undefined) return answer;
    } catch (error) {
      failures.push(error);
    }
  }
  if (stores.length > 0 && failures.length === stores.length) throw failures[0];
  return undefined;
}
