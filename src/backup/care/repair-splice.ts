/** Places that two copies may differ in: each doubles the number of combinations, of which every one costs a digest. */
const MOST_PLACES = 10;
/** Differences closer together than this count as one place, bytes: first finely, then by what a disk or a file system loses at once. */
const GAPS = [16, 4096];

interface Place {
  readonly from: number;
  readonly to: number;
}

/**
 * Two copies of an object that are damaged in different places hold all of it together: where they differ one of them is right, and
 * `isGood` (a digest) tells when the right ones were chosen. A copy that was cut off differs in what it lacks. Undefined when no
 * choice is good, or there are too many.
 */
export function splice(a: Buffer, b: Buffer, isGood: (bytes: Buffer) => boolean): Buffer | undefined {
  const [long, short] = a.length >= b.length ? [a, b] : [b, a];
  for (const gap of GAPS) {
    const places = differences(long, short, gap);
    if (places.length === 0) return undefined;
    if (places.length > MOST_PLACES) continue;
    const tried = Buffer.from(long);
    for (let choice = 1; choice < 2 ** places.length; choice++) {
      for (const [i, { from, to }] of places.entries()) {
        const source = choice & (1 << i) ? short : long;
        source.copy(tried, from, from, to);
      }
      if (isGood(tried)) return tried;
    }
  }
  return undefined;
}

/** Where two buffers differ as far as both reach; neighbours less than `gap` apart are joined. */
function differences(long: Buffer, short: Buffer, gap: number): Place[] {
  const BLOCK = 4096;
  const places: Place[] = [];
  for (let block = 0; block < short.length; block += BLOCK) {
    const end = Math.min(block + BLOCK, short.length);
    if (long.compare(short, block, end, block, end) === 0) continue;
    for (let at = block; at < end; at++) {
      if (long[at] === short[at]) continue;
      const last = places.at(-1);
      if (last && at - last.to < gap) places[places.length - 1] = { from: last.from, to: at + 1 };
      else places.push({ from: at, to: at + 1 });
    }
    if (places.length > 100_000) break;
  }
  return places;
}
