import { forSite } from '../config/sites.ts';
import type { Config } from '../config/types.ts';
import type { Collection } from '../steps/contract.ts';

/** Names of what can be brought up at a site, by collection, in the order of the configuration. */
export function membersAt(config: Config, site: string): Record<Collection, string[]> {
  const places = forSite(config, site);
  const directories = (kind: 'data' | 'configuration') =>
    Object.values(places.directories).flatMap(({ directory }) => (directory.kind === kind ? [directory.name] : []));
  return {
    databases: Object.values(places.databases).flatMap(({ database, target }) => (target ? [database.name] : [])),
    data: directories('data'),
    configuration: [...directories('configuration'), ...Object.keys(places.objects)],
    traffic: Object.keys(places.endpoints),
    // Steps over these say themselves at which site they act.
    workloads: Object.keys(config.workloads),
    gitops: Object.keys(config.gitops),
  };
}

/** RPO of each resource that has one of its own, milliseconds. */
export function objectivesAt(config: Config): Record<string, number> {
  const objectives: Record<string, number> = {};
  for (const { name, rpoMs } of Object.values(config.databases)) objectives[name] = rpoMs;
  for (const section of [config.data, config.configuration, config.objects]) {
    for (const { name, rpoMs } of Object.values(section)) if (rpoMs !== undefined) objectives[name] = rpoMs;
  }
  return objectives;
}
