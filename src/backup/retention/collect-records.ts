import { DrError } from '../../base/errors.ts';
import { layout, timeOfId } from '../../vault/layout.ts';
import type { ObjectInfo } from '../../vault/store.ts';
import { readVerification, type Verification } from '../verified.ts';
import { type DeadCheck, type DeadObjects, notJudged } from './collect-check.ts';
import { listInOrder } from './collect-survey.ts';

/** How long the reports of verifications and of runs are kept, milliseconds: who looks back asks about the last year. */
export const RECORDS_MS = 366 * 86_400_000;

/**
 * Records that nobody will ask for any more:
 * - verification reports older than a year, except the newest of each resource and the newest of each backup that is still kept;
 * - runs older than a year that have a report, journal and all; one that was cut off before its report stays, it can be resumed;
 * - what a check of the vault wrote and could not remove, after the grace period.
 */
export async function collectOldRecords(check: DeadCheck, notes: string[]): Promise<DeadObjects[]> {
  return [...(await oldVerifications(check, notes)), ...(await oldRuns(check)), ...(await oldProbes(check))];
}

async function oldVerifications(check: DeadCheck, notes: string[]): Promise<DeadObjects[]> {
  const { store, signal } = check;
  const dead: DeadObjects[] = [];
  const backups = new Set(check.needed.map(({ resource, id }) => `${resource}/${id}`));
  for (const resource of await store.folders('verifications/', { signal })) {
    const prefix = layout.verifications(resource);
    const old: ObjectInfo[] = [];
    let newest = '';
    for await (const info of listInOrder(store, prefix, signal)) {
      newest = info.key;
      if (isOld(check, info, idOf(info.key, prefix))) old.push(info);
    }
    const last = newestReports(check, resource);
    const keys: string[] = [];
    let bytes = 0;
    for (const { key, size } of old) {
      if (key === newest) continue;
      const id = idOf(key, prefix);
      const report = check.reports.get(`${resource}/${id}`) ?? (await readOld(check, resource, id, notes));
      if (!report) continue;
      const other = last.get(report.backupId);
      // What is known of a backup that is kept says its newest report.
      if (backups.has(`${resource}/${report.backupId}`) && (other === undefined || other <= id)) continue;
      keys.push(key);
      bytes += size;
    }
    if (keys.length === 0) continue;
    const subject = `${keys.length} verification reports of ${resource}`;
    dead.push({ what: 'records', subject, why: 'they are older than a year', keys, bytes });
  }
  return dead;
}

/** The id of the newest report of each backup of a resource, of those that were read. */
function newestReports({ reports }: DeadCheck, resource: string): ReadonlyMap<string, string> {
  const newest = new Map<string, string>();
  for (const report of reports.values()) {
    if (report.resource !== resource) continue;
    if ((newest.get(report.backupId) ?? '') < report.id) newest.set(report.backupId, report.id);
  }
  return newest;
}

async function readOld(
  { store, signal }: DeadCheck,
  resource: string,
  id: string,
  notes: string[],
): Promise<Verification | undefined> {
  try {
    return await readVerification(store, resource, id, signal);
  } catch (error) {
    if (!(error instanceof DrError && ['corrupt', 'refused', 'not-found'].includes(error.kind))) throw error;
    notes.push(notJudged(layout.verification(resource, id), error));
    return undefined;
  }
}

async function oldRuns(check: DeadCheck): Promise<DeadObjects[]> {
  const { store, signal } = check;
  const dead: DeadObjects[] = [];
  for (const runId of await store.folders('runs/', { signal })) {
    const madeMs = timeOfId(runId);
    if (madeMs === undefined || !(madeMs < check.nowMs - RECORDS_MS)) continue;
    const objects: ObjectInfo[] = [];
    for await (const info of listInOrder(store, layout.run(runId), signal)) objects.push(info);
    const ended = objects.some(({ key }) => key === layout.runReport(runId, 'json'));
    if (!ended || !objects.every((info) => isOld(check, info, runId))) continue;
    // The report last: as long as any of it is there, the run is known to have ended.
    const isReport = (key: string) => key.startsWith(`${layout.run(runId)}report.`);
    const keys = objects.map(({ key }) => key).sort((a, b) => Number(isReport(a)) - Number(isReport(b)));
    const bytes = objects.reduce((sum, { size }) => sum + size, 0);
    dead.push({ what: 'records', subject: `run ${runId}`, why: 'it ended more than a year ago', keys, bytes });
  }
  return dead;
}

async function oldProbes(check: DeadCheck): Promise<DeadObjects[]> {
  const keys: string[] = [];
  let bytes = 0;
  for await (const { key, size, modifiedMs } of listInOrder(check.store, 'probes/', check.signal)) {
    if (!(modifiedMs > 0 && modifiedMs < check.nowMs - check.graceMs)) continue;
    keys.push(key);
    bytes += size;
  }
  const why = 'a check of the vault left it behind';
  return keys.length === 0 ? [] : [{ what: 'records', subject: `${keys.length} probes`, why, keys, bytes }];
}

function idOf(key: string, prefix: string): string {
  return key.slice(prefix.length).replace(/\.json$/, '');
}

/** By the store's own time and by the name. */
function isOld({ nowMs }: DeadCheck, { modifiedMs }: ObjectInfo, id: string): boolean {
  const madeMs = timeOfId(id);
  const limit = nowMs - RECORDS_MS;
  return modifiedMs > 0 && modifiedMs < limit && madeMs !== undefined && madeMs < limit;
}
