import { chmod, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { codeOf, DrError, fileError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { OnProgress } from '../base/progress.ts';
import { findPostgres, type PostgresBinaries } from '../postgres/binaries.ts';
import { type RunningCluster, recover, type ServerAddress } from '../postgres/recovery.ts';
import type { KeyRing } from '../vault/keys.ts';
import type { SealPool } from '../vault/seal-pool.ts';
import type { ObjectStore } from '../vault/store.ts';
import { listBackupIds, readManifest } from './catalog.ts';
import type { DatabaseFacts, Manifest } from './manifest.ts';
import { restoreBackup } from './restore.ts';
import { RestoreTarget } from './restore-target.ts';
import { walCoverage } from './wal/coverage.ts';
import { planRecovery, type RecoveryPlan, type WantedTarget } from './wal/plan.ts';
import { fetchWalFile } from './wal/reader.ts';

/** The backup to begin with and how far its WAL goes. */
export interface DatabaseRecoveryPoint {
  readonly manifest: Manifest;
  readonly database: DatabaseFacts;
  readonly plan: RecoveryPlan;
}

/**
 * Chooses the newest base backup of a vault from which the target can be reached without a hole in the WAL. Throws `not-found` with
 * the reason of the newest one when there is none: never another target than the one asked for. `backupId`: only this one.
 */
export async function chooseDatabaseBackup(
  store: ObjectStore,
  resource: string,
  target: WantedTarget,
  signal?: AbortSignal,
  backupId?: string,
): Promise<DatabaseRecoveryPoint> {
  const ids = (await listBackupIds(store, resource)).filter((id) => backupId === undefined || id === backupId);
  let failure: unknown;
  for (const id of ids.reverse()) {
    const manifest = await readManifest(store, resource, id);
    const { database } = manifest;
    if (!database) throw new DrError('refused', `${resource} is not a database`, { where: `${store.location} ${id}` });
    const coverage = await walCoverage(store, database.systemId, { resource, ...(signal ? { signal } : {}) });
    try {
      return { manifest, database, plan: planRecovery({ manifest, coverage, target }) };
    } catch (error) {
      // An older backup may reach a target before this one, or lie on the other side of a hole.
      if (!(error instanceof DrError) || error.kind !== 'not-found') throw error;
      failure ??= error;
    }
  }
  throw (
    failure ??
    new DrError(
      'not-found',
      `there is no backup ${backupId ?? ''} of ${resource} in vault ${store.name}`.replace('  ', ' '),
      {
        where: `${store.location}/manifests/${resource}/`,
        next: 'Look at `dr backups`, or restore from another vault (--vault NAME).',
      },
    )
  );
}

export interface RecoverDatabaseOptions {
  readonly store: ObjectStore;
  readonly point: DatabaseRecoveryPoint;
  readonly keyRing: KeyRing;
  readonly pool: SealPool;
  /** New or empty, or what an interrupted recovery of the same backup left. */
  readonly dataDirectory: string;
  /** Where PostgreSQL's executables are, before the usual places. */
  readonly binaries: readonly string[];
  readonly searchPath: readonly string[];
  /** Where the recovered server listens; undefined = an isolated copy behind a private socket. */
  readonly address: ServerAddress | undefined;
  /** Operating system user of the server when dr runs as root. */
  readonly user?: string | undefined;
  /** More settings of an isolated copy's server. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Role of the database's URL: tried before `postgres`. */
  readonly roles?: readonly string[];
  readonly onProgress?: OnProgress | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly log: Log;
}

/**
 * Brings a database back from one vault: base backup, then WAL to the target, fetched ahead while the server replays. Returns the
 * running server at the target, readable and not yet promoted. Called again after a crash, it goes on where that one stopped.
 */
export async function recoverDatabase(options: RecoverDatabaseOptions): Promise<RunningCluster> {
  const { store, point, keyRing, dataDirectory, signal, log } = options;
  const { manifest, database, plan } = point;
  // Before gigabytes are restored: is there a server to start?
  const binaries = await findPostgres(database.majorVersion, options.binaries, options.searchPath);
  if (!(await isRestored(dataDirectory, manifest))) {
    await restoreCluster(options);
    await writeFile(restoredMarker(dataDirectory), `${manifest.id}\n`);
  }
  return await recover({
    dataDirectory,
    binaries,
    target: plan.target,
    timeline: plan.timeline,
    systemId: database.systemId,
    fetchWal: async (fileName, fetchSignal) =>
      await fetchWalFile(store, keyRing, database.systemId, fileName, fetchSignal),
    recorded: database.settings,
    address: options.address,
    user: options.user,
    roles: options.roles ?? [],
    ...(options.settings ? { settings: options.settings } : {}),
    task: `replay ${manifest.resource}`,
    onProgress: options.onProgress,
    signal,
    log,
  });
}

/** Which executables recovery would use; throws `local` when they are missing. */
export async function recoveryBinaries(
  database: DatabaseFacts,
  options: Pick<RecoverDatabaseOptions, 'binaries' | 'searchPath'>,
): Promise<PostgresBinaries> {
  return await findPostgres(database.majorVersion, options.binaries, options.searchPath);
}

/** Beside the data directory, so that no base backup of the recovered server ever contains it. */
function restoredMarker(dataDirectory: string): string {
  return `${path.resolve(dataDirectory)}.dr-restored`;
}

async function isRestored(dataDirectory: string, manifest: Manifest): Promise<boolean> {
  try {
    if ((await readFile(restoredMarker(dataDirectory), 'utf8')).trim() !== manifest.id) return false;
    await readFile(path.join(dataDirectory, 'PG_VERSION'));
    return (await RestoreTarget.unfinished(dataDirectory)) === undefined;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false;
    throw error;
  }
}

/** Restores the base backup alone, tablespaces into a directory beside the data directory. */
export async function restoreCluster(
  options: Pick<
    RecoverDatabaseOptions,
    'store' | 'point' | 'keyRing' | 'pool' | 'dataDirectory' | 'onProgress' | 'signal'
  >,
): Promise<void> {
  const { point, dataDirectory } = options;
  const { tablespaces } = point.database;
  const spaces = `${path.resolve(dataDirectory)}.tablespaces`;
  const placeOf = (oid: number) => `${spaces}/${oid}`;
  await clearTablespaces(spaces, dataDirectory);
  await restoreBackup({
    ...options,
    manifest: point.manifest,
    target: dataDirectory,
    // The server's user is set when the server starts: the ids of the machine that was backed up mean nothing here.
    owners: false,
    relocate: (entryPath) => {
      const match = /^pg_tblspc\/(\d+)(\/.*)?$/.exec(entryPath);
      const space = match && tablespaces.find(({ oid }) => oid === Number(match[1]));
      return space ? placeOf(space.oid) + (match[2] ?? '') : undefined;
    },
  });
  if (tablespaces.length > 0) {
    // PostgreSQL makes the links anew from the map when recovery begins; whoever hands over or copies the files needs them before.
    await mkdir(spaces, { recursive: true });
    // To be passed through by the server's user; what lies in it stays private.
    await chmod(spaces, 0o711);
    for (const { oid } of tablespaces) {
      await mkdir(placeOf(oid), { recursive: true, mode: 0o700 });
      await symlink(placeOf(oid), path.join(dataDirectory, 'pg_tblspc', String(oid)));
    }
    const map = tablespaces.map(({ oid }) => `${oid} ${placeOf(oid).replaceAll(/[\\\n\r]/g, '\\$&')}\n`).join('');
    await writeFile(path.join(dataDirectory, 'tablespace_map'), map);
  }
}

/** Removes what an interrupted restore left there; anything else is somebody's. */
async function clearTablespaces(spaces: string, dataDirectory: string): Promise<void> {
  const present = await readdir(spaces).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return [];
    throw fileError(error, spaces, 'look at the place of the tablespaces');
  });
  if (present.length === 0) return;
  if ((await RestoreTarget.unfinished(dataDirectory)) === undefined) {
    throw new DrError('refused', 'the place for the tablespaces is not empty', {
      where: spaces,
      next: 'Move away what is there, or name another directory: dr does not overwrite.',
    });
  }
  await rm(spaces, { recursive: true, force: true });
}
