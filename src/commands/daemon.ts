import { formatDuration } from '../base/units.ts';
import { loadConfig } from '../config/load.ts';
import { hostDaemon } from '../daemon/host.ts';
import { cronTicker } from '../daemon/ticker.ts';
import type { CommandContext, CommandResult } from './context.ts';
import { type ClusterPace, type DaemonClusterParts, daemonClusterParts } from './daemon-cluster.ts';
import type { DaemonOptions } from './options.ts';
import { verifyOne } from './verify.ts';
import { openWorld, type World } from './world.ts';

/** What a test makes faster. */
type Pace = Pick<Parameters<typeof hostDaemon>[0], 'askEveryMs'> & ClusterPace;

/** `dr daemon`: protects the site until it is told to stop; SIGHUP reads the configuration again. */
export async function run(context: CommandContext, _options: DaemonOptions, pace: Pace = {}): Promise<CommandResult> {
  const { clock, log, version } = context;
  const startedMs = clock.now();
  const { config } = await context.loadConfig();
  let read = context.loadConfig;
  const readAgain = async () => await loadConfig(context.configPath, context.env, { site: context.site });
  await hostDaemon({
    version,
    listen: config.daemon.listen,
    stop: context.signal,
    onReload: (listener) => context.onReload(listener),
    check: async () => {
      const loaded = await readAgain();
      const { host, port } = loaded.config.daemon.listen;
      if (host !== config.daemon.listen.host || port !== config.daemon.listen.port) {
        log.warn({ host, port }, 'daemon.listen has changed: that takes a restart');
      }
      read = async () => loaded;
    },
    open: async (signal) => {
      // Signals of the process stop the daemon as a whole, which then decides what is finished first.
      const inside: CommandContext = { ...context, signal, onProgress: () => {}, loadConfig: read };
      const world = await openWorld(inside, { vaults: 'write' });
      try {
        return asDaemonWorld(world, await daemonClusterParts(world.config, world.site, inside, pace), inside);
      } catch (error) {
        await world[Symbol.asyncDispose]();
        throw error;
      }
    },
    ticker: () => cronTicker('dr daemon', log),
    clock,
    log,
    ...pace,
  });
  const ranMs = clock.now() - startedMs;
  return { data: { ranMs }, text: `dr: the daemon has stopped after ${formatDuration(ranMs)}` };
}

function asDaemonWorld(world: World, parts: DaemonClusterParts, context: CommandContext) {
  const searchPath = (context.env['PATH'] ?? '').split(':').filter((directory) => directory !== '');
  return {
    config: world.config,
    site: world.site,
    stores: world.stores,
    bare: world.bare,
    keyRing: world.keyRing,
    backups: world.backupContext(world.site),
    replicas: parts.replicas,
    ...(parts.executor && { executor: parts.executor }),
    verify: async (resource: Parameters<typeof verifyOne>[1], store: World['stores'][number], signal: AbortSignal) => {
      const backupContext = (site: string) => ({ ...world.backupContext(site), signal });
      return await verifyOne({ ...world, backupContext }, resource, store, searchPath);
    },
    [Symbol.asyncDispose]: async () => {
      parts.close();
      await world[Symbol.asyncDispose]();
    },
  };
}
