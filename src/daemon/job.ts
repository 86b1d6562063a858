import type { Cadence } from '../config/types.ts';

/** Why a job runs: its slot has come, was missed, its work was never done, a run failed before, or somebody asked. */
export type RunReason = 'scheduled' | 'missed' | 'first' | 'retry' | 'asked';

/** Under which name the requests of a job or a service are counted: `backup` for `backup orders`. */
export function activityOf(name: string): string {
  const [first = name] = name.split(' ');
  return first === 'own' ? 'backup' : first;
}

/** Work that is done again and again. */
export interface Job {
  /** `backup orders`; unique. */
  readonly name: string;
  /** Jobs of one lane share its limit. */
  readonly lane: string;
  /** Undefined: only when asked for. */
  readonly cadence: Cadence | undefined;
  /** Decides the stable jitter of the cadence. */
  readonly seed: string;
  /** The lease under which it works, for the metrics. */
  readonly lease?: string;
  /** Tries after a failure before the next slot is waited for; default 5. */
  readonly retries?: number;
  /** False while it is not this site's work; a run under way is then aborted. Asked every second. */
  enabled(): boolean;
  /** False while it may not begin, though what runs already may end: another replica begins what is due. Asked every second. */
  mayBegin?(): boolean;
  /**
   * When its work was last done by whomever, milliseconds since 1970; `never` also if it has to be done anew at once; `not-due` if
   * there is nothing to do before the next slot.
   */
  lastDone(signal: AbortSignal): Promise<number | 'never' | 'not-due'>;
  /** Does it; returns facts for the log. Throws `lease-held` when another process is doing it. */
  run(signal: AbortSignal, reason: RunReason): Promise<object>;
}

/** How a job does. Moments in milliseconds since 1970. */
export interface JobState {
  readonly name: string;
  readonly enabled: boolean;
  readonly lease: string | undefined;
  /** Since when it runs or waits for its lane. */
  readonly runningSinceMs: number | undefined;
  /** It does its work now. */
  readonly working: boolean;
  readonly nextRunMs: number | undefined;
  readonly lastSuccessMs: number | undefined;
  readonly lastDurationMs: number | undefined;
  readonly runs: number;
  readonly failures: number;
  /** Failures since the last success. */
  readonly failuresInARow: number;
  readonly overlaps: number;
  /** Why the last run failed; undefined after a success. */
  readonly lastError: unknown;
}

/** A job and where it stands; only the scheduler touches it. */
export class JobTurn {
  readonly job: Job;
  /** The last slot that needs nothing more; undefined = not known yet, so it is asked what was missed. */
  handledMs: number | undefined;
  /** Not before this moment is that asked. */
  lookAtMs = Number.NEGATIVE_INFINITY;
  retryAtMs: number | undefined;
  asked = false;
  running: { controller: AbortController; sinceMs: number; working: boolean; done: Promise<void> } | undefined;
  /** Tries for the current slot that failed. */
  attempts = 0;
  lastSuccessMs: number | undefined;
  overlaps = 0;
  #lastDurationMs: number | undefined;
  #runs = 0;
  #failures = 0;
  #failuresInARow = 0;
  #lastError: unknown;

  constructor(job: Job) {
    this.job = job;
  }

  begin(dueMs: number | undefined): void {
    this.#runs++;
    this.asked = false;
    // Another slot has begun: its tries are counted anew.
    if (dueMs !== this.handledMs) this.attempts = 0;
    this.handledMs = dueMs;
    this.retryAtMs = undefined;
  }

  succeed(nowMs: number, durationMs: number): void {
    this.lastSuccessMs = nowMs;
    this.#lastDurationMs = durationMs;
    this.#lastError = undefined;
    this.#failuresInARow = 0;
    this.attempts = 0;
  }

  fail(error: unknown, retryAtMs: number | undefined): void {
    this.#failures++;
    this.#failuresInARow++;
    this.#lastError = error;
    this.attempts++;
    this.retryAtMs = retryAtMs;
  }

  /** What was missed is asked anew the next time. */
  forget(): void {
    this.rest();
    this.asked = false;
  }

  /** The same, but what somebody asked for stays asked for. */
  rest(): void {
    this.handledMs = undefined;
    this.retryAtMs = undefined;
    this.attempts = 0;
    this.lookAtMs = Number.NEGATIVE_INFINITY;
  }

  state(nextRunMs: number | undefined): JobState {
    return {
      name: this.job.name,
      enabled: this.job.enabled(),
      lease: this.job.lease,
      runningSinceMs: this.running?.sinceMs,
      working: this.running?.working === true,
      nextRunMs,
      lastSuccessMs: this.lastSuccessMs,
      lastDurationMs: this.#lastDurationMs,
      runs: this.#runs,
      failures: this.#failures,
      failuresInARow: this.#failuresInARow,
      overlaps: this.overlaps,
      lastError: this.#lastError,
    };
  }
}
