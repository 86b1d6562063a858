import type { Change, ResourceRecordSet } from '@aws-sdk/client-route-53';
import { DrError } from '../base/errors.ts';
import type { TrafficFinding, TrafficState } from './contract.ts';
import { checkedValues, digestOf, plainName, plainValue, sameValues, wholeOf } from './record.ts';
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
 * A PRIMARY and a SECONDARY record set, made by people with their health checks. A redirect lets the two change places in one
 * batch; each keeps its health check. This needs the control plane of Route 53: the driver `health` does not.
 */
export class FailoverRouting implements Route53Routing {
  readonly shifting = 'whole';
  readonly #options: RoutingOptions;

  constructor(options: RoutingOptions) {
    this.#options = options;
  }

  state(sets: readonly ResourceRecordSet[]): TrafficState {
    const { config, target } = this.#options;
    for (const set of sets) {
      const isPlain = set.Failover && !set.AliasTarget && !set.TrafficPolicyInstanceId;
      if (!isPlain) throw wrongForm(set, formOf(set) ?? 'a simple record', config, target);
    }
    const primary = sets.find((set) => set.Failover === 'PRIMARY');
    return {
      name: `${plainName(config.record)} ${config.type}`,
      values: valuesOf(config, primary),
      ttlSeconds: Math.max(0, ...sets.map((set) => set.TTL ?? 0)),
      generation: digestOf(
        sets
          .map((set) => [set.SetIdentifier, set.Failover, valuesOf(config, set), set.TTL, set.HealthCheckId])
          .sort((a, b) => (String(a[0]) < String(b[0]) ? -1 : 1)),
      ),
    };
  }

  changes(sets: readonly ResourceRecordSet[], wanted: Wanted): Change[] | undefined {
    const { config, endpoints, target } = this.#options;
    const asked = wanted.kind === 'values' ? wanted.values : [wholeOf(wanted.split, target)];
    const values = checkedValues(config.record, config.type, asked);
    refuseUnknown(config, endpoints, values, target);
    const [value = ''] = values;
    if (values.length > 1) {
      throw new DrError('refused', `a PRIMARY record leads to one site, not ${values.length} (${values.join(', ')})`, {
        where: target,
        next: 'Give one endpoint.',
      });
    }
    const site = Object.keys(endpoints).find((one) => plainValue(config.type, endpoints[one] ?? '') === value) ?? '';
    const next = sets.find((set) => set.SetIdentifier === setIdentifierOf(config, site));
    const other = sets.find((set) => set !== next);
    if (next === undefined || other === undefined || sets.length > 2) {
      throw new DrError(
        'not-found',
        `${plainName(config.record)} ${config.type} has no pair of failover records with one for ${site} (set identifier ${setIdentifierOf(config, site)})`,
        {
          where: target,
          next: 'Create the PRIMARY and the SECONDARY record with their health checks, or correct route53.setIdentifiers (docs/traffic.md).',
        },
      );
    }
    if (next.Failover === 'PRIMARY' && sameValues(config.type, valuesOf(config, next), values)) {
      if (sets.every((set) => set.TTL === config.ttlSeconds)) return undefined;
    }
    return [
      ...sets.map((set): Change => ({ Action: 'DELETE', ResourceRecordSet: set })),
      { Action: 'CREATE', ResourceRecordSet: { ...next, ...recordSet(config, values), Failover: 'PRIMARY' } },
      { Action: 'CREATE', ResourceRecordSet: { ...other, TTL: config.ttlSeconds, Failover: 'SECONDARY' } },
    ];
  }

  probe(sets: readonly ResourceRecordSet[]): ResourceRecordSet {
    const { config, endpoints } = this.#options;
    const [site = 'dr'] = Object.keys(endpoints);
    return (
      sets[0] ?? {
        ...recordSet(config, [placeholder(config)]),
        SetIdentifier: setIdentifierOf(config, site),
        Failover: 'PRIMARY',
      }
    );
  }

  findings(sets: readonly ResourceRecordSet[]): readonly TrafficFinding[] {
    const { config, endpoints } = this.#options;
    if (sets.length === 0) return [];
    const findings: TrafficFinding[] = [];
    for (const site of Object.keys(endpoints)) {
      if (sets.some((set) => set.SetIdentifier === setIdentifierOf(config, site))) continue;
      findings.push({
        ok: false,
        what: `there is no failover record for ${site} (set identifier ${setIdentifierOf(config, site)})`,
        next: 'Create it with its health check, or correct route53.setIdentifiers: dr lets the two records change places and makes none.',
      });
    }
    for (const set of sets) {
      const site = siteOf(config, endpoints, set) ?? `set identifier ${set.SetIdentifier}`;
      if (set.Failover === 'PRIMARY' && !set.HealthCheckId) {
        findings.push({
          ok: true,
          what: `the PRIMARY record (${site}) has no health check: Route 53 answers it whatever happens, until dr changes it`,
        });
      } else if (set.Failover === 'PRIMARY') {
        findings.push({
          ok: false,
          severity: 'warning',
          what: `the PRIMARY record (${site}) follows the health check ${set.HealthCheckId}: Route 53 moves traffic by itself, and back again`,
          next: 'Let the health check read a switch of the driver "health" (docs/traffic.md): then only dr moves traffic, without the DNS control plane.',
        });
      }
    }
    return findings;
  }
}
