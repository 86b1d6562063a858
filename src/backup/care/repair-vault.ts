import { DrError, isAbort } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { storeDocuments, versionedKey } from '../../vault/documents.ts';
import { FORMAT_VERSION, layout } from '../../vault/layout.ts';
import { acquireLease } from '../../vault/lease.ts';
import { encodeRecord } from '../../vault/record.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { decodeManifest, type Manifest } from '../manifest.ts';
import { RETENTION_LEASE } from '../retention/collect-check.ts';
import { syncWal } from '../wal/sync.ts';
import { type CheckOptions, examineVault, type VaultCheck } from './check-vault.ts';
import type { VaultProblem } from './check-vault-findings.ts';
import { readMarker, requireContent, rosterEntry } from './check-vault-marker.ts';
import { copyMissing, type RepairResult } from './repair.ts';
import { mendObject } from './repair-objects.ts';
import type { Mended, Mending } from './repair-replace.ts';

export interface RepairVaultOptions extends CheckOptions {
  readonly log: Log;
}

export interface MendedObject {
  readonly key: string;
  readonly done: Mended['how'];
  /** The vault that the good copy came from. */
  readonly from?: string;
}

export interface VaultRepair {
  readonly vault: string;
  readonly mended: readonly MendedObject[];
  /** Backups that the vault lacked altogether and has now. */
  readonly copied: ReadonlyArray<{ readonly resource: string; readonly id: string; readonly bytes: number }>;
  /** WAL objects that it lacked and has now. */
  readonly walCopied: number;
  /** What could not be mended, by key, and why. */
  readonly failed: ReadonlyArray<{ readonly key: string; readonly error: unknown }>;
  /** The check afterwards, as deep as the one before. */
  readonly check: VaultCheck;
}

/** What is mended brings more to light (a manifest names its parts); a pass that mends nothing is the last one. */
const MOST_PASSES = 6;
/** Keys before what is sealed with them, content before the manifest that names it. */
const order: readonly VaultProblem['kind'][] = ['hint', 'key', 'content', 'manifest', 'record', 'wal'];

interface Work {
  readonly options: RepairVaultOptions;
  readonly mended: MendedObject[];
  readonly copied: Array<VaultRepair['copied'][number]>;
  walCopied: number;
  readonly failed: Map<string, unknown>;
}

/**
 * Mends what a check finds from the other vaults: no identity is needed, every copy is checked before it takes a place, and it can be
 * interrupted and repeated at any time. Damaged objects are replaced even while a hold stands: a hold keeps what can be read, and
 * nothing that is good is ever removed. Holds the lease `retention` of the vault. Foreign objects are left alone.
 */
export async function repairVault(options: RepairVaultOptions): Promise<VaultRepair> {
  const work: Work = { options, mended: [], copied: [], walCopied: 0, failed: new Map() };
  let check = await examineVault(options);
  for (let pass = 1; pass <= MOST_PASSES && check.problems.length > 0; pass++) {
    const before = work.mended.length + work.copied.length + work.walCopied;
    work.failed.clear();
    // Without them the lease below cannot be had.
    const first = check.problems.filter(({ kind }) => kind === 'marker' || kind === 'lease' || kind === 'document');
    for (const problem of first) await mend(work, mendingOf(options), problem);
    await mendUnderLease(work, check.problems);
    await copyBackups(work, check.problems);
    await copyWal(work, check.problems);
    check = await examineVault(options);
    if (work.mended.length + work.copied.length + work.walCopied === before) break;
  }
  const left = new Set(check.problems.map(({ key }) => key));
  const failed = [...work.failed].flatMap(([key, error]) => (left.has(key) ? [{ key, error }] : []));
  const { mended, copied, walCopied } = work;
  return { vault: options.store.name, mended, copied, walCopied, failed, check };
}

function mendingOf({ store, others, clock, signal }: RepairVaultOptions): Mending {
  return { target: store, sources: others, nowMs: clock.now(), signal };
}

async function mendUnderLease(work: Work, problems: readonly VaultProblem[]): Promise<void> {
  const { store, clock, log, signal, onProgress } = work.options;
  const objects = problems
    .filter(
      ({ kind, state }) => order.includes(kind) && !(state === 'missing' && (kind === 'manifest' || kind === 'wal')),
    )
    .sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind));
  if (objects.length === 0) return;
  const lease = await acquireLease(store, RETENTION_LEASE, { purpose: 'repair', clock, log, signal });
  const both = signal ? AbortSignal.any([signal, lease.signal]) : lease.signal;
  try {
    for (const [done, problem] of objects.entries()) {
      onProgress?.({
        task: `repair ${store.name}`,
        done,
        total: objects.length,
        unit: 'objects',
        detail: problem.key,
      });
      await lease.stillHeld();
      await mend(work, { ...mendingOf(work.options), signal: both }, problem);
    }
  } catch (error) {
    throw lease.signal.aborted && !signal?.aborted ? lease.signal.reason : error;
  } finally {
    await lease.release();
  }
}

/** What is wrong with one object does not keep the others from being mended; what is wrong with the vault does. */
async function mend({ options, mended, failed }: Work, mending: Mending, problem: VaultProblem): Promise<void> {
  const { key, kind } = problem;
  try {
    const result =
      kind === 'marker'
        ? await mendMarker(options)
        : kind === 'document'
          ? await mendDocument(options, key)
          : await mendObject(mending, problem);
    if (result.how === 'good already') return;
    mended.push({ key, done: result.how, ...('from' in result ? { from: result.from } : {}) });
    options.log.info({ vault: options.store.name, key, done: result.how }, 'mended');
  } catch (error) {
    if (mending.signal?.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
    if (['unreachable', 'local', 'internal'].includes(error.kind)) throw error;
    options.log.warn({ vault: options.store.name, key, error }, 'an object could not be mended');
    failed.set(key, error);
  }
}

/** Writes the marker again with the id that the vaults know it by. Only where objects of `dr` still lie: never into an empty place. */
async function mendMarker({ store, others, clock, signal }: RepairVaultOptions): Promise<Mended> {
  const where = `${store.location}/${layout.marker}`;
  const entry = await rosterEntry(store, others, signal);
  if (!entry) throw new DrError('refused', `no vault says what vault ${store.name} is`, { where });
  await requireContent(store, signal);
  const found = await readMarker(store, entry, signal);
  if (found.state === 'good') return { how: 'good already' };
  const known = found.state === 'damaged' ? found.marker : undefined;
  const createdAt = known && !Number.isNaN(Date.parse(known.createdAt)) ? known.createdAt : undefined;
  const marker = {
    format: FORMAT_VERSION,
    id: entry.id,
    createdAt: createdAt ?? new Date(clock.now()).toISOString(),
    ...(known?.system === undefined ? {} : { system: known.system }),
  };
  if (found.state === 'damaged') await store.delete([layout.marker], { signal });
  await store.create(layout.marker, encodeRecord(marker), { signal });
  return { how: 'written anew' };
}

/** Puts the text of this `dr` under its name, or beside another text: which one was right cannot be told. */
async function mendDocument({ store, documents, signal }: RepairVaultOptions, key: string): Promise<Mended> {
  const text = documents?.[key] ?? '';
  // The check has found that what lies there is not what its name says.
  await store.delete([versionedKey(key, Buffer.from(text))], { signal });
  await storeDocuments(store, { [key]: text }, { signal });
  return { how: 'written anew' };
}

async function copyBackups(work: Work, problems: readonly VaultProblem[]): Promise<void> {
  const { store, others, policies, clock, log, onProgress, signal } = work.options;
  const lacking = problems.filter(({ kind, state }) => kind === 'manifest' && state === 'missing');
  if (lacking.length === 0) return;
  let result: RepairResult;
  try {
    result = await copyMissing({ from: others, to: store, policies, clock, log, onProgress, signal });
  } catch (error) {
    // A stranger's file among the manifests: the rest is mended all the same.
    if (!(error instanceof DrError && error.kind === 'refused')) throw error;
    for (const { key } of lacking) work.failed.set(key, error);
    return;
  }
  work.copied.push(...result.copied);
  for (const { resource, id, error } of result.failed) {
    work.failed.set(layout.manifest(resource, id), error);
    // What an interrupted backup or copy has left here may be damaged: then it is in the way of the good one.
    const manifest = await manifestFrom(others, resource, id, signal);
    const problems = (manifest ? [manifest.index, ...manifest.parts] : []).map(
      ({ key, size, sha256 }): VaultProblem => ({
        state: 'damaged',
        kind: 'content',
        key,
        why: 'it is in the way of its backup',
        touches: [],
        content: { size, sha256 },
      }),
    );
    await mendUnderLease(work, problems);
  }
}

async function manifestFrom(
  sources: readonly ObjectStore[],
  resource: string,
  id: string,
  signal: AbortSignal | undefined,
): Promise<Manifest | undefined> {
  const key = layout.manifest(resource, id);
  for (const source of sources) {
    try {
      return decodeManifest(await source.read(key, undefined, { signal }), `${source.location}/${key}`);
    } catch (error) {
      if (signal?.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
    }
  }
  return undefined;
}

async function copyWal(work: Work, problems: readonly VaultProblem[]): Promise<void> {
  const { store, others, log, signal } = work.options;
  const bySystem = Map.groupBy(
    problems.filter(({ lineage }) => lineage !== undefined),
    ({ lineage }) => lineage?.systemId ?? '',
  );
  for (const [systemId, ofSystem] of bySystem) {
    const lineage = ofSystem[0]?.lineage;
    if (!lineage) continue;
    const from = { timeline: 1, lsn: lineage.from };
    const { segmentBytes } = lineage;
    try {
      const result = await syncWal({ sources: others, target: store, systemId, from, segmentBytes, log, signal });
      work.walCopied += result.copied;
      for (const { key, error } of result.failed) work.failed.set(key, error);
    } catch (error) {
      if (signal?.aborted || isAbort(error) || !(error instanceof DrError) || error.kind !== 'conflict') throw error;
      for (const { key } of ofSystem) work.failed.set(key, error);
    }
  }
}
