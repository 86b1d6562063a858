import type { Change, ResourceRecordSet } from '@aws-sdk/client-route-53';
import { DrError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { formatDuration } from '../base/units.ts';
import type { TrafficConfig } from '../config/types.ts';
import type { TrafficChange, TrafficDriver, TrafficFinding, TrafficState } from './contract.ts';
import { askServer } from './dns-query.ts';
import { checkedValues, conflict, generationOf, plainName, plainValues, sameValues, showValues } from './record.ts';
import { Route53Api, type Route53ApiOptions } from './route53-api.ts';
import { route53Doctor } from './route53-doctor.ts';
import { isInvalidBatch } from './route53-errors.ts';

type Route53Config = TrafficConfig['route53'];

/** What tests and unusual networks set; the defaults fit the real Route 53. */
export interface Route53Tuning extends Partial<Pick<Route53ApiOptions, 'clock' | 'requestTimeoutMs' | 'attempts'>> {
  /** Milliseconds to wait for one answer of one name server; default 2000. */
  readonly dnsTimeoutMs?: number;
  /** Longest wait for a change to become visible when the caller gives no deadline, milliseconds; default 10 minutes. */
  readonly settleTimeoutMs?: number;
}

/** Marks a "change" that found its values published already: nothing was submitted, so Route 53 has no change to ask for. */
const unchanged = 'unchanged';

/** "Changes generally propagate to all Route 53 name servers within 60 seconds" (API reference, GetChange). Milliseconds. */
const spreadMs = 60_000;

/**
 * Redirects one simple record of a Route 53 hosted zone.
 *
 * A change is one atomic batch that deletes exactly the record set it replaces and creates the new one. Route 53 rejects the
 * whole batch when the old set no longer matches, so it is a true compare-and-swap: a delayed writer can never overwrite a newer
 * state (`UPSERT` could), and at no moment is the name empty.
 */
export class Route53Traffic implements TrafficDriver {
  readonly kind = 'route53';
  readonly target: string;
  readonly #config: Route53Config;
  readonly #record: string;
  readonly #api: Route53Api;
  readonly #log: Log;
  readonly #tuning: Route53Tuning;

  constructor(config: Route53Config, log: Log, tuning: Route53Tuning = {}) {
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
    this.target = `route53 zone ${this.#api.zone} record ${this.#record} ${config.type}`;
    this.#log = log.child({ traffic: this.target });
  }

  async current(signal?: AbortSignal): Promise<TrafficState> {
    return this.#state(await this.#published(signal));
  }

  async point(values: readonly string[], replaces: TrafficState, signal?: AbortSignal): Promise<TrafficChange> {
    const wanted = checkedValues(this.#record, this.#config.type, values);
    const old = await this.#published(signal);
    const found = this.#state(old);
    if (this.#publishes(found, wanted)) return this.#unchanged();
    if (found.generation !== replaces.generation) throw conflict(this.target, replaces, found);
    const changes: Change[] = [{ Action: 'CREATE', ResourceRecordSet: this.#recordSet(wanted) }];
    if (old !== undefined) changes.unshift({ Action: 'DELETE', ResourceRecordSet: old });
    const submittedAtMs = this.#api.clock.now();
    try {
      const id = await this.#api.change(changes, 'dr redirects traffic', signal);
      this.#log.info({ change: id, from: found.values, to: wanted }, 'Route 53 accepted the change');
      return { id, submittedAtMs };
    } catch (error) {
      if (!isInvalidBatch(error)) throw error;
      // Either a rival was faster, or an earlier try of ours took effect and only its answer was lost: the record tells.
      const now = this.#state(await this.#published(signal));
      if (this.#publishes(now, wanted)) return this.#unchanged();
      if (now.generation !== replaces.generation) throw conflict(this.target, replaces, now);
      throw error;
    }
  }

  async settled(change: TrafficChange, signal?: AbortSignal): Promise<void> {
    const { clock } = this.#api;
    const startedMs = clock.now();
    const limitMs = this.#tuning.settleTimeoutMs ?? 600_000;
    const isSettled =
      change.id === unchanged ? () => this.#isAnswered(startedMs, signal) : () => this.#isInSync(change.id, signal);
    // A control plane that is slow or away for a while says nothing about the change: keep asking until the deadline.
    const busy = (error: unknown) => {
      if (signal?.aborted || !(error instanceof DrError) || !error.retryable) throw error;
      return error.message;
    };
    let state = 'PENDING';
    const late = (cause?: unknown) =>
      new DrError(
        'unreachable',
        `${nameOf(change)} is not visible on all name servers after ${formatDuration(clock.now() - startedMs)}: ${state}`,
        {
          where: this.target,
          next: 'Run the command again to go on waiting (Route 53 usually needs up to 60 s); look at the AWS health dashboard if it lasts.',
          cause,
        },
      );
    try {
      for (let pauseMs = 500; ; pauseMs = Math.min(pauseMs * 1.5, 5000)) {
        const outcome = await isSettled().catch(busy);
        if (outcome === undefined) return;
        state = outcome;
        if (clock.now() - startedMs + pauseMs > limitMs) throw late();
        await clock.sleep(pauseMs, signal);
      }
    } catch (error) {
      if (!signal?.aborted) throw error;
      // A deadline that passed is a finding about Route 53; any other abort is somebody's wish to stop.
      if (isTimeout(signal.reason)) throw late(error);
      throw new DrError('interrupted', `waiting for ${nameOf(change)} was stopped`, {
        where: this.target,
        cause: error,
      });
    }
  }

  async answers(
    signal?: AbortSignal,
  ): Promise<ReadonlyArray<{ server: string; values: readonly string[]; error?: string }>> {
    const servers = this.#config.nameservers ?? (await this.#api.zoneFacts(signal)).nameservers;
    const timeoutMs = this.#tuning.dnsTimeoutMs ?? 2000;
    const answers = servers.map(async (server) => {
      try {
        const { values } = await askServer(server, this.#record, this.#config.type, timeoutMs, signal);
        return { server, values };
      } catch (error) {
        if (signal?.aborted) throw this.#interrupted('asking the name servers', signal.reason);
        return { server, values: [], error: messageOf(error) };
      }
    });
    return Promise.all(answers);
  }

  doctor(signal?: AbortSignal): Promise<readonly TrafficFinding[]> {
    return route53Doctor(this.#api, this.#config, this, signal);
  }

  close(): void {
    this.#api.close();
  }

  /** The one simple record set that is published under the name; undefined when there is none. Refuses every other form. */
  async #published(signal: AbortSignal | undefined): Promise<ResourceRecordSet | undefined> {
    const { type } = this.#config;
    const sets = await this.#api.recordsOf(this.#record, signal);
    for (const set of sets) {
      if (set.Type === type) this.#refuseUnlessSimple(set);
      // DNS allows no other type beside a CNAME (RFC 1034 3.6.2): Route 53 would reject the change, so say it beforehand.
      else if (set.Type === 'CNAME' || type === 'CNAME') {
        throw new DrError(
          'refused',
          `${this.#record} has a record of type ${set.Type}, which excludes one of type ${type}`,
          {
            where: this.target,
            next: `Set route53.type of this traffic entry to ${set.Type}, or remove that record yourself.`,
          },
        );
      }
    }
    return sets.find((set) => set.Type === type);
  }

  #refuseUnlessSimple(set: ResourceRecordSet): void {
    const form = [
      [set.AliasTarget, `an alias of ${set.AliasTarget?.DNSName ?? 'an AWS resource'}`],
      [
        set.SetIdentifier,
        `one of several (set identifier ${set.SetIdentifier}: weighted, failover, latency or geolocation routing)`,
      ],
      [set.HealthCheckId, `bound to the health check ${set.HealthCheckId}`],
      [set.TrafficPolicyInstanceId, `managed by the traffic policy instance ${set.TrafficPolicyInstanceId}`],
    ].find(([present]) => present !== undefined);
    if (form === undefined) return;
    throw new DrError(
      'refused',
      `this version of dr redirects simple records only; ${this.#record} ${set.Type} is ${form[1]}`,
      {
        where: this.target,
        next: 'Let the traffic entry name a simple record of its own (the public name can be a CNAME to it), with a TTL of 60 s or less.',
      },
    );
  }

  #state(set: ResourceRecordSet | undefined): TrafficState {
    const { type } = this.#config;
    const values = plainValues(
      type,
      (set?.ResourceRecords ?? []).map((record) => record.Value ?? ''),
    );
    const ttlSeconds = set?.TTL ?? 0;
    return {
      name: `${this.#record} ${type}`,
      values,
      ttlSeconds,
      generation: generationOf(this.#record, type, values, ttlSeconds),
    };
  }

  #recordSet(values: readonly string[]): ResourceRecordSet {
    return {
      Name: `${this.#record}.`,
      Type: this.#config.type,
      TTL: this.#config.ttlSeconds,
      ResourceRecords: values.map((value) => ({ Value: this.#config.type === 'CNAME' ? `${value}.` : value })),
    };
  }

  #publishes(state: TrafficState, wanted: readonly string[]): boolean {
    return state.ttlSeconds === this.#config.ttlSeconds && sameValues(this.#config.type, state.values, wanted);
  }

  #unchanged(): TrafficChange {
    this.#log.info({}, 'the record holds the wanted values already: nothing was submitted');
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
    const { type } = this.#config;
    const { values } = await this.current(signal);
    const answers = await this.answers(signal);
    const heard = answers.filter((answer) => answer.error === undefined);
    const behind = heard.find((answer) => !sameValues(type, answer.values, values));
    if (behind !== undefined) return `${behind.server} answers ${showValues(behind.values)}`;
    if (heard.length > 0) return undefined;
    if (this.#api.clock.now() - sinceMs < spreadMs) return 'no name server can be asked';
    this.#log.warn({ answers }, 'no name server can be asked: the record is taken as visible because of its age');
    return undefined;
  }

  #interrupted(doing: string, cause: unknown): DrError {
    return new DrError('interrupted', `${doing} was stopped`, { where: this.target, cause });
  }
}

function nameOf(change: TrafficChange): string {
  return change.id === unchanged ? 'the record as it is' : `change ${change.id}`;
}

function isTimeout(reason: unknown): boolean {
  return reason instanceof Error && reason.name === 'TimeoutError';
}
