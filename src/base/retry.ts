import { type Clock, systemClock } from './clock.ts';
import { DrError, isAbort } from './errors.ts';

export interface RetryOptions {
  /** Total tries, the first included. */
  readonly attempts: number;
  /** Upper bound of the first pause, milliseconds; doubles every time. */
  readonly baseMs: number;
  /** Upper bound of any pause, milliseconds. */
  readonly maxMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly clock?: Clock;
  readonly isRetryable?: (error: unknown) => boolean;
  readonly onRetry?: (error: unknown, attempt: number, pauseMs: number) => void;
}

/** Exponential back-off with full jitter (a pause uniformly between 0 and the bound), so that many clients spread out. */
export function backoffMs(attempt: number, baseMs: number, maxMs: number, random: () => number = Math.random): number {
  return random() * Math.min(maxMs, baseMs * 2 ** (attempt - 1));
}

/** Calls `work` until it succeeds, a final error comes, the attempts end or the signal aborts; throws the last error. */
export async function retry<T>(work: (attempt: number) => Promise<T>, options: RetryOptions): Promise<T> {
  const clock = options.clock ?? systemClock;
  const isRetryable = options.isRetryable ?? ((error) => error instanceof DrError && error.retryable);
  for (let attempt = 1; ; attempt++) {
    try {
      return await work(attempt);
    } catch (error) {
      if (attempt >= options.attempts || options.signal?.aborted || isAbort(error) || !isRetryable(error)) throw error;
      const pauseMs = backoffMs(attempt, options.baseMs, options.maxMs);
      options.onRetry?.(error, attempt, pauseMs);
      await clock.sleep(pauseMs, options.signal);
    }
  }
}
