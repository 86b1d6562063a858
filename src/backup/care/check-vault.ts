import type { Clock } from '../../base/clock.ts';
import { DrError } from '../../base/errors.ts';
import type { OnProgress } from '../../base/progress.ts';
import { type VaultDocuments, versionedKey } from '../../vault/documents.ts';
import type { KeyRing } from '../../vault/keys.ts';
import type { ObjectStore } from '../../vault/store.ts';
import type { RetentionPolicy } from '../retention/retention.ts';
import { type BackupsFound, checkBackups } from './check-vault-backups.ts';
import { compareVaults } from './check-vault-compare.ts';
import { type CheckContext, type Extent, Findings, type VaultProblem } from './check-vault-findings.ts';
import { checkMarker } from './check-vault-marker.ts';
import { Opener } from './check-vault-open.ts';
import { checkKeys, checkLeases, checkRecords } from './check-vault-records.ts';
import { checkWal } from './check-vault-wal.ts';
import { HiddenView, hiddenViews, tellHidden } from './hidden-view.ts';
import { keptAlone } from './repair.ts';
import { isGood } from './repair-replace.ts';
import { isInSample, type Sample } from './sample.ts';

export interface CheckOptions {
  /** The vault itself, not guarded: what is wrong with its marker is to be found as well. */
  readonly store: ObjectStore;
  /** The other vaults: they tell what this one lacks altogether. One that does not answer is left out, with a note. */
  readonly others: readonly ObjectStore[];
  /** By resource: a backup that retention would delete anyway is not missing. */
  readonly policies: ReadonlyMap<string, RetentionPolicy>;
  /** Read the content too: every part, index and WAL object, or this share of them. */
  readonly data?: Sample | undefined;
  /** Objects that are read whatever the sample says. */
  readonly also?: ReadonlySet<string> | undefined;
  /** Opens what is read, too. */
  readonly keyRing?: KeyRing | undefined;
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
  /** Of these, bytes that were opened with their key, and how many data keys the identities given do not open; absent without identity. */
  readonly opened?: { readonly bytes: number; readonly closedKeys: number } | undefined;
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

/** A check with what else it came to know, for the repair that follows it. */
export interface Examination extends BackupsFound {
  readonly check: VaultCheck;
  /** Other vaults that did not answer: what they have is not known. */
  readonly uncompared: ReadonlySet<string>;
}

/**
 * Looks at every object of a vault and changes nothing; no identity is needed. Without `data` it reads listings, records and headers;
 * with it, content is compared with its SHA-256. Throws what the store throws when it does not answer, and `refused` for a place that is
 * no vault.
 */
export async function examineVault(options: CheckOptions): Promise<VaultCheck> {
  return (await examine(options)).check;
}

/** The same, with the backups that were found. */
export async function examine(options: CheckOptions): Promise<Examination> {
  const { store, data, also, clock, onProgress, signal } = options;
  const isKnown = options.others.some((other) => other instanceof HiddenView);
  const others = isKnown ? options.others : [...options.others, ...(await hiddenViews(store, signal))];
  const reads = (key: string) => (data !== undefined && isInSample(data, key)) || also?.has(key) === true;
  const task = `check ${store.name}`;
  // Only for the forecast: a listing costs little beside what follows.
  const extent = onProgress
    ? await measureExtent(options, reads, new Findings(`count ${store.name}`, onProgress))
    : undefined;
  const findings = new Findings(task, onProgress, extent);
  const opener = options.keyRing && new Opener(store, options.keyRing);
  const context: CheckContext = {
    store,
    others,
    nowMs: clock.now(),
    settledMs: options.settledMs ?? SETTLED_MS,
    reads,
    opener,
    findings,
    signal,
  };
  await checkMarker(context);
  await checkRoot(context);
  await checkDocuments(context, options.documents ?? {});
  const found = await checkBackups(context);
  const { survey, users, databases } = found;
  const walKeys = await checkWal(context, databases, keptAlone(survey, options.policies, context.nowMs));
  const records = await checkRecords(context);
  const keys = await checkKeys(context, survey, users, walKeys, records.keyIds);
  await checkLeases(context);
  await compareVaults(context, { survey, policies: options.policies, records: records.there, keys });
  const { objects, bytes, readBytes, moreProblems, foreign, moreForeign, orphans, notes } = findings;
  const hasView = others.some((other) => other instanceof HiddenView);
  const problems = hasView ? await tellHidden(store, findings.problems, signal) : findings.problems;
  const { name: vault, region, location } = store;
  const opened = opener && { bytes: opener.bytes, closedKeys: opener.closed };
  const common = { vault, region, location, objects, bytes, readBytes, ...(opened ? { opened } : {}) };
  const { uncompared } = findings;
  return { ...found, uncompared, check: { ...common, problems, moreProblems, foreign, moreForeign, orphans, notes } };
}

/** How much there is to do. */
async function measureExtent(
  { store, data, also, onProgress, signal }: CheckOptions,
  reads: (key: string) => boolean,
  counting: Findings,
): Promise<Extent> {
  let bytes = 0;
  for await (const { key, size } of store.list('', { signal })) {
    counting.listed(key, size);
    if ((data || also) && /^(indexes|parts|wal)\//.test(key) && reads(key)) bytes += size;
  }
  const { objects } = counting;
  if (objects > 0) onProgress?.({ task: `count ${store.name}`, done: objects, total: objects, unit: 'objects' });
  return { objects, bytes };
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
