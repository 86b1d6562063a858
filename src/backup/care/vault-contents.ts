import { DrError, isAbort, messageOf } from '../../base/errors.ts';
import { formatLsn, parseLsn } from '../../postgres/lsn.ts';
import { layout, timeOfId } from '../../vault/layout.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { listBackupIds, listResources, readManifest } from '../catalog.ts';
import { walCoverage } from '../wal/coverage.ts';
import { readCare, type VaultCare } from './care-record.ts';

/** What one vault holds of one resource. */
export interface HeldResource {
  readonly resource: string;
  readonly backups: number;
  readonly newestId: string | undefined;
  /** Ids of backups that another vault has and this one lacks, oldest first. */
  readonly missing: readonly string[];
  /** Bytes of parts and indexes. */
  readonly bytes: number;
}

/** The archived WAL of one PostgreSQL system. */
export interface HeldWal {
  readonly systemId: string;
  /** Databases of the configuration or the manifests that it belongs to. */
  readonly resources: readonly string[];
  readonly bytes: number;
  readonly timeline?: number | undefined;
  /** First and last LSN of the newest stretch without a hole. */
  readonly from?: string | undefined;
  readonly to?: string | undefined;
  /** By the server's clock, milliseconds since 1970; 0 = not known. */
  readonly coveredUntilMs: number;
  /** How far it is behind the vault that reaches furthest; bytes only on the same timeline. */
  readonly behind?: { readonly ms: number; readonly bytes?: number } | undefined;
  readonly problem?: string | undefined;
}

export interface VaultContents {
  readonly vault: string;
  readonly region: string;
  readonly location: string;
  /** Why nothing is known of it. */
  readonly problem?: string | undefined;
  readonly resources: readonly HeldResource[];
  readonly wal: readonly HeldWal[];
  /** What its last check has found and its last repair mended; undefined = no word of one. */
  readonly care?: VaultCare | undefined;
}

/** What all vaults together say about one resource. */
export interface ResourceSpread {
  readonly resource: string;
  readonly newestId: string;
  /** Regions that have the newest backup. */
  readonly regions: readonly string[];
  /** True when that is more than one. */
  readonly crossRegion: boolean;
  /** The newest backup that lies in more than one region. */
  readonly sharedId: string | undefined;
  /** Since when the newest state lies in one region only, milliseconds since 1970: the first backup that did. */
  readonly aloneSinceMs?: number | undefined;
}

export interface VaultList {
  readonly vaults: readonly VaultContents[];
  readonly resources: readonly ResourceSpread[];
}

interface Found {
  readonly store: ObjectStore;
  /** Ids of backups by resource, oldest first. */
  readonly ids: ReadonlyMap<string, readonly string[]>;
  readonly bytes: ReadonlyMap<string, number>;
  readonly wal: readonly HeldWal[];
}

/** Lists every vault: names and sizes, and the few manifests and headers that tell what the WAL belongs to. Reads only. */
export async function listVaults(stores: readonly ObjectStore[], signal?: AbortSignal): Promise<VaultList> {
  const found = await Promise.all(
    stores.map(async (store): Promise<Found | { store: ObjectStore; error: unknown }> => {
      try {
        return await look(store, signal);
      } catch (error) {
        if (signal?.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
        return { store, error };
      }
    }),
  );
  const known = found.filter((vault) => 'ids' in vault);
  const cares = new Map<string, VaultCare | undefined>();
  const answering = known.map(({ store }) => store);
  for (const { name } of stores) cares.set(name, await readCare(answering, name, signal));
  const names = [...new Set(known.flatMap(({ ids }) => [...ids.keys()]))].sort();
  const union = new Map(
    names.map((name) => [name, [...new Set(known.flatMap(({ ids }) => ids.get(name) ?? []))].sort()]),
  );
  const resources = names.flatMap((resource) => spreadOf(resource, union.get(resource) ?? [], known));
  const reach = furthest(known.flatMap(({ wal }) => wal));
  const vaults = found.map((vault): VaultContents => {
    const { name, region, location } = vault.store;
    const place = { vault: name, region, location };
    const care = cares.get(name);
    const common = { ...place, ...(care ? { care } : {}) };
    if (!('ids' in vault)) return { ...common, problem: messageOf(vault.error), resources: [], wal: [] };
    return {
      ...common,
      resources: names.map((resource) => held(vault, resource, union.get(resource) ?? [])),
      wal: vault.wal.map((wal) => ({ ...wal, ...behindOf(wal, reach.get(wal.systemId)) })),
    };
  });
  return { vaults, resources };
}

/** Where the backups of one resource lie; `all`: the ids of all vaults, oldest first. */
function spreadOf(resource: string, all: readonly string[], known: readonly Found[]): ResourceSpread[] {
  const newestId = all.at(-1);
  if (newestId === undefined) return [];
  const having = known.map(({ store, ids }) => ({ region: store.region, ids: new Set(ids.get(resource)) }));
  const regionsOf = (id: string) => new Set(having.flatMap(({ region, ids }) => (ids.has(id) ? [region] : [])));
  const regions = [...regionsOf(newestId)].sort();
  const shared = all.findLastIndex((id) => regionsOf(id).size > 1);
  const firstAlone = all[shared + 1];
  const aloneSinceMs = firstAlone === undefined ? undefined : timeOfId(firstAlone);
  const crossRegion = regions.length > 1;
  return [
    { resource, newestId, regions, crossRegion, sharedId: all[shared], ...(crossRegion ? {} : { aloneSinceMs }) },
  ];
}

/** Of each PostgreSQL system, the archive that reaches furthest. */
function furthest(archives: readonly HeldWal[]): Map<string, HeldWal> {
  const reach = new Map<string, HeldWal>();
  for (const wal of archives) {
    if (wal.coveredUntilMs > (reach.get(wal.systemId)?.coveredUntilMs ?? 0)) reach.set(wal.systemId, wal);
  }
  return reach;
}

function behindOf(wal: HeldWal, best: HeldWal | undefined): Pick<HeldWal, 'behind'> {
  if (!best || best === wal || wal.coveredUntilMs === 0) return {};
  const [own, other] = [parseLsn(wal.to ?? ''), parseLsn(best.to ?? '')];
  const same = wal.timeline === best.timeline && own !== undefined && other !== undefined;
  const bytes = same && other > own ? Number(other - own) : same ? 0 : undefined;
  return { behind: { ms: best.coveredUntilMs - wal.coveredUntilMs, ...(bytes === undefined ? {} : { bytes }) } };
}

function held({ ids, bytes }: Found, resource: string, all: readonly string[]): HeldResource {
  const own = new Set(ids.get(resource));
  return {
    resource,
    backups: own.size,
    newestId: ids.get(resource)?.at(-1),
    missing: all.filter((id) => !own.has(id)),
    bytes: bytes.get(resource) ?? 0,
  };
}

async function look(store: ObjectStore, signal: AbortSignal | undefined): Promise<Found> {
  const ids = new Map<string, string[]>();
  const systems = new Map<string, Set<string>>();
  for (const resource of await listResources(store)) {
    const ofResource = await listBackupIds(store, resource);
    ids.set(resource, ofResource);
    const newest = ofResource.at(-1);
    const manifest = newest === undefined ? undefined : await orNothing(readManifest(store, resource, newest));
    const systemId = manifest?.database?.systemId;
    if (systemId !== undefined) systems.set(systemId, (systems.get(systemId) ?? new Set()).add(resource));
  }
  const bytes = new Map<string, number>();
  for (const folder of ['parts/', 'indexes/']) {
    for await (const { key, size } of store.list(folder, { signal })) {
      const resource = key.split('/')[1] ?? '';
      bytes.set(resource, (bytes.get(resource) ?? 0) + size);
    }
  }
  const wal: HeldWal[] = [];
  for (const systemId of await store.folders('wal/', { signal })) {
    wal.push(await lookAtWal(store, systemId, [...(systems.get(systemId) ?? [])].sort(), signal));
  }
  return { store, ids, bytes, wal };
}

async function lookAtWal(
  store: ObjectStore,
  systemId: string,
  resources: readonly string[],
  signal: AbortSignal | undefined,
): Promise<HeldWal> {
  let bytes = 0;
  for await (const { size } of store.list(layout.walSystem(systemId), { signal })) bytes += size;
  const common = { systemId, resources, bytes };
  try {
    const [resource] = resources;
    const coverage = await walCoverage(store, systemId, {
      ...(resource === undefined ? {} : { resource }),
      ...(signal === undefined ? {} : { signal }),
    });
    const timeline = coverage.timelines.find((each) => each.timeline === coverage.end?.timeline);
    const range = timeline?.ranges.at(-1);
    return {
      ...common,
      coveredUntilMs: coverage.coveredUntilMs,
      ...(timeline ? { timeline: timeline.timeline } : {}),
      ...(range ? { from: formatLsn(range.start), to: formatLsn(range.end) } : {}),
    };
  } catch (error) {
    if (!(error instanceof DrError && ['corrupt', 'refused', 'not-found'].includes(error.kind))) throw error;
    return { ...common, coveredUntilMs: 0, problem: messageOf(error) };
  }
}

/** What a damaged manifest says is not known here; the check names it. */
async function orNothing<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (error instanceof DrError && ['corrupt', 'refused', 'not-found'].includes(error.kind)) return undefined;
    throw error;
  }
}
