import { forEachLimit } from '../../base/concurrency.ts';
import { DrError } from '../../base/errors.ts';
import { formatLsn, type Lsn, segmentName } from '../../postgres/lsn.ts';
import { layout } from '../../vault/layout.ts';
import { joinRanges, maxLsn, minLsn, parseWalKey, rangeOfName, type WalName, type WalRange } from '../wal/names.ts';
import { readWalHeader, splitWalObject, type WalHeader } from '../wal/object.ts';
import type { DatabaseNeed } from './check-vault-backups.ts';
import { type CheckContext, compare, isGone } from './check-vault-findings.ts';

/** Behind all WAL. */
const NEVER: Lsn = 2n ** 64n;
/** Headers read at once. */
const READS_IN_FLIGHT = 16;

/** WAL without a hole, and the object that reaches its end. */
interface Stretch extends WalRange {
  readonly last: { readonly key: string; readonly size: number };
}

/** What a vault holds of one timeline, by the names of its objects. */
interface Timeline {
  /** Neighbours are joined as they come, so that memory does not grow with the archive. */
  ranges: Stretch[];
  hasHistory: boolean;
}

interface Archive {
  segmentBytes: number;
  readonly timelines: Map<number, Timeline>;
}

/** The data keys that WAL objects name, each with one object that does. */
export type WalKeys = ReadonlyMap<string, string>;

/**
 * Reads the header of every WAL object, or all of it where asked, and looks for holes behind the base backups of each lineage: by what
 * this vault has on both sides of a hole, and by what the others have. That WAL is missing at the end of a timeline or where it
 * begins only another vault can tell. Base backups in `alone` (`resource/id`) need only what makes them consistent.
 */
export async function checkWal(
  context: CheckContext,
  databases: readonly DatabaseNeed[],
  alone: ReadonlySet<string>,
): Promise<WalKeys> {
  const { store, findings, reads, opener, signal } = context;
  const bases = Map.groupBy(databases, ({ systemId }) => systemId);
  const archives = new Map<string, Archive>();
  const keys = new Map<string, string>();
  const objects = archived(context, store, (name) => archiveOf(archives, name, bases), true);
  await forEachLimit(objects, READS_IN_FLIGHT, async ({ key, size, name, archive }) => {
    try {
      let header: WalHeader;
      if (reads(key)) {
        const bytes = await store.read(key, undefined, { signal });
        findings.read(key, bytes.length);
        header = splitWalObject(bytes, key, store.location).header;
        await opener?.wal(key, bytes, header.keyId);
      } else header = await readWalHeader(store, key, size, signal);
      if (header.keyId !== undefined && !keys.has(header.keyId)) keys.set(header.keyId, key);
    } catch (error) {
      // The archiver replaces pieces by their segment at any time.
      if (await isGone(store, key, error, signal)) return;
      const range = name.kind === 'history' ? undefined : rangeOfName(name, archive.segmentBytes || 1);
      findings.damaged('wal', key, error, touched(bases.get(name.systemId) ?? [], name.timeline, range));
    }
  });
  const elsewhere = new Map<string, Archive>();
  for (const other of context.others) {
    await compare(context, other, async () => {
      for await (const _ of archived(context, other, (name) => archiveOf(elsewhere, name, bases), false));
    });
  }
  for (const [systemId, ofSystem] of bases) {
    const archive = archives.get(systemId) ?? { segmentBytes: ofSystem[0]?.segmentBytes ?? 0, timelines: new Map() };
    await reportHoles(context, systemId, ofSystem, alone, archive, elsewhere.get(systemId));
  }
  return keys;
}

function archiveOf(
  archives: Map<string, Archive>,
  { systemId, timeline }: WalName,
  bases: ReadonlyMap<string, readonly DatabaseNeed[]>,
): Archive {
  const archive = archives.get(systemId) ?? {
    segmentBytes: bases.get(systemId)?.[0]?.segmentBytes ?? 0,
    timelines: new Map<number, Timeline>(),
  };
  archives.set(systemId, archive);
  if (!archive.timelines.has(timeline)) {
    archive.timelines.set(timeline, { ranges: [], hasHistory: false });
  }
  return archive;
}

/** Lists the WAL of a vault and notes it in its archive. `own`: the vault that is checked; of another only what is settled counts. */
async function* archived(
  { findings, signal, nowMs, settledMs }: CheckContext,
  store: CheckContext['store'],
  archiveFor: (name: WalName) => Archive,
  own: boolean,
): AsyncGenerator<{ key: string; size: number; name: WalName; archive: Archive }> {
  for await (const { key, size, modifiedMs } of store.list('wal/', { signal })) {
    if (own) findings.listed(key, size);
    const name = parseWalKey(key);
    if (!name) {
      if (own) findings.stranger(key);
      continue;
    }
    if (!own && modifiedMs > nowMs - settledMs) continue;
    const archive = archiveFor(name);
    const timeline = archive.timelines.get(name.timeline);
    if (timeline && name.kind === 'history') timeline.hasHistory = true;
    // Without base backup nothing says how large a segment is, and no hole matters.
    if (timeline && name.kind !== 'history' && archive.segmentBytes > 0) {
      add(timeline, { ...rangeOfName(name, archive.segmentBytes), last: { key, size } });
    }
    yield { key, size, name, archive };
  }
}

function add(timeline: Timeline, range: Stretch): void {
  const before = timeline.ranges.at(-1);
  if (!before || range.start < before.start || range.start > before.end) timeline.ranges.push(range);
  else if (range.end > before.end) timeline.ranges[timeline.ranges.length - 1] = { ...range, start: before.start };
}

async function reportHoles(
  context: CheckContext,
  systemId: string,
  bases: readonly DatabaseNeed[],
  alone: ReadonlySet<string>,
  here: Archive,
  there: Archive | undefined,
): Promise<void> {
  const { store, findings, signal } = context;
  const { segmentBytes } = here;
  const ofWindow = bases.filter(({ resource, id }) => !alone.has(`${resource}/${id}`));
  const oldest = ofWindow.map(({ from }) => from).reduce(minLsn, NEVER);
  const lineage = { systemId, from: bases.map(({ from }) => from).reduce(minLsn), segmentBytes };
  const numbers = new Set([
    ...here.timelines.keys(),
    ...(there?.timelines.keys() ?? []),
    ...bases.map((b) => b.timeline),
  ]);
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const timeline = here.timelines.get(number);
    const other = there?.timelines.get(number);
    // The WAL of a timeline that was left before the oldest base backup leads nowhere.
    if (!bases.some((base) => base.timeline <= number)) continue;
    const own = bases.filter((base) => base.timeline === number);
    const leads = ofWindow.some((base) => base.timeline <= number);
    const behind = joinRanges(timeline?.ranges ?? []).filter(({ end }) => end > oldest);
    const needed = leads
      ? neededRange(
          behind,
          ofWindow.filter((base) => base.timeline === number),
          oldest,
        )
      : undefined;
    const wanted = [
      ...(needed ? [needed] : []),
      ...own.map(({ from, consistent }) => ({ start: from, end: consistent })),
      // Whatever another vault has behind the oldest base backup could be recovered to.
      ...(leads ? (other?.ranges ?? []) : []).map(({ start, end }) => ({ start: maxLsn(start, oldest), end })),
    ];
    for (const hole of subtract(wanted, timeline?.ranges ?? [])) {
      const key = layout.walSegment(systemId, number, segmentName(number, hole.start, segmentBytes));
      const wal = `WAL of timeline ${number} from ${formatLsn(hole.start)} to ${formatLsn(hole.end)}`;
      const isThere = !findings.isFull && (await store.stat(key, { signal })) !== undefined;
      findings.problem({
        state: isThere ? 'unlisted' : 'missing',
        kind: 'wal',
        key,
        why: isThere ? `${wal} is there at least in part, and no listing shows it` : `${wal} is not there`,
        touches: touched(bases, number, hole, await untilMs(context, timeline, hole.start)),
        ...(isThere ? {} : { lineage }),
      });
    }
    const hasOlder = bases.some((base) => base.timeline < number) && (timeline?.ranges.length ?? 0) > 0;
    if (timeline?.hasHistory || !(other?.hasHistory || hasOlder)) continue;
    const key = layout.walHistory(systemId, number);
    const why = `without it no recovery goes from an older timeline to timeline ${number}`;
    findings.problem({ state: 'missing', kind: 'wal', key, why, touches: touched(bases, number, undefined), lineage });
  }
}

/** Up to which moment of the server's clock recovery comes before a hole; undefined when that cannot be said. */
async function untilMs(
  { store, findings, signal }: CheckContext,
  timeline: Timeline | undefined,
  hole: Lsn,
): Promise<number | undefined> {
  const last = timeline?.ranges.find(({ end }) => end === hole)?.last;
  if (!last || findings.isFull) return undefined;
  try {
    const { serverClockMs } = await readWalHeader(store, last.key, last.size, signal);
    return serverClockMs > 0 ? serverClockMs : undefined;
  } catch (error) {
    if (error instanceof DrError && ['corrupt', 'refused', 'not-found'].includes(error.kind)) return undefined;
    throw error;
  }
}

/** What must be there of a timeline without a hole, by this vault alone; undefined when nothing must. */
function neededRange(ranges: readonly WalRange[], bases: readonly DatabaseNeed[], oldest: Lsn): WalRange | undefined {
  const [first, last] = [ranges[0], ranges.at(-1)];
  const starts = bases.map(({ from }) => from);
  const ends = bases.map(({ consistent }) => consistent);
  if (last) ends.push(last.end);
  // A timeline that no base backup was taken on is read from where it begins.
  if (starts.length === 0 && first) starts.push(maxLsn(first.start, oldest));
  return starts.length > 0 && ends.length > 0 ? { start: starts.reduce(minLsn), end: ends.reduce(maxLsn) } : undefined;
}

function subtract(wanted: readonly WalRange[], there: readonly WalRange[]): WalRange[] {
  const have = joinRanges(there);
  const holes: WalRange[] = [];
  for (const range of joinRanges(wanted.filter(({ start, end }) => start < end))) {
    let at = range.start;
    for (const { start, end } of have) {
      if (end <= at || start >= range.end) continue;
      if (start > at) holes.push({ start: at, end: start });
      at = maxLsn(at, end);
    }
    if (at < range.end) holes.push({ start: at, end: range.end });
  }
  return holes;
}

/** What a hole or damage means for each base backup of the lineage, newest first. Without range: a timeline history. */
function touched(
  bases: readonly DatabaseNeed[],
  timeline: number,
  range: WalRange | undefined,
  reachedMs?: number,
): string[] {
  const moment = reachedMs === undefined ? '' : ` (${new Date(reachedMs).toISOString()})`;
  const concerned = bases
    .filter((base) => (range ? base.timeline <= timeline && base.from < range.end : base.timeline < timeline))
    .sort((a, b) => (a.id < b.id ? 1 : -1));
  return concerned
    .filter((base) => !range || base.timeline < timeline || range.end > base.from)
    .map((base) => {
      const { resource, id, consistent } = base;
      if (!range) return `recovery of ${resource} from backup ${id} to timeline ${timeline} and later`;
      return base.timeline === timeline && range.start < consistent
        ? `backup ${resource} ${id}: it cannot be made consistent`
        : `recovery of ${resource} from backup ${id} beyond ${formatLsn(range.start)}${moment}`;
    });
}
