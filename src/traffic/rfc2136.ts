import { type Clock, systemClock } from '../base/clock.ts';
import { DrError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { retry } from '../base/retry.ts';
import type { Rfc2136Config } from '../config/types.ts';
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
import { askServer, askSoa } from './dns-query.ts';
import { NameWatch } from './name-watch.ts';
import { checkedValues, conflict, generationOf, plainName, sameValues, wholeOf } from './record.ts';
import { add, holds, isAbsent, remove, type Update, UpdateClient } from './rfc2136-client.ts';
import { rfc2136Doctor } from './rfc2136-doctor.ts';
import { type NamedServer, nameServersOf } from './rfc2136-servers.ts';
import { settleLimitMs, unchanged, waitUntilVisible } from './settle.ts';

/** What tests and unusual networks set. */
export interface Rfc2136Tuning {
  readonly clock?: Clock;
  /** Milliseconds to wait for one answer of one server; default 2000. */
  readonly dnsTimeoutMs?: number;
  /** Longest wait for a change to become visible when the caller gives no deadline, milliseconds; default 10 minutes. */
  readonly settleTimeoutMs?: number;
  /** Tries of one update, the first included; default 4. */
  readonly attempts?: number;
  /** Port of the servers that the zone names; default 53. */
  readonly nameserverPort?: number;
}

/**
 * Redirects one record of a zone by signed DNS updates (RFC 2136, RFC 8945).
 *
 * A change is one message whose prerequisites name exactly the values that it replaces: the server changes everything or nothing,
 * so a delayed writer can never overwrite a newer state, and the name is never empty. Prerequisites cannot name a TTL: a rival
 * who changes nothing but the TTL between the last look and the update is overwritten.
 */
export class Rfc2136Traffic implements TrafficDriver {
  readonly kind = 'rfc2136';
  readonly shifting = 'whole';
  readonly target: string;
  readonly #config: Rfc2136Config;
  readonly #record: string;
  readonly #client: UpdateClient;
  readonly #watch: NameWatch;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #tuning: Rfc2136Tuning;
  #servers: Promise<readonly NamedServer[]> | undefined;

  constructor(
    config: Rfc2136Config,
    log: Log,
    tuning: Rfc2136Tuning = {},
    places: { readonly resolvers?: readonly string[] | undefined } = {},
  ) {
    const { server, zone, key, type, record } = config;
    this.#config = config;
    this.#record = plainName(record);
    this.#tuning = tuning;
    this.#clock = tuning.clock ?? systemClock;
    this.target = `rfc2136 server ${server} record ${this.#record} ${type}`;
    const { dnsTimeoutMs } = tuning;
    this.#watch = new NameWatch({ record, type, target: this.target, resolvers: places.resolvers, dnsTimeoutMs });
    const timeoutMs = Math.max(5000, this.#watch.timeoutMs);
    this.#client = new UpdateClient({ server, zone, key, clock: this.#clock, timeoutMs });
    this.#log = log.child({ traffic: this.target });
  }

  async current(signal?: AbortSignal): Promise<TrafficState> {
    const { server, type } = this.#config;
    const {
      values,
      ttlSeconds = 0,
      alias,
    } = await this.#ask(signal, () => askServer(server, this.#record, type, this.#watch.timeoutMs, signal));
    if (alias !== undefined) {
      // A server ignores an address that is added beside a CNAME (RFC 2136 3.4.2.2), without any error.
      throw new DrError('refused', `${this.#record} is a CNAME to ${alias}, which excludes a record of type ${type}`, {
        where: this.target,
        next: 'Set rfc2136.type of this traffic entry to CNAME, or remove that record yourself.',
      });
    }
    return {
      name: `${this.#record} ${type}`,
      values,
      ttlSeconds,
      generation: generationOf(this.#record, type, values, ttlSeconds),
    };
  }

  async point(values: readonly string[], replaces: TrafficState, signal?: AbortSignal): Promise<TrafficChange> {
    const { type, ttlSeconds } = this.#config;
    const wanted = checkedValues(this.#record, type, values);
    const found = await this.current(signal);
    if (this.#publishes(found, wanted)) return this.#unchanged();
    if (found.generation !== replaces.generation) throw conflict(this.target, replaces, found);
    const submittedAtMs = this.#clock.now();
    const outcome = await this.#send(
      {
        prerequisites: this.#prerequisites(found),
        updates: [remove(this.#record, type), ...add(this.#record, type, wanted, ttlSeconds)],
      },
      signal,
    );
    if (outcome === 'done') {
      const { serial } = await this.#ask(signal, () => this.#soa(signal));
      this.#log.info({ serial, from: found.values, to: wanted }, 'the name server made the change');
      return { id: `serial ${serial}`, submittedAtMs };
    }
    // Either a rival was faster, or an earlier try of ours took effect and only its answer was lost: the record tells.
    const now = await this.current(signal);
    if (this.#publishes(now, wanted)) return this.#unchanged();
    if (now.generation !== replaces.generation) throw conflict(this.target, replaces, now);
    throw new DrError('conflict', 'the name server says that the record is not what it answers', {
      where: this.target,
      next: 'It may show this machine another view of the zone than the key: compare its views, and whether another type excludes this one.',
    });
  }

  async shift(split: TrafficSplit, replaces: TrafficState, signal?: AbortSignal): Promise<TrafficChange> {
    return await this.point([wholeOf(split, this.target)], replaces, signal);
  }

  async settled(change: TrafficChange, signal?: AbortSignal): Promise<void> {
    await waitUntilVisible(() => this.#lag(signal), {
      what: change.id === unchanged ? 'the record as it is' : `the change with ${change.id}`,
      target: this.target,
      next: 'Look why the secondary servers do not follow (NOTIFY and zone transfer from the primary); run the command again to go on waiting.',
      clock: this.#clock,
      limitMs: this.#tuning.settleTimeoutMs ?? settleLimitMs,
      signal,
    });
  }

  async answers(signal?: AbortSignal): Promise<readonly TrafficAnswer[]> {
    const servers = await this.#nameServers(signal);
    const answers = await this.#watch.authoritative(
      servers.map(({ address }) => address),
      signal,
    );
    return answers.map((answer, i) => ({ ...answer, server: servers[i]?.shown ?? answer.server }));
  }

  async resolved(signal?: AbortSignal): Promise<readonly ResolverAnswer[]> {
    return await this.#watch.recursive(signal);
  }

  async doctor(signal?: AbortSignal, wrote?: LastWritten): Promise<readonly TrafficFinding[]> {
    return await rfc2136Doctor(
      {
        config: this.#config,
        watch: this.#watch,
        soa: () => this.#ask(signal, () => this.#soa(signal)),
        current: () => this.current(signal),
        answers: () => this.answers(signal),
        send: (update) => this.#client.send(update, signal),
      },
      signal,
      wrote,
    );
  }

  close(): void {}

  /** What has to be true for the change to be made: exactly the values found, or a name that can take the type. */
  #prerequisites({ values }: TrafficState): Update['prerequisites'] {
    const { type } = this.#config;
    if (values.length > 0) return holds(this.#record, type, values);
    if (type === 'CNAME') return [isAbsent(this.#record, 'ANY')];
    return [isAbsent(this.#record, type), isAbsent(this.#record, 'CNAME')];
  }

  async #send(update: Update, signal: AbortSignal | undefined): Promise<'done' | 'unmet'> {
    return await retry(() => this.#client.send(update, signal), {
      attempts: this.#tuning.attempts ?? 4,
      baseMs: 500,
      maxMs: 5000,
      clock: this.#clock,
      signal,
      onRetry: (error, attempt, pauseMs) =>
        this.#log.warn({ error, attempt, pauseMs: Math.round(pauseMs) }, 'the update is sent again'),
    });
  }

  /** Undefined once every authoritative server that answers gives what the primary has; else who lags, and how far. */
  async #lag(signal: AbortSignal | undefined): Promise<string | undefined> {
    const { zone } = this.#config;
    const state = await this.current(signal);
    const servers = await this.#nameServers(signal);
    const answers = await this.answers(signal);
    const behind = this.#watch.behind(answers, state);
    if (behind === undefined) {
      const silent = answers.filter(({ error }) => error !== undefined);
      if (silent.length > 0) this.#log.warn({ silent }, 'name servers that do not answer are left out');
      return undefined;
    }
    if (behind === NameWatch.silent) return behind;
    const primary = await this.#ask(signal, () => this.#soa(signal));
    const lagging = answers.map(async (answer, i) => {
      if (answer.error !== undefined || this.#watch.gives(answer.values, state)) return undefined;
      const address = servers[i]?.address ?? answer.server;
      const soa = await askSoa(address, zone, this.#watch.timeoutMs, signal).catch((error: unknown) => {
        if (signal?.aborted) throw error;
        return undefined;
      });
      const shown = `${answer.server} answers ${answer.values.join(', ') || 'nothing'}`;
      return soa === undefined ? shown : `${shown} (serial ${soa.serial}, the primary has ${primary.serial})`;
    });
    const told = (await Promise.all(lagging)).filter((text) => text !== undefined);
    return told.join('; ') || behind;
  }

  async #nameServers(signal: AbortSignal | undefined): Promise<readonly NamedServer[]> {
    const { nameservers, server, zone } = this.#config;
    if (nameservers) return nameservers.map((address) => ({ address, shown: address }));
    const { nameserverPort: port = 53 } = this.#tuning;
    this.#servers ??= this.#ask(signal, () =>
      nameServersOf({ server, zone, port, timeoutMs: this.#watch.timeoutMs }, signal),
    );
    try {
      return await this.#servers;
    } catch (error) {
      this.#servers = undefined;
      throw error;
    }
  }

  #soa(signal: AbortSignal | undefined): Promise<{ readonly serial: number; readonly primary: string }> {
    return askSoa(this.#config.server, this.#config.zone, this.#watch.timeoutMs, signal);
  }

  /** A question to the primary server: without its answer nothing can be decided. */
  async #ask<T>(signal: AbortSignal | undefined, question: () => Promise<T>): Promise<T> {
    const { server, zone } = this.#config;
    try {
      return await question();
    } catch (error) {
      if (signal?.aborted) {
        throw new DrError('interrupted', 'asking the name server was stopped', {
          where: this.target,
          cause: signal.reason,
        });
      }
      throw new DrError('unreachable', `the primary name server gives no usable answer: ${messageOf(error)}`, {
        where: `name server ${server}, zone ${zone}`,
        next: `Check that ${server} runs, serves ${zone} as its primary, and that TCP and UDP to it are open from here.`,
        cause: error,
      });
    }
  }

  #publishes(state: TrafficState, wanted: readonly string[]): boolean {
    return state.ttlSeconds === this.#config.ttlSeconds && sameValues(this.#config.type, state.values, wanted);
  }

  #unchanged(): TrafficChange {
    this.#log.info({}, 'the record holds the wanted values already: nothing was changed');
    return { id: unchanged, submittedAtMs: this.#clock.now() };
  }
}
