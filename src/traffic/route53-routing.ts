import type { Change, ResourceRecordSet } from '@aws-sdk/client-route-53';
import { DrError } from '../base/errors.ts';
import type { Route53Config } from '../config/types.ts';
import type { TrafficFinding, TrafficSplit, TrafficState } from './contract.ts';
import { checkedValues, generationOf, plainName, plainValues, sameValues, wholeOf } from './record.ts';

/** What a caller wants the name to be. */
export type Wanted =
  | { readonly kind: 'values'; readonly values: readonly string[] }
  | { readonly kind: 'split'; readonly split: TrafficSplit };

/** One way in which Route 53 can keep a name: what its record sets say, and which batch makes them say something else. */
export interface Route53Routing {
  readonly shifting: 'gradual' | 'whole';
  /** What the record sets of the name and type say. Throws `refused` for a form that this routing is not made of. */
  state(sets: readonly ResourceRecordSet[]): TrafficState;
  /**
   * The one batch that replaces exactly `sets` by what is wanted; undefined when they say it already.
   * Throws `refused` for what may not be published.
   */
  changes(sets: readonly ResourceRecordSet[], wanted: Wanted): Change[] | undefined;
  /** A record set of the form that a redirect writes, for the question whether these credentials may write it. */
  probe(sets: readonly ResourceRecordSet[]): ResourceRecordSet;
  /** What a person should know about these record sets beside name and TTL. */
  findings(sets: readonly ResourceRecordSet[]): readonly TrafficFinding[];
}

/** What all routings need to know. */
export interface RoutingOptions {
  readonly config: Route53Config;
  /** Endpoint by site. */
  readonly endpoints: Readonly<Record<string, string>>;
  readonly target: string;
}

/** One record for everybody. */
export class SimpleRouting implements Route53Routing {
  readonly shifting = 'whole';
  readonly #options: RoutingOptions;

  constructor(options: RoutingOptions) {
    this.#options = options;
  }

  state(sets: readonly ResourceRecordSet[]): TrafficState {
    const { config, target } = this.#options;
    for (const set of sets) {
      const form = formOf(set) ?? (set.HealthCheckId && `bound to the health check ${set.HealthCheckId}`);
      if (form !== undefined) throw wrongForm(set, form, config, target);
    }
    const [set] = sets;
    const values = valuesOf(config, set);
    const ttlSeconds = set?.TTL ?? 0;
    return {
      name: `${plainName(config.record)} ${config.type}`,
      values,
      ttlSeconds,
      generation: generationOf(config.record, config.type, values, ttlSeconds),
    };
  }

  changes(sets: readonly ResourceRecordSet[], wanted: Wanted): Change[] | undefined {
    const { config, target } = this.#options;
    const asked = wanted.kind === 'values' ? wanted.values : [wholeOf(wanted.split, target)];
    const values = checkedValues(config.record, config.type, asked);
    const [old] = sets;
    if (old?.TTL === config.ttlSeconds && sameValues(config.type, valuesOf(config, old), values)) return undefined;
    const changes: Change[] = [{ Action: 'CREATE', ResourceRecordSet: recordSet(config, values) }];
    if (old !== undefined) changes.unshift({ Action: 'DELETE', ResourceRecordSet: old });
    return changes;
  }

  probe(sets: readonly ResourceRecordSet[]): ResourceRecordSet {
    const { config } = this.#options;
    return sets[0] ?? recordSet(config, [placeholder(config)]);
  }

  findings(): readonly TrafficFinding[] {
    return [];
  }
}

/** The values of a record set in the compared spelling; empty without a set. */
export function valuesOf(config: Route53Config, set: ResourceRecordSet | undefined): string[] {
  return plainValues(
    config.type,
    (set?.ResourceRecords ?? []).map((record) => record.Value ?? ''),
  );
}

/** A plain record set with these values and the TTL of the configuration. */
export function recordSet(config: Route53Config, values: readonly string[]): ResourceRecordSet {
  return {
    Name: `${plainName(config.record)}.`,
    Type: config.type,
    TTL: config.ttlSeconds,
    ResourceRecords: values.map((value) => ({ Value: config.type === 'CNAME' ? `${value}.` : value })),
  };
}

/** A value that may never be published, of the right type (RFC 5737, RFC 3849, RFC 2606). */
export function placeholder({ type }: Route53Config): string {
  return { A: '192.0.2.1', AAAA: '2001:db8::1', CNAME: 'dr-permission-probe.invalid' }[type];
}

/** How a record set is more than values with a TTL, in words; undefined for a plain one. A health check is no form of its own. */
export function formOf(set: ResourceRecordSet): string | undefined {
  const routing =
    (set.Failover && `the ${set.Failover} of failover routing`) ??
    (set.Weight !== undefined ? `of weighted routing (weight ${set.Weight})` : undefined) ??
    (set.SetIdentifier && 'of latency, geolocation, multivalue or IP-based routing');
  if (set.AliasTarget) return `an alias of ${set.AliasTarget.DNSName ?? 'an AWS resource'}`;
  if (set.TrafficPolicyInstanceId) return `managed by the traffic policy instance ${set.TrafficPolicyInstanceId}`;
  return routing && `one of several, ${routing} with set identifier ${set.SetIdentifier}`;
}

export function wrongForm(set: ResourceRecordSet, form: string, config: Route53Config, target: string): DrError {
  const routing = set.Weight !== undefined ? 'weighted' : set.Failover ? 'failover' : undefined;
  const next =
    routing !== undefined && routing !== config.routing && !set.AliasTarget
      ? `Set route53.routing of this traffic entry to ${routing}.`
      : 'Let the traffic entry name a record of its own (the public name can be a CNAME to it), with a TTL of 60 s or less.';
  return new DrError(
    'refused',
    `this traffic entry redirects ${config.routing} records; ${plainName(config.record)} ${set.Type} is ${form}`,
    { where: target, next },
  );
}
