import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';

// Node's result is a view of the buffer of `chunkSize` bytes that it was written to. That buffer lives until a full garbage
// collection, because the native engine that refers to it survives the small ones: up to 60 MB a thread, and half of all
// collections (measured). So callers give it to `freeBuffer` as soon as they are done.

/** Compresses at a level of zstd's. The result has its buffer for itself. */
export function compress(raw: Uint8Array, level: number): Buffer {
  return zstdCompressSync(raw, {
    // zstd's bound for incompressible content: with that much room it works in one pass on the input itself, without a window
    // of its own to copy it through (twice as fast where little compresses, measured).
    chunkSize: raw.length + (raw.length >>> 8) + 128,
    pledgedSrcSize: raw.length,
    params: { [constants.ZSTD_c_compressionLevel]: level },
  });
}

/**
 * Decompresses what becomes `rawBytes`; throws what zlib throws when it is damaged or becomes more. The result has its buffer for
 * itself.
 */
export function decompress(packed: Uint8Array, rawBytes: number): Buffer {
  // One byte of room more: Node gets the next buffer as soon as one is full.
  return zstdDecompressSync(packed, {
    chunkSize: Math.max(1024, rawBytes + 1),
    maxOutputLength: Math.max(1, rawBytes),
  });
}
