import type { ConfigOptions } from './config-options.ts';
import type { CommandContext, CommandResult } from './context.ts';

/** `dr config`: what changed in a configuration, and objects back into a cluster. */
export async function run(context: CommandContext, options: ConfigOptions): Promise<CommandResult> {
  if (options.action === 'diff') return await (await import('./config-diff.ts')).diffConfig(context, options);
  return await (await import('./config-restore.ts')).restoreConfig(context, options);
}
