import type { Extent } from './index-format.ts';

// Pure functions over the extents of one file: lists in the order of their positions, without overlaps.

/**
 * The bytes `from` up to `to` of a file: the extents that lie there, cut to it. `partOf`: what this backup calls a part of the one that
 * they come from; only parts that are named any more are asked for.
 */
export function sliceExtents(
  extents: readonly Extent[],
  from: number,
  to: number,
  partOf: (part: number) => number = (part) => part,
): Extent[] {
  const found: Extent[] = [];
  for (let i = firstEndingAfter(extents, from); i < extents.length; i++) {
    const extent = extents[i];
    if (!extent || extent.position >= to) break;
    const start = Math.max(from, extent.position);
    const end = Math.min(to, extent.position + extent.length);
    if (start >= end) continue;
    const part = partOf(extent.part);
    const isAll = start === extent.position && end === extent.position + extent.length;
    if (isAll && part === extent.part) found.push(extent);
    else {
      const skip = extent.skip + start - extent.position;
      found.push({ ...extent, part, position: start, length: end - start, skip });
    }
  }
  return found;
}

/** Joins neighbours that are neighbours in the same run as well. */
export function mergeAdjacent(extents: readonly Extent[]): Extent[] {
  const merged: Extent[] = [];
  for (const extent of extents) {
    const last = merged.at(-1);
    if (last && followsInRun(last, extent))
      merged[merged.length - 1] = { ...last, length: last.length + extent.length };
    else merged.push(extent);
  }
  return merged;
}

/** `changes` laid over what lies below, up to `size`: where they have nothing, `below` shows through. `partOf` as for `sliceExtents`. */
export function overlayExtents(
  below: readonly Extent[],
  changes: readonly Extent[],
  size: number,
  partOf?: (part: number) => number,
): Extent[] {
  const laid: Extent[] = [];
  let at = 0;
  for (const change of changes) {
    for (const extent of sliceExtents(below, at, change.position, partOf)) laid.push(extent);
    laid.push(change);
    at = change.position + change.length;
  }
  for (const extent of sliceExtents(below, at, size, partOf)) laid.push(extent);
  return mergeAdjacent(laid);
}

/** True when both are pieces of the same run. */
export function sameRun(a: Extent, b: Extent): boolean {
  return (
    a.part === b.part &&
    a.frameOffset === b.frameOffset &&
    a.rawOffset === b.rawOffset &&
    a.runLength === b.runLength &&
    a.counter === b.counter &&
    a.frameLength === b.frameLength &&
    (a.digest === b.digest || a.digest.equals(b.digest))
  );
}

/** What is wrong with the extents of a file of `size` bytes; undefined when they may be followed. */
export function extentsProblem(extents: readonly Extent[], size: number): string | undefined {
  let end = 0;
  for (const { position, length, skip, runLength, digest } of extents) {
    if (position < end) return 'extents overlap';
    if (digest.length !== 32) return 'a digest has not 32 bytes';
    if (length === 0) return 'an extent is empty';
    if (skip + length > runLength) return 'an extent reaches beyond its run';
    end = position + length;
  }
  return end > size ? 'an extent reaches beyond its file' : undefined;
}

/** Adds the bytes of the extents to those of their parts; `live` is by part number. */
export function addLiveBytes(live: Map<number, number>, extents: readonly Extent[]): void {
  for (const { part, length } of extents) live.set(part, (live.get(part) ?? 0) + length);
}

function followsInRun(a: Extent, b: Extent): boolean {
  return a.position + a.length === b.position && a.skip + a.length === b.skip && sameRun(a, b);
}

/** Index of the first extent that ends after `position`. */
function firstEndingAfter(extents: readonly Extent[], position: number): number {
  let low = 0;
  let high = extents.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const extent = extents[middle];
    if (extent && extent.position + extent.length <= position) low = middle + 1;
    else high = middle;
  }
  return low;
}
