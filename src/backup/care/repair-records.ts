import { DrError, isAbort } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { copyDataKey } from '../../vault/copy-key.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { mayBeExpired, recordFolders, requireRecord } from './check-vault-records.ts';

/** A journal that is being written gets its copies from its run; what is older and lacks will not come any more. */
const SETTLED_MS = 5 * 60_000;

/** A record that could not be copied. */
export interface FailedRecord {
  readonly key: string;
  readonly error: unknown;
}

/**
 * Gives a vault the records that the others have and it lacks, checked: holds, who is active, which place each vault is, verifications,
 * journals, configurations of dr with the data keys that they need. One that is damaged in its source is left out.
 */
export async function copyRecords(options: {
  readonly from: readonly ObjectStore[];
  readonly to: ObjectStore;
  readonly nowMs: number;
  readonly log: Log;
  readonly signal: AbortSignal;
}): Promise<{ records: number; failedRecords: FailedRecord[] }> {
  const { from, to, nowMs, log, signal } = options;
  const failedRecords: FailedRecord[] = [];
  let records = 0;
  for (const folder of recordFolders) {
    const there = new Set<string>();
    for await (const { key } of to.list(folder, { signal })) there.add(key);
    for (const source of from) {
      for await (const { key, modifiedMs } of source.list(folder, { signal })) {
        if (there.has(key) || mayBeExpired(key, nowMs)) continue;
        if (folder === 'runs/' && (isReport(key) || modifiedMs > nowMs - SETTLED_MS)) continue;
        try {
          if (await copyRecord(source, to, key, signal)) records++;
          there.add(key);
        } catch (error) {
          if (signal.aborted || isAbort(error) || !isOfThisRecord(error)) throw error;
          log.warn({ vault: source.name, key, error }, 'a record could not be copied from this vault');
          failedRecords.push({ key, error });
        }
      }
    }
  }
  return { records, failedRecords };
}

/** True when it was copied; false for what is no record, or is there already. */
async function copyRecord(source: ObjectStore, to: ObjectStore, key: string, signal: AbortSignal): Promise<boolean> {
  const where = `${source.location}/${key}`;
  const bytes = await source.read(key, undefined, { signal });
  const record = requireRecord(key, bytes, where);
  if (!record) return false;
  if (typeof record.keyId === 'string') await copyDataKey([source], to, record.keyId, signal);
  return (await to.create(key, bytes, { signal })) === 'created';
}

/** The report of a run lies in the vault of the run and is made anew from its journal. */
function isReport(key: string): boolean {
  return /^runs\/[^/]+\/report\./.test(key);
}

function isOfThisRecord(error: unknown): boolean {
  return error instanceof DrError && ['corrupt', 'conflict', 'refused', 'not-found'].includes(error.kind);
}
