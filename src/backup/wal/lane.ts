import type { Clock } from '../../base/clock.ts';
import { DrError, isAbort, messageOf } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { backoffMs } from '../../base/retry.ts';
import type { Lsn } from '../../postgres/lsn.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { BlockPieces, type Expectation, type WalBlock } from './block.ts';
import { createWal, expectationsOf, lineageConflict } from './create.ts';
import type { VaultWal } from './listing.ts';
import { contiguousEnd, coveringPieces, maxLsn, minLsn, type WalRange } from './names.ts';
import type { SealedWal } from './sealer.ts';

/** Something finished that every vault is to have. */
export interface ClosedWal {
  /** A full block; the last, unfinished block of a timeline (stays in pieces); a timeline history. */
  readonly kind: 'block' | 'tail' | 'history';
  readonly start: Lsn;
  readonly end: Lsn;
  readonly block: WalBlock | undefined;
  /** Of a block or history; a tail is cut for each vault. */
  readonly sealed: Promise<SealedWal> | undefined;
  /** Lanes that stored it, and those that still need it in memory. */
  readonly storedBy: Set<VaultLane>;
  readonly neededBy: Set<VaultLane>;
}

/** What a lane needs of the archiver. */
export interface LaneHost {
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly retryBaseMs: number;
  readonly retryMaxMs: number;
  /** The block that is filling now. */
  openBlock(): WalBlock | undefined;
  /** Makes a vault ready for objects of this session (its data key) and tells what it has from the session's base on. */
  enter(store: ObjectStore): Promise<VaultWal>;
  /** Where the session's WAL began: what lies before is not this lane's concern. */
  base(): Lsn;
  sealPiece(block: WalBlock, from: number, to: number): Promise<SealedWal>;
  /** Something became durable or a state changed. */
  changed(): void;
  /** The vault is of another history: everything has to stop. */
  fatal(error: DrError): void;
}

/**
 * Objects on their way to one vault at once. After a kill one may lie beyond a hole: it was not acknowledged, recovery stops before the hole,
 * and the next start fills it from the server.
 */
const CREATES_IN_FLIGHT = 4;

/** The way of WAL into one vault: in order of durability, several objects at a time, retried for ever, never overwriting. */
export class VaultLane {
  readonly store: ObjectStore;
  readonly #host: LaneHost;
  readonly #queue: Array<{ readonly item: ClosedWal; state: 'waiting' | 'busy' | 'done' }> = [];
  /** Weak: a block that is done with goes, and what was noted of it too. */
  readonly #pieces = new WeakMap<WalBlock, BlockPieces>();
  #entered: 'no' | 'busy' | 'yes' = 'no';
  #creating = 0;
  #flushing = false;
  #flushDue = false;
  #paused = false;
  #failures = 0;
  #lastError: unknown;
  #hole: WalRange | undefined;

  constructor(store: ObjectStore, host: LaneHost) {
    this.store = store;
    this.#host = host;
  }

  /** The last call to this vault failed, or none was made yet. */
  get isHealthy(): boolean {
    return this.#entered === 'yes' && this.#failures === 0;
  }

  get hasEntered(): boolean {
    return this.#entered === 'yes';
  }

  get lastError(): string | undefined {
    return this.#lastError === undefined ? undefined : messageOf(this.#lastError);
  }

  /** WAL that this vault lacks although later WAL may be there: to be copied from another vault. */
  get hole(): WalRange | undefined {
    return this.#hole;
  }

  /** Everything before this is in the vault; 0 while nothing is known of it. */
  get durable(): Lsn {
    if (this.#entered !== 'yes') return 0n;
    const [head] = this.#queue;
    const block = head ? head.item.block : this.#host.openBlock();
    let end = block ? block.start + BigInt(this.#of(block).covered) : (head?.item.start ?? this.#host.base());
    if (this.#hole && this.#hole.start < end) end = this.#hole.start;
    return end;
  }

  /** Enters with what is known of the vault already (at the start of a session). */
  begin(contents: VaultWal, block: WalBlock, expected: readonly Expectation[]): void {
    this.#take(contents, block, expected);
  }

  push(item: ClosedWal): void {
    item.neededBy.add(this);
    this.#queue.push({ item, state: 'waiting' });
    this.pump();
  }

  /** New bytes of the open block are to be stored as a piece as soon as the vault is free. */
  flush(): void {
    this.#flushDue = true;
    this.pump();
  }

  /** Gives up one object that another vault has already, to free its memory; false if there is none. */
  drop(): boolean {
    const at = this.#queue.findIndex(
      ({ item, state }) => state === 'waiting' && item.kind !== 'history' && item.storedBy.size > 0,
    );
    const [dropped] = at === -1 ? [] : this.#queue.splice(at, 1);
    if (!dropped?.item.block) return false;
    const { item } = dropped;
    item.neededBy.delete(this);
    const from = dropped.item.block.start + BigInt(this.#of(dropped.item.block).covered);
    this.#pieces.delete(dropped.item.block);
    this.#hole = this.#hole
      ? { start: minLsn(this.#hole.start, from), end: maxLsn(this.#hole.end, item.end) }
      : { start: from, end: item.end };
    this.#host.changed();
    return true;
  }

  /** Objects that still wait, for the choice of what to drop. */
  get waiting(): number {
    return this.#queue.length;
  }

  /** `hole` was filled, except for `rest`. */
  filled(hole: WalRange, rest: WalRange | undefined): void {
    if (!this.#hole) return;
    // What was dropped meanwhile stays a hole.
    const start = rest?.start ?? hole.end;
    this.#hole = start < this.#hole.end ? { start, end: this.#hole.end } : undefined;
    this.#host.changed();
  }

  /** Checks pieces found in the vault against the WAL received; a difference is another history. */
  verify(block: WalBlock): void {
    const pieces = this.#of(block);
    const ready = pieces.expected.filter(({ to }) => to <= block.received);
    pieces.expected = pieces.expected.filter(({ to }) => to > block.received);
    for (const { from, to, sha256, key } of ready) {
      if (block.sha256(from, to) !== sha256) throw lineageConflict(this.store, key);
    }
  }

  /** Starts whatever can start now. */
  pump(): void {
    if (this.#host.signal.aborted || this.#paused || this.#flushing) return;
    if (this.#entered !== 'yes') {
      if (this.#entered === 'no') void this.#run(() => this.#enter());
      return;
    }
    for (const entry of this.#queue) {
      if (this.#creating >= CREATES_IN_FLIGHT) break;
      if (entry.state !== 'waiting') continue;
      entry.state = 'busy';
      this.#creating++;
      void this.#run(async () => {
        try {
          await this.#store(entry.item);
          entry.state = 'done';
        } finally {
          if (entry.state === 'busy') entry.state = 'waiting';
          this.#creating--;
        }
        entry.item.storedBy.add(this);
        entry.item.neededBy.delete(this);
        while (this.#queue[0]?.state === 'done') this.#queue.shift();
      });
    }
    const block = this.#host.openBlock();
    if (this.#flushDue && this.#queue.length === 0 && block && this.#of(block).covered < block.received) {
      this.#flushDue = false;
      this.#flushing = true;
      void this.#run(async () => {
        try {
          await this.#storePiece(block);
        } finally {
          this.#flushing = false;
        }
      }, true);
    }
  }

  /** Runs one piece of work; a failure pauses the lane for a while, a conflict ends everything. */
  async #run(work: () => Promise<void>, isFlush = false): Promise<void> {
    const host = this.#host;
    try {
      await work();
      if (this.#failures > 0) host.log.info({ vault: this.store.name }, 'the vault takes WAL again');
      this.#failures = 0;
      this.#lastError = undefined;
    } catch (error) {
      if (host.signal.aborted || isAbort(error)) return;
      if (error instanceof DrError && error.kind === 'conflict') {
        host.fatal(error);
        return;
      }
      if (isFlush) this.#flushDue = true;
      this.#lastError = error;
      this.#failures++;
      if (this.#failures === 1)
        host.log.warn({ vault: this.store.name, error }, 'WAL cannot be stored in this vault; it is retried');
      if (!this.#paused) {
        this.#paused = true;
        const pauseMs = backoffMs(this.#failures, host.retryBaseMs, host.retryMaxMs);
        host.clock.sleep(pauseMs, host.signal, { unref: true }).then(
          () => {
            this.#paused = false;
            this.pump();
          },
          () => {},
        );
      }
    }
    host.changed();
    this.pump();
  }

  async #enter(): Promise<void> {
    this.#entered = 'busy';
    try {
      const contents = await this.#host.enter(this.store);
      const block = this.#host.openBlock();
      const expected = block ? await expectationsOf(this.store, contents, block, this.#host.signal) : [];
      this.#take(contents, block, expected);
    } finally {
      if (this.#entered === 'busy') this.#entered = 'no';
    }
  }

  #take(contents: VaultWal, block: WalBlock | undefined, expected: readonly Expectation[]): void {
    for (const { item } of this.#queue) {
      if (item.kind !== 'block' || !item.block) continue;
      const keys = contents.piecesIn(item.block.timeline, item.block.start, item.block.bytes).map(({ key }) => key);
      this.#of(item.block).adopt([], keys, []);
    }
    if (block) {
      const { chosen } = coveringPieces(expected, 0, block.bytes);
      const other = expected.filter((piece) => !chosen.includes(piece)).map(({ key }) => key);
      this.#of(block).adopt(chosen, other, expected);
    }
    const first = this.#queue[0]?.item.start ?? this.#host.openBlock()?.start ?? this.#host.base();
    const end = contiguousEnd(contents.ranges(), this.#host.base());
    if (end < first) {
      this.#hole = { start: end, end: maxLsn(this.#hole?.end ?? first, first) };
    }
    this.#entered = 'yes';
    this.#flushDue = true;
  }

  async #store(item: ClosedWal): Promise<void> {
    if (item.kind === 'tail') {
      if (item.block && this.#of(item.block).covered < item.block.received) await this.#storePiece(item.block);
      if (item.block) this.#pieces.delete(item.block);
      return;
    }
    const object = await item.sealed;
    if (!object) throw new DrError('internal', 'a closed WAL block was not sealed');
    await createWal(this.store, object, this.#host.signal);
    if (!item.block) return;
    const keys = this.#of(item.block).keys.filter((key) => key !== object.key);
    this.#pieces.delete(item.block);
    this.#remove(keys);
  }

  async #storePiece(block: WalBlock): Promise<void> {
    this.verify(block);
    const pieces = this.#of(block);
    const { from, level } = pieces.next();
    const to = block.received;
    const object = await this.#host.sealPiece(block, from, to);
    await createWal(this.store, object, this.#host.signal);
    this.#remove(pieces.stored({ from, to, key: object.key, level }));
  }

  /** Superfluous pieces go in the background: one that stays is only a few bytes too many, and is swept at the next start. */
  #remove(keys: readonly string[]): void {
    if (keys.length === 0) return;
    this.store.delete(keys, { signal: this.#host.signal }).catch((error: unknown) => {
      this.#host.log.debug(
        { vault: this.store.name, error, objects: keys.length },
        'superfluous WAL pieces stay for now',
      );
    });
  }

  #of(block: WalBlock): BlockPieces {
    let pieces = this.#pieces.get(block);
    if (!pieces) {
      pieces = new BlockPieces();
      this.#pieces.set(block, pieces);
    }
    return pieces;
  }
}
