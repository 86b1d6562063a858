import { type Clock, systemClock } from '../base/clock.ts';
import { DrError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { HealthConfig } from '../config/types.ts';
import { authoritiesOf } from './authorities.ts';
import type {
  LastWritten,
  ResolverAnswer,
  TrafficAnswer,
  TrafficChange,
  TrafficDriver,
  TrafficFinding,
  TrafficSplit,
  TrafficState,
} from './contract.ts';
import { askServer } from './dns-query.ts';
import { healthDoctor } from './health-doctor.ts';
import { HealthSwitches, type SwitchState } from './health-switches.ts';
import { NameWatch } from './name-watch.ts';
import { checkedValues, conflict, digestOf, plainName, plainValue, showValues, wholeOf } from './record.ts';
import { settleLimitMs, unchanged, waitUntilVisible } from './settle.ts';
import { openSwitch } from './switch.ts';

/** What tests and unusual networks set. */
export interface HealthTuning {
  readonly clock?: Clock;
  /** Milliseconds to wait for one answer of one server; default 2000. */
  readonly dnsTimeoutMs?: number;
  /** Longest wait for a change to become visible when the caller gives no deadline, milliseconds; default 10 minutes. */
  readonly settleTimeoutMs?: number;
}

/** Taken for the TTL while no name server says it: what Route 53 asks for in failover records. */
const usualTtlSeconds = 60;

/** Three looks of a health check 30 s apart, and a minute until all name servers follow it. Milliseconds. */
const spreadMs = 150_000;

/**
 * Redirects a name whose PRIMARY failover record is bound to a health check that reads a switch: a document at the recovery
 * site. dr writes the document and watches DNS; the health checkers and name servers do the rest, all of it data plane. No DNS
 * API is called, so it works while that of Route 53 does not.
 */
export class HealthTraffic implements TrafficDriver {
  readonly kind = 'health';
  readonly shifting = 'whole';
  readonly target: string;
  readonly #config: HealthConfig;
  readonly #endpoints: Readonly<Record<string, string>>;
  readonly #resolvers: readonly string[] | undefined;
  readonly #switches: HealthSwitches;
  readonly #watch: NameWatch;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #tuning: HealthTuning;
  #servers: Promise<readonly string[]> | undefined;

  constructor(
    config: HealthConfig,
    log: Log,
    tuning: HealthTuning,
    places: {
      readonly endpoints: Readonly<Record<string, string>>;
      readonly resolvers?: readonly string[] | undefined;
    },
  ) {
    const { record, type, primary } = config;
    this.#config = config;
    this.#endpoints = places.endpoints;
    this.#resolvers = places.resolvers;
    this.#tuning = tuning;
    this.#clock = tuning.clock ?? systemClock;
    const switches = config.switches.map(openSwitch);
    this.target = `health switch ${switches.map(({ where }) => where).join(', ')} of record ${plainName(record)} ${type}`;
    this.#log = log.child({ traffic: this.target });
    const secondary = Object.keys(places.endpoints).find((site) => site !== primary) ?? '';
    this.#switches = new HealthSwitches({ switches, primary, secondary, target: this.target, log: this.#log });
    const { dnsTimeoutMs } = tuning;
    this.#watch = new NameWatch({ record, type, target: this.target, resolvers: places.resolvers, dnsTimeoutMs });
  }

  async current(signal?: AbortSignal): Promise<TrafficState> {
    return await this.#stateOf(await this.#switches.read(signal), signal);
  }

  async point(values: readonly string[], replaces: TrafficState, signal?: AbortSignal): Promise<TrafficChange> {
    const site = this.#siteOf(values);
    const submittedAtMs = this.#clock.now();
    const found = await this.#switches.read(signal);
    if (this.#switches.agrees(found, site)) return this.#unchanged();
    // Where the majority has it already, a document that lags is only brought up to it.
    if (found.site !== site && this.#generationOf(found) !== replaces.generation)
      throw conflict(this.target, replaces, await this.#stateOf(found, signal));
    const outcome = await this.#switches.write(found, site, submittedAtMs, signal);
    if (outcome === 'changed') {
      const now = await this.#switches.read(signal);
      if (now.site === site) return this.#unchanged();
      throw conflict(this.target, replaces, await this.#stateOf(now, signal));
    }
    this.#log.info({ site, generation: found.generation + 1 }, 'the switch was written');
    return { id: `generation ${found.generation + 1}`, submittedAtMs };
  }

  async shift(split: TrafficSplit, replaces: TrafficState, signal?: AbortSignal): Promise<TrafficChange> {
    return await this.point([wholeOf(split, this.target)], replaces, signal);
  }

  async settled(change: TrafficChange, signal?: AbortSignal): Promise<void> {
    const startedMs = this.#clock.now();
    const look = async () => {
      const state = await this.current(signal);
      // Servers that cannot even be found are as good as silent: the switch works without anybody watching.
      const answers = await this.answers(signal).catch((error: unknown) => {
        if (signal?.aborted || !(error instanceof DrError)) throw error;
        return [];
      });
      const behind = this.#watch.behind(answers, state);
      if (behind !== NameWatch.silent || this.#clock.now() - startedMs < spreadMs) return behind;
      this.#log.warn({ answers }, 'no name server can be asked: the switch is taken as followed because of its age');
      return undefined;
    };
    await waitUntilVisible(look, {
      what: change.id === unchanged ? 'the switch as it is' : `the switch of ${change.id}`,
      target: this.target,
      next: 'Health checkers need up to 90 s (30 with fast checks). If it lasts, look at the status of the health check, and that it reads this switch (docs/traffic.md).',
      clock: this.#clock,
      limitMs: this.#tuning.settleTimeoutMs ?? settleLimitMs,
      signal,
    });
  }

  async answers(signal?: AbortSignal): Promise<readonly TrafficAnswer[]> {
    return await this.#watch.authoritative(await this.#nameServers(), signal);
  }

  async resolved(signal?: AbortSignal): Promise<readonly ResolverAnswer[]> {
    return await this.#watch.recursive(signal);
  }

  async doctor(signal?: AbortSignal, wrote?: LastWritten): Promise<readonly TrafficFinding[]> {
    return await healthDoctor(
      {
        config: this.#config,
        watch: this.#watch,
        looks: () => this.#switches.look(signal),
        current: () => this.current(signal),
        servers: () => this.#nameServers(),
        answers: () => this.answers(signal),
      },
      signal,
      wrote,
    );
  }

  close(): void {
    this.#switches.close();
  }

  async #stateOf(found: SwitchState, signal: AbortSignal | undefined): Promise<TrafficState> {
    const { record, type } = this.#config;
    return {
      name: `${plainName(record)} ${type}`,
      values: [plainValue(type, this.#endpoints[found.site] ?? '')],
      ttlSeconds: await this.#ttl(signal),
      generation: this.#generationOf(found),
    };
  }

  #generationOf({ site }: SwitchState): string {
    return digestOf([plainName(this.#config.record), this.#config.type, site]);
  }

  /** Of the records that people made: the switch knows none. */
  async #ttl(signal: AbortSignal | undefined): Promise<number> {
    const { record, type } = this.#config;
    const servers = await this.#nameServers().catch(() => []);
    for (const server of servers.slice(0, 2)) {
      try {
        const { ttlSeconds } = await askServer(server, record, type, this.#watch.timeoutMs, signal);
        if (ttlSeconds !== undefined) return ttlSeconds;
      } catch (error) {
        if (signal?.aborted) throw error;
      }
    }
    return usualTtlSeconds;
  }

  #siteOf(values: readonly string[]): string {
    const { record, type } = this.#config;
    const [wanted, ...more] = checkedValues(record, type, values);
    const site = Object.entries(this.#endpoints).find(([, endpoint]) => plainValue(type, endpoint) === wanted)?.[0];
    if (site !== undefined && more.length === 0) return site;
    throw new DrError('refused', `${showValues(values)} is not the endpoint of one site: a switch knows sites only`, {
      where: this.target,
      next: `Correct the endpoints of this traffic entry; known are ${Object.values(this.#endpoints).join(', ')}.`,
    });
  }

  async #nameServers(): Promise<readonly string[]> {
    const { nameservers, record } = this.#config;
    if (nameservers) return nameservers;
    this.#servers ??= authoritiesOf(record, this.#resolvers, this.#watch.timeoutMs);
    try {
      return await this.#servers;
    } catch (error) {
      this.#servers = undefined;
      throw new DrError(
        'unreachable',
        `the name servers of ${plainName(record)} cannot be found: ${messageOf(error)}`,
        {
          where: this.target,
          next: 'Check the resolvers of this machine, or list the servers under health.nameservers.',
          cause: error,
        },
      );
    }
  }

  #unchanged(): TrafficChange {
    this.#log.info({}, 'the switch names the wanted site already: nothing was written');
    return { id: unchanged, submittedAtMs: this.#clock.now() };
  }
}
