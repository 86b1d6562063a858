import { createHash, hash } from 'node:crypto';
import type { KeptRuns, SealRun } from './seal-jobs.ts';

/** As `BLOCK_DIGEST_BYTES` of the backups: what is kept of a block's digest for the next comparison. */
export const SHORT_DIGEST_BYTES = 16;

/**
 * Hashes the runs of a frame, block by block where they have blocks, compares each with what is known of it, and moves what has changed
 * together at the beginning of `raw`: only that is sealed. One pass gives the digests of the runs and those of their blocks.
 */
export function keepChanged(raw: Uint8Array, runs: readonly SealRun[]): KeptRuns {
  const blocks = runs.reduce((sum, run) => sum + blocksOf(run), 0);
  const result = {
    length: 0,
    digests: new Uint8Array(32 * runs.length),
    blockDigests: new Uint8Array(SHORT_DIGEST_BYTES * blocks),
    changed: new Uint8Array(blocks),
  };
  let firstBlock = 0;
  for (const [i, run] of runs.entries()) {
    result.digests.set(run.blockBytes === undefined ? plain(run) : inBlocks(run, run.blockBytes), 32 * i);
    firstBlock += blocksOf(run);
  }
  return result;

  function plain({ offset, length, previous }: SealRun): Uint8Array {
    const digest = hash('sha256', raw.subarray(offset, offset + length), 'buffer');
    if (!isSame(digest, previous, 0, 32)) {
      result.changed[firstBlock] = 1;
      keep(offset, length);
    }
    return digest;
  }

  function inBlocks({ offset, length, previous, whole }: SealRun, blockBytes: number): Uint8Array {
    const blocks = Math.ceil(length / blockBytes);
    const digests = digestsOfBlocks(raw.subarray(offset, offset + length), blockBytes);
    for (let n = 0; n < blocks; n++) {
      const digest = digests.subarray(32 * n, 32 * n + SHORT_DIGEST_BYTES);
      result.blockDigests.set(digest, SHORT_DIGEST_BYTES * (firstBlock + n));
    }
    if (whole && hash('sha256', digests, 'buffer').equals(whole)) return whole;
    const kept = createHash('sha256');
    // Neighbours that have changed are moved together.
    let from = offset;
    let to = offset;
    for (let n = 0; n < blocks; n++) {
      const digest = digests.subarray(32 * n, 32 * n + 32);
      if (isSame(digest, previous, SHORT_DIGEST_BYTES * n, SHORT_DIGEST_BYTES)) continue;
      result.changed[firstBlock + n] = 1;
      kept.update(digest);
      const at = offset + n * blockBytes;
      if (at > to) {
        keep(from, to - from);
        from = at;
      }
      to = Math.min(at + blockBytes, offset + length);
    }
    keep(from, to - from);
    return kept.digest();
  }

  function keep(offset: number, length: number): void {
    if (offset !== result.length) raw.copyWithin(result.length, offset, offset + length);
    result.length += length;
  }
}

/** SHA-256 of a run as its index records it: of its bytes, or over the SHA-256s of its blocks. */
export function runDigest(bytes: Uint8Array, blockBytes: number | undefined): Buffer {
  if (blockBytes === undefined) return hash('sha256', bytes, 'buffer');
  return hash('sha256', digestsOfBlocks(bytes, blockBytes), 'buffer');
}

/** SHA-256 of each block, 32 bytes each. */
function digestsOfBlocks(bytes: Uint8Array, blockBytes: number): Buffer {
  const digests = Buffer.allocUnsafe(32 * Math.ceil(bytes.length / blockBytes));
  for (let at = 0, to = 0; at < bytes.length; at += blockBytes, to += 32) {
    // As text: a buffer for each block costs a fifth of the time of hashing 8 KiB (measured).
    digests.write(hash('sha256', bytes.subarray(at, at + blockBytes), 'binary'), to, 'binary');
  }
  return digests;
}

/** Blocks of a run; one that has none counts as one. */
export function blocksOf({ length, blockBytes }: Pick<SealRun, 'length' | 'blockBytes'>): number {
  return blockBytes === undefined ? 1 : Math.ceil(length / blockBytes);
}

function isSame(digest: Buffer, previous: Uint8Array | undefined, at: number, bytes: number): boolean {
  return previous !== undefined && digest.compare(previous, at, at + bytes, 0, bytes) === 0;
}
