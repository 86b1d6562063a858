import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lsn, parseLsn, segmentStart } from '../../src/postgres/lsn.ts';
import { isWalGone } from '../../src/postgres/server-errors.ts';
import { liveBufferBytes } from '../harness/memory.ts';
import { startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { connect, until } from './receive.ts';
import { collect, currentLsn, senders } from './wal-collect.ts';

const mib = 1024 * 1024;

describe('WAL streaming', () => {
  let server: TestPostgres;
  let start: Lsn;
  beforeAll(async () => {
    server = await startPostgres({
      version: 17,
      tls: true,
      password: 'only for tests',
      settings: { wal_sender_timeout: '500ms', wal_keep_size: '1GB' },
    });
    start = segmentStart(await currentLsn(server), 16 * mib);
  });
  afterAll(async () => await server[Symbol.asyncDispose]());

  it('releases a synchronous commit with the acknowledgement, not before', async () => {
    const connection = await connect(server);
    const stream = collect(connection, {
      start: segmentStart(await currentLsn(server), 16 * mib),
      statusEveryMs: 60_000,
    });
    await until(async () => (await senders(server)).length === 1);
    await server.sql('create table sync_test (i int)');
    await server.sql('alter system set synchronous_standby_names = \'"dr-test"\'');
    await server.sql('select pg_reload_conf()');
    // The server looks at its list with the next acknowledgement.
    await until(async () => {
      stream.state.durable = stream.state.received;
      connection.acknowledge();
      return (await senders(server))[0]?.sync === 'sync';
    });
    let committed = false;
    const commit = server.sql('insert into sync_test values (1)').then(() => {
      committed = true;
    });
    await until(
      async () => (await server.sql("select from pg_stat_activity where wait_event = 'SyncRep'")).length === 1,
    );
    const [position] = await server.sql<{ lsn: string }>('select pg_current_wal_insert_lsn()::text as lsn');
    await until(async () => stream.state.received >= (parseLsn(position?.lsn ?? '') ?? 0n));
    expect(committed).toBe(false);
    // More than was received (a defect of the caller) is not claimed.
    stream.state.durable = stream.state.received + 2n ** 30n;
    connection.acknowledge();
    await commit;
    const [told] = await senders(server);
    expect(parseLsn(told?.flush ?? '')).toBeLessThanOrEqual(stream.state.received);
    await server.sql('alter system reset synchronous_standby_names; ').catch(() => {});
    await server.sql('select pg_reload_conf()');
    stream.stop.abort();
    await stream.end;
    await connection.close();
  });

  it.each(['disable', 'no-verify'])(
    'keeps the connection alive while the consumer is busy, in constant memory (sslmode=%s)',
    async (sslmode) => {
      const connection = await connect(server, { url: `${server.replicationUrl}?sslmode=${sslmode}` });
      let release = () => {};
      const held = new Promise<void>((resolve) => {
        release = resolve;
      });
      let bytes = 0;
      const stream = collect(connection, {
        start,
        statusEveryMs: 100,
        onWal: async (_start, view) => {
          const copy = Buffer.from(view.subarray(0, 100));
          await held;
          expect(copy.equals(view.subarray(0, 100))).toBe(true);
          bytes += view.length;
        },
      });
      await server.sql('create table if not exists fill (x text)');
      await server.sql('insert into fill select repeat(md5(i::text), 30) from generate_series(1, 60000) i');
      const goal = await currentLsn(server);
      const first = await until(async () => (await senders(server))[0]);
      const memory = liveBufferBytes();
      // Twice the server's patience, by the server's own clock.
      await until(async () => {
        const [now] = await senders(server);
        expect(now?.pid).toBe(first.pid);
        return Number(now?.reply) - Number(first.reply) > 1100;
      });
      await expect.poll(() => liveBufferBytes() - memory).toBeLessThan(8 * mib);
      expect(bytes).toBe(0);
      release();
      await until(async () => start + BigInt(bytes) >= goal);
      stream.stop.abort();
      expect(await stream.end).toEqual({ kind: 'stopped', end: start + BigInt(bytes) });
      await connection.close();
    },
  );

  it('notices a server that says nothing any more', async () => {
    const connection = await connect(server);
    const stream = collect(connection, { start, statusEveryMs: 50, silenceMs: 600 });
    const { pid } = await until(async () => (stream.state.received > start ? (await senders(server))[0] : undefined));
    process.kill(pid, 'SIGSTOP');
    try {
      await expect(stream.end).rejects.toMatchObject({
        kind: 'unreachable',
        retryable: true,
        message: expect.stringContaining('said nothing'),
      });
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await connection.close();
  });

  it('asks a quiet server for a sign of life instead of giving it up', async () => {
    await server.sql('alter system set wal_sender_timeout = 0');
    await server.sql('select pg_reload_conf()');
    const connection = await connect(server);
    const stream = collect(connection, { start: await currentLsn(server), statusEveryMs: 50, silenceMs: 400 });
    await until(async () => stream.state.keepalives >= 5);
    stream.stop.abort();
    expect(await stream.end).toMatchObject({ kind: 'stopped' });
    await connection.close();
    await server.sql('alter system reset wal_sender_timeout');
    await server.sql('select pg_reload_conf()');
  });

  it('is stopped in time even when the server hangs', async () => {
    const connection = await connect(server);
    const stream = collect(connection, { start, stopMs: 200 });
    const { pid } = await until(async () => (stream.state.received > start ? (await senders(server))[0] : undefined));
    process.kill(pid, 'SIGSTOP');
    stream.stop.abort();
    try {
      expect(await stream.end).toEqual({ kind: 'stopped', end: stream.state.received });
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await connection.close();
  });

  it('passes on the failure of the consumer and of its durable position', async () => {
    const failure = new Error('spool is full');
    const connection = await connect(server);
    await expect(collect(connection, { start, onWal: () => Promise.reject(failure) }).end).rejects.toBe(failure);
    await connection.close();
    const other = await connect(server);
    await expect(
      collect(other, {
        start,
        durable: () => {
          throw failure;
        },
      }).end,
    ).rejects.toBe(failure);
    await other.close();
  });

  it('is told apart: a slot in use, a slot that is not there, a position of another history, WAL that is gone', async () => {
    const first = await connect(server);
    await first.createPhysicalSlot('busy');
    const stream = collect(first, { start, slot: 'busy' });
    await until(async () => stream.state.received > start);
    const second = await connect(server);
    await expect(collect(second, { start, slot: 'busy' }).end).rejects.toMatchObject({
      kind: 'conflict',
      retryable: true,
      next: expect.stringContaining('pg_terminate_backend'),
    });
    await expect(second.dropSlot('busy')).rejects.toMatchObject({ kind: 'conflict' });
    await expect(collect(second, { start, slot: 'missing' }).end).rejects.toMatchObject({ kind: 'not-found' });
    await expect(collect(second, { start, timeline: 7 }).end).rejects.toMatchObject({
      kind: 'refused',
      next: expect.stringContaining('history'),
    });
    await expect(collect(second, { start: start + 2n ** 40n }).end).rejects.toMatchObject({ kind: 'refused' });
    await expect(second.timelineHistory(9)).rejects.toMatchObject({ name: 'DrError' });
    const gone = await collect(second, { start: 0n }).end.catch((error: unknown) => error);
    expect(isWalGone(gone)).toBe(true);
    expect(gone).toMatchObject({ kind: 'not-found', next: expect.stringContaining('base backup') });
    stream.stop.abort();
    await stream.end;
    await first.dropSlot('busy');
    await first.close();
    await second.close();
  });

  it('sees an ordered shutdown only after everything was acknowledged, and a kill as what it is', async () => {
    const connection = await connect(server);
    const stream = collect(connection, { start, statusEveryMs: 100, durable: () => stream.state.received });
    await until(async () => stream.state.received > start);
    await server.stop('fast');
    expect(await stream.end).toEqual({ kind: 'server-shutdown', end: stream.state.received });
    await connection.close();
    await server.start();
    expect(await currentLsn(server)).toBeGreaterThanOrEqual(stream.state.received);

    const killed = await connect(server);
    const cut = collect(killed, { start });
    await until(async () => cut.state.received > start);
    await server.kill9();
    await expect(cut.end).rejects.toMatchObject({ kind: 'unreachable', retryable: true });
    await killed.close();
    await server.start();
  });
});
