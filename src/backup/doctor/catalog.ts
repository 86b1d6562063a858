import { isAbort } from '../../base/errors.ts';
import { type Finding, fromError } from '../../base/finding.ts';
import type { Log } from '../../base/log.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { newestBackup } from '../catalog.ts';
import type { Manifest } from '../manifest.ts';

/** The newest backup of a resource in one vault. */
export interface NewestBackup {
  readonly store: ObjectStore;
  readonly manifest: Manifest;
}

/** The newest backup of each resource in each vault that answers; `problems` are manifests that cannot be read. */
export async function newestBackups(
  stores: readonly ObjectStore[],
  resources: readonly string[],
  log: Log,
): Promise<{ readonly newest: readonly NewestBackup[]; readonly problems: readonly Finding[] }> {
  const newest: NewestBackup[] = [];
  const problems: Finding[] = [];
  await Promise.all(
    stores.flatMap((store) =>
      resources.map(async (resource) => {
        try {
          const manifest = await newestBackup(store, resource);
          if (manifest) newest.push({ store, manifest });
        } catch (error) {
          if (isAbort(error)) throw error;
          log.debug({ vault: store.name, resource, error }, 'the newest backup cannot be read');
          problems.push(fromError(error));
        }
      }),
    ),
  );
  return { newest, problems };
}

/** The newest backup of a resource over all vaults. */
export function newestOf(newest: readonly NewestBackup[], resource: string): Manifest | undefined {
  return newest
    .map(({ manifest }) => manifest)
    .filter((manifest) => manifest.resource === resource)
    .sort((a, b) => (a.id < b.id ? 1 : -1))[0];
}
