import { isAbsolute, relative } from 'node:path';
import type { Log } from '../base/log.ts';
import { type Lsn, parseLsn } from './lsn.ts';
import { type Query, withClient } from './query.ts';
import { sqlstateOf } from './server-errors.ts';

export interface InspectOptions {
  readonly signal?: AbortSignal | undefined;
  readonly log: Log;
  /** Name of the replication slot to look at. */
  readonly slot?: string | undefined;
  /** Default 30 s per statement. */
  readonly timeoutMs?: number | undefined;
}

/** A replication slot as `pg_replication_slots` shows it. */
export interface SlotFacts {
  readonly name: string;
  readonly exists: boolean;
  readonly type: 'physical' | 'logical' | undefined;
  readonly active: boolean;
  /** `reserved`, `extended`, `unreserved` (about to be lost) or `lost`; undefined while it reserves nothing. */
  readonly walStatus: 'reserved' | 'extended' | 'unreserved' | 'lost' | undefined;
  readonly restartLsn: Lsn | undefined;
  /** Bytes of WAL that may still be written before the slot may be lost; undefined = no limit (or lost). */
  readonly safeWalSize: number | undefined;
  /** Bytes of WAL that the server keeps for it. */
  readonly retainedBytes: number | undefined;
}

/** Everything that backups, restores and `doctor` want to know about a server. What the role may not see is undefined. */
export interface ServerFacts {
  /** `postgresql://host:port/database`, without credentials. */
  readonly where: string;
  /** As the server prints it: `17.4 (Debian …)`. */
  readonly version: string;
  /** As in 170004. */
  readonly versionNumber: number;
  readonly systemId: string;
  readonly timeline: number;
  readonly inRecovery: boolean;
  /** Primary: end of written WAL; standby: of replayed WAL. */
  readonly lsn: Lsn;
  /** The server's clock, milliseconds since 1970. */
  readonly clockMs: number;
  readonly databases: ReadonlyArray<{
    readonly name: string;
    readonly bytes: number | undefined;
    readonly encoding: string;
    readonly collate: string;
  }>;
  /** Sum of all databases whose size the role may see. */
  readonly totalBytes: number;
  /** By name, as `pg_settings` has them, in the setting's own unit; the names are in `settingNames`. */
  readonly settings: Readonly<Record<string, string | undefined>>;
  readonly walSegmentBytes: number;
  readonly blockBytes: number;
  readonly dataChecksums: boolean;
  readonly dataDirectory: string | undefined;
  /** Configuration files outside the data directory (Debian's way): no base backup contains them. */
  readonly outsideFiles: readonly string[];
  readonly tablespaces: ReadonlyArray<{ readonly oid: number; readonly name: string; readonly location: string }>;
  readonly role: { readonly name: string; readonly replication: boolean; readonly superuser: boolean };
  /** Whether pg_hba.conf has a line for replication by this role; `unknown` when the role may not read it. */
  readonly hbaReplication: 'present' | 'absent' | 'unknown';
  /** Names of the synchronous standbys that are connected. */
  readonly synchronousStandbys: readonly string[];
  /** Replication connections now in use. */
  readonly walSenders: number;
  readonly slot: SlotFacts | undefined;
}

/** Settings that decide whether a backup can be taken, and those that a server brought up elsewhere must have at least. */
export const settingNames = [
  'archive_mode',
  'config_file',
  'data_directory',
  'fsync',
  'full_page_writes',
  'hba_file',
  'ident_file',
  'idle_replication_slot_timeout',
  'lc_messages',
  'lc_monetary',
  'lc_numeric',
  'lc_time',
  'max_connections',
  'max_locks_per_transaction',
  'max_prepared_transactions',
  'max_replication_slots',
  'max_slot_wal_keep_size',
  'max_wal_senders',
  'max_worker_processes',
  'server_encoding',
  'shared_preload_libraries',
  'summarize_wal',
  'synchronous_commit',
  'synchronous_standby_names',
  'wal_keep_size',
  'wal_level',
  'wal_sender_timeout',
] as const;

/** Reads the facts in one short session of ordinary SQL; any role that may connect is enough, more rights show more. */
export async function inspectServer(url: string, options: InspectOptions): Promise<ServerFacts> {
  const { signal, timeoutMs } = options;
  return await withClient(url, { signal, timeoutMs, statementErrorKind: 'internal' }, async (query, where) => {
    const core = await readCore(query);
    const settings = await readSettings(query);
    const databases = await readDatabases(query);
    const dataDirectory = settings.data_directory;
    const files = [settings.config_file, settings.hba_file, settings.ident_file];
    const facts: ServerFacts = {
      where,
      ...core,
      databases,
      totalBytes: databases.reduce((sum, database) => sum + (database.bytes ?? 0), 0),
      settings,
      dataDirectory,
      outsideFiles:
        dataDirectory === undefined
          ? []
          : files.filter((file) => file !== undefined && file !== '' && !isInside(file, dataDirectory)).map(String),
      tablespaces: (
        await query(
          `SELECT oid::int8::text, spcname::text, pg_tablespace_location(oid) FROM pg_tablespace
           WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid`,
        )
      ).map(([oid, name, location]) => ({ oid: Number(oid), name: String(name), location: String(location) })),
      hbaReplication: await readHba(query, core.role.name),
      ...(await readSenders(query)),
      slot: options.slot === undefined ? undefined : await readSlot(query, options.slot, core.inRecovery),
    };
    options.log.debug({ server: where, version: facts.version, systemId: facts.systemId }, 'inspected the server');
    return facts;
  });
}

async function readCore(query: Query) {
  const rows = await query(`
    SELECT current_setting('server_version'), current_setting('server_version_num')::int,
           (SELECT system_identifier::text FROM pg_control_system()),
           pg_is_in_recovery(),
           CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_lsn() END::text,
           CASE WHEN pg_is_in_recovery()
                THEN (SELECT greatest(timeline_id, (SELECT received_tli FROM pg_stat_wal_receiver)) FROM pg_control_checkpoint())
           END,
           CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
           extract(epoch FROM clock_timestamp())::float8 * 1000,
           (SELECT setting::int FROM pg_settings WHERE name = 'wal_segment_size'),
           current_setting('block_size')::int,
           current_setting('data_checksums'),
           current_user::text, rolreplication, rolsuper
    FROM pg_roles WHERE rolname = current_user`);
  const row = rows[0] ?? [];
  const [version, versionNumber, systemId, inRecovery, lsn, standbyTimeline, primaryTimeline, clockMs] = row;
  const [walSegmentBytes, blockBytes, checksums, name, replication, superuser] = row.slice(8);
  return {
    version: String(version),
    versionNumber: Number(versionNumber),
    systemId: String(systemId),
    timeline: inRecovery === true ? Number(standbyTimeline) : Number.parseInt(String(primaryTimeline), 16),
    inRecovery: inRecovery === true,
    lsn: parseLsn(String(lsn)) ?? 0n,
    clockMs: Number(clockMs),
    walSegmentBytes: Number(walSegmentBytes),
    blockBytes: Number(blockBytes),
    dataChecksums: checksums === 'on',
    role: { name: String(name), replication: replication === true, superuser: superuser === true },
  };
}

async function readSettings(query: Query): Promise<Record<string, string | undefined>> {
  const rows = await query('SELECT name, setting FROM pg_settings WHERE name = ANY($1)', [settingNames]);
  return Object.fromEntries(rows.map(([name, setting]) => [String(name), String(setting)]));
}

async function readDatabases(query: Query): Promise<ServerFacts['databases']> {
  const rows = await query(`
    SELECT datname::text,
           CASE WHEN has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')
                THEN pg_database_size(oid)::text END,
           pg_encoding_to_char(encoding), datcollate::text
    FROM pg_database ORDER BY datname`);
  return rows.map(([name, bytes, encoding, collate]) => ({
    name: String(name),
    bytes: bytes === null ? undefined : Number(bytes),
    encoding: String(encoding),
    collate: String(collate),
  }));
}

async function readHba(query: Query, role: string): Promise<ServerFacts['hbaReplication']> {
  try {
    const [row] = await query(
      `SELECT count(*) > 0 FROM pg_hba_file_rules
       WHERE error IS NULL AND 'replication' = ANY(database) AND auth_method <> 'reject'
         AND (user_name && ARRAY['all', $1] OR EXISTS (SELECT FROM unnest(user_name) u WHERE u LIKE '+%' OR u LIKE '/%'))`,
      [role],
    );
    return row?.[0] === true ? 'present' : 'absent';
  } catch (error) {
    if (sqlstateOf(error) === '42501') return 'unknown';
    throw error;
  }
}

async function readSenders(query: Query): Promise<Pick<ServerFacts, 'synchronousStandbys' | 'walSenders'>> {
  const rows = await query(`SELECT application_name, sync_state IN ('sync', 'quorum') FROM pg_stat_replication`);
  return {
    walSenders: rows.length,
    synchronousStandbys: rows.filter(([, isSync]) => isSync === true).map(([name]) => String(name)),
  };
}

async function readSlot(query: Query, name: string, inRecovery: boolean): Promise<SlotFacts> {
  const end = inRecovery ? `coalesce(pg_last_wal_replay_lsn(), '0/0')` : 'pg_current_wal_lsn()';
  const [row] = await query(
    `SELECT slot_type, active, wal_status, restart_lsn::text, safe_wal_size::text,
            greatest(pg_wal_lsn_diff(${end}, restart_lsn), 0)::text
     FROM pg_replication_slots WHERE slot_name = $1`,
    [name],
  );
  const [type, active, walStatus, restartLsn, safeWalSize, retained] = row ?? [];
  const count = (value: unknown) => (typeof value === 'string' ? Number(value) : undefined);
  return {
    name,
    exists: row !== undefined,
    type: type === 'physical' || type === 'logical' ? type : undefined,
    active: active === true,
    walStatus: isWalStatus(walStatus) ? walStatus : undefined,
    restartLsn: typeof restartLsn === 'string' ? parseLsn(restartLsn) : undefined,
    safeWalSize: count(safeWalSize),
    retainedBytes: count(retained),
  };
}

function isWalStatus(value: unknown): value is NonNullable<SlotFacts['walStatus']> {
  return value === 'reserved' || value === 'extended' || value === 'unreserved' || value === 'lost';
}

function isInside(file: string, directory: string): boolean {
  const path = relative(directory, file);
  return path !== '' && !path.startsWith('..') && !isAbsolute(path);
}
