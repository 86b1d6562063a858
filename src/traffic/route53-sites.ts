import type { ResourceRecordSet } from '@aws-sdk/client-route-53';
import { DrError } from '../base/errors.ts';
import type { Route53Config } from '../config/types.ts';
import { plainValue } from './record.ts';

/** Endpoint by site, as the configuration gives it. */
type Endpoints = Readonly<Record<string, string>>;

/** The set identifier of a site's record. */
export function setIdentifierOf(config: Route53Config, site: string): string {
  return Object.hasOwn(config.setIdentifiers, site) ? (config.setIdentifiers[site] ?? site) : site;
}

/** The site that a record set belongs to; undefined for one that the configuration does not know. */
export function siteOf(config: Route53Config, endpoints: Endpoints, set: ResourceRecordSet): string | undefined {
  return Object.keys(endpoints).find((site) => setIdentifierOf(config, site) === set.SetIdentifier);
}

/** Refuses values that are no site's endpoint: a record of several sets has a place for those only. */
export function refuseUnknown(
  config: Route53Config,
  endpoints: Endpoints,
  values: readonly string[],
  target: string,
): void {
  const known = Object.values(endpoints).map((value) => plainValue(config.type, value));
  const foreign = values.find((value) => !known.includes(value));
  if (foreign === undefined) return;
  throw new DrError('refused', `${foreign} is the endpoint of no site: this name has a record for each site`, {
    where: target,
    next: `Add it to the endpoints of this traffic entry; known are ${known.join(', ')}.`,
  });
}
