import { DrError, isAbort } from '../../base/errors.ts';
import type { VaultLane } from './lane.ts';
import { VaultWal, type WalPosition } from './listing.ts';
import { contiguousEnd } from './names.ts';
import type { WalGap, WalSession } from './session.ts';
import { syncWal } from './sync.ts';

export interface WalRepairOptions {
  readonly session: WalSession;
  readonly systemId: string;
  readonly segmentBytes: number;
  /** Where the session's listings begin. */
  readonly base: WalPosition;
  /** Where the oldest backup that is kept needs WAL from; undefined = everything there is. */
  oldestNeeded(): Promise<WalPosition | undefined>;
  /** Gaps that the server itself left: nobody can fill those. */
  gaps(): readonly WalGap[];
  /** A hole cannot be copied from anywhere, but the server still has that WAL: begin again from there. */
  rewind(): void;
  readonly rewindAfterMs: number;
  readonly everyMs: number;
}

/** Copies to each vault what it lacks and another one has: after a restart everything is compared, later only known holes. */
export class WalRepair {
  readonly #options: WalRepairOptions;
  readonly #compared = new Map<VaultLane, Set<VaultLane>>();
  #lonelySinceMs: number | undefined;

  constructor(options: WalRepairOptions) {
    this.#options = options;
  }

  /** Works until the session's signal aborts. Reports conflicts to the session; anything else is tried again. */
  async run(): Promise<void> {
    const { session, everyMs } = this.#options;
    while (!session.signal.aborted) {
      for (const lane of session.lanes) {
        if (session.signal.aborted) return;
        await this.#mend(lane).catch((error: unknown) => {
          if (isAbort(error) || session.signal.aborted) return;
          if (error instanceof DrError && error.kind === 'conflict') session.fatal(error);
          else
            session.log.warn({ vault: lane.store.name, error }, 'missing WAL could not be copied; it is tried again');
        });
      }
      await session.clock.sleep(everyMs, session.signal, { unref: true }).catch(() => {});
    }
  }

  async #mend(lane: VaultLane): Promise<void> {
    const { session, systemId, segmentBytes, base } = this.#options;
    const { hole } = lane;
    if (!lane.isHealthy) return;
    const others = session.lanes.filter((other) => other !== lane && other.isHealthy);
    if (hole && others.length === 0) this.#alone();
    if (others.length > 0) this.#lonelySinceMs = undefined;
    const compared = this.#compared.get(lane) ?? new Set();
    this.#compared.set(lane, compared);
    const fresh = others.filter((other) => !compared.has(other));
    const asked = hole ? others : fresh;
    if (asked.length === 0) return;
    const whole = fresh.length > 0;
    const from = whole ? await this.#options.oldestNeeded() : { timeline: base.timeline, lsn: hole?.start ?? base.lsn };
    const result = await syncWal({
      sources: asked.map(({ store }) => store),
      target: lane.store,
      systemId,
      from,
      until: hole?.end ?? session.openBlock().start,
      segmentBytes,
      log: session.log,
      signal: session.signal,
    });
    if (result.copied > 0) {
      const facts = { vault: lane.store.name, objects: result.copied, bytes: result.bytes };
      session.log.info(facts, 'missing WAL was copied from another vault');
    }
    if (result.failed.length === 0 && result.unread.length === 0) for (const other of asked) compared.add(other);
    if (!hole) return;
    const contents = await VaultWal.read(
      lane.store,
      systemId,
      { timeline: base.timeline, lsn: hole.start },
      segmentBytes,
      session.signal,
    );
    const gaps = this.#options.gaps().map(({ from: start, to: end }) => ({ start, end }));
    const end = contiguousEnd([...contents.ranges(), ...gaps], hole.start);
    lane.filled(hole, end >= hole.end ? undefined : { start: end, end: hole.end });
  }

  /** The only vault that answers has a hole: the others may be gone for good. */
  #alone(): void {
    const now = this.#options.session.clock.now();
    this.#lonelySinceMs ??= now;
    if (now - this.#lonelySinceMs < this.#options.rewindAfterMs) return;
    this.#lonelySinceMs = undefined;
    this.#options.rewind();
  }
}
