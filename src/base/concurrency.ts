/** A counted permit: at most `limit` holders at once, first come first served. */
export class Semaphore {
  #free: number;
  readonly #waiting: Array<() => void> = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  async acquire(): Promise<void> {
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  release(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#free++;
  }

  async use<T>(work: () => Promise<T>): Promise<T> {
    await this.acquire();
    try {
      return await work();
    } finally {
      this.release();
    }
  }
}

/** Runs `work` over all items, at most `limit` at once; the first failure stops new starts and is thrown once all settled. */
export async function forEachLimit<T>(
  items: Iterable<T> | AsyncIterable<T>,
  limit: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const running = new Set<Promise<void>>();
  let failed = false;
  let failure: unknown;
  for await (const item of items) {
    if (failed) break;
    const job: Promise<void> = work(item)
      .catch((error: unknown) => {
        if (!failed) failure = error;
        failed = true;
      })
      .finally(() => running.delete(job));
    running.add(job);
    if (running.size >= limit) await Promise.race(running);
  }
  await Promise.all(running);
  if (failed) throw failure;
}

/**
 * The results of `work` over all items, in their order, at most `limit` at once; the first failure is thrown in its place. Nothing runs on
 * when it has ended, also when its consumer leaves early.
 */
export async function* mapInOrder<T, R>(
  items: Iterable<T>,
  limit: number,
  work: (item: T) => Promise<R>,
): AsyncGenerator<R, void, undefined> {
  const running: Array<Promise<R>> = [];
  try {
    for (const item of items) {
      const job = work(item);
      // Whoever leaves early does not hear of what fails later.
      job.catch(() => {});
      running.push(job);
      const first = running.length >= limit ? running.shift() : undefined;
      if (first) yield await first;
    }
    for (const job of running) yield await job;
  } finally {
    await Promise.allSettled(running);
  }
}
