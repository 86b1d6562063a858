import { backupResource } from '../backup/backup-resource.ts';
import type { BackupContext, TakenBackup } from '../backup/context.ts';
import { lossesOf, reuseRatio } from '../backup/manifest.ts';
import { gatherOwnConfiguration, keepOwnConfiguration } from '../backup/own-configuration.ts';
import { waitForArchive, withPassingArchiver } from '../backup/wal/ensure.ts';
import { DrError, type ErrorKind, isAbort } from '../base/errors.ts';
import { formatBytes, formatDuration } from '../base/units.ts';
import type { SitePlaces } from '../config/sites.ts';
import { inspectServer } from '../postgres/inspect.ts';
import { reportError } from '../report/error.ts';
import { type Column, renderTable } from '../report/table.ts';
import { list } from '../report/values.ts';
import { shippedRunbooks } from '../runbook/load.ts';
import type { ObjectStore } from '../vault/store.ts';
import { totalUsage } from '../vault/usage.ts';
import type { CommandContext, CommandResult } from './context.ts';
import type { BackupOptions } from './options.ts';
import { type ConfiguredResource, resourcesNamed } from './resources.ts';
import { openWorld, type World } from './world.ts';

interface Outcome {
  readonly resource: string;
  readonly taken?: TakenBackup;
  readonly error?: unknown;
}

/** `dr backup`: takes backups now, one after the other; a failed one does not stop the others. */
export async function run(context: CommandContext, options: BackupOptions): Promise<CommandResult> {
  await using world = await openWorld(context, { vaults: 'write' });
  const resources = resourcesNamed(world.config, options.resources);
  const places = await world.activePlaces();
  if (places.site.name !== world.site) {
    throw new DrError('refused', `site ${places.site.name} is active, and this dr runs at ${world.site}`, {
      where: world.config.source.path,
      next: `Run the backup at ${places.site.name} (--site ${places.site.name} says that this is that site).`,
    });
  }
  await keepConfiguration(world, context);
  const outcomes: Outcome[] = [];
  for (const resource of resources) {
    try {
      outcomes.push({
        resource: resource.name,
        taken: await backupOne(world, places, resource, options),
      });
    } catch (error) {
      if (context.signal.aborted || isAbort(error)) throw error;
      outcomes.push({ resource: resource.name, error });
    }
  }
  return result(outcomes, world.stores);
}

/** dr's own configuration goes along; that it could not be kept is said, and keeps no backup from being taken. */
async function keepConfiguration(world: World, { log, signal }: CommandContext): Promise<void> {
  const { source, runbooks } = world.config;
  try {
    const own = await gatherOwnConfiguration(source.text, runbooks ?? shippedRunbooks);
    await keepOwnConfiguration(world.backupContext(world.site), { ...own, source: source.path });
  } catch (error) {
    if (signal.aborted || isAbort(error)) throw error;
    log.warn({ error }, 'the configuration of dr itself could not be kept in the vaults');
  }
}

async function backupOne(
  world: World,
  places: SitePlaces,
  resource: ConfiguredResource,
  { full, acceptNewSystem, ifNoneSinceMs }: BackupOptions,
): Promise<TakenBackup> {
  const context = { ...world.backupContext(places.site.name), full, unlessTakenSinceMs: ifNoneSinceMs };
  const missing = new DrError('config', `${resource.name} has no place at site ${places.site.name}`, {
    where: world.config.source.path,
    next:
      Object.hasOwn(world.config.objects, resource.name) && !places.site.cluster
        ? `Say how its cluster is reached: sites.${places.site.name}.cluster ({} = the one that dr runs in).`
        : `Add recover.${places.site.name} to ${resource.name}.`,
  });
  const inCluster = places.objects[resource.name];
  if (inCluster) {
    const { name, select, exclude, allowEmpty } = inCluster.objects;
    const { cluster } = inCluster;
    return await backupResource(context, { type: 'objects', name, select, exclude, allowEmpty, cluster });
  }
  if (resource.kind !== 'database') {
    const place = places.directories[resource.name];
    if (!place) throw missing;
    const { name, kind, exclude, allowEmpty } = place.directory;
    return await backupResource(context, { type: 'directory', name, kind, path: place.path, exclude, allowEmpty });
  }
  const place = places.databases[resource.name];
  if (!place) throw missing;
  const database = { name: resource.name, url: place.url };
  const { wal } = place.database;
  if (wal.enabled && (await isArchiving(context, place.url, wal.slot))) {
    const ensureWal = waitForArchive(context, database);
    return await backupResource(context, { type: 'database', ...database, ensureWal, acceptNewSystem });
  }
  return await withPassingArchiver(
    context,
    database,
    async (ensureWal) => await backupResource(context, { type: 'database', ...database, ensureWal, acceptNewSystem }),
  );
}

/** Whether a daemon receives the WAL of this database now: the server itself says that its slot is in use. */
async function isArchiving(context: BackupContext, url: string, slot: string): Promise<boolean> {
  const { signal, log } = context;
  const { slot: found } = await inspectServer(url, { slot, log, signal });
  return found?.active === true;
}

function result(outcomes: readonly Outcome[], stores: readonly ObjectStore[]): CommandResult {
  const errors = outcomes.flatMap(({ error }) => (error === undefined ? [] : [error]));
  const lost = outcomes.some(({ taken }) => taken !== undefined && (taken.lost.length > 0 || notes(taken) > 0));
  const [first] = errors;
  const failure: ErrorKind | undefined =
    first !== undefined ? (first instanceof DrError ? first.kind : 'internal') : lost ? 'objective-broken' : undefined;
  const details = outcomes.flatMap(({ resource, taken, error }) => {
    if (error !== undefined) return failureLines(resource, error);
    return (taken?.manifest.notes ?? []).map(
      ({ kind, subject, detail }) => `${resource}: ${kind} ${subject}: ${detail}`,
    );
  });
  return {
    data: {
      backups: outcomes.map(({ resource, taken, error }) => ({
        resource,
        ...(taken
          ? {
              id: taken.manifest.id,
              unchanged: taken.unchanged,
              vaults: taken.vaults,
              lost: taken.lost.map(({ vault, reason }) => ({ vault, reason })),
              logicalBytes: taken.manifest.logicalBytes,
              storedBytes: taken.manifest.storedBytes,
              reusedBytes: taken.manifest.reusedBytes ?? 0,
              reuseRatio: reuseRatio(taken.manifest),
              startedAt: taken.manifest.startedAt,
              finishedAt: taken.manifest.finishedAt,
              recoveryPoint: taken.manifest.recoveryPoint,
              notes: taken.manifest.notes,
            }
          : { error: reportError(error) }),
      })),
      // What it cost: enrolment, the configuration of dr and WAL that had to be archived included.
      usage: stores.map(({ name, stats }) => ({ vault: name, ...totalUsage(stats) })),
    },
    text: [renderTable(columns, outcomes), ...(details.length > 0 ? ['', ...details] : [])].join('\n'),
    ...(failure ? { failure } : {}),
  };
}

function failureLines(resource: string, error: unknown): string[] {
  const { message, where, causes, next } = reportError(error);
  return [
    `${resource}: ${message}`,
    ...(where === undefined ? [] : [`  where: ${where}`]),
    ...causes.map((cause) => `  why:   ${cause}`),
    ...(next === undefined ? [] : [`  next:  ${next}`]),
  ];
}

/** How much of what was taken is missing, in the backup or of its copies. */
function notes(taken: TakenBackup): number {
  if (taken.unchanged) return 0;
  return lossesOf(taken.manifest).length + taken.manifest.notes.filter(({ kind }) => kind === 'vault-lost').length;
}

const columns: readonly Column<Outcome>[] = [
  { title: 'RESOURCE', value: ({ resource }) => resource },
  {
    title: 'RESULT',
    value: ({ taken }) => {
      if (!taken) return 'FAILED';
      if (taken.unchanged) return 'unchanged';
      return taken.lost.length > 0 ? 'NOT IN ALL VAULTS' : notes(taken) > 0 ? 'INCOMPLETE' : 'ok';
    },
  },
  { title: 'BACKUP', value: ({ taken }) => taken?.manifest.id ?? '-' },
  { title: 'VAULTS', value: ({ taken }) => (taken ? list(taken.vaults) : '-') },
  { title: 'SIZE', value: ({ taken }) => (taken ? formatBytes(taken.manifest.logicalBytes) : '-'), align: 'right' },
  {
    title: 'STORED',
    value: ({ taken }) => (taken && !taken.unchanged ? formatBytes(taken.manifest.storedBytes) : '-'),
    align: 'right',
  },
  {
    title: 'TOOK',
    value: ({ taken }) =>
      taken && !taken.unchanged
        ? formatDuration(Date.parse(taken.manifest.finishedAt) - Date.parse(taken.manifest.startedAt))
        : '-',
    align: 'right',
  },
];
