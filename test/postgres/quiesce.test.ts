import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { lookAtQuiet, quiesceRights, quiesceServer, reopenServer } from '../../src/postgres/quiesce.ts';
import { startPostgres, type TestPostgres } from '../harness/postgres.ts';

let server: TestPostgres;
let appUrl: string;

beforeAll(async () => {
  server = await startPostgres({ version: 17 });
  await server.sql('create role app login');
  await server.sql('create role "Odd ""name" login');
  await server.sql('create role nobody nologin');
  await server.sql('create table orders (id bigint primary key)');
  await server.sql('grant all on orders to app');
  const url = new URL(server.url);
  url.username = 'app';
  appUrl = url.toString();
});
afterAll(async () => await server?.stop());

async function as(url: string, sql: string): Promise<pg.QueryResult> {
  const client = new pg.Client(url);
  client.on('error', () => {});
  await client.connect();
  try {
    return await client.query(sql);
  } finally {
    await client.end().catch(() => {});
  }
}

describe('a server that is made quiet', () => {
  it('ends all writers, lets none back in, and knows how far they came', async () => {
    const writer = new pg.Client(appUrl);
    const ended = new Promise((resolve) => writer.on('error', resolve));
    await writer.connect();
    await writer.query('begin; insert into orders values (1)');
    // Committed without waiting for the disk: it counts all the same.
    await as(appUrl, 'set synchronous_commit = off; insert into orders values (2)');

    const quiesced = await quiesceServer(server.url, 'run-1');
    await ended;
    expect(quiesced.locked).toEqual(['Odd "name', 'app']);
    expect(quiesced.endedSessions).toBeGreaterThanOrEqual(1);
    expect(quiesced.workers).toEqual([]);
    await expect(as(appUrl, 'select 1')).rejects.toMatchObject({ code: '28000' });
    await expect(as(server.url, 'insert into orders values (3)')).rejects.toMatchObject({ code: '25006' });
    const [row] = await server.sql<{ ids: string; flushed: boolean }>(
      `select string_agg(id::text, ',') as ids, pg_current_wal_flush_lsn() >= pg_lsn '${lsn(quiesced.flushedTo)}' as flushed from orders`,
    );
    expect(row).toEqual({ ids: '2', flushed: true });

    const quiet = await lookAtQuiet(server.url);
    expect(quiet.nextXid).toBe(quiesced.nextXid);
    // A superuser is not locked out: that it wrote can be seen.
    await as(server.url, 'begin read write; insert into orders values (4); delete from orders where id = 4; commit');
    expect((await lookAtQuiet(server.url)).nextXid).not.toBe(quiesced.nextXid);
    expect(quiet).toMatchObject({ sessions: [], open: [], refusal: expect.stringContaining('read-only') });
    // Again, as after a crash: nothing changes, and the roles are still known.
    expect((await quiesceServer(server.url, 'run-1')).locked).toEqual(quiesced.locked);
  });

  it('is opened again completely, and only what was locked by dr', async () => {
    await quiesceServer(server.url, 'run-1');
    expect(await reopenServer(server.url)).toEqual(['Odd "name', 'app']);
    expect(await reopenServer(server.url)).toEqual([]);
    await as(appUrl, 'insert into orders values (10)');
    await expect(as(appUrl.replace('app@', 'nobody@'), 'select 1')).rejects.toMatchObject({ code: '28000' });
    const rows = await server.sql('select from pg_db_role_setting');
    expect(rows).toEqual([]);
    expect((await lookAtQuiet(server.url)).refusal).toBeUndefined();
  });

  it('refuses while a transaction waits for its second phase', async () => {
    await server.sql('alter system set max_prepared_transactions = 2');
    await server.restart();
    await as(server.url, 'begin; insert into orders values (20); prepare transaction $$half$$'.replaceAll('$$', "'"));
    await expect(quiesceServer(server.url, 'run-2')).rejects.toMatchObject({
      kind: 'refused',
      message: expect.stringContaining('prepared'),
    });
    // Nothing was locked.
    await as(appUrl, 'insert into orders values (21)');
    await server.sql("rollback prepared 'half'");
  });

  it('says which rights are missing before anything is touched', async () => {
    expect(await quiesceRights(server.url)).toEqual([]);
    expect(await quiesceRights(appUrl)).toEqual([
      'GRANT ALTER SYSTEM ON PARAMETER default_transaction_read_only',
      'GRANT pg_signal_backend',
      'CREATEROLE, with ADMIN on the roles of the applications',
    ]);
    await expect(quiesceServer(appUrl, 'run-3')).rejects.toMatchObject({ name: 'DrError' });
  });
});

function lsn(value: bigint): string {
  return `${(value >> 32n).toString(16)}/${(value & 0xffffffffn).toString(16)}`;
}
