import { type Findings, type KeyPath, suggestion } from './problems.ts';
import type { ConfigFile } from './schema.ts';
import type { Config, GitopsConfig, SiteObjectConfig, WorkloadConfig } from './types.ts';

/** The sections `workloads` and `gitops` as the rest of dr works with them. */
export function buildWorkloads(file: ConfigFile): {
  readonly workloads: Config['workloads'];
  readonly gitops: Config['gitops'];
} {
  const clusters = Object.entries(file.sites).flatMap(([name, { cluster }]) => (cluster ? [name] : []));
  const place = (entry: string, written: Omit<ConfigFile['gitops'][string], 'kind'>): SiteObjectConfig => ({
    entry,
    namespace: written.namespace,
    name: written.name ?? entry,
    sites: written.sites ?? clusters,
  });
  return {
    workloads: Object.fromEntries(
      Object.entries(file.workloads).map(([entry, written]): [string, WorkloadConfig] => {
        const { kind, replicas, database, restore } = written;
        const { image, config, identity, environment, serviceAccount } = restore ?? {};
        const job =
          image === undefined || config === undefined
            ? undefined
            : { image, config, identity, environment, serviceAccount };
        return [entry, { ...place(entry, written), kind, replicas, database, restore: job }];
      }),
    ),
    gitops: Object.fromEntries(
      Object.entries(file.gitops).map(([entry, written]): [string, GitopsConfig] => [
        entry,
        { ...place(entry, written), kind: written.kind },
      ]),
    ),
  };
}

/** Sites and databases that must exist, and what runbooks could not do. */
export function checkWorkloads(config: Config, findings: Findings): void {
  const { wrong, doubtful } = findings;
  for (const each of Object.values(config.gitops)) checkPlace(config, each, ['gitops', each.entry], findings);
  const servers = new Map<string, string>();
  for (const each of Object.values(config.workloads)) {
    const path = ['workloads', each.entry];
    checkPlace(config, each, path, findings);
    if (each.kind === 'DaemonSet')
      doubtful([...path, 'kind'], 'a DaemonSet cannot be scaled to 0: runbooks that stop the writers refuse it');
    const { database } = each;
    if (database === undefined) continue;
    if (!Object.hasOwn(config.databases, database)) {
      wrong(
        [...path, 'database'],
        `there is no database "${database}"${suggestion(database, Object.keys(config.databases))}`,
      );
      continue;
    }
    if (each.restore) checkVolume(config, each, database, findings);
    for (const site of each.sites) {
      const other = servers.get(`${site} ${database}`);
      if (other !== undefined) wrong([...path, 'database'], `${other} is the server of ${database} at ${site} already`);
      servers.set(`${site} ${database}`, each.entry);
    }
  }
}

/** A database in a volume has its data directory and its address at the site like any other. */
function checkVolume(
  config: Config,
  { entry, sites }: WorkloadConfig,
  database: string,
  { wrong, doubtful }: Findings,
): void {
  const recover = config.databases[database]?.recover ?? {};
  for (const site of sites) {
    const target = Object.hasOwn(recover, site) ? recover[site] : undefined;
    if (target === undefined) {
      if (site !== config.active)
        wrong(
          ['workloads', entry, 'restore'],
          `needs databases.${database}.recover.${site}: what PGDATA is in its container`,
        );
      continue;
    }
    const host = URL.canParse(target.url) ? new URL(target.url).hostname : '';
    if (host === '127.0.0.1' || host === 'localhost')
      doubtful(
        ['databases', database, 'recover', site],
        `is reached at ${host}, but lies in a volume: write as "url" how clients reach the Service of ${entry}`,
      );
  }
}

function checkPlace(config: Config, { sites }: SiteObjectConfig, path: KeyPath, { wrong }: Findings): void {
  if (sites.length === 0) wrong(path, 'no site has a cluster: add "cluster: {}" to the sites where this is');
  for (const site of sites) {
    const known = Object.hasOwn(config.sites, site) ? config.sites[site] : undefined;
    if (known === undefined)
      wrong([...path, 'sites'], `there is no site "${site}"${suggestion(site, Object.keys(config.sites))}`);
    else if (known.cluster === undefined)
      wrong([...path, 'sites'], `site ${site} has no cluster: add "cluster: {}" to sites.${site}`);
  }
}
