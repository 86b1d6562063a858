import { forEachLimit } from '../../base/concurrency.ts';
import { DrError } from '../../base/errors.ts';
import { readKeyFacts } from '../../vault/keys.ts';
import { layout, timeOfId } from '../../vault/layout.ts';
import { readLease } from '../../vault/lease-record.ts';
import { decodeRecord } from '../../vault/record.ts';
import { sha256 } from '../../vault/seal.ts';
import { RECORDS_MS } from '../retention/collect-records.ts';
import { everyBackup, type VaultSurvey } from '../retention/collect-survey.ts';
import { type BackupUsers, names } from './backup-users.ts';
import { type CheckContext, isGone } from './check-vault-findings.ts';
import type { WalKeys } from './check-vault-wal.ts';

const READS_IN_FLIGHT = 16;

/** One sort of small record: where it lies, what it is for people, and what in it repeats its name. */
interface Shape {
  readonly pattern: RegExp;
  readonly what: string;
  readonly named: readonly string[];
  /** Of what repeats no name: fields of which it has one at least. */
  readonly has?: readonly string[];
  /** A field that only another sort has. */
  readonly lacks?: string;
  readonly isHint?: boolean;
}

const shapes: readonly Shape[] = [
  { pattern: /^holds\/([^/]+)\.cleared\.json$/, what: 'the end of a hold', named: ['id'], lacks: 'reason' },
  { pattern: /^holds\/([^/]+)\.json$/, what: 'the hold', named: ['id'], has: ['reason'] },
  {
    pattern: /^records\/active\/(\d{10})\.json$/,
    what: 'the record of the active site',
    named: ['generation'],
    has: ['site'],
  },
  {
    pattern: /^records\/vaults\/([^/]+)\/(\d{10})\.json$/,
    what: 'the record of the vaults',
    named: ['name', 'generation'],
  },
  { pattern: /^verifications\/([^/]+)\/([^/]+)\.json$/, what: 'the verification report', named: ['resource', 'id'] },
  {
    pattern: /^runs\/([^/]+)\/journal\/(\d{6,})\.json$/,
    what: 'the journal entry',
    named: ['runId', 'number'],
    has: ['event'],
  },
  {
    pattern: /^runs\/([^/]+)\/approvals\/([^/]+)\.json$/,
    what: 'the approval',
    named: ['runId', 'step'],
    has: ['answer'],
  },
  { pattern: /^runs\/([^/]+)\/report\.json$/, what: 'the report', named: ['runId'], has: ['runbook'] },
  { pattern: /^configuration\/([^/]+)$/, what: 'the stored configuration', named: ['id'] },
  { pattern: /^heartbeats\/([^/]+)\.json$/, what: 'the heartbeat', named: ['resource'], isHint: true },
  {
    pattern: /^hints\/retention\.json$/,
    what: 'the mark of retention',
    named: [],
    has: ['done', 'blocked', 'finishedAt'],
    isHint: true,
  },
  { pattern: /^hints\/care-([^/]+)\.json$/, what: 'the report of the last check', named: ['vault'], isHint: true },
];

/** Kept for people; `report.json` beside them is what counts, and holds their digests. */
const reportText = /^runs\/([^/]+)\/report\.(md|html)$/;
const textForms = ['md', 'html'] as const;
type TextForm = (typeof textForms)[number];

/** Where records lie that every vault should have alike. */
export const recordFolders = [layout.holds, 'records/', 'verifications/', 'runs/', 'configuration/'] as const;

/** Reports and journals of long ago: retention removes them, in one vault sooner than in the other. */
export function mayBeExpired(key: string, nowMs: number): boolean {
  const [, id] = /^(?:runs|verifications\/[^/]+)\/([^/]+?)(?:\.json)?(?:\/|$)/.exec(key) ?? [];
  const madeMs = id === undefined ? undefined : timeOfId(id);
  return madeMs !== undefined && madeMs < nowMs - RECORDS_MS;
}

/** What no key may hold is `=` in it (`layout.runApproval`). */
function isSpelt(value: unknown, name: string | undefined): boolean {
  return typeof value === 'string' && value.replace(/[^A-Za-z0-9._=-]/g, '=') === name;
}

/** A digest of the content says nothing of what stands before and behind it. */
export function requireExact(bytes: Uint8Array, where: string): void {
  const [first, last, end] = [bytes[0], bytes.at(-2), bytes.at(-1)];
  if (first === 0x7b && last === 0x7d && end === 0x0a) return;
  throw new DrError('corrupt', 'it reads as it should, and was cut or added to', { where });
}

/** Checks the digest of a record and that it is the one of its name, and gives its content; undefined for a key that is no record's. Throws `corrupt`. */
export function requireRecord(key: string, bytes: Uint8Array, where: string): Record<string, unknown> | undefined {
  if (reportText.test(key)) return {};
  const shape = shapes.find(({ pattern }) => pattern.test(key));
  if (!shape) return undefined;
  const record = decodeRecord(bytes, shape.what, where);
  requireExact(bytes, where);
  const { has, lacks } = shape;
  if ((has && !has.some((field) => field in record)) || (lacks !== undefined && lacks in record))
    throw new DrError('corrupt', `${shape.what} is another record`, { where });
  const found = shape.pattern.exec(key)?.slice(1) ?? [];
  for (const [i, field] of shape.named.entries()) {
    const value = record[field];
    const said = typeof value === 'number' ? value === Number(found[i]) : isSpelt(value, found[i]);
    if (!said) throw new DrError('corrupt', `${shape.what} is that of another name (${field})`, { where });
  }
  return record;
}

export interface RecordsFound {
  /** Keys, so that the other vaults can be compared. */
  readonly there: ReadonlySet<string>;
  /** Data keys that stored configurations need, each with one that does. */
  readonly keyIds: ReadonlyMap<string, string>;
}

/** Records, journals and hints: every one is read. */
export async function checkRecords(context: CheckContext): Promise<RecordsFound> {
  const { store, findings, nowMs, settledMs, signal } = context;
  const there = new Set<string>();
  const keyIds = new Map<string, string>();
  const entries = new Map<string, Set<number>>();
  const reports = new Map<string, FoundReport>();
  const reportOf = (run: string): FoundReport => {
    const report = reports.get(run) ?? { isThere: false, texts: new Set<string>(), documents: undefined };
    reports.set(run, report);
    return report;
  };
  for (const folder of [...recordFolders, 'heartbeats/', 'hints/']) {
    await forEachLimit(store.list(folder, { signal }), READS_IN_FLIGHT, async ({ key, size, modifiedMs }) => {
      findings.listed(key, size);
      const shape = shapes.find(({ pattern }) => pattern.test(key));
      if (!shape && !reportText.test(key)) {
        findings.stranger(key);
        return;
      }
      there.add(key);
      const [, run = '', number] = /^runs\/([^/]+)\/journal\/(\d+)\.json$/.exec(key) ?? [];
      // Copies of a journal are made beside the run: an earlier entry may come after a later one.
      if (number !== undefined && modifiedMs <= nowMs - settledMs)
        entries.set(run, (entries.get(run) ?? new Set()).add(Number(number)));
      const [, texted, extension] = reportText.exec(key) ?? [];
      if (texted !== undefined && extension !== undefined) reportOf(texted).texts.add(extension);
      const [, reported] = /^runs\/([^/]+)\/report\.json$/.exec(key) ?? [];
      if (reported !== undefined) reportOf(reported).isThere = true;
      if (!shape) return;
      try {
        const bytes = await store.read(key, undefined, { signal });
        const record = requireRecord(key, bytes, `${store.location}/${key}`);
        if (typeof record?.keyId === 'string') keyIds.set(record.keyId, key);
        if (reported !== undefined) reportOf(reported).documents = documentDigests(record);
      } catch (error) {
        if (await isGone(store, key, error, signal)) return;
        findings.damaged(shape.isHint ? 'hint' : 'record', key, error, [touchedBy(key)]);
      }
    });
  }
  const missing = (key: string, why: string, sha256?: string) => {
    if (there.has(key) || mayBeExpired(key, nowMs)) return;
    // The other vaults need not be asked for it again.
    there.add(key);
    findings.problem({ state: 'missing', kind: 'record', key, why, touches: [touchedBy(key)], sha256 });
  };
  for (const [run, numbers] of entries) {
    const last = Math.max(...numbers);
    for (let n = 1; n < last; n++) missing(layout.runEntry(run, n), 'later entries of the journal are there');
  }
  for (const [run, { isThere, texts, documents }] of reports) {
    if (!isThere) missing(layout.runReport(run, 'json'), 'another form of the report is there');
    // Reports of older versions do not say what stands beside them.
    const expected: ReadonlyMap<TextForm, string | undefined> =
      documents ?? new Map(isThere ? [['md', undefined]] : []);
    for (const [form, digest] of expected) {
      const key = layout.runReport(run, form);
      if (!texts.has(form)) missing(key, 'the other form of the report is there', digest);
      else if (digest !== undefined) await checkText(context, key, digest);
    }
  }
  return { there, keyIds };
}

/** What was found of the report of a run: the record, the forms for people, and their digests as the record has them. */
interface FoundReport {
  isThere: boolean;
  readonly texts: Set<string>;
  documents: ReadonlyMap<TextForm, string> | undefined;
}

function documentDigests(record: Record<string, unknown> | undefined): ReadonlyMap<TextForm, string> | undefined {
  const documents = record?.documents;
  if (typeof documents !== 'object' || documents === null) return undefined;
  const digests = new Map<TextForm, string>();
  for (const form of textForms) {
    const digest: unknown = Reflect.get(documents, form);
    if (typeof digest === 'string') digests.set(form, digest);
  }
  return digests;
}

/** A form of a report for people, against the digest in the record. */
async function checkText({ store, findings, signal }: CheckContext, key: string, digest: string): Promise<void> {
  const damaged = (why: string) =>
    findings.problem({ state: 'damaged', kind: 'record', key, why, touches: [touchedBy(key)], sha256: digest });
  try {
    const bytes = await store.read(key, undefined, { signal });
    if (sha256(bytes).toString('hex') !== digest) damaged('it is not the document that the report was stored with');
  } catch (error) {
    if (await isGone(store, key, error, signal)) return;
    findings.damaged('record', key, error, [touchedBy(key)]);
  }
}

/** What a record means to people who lack it. */
export function touchedBy(key: string): string {
  const [folder, name = '', vault = ''] = key.split('/');
  if (folder === 'holds') return 'holds on deletion';
  if (folder === 'verifications') return `proof that ${name} restores`;
  if (folder === 'runs') return `run ${name}`;
  if (folder === 'records') return name === 'active' ? 'which site is active' : `which place vault ${vault} is`;
  if (folder === 'configuration') return 'the configuration that `dr init --from` brings back';
  return 'nothing: it is written anew';
}

export interface KeysFound {
  /** Keys of the objects. */
  readonly there: ReadonlySet<string>;
  /** Ids of the data keys that something needs. */
  readonly needed: ReadonlySet<string>;
}

/** Every data key that a backup or WAL needs has to be there, and every one that is there be readable. */
export async function checkKeys(
  context: CheckContext,
  survey: VaultSurvey,
  users: BackupUsers,
  wal: WalKeys,
  configurations: RecordsFound['keyIds'],
): Promise<KeysFound> {
  const { store, findings, signal } = context;
  const found = new Set<string>();
  const there = new Set<string>();
  const touches = (id: string) => [
    ...names(users.ofKey(id)),
    ...(wal.has(id) ? [`WAL: ${wal.get(id)} and others`] : []),
    ...(configurations.has(id) ? [`stored configuration ${configurations.get(id)}`] : []),
  ];
  await forEachLimit(store.list('keys/', { signal }), READS_IN_FLIGHT, async ({ key, size }) => {
    findings.listed(key, size);
    const id = /^keys\/([0-9a-f]{32})\/\d{6,}\.json$/.exec(key)?.[1];
    if (id === undefined) {
      findings.stranger(key);
      return;
    }
    found.add(id);
    there.add(key);
    try {
      const bytes = await store.read(key, undefined, { signal });
      readKeyFacts(bytes, id, `${store.location}/${key}`);
      requireExact(bytes, `${store.location}/${key}`);
    } catch (error) {
      if (!(await isGone(store, key, error, signal))) findings.damaged('key', key, error, touches(id));
    }
  });
  const needed = new Set([
    ...everyBackup(survey).flatMap(({ keyIds }) => keyIds),
    ...wal.keys(),
    ...configurations.keys(),
  ]);
  for (const id of needed) {
    if (found.has(id)) continue;
    const key = layout.key(id);
    const state = !findings.isFull && (await store.stat(key, { signal })) ? 'unlisted' : 'missing';
    const why =
      state === 'missing'
        ? 'what is sealed with it cannot be read without it'
        : 'it is there, and no listing shows it: nobody finds it';
    findings.problem({ state, kind: 'key', key, why, touches: touches(id) });
  }
  return { there, needed };
}

/** The newest generation of every lease has to be readable: nobody could take it else. */
export async function checkLeases({ store, findings, signal }: CheckContext): Promise<void> {
  const leases = new Set<string>();
  for await (const { key, size } of store.list('leases/', { signal })) {
    findings.listed(key, size);
    const name = /^leases\/(.+)\/\d{10}\.json$/.exec(key)?.[1];
    if (name === undefined) findings.stranger(key);
    else leases.add(name);
  }
  for (const name of leases) {
    try {
      await readLease(store, name, { signal });
    } catch (error) {
      findings.damaged('lease', layout.lease(name), error, [`whatever needs the lease "${name}"`]);
    }
  }
}
