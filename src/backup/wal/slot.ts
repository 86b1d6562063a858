import { messageOf } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { queryRows } from '../../postgres/query.ts';

/** The slot as the server sees it (`pg_replication_slots`). */
export interface SlotHealth {
  /** `reserved`, `extended`, `unreserved`, `lost`. */
  readonly walStatus: string;
  /** Bytes that can still be written before the slot may be lost; undefined where the server sets no limit. */
  readonly safeBytes: number | undefined;
  /** Bytes of WAL that the server keeps for this slot. */
  readonly retainedBytes: number;
  readonly atRisk: boolean;
}

/** Below this much room the slot counts as at risk: a few minutes of a busy database. */
const RISK_BYTES = 256 * 1024 * 1024;

/** Looks at a slot over an ordinary connection; undefined if the server has none of that name. */
export async function slotHealth(url: string, slot: string, signal: AbortSignal): Promise<SlotHealth | undefined> {
  if (!/^[a-z0-9_]{1,63}$/.test(slot)) return undefined;
  const [row] = await queryRows(
    url,
    `SELECT wal_status, safe_wal_size,
            pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn),
            (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size')
       FROM pg_replication_slots WHERE slot_name = '${slot}'`,
    { signal, timeoutMs: 10_000 },
  );
  if (!row) return undefined;
  const [status, safe, retained, limitMb] = row;
  const walStatus = typeof status === 'string' ? status : 'lost';
  const safeBytes = safe === null || safe === undefined ? undefined : Number(safe);
  const limit = Number(limitMb) * 1024 * 1024;
  const room = Math.min(RISK_BYTES, limit > 0 ? limit / 4 : RISK_BYTES);
  const atRisk = walStatus === 'unreserved' || walStatus === 'lost' || (safeBytes !== undefined && safeBytes < room);
  return { walStatus, safeBytes, retainedBytes: Number(retained ?? 0), atRisk };
}

/** Looks at the slot and warns when it comes into danger; what was known before stays when the server does not answer. */
export async function watchSlot(
  url: string,
  slot: string,
  before: SlotHealth | undefined,
  log: Log,
  signal: AbortSignal,
): Promise<SlotHealth | undefined> {
  try {
    const now = await slotHealth(url, slot, signal);
    if (now?.atRisk && before?.atRisk !== true) {
      log.warn({ slot, ...now }, 'slot at risk: the server may soon remove WAL that is not archived');
    }
    return now;
  } catch (error) {
    log.debug({ slot, error: messageOf(error) }, 'the slot could not be looked at');
    return before;
  }
}
