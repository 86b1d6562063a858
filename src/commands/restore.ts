import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { listBackupIds, newestBackup } from '../backup/catalog.ts';
import { layOutDatabase } from '../backup/lay-out-database.ts';
import {
  chooseDatabaseBackup,
  type DatabaseRecoveryPoint,
  recoverDatabase,
  restoreCluster,
} from '../backup/recover-database.ts';
import { restoreBackup } from '../backup/restore.ts';
import { fetchWalFile } from '../backup/wal/reader.ts';
import { forEachLimit } from '../base/concurrency.ts';
import { DrError, fileError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { formatBytes, formatDuration } from '../base/units.ts';
import { checkCluster } from '../postgres/checks.ts';
import { formatLsn, type Lsn, segmentName, segmentStart } from '../postgres/lsn.ts';
import { describeTarget } from '../postgres/recovery-target.ts';
import { formatRate, formatTime } from '../report/values.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { CommandContext, CommandResult } from './context.ts';
import { newestFirst } from './newest-first.ts';
import type { RestoreOptions } from './options.ts';
import { resourcesNamed, roleAndDatabase } from './resources.ts';
import { openWorld, type World } from './world.ts';

const SEGMENTS_IN_FLIGHT = 4;

/** `dr restore`: brings one resource back into an empty directory, from one vault, and touches nothing else. */
export async function run(context: CommandContext, options: RestoreOptions): Promise<CommandResult> {
  if (options.to === '') {
    throw new DrError('usage', 'the place to restore to is missing', { next: 'Give it with --to DIR.' });
  }
  await using world = await openWorld(context, { vaults: 'read' });
  const [resource] = resourcesNamed(world.config, [options.resource]);
  const target = path.resolve(options.to);
  const begunMs = context.clock.now();
  const took = () => context.clock.now() - begunMs;
  if (resource?.kind !== 'database') {
    const given = options.start ? '--start' : options.walTo !== undefined ? '--wal-to' : options.backup && '--backup';
    if (given) throw new DrError('usage', `${given} is for databases`, { where: options.resource });
    return await restoreDirectory(context, world, options, target, took);
  }
  if (options.start && options.walTo !== undefined) {
    throw new DrError('usage', '--start and --wal-to are two ways to recover: give one of them');
  }
  const { store, point } = await chooseVault(
    world,
    options,
    context.log,
    async (candidate) =>
      await chooseDatabaseBackup(candidate, options.resource, options.at, context.signal, options.backup),
  );
  if (options.walTo !== undefined)
    return await layOut(context, world, { store, point, target, took, walDirectory: path.resolve(options.walTo) });
  return options.start
    ? await recoverAndStop(context, world, store, point, target, took)
    : await restoreReadyToStart(context, world, options, { store, point, target, took });
}

async function restoreDirectory(
  context: CommandContext,
  world: World,
  options: RestoreOptions,
  target: string,
  took: () => number,
): Promise<CommandResult> {
  const { at, resource } = options;
  if (at.kind === 'lsn')
    throw new DrError('usage', 'an LSN is a place in a database; this resource has none', { where: resource });
  const { store, point: manifest } = await chooseVault(world, options, context.log, async (candidate) => {
    const found = await newestBackup(candidate, resource, at.kind === 'time' ? at.atMs : undefined);
    if (found) return found;
    const oldest = (await listBackupIds(candidate, resource))[0];
    throw new DrError(
      'not-found',
      oldest
        ? `vault ${candidate.name} has no backup of ${resource} that old`
        : `vault ${candidate.name} has no backup of ${resource}`,
      {
        where: `${candidate.location}/manifests/${resource}/${oldest ?? ''}`,
        next: 'Look at `dr backups` for what there is.',
      },
    );
  });
  const { keyRing, pool } = world;
  const done = await restoreBackup({
    store,
    manifest,
    keyRing,
    pool,
    target,
    onProgress: context.onProgress,
    signal: context.signal,
  });
  const ms = took();
  return {
    data: {
      resource,
      backup: manifest.id,
      vault: store.name,
      target,
      recoveryPoint: manifest.recoveryPoint,
      ...done,
      ms,
    },
    text: [
      `${resource} of ${formatTime(Date.parse(manifest.recoveryPoint))} is restored to ${target}: ${done.entries} entries, ${formatBytes(done.bytes)} in ${formatDuration(ms)} (${formatRate(done.bytes, ms)}) from vault ${store.name}, every byte checked.`,
      ...done.warnings.map((warning) => `NOT RESTORED ${warning}`),
    ].join('\n'),
  };
}

/** Recovery to the target by a real server; ends with a cluster that is checked, consistent and cleanly shut down. */
async function recoverAndStop(
  context: CommandContext,
  world: World,
  store: ObjectStore,
  point: DatabaseRecoveryPoint,
  target: string,
  took: () => number,
): Promise<CommandResult> {
  const { config, keyRing, pool } = world;
  const { resource } = point.manifest;
  const { roles, database } = roleAndDatabase(config.databases[resource]?.url ?? '');
  const searchPath = (context.env.PATH ?? '').split(':').filter((directory) => directory !== '');
  const cluster = await recoverDatabase({
    store,
    point,
    keyRing,
    pool,
    dataDirectory: target,
    binaries: config.postgresql.binaries,
    searchPath,
    address: undefined,
    // What is restored for use must be on disk when this command says so.
    settings: { fsync: 'on', full_page_writes: 'on', synchronous_commit: 'on' },
    roles,
    onProgress: context.onProgress,
    signal: context.signal,
    log: context.log,
  });
  const reached = cluster.reached;
  let checks: Awaited<ReturnType<typeof checkCluster>>;
  try {
    await cluster.promote({ signal: context.signal });
    checks = await checkCluster({
      urlFor: (name) => cluster.urlFor(name),
      database,
      amcheck: 'none',
      mayCreateExtension: false,
      sql: config.verification.checks[resource] ?? [],
      signal: context.signal,
    });
  } finally {
    await cluster.stop('fast');
  }
  const failed = checks.filter(({ ok }) => !ok);
  const lastCommit = reached?.lastCommitAtMs === undefined ? undefined : new Date(reached.lastCommitAtMs).toISOString();
  const replayedTo = reached ? formatLsn(reached.replayedTo) : undefined;
  const bytes = point.manifest.logicalBytes;
  const ms = took();
  const lines = [
    `${resource} is recovered to ${target}: WAL replayed to ${replayedTo ?? 'the target'}${lastCommit ? `, last commit of ${lastCommit}` : ''}; ${formatBytes(bytes)} in ${formatDuration(ms)} (${formatRate(bytes, ms)}) from vault ${store.name}.`,
    `The server was promoted, checked and stopped. Start it with PostgreSQL ${point.database.majorVersion}: postgres -D ${target}`,
    ...failed.map(({ what, detail }) => `CHECK FAILED ${what}: ${detail}`),
  ];
  return {
    data: { resource, backup: point.manifest.id, vault: store.name, target, replayedTo, lastCommit, bytes, checks, ms },
    text: lines.join('\n'),
    ...(failed.length > 0 ? { failure: 'check-failed' as const } : {}),
  };
}

/** The base backup with its WAL beside it, so that any start of the server replays to the end of the archive by itself. */
async function restoreReadyToStart(
  context: CommandContext,
  world: World,
  options: RestoreOptions,
  found: { store: ObjectStore; point: DatabaseRecoveryPoint; target: string; took: () => number },
): Promise<CommandResult> {
  const { store, point, target, took } = found;
  const { manifest, database, plan } = point;
  if (options.at.kind !== 'latest' || plan.timeline !== database.timeline) {
    throw new DrError(
      'usage',
      'a target before the end, or beyond a change of timeline, needs a server to recover to it',
      {
        where: options.resource,
        next: 'Add --start.',
      },
    );
  }
  const { keyRing, pool } = world;
  await restoreCluster({
    store,
    point,
    keyRing,
    pool,
    dataDirectory: target,
    onProgress: context.onProgress,
    signal: context.signal,
  });
  await placeWal(context, world, store, point, target);
  const ms = took();
  return {
    data: {
      resource: options.resource,
      backup: manifest.id,
      vault: store.name,
      target,
      endLsn: formatLsn(plan.endLsn),
      bytes: manifest.logicalBytes,
      ms,
    },
    text: [
      `${options.resource} is restored to ${target} with its WAL to ${formatLsn(plan.endLsn)}: ${formatBytes(manifest.logicalBytes)} in ${formatDuration(ms)} from vault ${store.name}, every byte checked.`,
      `It is not recovered yet: PostgreSQL ${database.majorVersion} replays the WAL at its first start (or use --start).`,
    ].join('\n'),
  };
}

/** For a stock server that recovers by itself, with `cp`. */
async function layOut(
  context: CommandContext,
  world: World,
  found: { store: ObjectStore; point: DatabaseRecoveryPoint; target: string; took: () => number; walDirectory: string },
): Promise<CommandResult> {
  const { store, point, target, took, walDirectory } = found;
  const { manifest, database, plan } = point;
  const recover = world.config.databases[manifest.resource]?.recover;
  const place = recover && Object.hasOwn(recover, world.site) ? recover[world.site] : undefined;
  const { keyRing, pool } = world;
  const { walFiles } = await layOutDatabase({
    store,
    point,
    keyRing,
    pool,
    dataDirectory: target,
    walDirectory,
    parameters: place === undefined ? {} : { port: String(place.port), ...place.parameters },
    onProgress: context.onProgress,
    signal: context.signal,
  });
  const ms = took();
  const goal = describeTarget(plan.target);
  return {
    data: {
      resource: manifest.resource,
      backup: manifest.id,
      vault: store.name,
      target,
      walDirectory,
      walFiles,
      timeline: plan.timeline,
      endLsn: formatLsn(plan.endLsn),
      bytes: manifest.logicalBytes,
      ms,
    },
    text: [
      `${manifest.resource} lies in ${target}, its WAL to ${formatLsn(plan.endLsn)} in ${walDirectory}: ${formatBytes(manifest.logicalBytes)} in ${formatDuration(ms)} from vault ${store.name}, every byte checked.`,
      `PostgreSQL ${database.majorVersion} recovers it to ${goal} when it starts (postgres -D ${target}), stops there, and is read-only until it is promoted (select pg_promote()).`,
    ].join('\n'),
  };
}

async function placeWal(
  context: CommandContext,
  world: World,
  store: ObjectStore,
  { database, plan, manifest }: DatabaseRecoveryPoint,
  target: string,
): Promise<void> {
  const directory = path.join(target, 'pg_wal');
  const segments: Lsn[] = [];
  const step = BigInt(database.segmentBytes);
  for (let at = segmentStart(plan.startLsn, database.segmentBytes); at < plan.endLsn; at += step) segments.push(at);
  let done = 0;
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await forEachLimit(segments, SEGMENTS_IN_FLIGHT, async (at) => {
      const name = segmentName(database.timeline, at, database.segmentBytes);
      const content = await fetchWalFile(store, world.keyRing, database.systemId, name, context.signal);
      if (!content) {
        throw new DrError('corrupt', `the WAL segment ${name} has gone from the archive`, {
          where: store.location,
          next: 'Restore from another vault (--vault NAME).',
        });
      }
      await writeFile(path.join(directory, name), content, { flag: 'wx', mode: 0o600, flush: true });
      done++;
      context.onProgress({ task: `WAL of ${manifest.resource}`, done, total: segments.length, unit: 'objects' });
    });
  } catch (error) {
    throw fileError(error, directory, 'write the WAL');
  }
}

/** The named vault, or the first that has the recovery point: that of this site before the others. */
async function chooseVault<T>(
  world: World,
  options: RestoreOptions,
  log: Log,
  find: (store: ObjectStore) => Promise<T>,
): Promise<{ store: ObjectStore; point: T }> {
  if (options.vault !== undefined) {
    const store = world.store(options.vault);
    return { store, point: await find(store) };
  }
  const own = world.config.sites[world.site]?.vault;
  const ordered = await newestFirst(world.stores, options.resource, own, log);
  const failures: unknown[] = [];
  for (const store of ordered) {
    try {
      return { store, point: await find(store) };
    } catch (error) {
      // Damage is never passed over in silence: the person decides to go to another vault.
      const elsewhere =
        error instanceof DrError &&
        (error.kind === 'unreachable' || error.kind === 'not-found' || error.kind === 'denied');
      if (!elsewhere) throw error;
      failures.push(error);
    }
  }
  throw failures.find((error) => error instanceof DrError && error.kind === 'not-found') ?? failures[0];
}
