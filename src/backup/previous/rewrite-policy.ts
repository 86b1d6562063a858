/** A part that the previous backup names. */
export interface PartUsage {
  /** As stored. */
  readonly size: number;
  /** Raw bytes of its frames, and how many of them the backup names. */
  readonly raw: number;
  readonly live: number;
}

/** Below this share of live bytes a part is not worth keeping. */
const LIVE_SHARE = 0.3;
/** Of the logical size, what one backup may store anew for this reason alone. */
const BUDGET_SHARE = 0.1;
/** Parts below a quarter of the usual size that a backup may name. */
const SMALL_PARTS = 64;

/**
 * Which parts a backup should use no longer, so that neither dead bytes nor small parts pile up over the years: what they hold is stored
 * anew. Those with the smallest live share first, then the smallest of too many small ones; at most a tenth of the logical size
 * (or one part) a backup. Returns positions in `parts`.
 */
export function condemnedParts(parts: readonly PartUsage[], logicalBytes: number, partBytes: number): Set<number> {
  const condemned = new Set<number>();
  let budget = Math.max(BUDGET_SHARE * logicalBytes, partBytes);
  const condemn = (candidates: ReadonlyArray<readonly [number, PartUsage]>) => {
    for (const [position, { live }] of candidates) {
      // What does not fit leaves room for what does.
      if (live > budget) continue;
      budget -= live;
      condemned.add(position);
    }
  };
  const all = [...parts.entries()];
  condemn(all.filter(([, part]) => liveShare(part) < LIVE_SHARE).sort(([, a], [, b]) => liveShare(a) - liveShare(b)));
  const small = all.filter(([position, { size }]) => size < partBytes / 4 && !condemned.has(position));
  small.sort(([, a], [, b]) => a.live - b.live);
  condemn(small.slice(0, Math.max(0, small.length - SMALL_PARTS)));
  return condemned;
}

/** Share of the raw bytes of all parts that the backup does not name: 0 for a full backup. */
export function wasteOf(parts: readonly Pick<PartUsage, 'raw' | 'live'>[]): number {
  const raw = parts.reduce((sum, part) => sum + Math.max(part.raw, part.live), 0);
  const live = parts.reduce((sum, part) => sum + part.live, 0);
  return raw === 0 ? 0 : 1 - live / raw;
}

function liveShare({ raw, live }: PartUsage): number {
  return raw === 0 ? 1 : live / raw;
}
