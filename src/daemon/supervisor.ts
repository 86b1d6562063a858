import { during } from '../base/activity.ts';
import type { Clock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { backoffMs } from '../base/retry.ts';
import { activityOf } from './job.ts';
import type { Service, ServiceState } from './service.ts';

export interface SupervisorOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** Bounds of the pause before a failed service is started again; default 1 s and 60 s. */
  readonly baseMs?: number;
  readonly maxMs?: number;
}

/** After this long without a failure the next one counts as the first. */
const HEALTHY_MS = 5 * 60_000;

/** Keeps services running, each on its own: one that fails is started again with growing pauses and takes no other one down. */
export class Supervisor {
  readonly #options: SupervisorOptions;
  /** In the order in which they were added. */
  #kept: Kept[] = [];

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  /** Starts a service; returns at once. */
  add(service: Service): void {
    this.#kept.push(new Kept(service, this.#options));
  }

  /** Ends these services, all at once; those that are not kept here are passed over. */
  async remove(services: readonly Service[], graceMs: number): Promise<void> {
    const leaving = this.#kept.filter(({ service }) => services.includes(service));
    await Promise.all(leaving.map(async (kept) => await kept.stop(graceMs)));
    this.#kept = this.#kept.filter((kept) => !leaving.includes(kept));
  }

  /** Ends all, the last added first, each when the one after it has ended. The grace time is that of all together. */
  async stop(graceMs: number): Promise<void> {
    const until = this.#options.clock.now() + graceMs;
    for (const kept of this.#kept.toReversed()) {
      await kept.stop(Math.max(0, until - this.#options.clock.now()));
    }
    this.#kept = [];
  }

  states(): ServiceState[] {
    return this.#kept.map((kept) => kept.state());
  }
}

/** One service that is kept running. */
class Kept {
  readonly service: Service;
  readonly #options: SupervisorOptions;
  readonly #stopping = new AbortController();
  readonly #done: Promise<void>;
  #waiting = false;
  #failures = 0;
  #lastError: unknown;

  constructor(service: Service, options: SupervisorOptions) {
    this.service = service;
    this.#options = options;
    this.#done = this.#keep();
  }

  state(): ServiceState {
    const state = this.#stopping.signal.aborted ? 'stopping' : this.#waiting ? 'waiting' : 'running';
    return { name: this.service.name, state, failures: this.#failures, lastError: this.#lastError };
  }

  async stop(graceMs: number): Promise<void> {
    this.#stopping.abort();
    try {
      await this.service.stop(graceMs);
    } catch (error) {
      this.#options.log.error({ service: this.service.name, error }, 'a service did not end cleanly');
    }
    await this.#done;
  }

  async #keep(): Promise<void> {
    const { clock, log, baseMs = 1000, maxMs = 60_000 } = this.#options;
    const { name } = this.service;
    while (!this.#stopping.signal.aborted) {
      const startedMs = clock.now();
      try {
        await during(activityOf(name), async () => await this.service.run());
        if (this.#stopping.signal.aborted) return;
        throw new DrError('internal', `the service ${name} ended without being told to`);
      } catch (error) {
        if (this.#stopping.signal.aborted) return;
        if (clock.now() - startedMs >= HEALTHY_MS) this.#failures = 0;
        this.#failures++;
        this.#lastError = error;
        // At least half of the bound: what fails at once is not tried in a tight loop.
        const bound = Math.min(maxMs, baseMs * 2 ** Math.min(this.#failures - 1, 20));
        const pauseMs = Math.round(bound / 2 + backoffMs(1, bound / 2, bound / 2));
        log.error({ service: name, failures: this.#failures, pauseMs, error }, 'a service failed; it is started again');
        this.#waiting = true;
        await clock.sleep(pauseMs, this.#stopping.signal).catch(() => {});
        this.#waiting = false;
      }
    }
  }
}
