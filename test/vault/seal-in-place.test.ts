import { randomFillSync } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  FRAME_HEADER_BYTES,
  FRAME_OVERHEAD_BYTES,
  FRAME_RAW_BYTES,
  openFrame,
  sealFrame,
} from '../../src/vault/seal.ts';
import { SealPool } from '../../src/vault/seal-pool.ts';

const noise = randomFillSync(new Uint8Array(FRAME_RAW_BYTES));
const text = new Uint8Array(FRAME_RAW_BYTES).map((_, i) => 97 + (i % 7) + (i % 3));
const secret = new Uint8Array(32).fill(7);

let pool: SealPool;
beforeAll(() => {
  pool = new SealPool(1);
});
afterAll(async () => await pool.close());

describe('a frame sealed in its own buffer', () => {
  it.each([
    ['compressible', text, secret],
    ['incompressible', noise, secret],
    ['incompressible, one byte less than full', noise.subarray(1), secret],
    ['a little, not encrypted', text.subarray(0, 1000), undefined],
    ['incompressible, not encrypted', noise, undefined],
    ['one byte', noise.subarray(0, 1), secret],
  ])('%s: the same bytes as sealed elsewhere, and it opens', async (_name, content, key) => {
    const seal = { secret: key, context: 'b' };
    const buffer = new ArrayBuffer(FRAME_RAW_BYTES + FRAME_OVERHEAD_BYTES);
    new Uint8Array(buffer).fill(0xee).set(content, FRAME_HEADER_BYTES);
    const job = { kind: 'seal-in-place' as const, buffer, length: content.length, counter: 5, level: 3, ...seal };
    const sealed = await pool.sealInPlace({ ...job, runs: [{ offset: 0, length: content.length }] });
    const frame = Buffer.from(sealed.buffer, 0, sealed.frameBytes);
    expect(frame.equals(sealFrame(content, 5, seal, 3))).toBe(true);
    expect(openFrame(frame, 5, seal, 'here').equals(content)).toBe(true);
    expect(sealed.buffer.byteLength).toBe(FRAME_RAW_BYTES + FRAME_OVERHEAD_BYTES);
  });

  it('holds no memory once it is opened and sealed: a long backup does not wait for garbage collections', () => {
    const seal = { secret, context: 'b' };
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 8; i++) sealFrame(noise, i, seal, 3);
    // The frames themselves, which are ours; nothing of what compressing and encrypting took.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(9 * FRAME_RAW_BYTES);
  });
});
