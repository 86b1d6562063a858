import type { Clock } from '../../base/clock.ts';
import type { ReplicationConnection } from '../../postgres/connection.ts';
import type { Lsn } from '../../postgres/lsn.ts';
import type { WalStreamEnd } from '../../postgres/wal-stream.ts';
import { minLsn } from './names.ts';
import type { WalSession } from './session.ts';

const STATUS_EVERY_MS = 1000;
const SILENCE_MS = 30_000;

/** Streams one timeline into the session, from where it stands, until the stream ends. Throws what `streamWal` throws. */
export async function streamInto(
  session: WalSession,
  connection: ReplicationConnection,
  options: {
    readonly slot: string;
    /** What the slot reserves WAL from. */
    readonly restart: Lsn;
    /** The timeline that the server is on. */
    readonly latest: number;
    readonly signal: AbortSignal;
    readonly clock: Clock;
    /** The server lives, and has at least everything before `end`. */
    onAlive(end: Lsn): void;
  },
): Promise<WalStreamEnd> {
  const { slot, signal, clock, onAlive } = options;
  const { timeline, lsn } = session.position;
  // What it says about the end of a timeline that it has left is no news of what was committed since.
  const isLatest = timeline === options.latest;
  // A session begins before the slot's position, at the beginning of a segment: acknowledging that would move the slot back, perhaps to
  // WAL that is gone.
  let least = options.restart;
  const durable = () => {
    const end = minLsn(session.durable, session.position.lsn);
    if (end < least) return 0n;
    least = end;
    return end;
  };
  session.beginStream();
  return await connection.streamWal({
    slot,
    timeline,
    start: lsn,
    signal,
    statusEveryMs: STATUS_EVERY_MS,
    silenceMs: SILENCE_MS,
    // Two answers are needed to know that a quiet server has no more.
    askEveryMs: STATUS_EVERY_MS,
    clock,
    durable,
    onWal: (start, bytes, position) => {
      onAlive(position.walEnd);
      if (isLatest) session.noteEnd(position);
      return session.onWal(start, bytes, position.clockMs);
    },
    onKeepalive: (keepalive) => {
      onAlive(keepalive.sentEnd);
      if (isLatest) session.noteSent(keepalive);
      // A server that shuts down waits until everything is acknowledged.
      if (keepalive.replyRequested) for (const lane of session.lanes) lane.flush();
    },
  });
}
