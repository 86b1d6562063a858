import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from '../../src/base/clock.ts';

/** Real time that runs `factor` times as fast: a minute of waiting, with real requests in between, takes a second or two. */
export class FastClock implements Clock {
  readonly #factor: number;
  readonly #startMs = Date.now();
  readonly #start = performance.now();

  constructor(factor: number) {
    this.#factor = factor;
  }

  now(): number {
    return this.#startMs + (performance.now() - this.#start) * this.#factor;
  }

  async sleep(ms: number, signal?: AbortSignal, options?: { readonly unref?: boolean }): Promise<void> {
    await delay(ms / this.#factor, undefined, { ...(signal && { signal }), ref: options?.unref !== true });
  }
}
