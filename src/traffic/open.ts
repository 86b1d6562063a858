import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { TrafficConfig } from '../config/types.ts';
import type { TrafficDriver } from './contract.ts';
import { HealthTraffic } from './health.ts';
import { Rfc2136Traffic, type Rfc2136Tuning } from './rfc2136.ts';
import type { OpenRouteCluster } from './route-objects.ts';
import { RouteTraffic } from './route-traffic.ts';
import { Route53Traffic, type Route53Tuning } from './route53.ts';

/** What some drivers need of other adapters. */
export interface TrafficPorts {
  /** For routes in a cluster. */
  readonly openCluster?: OpenRouteCluster;
}

/** The driver that a traffic entry of the configuration asks for. Opens no connection; close it when done. */
export function openTraffic(
  config: TrafficConfig,
  log: Log,
  tuning: Route53Tuning & Rfc2136Tuning = {},
  { openCluster = noCluster }: TrafficPorts = {},
): TrafficDriver {
  const { driver } = config;
  switch (driver.kind) {
    case 'route53':
      return new Route53Traffic(driver, log, tuning, config);
    case 'rfc2136':
      return new Rfc2136Traffic(driver, log, tuning, config);
    case 'health':
      return new HealthTraffic(driver, log, tuning, config);
    case 'httpRoute':
    case 'virtualService':
      return new RouteTraffic(driver, log, tuning, { endpoints: config.endpoints, openCluster });
  }
}

async function noCluster(): Promise<never> {
  throw new DrError('internal', 'a route was opened without a way to its cluster');
}
