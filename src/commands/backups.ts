import { type ListedBackup, listAllBackups } from '../backup/backup-listing.ts';
import { DrError } from '../base/errors.ts';
import { suggestion } from '../config/problems.ts';
import { renderBackups } from '../report/backups.ts';
import type { CommandContext, CommandResult } from './context.ts';
import type { BackupsOptions } from './options.ts';
import { configuredResources } from './resources.ts';
import { openWorld } from './world.ts';

/** `dr backups`: what the vaults hold. A resource that is not configured any more is listed as long as a vault has it. */
export async function run(context: CommandContext, options: BackupsOptions): Promise<CommandResult> {
  await using world = await openWorld(context, { vaults: 'read' });
  const stores = options.vault === undefined ? world.stores : [world.store(options.vault)];
  const listing = await listAllBackups(stores, options.resource, context.signal);
  const names = configuredResources(world.config).map(({ name }) => name);
  if (options.resource !== undefined && listing.backups.length === 0 && !names.includes(options.resource)) {
    throw new DrError('not-found', `there is no resource "${options.resource}"${suggestion(options.resource, names)}`, {
      where: world.config.source.path,
      next: `Name one of: ${names.join(', ')}.`,
    });
  }
  const unreadable = listing.backups.some(({ facts }) => facts === undefined);
  return {
    data: { backups: listing.backups.map(plain), unread: listing.unread },
    text: renderBackups(listing, context.clock.now(), options.resource),
    ...(unreadable ? { failure: 'corrupt' as const } : {}),
  };
}

/** With the facts beside the rest: what a program that reads the JSON expects. */
function plain({ facts, ...rest }: ListedBackup): object {
  return { ...rest, ...facts };
}
