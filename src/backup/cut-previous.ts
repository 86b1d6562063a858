import { sliceExtents } from './extents.ts';
import { BLOCK_DIGEST_BYTES, type PreviousEntry } from './previous/previous-backup.ts';

/** An entry of the previous backup as if its file ended at `bytes`, a multiple of its block size: what lay beyond is not there to be used. */
export function cutPrevious(previous: PreviousEntry, bytes: number): PreviousEntry {
  const { entry } = previous;
  if (bytes >= entry.size) return previous;
  return {
    ...previous,
    entry: { ...entry, size: bytes, extents: sliceExtents(entry.extents, 0, bytes) },
    blockDigests: (first, count) => {
      const digests = previous.blockDigests(first, count);
      const kept = Math.max(0, Math.floor(bytes / (entry.blockBytes ?? 1)) - first);
      if (kept < count) digests.fill(0, kept * BLOCK_DIGEST_BYTES);
      return digests;
    },
  };
}
