import type { Change, ResourceRecordSet } from '@aws-sdk/client-route-53';
import type { TrafficFinding, TrafficShare, TrafficState } from './contract.ts';
import { checkedValues, checkPercent, digestOf, plainName, plainValue, sameValues } from './record.ts';
import {
  formOf,
  placeholder,
  type Route53Routing,
  type RoutingOptions,
  recordSet,
  valuesOf,
  type Wanted,
  wrongForm,
} from './route53-routing.ts';
import { refuseUnknown, setIdentifierOf, siteOf } from './route53-sites.ts';

/**
 * One record set for each site; traffic follows their weights. The batch replaces every set of the name, also one whose
 * weight stays, so that a rival who changed any of them is noticed. Route 53 spreads answers by weight only roughly, and
 * resolvers with many clients make it rougher.
 */
export class WeightedRouting implements Route53Routing {
  readonly shifting = 'gradual';
  readonly #options: RoutingOptions;

  constructor(options: RoutingOptions) {
    this.#options = options;
  }

  state(sets: readonly ResourceRecordSet[]): TrafficState {
    const { config, target } = this.#options;
    for (const set of sets) {
      const isPlain = set.Weight !== undefined && !set.AliasTarget && !set.TrafficPolicyInstanceId;
      if (!isPlain) throw wrongForm(set, formOf(set) ?? 'a simple record', config, target);
    }
    const shares = this.#shares(sets);
    return {
      name: `${plainName(config.record)} ${config.type}`,
      values: shares.filter(({ percent }) => percent > 0).map(({ value }) => value),
      ttlSeconds: Math.max(0, ...sets.map((set) => set.TTL ?? 0)),
      generation: digestOf(
        sets
          .map((set) => [set.SetIdentifier, valuesOf(config, set), set.Weight, set.TTL, set.HealthCheckId])
          .sort((a, b) => (String(a[0]) < String(b[0]) ? -1 : 1)),
      ),
      shares,
    };
  }

  changes(sets: readonly ResourceRecordSet[], wanted: Wanted): Change[] | undefined {
    const weights = this.#weights(wanted);
    const next = this.#next(sets, weights);
    if (next.every((set) => sets.some((old) => isSame(old, set))) && this.#divides(sets, weights)) return undefined;
    return [
      ...sets.map((set): Change => ({ Action: 'DELETE', ResourceRecordSet: set })),
      ...next.map((set): Change => ({ Action: 'CREATE', ResourceRecordSet: set })),
    ];
  }

  probe(sets: readonly ResourceRecordSet[]): ResourceRecordSet {
    const { config, endpoints } = this.#options;
    const [site = 'dr'] = Object.keys(endpoints);
    return (
      sets[0] ?? {
        ...recordSet(config, [placeholder(config)]),
        SetIdentifier: setIdentifierOf(config, site),
        Weight: 0,
      }
    );
  }

  findings(sets: readonly ResourceRecordSet[]): readonly TrafficFinding[] {
    const { config, endpoints } = this.#options;
    if (sets.length === 0) return [];
    const findings: TrafficFinding[] = [];
    for (const [site, value] of Object.entries(endpoints)) {
      const set = sets.find((one) => one.SetIdentifier === setIdentifierOf(config, site));
      if (set === undefined) {
        findings.push({
          ok: false,
          severity: 'warning',
          what: `there is no weighted record for ${site} (set identifier ${setIdentifierOf(config, site)})`,
          next: `Create it with the value ${value} and weight 0, or correct route53.setIdentifiers; else a redirect creates it.`,
        });
      } else if (!sameValues(config.type, valuesOf(config, set), [value])) {
        findings.push({
          ok: false,
          severity: 'warning',
          what: `the weighted record of ${site} holds ${valuesOf(config, set).join(', ')}, not the endpoint ${value}`,
          next: 'Correct it or the endpoints of this traffic entry: a redirect writes the endpoint.',
        });
      }
    }
    return findings;
  }

  /** The new weight of every value that the configuration knows; all others get none. */
  #weights(wanted: Wanted): Map<string, number> {
    const { config, endpoints, target } = this.#options;
    const values =
      wanted.kind === 'values'
        ? checkedValues(config.record, config.type, wanted.values)
        : [wanted.split.from, wanted.split.to].map((value) => plainValue(config.type, value));
    refuseUnknown(config, endpoints, values, target);
    const weights = new Map(Object.values(endpoints).map((value) => [plainValue(config.type, value), 0]));
    if (wanted.kind === 'values') {
      for (const value of values) weights.set(value, 100);
      return weights;
    }
    const { percent } = wanted.split;
    checkPercent(percent, target);
    const [from = '', to = ''] = values;
    weights.set(from, 100 - percent);
    weights.set(to, percent);
    return weights;
  }

  /** Every record set as it has to become: those of the sites, and foreign ones without weight. */
  #next(sets: readonly ResourceRecordSet[], weights: ReadonlyMap<string, number>): ResourceRecordSet[] {
    const { config, endpoints } = this.#options;
    const ours = Object.entries(endpoints).map(([site, endpoint]): ResourceRecordSet => {
      const value = plainValue(config.type, endpoint);
      const id = setIdentifierOf(config, site);
      const old = sets.find((set) => set.SetIdentifier === id);
      return { ...old, ...recordSet(config, [value]), SetIdentifier: id, Weight: weights.get(value) ?? 0 };
    });
    const foreign = sets
      .filter((set) => siteOf(config, endpoints, set) === undefined)
      .map((set): ResourceRecordSet => ({ ...set, TTL: config.ttlSeconds, Weight: 0 }));
    return [...ours, ...foreign].filter((set) => (set.Weight ?? 0) > 0 || sets.some((old) => isSamePlace(old, set)));
  }

  /** True when the present weights stand in the same proportion: 255 to 0 gives what 100 to 0 gives. */
  #divides(sets: readonly ResourceRecordSet[], weights: ReadonlyMap<string, number>): boolean {
    const { config, endpoints } = this.#options;
    const wantedTotal = [...weights.values()].reduce((sum, weight) => sum + weight, 0);
    const total = sets.reduce((sum, set) => sum + (set.Weight ?? 0), 0);
    // Without any weight Route 53 gives every set the same.
    if (total === 0) return false;
    return sets.every((set) => {
      const site = siteOf(config, endpoints, set);
      const wanted = weights.get(plainValue(config.type, endpoints[site ?? ''] ?? '')) ?? 0;
      return (set.Weight ?? 0) * wantedTotal === wanted * total;
    });
  }

  #shares(sets: readonly ResourceRecordSet[]): TrafficShare[] {
    const { config } = this.#options;
    const total = sets.reduce((sum, set) => sum + (set.Weight ?? 0), 0);
    const percent = new Map<string, number>();
    for (const set of sets) {
      // "If you set Weight to 0 for all of the records, traffic is routed to all with equal probability" (developer guide).
      const share = total === 0 ? 100 / sets.length : ((set.Weight ?? 0) * 100) / total;
      const values = valuesOf(config, set);
      for (const value of values) percent.set(value, (percent.get(value) ?? 0) + share / values.length);
    }
    return [...percent]
      .map(([value, share]) => ({ value, percent: Math.round(share * 100) / 100 }))
      .sort((a, b) => (a.value < b.value ? -1 : 1));
  }
}

function isSamePlace(a: ResourceRecordSet, b: ResourceRecordSet): boolean {
  return a.SetIdentifier === b.SetIdentifier;
}

/** The same but for the weight, which counts as a proportion. */
function isSame(a: ResourceRecordSet, b: ResourceRecordSet): boolean {
  const values = (set: ResourceRecordSet) =>
    (set.ResourceRecords ?? []).map(({ Value }) => plainName(Value ?? '')).sort();
  return isSamePlace(a, b) && a.TTL === b.TTL && values(a).join(' ') === values(b).join(' ');
}
