import { chown, lstat, open, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { fileError } from '../base/errors.ts';
import type { ControlFile } from './control-file.ts';
import { formatLsn, type Lsn } from './lsn.ts';
import type { RecoveryTarget } from './recovery-target.ts';
import type { ServerUser } from './server-process-user.ts';

/** Settings that a hot standby needs at least as high as the server that wrote the WAL (`CheckRequiredParameterValues`). */
export const minimumSettings = [
  'max_connections',
  'max_worker_processes',
  'max_wal_senders',
  'max_prepared_transactions',
  'max_locks_per_transaction',
] as const;

/** Where a recovered production server lives. */
export interface ServerAddress {
  readonly listen: string;
  readonly port: number;
  /** More settings for this site; they stay in `postgresql.auto.conf`. */
  readonly parameters: Readonly<Record<string, string>>;
}

/** Libraries that act by themselves once a server is promoted: jobs of a copy would reach the outside world. */
const actingLibraries = new Set([
  'pg_cron',
  'pg_partman_bgw',
  'pg_squeeze',
  'pglogical',
  'bdr',
  'pg_net',
  'repmgr',
  'pgagent',
]);

const hbaName = 'dr_pg_hba.conf';

export interface CommandLine {
  readonly dataDirectory: string;
  readonly socketDirectory: string;
  readonly address: ServerAddress | undefined;
}

/**
 * Settings that hold for this run of the server only: on the command line they win over every file, and the next start of the
 * server by anybody does not see them. Nothing of a recovery is therefore left behind in the files.
 */
export function baseSettings(options: CommandLine): Record<string, string> {
  const { dataDirectory, address } = options;
  const common = {
    data_directory: dataDirectory,
    hba_file: join(dataDirectory, hbaName),
    external_pid_file: '',
    unix_socket_directories: options.socketDirectory,
    unix_socket_permissions: '0700',
    // The log is read here: its form and language must not depend on the configuration that was backed up.
    logging_collector: 'off',
    log_destination: 'stderr',
    log_line_prefix: '%m [%p] ',
    log_timezone: 'UTC',
    log_min_messages: 'warning',
    log_error_verbosity: 'default',
    lc_messages: 'C',
  };
  if (address !== undefined) return { ...common, listen_addresses: address.listen, port: String(address.port) };
  return {
    ...common,
    listen_addresses: '',
    port: '5432',
    archive_mode: 'off',
    archive_command: '',
    synchronous_standby_names: '',
    max_logical_replication_workers: '0',
    session_preload_libraries: '',
    local_preload_libraries: '',
    ssl: 'off',
    autovacuum: 'off',
    lc_monetary: 'C',
    lc_numeric: 'C',
    lc_time: 'C',
    // A copy to look at: it need not survive a power cut, and must fit beside whatever else runs here.
    fsync: 'off',
    huge_pages: 'off',
    shared_buffers: '128MB',
  };
}

/** Settings of the recovery itself. */
export function recoverySettings(
  target: RecoveryTarget,
  timeline: number,
  restoreCommand: string,
): Record<string, string> {
  const goal: Record<string, string> =
    target.kind === 'latest'
      ? {}
      : target.kind === 'lsn'
        ? { recovery_target_lsn: formatLsn(target.lsn) }
        : { recovery_target_time: new Date(target.atMs).toISOString().replace('T', ' ').replace('Z', '+00') };
  // A target left in the backed up files must not count. PostgreSQL accepts the empty ones only before the one that is set.
  const others = ['', '_lsn', '_name', '_time', '_xid']
    .map((kind) => `recovery_target${kind}`)
    .filter((name) => !(name in goal));
  return {
    ...Object.fromEntries(others.map((name) => [name, ''])),
    ...goal,
    recovery_target_inclusive: 'on',
    recovery_target_action: 'pause',
    recovery_target_timeline: String(timeline),
    restore_command: restoreCommand,
    archive_cleanup_command: '',
    recovery_end_command: '',
    recovery_min_apply_delay: '0',
    primary_conninfo: '',
    primary_slot_name: '',
    hot_standby: 'on',
    // How soon the server asks again for WAL that is not there: three times prove that it has applied everything.
    wal_retrieve_retry_interval: '100ms',
  };
}

/** Settings of dr's own on a server that recovers by itself: where the WAL that it has ends, and up to which moment it covers all commits. */
export const archiveEndSetting = 'dr.archive_end';
export const coveredUntilSetting = 'dr.covered_until';

/**
 * Settings by which a stock server recovers by itself to the target and stops there, read-only: WAL comes from a folder with `cp`, and the
 * promotion removes the folder. They go into `postgresql.auto.conf`; after the promotion they mean nothing any more.
 */
export function standaloneSettings(
  plan: {
    readonly target: RecoveryTarget;
    readonly timeline: number;
    readonly endLsn: Lsn;
    readonly coveredUntilMs: number;
  },
  { dataDirectory, walDirectory }: { readonly dataDirectory: string; readonly walDirectory: string },
): Record<string, string> {
  // For the shell, and `%` for PostgreSQL.
  const folder = `'${walDirectory.replaceAll("'", "'\\''")}'`.replaceAll('%', '%%');
  return {
    ...recoverySettings(plan.target, plan.timeline, `cp ${folder}/%f "%p"`),
    // What lies in the folder, for whoever judges the server by SQL alone: the archive may have grown since.
    [archiveEndSetting]: formatLsn(plan.endLsn),
    [coveredUntilSetting]: plan.coveredUntilMs > 0 ? new Date(plan.coveredUntilMs).toISOString() : '',
    recovery_end_command: `rm -rf -- ${folder}`,
    wal_retrieve_retry_interval: '1s',
    hba_file: join(dataDirectory, 'pg_hba.conf'),
    ident_file: join(dataDirectory, 'pg_ident.conf'),
    listen_addresses: '*',
    // The new lineage is archived by dr; an old archive_command would write into the old lineage's archive.
    archive_mode: 'off',
    archive_command: '',
    synchronous_standby_names: '',
  };
}

/** The highest of what the control file, the backup's manifest and the configuration files say, where files say less. */
export function raisedSettings(
  control: ControlFile,
  recorded: Readonly<Record<string, string | undefined>>,
  configured: Readonly<Record<string, string>>,
): Record<string, string> {
  const { settings } = control;
  const needed: Record<(typeof minimumSettings)[number], number> = {
    max_connections: settings.maxConnections,
    max_worker_processes: settings.maxWorkerProcesses,
    max_wal_senders: settings.maxWalSenders,
    max_prepared_transactions: settings.maxPreparedTransactions,
    max_locks_per_transaction: settings.maxLocksPerTransaction,
  };
  const raised: Record<string, string> = {};
  for (const name of minimumSettings) {
    const highest = Math.max(needed[name], Number(recorded[name] ?? 0) || 0);
    if (highest > Number(configured[name])) raised[name] = String(highest);
  }
  return raised;
}

/** The preload libraries without those that would act by themselves in a copy. */
export function quietLibraries(list: string): string {
  const names = list.split(',').map((name) => name.trim().replaceAll('"', ''));
  return names.filter((name) => name !== '' && !actingLibraries.has(name.split('/').at(-1) ?? name)).join(',');
}

/**
 * Makes a restored data directory startable: configuration files where the backup has none (Debian keeps them in /etc), a
 * `standby.signal`, access for dr over its private socket, and for a production server its address in
 * `postgresql.auto.conf`. Files that exist keep their content.
 */
export async function prepareRecovery(options: {
  readonly dataDirectory: string;
  readonly user: ServerUser | undefined;
  readonly address: ServerAddress | undefined;
  /** Settings of the source server, from the backup's manifest. */
  readonly recorded: Readonly<Record<string, string | undefined>>;
  /** Settings that stay in `postgresql.auto.conf`, for a server that nobody of dr starts. */
  readonly stay?: Readonly<Record<string, string>>;
}): Promise<void> {
  const { dataDirectory, user, address, stay } = options;
  const create = async (name: string, content: string) => {
    const path = join(dataDirectory, name);
    try {
      await writeFile(path, content, { flag: 'wx', mode: 0o600 });
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return;
      throw fileError(error, path, 'write a configuration file of the recovered server');
    }
    if (user !== undefined) await chown(path, user.uid, user.gid);
  };
  await create('postgresql.conf', minimalConfiguration(options.recorded));
  await create('pg_hba.conf', minimalHba);
  await create('pg_ident.conf', '# Written by dr: the backup had none.\n');
  await rm(join(dataDirectory, 'recovery.signal'), { force: true });
  if (stay !== undefined) await editAutoConf(dataDirectory, user, stay);
  await create('standby.signal', '');
  if (address !== undefined) {
    await editAutoConf(dataDirectory, user, {
      listen_addresses: address.listen,
      port: String(address.port),
      // The new lineage is archived by dr; an old archive_command would write into the old lineage's archive.
      archive_mode: 'off',
      synchronous_standby_names: '',
      ...address.parameters,
    });
  }
}

/** Settings of the source that make sense anywhere and carry no unit. */
const portable = [
  ...minimumSettings,
  'max_replication_slots',
  'wal_level',
  'shared_preload_libraries',
  'wal_log_hints',
];

function minimalConfiguration(recorded: Readonly<Record<string, string | undefined>>): string {
  const lines = portable
    .map((name) => [name, recorded[name]] as const)
    .flatMap(([name, value]) => (value === undefined || value === '' ? [] : [`${name} = ${quoted(value)}`]));
  return `# Written by dr: the backup contains no postgresql.conf, because the source server kept it outside of its data directory.
# These are the settings of the source server without which it could not be recovered; add the others from your
# configuration backup.
${lines.join('\n')}\n`;
}

// The method md5 also accepts passwords that are stored as scram-sha-256, and nothing weaker.
const minimalHba = `# Written by dr: the backup contains no pg_hba.conf, because the source server kept it outside of its data directory.
local   all          all                 peer
host    all          all  all            md5
host    replication  all  all            md5
`;

/** Sets values in `postgresql.auto.conf` as ALTER SYSTEM would: other lines stay, the file changes at once or not at all. */
export async function editAutoConf(
  dataDirectory: string,
  user: ServerUser | undefined,
  values: Readonly<Record<string, string>>,
): Promise<void> {
  const path = join(dataDirectory, 'postgresql.auto.conf');
  const old = await readFile(path, 'utf8').catch(() => '# Do not edit this file manually!\n');
  const kept = old.split('\n').filter((line) => {
    const name = /^\s*([A-Za-z_.]+)/.exec(line)?.[1];
    return line.trim() !== '' && (name === undefined || !(name.toLowerCase() in values));
  });
  const lines = Object.entries(values).map(([name, value]) => `${name} = ${quoted(value)}`);
  await replaceFile(path, `${[...kept, ...lines].join('\n')}\n`, user);
}

function quoted(value: string): string {
  return `'${value.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`;
}

/**
 * Lets dr in over the private socket (its directory is open to the server's user and root only). A production server
 * keeps the rules of its own file besides; a copy has no others.
 */
export async function grantAccess(dataDirectory: string, user: ServerUser | undefined, rules: string): Promise<void> {
  const content = `# Written by dr for the time of the recovery.\nlocal all all trust\n${rules}`;
  await replaceFile(join(dataDirectory, hbaName), content, user);
}

/** Ends that access: from the next reload on the server obeys its own file, also when that is edited. */
export async function revokeAccess(dataDirectory: string, hbaFile: string): Promise<void> {
  const draft = join(dataDirectory, `${hbaName}.new`);
  await rm(draft, { force: true });
  await symlink(hbaFile, draft);
  await rename(draft, join(dataDirectory, hbaName));
}

/** The access rules that the cluster itself would use: the file that its configuration names, if that exists here. */
export async function ownHbaFile(dataDirectory: string, configured: string): Promise<string> {
  const named = isAbsolute(configured) ? configured : join(dataDirectory, configured || 'pg_hba.conf');
  const own = join(dataDirectory, 'pg_hba.conf');
  if (named === join(dataDirectory, hbaName)) return own;
  return (await lstat(named).catch(() => undefined)) === undefined ? own : named;
}

async function replaceFile(path: string, content: string, user: ServerUser | undefined): Promise<void> {
  const draft = `${path}.dr`;
  try {
    const file = await open(draft, 'w', 0o600);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    if (user !== undefined) await chown(draft, user.uid, user.gid);
    await rename(draft, path);
  } catch (error) {
    throw fileError(error, path, 'write a configuration file of the recovered server');
  }
}
