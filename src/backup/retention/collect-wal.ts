import type { Lsn } from '../../postgres/lsn.ts';
import { parseWalKey, rangeOfName } from '../wal/names.ts';
import type { DeadCheck, DeadObjects } from './collect-check.ts';
import { listInOrder } from './collect-survey.ts';

/**
 * WAL that no recovery can use any more: of a lineage with base backups whatever ends at or before the beginning of the oldest
 * one that is needed, by LSN alone. That is right on every timeline: a base backup needs nothing before its own beginning, and
 * where another timeline was left does not matter (and could not be read here without the identity). History files stay as long as
 * their lineage has a base backup. WAL of a lineage without one goes when it is older than the retention of databases.
 */
export async function collectDeadWal(check: DeadCheck, notes: string[]): Promise<DeadObjects[]> {
  const { store, signal, nowMs, graceMs, walRetentionMs } = check;
  const oldest = new Map<string, { readonly from: Lsn; readonly segmentBytes: number }>();
  for (const { wal } of check.needed) {
    const known = wal && oldest.get(wal.systemId);
    if (wal && (known === undefined || wal.from < known.from)) oldest.set(wal.systemId, wal);
  }
  const dead: DeadObjects[] = [];
  for (const systemId of await store.folders('wal/', { signal })) {
    const base = oldest.get(systemId);
    const youngestMs = nowMs - graceMs - (base ? 0 : (walRetentionMs ?? Number.POSITIVE_INFINITY));
    const keys: string[] = [];
    let bytes = 0;
    let strangers = 0;
    for await (const { key, size, modifiedMs } of listInOrder(store, `wal/${systemId}/`, signal)) {
      const name = parseWalKey(key);
      if (!name) {
        strangers++;
        continue;
      }
      if (!(modifiedMs > 0 && modifiedMs < youngestMs)) continue;
      if (base && (name.kind === 'history' || rangeOfName(name, base.segmentBytes).end > base.from)) continue;
      keys.push(key);
      bytes += size;
    }
    if (strangers > 0) notes.push(`${strangers} objects under wal/${systemId}/ are not WAL; they are left alone`);
    if (keys.length === 0) continue;
    const why = base
      ? 'it lies before the oldest base backup that is kept'
      : 'its lineage has no base backup and it is beyond retention';
    dead.push({ what: 'wal', subject: `system ${systemId}`, why, keys, bytes });
  }
  return dead;
}
