import { DrError } from '../../base/errors.ts';
import { type Lsn, parseLsn } from '../../postgres/lsn.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { listWal } from '../wal/listing.ts';
import { rangeOfName } from '../wal/names.ts';
import { readWalHeader, type WalHeader } from '../wal/object.ts';
import type { DatabaseNeed } from './check-vault-backups.ts';

/** Moments that can be recovered to, both ends included, milliseconds since 1970. */
export interface RecoveryWindow {
  readonly fromMs: number;
  readonly toMs: number;
}

/** What the base backups of one PostgreSQL system and their WAL in one vault can bring back. */
export interface Recoverable {
  /** In order, joined where they touch. */
  readonly windows: readonly RecoveryWindow[];
  /** Base backups whose WAL has a hole before they are consistent. */
  readonly unusable: readonly DatabaseNeed[];
  /** The newest moment that any WAL object of the system tells of; 0 = not known. */
  readonly newestMs: number;
}

interface Stretch {
  readonly start: Lsn;
  end: Lsn;
  last: { readonly key: string; readonly size: number };
}

interface Timeline {
  readonly stretches: Stretch[];
  /** Where it left its ancestors, by their number. */
  readonly left: Map<number, Lsn>;
}

/** Reads listings and a few headers; no key is needed. `damaged`: WAL objects that do not count. */
export async function recoverable(
  store: ObjectStore,
  bases: readonly DatabaseNeed[],
  damaged: ReadonlySet<string>,
  signal?: AbortSignal,
): Promise<Recoverable> {
  const [first] = bases;
  if (!first) return { windows: [], unusable: [], newestMs: 0 };
  const timelines = await readTimelines(store, first, damaged, signal);
  const clocks = new Map<Stretch, number>();
  for (const { stretches } of timelines.values()) {
    for (const stretch of stretches) {
      const header = await headerOf(store, stretch.last.key, stretch.last.size, signal);
      clocks.set(stretch, header?.serverClockMs ?? 0);
    }
  }
  const windows: RecoveryWindow[] = [];
  const unusable: DatabaseNeed[] = [];
  for (const base of bases) {
    const own = around(timelines.get(base.timeline), base.from);
    if (!own || own.end < base.consistent) {
      unusable.push(base);
      continue;
    }
    let toMs = Math.max(base.consistentMs, clocks.get(own) ?? 0);
    // Timelines in order of their numbers: one that begins where recovery comes to goes on from there.
    const reached = new Map<number, Lsn>([[base.timeline, own.end]]);
    for (const number of [...timelines.keys()].filter((n) => n > base.timeline).sort((a, b) => a - b)) {
      const timeline = timelines.get(number);
      for (const [parent, at] of timeline?.left ?? []) {
        const next = (reached.get(parent) ?? -1n) >= at ? around(timeline, at) : undefined;
        if (!next) continue;
        reached.set(number, next.end);
        toMs = Math.max(toMs, clocks.get(next) ?? 0);
      }
    }
    windows.push({ fromMs: base.consistentMs, toMs });
  }
  return { windows: joined(windows), unusable, newestMs: Math.max(0, ...clocks.values()) };
}

async function readTimelines(
  store: ObjectStore,
  { systemId, segmentBytes }: DatabaseNeed,
  damaged: ReadonlySet<string>,
  signal: AbortSignal | undefined,
): Promise<Map<number, Timeline>> {
  const timelines = new Map<number, Timeline>();
  for await (const { key, size, name } of listWal(store, systemId, { signal })) {
    if (damaged.has(key)) continue;
    const timeline = timelines.get(name.timeline) ?? { stretches: [], left: new Map<number, Lsn>() };
    timelines.set(name.timeline, timeline);
    if (name.kind === 'history') {
      const header = await headerOf(store, key, size, signal);
      for (const { timeline: parent, end } of header?.ancestors ?? []) timeline.left.set(parent, parseLsn(end) ?? 0n);
      continue;
    }
    const range = rangeOfName(name, segmentBytes);
    const before = timeline.stretches.at(-1);
    if (!before || range.start < before.start || range.start > before.end)
      timeline.stretches.push({ ...range, last: { key, size } });
    else if (range.end > before.end) Object.assign(before, { end: range.end, last: { key, size } });
  }
  return timelines;
}

function around(timeline: Timeline | undefined, lsn: Lsn): Stretch | undefined {
  return timeline?.stretches.find(({ start, end }) => start <= lsn && end >= lsn);
}

async function headerOf(
  store: ObjectStore,
  key: string,
  size: number,
  signal: AbortSignal | undefined,
): Promise<WalHeader | undefined> {
  try {
    return await readWalHeader(store, key, size, signal);
  } catch (error) {
    if (error instanceof DrError && ['corrupt', 'refused', 'not-found'].includes(error.kind)) return undefined;
    throw error;
  }
}

function joined(windows: readonly RecoveryWindow[]): RecoveryWindow[] {
  const result: RecoveryWindow[] = [];
  for (const window of [...windows].sort((a, b) => a.fromMs - b.fromMs)) {
    const last = result.at(-1);
    if (!last || window.fromMs > last.toMs) result.push(window);
    else result[result.length - 1] = { fromMs: last.fromMs, toMs: Math.max(last.toMs, window.toMs) };
  }
  return result;
}
