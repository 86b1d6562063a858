import type { Clock } from '../../base/clock.ts';
import { DrError } from '../../base/errors.ts';
import { printableUrl } from '../../base/redact.ts';
import { parseLsn } from '../../postgres/lsn.ts';
import { queryRows } from '../../postgres/query.ts';
import { archiveEndSetting, coveredUntilSetting } from '../../postgres/recovery-settings.ts';

/** What a server says of itself. LSNs are numbers of bytes. */
export interface ServerLook {
  readonly systemId: string;
  readonly inRecovery: boolean;
  /** How far it has replayed; of a primary, where it writes. */
  readonly lsn: bigint;
  /** It stands at its recovery target. */
  readonly paused: boolean;
  /** Newest commit that it replayed, milliseconds since 1970. */
  readonly lastCommitAtMs: number | undefined;
  /** Timeline that it writes on; of a standby, the one it last had a checkpoint of. */
  readonly timeline: number;
  readonly walBlockBytes: number;
  /** It would stop at a time or LSN. */
  readonly hasTarget: boolean;
  /** Where the WAL that was laid out for it ends, and up to which moment (milliseconds since 1970) it covers all commits. */
  readonly archiveEnd: bigint | undefined;
  readonly coveredUntilMs: number | undefined;
}

const LOOK = `select (select system_identifier::text from pg_control_system()),
  pg_is_in_recovery(),
  case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end::text,
  case when pg_is_in_recovery() then pg_get_wal_replay_pause_state() = 'paused' else false end,
  (extract(epoch from pg_last_xact_replay_timestamp()) * 1000)::float8,
  case when pg_is_in_recovery() then (select timeline_id from pg_control_checkpoint())::text
    else pg_walfile_name(pg_current_wal_lsn()) end,
  current_setting('wal_block_size')::int,
  current_setting('recovery_target_time') <> '' or current_setting('recovery_target_lsn') <> '',
  current_setting('${archiveEndSetting}', true), current_setting('${coveredUntilSetting}', true)`;

export async function lookAtServer(url: string, signal: AbortSignal): Promise<ServerLook> {
  const [row = []] = await queryRows(url, LOOK, { signal, timeoutMs: 10_000 });
  const [systemId, inRecovery, lsn, paused, commit, timeline, block, hasTarget, archiveEnd, coveredUntil] = row;
  const coveredUntilMs = Date.parse(String(coveredUntil));
  const isPrimary = inRecovery === false;
  return {
    systemId: String(systemId),
    inRecovery: inRecovery === true,
    lsn: parseLsn(String(lsn)) ?? 0n,
    paused: paused === true,
    lastCommitAtMs: typeof commit === 'number' ? commit : undefined,
    timeline: isPrimary ? Number.parseInt(String(timeline).slice(0, 8), 16) : Number(timeline),
    walBlockBytes: Number(block),
    hasTarget: hasTarget === true,
    archiveEnd: parseLsn(String(archiveEnd)),
    coveredUntilMs: Number.isNaN(coveredUntilMs) ? undefined : coveredUntilMs,
  };
}

/** Settings of a recovery that mean nothing to a primary and would surprise whoever makes a standby of it. */
const recoveryOnly = [
  'restore_command',
  'recovery_end_command',
  'recovery_target_action',
  'recovery_target_inclusive',
  'recovery_target_timeline',
  'recovery_target',
  'recovery_target_lsn',
  'recovery_target_name',
  'recovery_target_time',
  'recovery_target_xid',
  'recovery_min_apply_delay',
  'archive_cleanup_command',
  'wal_retrieve_retry_interval',
];
const ownSettings = [archiveEndSetting, coveredUntilSetting];

/** Forgets the target, so that a restarted server replays all that it has. */
export async function forgetTarget(url: string, signal: AbortSignal): Promise<void> {
  for (const name of ['recovery_target_time', 'recovery_target_lsn'])
    await queryRows(url, `alter system reset ${name}`, { signal });
}

/** How long a promotion may take, milliseconds. */
const PROMOTED_WITHIN_MS = 5 * 60_000;

/** Promotes the server and waits until it writes; a promoted one stays as it is. */
export async function promoteServer(url: string, clock: Clock, signal: AbortSignal): Promise<ServerLook> {
  const before = await lookAtServer(url, signal);
  if (before.inRecovery) await queryRows(url, 'select pg_promote(false)', { signal });
  const end = clock.now() + PROMOTED_WITHIN_MS;
  for (let look = before; ; look = await lookAtServer(url, signal)) {
    if (!look.inRecovery) {
      // Before 17 a server knows settings of others only while its files have them.
      const names = ownSettings.map((name) => `('${name}')`).join();
      const known = `select name from (values ${names}) as own(name) where current_setting(name, true) is not null`;
      const own = (await queryRows(url, known, { signal })).map(([name]) => String(name));
      for (const name of [...recoveryOnly, ...own]) await queryRows(url, `alter system reset ${name}`, { signal });
      return look;
    }
    if (clock.now() > end) {
      throw new DrError('check-failed', 'the server was told to promote and is still in recovery', {
        where: printableUrl(url),
        next: 'Read the log of its pod; running the command again waits on.',
        retryable: true,
      });
    }
    await clock.sleep(200, signal);
  }
}
