import type { Clock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';

/**
 * Runs `work` with a signal that aborts after `limitMs` or when `outer` does. It is then given `graceMs` to stop by itself, because
 * as long as it runs nobody may assume that it does nothing any more; work that ignores its signal is an `internal` error.
 */
export async function within<T>(
  clock: Clock,
  limitMs: number,
  graceMs: number,
  doing: string,
  outer: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const timeUp = new AbortController();
  const settled = new AbortController();
  const signal = AbortSignal.any([outer, timeUp.signal]);
  const tooLong = (cause?: unknown) =>
    new DrError('unreachable', `${doing} took longer than ${formatDuration(limitMs)}`, {
      next: 'Run the same command again. If it needs more time, raise "timeout" of the step in the runbook; a run that has begun keeps what it began with, so then add --new.',
      retryable: true,
      cause,
    });
  const quietly = (ms: number) =>
    clock.sleep(ms, settled.signal, { unref: true }).then(
      () => true,
      () => false,
    );
  void quietly(limitMs).then((passed) => passed && timeUp.abort(tooLong()));
  const stopped = new Promise<never>((_, reject) => {
    const afterGrace = async () => {
      if (await quietly(graceMs)) {
        reject(
          new DrError('internal', `${doing} did not stop within ${formatDuration(graceMs)} when it was told to`, {
            next: 'End this process, make sure that nothing of the step still runs, and run the same command again.',
          }),
        );
      }
    };
    if (signal.aborted) void afterGrace();
    else signal.addEventListener('abort', () => void afterGrace(), { once: true });
  });
  try {
    return await Promise.race([work(signal), stopped]);
  } catch (error) {
    // Whatever words the work found for being aborted: the reason was the limit.
    if (timeUp.signal.aborted && !outer.aborted && !(error instanceof DrError && error.kind === 'internal')) {
      throw tooLong(error);
    }
    throw error;
  } finally {
    settled.abort();
  }
}
