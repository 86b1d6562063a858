import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { DrError, type ErrorKind, fileError } from '../base/errors.ts';
import type {
  Job,
  JobFailure,
  JobResult,
  SealInPlaceJob,
  SealInPlaceResult,
  SealJob,
  SealResult,
  WriteJob,
  WriteResult,
} from './seal-jobs.ts';

interface Pending {
  readonly resolve: (result: JobResult) => void;
  readonly reject: (error: unknown) => void;
}

interface Member {
  readonly worker: Worker;
  readonly pending: Map<number, Pending>;
}

/** Two jobs a worker: one being worked on, one waiting beside it, so that no core idles between jobs. */
const JOBS_PER_WORKER = 2;

/**
 * Worker threads that compress, encrypt, hash, and write restored content: the work that must fill every core.
 * Node's multi-threaded zstd is broken, so parallelism comes from independent frames.
 */
export class SealPool {
  readonly size: number;
  readonly #members: Member[] = [];
  readonly #queue: Array<{ job: Job; transfer: ArrayBuffer[]; pending: Pending }> = [];
  #nextId = 1;
  #broken: unknown;
  #closing = false;

  /** `size`: worker threads; default the number of cores that this process may use. */
  constructor(size: number = availableParallelism()) {
    this.size = Math.max(1, size);
  }

  /** Jobs that keep all workers busy; callers hold at most this many buffers. */
  get depth(): number {
    return this.size * JOBS_PER_WORKER;
  }

  async seal(job: SealJob): Promise<SealResult> {
    return (await this.#submit(job, [job.raw])) as SealResult;
  }

  async sealInPlace(job: SealInPlaceJob): Promise<SealInPlaceResult> {
    return (await this.#submit(job, [job.buffer])) as SealInPlaceResult;
  }

  async write(job: WriteJob): Promise<WriteResult> {
    // Read buffers may be views into a shared slab: only whole buffers can be given away.
    const transfer = job.byteOffset === 0 && !isShared(job.bytes) ? [job.bytes] : [];
    return (await this.#submit(job, transfer)) as WriteResult;
  }

  /** Ends the threads; jobs still waiting are rejected. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#fail(new DrError('interrupted', 'the work was stopped'));
    await Promise.all(this.#members.map(({ worker }) => worker.terminate()));
  }

  #submit(job: Job, transfer: ArrayBuffer[]): Promise<JobResult> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    return new Promise((resolve, reject) => {
      this.#queue.push({ job, transfer, pending: { resolve, reject } });
      this.#dispatch();
    });
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      const member = this.#freest();
      if (!member) return;
      const next = this.#queue.shift();
      if (!next) return;
      const id = this.#nextId++;
      member.pending.set(id, next.pending);
      member.worker.ref();
      member.worker.postMessage({ id, job: next.job }, next.transfer);
    }
  }

  #freest(): Member | undefined {
    let best: Member | undefined;
    for (const member of this.#members) {
      if (!best || member.pending.size < best.pending.size) best = member;
    }
    if (best && best.pending.size === 0) return best;
    if (this.#members.length < this.size) return this.#start();
    return best && best.pending.size < JOBS_PER_WORKER ? best : undefined;
  }

  #start(): Member {
    const file = import.meta.url.endsWith('.ts') ? './seal-worker.ts' : './seal-worker.js';
    // Frames live outside of the heap, so small heaps suffice.
    const resourceLimits = { maxYoungGenerationSizeMb: 8, maxOldGenerationSizeMb: 128 };
    const worker = new Worker(new URL(file, import.meta.url), { resourceLimits });
    const member: Member = { worker, pending: new Map() };
    worker.unref();
    worker.on('message', (answer: { id: number; result?: JobResult; failure?: JobFailure }) => {
      const pending = member.pending.get(answer.id);
      member.pending.delete(answer.id);
      if (member.pending.size === 0) worker.unref();
      if (answer.failure) pending?.reject(errorOf(answer.failure));
      else if (answer.result) pending?.resolve(answer.result);
      this.#dispatch();
    });
    worker.on('error', (error) => this.#fail(error));
    worker.on('exit', () => {
      if (!this.#closing) this.#fail(new DrError('internal', 'a sealing thread ended unexpectedly'));
    });
    this.#members.push(member);
    return member;
  }

  #fail(error: unknown): void {
    this.#broken ??= error;
    const waiting = this.#queue.splice(0).map(({ pending }) => pending);
    for (const member of this.#members) {
      waiting.push(...member.pending.values());
      member.pending.clear();
    }
    for (const pending of waiting) pending.reject(error);
  }
}

function isShared(buffer: ArrayBuffer): boolean {
  return buffer.byteLength === Buffer.poolSize;
}

function errorOf(failure: JobFailure): unknown {
  if (failure.kind !== undefined) {
    const facts = {
      ...(failure.where === undefined ? {} : { where: failure.where }),
      ...(failure.next === undefined ? {} : { next: failure.next }),
    };
    return new DrError(failure.kind as ErrorKind, failure.message, facts);
  }
  const plain = Object.assign(new Error(failure.message), failure.code === undefined ? {} : { code: failure.code });
  return fileError(plain, failure.path ?? 'the restore target', 'write the restored content');
}
