import { DrError } from '../../src/base/errors.ts';
import { Random } from './random.ts';

export const minute = 60_000;
export const hour = 60 * minute;
export const day = 24 * hour;

/** No request is on its way for longer. What waits longer is a process that stands still after the answer has come. */
export const LONGEST_REQUEST_MS = 8 * hour;

/** A process of `dr`: what it has asked the vaults, and whether it stands still. */
export interface Actor {
  readonly name: string;
  /** Its clock is ahead of the true time by this much. */
  readonly skewMs: number;
  priority: number;
  pausedUntilMs: number;
  dead: boolean;
  done: boolean;
  /** Of its process, as a person would with Ctrl-C. */
  readonly stop: AbortController;
  /** What happens to it once so many of its requests for keys with this beginning were served. */
  fate: { readonly prefix: string; left: number; readonly pauseMs: number | 'dies' } | undefined;
  outcome: string;
}

/** One request to a vault: sent, then served by the store, then its answer is delivered. */
interface Request {
  readonly actor: Actor;
  readonly what: string;
  readonly sentMs: number;
  readonly serve: () => unknown;
  readonly deliver: (outcome: { readonly value: unknown } | { readonly error: unknown }) => void;
  outcome: { readonly value: unknown } | { readonly error: unknown } | undefined;
  /** Nobody waits for the answer any more, but the request is on its way. */
  orphan: boolean;
}

interface Timer {
  readonly actor: Actor;
  readonly atMs: number;
  readonly fire: () => void;
}

/**
 * Runs several processes over shared vaults, one step at a time: which request is served next, whose answer is delivered, which process
 * stands still or dies, and how time passes, all follows from the seed. The worst order is looked for by priorities that change at a few
 * random steps (as in probabilistic concurrency testing), or by picking at random.
 */
export class Scheduler {
  readonly random: Random;
  readonly actors: Actor[] = [];
  readonly trace: string[] = [];
  nowMs: number;
  step = 0;
  /** Every request is served and answered at once: for what happened before the history begins, and after it. */
  calm = true;
  readonly #tracing: boolean;
  /** Processes use files and threads as well: those have to come to rest before the next step. */
  readonly #usesSystem: boolean;
  readonly #byPriority: boolean;
  #requests: Request[] = [];
  #timers: Timer[] = [];
  /** What is to begin, and when. */
  #agenda: Array<{ readonly atMs: number; readonly begin: () => void }> = [];

  constructor(
    seed: number,
    options: { readonly startMs: number; readonly tracing: boolean; readonly usesSystem: boolean },
  ) {
    this.random = new Random(seed);
    this.nowMs = options.startMs;
    this.#tracing = options.tracing;
    this.#usesSystem = options.usesSystem;
    this.#byPriority = this.random.chance(0.6);
  }

  actor(name: string, skewMs = 0): Actor {
    const actor: Actor = {
      name,
      skewMs,
      priority: this.random.next(),
      pausedUntilMs: 0,
      dead: false,
      done: false,
      stop: new AbortController(),
      fate: undefined,
      outcome: 'unfinished',
    };
    this.actors.push(actor);
    return actor;
  }

  note(text: string): void {
    if (this.#tracing)
      this.trace.push(`${String(this.step).padStart(5)} ${new Date(this.nowMs).toISOString()} ${text}`);
  }

  /** Asks a vault: `serve` has its effect when the scheduler says so. */
  request<T>(actor: Actor, what: string, serve: () => T | Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    if (this.calm) return Promise.resolve().then(serve);
    if (actor.dead) return new Promise(() => {});
    if (signal?.aborted) return Promise.reject(interrupted(signal));
    return new Promise<T>((resolve, reject) => {
      const onAbort = () => {
        if (request.orphan || actor.dead) return;
        // Whether it has reached the store nobody knows: it may still be served.
        request.orphan = true;
        if (request.outcome) this.#requests = this.#requests.filter((each) => each !== request);
        reject(interrupted(signal));
      };
      const request: Request = {
        actor,
        what,
        sentMs: this.nowMs,
        serve,
        outcome: undefined,
        orphan: false,
        deliver: (outcome) => {
          signal?.removeEventListener('abort', onAbort);
          if ('error' in outcome) reject(outcome.error);
          else resolve(outcome.value as T | Promise<T>);
        },
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#requests.push(request);
    });
  }

  /** Time for a process, with its own clock. */
  clockOf(actor: Actor) {
    return {
      now: () => this.nowMs + actor.skewMs,
      sleep: (ms: number, signal?: AbortSignal) =>
        new Promise<void>((resolve, reject) => {
          if (signal?.aborted) return reject(new Error('aborted'));
          // Leases that nobody gives back do not matter in calm times.
          if (this.calm) return;
          const timer: Timer = { actor, atMs: this.nowMs + ms, fire: resolve };
          this.#timers.push(timer);
          signal?.addEventListener('abort', () => {
            this.#timers = this.#timers.filter((each) => each !== timer);
            reject(new Error('aborted'));
          });
        }),
    };
  }

  /** Does something in `ms`, at the earliest. */
  later(ms: number, begin: () => void): void {
    this.#agenda.push({ atMs: this.nowMs + ms, begin });
  }

  /** Starts a process. What it throws is its outcome. */
  start(actor: Actor, work: () => Promise<string | undefined>): void {
    void work().then(
      (said) => this.#end(actor, said ?? 'done'),
      (error: unknown) =>
        this.#end(actor, error instanceof DrError ? `${error.kind}: ${error.message}` : String(error)),
    );
  }

  /** The process is no more: no answer reaches it, and its timers are gone. */
  kill(actor: Actor): void {
    this.note(`${actor.name} is killed`);
    actor.dead = true;
    actor.outcome = 'killed';
    this.#timers = this.#timers.filter((timer) => timer.actor !== actor);
    for (const request of this.#requests) if (request.actor === actor) request.orphan = true;
    this.#requests = this.#requests.filter((request) => !(request.orphan && request.outcome));
  }

  /** Lets all processes run to their ends. `adversary` is asked at every step, and says whether it did something. Throws when there is no end. */
  async run(adversary: () => boolean): Promise<void> {
    const first = this.step;
    let idle = 0;
    for (;;) {
      const due = this.#agenda.filter(({ atMs }) => atMs <= this.nowMs);
      this.#agenda = this.#agenda.filter(({ atMs }) => atMs > this.nowMs);
      for (const { begin } of due) begin();
      await settle(this.#usesSystem);
      const living = this.actors.some(({ dead, done }) => !dead && !done);
      if (!living && this.#requests.length + this.#agenda.length === 0) break;
      if (++this.step - first > 60_000) {
        throw new Error(
          `no end: ${this.actors
            .filter((a) => !a.dead && !a.done)
            .map((a) => a.name)
            .join(', ')}`,
        );
      }
      if (adversary()) await settle(this.#usesSystem);
      if (this.#one(living)) {
        idle = 0;
        continue;
      }
      // Nobody can go on: time passes.
      const next = [
        ...this.#agenda.map(({ atMs }) => atMs),
        ...this.#timers.map(({ actor, atMs }) => Math.max(atMs, actor.pausedUntilMs)),
        ...this.actors.flatMap(({ dead, done, pausedUntilMs }) => (dead || done ? [] : [pausedUntilMs])),
      ].filter((at) => at > this.nowMs);
      if (next.length === 0) {
        if (++idle > (this.#usesSystem ? 5000 : 1)) throw new Error('everybody waits');
        if (this.#usesSystem) await new Promise((resolve) => setTimeout(resolve, 1));
        continue;
      }
      this.pass(Math.min(...next) - this.nowMs);
    }
    this.#timers = this.#timers.filter(({ actor }) => !actor.done && !actor.dead);
  }

  /** Time passes, as far as the requests on their way allow. */
  pass(ms: number): void {
    const bound = Math.min(
      ...this.#requests.flatMap((r) => (r.outcome ? [] : [r.sentMs + LONGEST_REQUEST_MS - this.nowMs])),
    );
    const passed = Math.max(0, Math.min(ms, bound));
    this.nowMs += passed;
    if (passed >= minute) this.note(`${Math.round(passed / minute)} min pass`);
  }

  /** Serves, delivers or fires something; false when nothing can be done now. */
  #one(living: boolean): boolean {
    const overdue = this.#requests.find((r) => !r.outcome && r.sentMs + LONGEST_REQUEST_MS <= this.nowMs);
    if (overdue) {
      this.#serve(overdue);
      return true;
    }
    const isAwake = ({ pausedUntilMs, dead }: Actor) => !dead && pausedUntilMs <= this.nowMs;
    const requests = this.#requests.filter((r) => !r.outcome || isAwake(r.actor));
    const timers = this.#timers.filter(({ actor, atMs }) => atMs <= this.nowMs && isAwake(actor));
    if (requests.length + timers.length === 0) return false;
    const eager = this.#byPriority && living;
    const top = eager
      ? Math.max(...[...requests, ...timers].map(({ actor }) => actor.priority))
      : Number.NEGATIVE_INFINITY;
    const wanted = ({ actor }: { readonly actor: Actor }) => actor.priority >= top;
    const choice = this.random.pick<Request | Timer>([...requests.filter(wanted), ...timers.filter(wanted)]);
    if ('fire' in choice) {
      this.#timers = this.#timers.filter((timer) => timer !== choice);
      choice.fire();
    } else if (choice.outcome) this.#deliver(choice);
    else if (choice.orphan && this.random.chance(0.5)) {
      this.note(`${choice.actor.name}: ${choice.what} never arrives`);
      this.#requests = this.#requests.filter((request) => request !== choice);
    } else this.#serve(choice);
    return true;
  }

  #serve(request: Request): void {
    this.note(`${request.actor.name}${request.orphan ? ' (gone)' : ''}: ${request.what}`);
    try {
      request.outcome = { value: request.serve() };
    } catch (error) {
      request.outcome = { error };
    }
    this.#meetFate(request);
    if (request.orphan) {
      if ('value' in request.outcome) void Promise.resolve(request.outcome.value).catch(() => {});
      this.#requests = this.#requests.filter((each) => each !== request);
      return;
    }
    // Mostly the answer comes at once; sometimes much happens before it is heard.
    if (request.actor.pausedUntilMs <= this.nowMs && this.random.chance(0.8)) this.#deliver(request);
  }

  #meetFate({ actor, what }: Request): void {
    const { fate } = actor;
    if (!fate || actor.dead || actor.done || !what.includes(` ${fate.prefix}`) || --fate.left !== 0) return;
    const { pauseMs } = fate;
    if (pauseMs === 'dies') {
      this.kill(actor);
      return;
    }
    this.note(`${actor.name} stands still for ${pauseMs / hour} h`);
    actor.pausedUntilMs = this.nowMs + pauseMs;
  }

  #deliver(request: Request): void {
    this.#requests = this.#requests.filter((each) => each !== request);
    if (request.outcome) request.deliver(request.outcome);
  }

  #end(actor: Actor, outcome: string): void {
    if (actor.dead) return;
    actor.done = true;
    actor.outcome = outcome;
    this.note(`${actor.name} ends: ${outcome}`);
  }
}

function interrupted(signal: AbortSignal | undefined): DrError {
  return new DrError('interrupted', 'the request was given up', { cause: signal?.reason });
}

/** Until nothing runs but what waits for the scheduler. */
async function settle(usesSystem: boolean): Promise<void> {
  do await new Promise<void>((resolve) => setImmediate(resolve));
  while (usesSystem && process.getActiveResourcesInfo().some((name) => busy.has(name)));
}

const busy = new Set(['FSReqPromise', 'FSReqCallback', 'CloseReq']);
