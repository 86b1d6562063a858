import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { DrError, fileError, isAbort } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { OnProgress } from '../base/progress.ts';
import type { PostgresBinaries } from './binaries.ts';
import { type ControlFile, parseControlFile } from './control-file.ts';
import { makeSocketDirectory, RunningCluster } from './recovery-cluster.ts';
import {
  baseSettings,
  grantAccess,
  minimumSettings,
  ownHbaFile,
  prepareRecovery,
  quietLibraries,
  raisedSettings,
  recoverySettings,
  type ServerAddress,
} from './recovery-settings.ts';
import type { Reached, RecoveryTarget } from './recovery-target.ts';
import { watchReplay } from './recovery-watch.ts';
import { adoptServer, configuredSettings, type ServerProcess, startServer } from './server-process.ts';
import { handOver, resolveServerUser, type ServerUser } from './server-process-user.ts';
import { WalSpool } from './wal-spool.ts';

export { type Promoted, RunningCluster } from './recovery-cluster.ts';
export type { ServerAddress } from './recovery-settings.ts';
export type { Reached, RecoveryTarget } from './recovery-target.ts';

export interface RecoverOptions {
  /** A restored base backup, or one whose recovery was interrupted. */
  readonly dataDirectory: string;
  readonly binaries: PostgresBinaries;
  readonly target: RecoveryTarget;
  /** The timeline to follow. */
  readonly timeline: number;
  /** Decimal; another cluster in the directory is refused. */
  readonly systemId?: string | undefined;
  /** Brings WAL segments and timeline histories; see `WalSpoolOptions.fetch`. */
  readonly fetchWal: (fileName: string, signal: AbortSignal) => Promise<Uint8Array | undefined>;
  /** Settings of the source server from the backup's manifest. */
  readonly recorded: Readonly<Record<string, string | undefined>>;
  /**
   * Where the recovered production server listens. Undefined = an isolated copy (verification, drill): private socket only, no
   * archiving, no replication, no background jobs, not durable.
   */
  readonly address: ServerAddress | undefined;
  /** Operating system user of the server when dr runs as root. */
  readonly user?: string | undefined;
  /** Roles of the database that may be superusers, tried before `postgres`. */
  readonly roles?: readonly string[];
  /** More command-line settings, for an isolated copy only. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Name for progress: `replay orders`. */
  readonly task?: string;
  readonly onProgress?: OnProgress | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly log: Log;
}

/** Starts with changed settings after which giving up is better; each start raises one setting or drops one library. */
const startsMax = 12;

/**
 * Replays WAL over a restored base backup up to the target, proves that the server stands there, and leaves it running as a hot
 * standby; `promote()` makes it a primary. The same call goes on with a recovery that was interrupted at any point, and
 * returns a server that was already promoted as it is.
 *
 * - `latest`: reached when the server has asked for the WAL after the archive's end and the only thing between its replay
 *   position and that end is an incomplete record. A hole or an unreadable record before the end is an error.
 * - `lsn`, `time`: reached when the server itself says so (recovery_target_action = pause); a target that the WAL does not
 *   contain is `not-found` with the range that can be reached, never "latest".
 *
 * On any error and on abort the server is stopped and the spool removed; the data directory stays and can be used again.
 * @throws DrError `not-found` (target, hole), `corrupt` (WAL), `local` (server does not start), whatever `fetchWal` threw.
 */
export async function recover(options: RecoverOptions): Promise<RunningCluster> {
  const { dataDirectory, address, log, signal } = options;
  const user = await resolveServerUser(options.user, dataDirectory);
  const control = await readControl(options);
  const logFile = join(dataDirectory, 'log', 'dr-recovery.log');
  const roles = [...new Set([...(options.roles ?? []), 'postgres'])];
  const spool = new WalSpool({
    directory: join(dataDirectory, 'dr_wal'),
    segmentBytes: control.walSegmentBytes,
    fetch: options.fetchWal,
    user,
    log,
  });
  const isolated = address === undefined;
  let server: ServerProcess | undefined;
  const promoted = await wasPromoted(dataDirectory);
  try {
    server = await adoptServer(dataDirectory, logFile);
    if (server !== undefined && !promoted) {
      log.info({ pid: server.pid }, 'a recovering server without its feeder is stopped, to go on with it');
      await server.stop('fast');
      server = undefined;
    }
    if (!promoted) await prepareRecovery({ dataDirectory, user, address, recorded: options.recorded });
    await handOver(dataDirectory, user);
    const socketDirectory = server?.socketDirectory ?? (await makeSocketDirectory(dataDirectory, user));
    const settings = { ...baseSettings({ dataDirectory, socketDirectory, address }), ...options.settings };
    const hbaFile = isolated ? undefined : await ownRules(options, user, settings);
    await grantAccess(dataDirectory, user, hbaFile === undefined ? '' : await readFile(hbaFile, 'utf8'));
    server?.reload();
    const common = { user, roles, spool, hbaFile, isolated };
    if (promoted) {
      server ??= await start(settings, {});
      await server.waitReady(roles, { signal });
      return new RunningCluster({ ...common, server, reached: undefined });
    }
    await spool.start();
    const reached = await replay(settings);
    if (server === undefined) throw new DrError('internal', 'the replaying server is lost');
    const cluster = new RunningCluster({ ...common, server, reached });
    await cluster.connect(signal);
    return cluster;
  } catch (error) {
    // First the spool: a server that waits for its answer ends at once, and not after PostgreSQL's 5 s of patience.
    await spool.close();
    // A promoted server may be in production already.
    if (!promoted) await server?.stop('immediate');
    // A failed fetch makes the server end, and whoever was talking to it sees a broken connection first.
    // The same is true of an abort.
    signal?.throwIfAborted();
    throw spool.failure === undefined || isAbort(error) ? error : spool.failure;
  }

  async function start(settings: Record<string, string>, recovery: Record<string, string>) {
    const { bin } = options.binaries;
    return await startServer({ bin, dataDirectory, user, logFile, settings: { ...settings, ...recovery } });
  }

  /** Starts the server as often as its settings turn out to be too low for the WAL. */
  async function replay(settings: Record<string, string>): Promise<Reached> {
    let { target } = options;
    const extra = await adapted(options, user, control, settings);
    for (let starts = 1; ; starts++) {
      const recovery = recoverySettings(target, options.timeline, spool.command);
      await spool.serverStarts();
      server = await start(settings, { ...recovery, ...extra });
      const watched = { server, spool, control, target, roles, signal, onProgress: options.onProgress };
      const outcome = await watchReplay({ ...watched, task: options.task ?? 'replay' });
      if (outcome.kind === 'reached') return outcome.reached;
      if (starts === startsMax) throw await server.ended('being started with one changed setting after the other');
      await server.stop('fast');
      if (outcome.kind === 'restart') {
        log.info({ why: outcome.why }, 'recovery goes on with a higher setting');
        Object.assign(extra, outcome.settings);
      } else if (outcome.kind === 'at-end') {
        target = { kind: 'latest', endLsn: outcome.endLsn };
      } else {
        extra.shared_preload_libraries = without(extra.shared_preload_libraries ?? '', outcome.library, isolated);
        log.warn({ library: outcome.library }, 'this copy runs without a preload library that is not installed here');
      }
    }
  }
}

async function readControl(options: RecoverOptions): Promise<ControlFile> {
  const { dataDirectory, binaries, systemId } = options;
  const path = join(dataDirectory, 'global', 'pg_control');
  const content = await readFile(path).catch((error: unknown) => {
    throw fileError(error, path, 'read the control file of the restored cluster');
  });
  const control = parseControlFile(content, path);
  const major = (await readFile(join(dataDirectory, 'PG_VERSION'), 'utf8').catch(() => '')).trim();
  if (major !== String(binaries.major)) {
    throw new DrError('refused', `this cluster is of PostgreSQL ${major}, the server is ${binaries.version}`, {
      where: dataDirectory,
      next: `Use the executables of PostgreSQL ${major}.`,
    });
  }
  if (systemId !== undefined && systemId !== control.systemId) {
    throw new DrError('refused', `the directory holds the database system ${control.systemId}, not ${systemId}`, {
      where: dataDirectory,
      next: 'Choose an empty directory for the recovery.',
    });
  }
  return control;
}

/**
 * True when recovery of this directory is over. A restored backup has `backup_label` until its first start, and then
 * `standby.signal` until it is promoted.
 */
async function wasPromoted(dataDirectory: string): Promise<boolean> {
  const names = ['backup_label', 'standby.signal', 'recovery.signal'];
  const found = await Promise.all(names.map((name) => stat(join(dataDirectory, name)).catch(() => undefined)));
  return found.every((file) => file === undefined);
}

/** The file with the cluster's own access rules. */
async function ownRules(
  options: RecoverOptions,
  user: ServerUser | undefined,
  settings: Record<string, string>,
): Promise<string> {
  const { dataDirectory } = options;
  const { hba_file: _, ...others } = settings;
  const source = { bin: options.binaries.bin, dataDirectory, user, settings: others };
  const { hba_file: configured = '' } = await configuredSettings(source, ['hba_file']);
  return await ownHbaFile(dataDirectory, configured);
}

/** Settings that depend on what the cluster's own configuration says: never lower than the WAL needs, no acting libraries. */
async function adapted(
  options: RecoverOptions,
  user: ServerUser | undefined,
  control: ControlFile,
  settings: Record<string, string>,
): Promise<Record<string, string>> {
  const { dataDirectory, address } = options;
  const source = { bin: options.binaries.bin, dataDirectory, user, settings };
  const configured = await configuredSettings(source, [...minimumSettings, 'shared_preload_libraries']);
  const raised = raisedSettings(control, options.recorded, configured);
  if (address !== undefined) return raised;
  return { ...raised, shared_preload_libraries: quietLibraries(configured.shared_preload_libraries ?? '') };
}

function without(list: string, library: string, isolated: boolean): string {
  const rest = list.split(',').filter((name) => name !== library && !library.endsWith(`/${name}`));
  if (isolated && rest.join(',') !== list) return rest.join(',');
  throw new DrError('local', `the database needs the library "${library}", which is not installed here`, {
    where: library,
    next: 'Install the extension for this PostgreSQL, or set shared_preload_libraries under `parameters` of this recovery target.',
  });
}
