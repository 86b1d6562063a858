import { fileURLToPath } from 'node:url';
import type { Findings, KeyPath } from './problems.ts';
import { parseDatabaseUrl } from './scalars.ts';
import type { Config } from './types.ts';

/** A folder of the configuration, and what it is for. */
interface Place {
  readonly keys: KeyPath;
  readonly path: string;
  readonly what: string;
}

/**
 * Places that must not collide. The sites may be different machines with equal folders, so the same path at two sites is
 * fine; a folder inside another one is a slip that would back up, or overwrite, the wrong thing.
 */
export function checkPlaces(config: Config, findings: Findings): void {
  const directories = [...Object.values(config.data), ...Object.values(config.configuration)];
  const sources = directories.map(
    (directory): Place => ({
      keys: [directory.kind, directory.name, 'path'],
      path: directory.path,
      what: `the folder of ${directory.name}`,
    }),
  );
  const vaults = Object.values(config.vaults)
    .filter((vault) => vault.url.startsWith('file:'))
    .map(
      (vault): Place => ({
        keys: ['vaults', vault.name, 'url'],
        path: fileURLToPath(vault.url),
        what: `vault ${vault.name}`,
      }),
    );

  // Protected folders: one inside another is stored twice; a vault or scratch inside one would back itself up.
  for (const [i, inner] of sources.entries()) {
    for (const [j, outer] of sources.entries()) {
      if (i === j) continue;
      if (inner.path === outer.path && i > j)
        findings.wrong(inner.keys, `is ${outer.what} too: one folder is one resource`);
      else if (isInside(inner.path, outer.path))
        findings.doubtful(inner.keys, `lies in ${outer.what}, which stores it too: exclude it there`);
    }
  }
  const scratch: Place = { keys: ['scratch'], path: config.scratch, what: 'the scratch folder' };
  for (const own of [...vaults, scratch]) refuseOverlap(own, sources, findings, 'a backup would store itself');
  for (const [i, vault] of vaults.entries()) {
    refuseOverlap(vault, [...vaults.slice(0, i), scratch], findings, 'each needs a place of its own');
  }

  for (const site of Object.keys(config.sites)) {
    const targets = targetsOf(config, site);
    for (const [i, target] of targets.entries()) {
      refuseOverlap(target, targets.slice(0, i), findings, 'a recovery would mix them');
      refuseOverlap(target, [...vaults, scratch], findings, 'a recovery would write into it');
      for (const source of sources) {
        if (isInside(target.path, source.path))
          findings.wrong(target.keys, `lies inside ${source.what}: a recovery would write into what is protected`);
      }
    }
    checkPorts(config, site, findings);
  }
  checkSlots(config, findings);
}

function targetsOf(config: Config, site: string): Place[] {
  const places: Place[] = [];
  for (const database of Object.values(config.databases)) {
    const target = Object.hasOwn(database.recover, site) ? database.recover[site] : undefined;
    if (target)
      places.push({
        keys: ['databases', database.name, 'recover', site, 'dataDirectory'],
        path: target.dataDirectory,
        what: `the data directory of ${database.name}`,
      });
  }
  for (const directory of [...Object.values(config.data), ...Object.values(config.configuration)]) {
    const target = Object.hasOwn(directory.recover, site) ? directory.recover[site] : undefined;
    if (target)
      places.push({
        keys: [directory.kind, directory.name, 'recover', site, 'path'],
        path: target.path,
        what: `the folder of ${directory.name} at ${site}`,
      });
  }
  return places;
}

function checkPorts(config: Config, site: string, findings: Findings): void {
  const taken = new Map<number, string>();
  for (const database of Object.values(config.databases)) {
    const target = Object.hasOwn(database.recover, site) ? database.recover[site] : undefined;
    if (!target) continue;
    const other = taken.get(target.port);
    if (other !== undefined)
      findings.wrong(
        ['databases', database.name, 'recover', site, 'port'],
        `${target.port} is the port of ${other} there: each server needs its own`,
      );
    else taken.set(target.port, database.name);
  }
}

/** A slot has one reader: two resources on one server must not share it, nor back up the same server twice unawares. */
function checkSlots(config: Config, findings: Findings): void {
  const taken = new Map<string, string>();
  for (const database of Object.values(config.databases)) {
    const url = parseDatabaseUrl(database.url);
    if (!url || !database.wal.enabled) continue;
    const server = `${url.searchParams.get('host') ?? url.hostname}:${url.searchParams.get('port') ?? (url.port || '5432')}`;
    const key = `${server} ${database.wal.slot}`;
    const other = taken.get(key);
    if (other !== undefined)
      findings.wrong(
        ['databases', database.name, 'wal'],
        `shares the slot ${database.wal.slot} of its server with ${other}: give it another "slot"`,
      );
    else taken.set(key, database.name);
  }
}

function refuseOverlap(place: Place, others: readonly Place[], findings: Findings, why: string): void {
  for (const other of others) {
    if (place.path === other.path) findings.wrong(place.keys, `is ${other.what} too: ${why}`);
    else if (isInside(place.path, other.path)) findings.wrong(place.keys, `lies inside ${other.what}: ${why}`);
    else if (isInside(other.path, place.path)) findings.wrong(place.keys, `holds ${other.what}: ${why}`);
  }
}

function isInside(inner: string, outer: string): boolean {
  return inner !== outer && inner.startsWith(`${outer.replace(/\/+$/, '')}/`);
}
