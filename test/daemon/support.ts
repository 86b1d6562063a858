import type { Log } from '../../src/base/log.ts';
import { silentLog } from '../../src/base/log.ts';
import type { Cadence } from '../../src/config/types.ts';
import type { Job } from '../../src/daemon/job.ts';
import { Scheduler, type SchedulerOptions } from '../../src/daemon/scheduler.ts';
import { ManualClock } from '../harness/manual-clock.ts';

export const HOUR = 3_600_000;
export const MINUTE = 60_000;
/** How often the tests' scheduler looks at the time. */
export const TICK = 10_000;

export const hourly: Cadence = { kind: 'every', everyMs: HOUR, text: 'hourly' };

/** A job whose runs a test ends one by one. */
export class TestJob implements Job {
  readonly name: string;
  readonly lane: string;
  readonly cadence: Cadence | undefined = hourly;
  readonly seed = '';
  readonly started: number[] = [];
  readonly reasons: string[] = [];
  readonly signals: AbortSignal[] = [];
  active = true;
  last: number | 'never' | 'not-due' | Error = 'never';
  readonly #clock: ManualClock;
  #ends: Array<{ resolve: () => void; reject: (error: unknown) => void }> = [];

  constructor(clock: ManualClock, name = 'job', lane = name) {
    this.#clock = clock;
    this.name = name;
    this.lane = lane;
  }

  enabled(): boolean {
    return this.active;
  }

  async lastDone(): Promise<number | 'never' | 'not-due'> {
    if (this.last instanceof Error) throw this.last;
    return this.last;
  }

  async run(signal: AbortSignal, reason: string): Promise<object> {
    this.started.push(this.#clock.now());
    this.reasons.push(reason);
    this.signals.push(signal);
    await new Promise<void>((resolve, reject) => {
      this.#ends.push({ resolve, reject });
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
    return {};
  }

  get running(): number {
    return this.#ends.length;
  }

  /** Ends the oldest run, with an error where given, and lets what follows from it happen. */
  async end(error?: unknown): Promise<void> {
    const run = this.#ends.shift();
    if (!run) throw new Error(`${this.name} does not run`);
    if (error === undefined) run.resolve();
    else run.reject(error);
    await this.#clock.advance(0);
  }
}

/** A scheduler that is ticked by a clock that the test moves. */
export async function startScheduler(
  clock: ManualClock,
  jobs: readonly Job[],
  options: Partial<SchedulerOptions> = {},
): Promise<{ scheduler: Scheduler; running: Promise<void> }> {
  const ticking = new AbortController();
  const scheduler = new Scheduler({
    jobs,
    lanes: {},
    clock,
    log: silentLog,
    ticker: {
      start: (onTick) => {
        void (async () => {
          for (;;) {
            await clock.sleep(TICK, ticking.signal);
            onTick();
          }
        })().catch(() => {});
      },
      stop: () => ticking.abort(),
    },
    ...options,
  });
  const running = scheduler.run();
  await clock.advance(0);
  return { scheduler, running };
}

/** A log that remembers the sentences. */
export function memoryLog(): { log: Log; lines: Array<{ level: string; facts: object; sentence: string }> } {
  const lines: Array<{ level: string; facts: object; sentence: string }> = [];
  const write = (level: string) => (facts: object, sentence: string) => void lines.push({ level, facts, sentence });
  const log: Log = {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    child: () => log,
  };
  return { log, lines };
}

export { ManualClock };
