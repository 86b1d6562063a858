import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { DrError } from '../../base/errors.ts';
import type { EntryFacts, ListResult, ReadResult, TreeAnswer, TreeJob, TreeResult } from './tree-jobs.ts';

/** Threads that wait for a slow disk or a file server at once. A fast one needs a single thread. */
const MAX_THREADS = 2;
/** A job that calls for another thread waited so long, and for this share of its time. */
const SLOW_JOB_MS = 10;
const SLOW_SHARE = 0.6;
const CLOSE_MS = 1000;
const READ_BUFFER_BYTES = 1280 * 1024;

interface Pending {
  readonly job: TreeJob;
  readonly transfer: ArrayBuffer[];
  readonly resolve: (result: TreeResult) => void;
  readonly reject: (error: unknown) => void;
}

interface Member {
  readonly worker: Worker;
  readonly pending: Map<number, Pending>;
}

/**
 * Threads that list, look at and read a directory tree. One suffices where the content lies in memory or on a fast disk; while jobs are
 * seen to wait, more are started.
 */
export class TreeReader {
  readonly #members: Member[] = [];
  readonly #queue: Pending[] = [];
  readonly #spareBuffers: ArrayBuffer[] = [];
  #nextId = 1;
  #wanted = 1;
  #broken: unknown;

  async list(directory: Buffer): Promise<ListResult> {
    return (await this.#submit({ kind: 'list', directory })) as ListResult;
  }

  /** `names`: joined by zero bytes. */
  async look(directory: Buffer, names: Uint8Array): Promise<EntryFacts> {
    return (await this.#submit({ kind: 'look', directory, names })) as EntryFacts;
  }

  /** Give the buffer back with `release` when what is in it has been used. */
  async read(directory: Buffer, names: Uint8Array): Promise<ReadResult> {
    const buffer = this.#spareBuffers.pop() ?? new ArrayBuffer(READ_BUFFER_BYTES);
    return (await this.#submit({ kind: 'read', directory, names, buffer }, [buffer])) as ReadResult;
  }

  release({ buffer }: ReadResult): void {
    this.#spareBuffers.push(buffer);
  }

  /** Ends the threads; what they had not answered is rejected. */
  async close(): Promise<void> {
    this.#fail(new DrError('interrupted', 'the work was stopped'));
    const ended = Promise.all(this.#members.map(({ worker }) => worker.terminate()));
    // A thread that waits for a file server that does not answer ends when that call does: nobody waits for it.
    const waited = new AbortController();
    const tooLong = delay(CLOSE_MS, undefined, { signal: waited.signal }).catch(() => {});
    await Promise.race([ended, tooLong]);
    waited.abort();
    for (const { worker } of this.#members) worker.unref();
  }

  #submit(job: TreeJob, transfer: ArrayBuffer[] = []): Promise<TreeResult> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    return new Promise((resolve, reject) => {
      this.#queue.push({ job, transfer, resolve, reject });
      this.#dispatch();
    });
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      const member = this.#freest();
      const work = member && this.#queue.shift();
      if (!member || !work) return;
      const id = this.#nextId++;
      member.pending.set(id, work);
      member.worker.postMessage({ id, job: work.job }, work.transfer);
    }
  }

  /** One job each, and a second one that waits beside it, so that no thread idles between jobs. */
  #freest(): Member | undefined {
    const idle = this.#members.find(({ pending }) => pending.size === 0);
    if (idle) return idle;
    if (this.#members.length < this.#wanted) return this.#start();
    return this.#members.find(({ pending }) => pending.size === 1);
  }

  #start(): Member {
    const file = import.meta.url.endsWith('.ts') ? './tree-worker.ts' : './tree-worker.js';
    // The list of a directory with millions of files takes hundreds of megabytes.
    const resourceLimits = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 1024 };
    const worker = new Worker(new URL(file, import.meta.url), { resourceLimits });
    const member: Member = { worker, pending: new Map() };
    worker.on('message', (answer: TreeAnswer) => this.#take(member, answer));
    worker.on('error', (error) => this.#fail(error));
    worker.on('exit', () => this.#fail(new DrError('internal', 'a thread that reads files ended unexpectedly')));
    this.#members.push(member);
    return member;
  }

  #take(member: Member, { id, result, failure, tookMs, waitedMs }: TreeAnswer): void {
    const work = member.pending.get(id);
    member.pending.delete(id);
    if (waitedMs > SLOW_JOB_MS && waitedMs > tookMs * SLOW_SHARE && this.#queue.length > 0) {
      this.#wanted = Math.min(MAX_THREADS, this.#members.length + 1);
    }
    if (result) work?.resolve(result);
    else work?.reject(Object.assign(new Error(failure?.message), { code: failure?.code }));
    this.#dispatch();
  }

  #fail(error: unknown): void {
    this.#broken ??= error;
    const waiting = this.#queue.splice(0);
    for (const { pending } of this.#members) {
      waiting.push(...pending.values());
      pending.clear();
    }
    for (const { reject } of waiting) reject(this.#broken);
  }
}
