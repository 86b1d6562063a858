import { DrError } from '../../base/errors.ts';
import { formatDuration } from '../../base/units.ts';
import { GRACE_MS } from './collect-check.ts';

/**
 * A backup or copy that has not been committed after this long is given up: retention takes what has no manifest for a leftover after
 * 48 hours, and keeps what a new backup builds on for as long. The rest is for clocks that differ and requests that take their time.
 */
export const LONGEST_MS = GRACE_MS - 12 * 3_600_000;

/** Throws when what began at `startedMs` may not be committed any more. For the moment before: nothing may be waited for in between. */
export function requireInTime(what: string, startedMs: number, nowMs: number): void {
  const tookMs = nowMs - startedMs;
  if (tookMs <= LONGEST_MS) return;
  throw new DrError(
    'refused',
    `the backup of ${what} was not committed: it began ${formatDuration(tookMs)} ago, and what it stored then may be gone`,
    {
      where: what,
      next: `A backup has to be done within ${formatDuration(LONGEST_MS)}. If this machine was asleep, take it again; otherwise split the resource or make the way to the vaults faster.`,
    },
  );
}
