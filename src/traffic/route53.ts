import type { ResourceRecordSet } from '@aws-sdk/client-route-53';
import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Route53Config, TrafficConfig } from '../config/types.ts';
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
import { NameWatch } from './name-watch.ts';
import { conflict, plainName } from './record.ts';
import { Route53Api, type Route53ApiOptions } from './route53-api.ts';
import { route53Doctor } from './route53-doctor.ts';
import { isInvalidBatch } from './route53-errors.ts';
import { FailoverRouting } from './route53-failover.ts';
import { type Route53Routing, type RoutingOptions, SimpleRouting, type Wanted } from './route53-routing.ts';
import { WeightedRouting } from './route53-weighted.ts';
import { settleLimitMs, unchanged, waitUntilVisible } from './settle.ts';

/** What tests and unusual networks set; the defaults fit the real Route 53. */
export interface Route53Tuning extends Partial<Pick<Route53ApiOptions, 'clock' | 'requestTimeoutMs' | 'attempts'>> {
  /** Milliseconds to wait for one answer of one name server; default 2000. */
  readonly dnsTimeoutMs?: number;
  /** Longest wait for a change to become visible when the caller gives no deadline, milliseconds; default 10 minutes. */
  readonly settleTimeoutMs?: number;
}

/** The part of a traffic entry that a driver needs beside its own. */
export type TrafficPlaces = Partial<Pick<TrafficConfig, 'endpoints' | 'resolvers'>>;

/** "Changes generally propagate to all Route 53 name servers within 60 seconds" (API reference, GetChange). Milliseconds. */
const spreadMs = 60_000;

/**
 * Redirects one name of a Route 53 hosted zone by changing its records.
 *
 * A change is one atomic batch that deletes exactly the record sets it replaces and creates the new ones. Route 53 rejects the
 * whole batch when an old set no longer matches, so it is a true compare-and-swap: a delayed writer can never overwrite a newer
 * state (`UPSERT` could), and at no moment is the name empty.
 */
export class Route53Traffic implements TrafficDriver {
  readonly kind = 'route53';
  readonly target: string;
  readonly shifting: 'gradual' | 'whole';
  readonly #config: Route53Config;
  readonly #record: string;
  readonly #api: Route53Api;
  readonly #routing: Route53Routing;
  readonly #watch: NameWatch;
  readonly #log: Log;
  readonly #tuning: Route53Tuning;

  constructor(config: Route53Config, log: Log, tuning: Route53Tuning = {}, places: TrafficPlaces = {}) {
    this.#config = config;
    this.#record = plainName(config.record);
    this.#tuning = tuning;
    this.#api = new Route53Api({
      ...tuning,
      zone: config.zone,
      endpoint: config.endpoint,
      credentials: config.credentials,
      log,
    });
    const form = config.routing === 'simple' ? 'record' : `${config.routing} records`;
    this.target = `route53 zone ${this.#api.zone} ${form} ${this.#record} ${config.type}`;
    this.#routing = routingOf({ config, endpoints: places.endpoints ?? {}, target: this.target });
    this.shifting = this.#routing.shifting;
    const { record, type } = config;
    const { dnsTimeoutMs } = tuning;
    this.#watch = new NameWatch({ record, type, target: this.target, resolvers: places.resolvers, dnsTimeoutMs });
    this.#log = log.child({ traffic: this.target });
  }

  async current(signal?: AbortSignal): Promise<TrafficState> {
    return this.#routing.state(await this.#published(signal));
  }

  point(values: readonly string[], replaces: TrafficState, signal?: AbortSignal): Promise<TrafficChange> {
    return this.#submit({ kind: 'values', values }, replaces, signal);
  }

  shift(split: TrafficSplit, replaces: TrafficState, signal?: AbortSignal): Promise<TrafficChange> {
    return this.#submit({ kind: 'split', split }, replaces, signal);
  }

  async settled(change: TrafficChange, signal?: AbortSignal): Promise<void> {
    const { clock } = this.#api;
    const startedMs = clock.now();
    const look =
      change.id === unchanged ? () => this.#isAnswered(startedMs, signal) : () => this.#isInSync(change.id, signal);
    await waitUntilVisible(look, {
      what: change.id === unchanged ? 'the record as it is' : `change ${change.id}`,
      target: this.target,
      next: 'Run the command again to go on waiting (Route 53 usually needs up to 60 s); look at the AWS health dashboard if it lasts.',
      clock,
      limitMs: this.#tuning.settleTimeoutMs ?? settleLimitMs,
      signal,
    });
  }

  async answers(signal?: AbortSignal): Promise<readonly TrafficAnswer[]> {
    const servers = this.#config.nameservers ?? (await this.#api.zoneFacts(signal)).nameservers;
    return await this.#watch.authoritative(servers, signal);
  }

  async resolved(signal?: AbortSignal): Promise<readonly ResolverAnswer[]> {
    return await this.#watch.recursive(signal);
  }

  async doctor(signal?: AbortSignal, wrote?: LastWritten): Promise<readonly TrafficFinding[]> {
    const [config, api, routing, watch] = [this.#config, this.#api, this.#routing, this.#watch];
    const published = () => this.#published(signal);
    return await route53Doctor(
      { api, config, routing, watch, published, answers: () => this.answers(signal) },
      signal,
      wrote,
    );
  }

  close(): void {
    this.#api.close();
  }

  async #submit(wanted: Wanted, replaces: TrafficState, signal: AbortSignal | undefined): Promise<TrafficChange> {
    const old = await this.#published(signal);
    const found = this.#routing.state(old);
    const changes = this.#routing.changes(old, wanted);
    if (changes === undefined) return this.#unchanged();
    if (found.generation !== replaces.generation) throw conflict(this.target, replaces, found);
    const submittedAtMs = this.#api.clock.now();
    try {
      const id = await this.#api.change(changes, 'dr redirects traffic', signal);
      this.#log.info({ change: id, from: found.shares ?? found.values, wanted }, 'Route 53 accepted the change');
      return { id, submittedAtMs };
    } catch (error) {
      if (!isInvalidBatch(error)) throw error;
      // Either a rival was faster, or an earlier try of ours took effect and only its answer was lost: the record tells.
      const sets = await this.#published(signal);
      if (this.#routing.changes(sets, wanted) === undefined) return this.#unchanged();
      const now = this.#routing.state(sets);
      if (now.generation !== replaces.generation) throw conflict(this.target, replaces, now);
      throw error;
    }
  }

  /** The record sets under the name that have its type. Refuses a name that another type excludes. */
  async #published(signal: AbortSignal | undefined): Promise<ResourceRecordSet[]> {
    const { type } = this.#config;
    const sets = await this.#api.recordsOf(this.#record, signal);
    const rival = sets.find((set) => set.Type !== type && (set.Type === 'CNAME' || type === 'CNAME'));
    if (rival !== undefined) {
      // DNS allows no other type beside a CNAME (RFC 1034 3.6.2): Route 53 would reject the change, so say it beforehand.
      throw new DrError(
        'refused',
        `${this.#record} has a record of type ${rival.Type}, which excludes one of type ${type}`,
        {
          where: this.target,
          next: `Set route53.type of this traffic entry to ${rival.Type}, or remove that record yourself.`,
        },
      );
    }
    return sets.filter((set) => set.Type === type);
  }

  #unchanged(): TrafficChange {
    this.#log.info({}, 'the record holds what is wanted already: nothing was submitted');
    return { id: unchanged, submittedAtMs: this.#api.clock.now() };
  }

  /** Undefined once Route 53 says INSYNC; otherwise what it says. */
  async #isInSync(id: string, signal: AbortSignal | undefined): Promise<string | undefined> {
    const status = await this.#api.changeStatus(id, signal);
    return status === 'INSYNC' ? undefined : `Route 53 says ${status}`;
  }

  /**
   * Undefined once every name server that can be asked answers what the record says: a change of an earlier, killed run may
   * still be on its way, and its id is lost. Where no server can be asked (a private zone, a network that blocks port 53), the
   * time that Route 53 names for spreading a change has to do.
   */
  async #isAnswered(sinceMs: number, signal: AbortSignal | undefined): Promise<string | undefined> {
    const state = await this.current(signal);
    const answers = await this.answers(signal);
    const behind = this.#watch.behind(answers, state);
    if (behind !== NameWatch.silent) return behind;
    if (this.#api.clock.now() - sinceMs < spreadMs) return behind;
    this.#log.warn({ answers }, 'no name server can be asked: the record is taken as visible because of its age');
    return undefined;
  }
}

function routingOf(options: RoutingOptions): Route53Routing {
  switch (options.config.routing) {
    case 'simple':
      return new SimpleRouting(options);
    case 'weighted':
      return new WeightedRouting(options);
    case 'failover':
      return new FailoverRouting(options);
  }
}
