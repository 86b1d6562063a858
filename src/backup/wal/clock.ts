import type { Lsn } from '../../postgres/lsn.ts';

/** A moment, by the server's clock and by ours (they may differ), milliseconds since 1970. */
export interface Moment {
  readonly serverMs: number;
  readonly localMs: number;
}

const SAMPLES = 256;
const SPACING_MS = 20;

interface Sample extends Moment {
  readonly end: Lsn;
}

/**
 * Remembers how far the server's WAL reached at which moment, so that "everything up to here is durable" can be said as a time:
 * whatever was committed before that moment is safe. Keepalives of an idle server move the time forward too.
 */
export class WalClock {
  #samples: Sample[] = [];
  #keepalive: Sample | undefined;
  #aheadMs = Number.POSITIVE_INFINITY;

  /** A new connection: the clock of the server may have been set since, or it is another server. */
  begin(): void {
    this.#keepalive = undefined;
    this.#aheadMs = Number.POSITIVE_INFINITY;
  }

  /**
   * The moment at which the server said something, heard at `localMs`. What it says may wait for long until we can take it; the message that
   * came fastest shows how far our clock is ahead of the server's.
   */
  momentOf(serverMs: number, localMs: number): Moment {
    this.#aheadMs = Math.min(this.#aheadMs, localMs - serverMs);
    return { serverMs, localMs: serverMs + this.#aheadMs };
  }

  /**
   * The server said at `moment` that it has sent everything before `sentEnd`, which says nothing about what it has not sent. When the next
   * answer, to a question that was asked after this one had come, tells of the same position, then between the two it had looked for more
   * WAL and found none: its WAL ended there at the moment of the first. (PostgreSQL, walsender.c: WalSndKeepalive gives sentPtr, and
   * WalSndLoop calls XLogSendPhysical after it has flushed an answer and before it reads the next message.)
   */
  noteSent(sentEnd: Lsn, moment: Moment): void {
    const before = this.#keepalive;
    if (before?.end === sentEnd) this.note(sentEnd, before);
    this.#keepalive = { end: sentEnd, serverMs: moment.serverMs, localMs: moment.localMs };
  }

  /** The server said at `moment` that its WAL ends at `end`. */
  note(end: Lsn, moment: Moment): void {
    const last = this.#samples.at(-1);
    if (last && end < last.end) return;
    const sample = { end, serverMs: moment.serverMs, localMs: moment.localMs };
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

  /**
   * Another timeline goes on from `end`. What was noted of the old one from there on is not true of the new one, and about the very end nobody
   * knows since when the new one has had more.
   */
  forgetFrom(end: Lsn): void {
    this.#samples = this.#samples.filter((sample) => sample.end < end);
    this.#keepalive = undefined;
  }
}
