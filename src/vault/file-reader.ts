import { Worker } from 'node:worker_threads';
import { DrError } from '../base/errors.ts';
import type { ReadAnswer, ReadBatch } from './file-read-jobs.ts';

interface Pending {
  readonly contents: Array<Buffer | undefined>;
  readonly resolve: (contents: ReadonlyArray<Buffer | undefined>) => void;
  readonly reject: (error: unknown) => void;
}

/** Reads many small files in a thread of its own. */
export class FileReader implements AsyncDisposable {
  readonly #pending = new Map<number, Pending>();
  readonly #worker: Worker;
  #nextId = 1;
  #broken: unknown;

  constructor() {
    const file = import.meta.url.endsWith('.ts') ? './file-read-worker.ts' : './file-read-worker.js';
    const resourceLimits = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 32 };
    this.#worker = new Worker(new URL(file, import.meta.url), { resourceLimits });
    this.#worker.on('message', (answer: ReadAnswer) => this.#take(answer));
    this.#worker.on('error', (error) => this.#fail(error));
    this.#worker.on('exit', () => this.#fail(new DrError('internal', 'a reading thread ended unexpectedly')));
  }

  /** The contents in the order of `paths`; undefined for one that could not be read. Small files only: all of them are held at once. */
  read(paths: readonly string[]): Promise<ReadonlyArray<Buffer | undefined>> {
    return new Promise((resolve, reject) => {
      if (this.#broken !== undefined) return reject(this.#broken);
      const batch: ReadBatch = { id: this.#nextId++, paths };
      this.#pending.set(batch.id, { contents: [], resolve, reject });
      this.#worker.postMessage(batch);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#fail(new DrError('interrupted', 'reading was stopped'));
    await this.#worker.terminate();
  }

  #take({ id, bytes, lengths, done }: ReadAnswer): void {
    const pending = this.#pending.get(id);
    if (!pending) return;
    let at = 0;
    for (const length of lengths) {
      pending.contents.push(length < 0 ? undefined : Buffer.from(bytes, at, length));
      at += Math.max(0, length);
    }
    if (!done) return;
    this.#pending.delete(id);
    pending.resolve(pending.contents);
  }

  #fail(error: unknown): void {
    this.#broken ??= error;
    const waiting = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of waiting) reject(error);
  }
}
