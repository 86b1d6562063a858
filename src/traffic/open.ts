import type { Log } from '../base/log.ts';
import type { TrafficConfig } from '../config/types.ts';
import type { TrafficDriver } from './contract.ts';
import { HealthTraffic } from './health.ts';
import { Rfc2136Traffic, type Rfc2136Tuning } from './rfc2136.ts';
import { Route53Traffic, type Route53Tuning } from './route53.ts';

/** The driver that a traffic entry of the configuration asks for. Opens no connection; close it when done. */
export function openTraffic(
  config: TrafficConfig,
  log: Log,
  tuning: Route53Tuning & Rfc2136Tuning = {},
): TrafficDriver {
  const { driver } = config;
  switch (driver.kind) {
    case 'route53':
      return new Route53Traffic(driver, log, tuning, config);
    case 'rfc2136':
      return new Rfc2136Traffic(driver, log, tuning, config);
    case 'health':
      return new HealthTraffic(driver, log, tuning, config);
  }
}
