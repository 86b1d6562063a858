import { newestBackup, readManifest } from '../backup/catalog.ts';
import type { BackupSource } from '../backup/read-files.ts';
import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { suggestion } from '../config/problems.ts';
import type { Config } from '../config/types.ts';
import type { ConfigPoint } from './config-options.ts';
import { newestFirst } from './newest-first.ts';
import type { World } from './world.ts';

/** Throws `not-found` for a name that is no configuration. */
export function requireConfiguration(config: Config, name: string): void {
  const names = [...Object.keys(config.configuration), ...Object.keys(config.objects)];
  if (names.includes(name)) return;
  throw new DrError('not-found', `there is no configuration "${name}"${suggestion(name, names)}`, {
    where: config.source.path,
    next: names.length === 0 ? 'Add it under "configuration".' : `Name one of: ${names.join(', ')}.`,
  });
}

/** The backup that is meant, from the vault that was named or the first that has it. Damage is never passed over in silence. */
export async function findBackup(
  world: World,
  name: string,
  point: Exclude<ConfigPoint, { kind: 'live' }>,
  vault: string | undefined,
  log: Log,
): Promise<BackupSource> {
  const own = world.config.sites[world.site]?.vault;
  const stores = vault === undefined ? await newestFirst(world.stores, name, own, log) : [world.store(vault)];
  const { keyRing } = world;
  const failures: DrError[] = [];
  for (const store of stores) {
    try {
      if (point.kind === 'id') return { store, keyRing, manifest: await readManifest(store, name, point.id) };
      const manifest = await newestBackup(store, name, point.kind === 'time' ? point.atMs : undefined);
      if (manifest) return { store, keyRing, manifest };
      const age = point.kind === 'time' ? ' that old' : '';
      failures.push(noBackup(`vault ${store.name} has no backup of ${name}${age}`, store.location));
    } catch (error) {
      if (!(error instanceof DrError) || !['unreachable', 'not-found', 'denied'].includes(error.kind)) throw error;
      failures.push(
        error.kind === 'not-found' && point.kind === 'id'
          ? noBackup(`vault ${store.name} has no backup ${point.id} of ${name}`, store.location)
          : error,
      );
    }
  }
  // A vault that is away may have what the others lack: that is the one to mend.
  throw (
    failures.find(({ kind }) => kind !== 'not-found') ?? failures[0] ?? noBackup(`no vault has a backup of ${name}`, '')
  );
}

function noBackup(message: string, where: string): DrError {
  return new DrError('not-found', message, { where, next: 'Look at "dr backups" for what there is.' });
}
