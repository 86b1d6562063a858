import { listBackupIds } from '../backup/catalog.ts';
import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { ObjectStore } from '../vault/store.ts';

/**
 * The vaults in the order in which a restore asks them: those with the newest backup of the resource before those that lag or whose
 * listing is not whole, and among these the site's own first. One that does not answer comes last, to say why when it is its turn.
 */
export async function newestFirst(
  stores: readonly ObjectStore[],
  resource: string,
  own: string | undefined,
  log: Log,
): Promise<ObjectStore[]> {
  const newest = new Map<ObjectStore, string>();
  await Promise.all(
    stores.map(async (store) => {
      try {
        newest.set(store, (await listBackupIds(store, resource)).at(-1) ?? '');
      } catch (error) {
        if (!(error instanceof DrError)) throw error;
      }
    }),
  );
  const ids = [...newest.values()].sort();
  const best = ids.at(-1) ?? '';
  for (const [store, id] of newest) {
    if (id < best)
      log.warn(
        { vault: store.name, resource, newest: id || undefined, elsewhere: best },
        'this vault lacks the newest backup',
      );
  }
  const rank = (store: ObjectStore) => (newest.get(store) === best ? 2 : newest.has(store) ? 1 : 0);
  return [...stores].sort((a, b) => rank(b) - rank(a) || Number(b.name === own) - Number(a.name === own));
}
