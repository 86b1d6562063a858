import { FRAME_HEADER_BYTES, sealFrame, sealFrameInPlace, sha256 } from '../../src/vault/seal.ts';
import type { SealInPlaceJob, SealInPlaceResult, SealJob, SealResult } from '../../src/vault/seal-jobs.ts';
import { SealPool } from '../../src/vault/seal-pool.ts';
import { keepChanged } from '../../src/vault/seal-runs.ts';

/** Seals as the workers do, but at once and in this thread: the same history then has the same order of events. */
export class InlinePool extends SealPool {
  constructor() {
    super(1);
  }

  override async seal(job: SealJob): Promise<SealResult> {
    const raw = new Uint8Array(job.raw, 0, job.length);
    const digests = Buffer.concat(job.slices.map(([offset, length]) => sha256(raw.subarray(offset, offset + length))));
    const frame = sealFrame(raw, job.counter, { secret: job.secret, context: job.context }, job.level);
    return { frame: frame.buffer as ArrayBuffer, frameBytes: frame.length, digests, raw: job.raw };
  }

  override async sealInPlace(job: SealInPlaceJob): Promise<SealInPlaceResult> {
    const bytes = new Uint8Array(job.buffer);
    const raw = bytes.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + job.length);
    const kept = keepChanged(raw, job.runs);
    const frameBytes = kept.length === 0 ? 0 : sealFrameInPlace(bytes, kept.length, job.counter, job, job.level);
    return { buffer: job.buffer, frameBytes, ...kept };
  }
}
