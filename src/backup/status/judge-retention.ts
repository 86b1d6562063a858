import { formatDuration } from '../../base/units.ts';
import { timeOfId } from '../../vault/layout.ts';
import type { RetentionMark } from '../retention/mark.ts';
import type { Alert, RetentionStatus } from './model.ts';

/** Retention that was not done for so many of its intervals is an alert. */
const INTERVALS = 2;

/**
 * Whether retention is done as often as it should be, and why not. Pure. `oldestId`: the oldest backup of all vaults, since when it
 * should have been done.
 */
export function judgeRetention(facts: {
  readonly everyMs: number | undefined;
  readonly mark: RetentionMark | undefined;
  readonly oldestId: string | undefined;
  readonly nowMs: number;
}): { readonly status: RetentionStatus; readonly alerts: readonly Alert[] } {
  const { everyMs, mark, oldestId, nowMs } = facts;
  const doneMs = mark?.done && Date.parse(mark.done.at);
  const sinceMs = doneMs ?? (oldestId === undefined ? undefined : timeOfId(oldestId));
  const overdue = everyMs !== undefined && sinceMs !== undefined && nowMs - sinceMs > INTERVALS * everyMs;
  const blocked = mark?.blocked && Date.parse(mark.blocked.at) > (doneMs ?? 0) ? mark.blocked : undefined;
  const status = { doneMs, overdue, blocked: blocked?.why };
  if (!overdue) return { status, alerts: [] };
  const age = formatDuration(nowMs - sinceMs);
  const when =
    doneMs === undefined
      ? `retention has not been done in all vaults since the first backup ${age} ago`
      : `retention was last done in all vaults ${age} ago`;
  const why = blocked ? `; at ${blocked.at} it stopped: ${blocked.why}` : '; nobody has said that it was tried since';
  const message = `${when}, and every ${formatDuration(everyMs)} is configured${why}`;
  const next = blocked
    ? 'Old backups stay meanwhile. `dr retention` says what stands in its way now.'
    : 'Old backups stay meanwhile. Does a daemon run? `dr retention --apply` does it at once.';
  return { status, alerts: [{ level: 'warning', message, next }] };
}
