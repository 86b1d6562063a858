import { forEachLimit } from '../../base/concurrency.ts';
import { DrError, isAbort } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { storeDocuments, versionedKey } from '../../vault/documents.ts';
import { FORMAT_VERSION, layout } from '../../vault/layout.ts';
import { acquireLease } from '../../vault/lease.ts';
import { encodeRecord } from '../../vault/record.ts';
import { RETENTION_LEASE } from '../retention/collect-check.ts';
import { syncWal } from '../wal/sync.ts';
import { type CheckOptions, type Examination, examine, type VaultCheck } from './check-vault.ts';
import type { VaultProblem } from './check-vault-findings.ts';
import { readMarker, requireContent, rosterEntry } from './check-vault-marker.ts';
import { hiddenViews, revealMissing } from './hidden-view.ts';
import { findLosses, type Loss } from './losses.ts';
import { copyMissing } from './repair.ts';
import { mendObject } from './repair-objects.ts';
import { isGood, type Mended, type Mending, putInPlace } from './repair-replace.ts';

export interface RepairVaultOptions extends CheckOptions {
  readonly log: Log;
  /** A check of the vault that was made a moment ago with the same options: the repair begins with what it found. */
  readonly found?: Examination | undefined;
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
  /** What cannot be brought back any more, from any vault that answers. */
  readonly losses: readonly Loss[];
  /** Of the content that was read before, what was good is not read again by the check afterwards; what was mended is. */
  readonly check: VaultCheck;
  /** Of the check before. */
  readonly readBytes: number;
}

/** What is mended brings more to light (a manifest names its parts); a pass that mends nothing is the last one. */
const MOST_PASSES = 6;
/** Objects mended at once, up to 16 MiB each and its bad copy. */
const MENDS_IN_FLIGHT = 3;
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
export async function repairVault(given: RepairVaultOptions): Promise<VaultRepair> {
  const views = await hiddenViews(given.store, given.signal);
  const options = { ...given, others: [...given.others, ...views] };
  const work: Work = { options, mended: [], copied: [], walCopied: 0, failed: new Map() };
  const first = options.found ?? (await examine(options));
  const touched = new Set<string>(options.also);
  let last = first;
  for (const view of views) {
    const back = await revealMissing(view, options.store, first.check.problems, options.log, options.signal);
    for (const key of back) work.mended.push({ key, done: 'revealed' });
    if (back.length > 0) last = await examine({ ...options, data: undefined, also: new Set([...touched, ...back]) });
  }
  for (let pass = 1; last.check.problems.length > 0; pass++) {
    const { problems, moreProblems } = last.check;
    // Of very many a check keeps a part only.
    if (pass > MOST_PASSES && moreProblems === 0) break;
    const before = progressOf(work);
    work.failed.clear();
    for (const { key } of problems) touched.add(key);
    await mendAll(work, problems);
    // What was read and found good is not read again; a manifest that has come back names content that nobody has looked at.
    const isNamed = problems.some(({ kind, state }) => kind === 'manifest' && state === 'damaged');
    last = await examine({ ...options, data: isNamed ? options.data : undefined, also: touched });
    if (progressOf(work) === before) break;
  }
  const { check } = last;
  const left = new Set(check.problems.map(({ key }) => key));
  const failed = [...work.failed].flatMap(([key, error]) => (left.has(key) ? [{ key, error }] : []));
  const { mended, copied, walCopied } = work;
  const losses = await findLosses({ ...options, last, failed: new Map(failed.map(({ key, error }) => [key, error])) });
  const { readBytes } = first.check;
  return { vault: options.store.name, mended, copied, walCopied, failed, losses, check, readBytes };
}

function progressOf({ mended, copied, walCopied }: Work): number {
  return mended.length + copied.length + walCopied;
}

async function mendAll(work: Work, problems: readonly VaultProblem[]): Promise<void> {
  const { store } = work.options;
  // Without them the lease cannot be had.
  const first = problems.filter(({ kind }) => kind === 'marker' || kind === 'lease' || kind === 'document');
  for (const problem of first) await mend(work, mendingOf(work.options), problem);
  await mendUnderLease(work, problems);
  await copyBackups(work, problems);
  await copyWal(work, problems);
  for (const { key, state } of problems) {
    if (state !== 'unlisted') continue;
    const error = new DrError('corrupt', `the listings of vault ${store.name} do not show ${key}`, {
      where: `${store.location}/${key}`,
      next: 'Ask whoever runs the store: what is not listed is not found by a recovery, and a copy would not be either.',
    });
    work.failed.set(key, error);
  }
}

function mendingOf({ store, others, clock, signal }: RepairVaultOptions): Mending {
  return { target: store, sources: others, nowMs: clock.now(), signal };
}

async function mendUnderLease(work: Work, problems: readonly VaultProblem[]): Promise<void> {
  const { store, clock, log, signal, onProgress } = work.options;
  const objects = problems
    .filter(
      ({ kind, state }) =>
        order.includes(kind) &&
        state !== 'unlisted' &&
        !(state === 'missing' && (kind === 'manifest' || kind === 'wal')),
    )
    .sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind));
  if (objects.length === 0) return;
  const lease = await acquireLease(store, RETENTION_LEASE, { purpose: 'repair', clock, log, signal });
  const both = signal ? AbortSignal.any([signal, lease.signal]) : lease.signal;
  let done = 0;
  try {
    for (const ofKind of Map.groupBy(objects, ({ kind }) => kind).values()) {
      await forEachLimit(ofKind, MENDS_IN_FLIGHT, async (problem) => {
        await lease.stillHeld();
        await mend(work, { ...mendingOf(work.options), signal: both }, problem);
        done++;
        const total = objects.length;
        onProgress?.({ task: `repair ${store.name}`, done, total, unit: 'objects', detail: problem.key });
      });
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
  const known = entry.enrolled ?? (found.state === 'damaged' ? found.marker : undefined);
  const createdAt = known && !Number.isNaN(Date.parse(known.createdAt)) ? known.createdAt : undefined;
  const marker = {
    format: known?.format ?? FORMAT_VERSION,
    id: entry.id,
    createdAt: createdAt ?? new Date(clock.now()).toISOString(),
    ...(known?.system === undefined ? {} : { system: known.system }),
  };
  await putInPlace({ target: store, signal }, layout.marker, encodeRecord(marker));
  return { how: 'written anew' };
}

/**
 * Puts the text of this `dr` under its name where another vault has it there, too. Else it goes beside what is there: that may be the
 * text of another version, and which one was right cannot be told.
 */
async function mendDocument({ store, others, documents, signal }: RepairVaultOptions, key: string): Promise<Mended> {
  const bytes = Buffer.from(documents?.[key] ?? '');
  for (const other of others) {
    const same = (there: Buffer) => {
      if (!there.equals(bytes)) throw new DrError('corrupt', 'it is another text');
    };
    if (!(await isGood(other, key, same, signal).catch(() => false))) continue;
    await putInPlace({ target: store, signal }, key, bytes);
    return { how: 'written anew' };
  }
  // The check has found that what lies there is not what its name says.
  await store.delete([versionedKey(key, bytes)], { signal });
  await storeDocuments(store, { [key]: bytes.toString() }, { signal });
  return { how: 'written anew' };
}

async function copyBackups(work: Work, problems: readonly VaultProblem[]): Promise<void> {
  const { store, others, policies, clock, log, onProgress, signal } = work.options;
  const lacking = problems.filter(({ kind, state }) => kind === 'manifest' && state === 'missing');
  if (lacking.length === 0) return;
  const result = await copyMissing({ from: others, to: store, policies, clock, log, onProgress, signal });
  work.copied.push(...result.copied);
  for (const { resource, id, error } of result.failed) work.failed.set(layout.manifest(resource, id), error);
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
