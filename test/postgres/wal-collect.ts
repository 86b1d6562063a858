import { expect } from 'vitest';
import type { ReplicationConnection } from '../../src/postgres/connection.ts';
import { type Lsn, parseLsn } from '../../src/postgres/lsn.ts';
import type { WalStreamEnd, WalStreamOptions } from '../../src/postgres/wal-stream.ts';
import type { TestPostgres } from '../harness/postgres.ts';

/** Starts streaming into memory. */
export function collect(connection: ReplicationConnection, options: Partial<WalStreamOptions> & { start: Lsn }) {
  const chunks: Buffer[] = [];
  const stop = new AbortController();
  const state = { received: options.start, durable: options.start, keepalives: 0 };
  const end: Promise<WalStreamEnd> = connection.streamWal({
    timeline: 1,
    signal: stop.signal,
    onWal: (start, bytes) => {
      expect(start).toBe(state.received);
      chunks.push(Buffer.from(bytes));
      state.received += BigInt(bytes.length);
    },
    onKeepalive: () => {
      state.keepalives++;
    },
    durable: () => state.durable,
    statusEveryMs: 1000,
    ...options,
  });
  // Each test awaits it; until then a failure is not unhandled.
  end.catch(() => {});
  return { end, stop, state, bytes: () => Buffer.concat(chunks) };
}

export const currentLsn = async (server: TestPostgres) => {
  const [row] = await server.sql<{ lsn: string }>('select pg_current_wal_flush_lsn()::text as lsn');
  return parseLsn(row?.lsn ?? '') ?? 0n;
};

export const senders = (server: TestPostgres) =>
  server.sql<{ pid: number; flush: string | null; write: string | null; reply: Date | null; sync: string }>(
    "select pid, flush_lsn::text as flush, write_lsn::text as write, reply_time as reply, sync_state as sync from pg_stat_replication where application_name = 'dr-test'",
  );
