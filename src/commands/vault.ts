import { DrError } from '../base/errors.ts';
import type { CommandContext, CommandResult } from './context.ts';
import type { VaultOptions } from './options.ts';
import { openWorld } from './world.ts';

/** `dr vault enrol NAME`: a vault that was lost for good begins anew at the place that the configuration names. */
export async function run(context: CommandContext, { name }: VaultOptions): Promise<CommandResult> {
  const { config } = await context.loadConfig();
  if (!Object.hasOwn(config.vaults, name)) {
    throw new DrError('not-found', `there is no vault "${name}"`, {
      where: config.source.path,
      next: `Name one of: ${Object.keys(config.vaults).join(', ')}.`,
    });
  }
  await using world = await openWorld(context, { vaults: 'write', replaceVault: name });
  const store = world.store(name);
  // Still away: then this says why.
  await store.folders('');
  const text = `Vault ${name} at ${store.location} is ready. The daemon copies into it what the other vaults hold; \`dr status\` shows how far it is.`;
  return { data: { vault: name, location: store.location }, text };
}
