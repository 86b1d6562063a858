import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ReplicationConnection } from '../../src/postgres/connection.ts';
import { type Lsn, parseLsn, segmentName, segmentStart } from '../../src/postgres/lsn.ts';
import { isSlotLost, isWalGone } from '../../src/postgres/server-errors.ts';
import type { WalStreamEnd, WalStreamOptions } from '../../src/postgres/wal-stream.ts';
import { postgresMajors, startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { tempDir } from '../harness/temp.ts';
import { connect, standbyOf, until } from './receive.ts';

const mib = 1024 * 1024;

/** Starts streaming into memory. */
function collect(connection: ReplicationConnection, options: Partial<WalStreamOptions> & { start: Lsn }) {
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

const currentLsn = async (server: TestPostgres) => {
  const [row] = await server.sql<{ lsn: string }>('select pg_current_wal_flush_lsn()::text as lsn');
  return parseLsn(row?.lsn ?? '') ?? 0n;
};

const senders = (server: TestPostgres) =>
  server.sql<{ pid: number; flush: string | null; write: string | null; reply: Date | null; sync: string }>(
    "select pid, flush_lsn::text as flush, write_lsn::text as write, reply_time as reply, sync_state as sync from pg_stat_replication where application_name = 'dr-test'",
  );

describe.each(postgresMajors)('WAL of PostgreSQL %i', (version) => {
  it('arrives byte for byte as the server has it, and moves the slot only as far as it is durable', async () => {
    await using server = await startPostgres({ version, initdb: ['--wal-segsize=1'] });
    const connection = await connect(server);
    expect(await connection.walSegmentBytes()).toBe(mib);
    expect(await connection.slot('dr')).toBeUndefined();
    expect(await connection.createPhysicalSlot('dr')).toBe(true);
    expect(await connection.createPhysicalSlot('dr')).toBe(false);
    const slot = await connection.slot('dr');
    expect(slot?.restartTimeline).toBe(1);
    const start = segmentStart(slot?.restartLsn ?? 0n, mib);
    const stream = collect(connection, { start, slot: 'dr' });
    await server.sql('create table t as select i, md5(i::text) as x from generate_series(1, 40000) i');
    const goal = await currentLsn(server);
    await until(async () => stream.state.received >= goal);
    // Received, but durable nowhere: the server still has to keep it.
    const before = await until(async () =>
      (await senders(server)).find(({ write }) => (parseLsn(write ?? '') ?? 0n) >= goal),
    );
    expect(parseLsn(before.flush ?? '') ?? 0n).toBeLessThanOrEqual(start);

    const durable = start + BigInt(mib) + 12_345n;
    stream.state.durable = durable;
    connection.acknowledge();
    await until(async () => (await senders(server)).some(({ flush }) => parseLsn(flush ?? '') === durable));
    // What goes down again (a defect of the caller) does not move the slot back.
    stream.state.durable = start;
    connection.acknowledge();
    stream.stop.abort();
    const end = await stream.end;
    expect(end).toEqual({ kind: 'stopped', end: stream.state.received });
    expect((await connection.slot('dr'))?.restartLsn).toBe(durable);

    const bytes = stream.bytes();
    expect(bytes.length).toBeGreaterThan(3 * mib);
    for (let at = start; at + BigInt(mib) <= goal; at += BigInt(mib)) {
      const file = readFileSync(join(server.dataDirectory, 'pg_wal', segmentName(1, at, mib)));
      expect(bytes.subarray(Number(at - start), Number(at - start) + mib).equals(file), segmentName(1, at, mib)).toBe(
        true,
      );
    }
    // The same connection streams again from where it stopped, and the server's clock is ours.
    let clockMs = 0;
    const again = collect(connection, {
      start: end.kind === 'stopped' ? end.end : 0n,
      slot: 'dr',
      onWal: (_start, _bytes, position) => {
        clockMs = position.clockMs;
      },
    });
    await server.sql('create table more (i int)');
    await until(async () => clockMs > 0);
    expect(Math.abs(clockMs - Date.now())).toBeLessThan(60_000);
    again.stop.abort();
    await again.end;
    await connection.dropSlot('dr');
    await connection.dropSlot('dr');
    expect(await connection.slot('dr')).toBeUndefined();
    await connection.close();
  });

  it('says where a timeline ended and what follows, also when it is asked for its exact end', async () => {
    await using server = await startPostgres({ version });
    const data = join(await tempDir('standby'), 'data');
    await standbyOf(server, data);
    await using standby = await startPostgres({ version, dataDirectory: data });
    const connection = await connect(standby);
    const { lsn } = await connection.identify();
    const start = segmentStart(lsn, 16 * mib);
    const stream = collect(connection, { start });
    await server.sql('create table t as select generate_series(1, 1000) i');
    const goal = await currentLsn(server);
    await until(async () => stream.state.received >= goal);
    await server.stop('immediate');
    await standby.promote();
    const end = await stream.end;
    if (end.kind !== 'timeline-end') throw new Error(`ended as ${end.kind}`);
    expect(end).toEqual({
      kind: 'timeline-end',
      nextTimeline: 2,
      switchLsn: stream.state.received,
      end: stream.state.received,
    });
    const exact = await collect(connection, { start: end.switchLsn }).end;
    expect(exact).toMatchObject({ kind: 'timeline-end', nextTimeline: 2, switchLsn: end.switchLsn });

    const history = await connection.timelineHistory(2);
    expect(history.fileName).toBe('00000002.history');
    expect(history.content.equals(readFileSync(join(data, 'pg_wal/00000002.history')))).toBe(true);
    expect((await connection.identify()).timeline).toBe(2);

    // On the new timeline from the begin of the segment of the switch: the same bytes up to the switch, then new ones.
    const next = collect(connection, { start: segmentStart(end.switchLsn, 16 * mib), timeline: 2 });
    await standby.sql('create table after_promotion (i int)');
    const further = await currentLsn(standby);
    await until(async () => next.state.received >= further);
    next.stop.abort();
    await next.end;
    const common = Number(end.switchLsn - segmentStart(end.switchLsn, 16 * mib));
    const skipped = Number(segmentStart(end.switchLsn, 16 * mib) - start);
    expect(
      next
        .bytes()
        .subarray(0, common)
        .equals(stream.bytes().subarray(skipped, skipped + common)),
    ).toBe(true);
    await connection.close();
  });

  it('that the server has removed is told apart from every other failure: before, while it is read, of a lost slot', async () => {
    await using server = await startPostgres({
      version,
      initdb: ['--wal-segsize=1'],
      settings: { max_slot_wal_keep_size: '1MB', min_wal_size: '2MB', max_wal_size: '2MB' },
    });
    const connection = await connect(server);
    await connection.createPhysicalSlot('slow');
    const start = segmentStart((await connection.slot('slow'))?.restartLsn ?? 0n, mib);
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const reading = collect(connection, { start, onWal: () => held });
    await until(async () => (await senders(server)).length === 1);
    await server.sql('create table t as select repeat(md5(i::text), 30) from generate_series(1, 20000) i');
    await server.sql('checkpoint');
    const [row] = await server.sql<{ status: string }>('select wal_status as status from pg_replication_slots');
    expect(row?.status).toBe('lost');
    release();
    const whileRead = await reading.end.catch((error: unknown) => error);
    const before = await collect(connection, { start }).end.catch((error: unknown) => error);
    const lost = await collect(connection, { start, slot: 'slow' }).end.catch((error: unknown) => error);
    for (const error of [whileRead, before, lost]) {
      expect(error).toMatchObject({
        name: 'DrError',
        retryable: false,
        next: expect.stringMatching(/new base backup/),
      });
    }
    expect([whileRead, before].map(isWalGone)).toEqual([true, true]);
    expect([isWalGone(lost), isSlotLost(lost)]).toEqual(version >= 18 ? [false, true] : [true, false]);
    await connection.close();
  });
});

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
    stream.state.durable = stream.state.received;
    connection.acknowledge();
    await commit;
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
      const memory = process.memoryUsage().arrayBuffers;
      // Twice the server's patience, by the server's own clock.
      await until(async () => {
        const [now] = await senders(server);
        expect(now?.pid).toBe(first.pid);
        return Number(now?.reply) - Number(first.reply) > 1100;
      });
      expect(process.memoryUsage().arrayBuffers - memory).toBeLessThan(8 * mib);
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
