import { during } from '../base/activity.ts';
import type { Clock } from '../base/clock.ts';
import { Semaphore } from '../base/concurrency.ts';
import { DrError, isAbort, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { nextRunAfter, previousDue } from '../config/cadence.ts';
import { activityOf, type Job, type JobState, JobTurn, type RunReason } from './job.ts';
import type { Service } from './service.ts';
import type { Ticker } from './ticker.ts';

export interface SchedulerOptions {
  readonly jobs: readonly Job[];
  /** How many jobs of a lane run at once; 1 for a lane that is not named. */
  readonly lanes: Readonly<Record<string, number>>;
  readonly ticker: Ticker;
  /** A run has ended, well or not. */
  onEnded?(job: Job): void;
  readonly clock: Clock;
  readonly log: Log;
}

/** Tries after a failure, before the next slot is waited for. */
const RETRIES = 5;
const RETRY_BASE_MS = 30_000;
const RETRY_MAX_MS = 15 * 60_000;
/** How soon it is asked again whether work was missed, when the vaults did not say or somebody else is doing it. */
const LOOK_AGAIN_MS = 30_000;

/**
 * Service: runs jobs when they are due, each at most once at a time. What was missed while the daemon was away is found by asking
 * the job when its work was last done; a failed run is tried again before its next slot, with growing pauses.
 */
export class Scheduler implements Service {
  readonly name = 'scheduler';
  readonly #options: SchedulerOptions;
  readonly #turns: JobTurn[];
  readonly #lanes = new Map<string, Semaphore>();
  #tickedMs: number;
  #ended: (() => void) | undefined;
  #stopping = false;
  #deadline = new AbortController();

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#turns = options.jobs.map((job) => new JobTurn(job));
    this.#tickedMs = options.clock.now();
  }

  /** When time was last looked at, milliseconds since 1970: an old moment means that the process hangs. */
  get tickedMs(): number {
    return this.#tickedMs;
  }

  async run(): Promise<void> {
    this.#stopping = false;
    this.#deadline = new AbortController();
    const ended = new Promise<void>((resolve) => {
      this.#ended = resolve;
    });
    this.#options.ticker.start(() => this.tick());
    this.tick();
    await ended;
  }

  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    this.#options.ticker.stop();
    const running = this.#turns.flatMap(({ running }) => (running ? [running] : []));
    // Whatever has not begun its work yet does not begin it.
    for (const { controller, working } of running) if (!working) controller.abort(stopped());
    const all = Promise.all(running.map(({ done }) => done));
    const enough = new AbortController();
    const graceEnds = this.#options.clock.sleep(graceMs, enough.signal, { unref: true }).catch(() => {});
    const cutShort = new Promise<void>((resolve) => {
      this.#deadline.signal.addEventListener('abort', () => resolve(), { once: true });
    });
    if (graceMs > 0) await Promise.race([all, graceEnds, cutShort]);
    else this.#deadline.abort();
    enough.abort();
    for (const { controller } of running) controller.abort(stopped());
    await all;
    this.#ended?.();
  }

  /** Runs a job as soon as its lane is free; if it runs now, once more after that. Throws `not-found` for an unknown name. */
  runNow(name: string): void {
    const turn = this.#turns.find(({ job }) => job.name === name);
    if (!turn) throw new DrError('not-found', `the daemon has no job "${name}"`);
    turn.asked = true;
    this.tick();
  }

  /** True while a job runs or waits for its lane. */
  isRunning(name: string): boolean {
    return this.#turns.some(({ job, running }) => job.name === name && running !== undefined);
  }

  states(): JobState[] {
    const nowMs = this.#options.clock.now();
    return this.#turns.map((turn) => turn.state(nextRunMs(turn, nowMs)));
  }

  /** Starts what is due and ends what may not go on. Called every second, and whenever something has changed. */
  tick(): void {
    const nowMs = this.#options.clock.now();
    this.#tickedMs = nowMs;
    if (this.#stopping) return;
    for (const turn of this.#turns) {
      if (!turn.job.enabled()) {
        turn.running?.controller.abort(new DrError('interrupted', `${turn.job.name} is not this site's work any more`));
        turn.forget();
        continue;
      }
      if (turn.running) continue;
      if (turn.job.mayBegin?.() === false) {
        turn.rest();
        continue;
      }
      const reason = reasonToRun(turn, nowMs);
      if (reason) this.#start(turn, reason);
    }
  }

  #start(turn: JobTurn, reason: RunReason | 'look'): void {
    const controller = new AbortController();
    const running = { controller, sinceMs: this.#options.clock.now(), working: false, done: Promise.resolve() };
    turn.running = running;
    const work = async () => await this.#turn(turn, reason, controller.signal);
    running.done = during(activityOf(turn.job.name), work).finally(() => {
      turn.running = undefined;
    });
  }

  async #turn(turn: JobTurn, first: RunReason | 'look', signal: AbortSignal): Promise<void> {
    const reason = first === 'look' ? await this.#whyCatchUp(turn, signal) : first;
    if (!reason) return;
    const lane = this.#lane(turn.job.lane);
    await lane.acquire();
    try {
      if (signal.aborted || turn.job.mayBegin?.() === false) return;
      if (turn.running) turn.running.working = true;
      await this.#work(turn, reason, signal);
      this.#options.onEnded?.(turn.job);
    } finally {
      lane.release();
    }
  }

  /** Asks when the work was last done: undefined if nothing has been missed since. */
  async #whyCatchUp(turn: JobTurn, signal: AbortSignal): Promise<RunReason | undefined> {
    const { clock, log } = this.#options;
    const { job } = turn;
    try {
      const lastMs = await job.lastDone(signal);
      if (signal.aborted) return undefined;
      const dueMs = dueBefore(turn, clock.now());
      if (lastMs === 'never') return 'first';
      if (lastMs !== 'not-due') {
        turn.lastSuccessMs = Math.max(lastMs, turn.lastSuccessMs ?? 0);
        if (dueMs !== undefined && lastMs < dueMs) return 'missed';
      }
      turn.handledMs = dueMs;
    } catch (error) {
      if (signal.aborted) return undefined;
      turn.lookAtMs = clock.now() + LOOK_AGAIN_MS;
      log.warn({ job: job.name, error }, 'it cannot be told yet whether work was missed; asked again soon');
    }
    return undefined;
  }

  async #work(turn: JobTurn, reason: RunReason, signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    const { job } = turn;
    const startedMs = clock.now();
    turn.begin(dueBefore(turn, startedMs));
    log.info({ job: job.name, reason }, 'job started');
    try {
      const facts = await job.run(signal, reason);
      const ms = clock.now() - startedMs;
      turn.succeed(clock.now(), ms);
      log.info({ job: job.name, ms, ...facts }, 'job done');
      const dueMs = dueBefore(turn, clock.now());
      if (turn.handledMs !== undefined && dueMs !== undefined && dueMs > turn.handledMs) {
        turn.overlaps++;
        log.warn(
          { job: job.name, ms },
          'job ran into its next slot, which is made up for now: its schedule is too tight',
        );
      }
    } catch (error) {
      if (signal.aborted && (isAbort(error) || error === signal.reason)) {
        turn.forget();
        log.warn({ job: job.name, reason: messageOf(signal.reason) }, 'job was stopped before it was done');
      } else if (error instanceof DrError && error.kind === 'lease-held') {
        turn.forget();
        turn.lookAtMs = clock.now() + LOOK_AGAIN_MS;
        log.info({ job: job.name, who: error.message }, 'another dr does this already');
      } else {
        this.#fail(turn, error);
      }
    }
  }

  #fail(turn: JobTurn, error: unknown): void {
    const { clock, log } = this.#options;
    const nowMs = clock.now();
    const bound = Math.min(RETRY_MAX_MS, RETRY_BASE_MS * 2 ** turn.attempts);
    const pauseMs = Math.round(bound * (0.5 + Math.random() / 2));
    turn.fail(error, turn.attempts < (turn.job.retries ?? RETRIES) ? nowMs + pauseMs : undefined);
    const again = nextRunMs(turn, nowMs);
    const facts = { job: turn.job.name, tries: turn.attempts, error };
    log.error(
      again === undefined ? facts : { ...facts, again: new Date(again).toISOString() },
      turn.retryAtMs === undefined ? 'job failed; it waits for its next slot' : 'job failed; it is tried again',
    );
  }

  #lane(name: string): Semaphore {
    const known = this.#lanes.get(name);
    if (known) return known;
    const lane = new Semaphore(this.#options.lanes[name] ?? 1);
    this.#lanes.set(name, lane);
    return lane;
  }
}

function stopped(): DrError {
  return new DrError('interrupted', 'the daemon was told to stop');
}

function dueBefore({ job }: JobTurn, nowMs: number): number | undefined {
  return job.cadence && previousDue(job.cadence, nowMs, job.seed);
}

function nextRunMs(turn: JobTurn, nowMs: number): number | undefined {
  const { job } = turn;
  if (!job.enabled() || job.mayBegin?.() === false) return undefined;
  const slot = job.cadence && nextRunAfter(job.cadence, nowMs, job.seed);
  return turn.retryAtMs !== undefined && turn.retryAtMs < (slot ?? Number.POSITIVE_INFINITY) ? turn.retryAtMs : slot;
}

function reasonToRun(turn: JobTurn, nowMs: number): RunReason | 'look' | undefined {
  if (turn.asked) return 'asked';
  const dueMs = dueBefore(turn, nowMs);
  if (dueMs !== undefined) {
    if (turn.handledMs === undefined && turn.retryAtMs === undefined)
      return nowMs >= turn.lookAtMs ? 'look' : undefined;
    // The clock of this machine was ahead and went back: what it thought to have handled lies in the future.
    if (turn.handledMs !== undefined && turn.handledMs > dueMs) turn.handledMs = dueMs;
    if (turn.handledMs !== undefined && dueMs > turn.handledMs) return 'scheduled';
  }
  return turn.retryAtMs !== undefined && nowMs >= turn.retryAtMs ? 'retry' : undefined;
}
