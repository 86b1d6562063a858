import type { Clock } from '../../base/clock.ts';
import { DrError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { formatDuration } from '../../base/units.ts';
import type { Cluster } from '../../cluster/contract.ts';

const firstPauseMs = 250;
const longestPauseMs = 5000;

/** Waits, once for all who wait, until an API server that was lost answers again. */
export class Patience {
  readonly #cluster: Cluster;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #longestMs: number;
  #waiting: Promise<void> | undefined;

  constructor(cluster: Cluster, parts: { readonly clock: Clock; readonly log: Log; readonly longestMs: number }) {
    this.#cluster = cluster;
    this.#clock = parts.clock;
    this.#log = parts.log;
    this.#longestMs = parts.longestMs;
  }

  /** Throws the last failure when the server stays away for too long, and what is no matter of waiting. */
  async untilBack(lost: DrError, signal: AbortSignal): Promise<void> {
    this.#waiting ??= this.#wait(lost, signal).finally(() => {
      this.#waiting = undefined;
    });
    await this.#waiting;
  }

  async #wait(lost: DrError, signal: AbortSignal): Promise<void> {
    const begunMs = this.#clock.now();
    this.#log.warn({ error: lost }, 'the API server is lost; waiting for it');
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
      await this.#clock.sleep(pauseMs, signal);
      try {
        await this.#cluster.version(signal);
        return;
      } catch (error) {
        if (!(error instanceof DrError) || !error.retryable) throw error;
        const waitedMs = this.#clock.now() - begunMs;
        if (waitedMs < this.#longestMs) continue;
        throw new DrError(
          'unreachable',
          `the API server has been away for ${formatDuration(waitedMs)}: ${error.message}`,
          {
            where: this.#cluster.target,
            next: 'When it is back, run the command again: it goes on with what is missing.',
            cause: error,
          },
        );
      }
    }
  }
}
