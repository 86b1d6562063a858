import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { SealRun } from '../../src/vault/seal-jobs.ts';
import { blocksOf, keepChanged, runDigest, SHORT_DIGEST_BYTES } from '../../src/vault/seal-runs.ts';

const sha = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest();

const piece = fc.record({
  content: fc.uint8Array({ minLength: 1, maxLength: 60 }),
  block: fc.option(fc.constantFrom(4, 8, 16), { nil: undefined }),
  /** Which blocks equal the previous backup; without, there is none. */
  same: fc.option(fc.array(fc.boolean(), { minLength: 15, maxLength: 15 }), { nil: undefined }),
});

function blocks(bytes: Uint8Array, size: number | undefined): Uint8Array[] {
  if (size === undefined) return [bytes];
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, n) => bytes.slice(n * size, (n + 1) * size));
}

describe('what has changed of a frame', () => {
  it('is moved together, with the digests of every block and of what is left', () => {
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 6 }), (pieces) => {
        const raw = Uint8Array.from(pieces.flatMap(({ content }) => [...content]));
        let offset = 0;
        const runs = pieces.map(({ content, block, same }): SealRun => {
          const digests = blocks(content, block).map((bytes, n) =>
            (same?.[n] ? sha(bytes) : sha(Buffer.from('another'))).subarray(
              0,
              block === undefined ? 32 : SHORT_DIGEST_BYTES,
            ),
          );
          const run = { offset, length: content.length, blockBytes: block };
          offset += content.length;
          return same ? { ...run, previous: Buffer.concat(digests) } : run;
        });
        const result = keepChanged(raw, runs);
        let [at, slot] = [0, 0];
        for (const [i, { content, block, same }] of pieces.entries()) {
          const all = blocks(content, block);
          const left = all.filter((_, n) => !same?.[n]);
          const kept = Buffer.concat(left);
          expect(blocksOf({ length: content.length, blockBytes: block })).toBe(all.length);
          expect([...result.changed.subarray(slot, slot + all.length)]).toEqual(all.map((_, n) => (same?.[n] ? 0 : 1)));
          expect(Buffer.from(raw.subarray(at, at + kept.length)).equals(kept)).toBe(true);
          const digest = Buffer.from(result.digests.subarray(32 * i, 32 * i + 32));
          if (kept.length > 0) expect(digest).toEqual(runDigest(kept, block));
          if (block !== undefined) {
            const known = all.map((bytes) => sha(bytes).subarray(0, SHORT_DIGEST_BYTES));
            const from = SHORT_DIGEST_BYTES * slot;
            expect(Buffer.from(result.blockDigests.subarray(from, from + SHORT_DIGEST_BYTES * all.length))).toEqual(
              Buffer.concat(known),
            );
          }
          at += kept.length;
          slot += all.length;
        }
        expect(result.length).toBe(at);
      }),
    );
  });

  it('is nothing of a run whose digest as a whole is known and the same, and all of one that differs', () => {
    const raw = Uint8Array.from({ length: 50 }, (_, i) => i);
    const whole = runDigest(raw.subarray(10, 50), 16);
    const run = { offset: 10, length: 40, blockBytes: 16, whole };
    const same = keepChanged(Uint8Array.from(raw), [{ offset: 0, length: 10 }, run]);
    expect([same.length, [...same.changed]]).toEqual([10, [1, 0, 0, 0]]);
    const differing = keepChanged(Uint8Array.from(raw), [
      { offset: 0, length: 10 },
      { ...run, whole: sha(raw) },
    ]);
    expect([differing.length, [...differing.changed]]).toEqual([50, [1, 1, 1, 1]]);
    expect(Buffer.from(differing.digests.subarray(32))).toEqual(whole);
    expect(differing.blockDigests).toEqual(same.blockDigests);
  });

  it('the digest of a run is its SHA-256, or that over those of its blocks', () => {
    const bytes = Buffer.from('0123456789');
    expect(runDigest(bytes, undefined)).toEqual(sha(bytes));
    const over = Buffer.concat([sha(bytes.subarray(0, 4)), sha(bytes.subarray(4, 8)), sha(bytes.subarray(8))]);
    expect(runDigest(bytes, 4)).toEqual(sha(over));
  });
});
