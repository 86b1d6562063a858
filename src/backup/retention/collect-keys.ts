import { DrError } from '../../base/errors.ts';
import { readKeyFacts } from '../../vault/keys.ts';
import type { ObjectInfo, ObjectStore } from '../../vault/store.ts';
import { readWalHeader } from '../wal/object.ts';
import { type DeadCheck, type DeadObjects, isPastGrace, notJudged } from './collect-check.ts';
import { listInOrder, namesInOrder } from './collect-survey.ts';

/** Most headers of WAL objects read in one run to prove that keys are unused; beyond that the keys, a few hundred bytes each, stay. */
const HEADER_READS = 20_000;
/** Objects looked at right after a key was made: a key that is in use is nearly always found there. */
const PROBES = 3;

interface StoredKey {
  readonly id: string;
  readonly objects: ObjectInfo[];
}

interface Candidate extends StoredKey {
  readonly createdAtMs: number;
  readonly usedFor: string;
}

/**
 * Data keys that seal nothing any more. A key goes only when it says what it was made for, is older than the grace period by the
 * store's clock and its own, and
 * - of a backup: no manifest that is needed names it;
 * - of a WAL session: a later session of the same lineage has a key that is past the grace period as well (so this session has
 *   ended), and the header of no WAL object in any vault names it: what another vault has may be copied here at any time.
 */
export async function collectDeadKeys(
  check: DeadCheck,
  deadWal: ReadonlySet<string>,
  notes: string[],
): Promise<DeadObjects[]> {
  const candidates = await candidatesOf(check, notes);
  const dead = candidates.filter(({ usedFor }) => usedFor === 'backup');
  const bySystem = Map.groupBy(
    candidates.filter(({ usedFor }) => usedFor.startsWith('wal/')),
    ({ usedFor }) => usedFor.slice('wal/'.length),
  );
  let reads = HEADER_READS;
  for (const [systemId, sessions] of bySystem) {
    sessions.sort((a, b) => a.createdAtMs - b.createdAtMs);
    const ended = sessions.slice(0, -1);
    if (ended.length === 0) continue;
    try {
      const result = await unusedByWal(check, systemId, ended, deadWal, reads);
      reads -= result.reads;
      dead.push(...result.unused);
      if (result.undecided > 0) {
        notes.push(`${result.undecided} old data keys of WAL stay: there is too much WAL to prove that none uses them`);
      }
    } catch (error) {
      // Damaged: nobody knows which key it needs. Not found: pieces that the archiver has just replaced by their segment.
      if (!(error instanceof DrError && ['corrupt', 'refused', 'not-found'].includes(error.kind))) throw error;
      notes.push(notJudged(`keys of wal/${systemId}/`, error));
    }
  }
  if (dead.length === 0) return [];
  const objects = dead.flatMap((key) => key.objects);
  return [
    {
      what: 'keys',
      subject: `${dead.length} data keys`,
      why: 'nothing that is kept is sealed with them',
      keys: objects.map(({ key }) => key),
      bytes: objects.reduce((sum, { size }) => sum + size, 0),
    },
  ];
}

/** Keys that no manifest needs and that are past the grace period, with what they say about themselves. */
async function candidatesOf(check: DeadCheck, notes: string[]): Promise<Candidate[]> {
  const { store, signal, nowMs, graceMs } = check;
  const needed = new Set(check.needed.flatMap(({ keyIds }) => keyIds));
  const candidates: Candidate[] = [];
  for (const id of await store.folders('keys/', { signal, emptyToo: true })) {
    if (!/^[0-9a-f]{32}$/.test(id) || needed.has(id)) continue;
    const stored: StoredKey = { id, objects: [] };
    for await (const info of listInOrder(store, `keys/${id}/`, signal)) {
      if (/^keys\/[0-9a-f]{32}\/\d+\.json$/.test(info.key)) stored.objects.push(info);
    }
    const newest = stored.objects.at(-1);
    if (!newest) continue;
    if (!stored.objects.every(({ modifiedMs }) => isPastGrace(check, modifiedMs, 0))) continue;
    try {
      const bytes = await store.read(newest.key, undefined, { signal });
      const facts = readKeyFacts(bytes, stored.id, `${store.location}/${newest.key}`);
      if (facts.usedFor === undefined || !(facts.createdAtMs < nowMs - graceMs)) continue;
      candidates.push({ ...stored, createdAtMs: facts.createdAtMs, usedFor: facts.usedFor });
    } catch (error) {
      if (!(error instanceof DrError && (error.kind === 'corrupt' || error.kind === 'refused'))) throw error;
      notes.push(notJudged(newest.key, error));
    }
  }
  return candidates;
}

/** Those of `ended` that no WAL object of the lineage names in any vault; `limit` bounds the headers read. */
async function unusedByWal(
  check: DeadCheck,
  systemId: string,
  ended: readonly Candidate[],
  deadWal: ReadonlySet<string>,
  limit: number,
): Promise<{ unused: Candidate[]; undecided: number; reads: number }> {
  const open = new Map(ended.map((key) => [key.id, key]));
  let reads = 0;
  for (const store of check.stores) {
    const wal: string[] = [];
    for await (const key of namesInOrder(store, `wal/${systemId}/`, check.signal)) {
      if (store !== check.store || !deadWal.has(key)) wal.push(key);
    }
    const seen = new Set<string>();
    const look = async (key: string | undefined) => {
      if (key === undefined || seen.has(key)) return;
      seen.add(key);
      reads++;
      const { keyId } = await readWalHeader(store, key, undefined, check.signal);
      if (keyId !== undefined) open.delete(keyId);
    };
    for (const { id, createdAtMs } of ended) {
      if (!open.has(id)) continue;
      const at = await firstWrittenSince(store, wal, createdAtMs, check.signal);
      for (let i = 0; i < PROBES && open.has(id); i++) await look(wal[at + i]);
    }
    for (const key of wal) {
      if (open.size === 0) return { unused: [], undecided: 0, reads };
      if (reads >= limit) return { unused: [], undecided: open.size, reads };
      await look(key);
    }
  }
  return { unused: [...open.values()], undecided: 0, reads };
}

/**
 * Where in `wal` the first object stands that was written since `atMs`, as far as the order of names is that of time: it is within a
 * timeline, and who is misled by a copy that came later only looks at more objects than necessary.
 */
async function firstWrittenSince(
  store: ObjectStore,
  wal: readonly string[],
  atMs: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  let [from, to] = [0, wal.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    const info = await store.stat(wal[middle] ?? '', { signal });
    if (info && info.modifiedMs < atMs) from = middle + 1;
    else to = middle;
  }
  return from;
}
