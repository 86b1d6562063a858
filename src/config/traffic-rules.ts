import { formatDuration } from '../base/units.ts';
import { type Findings, type KeyPath, suggestion } from './problems.ts';
import { isHostName, wrongRecordValue } from './scalars.ts';
import type { Config, HealthConfig, Rfc2136Config, Route53Config, RouteConfig, TrafficConfig } from './types.ts';

/** What no single value of a traffic entry shows: sites that must exist, values that must fit the type, forms that need each other. */
export function checkTraffic(config: Config, findings: Findings): void {
  const { wrong, doubtful } = findings;
  const sites = Object.keys(config.sites);
  for (const entry of Object.values(config.traffic)) {
    const { name, driver, endpoints } = entry;
    const path = ['traffic', name];
    const inDriver = [...path, driver.kind];
    for (const [site, value] of Object.entries(endpoints)) {
      if (!sites.includes(site))
        wrong([...path, 'endpoints', site], `there is no site "${site}"${suggestion(site, sites)}`);
      const reason = isRoute(driver) ? wrongBackend(value) : wrongRecordValue(driver.type, value);
      if (reason !== undefined) wrong([...path, 'endpoints', site], reason);
    }
    const missing = sites.filter((site) => !Object.hasOwn(endpoints, site));
    if (missing.length > 0)
      doubtful([...path, 'endpoints'], `has no endpoint for ${missing.join(', ')}: traffic cannot be redirected there`);
    if (isRoute(driver)) {
      checkRoute(driver, entry, inDriver, findings);
      continue;
    }
    if (!isHostName(driver.record))
      wrong([...inDriver, 'record'], 'is no host name: write for example orders.example.com');
    if (driver.kind !== 'health' && driver.ttlSeconds > 60) {
      doubtful(
        [...inDriver, 'ttl'],
        `clients may keep the old address for ${formatDuration(driver.ttlSeconds * 1000)} after a failover; 60 or less is better`,
      );
    }
    if (driver.kind === 'route53') checkRoute53(driver, entry, inDriver, findings);
    else if (driver.kind === 'rfc2136') checkRfc2136(driver, inDriver, findings);
    else checkHealth(driver, entry, inDriver, findings);
  }
  checkRivals(config, findings);
}

function checkRoute53(
  driver: Route53Config,
  { name, endpoints }: TrafficConfig,
  path: KeyPath,
  { wrong }: Findings,
): void {
  const sites = Object.keys(endpoints);
  for (const site of Object.keys(driver.setIdentifiers)) {
    if (!sites.includes(site))
      wrong([...path, 'setIdentifiers', site], `there is no endpoint of a site "${site}"${suggestion(site, sites)}`);
  }
  if (driver.routing === 'simple') return;
  checkDistinct(name, endpoints, wrong);
  const identifiers = sites.map((site) => driver.setIdentifiers[site] ?? site);
  if (new Set(identifiers).size < identifiers.length)
    wrong([...path, 'setIdentifiers'], 'gives two sites one identifier: each has a record of its own');
  if (driver.routing === 'failover' && sites.length !== 2)
    wrong(['traffic', name, 'endpoints'], `has ${sites.length} sites, but failover routing has exactly two records`);
}

function checkRfc2136(driver: Rfc2136Config, path: KeyPath, { wrong }: Findings): void {
  const [record, zone] = [driver.record.toLowerCase(), driver.zone.toLowerCase()];
  if (!isHostName(driver.zone)) wrong([...path, 'zone'], 'is no name of a zone: write for example example.com');
  else if (record !== zone && !record.endsWith(`.${zone}`))
    wrong([...path, 'record'], `does not belong to the zone ${driver.zone}`);
  else if (record === zone && driver.type === 'CNAME')
    wrong([...path, 'type'], 'the top of a zone cannot be a CNAME: use A or AAAA');
}

function checkHealth(
  driver: HealthConfig,
  { name, endpoints }: TrafficConfig,
  path: KeyPath,
  findings: Findings,
): void {
  const { wrong, doubtful } = findings;
  const sites = Object.keys(endpoints);
  checkDistinct(name, endpoints, wrong);
  if (!sites.includes(driver.primary))
    wrong(
      [...path, 'primary'],
      `there is no endpoint of a site "${driver.primary}"${suggestion(driver.primary, sites)}`,
    );
  if (sites.length !== 2)
    wrong(['traffic', name, 'endpoints'], `has ${sites.length} sites, but a failover record has exactly two`);
  driver.switches.forEach(({ url, region, endpoint }, i) => {
    if (url.startsWith('s3:') && region === undefined && endpoint === undefined)
      wrong([...path, 'switches', i], 'has no region: name that of the bucket');
    if (driver.switches.findIndex((other) => other.url === url && other.endpoint === endpoint) < i)
      wrong([...path, 'switches', i, 'url'], 'stands here twice: each switch is a document of its own');
  });
  if (driver.switches.length % 2 === 0) {
    doubtful(
      [...path, 'switches'],
      `has ${driver.switches.length} places: a majority then survives no more losses than with one place less; use one or three`,
    );
  }
}

/** True for a route inside a cluster: its endpoints are names of backends, which mean nothing outside. */
export function isRoute(driver: TrafficConfig['driver']): driver is RouteConfig {
  return driver.kind === 'httpRoute' || driver.kind === 'virtualService';
}

/** Names of objects are subdomains (RFC 1123); a namespace is one label. */
const objectName = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;

function checkRoute(
  driver: RouteConfig,
  { name, endpoints, resolvers }: TrafficConfig,
  path: KeyPath,
  { wrong, doubtful }: Findings,
): void {
  checkDistinct(name, endpoints, wrong);
  if (!/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(driver.namespace))
    wrong([...path, 'namespace'], 'is no name of a namespace: lower case letters, digits and "-"');
  if (!objectName.test(driver.name))
    wrong([...path, 'name'], 'is no name of an object: lower case letters, digits, "-" and "."');
  if (resolvers !== undefined)
    doubtful(['traffic', name, 'resolvers'], `is not used: clients of a route find it without DNS of dr`);
}

/** Why this is no backend: a name, with its namespace or subset before or after a slash. */
function wrongBackend(value: string): string | undefined {
  if (value.split('/').every((part) => objectName.test(part)) && value.split('/').length <= 2) return undefined;
  return 'is no name of a backend: write for example orders-west';
}

/** Which site gets traffic is told by the value: two sites with one value cannot be told apart. */
function checkDistinct(name: string, endpoints: TrafficConfig['endpoints'], wrong: Findings['wrong']): void {
  const taken = new Map<string, string>();
  for (const [site, value] of Object.entries(endpoints)) {
    const other = taken.get(value.toLowerCase());
    if (other !== undefined) wrong(['traffic', name, 'endpoints', site], `is the endpoint of ${other} too`);
    taken.set(value.toLowerCase(), site);
  }
}

/** One name of one type in two entries would be written by both. */
function checkRivals(config: Config, { wrong }: Findings): void {
  const taken = new Map<string, string>();
  for (const { name, driver } of Object.values(config.traffic)) {
    const { key, last } = isRoute(driver)
      ? { key: keyOf(driver), last: 'name' }
      : { key: `${driver.record.toLowerCase()} ${driver.type}`, last: 'record' };
    const other = taken.get(key);
    if (other !== undefined)
      wrong(['traffic', name, driver.kind, last], `is redirected by traffic.${other} too: one name has one entry`);
    else taken.set(key, name);
  }
}

function keyOf({ kind, cluster, namespace, name, rule }: RouteConfig): string {
  return JSON.stringify([kind, cluster.kubeconfig, cluster.context, namespace, name, rule]);
}
