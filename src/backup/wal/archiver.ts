import { type Clock, systemClock } from '../../base/clock.ts';
import { DrError, isAbort } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { backoffMs } from '../../base/retry.ts';
import { connectReplication, type ReplicationConnection, type ServerIdentity } from '../../postgres/connection.ts';
import { formatLsn, type Lsn } from '../../postgres/lsn.ts';
import { isWalGone } from '../../postgres/server-errors.ts';
import { createDataKey } from '../../vault/keys.ts';
import { blockBytesOf } from './block.ts';
import { writeHeartbeats } from './heartbeat.ts';
import { ensureSlot, followFork, gapError, requireSystem } from './lineage.ts';
import { maxLsn } from './names.ts';
import type { WalArchiverOptions } from './options.ts';
import { WalRepair } from './repair.ts';
import { WalSealer } from './sealer.ts';
import type { WalGap, WalSession } from './session.ts';
import { type SlotHealth, watchSlot } from './slot.ts';
import { openWalSession, type SlotState } from './start.ts';
import { statusOf, type WalArchiverStatus } from './status.ts';
import { streamInto } from './stream.ts';

export type { WalArchiverOptions } from './options.ts';

/** How often vaults are told how far the archive reaches, at most. */
const HEARTBEAT_MS = 5000;
const DRAIN_MS = 10_000;

/**
 * Service: streams the WAL of one database into all vaults for as long as it runs. It reconnects for ever, follows timeline
 * switches, repairs vaults that were away, and acknowledges to the server only what is durable as the policy promises.
 */
export class WalArchiver {
  readonly #options: WalArchiverOptions;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #stop = new AbortController();
  #round = new AbortController();
  #running: Promise<void> | undefined;
  #connection: ReplicationConnection | undefined;
  #session: WalSession | undefined;
  #sessionStop = new AbortController();
  #systemId: string | undefined;
  #sealer: WalSealer | undefined;
  #dataKey: Awaited<ReturnType<typeof createDataKey>> | 'not yet' = 'not yet';
  #state: WalArchiverStatus['state'] = 'stopped';
  #serverEnd: Lsn | undefined;
  #slotHealth: SlotHealth | undefined;
  #lastError: unknown;
  readonly #gaps: WalGap[] = [];
  #acknowledged: Lsn = 0n;

  constructor(options: WalArchiverOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#log = options.log.child({ resource: options.resource });
  }

  /** Begins; returns at once. What goes wrong afterwards is in `status()`, the log and `onFatal`. */
  start(): void {
    if (this.#running) return;
    this.#state = 'connecting';
    this.#running = Promise.all([this.#run(), this.#beat(), this.#watch()]).then(() => {});
  }

  /** Ends. With `drain`, what was received until now is stored in every vault that answers and acknowledged first (at most 10 s). */
  async stop(options: { readonly drain: boolean }): Promise<void> {
    if (options.drain && this.#session) {
      await this.#session.drain(DRAIN_MS);
      this.#connection?.acknowledge();
      await this.#writeHeartbeats();
    }
    this.#stop.abort();
    this.#round.abort();
    // Before waiting: the stream may be held up by vaults that take nothing.
    this.#sessionStop.abort();
    await this.#running;
    if (this.#state !== 'failed') this.#state = 'stopped';
  }

  status(): WalArchiverStatus {
    return statusOf({
      state: this.#state,
      systemId: this.#systemId,
      stores: this.#options.stores,
      session: this.#session,
      serverEnd: this.#serverEnd,
      slot: { name: this.#options.slot, health: this.#slotHealth },
      gaps: this.#gaps,
      lastError: this.#lastError,
      nowMs: this.#clock.now(),
    });
  }

  async #run(): Promise<void> {
    const { retryBaseMs = 500, retryMaxMs = 30_000 } = this.#options;
    let failures = 0;
    while (!this.#stop.signal.aborted) {
      this.#round = new AbortController();
      try {
        await this.#connectAndStream(() => {
          failures = 0;
        });
        this.#lastError = undefined;
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        if (this.#round.signal.aborted && isAbort(error)) continue;
        if (error instanceof DrError && error.kind === 'conflict' && !error.retryable) {
          this.#fail(error);
          return;
        }
        this.#lastError = error;
        this.#log.warn({ error }, 'WAL streaming was interrupted; it is tried again');
      }
      if (this.#state === 'failed') return;
      this.#state = 'connecting';
      failures++;
      // At least half of the bound: a server that restarts is not asked in a tight loop.
      const bound = Math.min(retryMaxMs, retryBaseMs * 2 ** Math.min(failures - 1, 20));
      await this.#clock.sleep(bound / 2 + backoffMs(1, bound / 2, bound / 2), this.#stop.signal).catch(() => {});
    }
  }

  async #connectAndStream(succeeded: () => void): Promise<void> {
    const { url, resource, slot } = this.#options;
    const log = this.#log;
    const { signal } = this.#stop;
    const connection = await connectReplication({ url, applicationName: `dr_${resource}`, signal, log });
    this.#connection = connection;
    try {
      let server = await this.#identify(connection);
      this.#systemId ??= server.systemId;
      requireSystem(server, this.#systemId);
      const segmentBytes = await connection.walSegmentBytes();
      const slotState = await ensureSlot(connection, slot, server, log);
      const session = this.#session ?? (await this.#openSession(server, slotState, segmentBytes));
      for (;;) {
        if (signal.aborted || this.#round.signal.aborted) return;
        if (await followFork(connection, session, server, log)) continue;
        // Where a session began, and behind a gap: nobody has announced this timeline.
        if (session.lacksHistory) {
          const { timeline } = session.position;
          session.addHistory(timeline, (await connection.timelineHistory(timeline)).content);
        }
        const end = await streamInto(session, connection, {
          slot,
          restart: slotState.restart.lsn,
          latest: server.timeline,
          signal: this.#round.signal,
          clock: this.#clock,
          onAlive: (end) => this.#alive(end, succeeded),
        }).catch(async (error: unknown) => {
          if (!isWalGone(error)) throw error;
          const restart = (await connection.slot(slot))?.restartLsn;
          // A slot that reserves nothing later than what is gone is of no use: the next connection makes a new one.
          if (restart === undefined || restart <= session.position.lsn) await connection.dropSlot(slot);
          else this.#noteGap(session, restart, server.timeline, error);
          return undefined;
        });
        // After a gap the connection is of no more use; everything else is decided by how the stream ended.
        if (end === undefined || end.kind === 'stopped') return;
        if (end.kind === 'server-shutdown') {
          throw new DrError('unreachable', 'the server was shut down; everything it had is archived', {
            where: connection.where,
            next: 'Start it again when its work is done; streaming goes on by itself.',
          });
        }
        const history = await connection.timelineHistory(end.nextTimeline);
        session.switchTimeline(end.nextTimeline, end.switchLsn, history.content);
        log.info(
          { resource, timeline: end.nextTimeline, from: formatLsn(end.switchLsn) },
          'WAL goes on on a new timeline',
        );
        server = await this.#identify(connection);
      }
    } finally {
      this.#connection = undefined;
      await connection.close();
    }
  }

  async #identify(connection: ReplicationConnection): Promise<ServerIdentity> {
    const server = await connection.identify();
    this.#serverEnd = server.lsn;
    return server;
  }

  #alive(end: Lsn, succeeded: () => void): void {
    this.#serverEnd = maxLsn(this.#serverEnd ?? end, end);
    if (this.#state === 'streaming') return;
    this.#state = 'streaming';
    this.#lastError = undefined;
    succeeded();
  }

  async #openSession(server: ServerIdentity, slot: SlotState, segmentBytes: number): Promise<WalSession> {
    const options = this.#options;
    if (this.#dataKey === 'not yet') {
      this.#dataKey = await createDataKey(options.keyPolicy, this.#clock.now(), `wal/${server.systemId}`);
    }
    const dataKey = this.#dataKey;
    // One sealer below one key for the whole process: counters of frames never repeat.
    this.#sealer ??= new WalSealer({
      systemId: server.systemId,
      key: dataKey?.key,
      pool: options.pool,
      level: options.compressionLevel,
    });
    this.#sessionStop = new AbortController();
    const { session, base } = await openWalSession(options.stores, server, slot, {
      systemId: server.systemId,
      segmentBytes,
      sealer: this.#sealer,
      prepare: async (store) => {
        if (dataKey) await store.create(dataKey.objectKey, dataKey.object, { signal: this.#stop.signal });
      },
      policy: options.durable,
      flushEveryMs: options.flushEveryMs,
      memoryBytes: Math.max(3 * blockBytesOf(segmentBytes), options.memoryBytes ?? 64 * 1024 * 1024),
      startGraceMs: options.startGraceMs ?? 3000,
      retryBaseMs: options.retryBaseMs ?? 500,
      retryMaxMs: options.retryMaxMs ?? 30_000,
      clock: this.#clock,
      log: this.#log,
      signal: this.#sessionStop.signal,
      onChange: () => this.#acknowledge(),
      onFatal: (error) => this.#fail(error),
    });
    this.#session = session;
    const { timeline, lsn } = session.position;
    for (const lane of session.lanes) lane.pump();
    const repair = new WalRepair({
      session,
      systemId: server.systemId,
      segmentBytes,
      base,
      oldestNeeded: options.oldestNeeded ?? (async () => undefined),
      gaps: () => this.#gaps,
      rewind: () => this.#rewind(),
      rewindAfterMs: options.rewindAfterMs ?? 60_000,
      everyMs: options.repairEveryMs ?? 5000,
    });
    void repair.run();
    this.#log.info({ timeline, from: formatLsn(lsn) }, 'WAL archive opened');
    return session;
  }

  #noteGap(session: WalSession, restart: Lsn, timeline: number, cause: unknown): void {
    const { resource, onGap } = this.#options;
    const gap = session.skipTo({ timeline, lsn: restart });
    this.#gaps.push(gap);
    const error = gapError(gap, resource, cause);
    this.#log.error({ error }, 'the server no longer had WAL that was not archived yet');
    this.#lastError = error;
    onGap?.(gap);
  }

  /** Begins again from the listings of the vaults that answer. */
  #rewind(): void {
    if (this.#options.durable !== 'all') return;
    this.#options.log.warn(
      { resource: this.#options.resource },
      'WAL that only an absent vault has is asked for again',
    );
    this.#sessionStop.abort();
    this.#session = undefined;
    this.#round.abort();
  }

  #acknowledge(): void {
    const durable = this.#session?.durable ?? 0n;
    if (durable <= this.#acknowledged) return;
    this.#acknowledged = durable;
    this.#connection?.acknowledge();
  }

  #fail(error: DrError): void {
    if (this.#state === 'failed') return;
    this.#state = 'failed';
    this.#lastError = error;
    this.#options.log.error(
      { resource: this.#options.resource, error },
      'WAL archiving has stopped: a person has to act',
    );
    this.#sessionStop.abort();
    this.#stop.abort();
    this.#round.abort();
    this.#options.onFatal?.(error);
  }

  get #beatMs(): number {
    return Math.max(this.#options.flushEveryMs, HEARTBEAT_MS);
  }

  async #beat(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      if (this.#session) await this.#writeHeartbeats();
      await this.#clock.sleep(this.#session ? this.#beatMs : 500, this.#stop.signal, { unref: true }).catch(() => {});
    }
  }

  async #writeHeartbeats(): Promise<void> {
    if (!this.#session) return;
    await writeHeartbeats(this.#session, {
      resource: this.#options.resource,
      systemId: this.#systemId ?? '',
      connected: this.#state === 'streaming',
      site: this.#options.site,
      everyMs: this.#beatMs,
      nowMs: this.#clock.now(),
      log: this.#log,
      signal: this.#stop.signal,
    });
  }

  async #watch(): Promise<void> {
    const { url, slot, slotEveryMs = 15_000 } = this.#options;
    while (!this.#stop.signal.aborted) {
      if (this.#state === 'streaming') {
        this.#slotHealth = await watchSlot(url, slot, this.#slotHealth, this.#log, this.#stop.signal);
      }
      const pauseMs = this.#slotHealth ? slotEveryMs : 1000;
      await this.#clock.sleep(pauseMs, this.#stop.signal, { unref: true }).catch(() => {});
    }
  }
}
