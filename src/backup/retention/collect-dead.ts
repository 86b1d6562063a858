import { layout, timeOfId } from '../../vault/layout.ts';
import { type DeadCheck, type DeadObjects, isPastGrace } from './collect-check.ts';
import { collectDeadKeys } from './collect-keys.ts';
import { collectOldRecords } from './collect-records.ts';
import { doubt, listInOrder, namesInOrder, parsePartKey, type SurveyedBackup, usesPart } from './collect-survey.ts';
import { collectDeadWal } from './collect-wal.ts';

/**
 * Everything of a vault that nothing needs: content of backups without manifest, WAL that no kept base backup needs, data keys that
 * seal nothing, old records. Whatever is younger than the grace period, or has a name that says nothing, stays. Reads only.
 */
export async function findDead(check: DeadCheck, notes: string[]): Promise<DeadObjects[]> {
  const content = await findDeadContent(check, notes);
  const wal = await collectDeadWal(check, notes);
  const keys = await collectDeadKeys(check, new Set(wal.flatMap((group) => group.keys)), notes);
  const records = await collectOldRecords(check, notes);
  return [...content, ...wal, ...keys, ...records];
}

async function findDeadContent(check: DeadCheck, notes: string[]): Promise<DeadObjects[]> {
  const { store, signal } = check;
  const needed = new Map<string, SurveyedBackup[]>();
  for (const backup of check.needed) {
    const known = needed.get(backup.resource);
    if (known) known.push(backup);
    else needed.set(backup.resource, [backup]);
  }
  const dead: DeadObjects[] = [];
  const resources = new Set([
    ...(await store.folders('parts/', { signal })),
    ...(await store.folders('indexes/', { signal })),
  ]);
  for (const resource of [...resources].sort()) {
    const found = new Map<string, { keys: string[]; bytes: number }>();
    const add = (id: string, key: string, size: number) => {
      const group = found.get(id) ?? { keys: [], bytes: 0 };
      group.keys.push(key);
      group.bytes += size;
      found.set(id, group);
    };
    const backups = needed.get(resource) ?? [];
    const owners = usersByOwner(backups);
    const ids = new Set(backups.map(({ id }) => id));
    for (const owner of await store.folders(`parts/${resource}/`, { signal, emptyToo: true })) {
      // A backup that stays needs all the parts that it wrote: of a million objects nearly all are never looked at.
      if (ids.has(owner)) continue;
      for await (const { key, size, modifiedMs } of listInOrder(store, `parts/${resource}/${owner}/`, signal)) {
        const part = parsePartKey(key);
        if (!part) notes.push(`${key} is not a part of a backup; it is left alone`);
        else if (owners.get(part.id)?.some((backup) => usesPart(backup.parts, part.id, part.number))) continue;
        else if (isPastGrace(check, modifiedMs, timeOfId(part.id))) add(part.id, key, size);
      }
    }
    for await (const key of namesInOrder(store, `indexes/${resource}/`, signal)) {
      const id = key.slice(`indexes/${resource}/`.length);
      if (ids.has(id)) continue;
      const info = await store.stat(key, { signal });
      if (info && isPastGrace(check, info.modifiedMs, timeOfId(id))) add(id, key, info.size);
    }
    const lastUsers = new Set(
      [...check.expired.values()].flatMap((backup) => (backup.resource === resource ? [...backup.parts.keys()] : [])),
    );
    for (const [id, { keys, bytes }] of found) {
      const isExpired = check.expired.has(`${resource}/${id}`);
      if (!isExpired) await requireNoManifest(check, resource, id);
      const why = isExpired
        ? 'its backup is beyond retention'
        : lastUsers.has(id)
          ? 'the last backup that used it is beyond retention'
          : 'left by a backup that was never completed or is gone';
      dead.push({ what: 'content', subject: `${resource} ${id}`, why, keys, bytes });
    }
  }
  return dead;
}

/** The backups that use parts of each backup: with incremental backups that is more than the backup itself. */
function usersByOwner(backups: readonly SurveyedBackup[]): Map<string, SurveyedBackup[]> {
  const users = new Map<string, SurveyedBackup[]>();
  for (const backup of backups) {
    for (const owner of backup.parts.keys()) {
      const known = users.get(owner);
      if (known) known.push(backup);
      else users.set(owner, [backup]);
    }
  }
  return users;
}

/** Asks for the manifest by name before its content counts as a leftover: a listing that lost entries is found out here. */
async function requireNoManifest(check: DeadCheck, resource: string, id: string): Promise<void> {
  const { store, signal, needed } = check;
  if (needed.some((backup) => backup.resource === resource && backup.id === id)) return;
  const key = layout.manifest(resource, id);
  if (await store.stat(key, { signal })) {
    throw doubt(store, key, 'the listing of manifests does not show this one, which is there');
  }
}
