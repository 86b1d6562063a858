import { DrError } from '../../base/errors.ts';
import { type Lsn, parseLsn, parseSegmentName, segmentName, segmentStart } from '../../postgres/lsn.ts';
import { layout } from '../../vault/layout.ts';

/** What the name of an archived WAL object says; `docs/format.md` section "WAL". */
export type WalName =
  | { readonly kind: 'segment'; readonly systemId: string; readonly timeline: number; readonly segment: string }
  | {
      readonly kind: 'piece';
      readonly systemId: string;
      readonly timeline: number;
      readonly segment: string;
      /** Offsets in the segment: the piece holds `from` up to, not including, `to`. */
      readonly from: number;
      readonly to: number;
    }
  | { readonly kind: 'history'; readonly systemId: string; readonly timeline: number };

const pattern = /^wal\/(\d{1,20})\/([0-9A-F]{8})(?:(\.history)|\/([0-9A-F]{24})(?:\.([0-9A-F]{8})-([0-9A-F]{8}))?)$/;

/** Reads the key of a WAL object; undefined if it is none. */
export function parseWalKey(key: string): WalName | undefined {
  const match = pattern.exec(key);
  if (!match) return undefined;
  const [, systemId = '', timelineHex = '', history, segment = '', fromHex, toHex] = match;
  const timeline = Number.parseInt(timelineHex, 16);
  if (history !== undefined) return { kind: 'history', systemId, timeline };
  if (!segment.startsWith(timelineHex)) return undefined;
  if (fromHex === undefined || toHex === undefined) return { kind: 'segment', systemId, timeline, segment };
  const [from, to] = [Number.parseInt(fromHex, 16), Number.parseInt(toHex, 16)];
  return from < to ? { kind: 'piece', systemId, timeline, segment, from, to } : undefined;
}

/** The key of the object that holds WAL from `start` up to `end`, which lie in one segment. */
export function walKey(systemId: string, timeline: number, start: Lsn, end: Lsn, segmentBytes: number): string {
  const segment = segmentName(timeline, start, segmentBytes);
  const base = segmentStart(start, segmentBytes);
  const [from, to] = [Number(start - base), Number(end - base)];
  return from === 0 && to === segmentBytes
    ? layout.walSegment(systemId, timeline, segment)
    : layout.walPiece(systemId, timeline, segment, from, to);
}

/** A stretch of WAL of one timeline, `end` not included. */
export interface WalRange {
  readonly start: Lsn;
  readonly end: Lsn;
}

/** The stretch that an object of this name holds. */
export function rangeOfName(name: Exclude<WalName, { kind: 'history' }>, segmentBytes: number): WalRange {
  const start = parseSegmentName(name.segment, segmentBytes)?.start ?? 0n;
  return name.kind === 'segment'
    ? { start, end: start + BigInt(segmentBytes) }
    : { start: start + BigInt(name.from), end: start + BigInt(name.to) };
}

export function minLsn(a: Lsn, b: Lsn): Lsn {
  return a < b ? a : b;
}

export function maxLsn(a: Lsn, b: Lsn): Lsn {
  return a > b ? a : b;
}

/** Joins stretches that touch or overlap; the result is in order. */
export function joinRanges(ranges: Iterable<WalRange>): WalRange[] {
  const sorted = [...ranges].sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  const joined: Array<{ start: Lsn; end: Lsn }> = [];
  for (const { start, end } of sorted) {
    const last = joined.at(-1);
    if (!last || start > last.end) joined.push({ start, end });
    else if (end > last.end) last.end = end;
  }
  return joined;
}

/** Where the WAL that begins at or before `from` ends without a hole; `from` itself when there is none. */
export function contiguousEnd(ranges: Iterable<WalRange>, from: Lsn): Lsn {
  for (const { start, end } of joinRanges(ranges)) if (start <= from && end > from) return end;
  return from;
}

/**
 * The fewest of `pieces` that cover [from, to) as far as they go without a hole. Pieces may overlap: each session of the archiver
 * cuts the open segment as it needs.
 */
export function coveringPieces<T extends { readonly from: number; readonly to: number }>(
  pieces: readonly T[],
  from: number,
  to: number,
): { chosen: T[]; end: number } {
  const chosen: T[] = [];
  let end = from;
  while (end < to) {
    let best: T | undefined;
    for (const piece of pieces) if (piece.from <= end && piece.to > (best?.to ?? end)) best = piece;
    if (!best) break;
    chosen.push(best);
    end = best.to;
  }
  return { chosen, end: Math.min(end, to) };
}

/** The `count` WAL files after `name` on the same timeline: what recovery asks for next. Empty for other names. */
export function nextWalNames(name: string, segmentBytes: number, count = 16): string[] {
  const at = parseSegmentName(name, segmentBytes);
  if (!at) return [];
  return Array.from({ length: count }, (_, i) =>
    segmentName(at.timeline, at.start + BigInt(segmentBytes) * BigInt(i + 1), segmentBytes),
  );
}

/** The timelines before this one and where each was left, oldest first. */
export type Ancestors = ReadonlyArray<{ readonly timeline: number; readonly end: Lsn }>;

/** Reads a PostgreSQL timeline history file (`00000002.history`). Throws `corrupt` for anything else. */
export function parseHistory(content: Uint8Array, where: string): Ancestors {
  const ancestors: Array<{ timeline: number; end: Lsn }> = [];
  for (const line of Buffer.from(content).toString('latin1').split('\n')) {
    const text = line.trim();
    if (text === '' || text.startsWith('#')) continue;
    const match = /^(\d+)\s+([0-9A-Fa-f]+\/[0-9A-Fa-f]+)/.exec(text);
    const end = parseLsn(match?.[2] ?? '');
    const timeline = Number(match?.[1]);
    if (!match || end === undefined || timeline <= (ancestors.at(-1)?.timeline ?? 0)) {
      throw new DrError('corrupt', `this is not a timeline history file: ${JSON.stringify(text.slice(0, 80))}`, {
        where,
        next: 'Use the copy of another vault (--vault NAME), or that of the server (pg_wal/*.history).',
      });
    }
    ancestors.push({ timeline, end });
  }
  return ancestors;
}
