import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { codeOf, DrError, messageOf } from '../base/errors.ts';
import { type FileAttributes, setFileAttributes, type UnsetAttribute } from '../base/file-attributes.ts';
import { freeBuffer } from '../base/free-memory.ts';
import { FRAME_HEADER_BYTES, openFrame, sealFrame, sealFrameInPlace, sha256 } from './seal.ts';
import type {
  Job,
  JobFailure,
  JobResult,
  SealInPlaceJob,
  SealInPlaceResult,
  SealJob,
  SealResult,
  SliceTarget,
  WriteJob,
  WriteResult,
} from './seal-jobs.ts';
import { keepChanged, runDigest } from './seal-runs.ts';

/**
 * The page cache takes writes in pieces of this size. For larger ones it looks for large free pieces of memory: 1 MiB took up to twice
 * the time, 4 MiB four to eight times (measured, ext4 on Linux 6.18).
 */
const WRITE_BYTES = 256 * 1024;

function seal(job: SealJob): { result: SealResult; transfer: ArrayBuffer[] } {
  const raw = new Uint8Array(job.raw, 0, job.length);
  const digests = digestsOf(raw, job.slices);
  const frame = sealFrame(raw, job.counter, { secret: job.secret, context: job.context }, job.level);
  const buffer = frame.buffer as ArrayBuffer;
  return { result: { frame: buffer, frameBytes: frame.length, digests, raw: job.raw }, transfer: [buffer, job.raw] };
}

function sealInPlace(job: SealInPlaceJob): { result: SealInPlaceResult; transfer: ArrayBuffer[] } {
  const bytes = new Uint8Array(job.buffer);
  const raw = bytes.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + job.length);
  const kept = keepChanged(raw, job.runs);
  const frameBytes = kept.length === 0 ? 0 : sealFrameInPlace(bytes, kept.length, job.counter, job, job.level);
  return { result: { buffer: job.buffer, frameBytes, ...kept }, transfer: [job.buffer] };
}

function digestsOf(raw: Uint8Array, slices: SealJob['slices']): Uint8Array {
  const digests = new Uint8Array(32 * slices.length);
  for (const [index, [offset, length]] of slices.entries()) {
    digests.set(sha256(raw.subarray(offset, offset + length)), 32 * index);
  }
  return digests;
}

function write(job: WriteJob): WriteResult {
  let bytes = 0;
  const unset: Array<{ name: string; attributes: readonly UnsetAttribute[] }> = [];
  for (const frame of job.frames) {
    const sealed = new Uint8Array(job.bytes, job.byteOffset + frame.offset, frame.length);
    const raw = openFrame(sealed, frame.counter, frame, frame.where);
    for (const run of frame.runs) {
      const content = raw.subarray(run.rawOffset, run.rawOffset + run.length);
      if (content.length !== run.length || !runDigest(content, run.blockBytes).equals(run.digest)) {
        throw new DrError('corrupt', `the content of ${run.slices[0]?.name} does not match its checksum`, {
          where: frame.where,
          next: 'Restore from another vault (--vault NAME), then repair this one from it.',
        });
      }
      for (const slice of run.slices) {
        const attributes = writeSlice(slice, content.subarray(slice.skip, slice.skip + slice.length));
        if (attributes.length > 0) unset.push({ name: slice.name, attributes });
        bytes += slice.length;
      }
    }
    // Without encryption and compression it is a view of what was read.
    if (raw.buffer !== job.bytes) freeBuffer(raw);
  }
  freeBuffer(new Uint8Array(job.bytes));
  return { bytes, unset };
}

/** Answers which extended attributes could not be set. Errors of a write do not say which file it was: here they do. */
function writeSlice(slice: SliceTarget, content: Uint8Array): UnsetAttribute[] {
  try {
    if ('create' in slice.to) return createFile(slice.to.create, content, slice.to.attributes);
    if ('fd' in slice.to) writeFully(slice.to.fd, content, slice.to.position);
    return [];
  } catch (error) {
    throw Object.assign(error instanceof Error ? error : new Error(messageOf(error)), { path: slice.name });
  }
}

function createFile(path: Uint8Array, content: Uint8Array, attributes: FileAttributes): UnsetAttribute[] {
  // O_EXCL and O_NOFOLLOW: a restore never writes through something that was put in its way.
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | (constants.O_NOFOLLOW ?? 0);
  const { buffer, byteOffset, byteLength } = path;
  const fd = openSync(Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength), flags, 0o600);
  try {
    writeFully(fd, content, 0);
    return setFileAttributes(fd, 'file', attributes);
  } finally {
    closeSync(fd);
  }
}

function writeFully(fd: number, content: Uint8Array, position: number): void {
  for (let at = 0; at < content.length; ) {
    at += writeSync(fd, content, at, Math.min(WRITE_BYTES, content.length - at), position + at);
  }
}

function failureOf(error: unknown): JobFailure {
  const path = error instanceof Error && 'path' in error && typeof error.path === 'string' ? error.path : undefined;
  const facts = error instanceof DrError ? { kind: error.kind, where: error.where, next: error.next } : {};
  return { message: messageOf(error), code: codeOf(error), path, ...facts };
}

function work(job: Job): { result: JobResult; transfer: ArrayBuffer[] } {
  if (job.kind === 'seal') return seal(job);
  if (job.kind === 'seal-in-place') return sealInPlace(job);
  return { result: write(job), transfer: [] };
}

parentPort?.on('message', ({ id, job }: { id: number; job: Job }) => {
  try {
    const { result, transfer } = work(job);
    parentPort?.postMessage({ id, result }, transfer);
  } catch (error) {
    parentPort?.postMessage({ id, failure: failureOf(error) });
  }
});
