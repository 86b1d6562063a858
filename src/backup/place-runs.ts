import { DrError } from '../base/errors.ts';
import type { KeptRuns } from '../vault/seal-jobs.ts';
import { blocksOf } from '../vault/seal-runs.ts';
import { sliceExtents } from './extents.ts';
import type { Extent } from './index-format.ts';
import type { PackedFile, Run } from './packed-file.ts';
import { BLOCK_DIGEST_BYTES } from './previous/previous-backup.ts';

/** Where a sealed frame stands. */
export type FramePlace = Pick<Extent, 'part' | 'frameOffset' | 'frameLength' | 'counter'>;

/**
 * Gives each file of a sealed frame its extents: into the frame (`place`; undefined when nothing of it has changed) for what has changed,
 * into the previous backup for the rest. `partOf`: what this backup calls a part of the previous one.
 */
export function placeRuns(
  runs: readonly Run[],
  sealed: KeptRuns,
  place: FramePlace | undefined,
  partOf: (part: number) => number,
): void {
  let block = 0;
  let rawOffset = 0;
  for (const [i, run] of runs.entries()) {
    const { blockBytes } = run.file;
    const blocks = blocksOf({ length: run.length, blockBytes });
    const changed = sealed.changed.subarray(block, block + blocks);
    const runLength = keptBytes(run, blockBytes ?? run.length, changed);
    const digest = Buffer.from(sealed.digests.subarray(32 * i, 32 * i + 32));
    const stored = { rawOffset, runLength, digest };
    if (blockBytes !== undefined) {
      const digests = sealed.blockDigests.subarray(BLOCK_DIGEST_BYTES * block, BLOCK_DIGEST_BYTES * (block + blocks));
      keepDigests(run, blockBytes, digests);
    }
    let skip = 0;
    for (const { position, length, isChanged } of stretches(run, blockBytes ?? run.length, changed)) {
      if (!isChanged) {
        for (const extent of earlier(run.file, position, length, partOf)) run.file.addExtent(extent);
        continue;
      }
      if (!place) throw new DrError('internal', 'content that has changed was not sealed');
      run.file.addExtent({ position, length, ...place, ...stored, skip });
      skip += length;
    }
    block += blocks;
    rawOffset += runLength;
  }
}

function earlier(file: PackedFile, position: number, length: number, partOf: (part: number) => number): Extent[] {
  const extents = sliceExtents(file.previous?.entry.extents ?? [], position, position + length, partOf);
  if (extents.reduce((sum, extent) => sum + extent.length, 0) !== length) {
    throw new DrError('internal', 'content that equals the previous backup is not in it');
  }
  return extents;
}

function keptBytes(run: Run, blockBytes: number, changed: Uint8Array): number {
  let kept = 0;
  for (const [n, each] of changed.entries()) {
    if (each === 1) kept += Math.min(blockBytes, run.length - n * blockBytes);
  }
  return kept;
}

/** The pieces of a run, cut where changed and unchanged blocks meet. */
function* stretches(
  run: Run,
  blockBytes: number,
  changed: Uint8Array,
): Generator<{ position: number; length: number; isChanged: boolean }> {
  let n = 0;
  for (const piece of run.pieces) {
    for (let at = 0; at < piece.length; ) {
      const from = at;
      const isChanged = changed[n] === 1;
      while (at < piece.length && (changed[n] === 1) === isChanged) {
        at = Math.min(at + blockBytes, piece.length);
        n++;
      }
      yield { position: piece.position + from, length: at - from, isChanged };
    }
  }
}

function keepDigests(run: Run, blockBytes: number, digests: Uint8Array): void {
  let at = 0;
  for (const { position, length } of run.pieces) {
    const bytes = Math.ceil(length / blockBytes) * BLOCK_DIGEST_BYTES;
    run.file.addDigests(position, digests.subarray(at, at + bytes));
    at += bytes;
  }
}
