import { hash } from 'node:crypto';
import { DrError } from '../../base/errors.ts';
import { type Lsn, parseLsn, segmentStart } from '../../postgres/lsn.ts';
import { layout } from '../../vault/layout.ts';
import type { ObjectInfo, ObjectStore } from '../../vault/store.ts';
import { manifestOf } from '../catalog.ts';
import type { DatabaseFacts, Manifest, ResourceKind } from '../manifest.ts';

/** What retention keeps in memory of one manifest: little, because a vault may hold tens of thousands. */
export interface SurveyedBackup {
  readonly resource: string;
  readonly id: string;
  readonly kind: ResourceKind;
  readonly recoveryPointMs: number;
  readonly finishedAtMs: number;
  readonly storedBytes: number;
  /** Which parts it needs, by the backup that wrote them. */
  readonly parts: PartUse;
  readonly keyIds: readonly string[];
  /** The WAL that a recovery of it begins with, and cannot do without: whole segments. */
  readonly wal:
    | { readonly systemId: string; readonly from: Lsn; readonly until: Lsn; readonly segmentBytes: number }
    | undefined;
}

/** Parts by the backup that wrote them; a number n stands for the parts 0 to n-1. */
export type PartUse = ReadonlyMap<string, number | ReadonlySet<number>>;

/** By the SHA-256 of the manifest as stored. */
export type SeenManifests = Map<string, SurveyedBackup>;

/** All manifests of one vault. */
export interface VaultSurvey {
  readonly store: ObjectStore;
  /** By resource and id. */
  readonly backups: ReadonlyMap<string, ReadonlyMap<string, SurveyedBackup>>;
  /** Manifests that are there and cannot be read. */
  readonly unreadable: ReadonlyArray<{
    readonly resource: string;
    readonly id: string;
    readonly key: string;
    readonly error: unknown;
  }>;
}

/**
 * Reads every manifest of a vault, except those that `known` (an earlier survey of the same vault) has: they never change. Surveys of several
 * vaults at once share `seen`, so that what is byte for byte the same in them is read in each and taken apart once.
 */
export async function surveyVault(
  store: ObjectStore,
  signal?: AbortSignal,
  known?: VaultSurvey,
  seen: SeenManifests = new Map(),
): Promise<VaultSurvey> {
  const backups = new Map<string, Map<string, SurveyedBackup>>();
  const unreadable: Array<{ resource: string; id: string; key: string; error: unknown }> = [];
  const add = (backup: SurveyedBackup) => {
    const ofResource = backups.get(backup.resource) ?? new Map<string, SurveyedBackup>();
    backups.set(backup.resource, ofResource.set(backup.id, backup));
  };
  const unknown = new Map<string, { readonly resource: string; readonly id: string }>();
  for await (const { key, resource, id } of manifestIds(store, signal)) {
    const backup = known?.backups.get(resource)?.get(id);
    if (backup) add(backup);
    else unknown.set(key, { resource, id });
  }
  for await (const outcome of store.readEach(unknown.keys(), { signal })) {
    const { resource, id } = unknown.get(outcome.key) ?? { resource: '', id: '' };
    try {
      if ('error' in outcome) throw outcome.error;
      add(surveyedOnce(outcome.bytes, store, resource, id, seen));
    } catch (error) {
      if (!(error instanceof DrError && (error.kind === 'corrupt' || error.kind === 'refused'))) throw error;
      unreadable.push({ resource, id, key: outcome.key, error });
    }
  }
  return { store, backups, unreadable };
}

function surveyedOnce(
  bytes: Uint8Array,
  store: ObjectStore,
  resource: string,
  id: string,
  seen: SeenManifests,
): SurveyedBackup {
  const digest = hash('sha256', bytes, 'base64');
  const same = seen.get(digest);
  if (same?.resource === resource && same.id === id) return same;
  const backup = surveyed(manifestOf(bytes, store, resource, id), store);
  seen.set(digest, backup);
  return backup;
}

export function everyBackup(survey: VaultSurvey): SurveyedBackup[] {
  return [...survey.backups.values()].flatMap((backups) => [...backups.values()]);
}

/** Each backup once: the same id in two vaults is the same backup. */
export function unionOf(...lists: ReadonlyArray<Iterable<SurveyedBackup>>): SurveyedBackup[] {
  const union = new Map<string, SurveyedBackup>();
  for (const list of lists) for (const backup of list) union.set(`${backup.resource}/${backup.id}`, backup);
  return [...union.values()];
}

async function* manifestIds(
  store: ObjectStore,
  signal: AbortSignal | undefined,
): AsyncGenerator<{ key: string; resource: string; id: string }> {
  const pattern = /^manifests\/([^/]+)\/([^/]+)\.json$/;
  for await (const key of namesInOrder(store, layout.manifests(), signal)) {
    const match = pattern.exec(key);
    // A stranger's file is no manifest, but what stands beside it is then in doubt as well.
    if (!match?.[1] || !match[2]) throw doubt(store, key, 'it is not a manifest, but lies among them');
    yield { key, resource: match[1], id: match[2] };
  }
}

/** A listing that is checked while it is read: what is out of order or out of place was not made by a listing that is whole. */
export function listInOrder(
  store: ObjectStore,
  prefix: string,
  signal: AbortSignal | undefined,
  before?: string,
): AsyncGenerator<ObjectInfo> {
  return inOrder(store, prefix, store.list(prefix, { signal, before }));
}

/** The same for names alone. */
export function namesInOrder(
  store: ObjectStore,
  prefix: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<string> {
  return inOrder(store, prefix, store.names(prefix, { signal }));
}

async function* inOrder<T extends string | ObjectInfo>(
  store: ObjectStore,
  prefix: string,
  listing: AsyncIterable<T>,
): AsyncGenerator<T> {
  let last = '';
  for await (const entry of listing) {
    const key = typeof entry === 'string' ? entry : entry.key;
    if (!key.startsWith(prefix) || key <= last) {
      throw doubt(store, key, 'the listing is not in order, so it may not be complete');
    }
    last = key;
    yield entry;
  }
}

/** The error for anything that makes deleting unsafe. */
export function doubt(store: ObjectStore, key: string, what: string, cause?: unknown): DrError {
  return new DrError('refused', `nothing more is deleted from vault ${store.name}: ${what}`, {
    where: `${store.location}/${key}`,
    next: 'Find out why (`dr doctor`, the log of the store), then run `dr retention` again.',
    cause,
  });
}

const partKey = /^parts\/([^/]+)\/([^/]+)\/(\d{6,})$/;

/** Resource, backup and number in the key of a part; undefined if it is none. */
export function parsePartKey(key: string): { resource: string; id: string; number: number } | undefined {
  const match = partKey.exec(key);
  if (!match?.[1] || !match[2]) return undefined;
  return { resource: match[1], id: match[2], number: Number(match[3]) };
}

/** True when `use` names part `number` of backup `id`. */
export function usesPart(use: PartUse, id: string, number: number): boolean {
  const used = use.get(id);
  return typeof used === 'number' ? number < used : used?.has(number) === true;
}

/** What is kept of a manifest. Throws `refused` where it names an index or part at a place that is none. */
export function surveyed(manifest: Manifest, store: ObjectStore): SurveyedBackup {
  const { resource, id, kind, storedBytes, index, parts, database } = manifest;
  const key = layout.manifest(resource, id);
  if (index.key !== layout.index(resource, id)) throw doubt(store, key, `its index has an unknown name (${index.key})`);
  const numbers = new Map<string, Set<number>>();
  for (const part of parts) {
    const at = parsePartKey(part.key);
    if (!at || at.resource !== resource) throw doubt(store, key, `it names a part at an unknown place (${part.key})`);
    const known = numbers.get(at.id);
    if (known) known.add(at.number);
    else numbers.set(at.id, new Set([at.number]));
  }
  const use = new Map<string, number | ReadonlySet<number>>();
  for (const [owner, set] of numbers) use.set(owner, isRun(set) ? set.size : set);
  const keyIds = new Set([index, ...parts].flatMap(({ keyId }) => (keyId === undefined ? [] : [keyId])));
  return {
    resource,
    id,
    kind,
    recoveryPointMs: Date.parse(manifest.recoveryPoint),
    finishedAtMs: Date.parse(manifest.finishedAt),
    storedBytes,
    parts: use,
    keyIds: [...keyIds],
    wal: database && walOf(database),
  };
}

function walOf({ systemId, startLsn, endLsn, segmentBytes }: DatabaseFacts): SurveyedBackup['wal'] {
  const from = segmentStart(parseLsn(startLsn) ?? 0n, segmentBytes);
  const last = segmentStart((parseLsn(endLsn) ?? 1n) - 1n, segmentBytes);
  return { systemId, from, until: last + BigInt(segmentBytes), segmentBytes };
}

function isRun(numbers: ReadonlySet<number>): boolean {
  for (let i = 0; i < numbers.size; i++) if (!numbers.has(i)) return false;
  return true;
}
