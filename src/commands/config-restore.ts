import { readBackedObjects } from '../backup/objects-restore/read.ts';
import { renamesBetween } from '../backup/objects-restore/rename.ts';
import { countOutcomes, failureOfAll } from '../backup/objects-restore/result.ts';
import { restoreObjects } from '../backup/objects-restore/run.ts';
import type { ErrorKind } from '../base/errors.ts';
import { DrError } from '../base/errors.ts';
import { openCluster } from '../cluster/open.ts';
import { forSite } from '../config/sites.ts';
import type { ObjectsTarget } from '../config/types.ts';
import { renderConfigRestore } from '../report/config-restore.ts';
import type { ConfigRestoreOptions } from './config-options.ts';
import { findBackup, requireConfiguration } from './config-source.ts';
import type { CommandContext, CommandResult } from './context.ts';
import { openWorld, type World } from './world.ts';

/** `dr config restore`: applies the objects of a backup to a cluster, or shows what that would do. */
export async function restoreConfig(context: CommandContext, options: ConfigRestoreOptions): Promise<CommandResult> {
  await using world = await openWorld(context, { vaults: 'read' });
  const { name, diff } = options;
  requireConfiguration(world.config, name);
  if (world.config.configuration[name])
    throw new DrError('usage', `${name} is a folder, not objects of a cluster`, {
      where: world.config.source.path,
      next: `Write: dr restore ${name} --to DIR`,
    });
  const { access, target, label, site } = placeOf(world, options);
  const source = await findBackup(world, name, options.point, options.vault, context.log);
  const cluster = await openCluster({ ...access, env: context.env }, context.log);
  try {
    const backed = await readBackedObjects(source, context.signal);
    if (!diff) await confirm(context, options, label, cluster.target);
    const begunMs = context.clock.now();
    const recover = world.config.objects[name]?.recover ?? {};
    // What begins to run at a site that stands by may write where the active one does.
    const isStandby = site !== undefined && site !== (await world.activePlaces()).site.name;
    const known = site === undefined ? [] : renamesBetween(recover, source.manifest.site, site);
    const { manifest, store } = source;
    const { reason } = options;
    if (!diff)
      context.log.info(
        { configuration: name, backup: manifest.id, cluster: cluster.target, reason },
        'objects are restored',
      );
    const result = await restoreObjects(backed, {
      cluster,
      name,
      namespaces: new Map([...known, ...options.namespaces]),
      only: options.only,
      scaleToZero: options.scaleToZero ?? (isStandby && (target?.scaleToZero ?? true)),
      servedVersions: options.servedVersions,
      force: options.forceConflicts,
      dryRun: diff,
      clock: context.clock,
      log: context.log,
      signal: context.signal,
      onProgress: context.onProgress,
    });
    const facts = {
      configuration: name,
      backup: manifest.id,
      vault: store.name,
      recoveryPoint: manifest.recoveryPoint,
      cluster: cluster.target,
      stored: !diff,
      ...(reason !== undefined && { reason }),
      ms: context.clock.now() - begunMs,
    };
    const { stopped, ...rest } = result;
    const isDoubtful = diff && result.findings.some(({ verdict }) => verdict === 'fail');
    const failure: ErrorKind | undefined = failureOfAll(result) ?? (isDoubtful ? 'check-failed' : undefined);
    return {
      data: {
        ...facts,
        counts: countOutcomes(result.objects),
        ...rest,
        ...(stopped && { stopped: { kind: stopped.kind, message: stopped.message, next: stopped.next } }),
      },
      text: renderConfigRestore(facts, result),
      ...(failure ? { failure } : {}),
    };
  } finally {
    cluster.close();
  }
}

interface Place {
  readonly access: { readonly kubeconfig?: string | undefined; readonly context?: string | undefined };
  /** What the configuration says about bringing it up there. */
  readonly target: ObjectsTarget | undefined;
  readonly site: string | undefined;
  /** What a person types who means it. */
  readonly label: string;
}

function placeOf({ config }: World, { name, target }: ConfigRestoreOptions): Place {
  if (!('site' in target)) return { access: target, target: undefined, site: undefined, label: name };
  const { site } = target;
  const { cluster } = forSite(config, site).site;
  if (!cluster)
    throw new DrError('config', `site ${site} has no cluster`, {
      where: config.source.path,
      next: `Add "cluster: { kubeconfig: …, context: … }" to sites.${site}, or restore with --cluster KUBECONFIG.`,
    });
  const recover = config.objects[name]?.recover ?? {};
  return { access: cluster, target: Object.hasOwn(recover, site) ? recover[site] : undefined, site, label: site };
}

async function confirm(
  context: CommandContext,
  options: ConfigRestoreOptions,
  label: string,
  cluster: string,
): Promise<void> {
  if (options.yes) return;
  if (context.ask === undefined) {
    throw new DrError('refused', 'nothing is restored into a cluster without a person who means it', {
      where: cluster,
      next: 'Add --yes, and --reason "WHY" for the log. "--diff" shows what it would do.',
    });
  }
  context.say(`This changes ${cluster}: objects of ${options.name} are created there, and set back to what they were.`);
  const typed = await context.ask(`Type ${label} to begin: `);
  if (typed.trim() === label) return;
  throw new DrError('refused', `"${typed.trim()}" is not ${label}: nothing has been done`, {
    where: cluster,
    next: 'Run the command again and type it.',
  });
}
