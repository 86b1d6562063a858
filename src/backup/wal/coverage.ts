import { DrError } from '../../base/errors.ts';
import { type Lsn, parseLsn } from '../../postgres/lsn.ts';
import { layout } from '../../vault/layout.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { readWalHeartbeat, type WalHeartbeat } from './heartbeat.ts';
import { type ListedWal, listWal } from './listing.ts';
import { type Ancestors, coveringPieces, joinRanges, rangeOfName, type WalRange } from './names.ts';
import { readWalHeader } from './object.ts';

/** A stretch of WAL without a hole, and what is known of its end. */
export interface CoveredRange extends WalRange {
  /** By the server's clock: every commit before this moment lies inside or before this range; 0 = not known. */
  readonly coveredUntilMs: number;
  /** By the server's clock: nothing in this range was committed later; 0 = not known. */
  readonly newestMs: number;
}

export interface CoveredTimeline {
  readonly timeline: number;
  /** In order; between two of them WAL is missing. */
  readonly ranges: readonly CoveredRange[];
  /** The timelines before, from its stored history; undefined when that is not in the vault (timeline 1 has none). */
  readonly ancestors: Ancestors | undefined;
}

/** What one vault's WAL archive of one PostgreSQL system can bring back. */
export interface WalCoverage {
  readonly systemId: string;
  /** Where it lies, for messages. */
  readonly location: string;
  /** Bytes of a segment; 0 for an empty archive. */
  readonly segmentBytes: number;
  /** By number. */
  readonly timelines: readonly CoveredTimeline[];
  /** The end of the newest timeline's WAL; undefined for an empty archive. */
  readonly end: { readonly timeline: number; readonly lsn: Lsn } | undefined;
  /**
   * By the server's clock: until when the newest WAL reaches; 0 = not known. What a backup can be recovered to, holes considered, says
   * `planRecovery`.
   */
  readonly coveredUntilMs: number;
  readonly heartbeat: WalHeartbeat | undefined;
}

/**
 * Reads from a listing and a few headers (no key needed) what a vault's archive covers. `resource`: its heartbeat tells that an idle
 * database has written nothing since. Throws `corrupt` when a header that matters is damaged.
 */
export async function walCoverage(
  store: ObjectStore,
  systemId: string,
  options: { readonly resource?: string; readonly signal?: AbortSignal } = {},
): Promise<WalCoverage> {
  const { signal, resource } = options;
  // Before the listing: what it says is then surely in the listing.
  const heartbeat = resource === undefined ? undefined : await readWalHeartbeat(store, resource, signal);
  const found = new Map<number, Found>();
  let segmentBytes = 0;
  for await (const object of listWal(store, systemId, { signal })) {
    const timeline = found.get(object.name.timeline) ?? { stretches: [], history: undefined };
    found.set(object.name.timeline, timeline);
    if (object.name.kind === 'history') {
      timeline.history = object;
      continue;
    }
    if (segmentBytes === 0) segmentBytes = (await readWalHeader(store, object.key, object.size, signal)).segmentBytes;
    add(timeline, object, rangeOfName(object.name, segmentBytes));
  }
  const timelines: CoveredTimeline[] = [];
  for (const [timeline, { stretches, history }] of [...found].sort(([a], [b]) => a - b)) {
    const ranges = await Promise.all(
      joinStretches(stretches).map(({ start, end, last }) => describe(store, { start, end }, last, signal)),
    );
    const ancestors = history && (await ancestorsOf(store, history, signal));
    timelines.push({ timeline, ranges, ancestors });
  }
  const newest = timelines.filter(({ ranges }) => ranges.length > 0).at(-1);
  const lastRange = newest?.ranges.at(-1);
  const end = newest && lastRange ? { timeline: newest.timeline, lsn: lastRange.end } : undefined;
  const idle = end && heartbeat ? idleUntil(heartbeat, systemId, end) : 0;
  return {
    systemId,
    location: `${store.location}/${layout.walSystem(systemId)}`,
    segmentBytes,
    timelines,
    end,
    coveredUntilMs: Math.max(idle, lastRange?.coveredUntilMs ?? 0),
    heartbeat,
  };
}

interface Found {
  /** Listings come in order, so neighbours are joined as they come and memory stays small. */
  readonly stretches: Stretch[];
  history: ListedWal | undefined;
}

interface Stretch {
  start: Lsn;
  end: Lsn;
  /** The object that reaches `end`. */
  last: ListedWal;
}

function add({ stretches }: Found, object: ListedWal, range: WalRange): void {
  const before = stretches.at(-1);
  if (!before || range.start > before.end || range.start < before.start) stretches.push({ ...range, last: object });
  else if (range.end > before.end) Object.assign(before, { end: range.end, last: object });
}

function joinStretches(stretches: readonly Stretch[]): Stretch[] {
  return joinRanges(stretches).map(({ start, end }) => {
    const last = stretches.find((stretch) => stretch.end === end)?.last;
    if (!last) throw new DrError('internal', 'a stretch of WAL has no last object');
    return { start, end, last };
  });
}

async function describe(
  store: ObjectStore,
  range: WalRange,
  last: ListedWal,
  signal?: AbortSignal,
): Promise<CoveredRange> {
  const header = await readWalHeader(store, last.key, last.size, signal);
  return { ...range, coveredUntilMs: header.serverClockMs, newestMs: header.endClockMs };
}

async function ancestorsOf(store: ObjectStore, history: ListedWal, signal?: AbortSignal): Promise<Ancestors> {
  const header = await readWalHeader(store, history.key, history.size, signal);
  return (header.ancestors ?? []).map(({ timeline, end }) => ({ timeline, end: parseLsn(end) ?? 0n }));
}

/** An idle server writes no WAL, but its archiver goes on saying so. Only believed when the archive reaches what it says. */
function idleUntil(heartbeat: WalHeartbeat, systemId: string, end: { timeline: number; lsn: Lsn }): number {
  const lsn = parseLsn(heartbeat.lsn);
  const same = heartbeat.systemId === systemId && heartbeat.timeline === end.timeline;
  return same && lsn !== undefined && lsn <= end.lsn ? heartbeat.serverClockMs : 0;
}

/** The fewest objects to read for one segment, or where the hole is. */
export function piecesFor(objects: readonly ListedWal[]): {
  chosen: ListedWal[];
  end: number;
  next: number | undefined;
} {
  const pieces = objects.flatMap((object) =>
    object.name.kind === 'piece' ? [{ object, from: object.name.from, to: object.name.to }] : [],
  );
  const { chosen, end } = coveringPieces(pieces, 0, Number.MAX_SAFE_INTEGER);
  const beyond = pieces.filter(({ to }) => to > end).map(({ from }) => from);
  return { chosen: chosen.map(({ object }) => object), end, next: beyond.length > 0 ? Math.min(...beyond) : undefined };
}
