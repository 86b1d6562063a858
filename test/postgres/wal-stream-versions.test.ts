import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseLsn, segmentName, segmentStart } from '../../src/postgres/lsn.ts';
import { isSlotLost, isWalGone } from '../../src/postgres/server-errors.ts';
import { postgresMajors, startPostgres } from '../harness/postgres.ts';
import { tempDir } from '../harness/temp.ts';
import { connect, standbyOf, until } from './receive.ts';
import { collect, currentLsn, senders } from './wal-collect.ts';

const mib = 1024 * 1024;

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
