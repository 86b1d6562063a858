import { formatDuration } from '../../base/units.ts';
import { timeOfId } from '../../vault/layout.ts';
import type { VaultCare } from '../care/care-record.ts';
import type { Alert, CheckIntervals } from './model.ts';

/** A check is missed when its interval has passed and half of it more: another site takes it over at that moment. */
const SCHEDULE_SLACK = 1.6;

/**
 * What the checks of a vault say, and whether they were made at all. Pure. `oldestId`: the oldest backup of the vault, which should have
 * been looked at since.
 */
export function judgeCare(facts: {
  readonly vault: string;
  readonly care: VaultCare | undefined;
  readonly intervals: CheckIntervals;
  readonly oldestId: string | undefined;
  readonly nowMs: number;
}): Alert[] {
  const { vault, care, intervals, oldestId, nowMs } = facts;
  const next = `Run \`dr vault repair ${vault}\` to see each of them and what it touches.`;
  const alerts: Alert[] = [];
  for (const loss of care?.losses ?? []) {
    alerts.push({
      level: 'broken',
      vault,
      message: loss,
      next: 'Take a new backup of it, and find out what damaged the vaults.',
    });
  }
  if (care && care.problems > 0 && care.losses.length === 0) {
    const [first] = care.named;
    const objects = care.problems === 1 ? 'one object is' : `${care.problems} objects are`;
    const message = `vault ${vault}: ${objects} missing or damaged (${first?.key}: ${first?.why})`;
    alerts.push({ level: 'warning', vault, message, next });
  }
  const overdue = (what: string, doneAt: string | undefined, everyMs: number | undefined) => {
    const oldestMs = oldestId === undefined ? undefined : timeOfId(oldestId);
    const sinceMs = doneAt === undefined ? oldestMs : Date.parse(doneAt);
    if (everyMs === undefined || sinceMs === undefined || nowMs - sinceMs <= everyMs * SCHEDULE_SLACK) return;
    const when = doneAt === undefined ? 'never' : `last ${formatDuration(nowMs - sinceMs)} ago`;
    alerts.push({
      level: 'warning',
      vault,
      message: `${what} of vault ${vault}: ${when}; every ${formatDuration(everyMs)} is configured`,
      next: 'Look at the log of the daemon: a check that fails says why.',
    });
  };
  overdue('check', care?.check.finishedAt, intervals.checkEveryMs);
  overdue('reading of content', care?.read?.finishedAt, intervals.readEveryMs);
  return alerts;
}
