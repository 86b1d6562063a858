import type { Clock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';

export interface Wait {
  /** What is waited for, at the beginning of a sentence: `change C12`. */
  readonly what: string;
  readonly target: string;
  /** Who has to follow; default `all name servers`. */
  readonly on?: string;
  /** What to do when it takes too long, as one sentence. */
  readonly next: string;
  readonly clock: Clock;
  /** Longest wait when the caller gives no deadline, milliseconds. */
  readonly limitMs: number;
  readonly signal: AbortSignal | undefined;
}

/** Marks a "change" that found its values published already: nothing was submitted, so there is none to ask for. */
export const unchanged = 'unchanged';

/** Longest wait for a change to become visible when the caller gives no deadline, milliseconds. */
export const settleLimitMs = 600_000;

/**
 * Looks again and again, with growing pauses, until `look` has nothing to say. What it says is why the change is not visible yet;
 * an error of it that may pass counts as such a reason. Throws `unreachable` when the time is over and `interrupted` when the caller stopped.
 */
export async function waitUntilVisible(look: () => Promise<string | undefined>, wait: Wait): Promise<void> {
  const { clock, signal } = wait;
  const startedMs = clock.now();
  let state = 'nobody has been asked yet';
  const late = (cause?: unknown) =>
    new DrError(
      'unreachable',
      `${wait.what} is not visible on ${wait.on ?? 'all name servers'} after ${formatDuration(clock.now() - startedMs)}: ${state}`,
      { where: wait.target, next: wait.next, cause },
    );
  // A server that is slow or away for a while says nothing about the change: keep asking until the deadline.
  const busy = (error: unknown) => {
    if (signal?.aborted || !(error instanceof DrError) || !error.retryable) throw error;
    return error.message;
  };
  try {
    for (let pauseMs = 500; ; pauseMs = Math.min(pauseMs * 1.5, 5000)) {
      const outcome = await look().catch(busy);
      if (outcome === undefined) return;
      state = outcome;
      if (clock.now() - startedMs + pauseMs > wait.limitMs) throw late();
      await clock.sleep(pauseMs, signal);
    }
  } catch (error) {
    if (!signal?.aborted) throw error;
    // A deadline that passed is a finding about the provider; any other abort is somebody's wish to stop.
    if (signal.reason instanceof Error && signal.reason.name === 'TimeoutError') throw late(error);
    throw new DrError('interrupted', `waiting for ${wait.what} was stopped`, { where: wait.target, cause: error });
  }
}
