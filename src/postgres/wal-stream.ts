import { type Clock, systemClock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import { formatLsn, type Lsn, parseLsn } from './lsn.ts';
import { type Session, textOf } from './session.ts';
import {
  backend,
  copyKind,
  encodedCopyDone,
  encodeQuery,
  encodeStatus,
  keepaliveBytes,
  readClockMs,
  walHeaderBytes,
} from './wire.ts';

/** What the server said about itself with WAL. */
export interface ServerPosition {
  /** Where WAL ends on the server (what it has flushed), or where the timeline ends when it has gone on to another. */
  readonly walEnd: Lsn;
  /** The server's clock when it sent this, milliseconds since 1970. */
  readonly clockMs: number;
}

/** What the server said about itself without WAL. */
export interface Keepalive {
  /** It has sent everything before: it may have more. */
  readonly sentEnd: Lsn;
  /** The server's clock when it said this, milliseconds since 1970. */
  readonly clockMs: number;
  /** It waits for an acknowledgement (at its shutdown: of everything). */
  readonly replyRequested: boolean;
}

export interface WalStreamOptions {
  /** Physical slot; without one the server may remove WAL that was not received yet. */
  readonly slot?: string | undefined;
  readonly timeline: number;
  /** First byte wanted: normally the first of a segment. */
  readonly start: Lsn;
  /** Ends the stream in order: what is durable is acknowledged, then `stopped` is the result. */
  readonly signal?: AbortSignal | undefined;
  /**
   * WAL in order and without gaps; `start` is the LSN of the first byte. `bytes` is a view, valid only until the call
   * returns, or its promise resolves; a returned promise stops the server. A rejection ends stream and connection.
   */
  onWal(start: Lsn, bytes: Uint8Array, server: ServerPosition): void | Promise<void>;
  /** The server is alive. It is asked again only after its last answer has come. */
  onKeepalive?(keepalive: Keepalive): void;
  /** Everything before this is durable where the policy promises it: becomes the flush position of the slot. */
  durable(): Lsn;
  /** Regular status; beyond that one goes out on `acknowledge()` and when the server asks. */
  readonly statusEveryMs: number;
  /** Milliseconds without a word (asked for at half time) after which the server counts as dead; default 60 s. */
  readonly silenceMs?: number | undefined;
  /** After this long without a word an idle server is asked where it is (kept to the rhythm of `statusEveryMs`); default half of `silenceMs`. */
  readonly askEveryMs?: number | undefined;
  /** How long an ordered end may take; default 10 s. */
  readonly stopMs?: number | undefined;
  readonly clock?: Clock | undefined;
}

export type WalStreamEnd =
  /** The signal was given. `end`: the first byte that was not delivered. */
  | { readonly kind: 'stopped'; readonly end: Lsn }
  /** The timeline has no more WAL: go on with `nextTimeline` at the start of the segment that contains `switchLsn`. */
  | { readonly kind: 'timeline-end'; readonly nextTimeline: number; readonly switchLsn: Lsn; readonly end: Lsn }
  /** The server was shut down in order, after everything was delivered *and* acknowledged as durable. */
  | { readonly kind: 'server-shutdown'; readonly end: Lsn };

/** Runs `START_REPLICATION PHYSICAL` until its end; see `WalStreamEnd`. Any other end is a `DrError`. */
export class WalStream {
  readonly #session: Session;
  readonly #options: WalStreamOptions;
  readonly #clock: Clock;
  #received: Lsn;
  #acknowledged: Lsn = 0n;
  #state: 'idle' | 'streaming' | 'stopping' = 'idle';
  #heardMs = 0;
  /** The server was asked where it is and has not answered yet. */
  #asked = false;

  constructor(session: Session, options: WalStreamOptions) {
    this.#session = session;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#received = options.start;
  }

  /** Tells the server at once how far WAL is durable: commits that wait for it are released. */
  acknowledge(): void {
    if (this.#state === 'streaming') this.#sendStatus(false);
  }

  async run(): Promise<WalStreamEnd> {
    const { slot, timeline, start, signal, statusEveryMs } = this.#options;
    if (signal?.aborted) return { kind: 'stopped', end: start };
    const silenceMs = this.#options.silenceMs ?? 60_000;
    const askEveryMs = Math.min(this.#options.askEveryMs ?? silenceMs, silenceMs / 2);
    const doing = `stream WAL from ${formatLsn(start)} on timeline ${timeline}`;
    return await this.#session.exclusive(doing, slot, async () => {
      const { socket } = this.#session;
      const withSlot = slot === undefined ? '' : `SLOT "${slot}" `;
      socket.write(encodeQuery(`START_REPLICATION ${withSlot}PHYSICAL ${formatLsn(start)} TIMELINE ${timeline}`));
      const first = await this.#session.results();
      // Asked for exactly the end of a finished timeline: the server answers without streaming.
      if (first.ended === backend.readyForQuery) return this.#timelineEnd(first.sets) ?? this.#noEnd();
      socket.setSilenceLimit(silenceMs);
      this.#heardMs = this.#clock.now();
      this.#state = 'streaming';
      const timer = setInterval(() => {
        const silent = this.#clock.now() - this.#heardMs >= askEveryMs;
        if (this.#state === 'streaming') this.#sendStatus(silent && !this.#asked);
      }, statusEveryMs);
      const stop = () => this.#stop();
      signal?.addEventListener('abort', stop, { once: true });
      try {
        // Asked at once: its answer is the first sign that it streams.
        this.#sendStatus(true);
        if (signal?.aborted) stop();
        return await this.#receive();
      } catch (error) {
        // After the order to stop, everything delivered is safe with the consumer: a server that hangs changes nothing.
        if (this.#stopped() && error instanceof DrError && error.kind === 'unreachable') {
          socket.destroy(error);
          return { kind: 'stopped', end: this.#received };
        }
        throw error;
      } finally {
        this.#state = 'idle';
        clearInterval(timer);
        signal?.removeEventListener('abort', stop);
      }
    });
  }

  async #receive(): Promise<WalStreamEnd> {
    const { reader } = this.#session;
    for (;;) {
      const type = await this.#session.receive();
      if (type === backend.copyData) {
        this.#heardMs = this.#clock.now();
        const kind = (await reader.take(1))[0];
        if (kind === copyKind.wal) await this.#wal();
        else if (kind === copyKind.keepalive) await this.#keepalive();
        else throw this.#session.unexpected(kind ?? 0);
      } else if (type === backend.copyDone) {
        return await this.#finish();
      } else if (type === backend.commandComplete) {
        // Without CopyDone before it: the walsender of a server that shuts down and has seen all its WAL acknowledged.
        return this.#stopped()
          ? { kind: 'stopped', end: this.#received }
          : { kind: 'server-shutdown', end: this.#received };
      } else throw this.#session.unexpected(type);
    }
  }

  async #wal(): Promise<void> {
    const { reader } = this.#session;
    const header = await reader.take(walHeaderBytes);
    const start = header.readBigUInt64BE(0);
    const server = { walEnd: header.readBigUInt64BE(8), clockMs: readClockMs(header, 16) };
    if (this.#stopped()) return;
    if (start !== this.#received) {
      throw new DrError(
        'corrupt',
        `WAL arrived out of order: ${formatLsn(start)} where ${formatLsn(this.#received)} was due`,
        {
          where: this.#session.where,
          next: 'It is asked for again on a new connection; if it repeats, report it with the version of the server.',
          retryable: true,
        },
      );
    }
    while (reader.left > 0 && !this.#stopped()) {
      const view = await reader.view();
      const at = this.#received;
      // Before the call: the consumer may make it durable and acknowledge it before it returns.
      this.#received += BigInt(view.length);
      const waiting = this.#options.onWal(at, view, server);
      if (waiting !== undefined) await waiting;
    }
  }

  async #keepalive(): Promise<void> {
    const body = await this.#session.reader.take(keepaliveBytes);
    this.#asked = false;
    const replyRequested = body[16] === 1;
    this.#options.onKeepalive?.({ sentEnd: body.readBigUInt64BE(0), clockMs: readClockMs(body, 8), replyRequested });
    if (replyRequested && !this.#stopped()) this.#sendStatus(false);
  }

  /** The server has ended the copy, by itself (end of the timeline) or because we did. */
  async #finish(): Promise<WalStreamEnd> {
    const byUs = this.#stopped();
    if (!byUs) {
      this.#sendStatus(false);
      this.#state = 'idle';
      this.#session.socket.write(encodedCopyDone);
    }
    const { sets } = await this.#session.results();
    const end = this.#timelineEnd(sets);
    if (end !== undefined) return end;
    return byUs ? { kind: 'stopped', end: this.#received } : this.#noEnd();
  }

  #timelineEnd(sets: Parameters<typeof textOf>[0][]): WalStreamEnd | undefined {
    const [set] = sets;
    if (set === undefined || set.rows.length === 0) return undefined;
    const nextTimeline = Number(textOf(set, 0, 'next_tli') ?? Number.NaN);
    const switchLsn = parseLsn(textOf(set, 0, 'next_tli_startpos') ?? '');
    if (!Number.isInteger(nextTimeline) || switchLsn === undefined) this.#noEnd();
    return { kind: 'timeline-end', nextTimeline, switchLsn: switchLsn ?? 0n, end: this.#received };
  }

  #noEnd(): never {
    throw new DrError(
      'unreachable',
      `the server ended the WAL stream of timeline ${this.#options.timeline} without saying why`,
      {
        where: this.#session.where,
        next: 'See the server log; the stream is started again.',
      },
    );
  }

  #stop(): void {
    if (this.#state !== 'streaming') return;
    this.#sendStatus(false);
    this.#state = 'stopping';
    this.#session.socket.setSilenceLimit(this.#options.stopMs ?? 10_000);
    this.#session.socket.write(encodedCopyDone);
  }

  #stopped(): boolean {
    return this.#state === 'stopping';
  }

  #sendStatus(replyRequested: boolean): void {
    this.#asked ||= replyRequested;
    let flushed = this.#options.durable();
    if (flushed > this.#received) flushed = this.#received;
    // A lower position would move the slot back. Below the start nothing of this stream is durable: 0 says nothing.
    if (flushed > this.#acknowledged && flushed >= this.#options.start) this.#acknowledged = flushed;
    this.#session.socket.write(
      encodeStatus({
        written: this.#received,
        flushed: this.#acknowledged,
        applied: 0n,
        clockMs: this.#clock.now(),
        replyRequested,
      }),
    );
  }
}
