import type { Clock } from '../base/clock.ts';
import { DrError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { ClusterLease } from '../cluster/lease.ts';
import type { Job } from './job.ts';
import type { Service } from './service.ts';

/**
 * `leader`: this replica works. `standby`: another one does. `lapsed`: this replica led, and the API server has not confirmed it for too long,
 * nor said that another one leads. `unknown`: the API server has not answered since the start.
 */
export type LeaderRole = 'leader' | 'standby' | 'lapsed' | 'unknown';

export interface LeaderState {
  readonly role: LeaderRole;
  /** This replica, as the Lease names it. */
  readonly identity: string;
  /** Who holds the Lease, as far as is known; empty = nobody. */
  readonly holder: string;
  /** Grows with every change of the holder. */
  readonly generation: number;
  /** Since when this role, milliseconds since 1970. */
  readonly sinceMs: number;
  /** Why the API server was not heard the last time. */
  readonly error: unknown;
}

/** What the rest of the daemon asks. */
export interface Leadership {
  /** Undefined: this daemon is the only one of its site. */
  readonly state: LeaderState | undefined;
  /** Work may begin. */
  leads(): boolean;
  /** What is guarded otherwise (WAL: by the slot and by create-only names) may go on. */
  keeps(): boolean;
  /** Asks the API server right before an effect; throws `lease-held` when this replica may not. */
  confirm(signal: AbortSignal): Promise<void>;
}

/** The only daemon of its site. */
export const alwaysLeads: Leadership = {
  state: undefined,
  leads: () => true,
  keeps: () => true,
  confirm: async () => {},
};

/** Vault records of who took over, so that a replica without API server learns of its successor. */
export interface Succession {
  /** Tells the vaults that this replica has taken over. Never throws; false when none took it. */
  announce(purpose: string, signal: AbortSignal): Promise<boolean>;
  /** Whether another one has taken over since; undefined when no vault can tell. */
  isSucceeded(signal: AbortSignal): Promise<boolean | undefined>;
}

export interface LeaderOptions {
  readonly lease: ClusterLease;
  readonly succession: Succession;
  readonly clock: Clock;
  /** Milliseconds on a clock that only runs forward, the same as the lease's. */
  elapsed(): number;
  readonly log: Log;
  /** The role, or the generation, has changed. Nothing waits for what follows from it. */
  onChange(state: LeaderState): void;
}

/** A confirmation this young is not asked for again before an effect. */
const FRESH_MS = 1000;

/**
 * Service: takes and renews the Lease. A leader counts itself out when the last renewal that was answered is two thirds of the lease's duration
 * old, so always before another replica may count it out; and by a clock that goes on while the process stands still.
 *
 * An API server that is down makes the leader `lapsed`. Then nobody can take over, unless only this replica is cut off; so it asks the vaults,
 * which every new leader tells. While they name no successor it goes on with WAL at once, and with jobs after twice the duration.
 */
export class LeaderKeeper implements Service, Leadership {
  readonly name = 'leader';
  readonly #options: LeaderOptions;
  #state: LeaderState;
  /** When the last renewal that was answered was sent. */
  #renewedMs = Number.NEGATIVE_INFINITY;
  /** When the vaults last said that nobody has taken over. */
  #aloneMs = Number.NEGATIVE_INFINITY;
  #announced = false;
  #announcing: Promise<void> | undefined;
  #round: Promise<void> | undefined;
  #stop = new AbortController();
  #ended: Promise<void> | undefined;
  #silence = '';

  constructor(options: LeaderOptions) {
    this.#options = options;
    const { lease, clock } = options;
    this.#state = {
      role: 'unknown',
      identity: lease.identity,
      holder: '',
      generation: 0,
      sinceMs: clock.now(),
      error: undefined,
    };
  }

  get state(): LeaderState {
    return this.#state;
  }

  leads(): boolean {
    const { elapsed, lease } = this.#options;
    const nowMs = elapsed();
    if (this.#state.role === 'leader') return nowMs - this.#renewedMs < this.#deadlineMs;
    if (this.#state.role !== 'lapsed') return false;
    // Long enough for a successor to have told the vaults, and asked just now.
    return this.#aloneMs - this.#renewedMs >= 2 * lease.durationMs && nowMs - this.#aloneMs < lease.durationMs;
  }

  keeps(): boolean {
    return this.#state.role === 'leader' || this.#state.role === 'lapsed';
  }

  async confirm(signal: AbortSignal): Promise<void> {
    const { elapsed, lease } = this.#options;
    if (elapsed() - this.#renewedMs > FRESH_MS) await this.#once();
    signal.throwIfAborted();
    if (this.leads()) return;
    const { role, holder, error } = this.#state;
    throw new DrError('lease-held', role === 'standby' && holder !== '' ? `${holder} leads` : 'no replica leads now', {
      where: lease.title,
      next: 'Nothing: the replica that leads does it.',
      cause: error,
    });
  }

  run(): Promise<void> {
    this.#stop = new AbortController();
    this.#ended = this.#keep();
    return this.#ended;
  }

  /** Gives the Lease back last of all, when what it guards has ended. */
  async stop(_graceMs: number): Promise<void> {
    const { lease, log } = this.#options;
    this.#stop.abort();
    await this.#ended?.catch(() => {});
    if (this.#state.role !== 'leader') return;
    try {
      await lease.release(AbortSignal.timeout(this.#patienceMs));
    } catch (error) {
      log.warn({ lease: lease.title, reason: messageOf(error) }, 'the Lease was not given back and ends by its time');
    }
    this.#become({ role: 'unknown', holder: '', error: undefined });
  }

  get #deadlineMs(): number {
    return (this.#options.lease.durationMs * 2) / 3;
  }

  /** Of one question to the API server. */
  get #patienceMs(): number {
    return this.#options.lease.durationMs / 3;
  }

  async #keep(): Promise<void> {
    const { clock, lease } = this.#options;
    while (!this.#stop.signal.aborted) {
      await this.#once();
      // Six tries fit into the duration; not all replicas at the same moment.
      const pauseMs = (lease.durationMs / 6) * (0.9 + Math.random() * 0.2);
      await clock.sleep(pauseMs, this.#stop.signal).catch(() => {});
    }
  }

  async #once(): Promise<void> {
    this.#round ??= this.#ask().finally(() => {
      this.#round = undefined;
    });
    await this.#round;
  }

  async #ask(): Promise<void> {
    const { lease, elapsed, log } = this.#options;
    const sentMs = elapsed();
    try {
      const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(this.#patienceMs)]);
      const { mine, holder, generation } = await lease.attempt(signal);
      this.#silence = '';
      if (mine) {
        this.#renewedMs = sentMs;
        await this.#announce(generation);
      }
      this.#become({ role: mine ? 'leader' : 'standby', holder, generation, error: undefined });
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      const { role } = this.#state;
      if (messageOf(error) !== this.#silence) {
        this.#silence = messageOf(error);
        log.warn(
          { role, lease: lease.title, error },
          'the Lease cannot be asked for; the role known stays for a while',
        );
      }
      const isOver = role === 'leader' && elapsed() - this.#renewedMs >= this.#deadlineMs;
      this.#become({ role: isOver ? 'lapsed' : role, error });
      if (this.#state.role === 'lapsed') await this.#askVaults();
    }
  }

  /** Tells the vaults of a new generation before its work begins, and goes on without those that are slow or away. */
  async #announce(generation: number): Promise<void> {
    const { lease, clock, succession } = this.#options;
    const isNew = this.#state.generation !== generation || this.#state.role === 'unknown';
    if (isNew) this.#announced = false;
    if (this.#announced) return;
    this.#announcing ??= succession
      .announce(`${lease.identity} leads, generation ${generation}`, this.#stop.signal)
      .then((told) => {
        this.#announced = told;
      })
      .finally(() => {
        this.#announcing = undefined;
      });
    const enough = new AbortController();
    if (isNew) {
      const pause = clock.sleep(this.#patienceMs, enough.signal, { unref: true }).catch(() => {});
      await Promise.race([this.#announcing, pause]);
    }
    enough.abort();
  }

  async #askVaults(): Promise<void> {
    const { succession, elapsed } = this.#options;
    const askedMs = elapsed();
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(10_000)]);
    const succeeded = await succession.isSucceeded(signal).catch(() => undefined);
    if (succeeded === true) this.#become({ role: 'standby', holder: '' });
    else if (succeeded === false) this.#aloneMs = askedMs;
  }

  #become(change: Partial<LeaderState>): void {
    const { clock, log, lease, onChange } = this.#options;
    const before = this.#state;
    const after = { ...before, ...change };
    const isOther = before.role !== after.role || before.generation !== after.generation;
    this.#state = isOther ? { ...after, sinceMs: clock.now() } : after;
    if (!isOther) return;
    const { role, holder, generation } = after;
    const facts = { lease: lease.title, identity: lease.identity, holder, generation };
    if (role === 'leader') log.info(facts, 'this replica leads: it does the work of its site');
    else if (role === 'standby') log.info(facts, 'this replica stands by: another one leads');
    else if (role === 'lapsed') {
      log.error(
        facts,
        'the API server does not confirm the Lease: WAL goes on, jobs wait until the vaults name no successor',
      );
    }
    onChange(this.#state);
  }
}

/** The same jobs, begun only by the replica that leads. */
export function ledBy(leadership: Leadership, jobs: readonly Job[]): readonly Job[] {
  if (leadership.state === undefined) return jobs;
  return jobs.map((job) => ({
    ...job,
    mayBegin: () => leadership.leads(),
    run: async (signal, reason) => {
      await leadership.confirm(signal);
      return await job.run(signal, reason);
    },
  }));
}
