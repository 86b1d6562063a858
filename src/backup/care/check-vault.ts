import type { Clock } from '../../base/clock.ts';
import { DrError } from '../../base/errors.ts';
import type { OnProgress } from '../../base/progress.ts';
import { type VaultDocuments, versionedKey } from '../../vault/documents.ts';
import { layout } from '../../vault/layout.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { surveyVault, type VaultSurvey } from '../retention/collect-survey.ts';
import type { RetentionPolicy } from '../retention/retention.ts';
import { checkBackups } from './check-vault-backups.ts';
import { type CheckContext, compare, Findings, sampler, type VaultProblem } from './check-vault-findings.ts';
import { checkMarker } from './check-vault-marker.ts';
import { checkKeys, checkLeases, checkRecords, recordFolders, touchedBy } from './check-vault-records.ts';
import { checkWal } from './check-vault-wal.ts';
import { findMissing } from './repair.ts';
import { isGood } from './repair-replace.ts';

export interface CheckOptions {
  /** The vault itself, not guarded: what is wrong with its marker is to be found as well. */
  readonly store: ObjectStore;
  /** The other vaults: they tell what this one lacks altogether. One that does not answer is left out, with a note. */
  readonly others: readonly ObjectStore[];
  /** By resource: a backup that retention would delete anyway is not missing. */
  readonly policies: ReadonlyMap<string, RetentionPolicy>;
  /** Read the content too: every part, index and WAL object, or this share of them, chosen by the seed. */
  readonly data?: { readonly share: number; readonly seed: string } | undefined;
  /** What every vault carries for people, in the words of this dr; not looked for when absent. */
  readonly documents?: VaultDocuments | undefined;
  /** What another vault has for less than this may still be on its way, milliseconds; default 5 minutes. */
  readonly settledMs?: number;
  readonly clock: Clock;
  readonly onProgress?: OnProgress | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What a check has found in one vault. */
export interface VaultCheck {
  readonly vault: string;
  readonly region: string;
  readonly location: string;
  /** Objects listed and their bytes; bytes of content that were read and compared. */
  readonly objects: number;
  readonly bytes: number;
  readonly readBytes: number;
  readonly problems: readonly VaultProblem[];
  /** Problems beyond those listed. */
  readonly moreProblems: number;
  /** Objects that no `dr` has put there. They are never touched. */
  readonly foreign: readonly string[];
  readonly moreForeign: number;
  /** Content that no manifest names: of a backup that is running, was interrupted, or has expired. Retention removes it. */
  readonly orphans: { readonly objects: number; readonly bytes: number };
  readonly notes: readonly string[];
}

const SETTLED_MS = 5 * 60_000;
const knownFolders = new Set([
  ...['configuration', 'heartbeats', 'hints', 'holds', 'indexes', 'keys', 'leases', 'manifests', 'parts', 'probes'],
  ...['records', 'runs', 'verifications', 'wal'],
]);
/** The marker, and the documents for people who have nothing but the vault, of this and other versions. */
const knownObject = /^(dr-vault\.json|FORMAT(-[0-9a-f]{8})?\.md|dr-restore(-[0-9a-f]{8})?\.mjs)$/;

/**
 * Looks at every object of a vault and changes nothing; no identity is needed. Without `data` it reads listings, records and headers;
 * with it, content is compared with its SHA-256. Throws what the store throws when it does not answer, and `refused` for a place that is
 * no vault.
 */
export async function examineVault(options: CheckOptions): Promise<VaultCheck> {
  const { store, others, data, clock, signal } = options;
  const findings = new Findings(`check ${store.name}`, options.onProgress);
  const context: CheckContext = {
    store,
    others,
    nowMs: clock.now(),
    settledMs: options.settledMs ?? SETTLED_MS,
    reads: data ? sampler(data.share, data.seed) : () => false,
    findings,
    signal,
  };
  await checkMarker(context);
  await checkRoot(context);
  await checkDocuments(context, options.documents ?? {});
  const { survey, databases } = await checkBackups(context);
  const walKeys = await checkWal(context, databases);
  const records = await checkRecords(context);
  await checkKeys(context, survey, walKeys, records.keyIds);
  await checkLeases(context);
  await compareBackups(context, survey, options.policies);
  await compareRecords(context, records.there);
  const { objects, bytes, readBytes, problems, moreProblems, foreign, moreForeign, orphans, notes } = findings;
  const { name: vault, region, location } = store;
  const found = { objects, bytes, readBytes, problems, moreProblems, foreign, moreForeign, orphans, notes };
  return { vault, region, location, ...found };
}

/** Names what lies at the top and is nothing of `dr`'s, without walking through the whole vault. */
async function checkRoot({ store, findings, signal }: CheckContext): Promise<void> {
  for (const folder of await store.folders('', { signal })) {
    if (!knownFolders.has(folder)) findings.stranger(`${folder}/`);
  }
  let startAfter: string | undefined;
  for (let more = true; more; ) {
    more = false;
    const listing = store.list('', startAfter === undefined ? { signal } : { signal, startAfter });
    for await (const { key, size } of listing) {
      const slash = key.indexOf('/');
      if (slash >= 0) {
        // The greatest key that can stand in this folder: the listing goes on behind it.
        startAfter = `${key.slice(0, slash)}/${'z'.repeat(200)}`;
        more = true;
        break;
      }
      findings.listed(key, size);
      if (!knownObject.test(key)) findings.stranger(key);
    }
  }
}

/** The text of this `dr` has to be there, under the plain name or beside an older one. */
async function checkDocuments({ store, findings, signal }: CheckContext, documents: VaultDocuments): Promise<void> {
  for (const [key, text] of Object.entries(documents)) {
    const bytes = Buffer.from(text);
    const require = (there: Buffer) => {
      if (!there.equals(bytes)) throw new DrError('corrupt', 'it is another text');
    };
    const beside = versionedKey(key, bytes);
    if ((await isGood(store, key, require, signal)) || (await isGood(store, beside, require, signal))) continue;
    const state = (await store.stat(key, { signal })) ? 'damaged' : 'missing';
    const why = `neither it nor ${beside} is the text of this dr`;
    findings.problem({ state, kind: 'document', key, why, touches: ['restores without dr'] });
  }
}

/** Backups that other vaults have, retention would keep, and this one lacks. */
async function compareBackups(
  context: CheckContext,
  own: VaultSurvey,
  policies: ReadonlyMap<string, RetentionPolicy>,
): Promise<void> {
  const { findings, nowMs, settledMs, signal } = context;
  const surveys: VaultSurvey[] = [];
  for (const other of context.others) {
    await compare(context, other, async () => {
      surveys.push(await surveyVault(other, signal));
    });
  }
  for (const { resource, id, sources } of findMissing(surveys, own, policies, nowMs)) {
    const [source] = sources;
    const key = layout.manifest(resource, id);
    const info = await source?.stat(key, { signal });
    if (!source || !info || info.modifiedMs > nowMs - settledMs) continue;
    const why = `vault ${source.name} has this backup`;
    findings.problem({ state: 'missing', kind: 'manifest', key, why, touches: [`backup ${resource} ${id}`] });
  }
}

async function compareRecords(context: CheckContext, own: ReadonlySet<string>): Promise<void> {
  const { findings, nowMs, settledMs, signal } = context;
  const reported = new Set<string>();
  for (const other of context.others) {
    await compare(context, other, async () => {
      for (const folder of recordFolders) {
        for await (const { key, modifiedMs } of other.list(folder, { signal })) {
          if (own.has(key) || reported.has(key) || modifiedMs > nowMs - settledMs || isReport(key)) continue;
          reported.add(key);
          const why = `vault ${other.name} has it`;
          findings.problem({ state: 'missing', kind: 'record', key, why, touches: [touchedBy(key)] });
        }
      }
    });
  }
}

/** Reports lie only in the vault of their run. */
function isReport(key: string): boolean {
  return /^runs\/[^/]+\/report\./.test(key);
}
