import { layout, timeOfId } from '../vault/layout.ts';
import { readManifest, recentNames } from './catalog.ts';
import type { BackupContext, TakenBackup } from './context.ts';

/** When the newest backup over all vaults that answer was begun, milliseconds since 1970. Throws when none answers. */
export async function newestStart(
  { stores, clock }: Pick<BackupContext, 'stores' | 'clock'>,
  resource: string,
  signal: AbortSignal,
): Promise<number | undefined> {
  let newest: number | undefined;
  const failures: unknown[] = [];
  await Promise.all(
    stores.map(async (store) => {
      try {
        const id = (await recentNames(store, layout.manifests(resource), clock.now(), signal)).at(-1);
        const startMs = id === undefined ? undefined : timeOfId(id);
        if (startMs !== undefined) newest = Math.max(startMs, newest ?? 0);
      } catch (error) {
        failures.push(error);
      }
    }),
  );
  signal.throwIfAborted();
  if (failures.length === stores.length && stores.length > 0) throw failures[0];
  return newest;
}

/**
 * The newest backup if it was begun at that moment or later, as the outcome of a run that has nothing left to do; undefined if none was, or no
 * vault can say. To be asked under the lease of the resource.
 */
export async function takenSince(
  { stores, clock, signal }: Pick<BackupContext, 'stores' | 'clock' | 'signal'>,
  resource: string,
  sinceMs: number,
): Promise<TakenBackup | undefined> {
  for (const store of stores) {
    try {
      const id = (await recentNames(store, layout.manifests(resource), clock.now(), signal)).at(-1);
      if (id === undefined || (timeOfId(id) ?? 0) < sinceMs) continue;
      const manifest = await readManifest(store, resource, id);
      return { manifest, vaults: [store.name], lost: [], unchanged: true, takenBefore: true };
    } catch {
      // A vault that cannot say counts as one that has none: at worst a backup is taken twice.
      signal?.throwIfAborted();
    }
  }
  return undefined;
}
