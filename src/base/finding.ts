import { DrError, messageOf } from './errors.ts';
import { formatDuration } from './units.ts';

/** `fail`: something that dr promises does not work. `warn`: it works, with a risk. */
export type Verdict = 'ok' | 'warn' | 'fail';

/** One thing that was looked at by `dr doctor`. */
export interface Finding {
  readonly verdict: Verdict;
  /** What was found, as a sentence. */
  readonly what: string;
  /** How to mend it; of an `ok` only where there is something to know. */
  readonly next?: string | undefined;
}

export function good(what: string, next?: string): Finding {
  return { verdict: 'ok', what, next };
}

export function doubtful(what: string, next: string): Finding {
  return { verdict: 'warn', what, next };
}

export function bad(what: string, next: string): Finding {
  return { verdict: 'fail', what, next };
}

/** What an error says, as a finding: its message with its place, and its own advice. */
export function fromError(error: unknown, verdict: 'warn' | 'fail' = 'fail'): Finding {
  const where = error instanceof DrError && error.where !== undefined ? ` (${error.where})` : '';
  const cause = error instanceof Error && error.cause !== undefined ? messageOf(error.cause) : '';
  const why = cause === '' || messageOf(error).includes(cause) ? '' : `: ${cause}`;
  return {
    verdict,
    what: `${messageOf(error)}${why}${where}`,
    next: error instanceof DrError ? error.next : undefined,
  };
}

/** The clock of somebody else, read between two looks at ours. All milliseconds. */
export interface ClockReading {
  readonly theirsMs: number;
  readonly beforeMs: number;
  readonly afterMs: number;
  /** How coarse their answer is; S3 gives whole seconds. */
  readonly grainMs?: number;
}

const CLOCK_WARN_MS = 5000;
const CLOCK_FAIL_MS = 60_000;

/** Judges a clock: ages, leases and recovery targets by time are only as good as the clocks. What the reading cannot tell is not blamed. */
export function clockFinding(whose: string, reading: ClockReading): Finding {
  const { theirsMs, beforeMs, afterMs, grainMs = 0 } = reading;
  // Their moment lies between our two, and up to one grain after what they say.
  const early = beforeMs - (theirsMs + grainMs);
  const late = theirsMs - afterMs;
  const offMs = Math.max(0, early, late);
  const direction = late > 0 ? 'ahead of' : 'behind';
  if (offMs < CLOCK_WARN_MS) {
    return good(`the clock of ${whose} agrees with the one here within ${formatDuration(Math.max(1000, offMs))}`);
  }
  const what = `the clock of ${whose} is ${formatDuration(offMs)} ${direction} the one here`;
  const next = 'Run NTP (chrony, systemd-timesyncd) on both machines, and see with `timedatectl` which one is wrong.';
  return offMs < CLOCK_FAIL_MS ? doubtful(what, next) : bad(what, next);
}
