import { type Lsn, segmentName } from '../../postgres/lsn.ts';
import { layout } from '../../vault/layout.ts';
import type { ObjectInfo } from '../../vault/store.ts';
import { joinRanges, minLsn, parseWalKey, rangeOfName, type WalName, type WalRange } from '../wal/names.ts';
import type { DeadCheck, DeadObjects } from './collect-check.ts';
import { listInOrder } from './collect-survey.ts';

/** What the base backups of one lineage that are kept need of its WAL. */
interface WalNeed {
  readonly segmentBytes: number;
  /** Everything from here on; undefined when only the window of another lineage is promised. */
  readonly from: Lsn | undefined;
  /** Before that: what makes single base backups consistent. In order. */
  readonly ranges: readonly WalRange[];
}

/**
 * WAL that no recovery can use any more, by LSN alone: of a lineage with base backups whatever ends at or before the beginning of the
 * oldest one that the window needs, except what makes an older one consistent that some other rule keeps. That is right on every
 * timeline: a base backup needs nothing before its own beginning, and where another timeline was left does not matter (and could not be
 * read here without the identity). History files stay as long as their lineage has a base backup. WAL of a lineage without one goes
 * when it is older than the retention of databases.
 */
export async function collectDeadWal(check: DeadCheck, notes: string[]): Promise<DeadObjects[]> {
  const { store, signal, nowMs, graceMs, walRetentionMs } = check;
  const needs = walNeeds(check);
  const dead: DeadObjects[] = [];
  for (const systemId of await store.folders('wal/', { signal })) {
    const need = needs.get(systemId);
    const youngestMs = nowMs - graceMs - (need ? 0 : (walRetentionMs ?? Number.POSITIVE_INFINITY));
    const keys: string[] = [];
    let bytes = 0;
    let strangers = 0;
    for await (const { key, size, modifiedMs } of listPerhapsDead(check, systemId, need)) {
      const name = parseWalKey(key);
      if (!name) {
        strangers++;
        continue;
      }
      if (!(modifiedMs > 0 && modifiedMs < youngestMs)) continue;
      if (need && isNeeded(need, name)) continue;
      keys.push(key);
      bytes += size;
    }
    if (strangers > 0) notes.push(`${strangers} objects under wal/${systemId}/ are not WAL; they are left alone`);
    if (keys.length === 0) continue;
    const why = need
      ? 'no base backup that is kept and no moment of the window needs it'
      : 'its lineage has no base backup and it is beyond retention';
    dead.push({ what: 'wal', subject: `system ${systemId}`, why, keys, bytes });
  }
  return dead;
}

/** By PostgreSQL system. */
function walNeeds({ needed, alone }: DeadCheck): ReadonlyMap<string, WalNeed> {
  const systems = Map.groupBy(
    needed.flatMap(({ resource, id, wal }) => (wal ? [{ ...wal, alone: alone.has(`${resource}/${id}`) }] : [])),
    ({ systemId }) => systemId,
  );
  const needs = new Map<string, WalNeed>();
  for (const [systemId, bases] of systems) {
    const segmentBytes = bases[0]?.segmentBytes ?? 0;
    const starts = bases.flatMap((base) => (base.alone ? [] : [base.from]));
    const from = starts.length === 0 ? undefined : starts.reduce(minLsn);
    const ranges = bases.map(({ from, until }) => ({ start: from, end: until }));
    needs.set(systemId, { segmentBytes, from, ranges: joinRanges(ranges) });
  }
  return needs;
}

function isNeeded({ segmentBytes, from, ranges }: WalNeed, name: WalName): boolean {
  if (name.kind === 'history') return true;
  const { start, end } = rangeOfName(name, segmentBytes);
  if (from !== undefined && end > from) return true;
  return ranges.some((range) => start < range.end && end > range.start);
}

/** Of every timeline only what comes before everything that is needed: names are in the order of LSNs, and most WAL comes after. */
async function* listPerhapsDead(
  { store, signal }: DeadCheck,
  systemId: string,
  need: WalNeed | undefined,
): AsyncGenerator<ObjectInfo> {
  if (need?.from === undefined) {
    yield* listInOrder(store, `wal/${systemId}/`, signal);
    return;
  }
  for (const folder of await store.folders(`wal/${systemId}/`, { signal, emptyToo: true })) {
    const timeline = Number.parseInt(folder, 16);
    // Not a timeline: a check of the vault names it.
    if (!/^[0-9A-F]{8}$/.test(folder) || timeline === 0) continue;
    const end = layout.walSegment(systemId, timeline, segmentName(timeline, need.from, need.segmentBytes));
    yield* listInOrder(store, `wal/${systemId}/${folder}/`, signal, end);
  }
}
