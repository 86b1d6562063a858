import type { Lsn } from '../../postgres/lsn.ts';

/** A moment, by the server's clock and by ours (they may differ), milliseconds since 1970. */
export interface Moment {
  readonly serverMs: number;
  readonly localMs: number;
}

const SAMPLES = 256;
const SPACING_MS = 20;

/**
 * Remembers how far the server's WAL reached at which moment, so that "everything up to here is durable" can be said as a time:
 * whatever was committed before that moment is safe. Keepalives of an idle server move the time forward too.
 */
export class WalClock {
  #samples: Array<Moment & { readonly end: Lsn }> = [];

  /** The server said at `moment` that its WAL ends at `end`. */
  note(end: Lsn, moment: Moment): void {
    const last = this.#samples.at(-1);
    if (last && end < last.end) return;
    const sample = { end, ...moment };
    const before = this.#samples.at(-2);
    const replaces = last && (last.end === end || (before && moment.localMs - before.localMs < SPACING_MS));
    if (replaces) this.#samples[this.#samples.length - 1] = sample;
    else this.#samples.push(sample);
    // Coarser for the past, exact for the end: every sample that stays is true.
    if (this.#samples.length > SAMPLES)
      this.#samples = this.#samples.filter((_, i, all) => i % 2 === 0 || i === all.length - 1);
  }

  /** The newest moment whose WAL lies before `end` whole; undefined when none is known. */
  coveredAt(end: Lsn): Moment | undefined {
    for (let i = this.#samples.length - 1; i >= 0; i--) {
      const sample = this.#samples[i];
      if (sample && sample.end <= end) return { serverMs: sample.serverMs, localMs: sample.localMs };
    }
    return undefined;
  }

  /** Another history begins: what was noted says nothing about it. */
  clear(): void {
    this.#samples = [];
  }
}
