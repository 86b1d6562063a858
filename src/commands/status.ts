import type { ResourceStatus, Status } from '../backup/status/model.ts';
import { measureStatus } from '../backup/status/status.ts';
import { worstIntervalMs } from '../config/cadence.ts';
import { checkIntervals, watchedResources } from '../daemon/watched.ts';
import { renderStatus } from '../report/status.ts';
import type { CommandContext, CommandResult } from './context.ts';
import type { StatusOptions } from './options.ts';
import { openWorld } from './world.ts';

/** `dr status`: measured, from what the vaults hold now. Exit code of `objective-broken` when an objective is. */
export async function run(context: CommandContext, _options: StatusOptions): Promise<CommandResult> {
  await using world = await openWorld(context, { vaults: 'read' });
  const { config, stores } = world;
  const status = await measureStatus({
    stores,
    resources: watchedResources(config),
    siteRegions: Object.fromEntries(Object.values(config.sites).map(({ name, region }) => [name, region])),
    firstActive: config.active,
    rtoMs: config.objectives.rtoMs,
    vaultCheck: checkIntervals(config),
    retentionEveryMs: worstIntervalMs(config.daemon.retentionSchedule),
    clock: context.clock,
    signal: context.signal,
  });
  return {
    data: { ...plain(status), objectives: config.objectives },
    text: renderStatus(status),
    ...(status.ok ? {} : { failure: 'objective-broken' as const }),
  };
}

/** Without the lists of parts and ids that the measuring needed. */
function plain({ resources, ...status }: Status): object {
  return { ...status, resources: resources.map(plainResource) };
}

function plainResource({ vaults, ...resource }: ResourceStatus): object {
  return {
    ...resource,
    vaults: vaults.map(({ vault, backup, recentIds, recoveryPointMs, walEnd, problem }) => ({
      vault,
      recoveryPointMs,
      walEnd,
      newestUsableBackup: backup?.id,
      recentBackups: recentIds.length,
      problem: problem?.message,
    })),
  };
}
