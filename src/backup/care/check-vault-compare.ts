import { DrError } from '../../base/errors.ts';
import { generationOf } from '../../vault/copy-key.ts';
import { layout } from '../../vault/layout.ts';
import { decodeRecord } from '../../vault/record.ts';
import type { ObjectStore } from '../../vault/store.ts';
import type { VaultSurvey } from '../retention/collect-survey.ts';
import type { RetentionPolicy } from '../retention/retention.ts';
import { names } from './backup-users.ts';
import { surveyForCare } from './care-survey.ts';
import { type CheckContext, compare, type ObjectClass } from './check-vault-findings.ts';
import { mayBeExpired, recordFolders, touchedBy } from './check-vault-records.ts';
import { findMissing } from './repair.ts';

/** What only the other vaults can tell: backups, records and generations of keys that they have and this vault lacks. */
export async function compareVaults(
  context: CheckContext,
  own: {
    readonly survey: VaultSurvey;
    readonly policies: ReadonlyMap<string, RetentionPolicy>;
    /** Keys of the records that are there. */
    readonly records: ReadonlySet<string>;
    /** Keys of the data key objects that are there, and ids of the data keys that are needed. */
    readonly keys: { readonly there: ReadonlySet<string>; readonly needed: ReadonlySet<string> };
  },
): Promise<void> {
  await compareBackups(context, own.survey, own.policies);
  const { there, needed } = own.keys;
  const newest = new Map<string, number>();
  for (const key of there) {
    const id = key.split('/')[1] ?? '';
    newest.set(id, Math.max(newest.get(id) ?? 0, generationOf(key) ?? 0));
  }
  for (const other of context.others) {
    await compare(context, other, async () => {
      for (const folder of recordFolders) {
        for await (const { key, modifiedMs } of other.list(folder, { signal: context.signal })) {
          if (own.records.has(key) || mayBeExpired(key, context.nowMs)) continue;
          if (isReport(key) && !(await isFinal(other, key, context.signal))) continue;
          await lacking(context, 'record', key, modifiedMs, other.name, [touchedBy(key)]);
        }
      }
      // A newer generation is how the recipients of a key change: without it the old ones only can open it here. An older one is of no
      // use any more, and may have been removed here on purpose.
      for await (const { key, modifiedMs } of other.list('keys/', { signal: context.signal })) {
        const id = key.split('/')[1] ?? '';
        const generation = generationOf(key);
        if (generation === undefined || generation <= (newest.get(id) ?? 0) || !needed.has(id)) continue;
        await lacking(context, 'key', key, modifiedMs, other.name, [`who can open what data key ${id} seals`]);
      }
    });
  }
}

/** Backups that other vaults have, retention would keep, and this one lacks. */
async function compareBackups(
  context: CheckContext,
  own: VaultSurvey,
  policies: ReadonlyMap<string, RetentionPolicy>,
): Promise<void> {
  const surveys: VaultSurvey[] = [];
  for (const other of context.others) {
    await compare(context, other, async () => {
      surveys.push(await surveyForCare(other, context.signal, own));
    });
  }
  for (const { resource, id, sources } of findMissing(surveys, own, policies, context.nowMs)) {
    const [source] = sources;
    const key = layout.manifest(resource, id);
    const info = await source?.stat(key, { signal: context.signal });
    if (source && info)
      await lacking(context, 'manifest', key, info.modifiedMs, source.name, names([{ resource, id }]));
  }
}

/** Reports what another vault has and the listings of this one do not show; younger objects may be on their way. */
async function lacking(
  { store, findings, nowMs, settledMs, signal }: CheckContext,
  kind: ObjectClass,
  key: string,
  modifiedMs: number,
  other: string,
  touches: readonly string[],
): Promise<void> {
  if (modifiedMs > nowMs - settledMs || findings.isReported(key)) return;
  const info = findings.isFull ? undefined : await store.stat(key, { signal });
  if (!info) findings.problem({ state: 'missing', kind, key, why: `vault ${other} has it`, touches });
  else if (info.modifiedMs <= nowMs - settledMs)
    findings.problem({ state: 'unlisted', kind, key, why: 'it is there, and no listing shows it', touches });
}

function isReport(key: string): boolean {
  return /^runs\/[^/]+\/report\./.test(key);
}

/** The report of a run that can be resumed lies in the vault of the run only, and will change. */
async function isFinal(store: ObjectStore, key: string, signal: AbortSignal | undefined): Promise<boolean> {
  const report = key.replace(/[^.]*$/, 'json');
  try {
    const bytes = await store.read(report, undefined, { signal });
    return decodeRecord(bytes, 'the report', `${store.location}/${report}`).outcome !== undefined;
  } catch (error) {
    if (error instanceof DrError && (error.kind === 'not-found' || error.kind === 'corrupt')) return false;
    throw error;
  }
}
