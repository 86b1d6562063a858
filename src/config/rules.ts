import { formatDuration } from '../base/units.ts';
import { worstIntervalMs } from './cadence.ts';
import { checkEncryption } from './encryption.ts';
import { checkExecutor } from './executor-schema.ts';
import { checkObjectLock } from './object-lock.ts';
import { checkPlaces } from './places.ts';
import { type Findings, type KeyPath, suggestion } from './problems.ts';
import { checkTraffic } from './traffic-rules.ts';
import type { Cadence, Config, DirectoryConfig, ObjectsConfig } from './types.ts';
import { checkWorkloads } from './workloads.ts';

/** Everything that no single value shows: names that must exist, promises that must be possible, places that must not collide. */
export function checkRules(config: Config, findings: Findings): void {
  checkVaults(config, findings);
  checkObjectLock(config, findings);
  checkSites(config, findings);
  checkEncryption(config, findings);
  checkNames(config, findings);
  checkDatabases(config, findings);
  for (const directory of [...Object.values(config.data), ...Object.values(config.configuration)]) {
    checkDirectory(config, directory, findings);
  }
  for (const objects of Object.values(config.objects)) checkObjects(config, objects, findings);
  checkExecutor(config, findings);
  checkTraffic(config, findings);
  checkWorkloads(config, findings);
  checkProofs(config, findings);
  checkPlaces(config, findings);
}

function checkVaults(config: Config, { wrong }: Findings): void {
  const vaults = Object.values(config.vaults);
  const regions = new Set(vaults.map((vault) => vault.region));
  if (vaults.length === 0) wrong(['vaults'], 'there is no vault: name at least two, in two regions');
  else if (!config.allowSingleRegion && regions.size < 2) {
    const found = vaults.length === 1 ? 'there is only one vault' : `all vaults lie in ${vaults[0]?.region}`;
    wrong(
      ['vaults'],
      `${found}, so a disaster in that region takes the backups too: add a vault in another region, or write "allowSingleRegion: true" to accept this`,
    );
  }
  const byUrl = new Map<string, string>();
  for (const vault of vaults) {
    const place = `${vault.endpoint ?? ''} ${vault.url}`;
    const other = byUrl.get(place);
    if (other !== undefined)
      wrong(['vaults', vault.name, 'url'], `is the place of vault ${other}: two copies in one place are one copy`);
    byUrl.set(place, vault.name);
  }
}

function checkSites(config: Config, { wrong, doubtful }: Findings): void {
  const sites = Object.keys(config.sites);
  if (sites.length === 0) wrong(['sites'], 'there is no site: name the active one and where to recover');
  if (sites.length === 1)
    doubtful(['sites'], 'there is only one site: backups are taken, but there is nowhere to fail over to');
  if (!Object.hasOwn(config.sites, config.active))
    wrong(['active'], `there is no site "${config.active}"${suggestion(config.active, sites)}`);
  const byVault = new Map<string, string>();
  for (const site of Object.values(config.sites)) {
    const vault = Object.hasOwn(config.vaults, site.vault) ? config.vaults[site.vault] : undefined;
    if (vault === undefined) {
      wrong(
        ['sites', site.name, 'vault'],
        `there is no vault "${site.vault}"${suggestion(site.vault, Object.keys(config.vaults))}`,
      );
      continue;
    }
    if (vault.region !== site.region) {
      doubtful(
        ['sites', site.name, 'vault'],
        `vault ${vault.name} lies in ${vault.region} and the site in ${site.region}: recovery there depends on two regions`,
      );
    }
    const other = byVault.get(vault.name);
    if (other !== undefined)
      doubtful(
        ['sites', site.name, 'vault'],
        `is the vault of site ${other} too: each site should have the vault of its own region`,
      );
    byVault.set(vault.name, site.name);
  }
}

/** Resources share one name space in the vaults (some of which do not tell capitals apart) and on the command line. */
function checkNames(config: Config, { wrong, doubtful }: Findings): void {
  const seen = new Map<string, string>();
  for (const section of ['databases', 'data', 'configuration', 'objects'] as const) {
    const key = section === 'objects' ? 'configuration' : section;
    for (const name of Object.keys(config[section])) {
      const other = seen.get(name.toLowerCase());
      if (other !== undefined)
        wrong([key, name], `the name is taken by ${other}: every resource has a name of its own`);
      else seen.set(name.toLowerCase(), `${key}.${name}`);
    }
  }
  if (seen.size === 0) doubtful([], 'nothing is protected: add databases, data or configuration');
}

function checkDatabases(config: Config, { wrong, doubtful }: Findings): void {
  for (const database of Object.values(config.databases)) {
    const path = ['databases', database.name];
    const rpo = formatDuration(database.rpoMs);
    checkCadence([...path, 'schedule'], database.schedule, database.retentionMs, wrong);
    if (!database.wal.enabled) {
      const interval = worstIntervalMs(database.schedule);
      if (interval > database.rpoMs) {
        wrong(
          [...path, 'schedule'],
          `cannot keep the objective: without WAL up to ${formatDuration(interval)} are lost, and the RPO is ${rpo}; remove "wal.enabled: false", or back up at least every ${rpo}`,
        );
      }
    } else if (database.wal.flushEveryMs > database.rpoMs) {
      wrong(
        [...path, 'wal', 'flushEvery'],
        `cannot keep the objective: commits reach the vaults only every ${formatDuration(database.wal.flushEveryMs)}, and the RPO is ${rpo}; flush at least every ${rpo}`,
      );
    } else if (database.wal.flushEveryMs < 100) {
      wrong(
        [...path, 'wal', 'flushEvery'],
        'is shorter than 100ms: a vault would be asked more often than it can answer',
      );
    }
    checkRecover(config, path, database.recover, { wrong, doubtful });
  }
}

/** Objects of a cluster: there must be one, and Secrets are never stored readable. */
function checkObjects(config: Config, objects: ObjectsConfig, findings: Findings): void {
  const { wrong } = findings;
  const path = ['configuration', objects.name];
  const sites = [config.active, ...Object.keys(objects.recover)].filter((site) => Object.hasOwn(config.sites, site));
  // The dr of one site need not know how to reach the cluster of another.
  if (sites.length > 0 && sites.every((site) => config.sites[site]?.cluster === undefined)) {
    wrong(
      [...path, 'kubernetes'],
      `needs a cluster: add "sites.${config.active}.cluster" ({} = the one that dr runs in)`,
    );
  }
  if (objects.select.secrets && config.encryption === 'none') {
    wrong(
      [...path, 'kubernetes', 'secrets'],
      'stores Secrets, and the vaults are readable ("encryption: none"): name recipients, or leave Secrets out',
    );
  }
  checkDirectory(config, objects, findings);
}

function checkDirectory(
  config: Config,
  directory: DirectoryConfig | ObjectsConfig,
  { wrong, doubtful }: Findings,
): void {
  const path = [directory.kind, directory.name];
  if (directory.kind === 'data' && directory.schedule.kind === 'on-change') {
    wrong(
      [...path, 'schedule'],
      '"on change" is for configuration: application data changes all the time; write for example "hourly"',
    );
  }
  checkCadence([...path, 'schedule'], directory.schedule, directory.retentionMs, wrong);
  const interval = worstIntervalMs(directory.schedule);
  if (directory.rpoMs !== undefined && interval > directory.rpoMs) {
    wrong(
      [...path, 'schedule'],
      `cannot keep its own rpo: up to ${formatDuration(interval)} lie between two backups, and ${formatDuration(directory.rpoMs)} may be lost; back up more often, or allow more`,
    );
  }
  checkRecover(config, path, directory.recover, { wrong, doubtful });
}

function checkCadence(path: KeyPath, schedule: Cadence, retentionMs: number, wrong: Findings['wrong']): void {
  if (schedule.kind === 'on-change') {
    if (path[0] === 'databases') wrong(path, '"on change" is for configuration: write for example "every 6 hours"');
    return;
  }
  const interval = worstIntervalMs(schedule);
  if (retentionMs < interval) {
    wrong(
      [...path.slice(0, -1), 'retention'],
      `is shorter than the ${formatDuration(interval)} between two backups: the last one would be due for deletion before the next is there`,
    );
  }
}

function checkRecover(
  config: Config,
  path: KeyPath,
  recover: Readonly<Record<string, unknown>>,
  { wrong, doubtful }: Findings,
): void {
  const sites = Object.keys(config.sites);
  for (const site of Object.keys(recover)) {
    // A database is rebuilt there by a failback: where, only this says.
    if (site === config.active && path[0] === 'databases') continue;
    if (site === config.active)
      wrong([...path, 'recover', site], 'is the active site: its place is given above; name the other sites here');
    else if (!sites.includes(site))
      wrong([...path, 'recover', site], `there is no site "${site}"${suggestion(site, sites)}`);
  }
  const missing = sites.filter((site) => site !== config.active && !Object.hasOwn(recover, site));
  if (missing.length > 0) {
    doubtful(
      path,
      `has no place at ${missing.join(', ')}: it is backed up, but a failover there leaves it out; add it under "recover"`,
    );
  }
}

function checkProofs(config: Config, { wrong, doubtful }: Findings): void {
  const databases = Object.keys(config.databases);
  if (config.verification.schedule?.kind === 'on-change') {
    wrong(['verification', 'schedule'], '"on change" is for configuration: write for example "daily", or "never"');
  }
  if (config.daemon.retentionSchedule.kind === 'on-change') {
    wrong(['daemon', 'retention'], '"on change" is for configuration: write for example "daily"');
  }
  if (config.verification.schedule === undefined) {
    doubtful(['verification', 'schedule'], 'is "never": a backup that was never restored is a hope, not a backup');
  }
  for (const name of Object.keys(config.verification.checks)) {
    if (!databases.includes(name))
      wrong(['verification', 'checks', name], `there is no database "${name}"${suggestion(name, databases)}`);
  }
  config.validation.http.forEach((check, i) => {
    const sites = Object.keys(config.sites);
    if (!sites.includes(check.site)) {
      wrong(['validation', 'http', i, 'site'], `there is no site "${check.site}"${suggestion(check.site, sites)}`);
    }
  });
}
