import type { Log } from '../base/log.ts';
import type { TrafficConfig } from '../config/types.ts';
import type { TrafficDriver } from './contract.ts';
import { Route53Traffic, type Route53Tuning } from './route53.ts';

/** The driver that a traffic entry of the configuration asks for. Opens no connection; close it when done. */
export function openTraffic(config: TrafficConfig, log: Log, tuning: Route53Tuning = {}): TrafficDriver {
  return new Route53Traffic(config.route53, log, tuning);
}
