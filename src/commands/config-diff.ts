import { compareSides } from '../backup/compare/compare.ts';
import { liveCluster } from '../backup/compare/live-cluster.ts';
import { liveFolder } from '../backup/compare/live-folder.ts';
import { backupSide, type Side } from '../backup/compare/side.ts';
import type { IndexEntry } from '../backup/index-format.ts';
import { renamesBetween } from '../backup/objects-restore/rename.ts';
import { DrError } from '../base/errors.ts';
import { openCluster } from '../cluster/open.ts';
import { forSite } from '../config/sites.ts';
import { renderConfigDiff } from '../report/config-diff.ts';
import type { ConfigDiffOptions, ConfigPoint } from './config-options.ts';
import { findBackup, requireConfiguration } from './config-source.ts';
import type { CommandContext, CommandResult } from './context.ts';
import { openWorld, type World } from './world.ts';

type Indexed = Side & { readonly index?: ReadonlyMap<string, IndexEntry>; readonly site?: string };

/** `dr config diff`: what differs between two states of a configuration. */
export async function diffConfig(context: CommandContext, options: ConfigDiffOptions): Promise<CommandResult> {
  await using world = await openWorld(context, { vaults: 'read' });
  const { name, before, after, vault, stat, exitCode } = options;
  requireConfiguration(world.config, name);
  const backed = async (point: ConfigPoint): Promise<Indexed | undefined> => {
    if (point.kind === 'live') return undefined;
    const source = await findBackup(world, name, point, vault, context.log);
    return { ...(await backupSide(source, context.signal)), site: source.manifest.site };
  };
  const [first, second] = [await backed(before), await backed(after)];
  const other = first ?? second;
  const left = first ?? (await live(context, world, name, before, other));
  const right = second ?? (await live(context, world, name, after, other));
  const comparison = await compareSides(left, right);
  return {
    data: { configuration: name, ...comparison },
    text: renderConfigDiff(name, comparison, stat),
    ...(exitCode && comparison.changes.length > 0 ? { failure: 'check-failed' as const } : {}),
  };
}

/** The state of now, of a folder or a cluster. */
async function live(
  context: CommandContext,
  world: World,
  name: string,
  point: ConfigPoint,
  other: Indexed | undefined,
): Promise<Side> {
  const { config } = world;
  const site = point.kind === 'live' ? point.site : undefined;
  const places = site === undefined ? await world.activePlaces() : forSite(config, site);
  const [folder, objects] = [places.directories[name], places.objects[name]];
  const now = context.clock.now();
  const index = other?.index ?? new Map<string, IndexEntry>();
  if (folder) return { ...(await liveFolder(folder.path, folder.directory.exclude, index, now)), name: nameOf(site) };
  if (!objects)
    throw new DrError('config', `${name} has no place at site ${places.site.name}`, {
      where: config.source.path,
      next: config.objects[name]
        ? `Say which cluster it is (sites.${places.site.name}.cluster) and that ${name} is brought up there (recover.${places.site.name}).`
        : `Add "recover.${places.site.name}" to ${name}, or compare two backups.`,
    });
  const cluster = await openCluster({ ...objects.cluster, env: context.env }, context.log);
  try {
    const { recover } = objects.objects;
    const renames = renamesBetween(recover, places.site.name, other?.site ?? config.active);
    return { ...(await liveCluster(cluster, objects.objects, now, context.signal, renames)), name: nameOf(site) };
  } finally {
    cluster.close();
  }
}

function nameOf(site: string | undefined): string {
  return site === undefined ? 'live' : `live:${site}`;
}
