import type { Clock } from '../../base/clock.ts';
import { DrError, isAbort } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { formatLsn, type Lsn, segmentStart } from '../../postgres/lsn.ts';
import type { Keepalive, ServerPosition } from '../../postgres/wal-stream.ts';
import { layout } from '../../vault/layout.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { blockBytesOf, type Expectation, FrameBuffers, WalBlock } from './block.ts';
import { type Moment, WalClock } from './clock.ts';
import { type ClosedWal, type LaneHost, VaultLane } from './lane.ts';
import { VaultWal, type WalPosition } from './listing.ts';
import { parseHistory } from './names.ts';
import type { SealedWal, WalSealer } from './sealer.ts';

export interface WalSessionOptions {
  readonly systemId: string;
  readonly segmentBytes: number;
  readonly sealer: WalSealer;
  /** Makes a vault ready for objects of this session: its data key. */
  prepare(store: ObjectStore): Promise<void>;
  readonly policy: 'all' | 'any';
  readonly flushEveryMs: number;
  /** Bytes of WAL kept in memory for vaults that lag, the open block not counted. */
  readonly memoryBytes: number;
  /** How long the start waits for the other vaults after the first one has answered. */
  readonly startGraceMs: number;
  readonly retryBaseMs: number;
  readonly retryMaxMs: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Something became durable or a state changed. */
  onChange(): void;
  onFatal(error: DrError): void;
}

/** WAL that was lost for ever: the server no longer had it. */
export interface WalGap {
  readonly timeline: number;
  readonly from: Lsn;
  readonly to: Lsn;
}

/** The first bytes after a pause are given this long to be joined by others of the same moment. */
const GATHER_MS = 20;

/** WAL on its way from one server into all vaults: blocks fill, are sealed once, and go down one lane for each vault. */
export class WalSession implements LaneHost {
  readonly lanes: readonly VaultLane[];
  readonly #options: WalSessionOptions;
  readonly #begin: WalPosition;
  readonly #buffers: FrameBuffers;
  readonly #serverClock = new WalClock();
  readonly #moments = new Map<VaultLane, Moment>();
  #block: WalBlock;
  #items: Array<{ readonly item: ClosedWal; bytes: number }> = [];
  #sealing: Promise<unknown> = Promise.resolve();
  #pieceCache: { block: WalBlock; from: number; to: number; sealed: Promise<SealedWal> } | undefined;
  #waiters: Array<() => void> = [];
  readonly #histories = new Set<number>();
  #flushArmed = false;
  #flushedAtMs = Number.NEGATIVE_INFINITY;

  /** `base`: where the archive is known or assumed to be whole before; `start`: where streaming begins. */
  constructor(stores: readonly ObjectStore[], base: WalPosition, start: WalPosition, options: WalSessionOptions) {
    this.#options = options;
    this.#begin = base;
    this.#buffers = new FrameBuffers(blockBytesOf(options.segmentBytes));
    this.#block = this.#newBlock(start.timeline, start.lsn);
    this.lanes = stores.map((store) => new VaultLane(store, this));
    options.signal.addEventListener('abort', () => this.changed(), { once: true });
  }

  get clock(): Clock {
    return this.#options.clock;
  }

  get log(): Log {
    return this.#options.log;
  }

  get signal(): AbortSignal {
    return this.#options.signal;
  }

  get retryBaseMs(): number {
    return this.#options.retryBaseMs;
  }

  get retryMaxMs(): number {
    return this.#options.retryMaxMs;
  }

  /** What comes next: the position to stream from. */
  get position(): WalPosition {
    return { timeline: this.#block.timeline, lsn: this.#block.end };
  }

  /** Everything before this is durable as the policy promises. */
  get durable(): Lsn {
    const ends = this.lanes.map((lane) => lane.durable);
    const better = (a: Lsn, b: Lsn) => (this.#options.policy === 'all' ? a < b : a > b);
    return ends.reduce((best, end) => (better(end, best) ? end : best), ends[0] ?? 0n);
  }

  /** Bytes held for vaults that do not have them yet. */
  get retainedBytes(): number {
    return this.#items.reduce((sum, { bytes }) => sum + bytes, 0) + this.#block.received;
  }

  openBlock(): WalBlock {
    return this.#block;
  }

  base(): Lsn {
    return this.#begin.lsn;
  }

  async enter(store: ObjectStore): Promise<VaultWal> {
    const { systemId, segmentBytes, signal } = this.#options;
    await this.#options.prepare(store);
    return await VaultWal.read(store, systemId, this.#begin, segmentBytes, signal);
  }

  /** Opens the lane of a vault whose contents were read before the session began. */
  beginLane(store: ObjectStore, contents: VaultWal, expected: readonly Expectation[]): void {
    this.lanes.find((lane) => lane.store === store)?.begin(contents, this.#block, expected);
  }

  /** Moment (server's and our clock) before which every commit is in this vault; undefined when not known yet. */
  coveredBy(lane: VaultLane): Moment | undefined {
    const now = lane.hasEntered ? this.#serverClock.coveredAt(lane.durable) : undefined;
    const before = this.#moments.get(lane);
    const best = now && (!before || now.serverMs > before.serverMs) ? now : before;
    if (best) this.#moments.set(lane, best);
    return best;
  }

  /**
   * WAL from the server, which sent it at `clockMs` of its clock. A promise asks it to wait: memory is full, or a block is being sealed.
   */
  onWal(start: Lsn, bytes: Uint8Array, clockMs: number): void | Promise<void> {
    if (start !== this.#block.end) {
      throw new DrError('internal', `WAL came from ${formatLsn(start)}, ${formatLsn(this.#block.end)} was expected`);
    }
    this.#block.endClockMs = Math.ceil(clockMs);
    const taken = this.#block.append(bytes);
    if (!this.#block.isFull) {
      this.#armFlush();
      return;
    }
    return this.#closeBlock().then(async () => {
      if (taken < bytes.length) await this.onWal(start + BigInt(taken), bytes.subarray(taken), clockMs);
    });
  }

  /** A new connection streams from here on. */
  beginStream(): void {
    this.#serverClock.begin();
  }

  /** The server said where its WAL ends now, with its clock. Not for a timeline that it has left. */
  noteEnd({ walEnd, clockMs }: ServerPosition): void {
    this.#serverClock.note(walEnd, this.#momentOf(clockMs));
  }

  /** The server said what it has sent. Not for a timeline that it has left. */
  noteSent({ sentEnd, clockMs }: Keepalive): void {
    this.#serverClock.noteSent(sentEnd, this.#momentOf(clockMs));
  }

  async sealPiece(block: WalBlock, from: number, to: number): Promise<SealedWal> {
    const cached = this.#pieceCache;
    if (cached && cached.block === block && cached.from === from && cached.to === to) return await cached.sealed;
    const frames = block.views(from, to).map((view) => ({ view }));
    const sealed = this.#options.sealer.seal(this.#contentOf(block, from, to), frames).then(({ object }) => object);
    this.#pieceCache = { block, from, to, sealed };
    return await sealed;
  }

  changed(): void {
    this.#items = this.#items.filter(({ item }) => item.neededBy.size > 0);
    for (const wake of this.#waiters.splice(0)) wake();
    this.#options.onChange();
  }

  fatal(error: DrError): void {
    this.#options.onFatal(error);
  }

  /** The timeline ended at `switchLsn`: what is left of it is stored in pieces, and the next one begins with its segment. */
  switchTimeline(timeline: number, switchLsn: Lsn, history: Uint8Array): void {
    this.#serverClock.forgetFrom(switchLsn);
    this.#closeTail();
    this.addHistory(timeline, history);
    this.#block = this.#newBlock(timeline, segmentStart(switchLsn, this.#options.segmentBytes));
  }

  /** No history of the timeline that is streamed was given yet, and it has one. */
  get lacksHistory(): boolean {
    const { timeline } = this.position;
    return timeline > 1 && !this.#histories.has(timeline);
  }

  /** Stores a timeline history in every vault. */
  addHistory(timeline: number, content: Uint8Array): void {
    this.#histories.add(timeline);
    const { systemId, segmentBytes, sealer } = this.#options;
    const key = layout.walHistory(systemId, timeline);
    const ancestors = parseHistory(content, key).map(({ timeline, end }) => ({ timeline, end: formatLsn(end) }));
    const sealed = sealer.history(key, timeline, content, ancestors, segmentBytes);
    const at = this.#block.end;
    this.#push(
      { kind: 'history', start: at, end: at, block: undefined, sealed: Promise.resolve(sealed) },
      sealed.bytes,
    );
  }

  /** The server has nothing before `to` any more. Returns the gap. */
  skipTo(to: WalPosition): WalGap {
    const gap = { timeline: this.#block.timeline, from: this.#block.end, to: to.lsn };
    this.#closeTail();
    this.#block = this.#newBlock(to.timeline, segmentStart(to.lsn, this.#options.segmentBytes));
    return gap;
  }

  /** Stores what has come until now in every vault that answers; resolves when that is done, or after `limitMs`. */
  async drain(limitMs: number): Promise<void> {
    const until = this.clock.now() + limitMs;
    const { lsn } = this.position;
    for (;;) {
      const open = this.lanes.filter((lane) => lane.isHealthy && lane.durable < lsn);
      if (open.length === 0 || this.clock.now() >= until || this.signal.aborted) return;
      for (const lane of open) lane.flush();
      await Promise.race([this.#change(), this.clock.sleep(50, undefined, { unref: true })]);
    }
  }

  async #closeBlock(): Promise<void> {
    const block = this.#block;
    for (const lane of this.lanes) lane.verify(block);
    const before = this.#sealing;
    const sealed = this.#options.sealer
      .seal(this.#contentOf(block, 0, block.received), block.lendFrames())
      .then(({ object, returned }) => {
        this.#buffers.give(returned);
        // Sealed it takes less memory: whoever waits for room may go on.
        entry.bytes = object.bytes;
        this.changed();
        return object;
      });
    this.#sealing = sealed.catch((error: unknown) => {
      if (this.signal.aborted || isAbort(error)) return;
      this.fatal(
        error instanceof DrError ? error : new DrError('internal', 'WAL could not be sealed', { cause: error }),
      );
    });
    const entry = this.#push({ kind: 'block', start: block.start, end: block.end, block, sealed }, block.received);
    this.#block = this.#newBlock(block.timeline, block.end);
    // One block may be sealed while the next one fills; not more, or memory would grow with the backlog.
    await before;
    await this.#room();
  }

  #closeTail(): void {
    const block = this.#block;
    if (block.received === 0) return;
    this.#push({ kind: 'tail', start: block.start, end: block.end, block, sealed: undefined }, block.received);
  }

  #push(item: Omit<ClosedWal, 'storedBy' | 'neededBy'>, bytes: number): { bytes: number } {
    const closed: ClosedWal = { ...item, storedBy: new Set(), neededBy: new Set() };
    const entry = { item: closed, bytes };
    this.#items.push(entry);
    for (const lane of this.lanes) lane.push(closed);
    return entry;
  }

  /** Waits until there is memory for more. Lagging vaults give up what another one has; when none has it, the server waits. */
  async #room(): Promise<void> {
    while (this.#items.reduce((sum, { bytes }) => sum + bytes, 0) > this.#options.memoryBytes) {
      if (this.signal.aborted) return;
      const slowest = [...this.lanes].sort((a, b) => b.waiting - a.waiting);
      if (slowest.some((lane) => lane.drop())) continue;
      await this.#change();
    }
  }

  #momentOf(serverMs: number): Moment {
    return this.#serverClock.momentOf(Math.floor(serverMs), this.clock.now());
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  #newBlock(timeline: number, start: Lsn): WalBlock {
    return new WalBlock(timeline, start, this.#options.segmentBytes, this.#buffers);
  }

  #contentOf(block: WalBlock, from: number, to: number) {
    const end = block.start + BigInt(to);
    return {
      timeline: block.timeline,
      start: block.start + BigInt(from),
      segmentBytes: block.segmentBytes,
      rawSha256: block.sha256(from, to),
      serverClockMs: this.#serverClock.coveredAt(end)?.serverMs ?? 0,
      endClockMs: block.endClockMs,
    };
  }

  /** Flushes `flushEveryMs` after the last flush; the first bytes after a quiet time go at once. */
  #armFlush(): void {
    if (this.#flushArmed) return;
    this.#flushArmed = true;
    const dueMs = this.#flushedAtMs + this.#options.flushEveryMs - this.clock.now();
    const pauseMs = Math.max(Math.min(GATHER_MS, this.#options.flushEveryMs), dueMs);
    this.clock.sleep(pauseMs, this.signal, { unref: true }).then(
      () => {
        this.#flushArmed = false;
        this.#flushedAtMs = this.clock.now();
        for (const lane of this.lanes) lane.flush();
      },
      () => {},
    );
  }
}
