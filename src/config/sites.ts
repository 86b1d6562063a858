import { DrError } from '../base/errors.ts';
import { suggestion } from './problems.ts';
import type {
  ClusterAccess,
  Config,
  DatabaseConfig,
  DatabaseTarget,
  DirectoryConfig,
  ObjectsConfig,
  ObjectsTarget,
  SiteConfig,
  VaultConfig,
} from './types.ts';

/** Where everything is at one site. A resource that has no place there is missing from the maps and named in `without`. */
export interface SitePlaces {
  readonly site: SiteConfig;
  /** The vault of the site's own region. */
  readonly vault: VaultConfig;
  readonly databases: Readonly<Record<string, DatabasePlace>>;
  /** Data sets and configurations, by name. */
  readonly directories: Readonly<Record<string, DirectoryPlace>>;
  /** Configurations that lie in the cluster of the site, by name. */
  readonly objects: Readonly<Record<string, ObjectsPlace>>;
  /** Names of the resources that have no place at this site. */
  readonly without: readonly string[];
  /** What each traffic name points to when this site is active; names without an endpoint here are missing. */
  readonly endpoints: Readonly<Record<string, string>>;
}

export interface DatabasePlace {
  readonly database: DatabaseConfig;
  /** How it is connected to when this site is active. */
  readonly url: string;
  /** How it is brought up here; at the site that the file calls active only where a failback may rebuild it. */
  readonly target: DatabaseTarget | undefined;
}

export interface DirectoryPlace {
  readonly directory: DirectoryConfig;
  readonly path: string;
}

export interface ObjectsPlace {
  /** With the namespaces as they are called at the site. */
  readonly objects: ObjectsConfig;
  readonly cluster: ClusterAccess;
  /** How it is brought up here; undefined at the site that the file calls active. */
  readonly target: ObjectsTarget | undefined;
}

/**
 * The paths and URLs of every resource at `site`: the top-level ones at the site that the file calls active, those
 * under `recover` elsewhere. It does not say who is active now: that is a record in the vaults.
 */
export function forSite(config: Config, site: string): SitePlaces {
  const siteConfig = Object.hasOwn(config.sites, site) ? config.sites[site] : undefined;
  const vault = siteConfig && config.vaults[siteConfig.vault];
  if (siteConfig === undefined || vault === undefined) {
    throw new DrError('not-found', `there is no site "${site}"${suggestion(site, Object.keys(config.sites))}`, {
      where: config.source.path,
      next: 'Name one of the sites of the configuration.',
    });
  }
  const first = site === config.active;
  const databases: Record<string, DatabasePlace> = {};
  const directories: Record<string, DirectoryPlace> = {};
  const objects: Record<string, ObjectsPlace> = {};
  const without: string[] = [];
  for (const database of Object.values(config.databases)) {
    const target = Object.hasOwn(database.recover, site) ? database.recover[site] : undefined;
    if (first) databases[database.name] = { database, url: database.url, target };
    else if (target) databases[database.name] = { database, url: target.url, target };
    else without.push(database.name);
  }
  for (const directory of [...Object.values(config.data), ...Object.values(config.configuration)]) {
    const target = Object.hasOwn(directory.recover, site) ? directory.recover[site] : undefined;
    if (first) directories[directory.name] = { directory, path: directory.path };
    else if (target) directories[directory.name] = { directory, path: target.path };
    else without.push(directory.name);
  }
  for (const each of Object.values(config.objects)) {
    const target = Object.hasOwn(each.recover, site) ? each.recover[site] : undefined;
    if (siteConfig.cluster && (first || target))
      objects[each.name] = { objects: calledAt(each, target), cluster: siteConfig.cluster, target };
    else without.push(each.name);
  }
  const endpoints: Record<string, string> = {};
  for (const traffic of Object.values(config.traffic)) {
    const endpoint = Object.hasOwn(traffic.endpoints, site) ? traffic.endpoints[site] : undefined;
    if (endpoint !== undefined) endpoints[traffic.name] = endpoint;
  }
  return { site: siteConfig, vault, databases, directories, objects, without, endpoints };
}

function calledAt(objects: ObjectsConfig, target: ObjectsTarget | undefined): ObjectsConfig {
  const { namespaces } = objects.select;
  if (target === undefined || namespaces === undefined) return objects;
  const there = namespaces.map(
    (name) => (Object.hasOwn(target.namespaces, name) ? target.namespaces[name] : name) ?? name,
  );
  return { ...objects, select: { ...objects.select, namespaces: there } };
}
