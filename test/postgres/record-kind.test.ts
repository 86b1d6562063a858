import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Lsn, parseLsn, segmentName, segmentStart } from '../../src/postgres/lsn.ts';
import { recordKind } from '../../src/postgres/recovery-target.ts';
import { startPostgres, type TestPostgres } from '../harness/postgres.ts';

const sizes = { pageBytes: 8192, segmentBytes: 16 * 1024 * 1024 };
let server: TestPostgres;

beforeAll(async () => {
  server = await startPostgres({ version: 17 });
});
afterAll(async () => await server[Symbol.asyncDispose]());

it('what follows a position is told apart: a change of settings, which pauses a standby, from all else', async () => {
  await server.sql('create extension pg_walinspect');
  const [begin] = await server.sql<{ lsn: string }>('select pg_current_wal_insert_lsn()::text as lsn');
  // Records of many sizes, so that headers of pages cut some of them anywhere.
  await server.sql(`create table t as select n, repeat('x', n % 900) as text from generate_series(1, 3000) n`);
  await server.sql('alter system set max_connections = 37');
  await server.restart();
  await server.sql('insert into t values (0, null)');
  const records = await server.sql<{ before: string; kind: string }>(
    `select lag(end_lsn) over (order by start_lsn)::text as before, resource_manager || ' ' || record_type as kind
     from pg_get_wal_records_info($1, pg_current_wal_flush_lsn())`,
    [begin?.lsn],
  );
  const segments = new Map<string, Promise<Buffer>>();
  const read = async (at: Lsn) => {
    const name = segmentName(1, segmentStart(at, sizes.segmentBytes), sizes.segmentBytes);
    const segment = segments.get(name) ?? readFile(join(server.dataDirectory, 'pg_wal', name));
    segments.set(name, segment);
    return (await segment).readUInt32LE(Number(at % BigInt(sizes.segmentBytes)));
  };
  const changes: string[] = [];
  let others = 0;
  for (const { before, kind } of records) {
    if (before === null) continue;
    const found = await recordKind(parseLsn(before) ?? 0n, sizes, read);
    if (found === 'parameter-change') changes.push(kind);
    else others += found === 'other' ? 1 : 0;
  }
  expect(changes).toEqual(['XLOG PARAMETER_CHANGE']);
  expect(others).toBe(records.length - 2);
  expect(others).toBeGreaterThan(3000);
});
