import { type ActiveSite, readActiveSite, recordActiveSite } from '../backup/active-site.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { Service } from './service.ts';

/** Of so many questions one lists all records; the others ask only for the next one, at a twelfth of the price. */
const LISTED_EVERY = 6;

/** What this site is to do. `unknown`: no vault has answered since the start, so nothing is done. */
export type Role = 'unknown' | 'active' | 'standby';

export interface RoleState {
  readonly role: Role;
  /** The active site, and since when (ISO 8601) and under which number; undefined while unknown. */
  readonly active: { readonly site: string; readonly since: string; readonly generation: number } | undefined;
  /** When a vault last answered the question, milliseconds since 1970. */
  readonly askedMs: number | undefined;
  /** Why the last question was not answered; the role known before stays. */
  readonly error: unknown;
}

export interface RoleOptions {
  /** The site this daemon runs at. */
  readonly site: string;
  /** The site that is active when no vault says otherwise. */
  readonly firstActive: string;
  readonly stores: readonly ObjectStore[];
  readonly clock: Clock;
  readonly log: Log;
  /** How often the vaults are asked, milliseconds. */
  readonly everyMs: number;
  /** Called when the role, or the generation under which it is held, has changed. The next question waits for it. */
  onChange(state: RoleState): Promise<void>;
}

/**
 * Service: asks the vaults which site is active. The record there decides, never the configuration file: a site that comes
 * back after a failover finds itself demoted and touches nothing. While no vault answers, the role known stays.
 */
export class RoleKeeper implements Service {
  readonly name = 'role';
  readonly #options: RoleOptions;
  #state: RoleState = { role: 'unknown', active: undefined, askedMs: undefined, error: undefined };
  #asking: Promise<RoleState> | undefined;
  #stop = new AbortController();
  #ended: Promise<void> | undefined;
  #unanswered = '';
  /** The record as last read, and how often it was asked for. */
  #record: ActiveSite | undefined;
  #asked = 0;

  constructor(options: RoleOptions) {
    this.#options = options;
  }

  get state(): RoleState {
    return this.#state;
  }

  run(): Promise<void> {
    this.#stop = new AbortController();
    this.#ended = this.#keepAsking();
    return this.#ended;
  }

  async stop(_graceMs: number): Promise<void> {
    this.#stop.abort();
    await this.#ended?.catch(() => {});
  }

  /** Asks now (or joins the question under way) and gives the answer; never throws. */
  async refresh(): Promise<RoleState> {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = undefined;
    });
    return await this.#asking;
  }

  async #keepAsking(): Promise<void> {
    const { clock, everyMs } = this.#options;
    while (!this.#stop.signal.aborted) {
      await this.refresh();
      await clock.sleep(everyMs, this.#stop.signal).catch(() => {});
    }
  }

  async #ask(): Promise<RoleState> {
    const { site, clock, log, onChange } = this.#options;
    const before = this.#state;
    try {
      const active = await this.#active();
      const role = active.site === site ? 'active' : 'standby';
      this.#state = { role, active, askedMs: clock.now(), error: undefined };
      this.#unanswered = '';
      if (before.role !== role || before.active?.generation !== active.generation) {
        const facts = { site, role, activeSite: active.site, generation: active.generation, since: active.since };
        log.info(facts, role === 'active' ? 'this site is active: it is protected from here' : 'this site stands by');
        await onChange(this.#state);
      }
    } catch (error) {
      if (this.#stop.signal.aborted) return this.#state;
      this.#state = { ...before, error };
      // Once for each reason: the question is asked every few seconds.
      if (messageOf(error) !== this.#unanswered) {
        log.warn({ role: before.role, error }, 'it cannot be told which site is active; the role known stays');
      }
      this.#unanswered = messageOf(error);
    }
    return this.#state;
  }

  /** The record; where no vault has one, the first active site writes it and any other site waits for it. */
  async #active(): Promise<NonNullable<RoleState['active']>> {
    const { stores, site, firstActive, log, clock } = this.#options;
    const { signal } = this.#stop;
    const whole = this.#asked++ % LISTED_EVERY === 0;
    const { active } = await readActiveSite(stores, signal, whole ? undefined : this.#record);
    this.#record = active;
    if (active) return active;
    const since = new Date(clock.now()).toISOString();
    if (site !== firstActive) return { site: firstActive, since, generation: 0 };
    return await recordActiveSite(stores, { site, since, by: 'first start of the daemon' }, log, signal);
  }
}
