import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type CheckOptions, checkCluster } from '../../src/postgres/checks.ts';
import { startPostgres, type TestPostgres } from '../harness/postgres.ts';

let server: TestPostgres;
beforeAll(async () => {
  server = await startPostgres({ version: 17 });
  await server.sql('create database shop');
  await server.sql('create table orders as select g as id from generate_series(1, 5000) g', [], 'shop');
  await server.sql('create index orders_id on orders (id)', [], 'shop');
  await server.sql(
    'create table broken as select g as id, repeat(chr(65 + g % 26), 50) as x from generate_series(1, 5000) g',
    [],
    'shop',
  );
  await server.sql('create index broken_id on broken (id)', [], 'shop');
});
afterAll(async () => {
  await server.stop('immediate');
});

function options(changes: Partial<CheckOptions>): CheckOptions {
  const urlFor = (name: string) => server.url.replace(/postgres$/, name);
  return { urlFor, database: 'shop', amcheck: 'none', mayCreateExtension: true, sql: [], ...changes };
}

test('a sound cluster passes every check and says what it saw', async () => {
  const results = await checkCluster(
    options({ amcheck: 'all', sql: ['select count(*) > 0 from orders', 'select count(*) from orders'] }),
  );
  expect(results.filter((result) => !result.ok)).toEqual([]);
  expect(results.map((result) => result.what)).toEqual([
    'list of databases',
    'database shop',
    'amcheck shop',
    'database postgres',
    'amcheck postgres',
    'database template1',
    'amcheck template1',
    'select count(*) > 0 from orders',
    'select count(*) from orders',
    'data checksums',
  ]);
  expect(results[1]?.detail).toMatch(/^2 tables, about \d+ rows, .*MiB$/);
  expect(results[2]?.detail).toMatch(/^\d+ tables and \d+ indexes are sound/);
  expect(results.at(-1)?.detail).toBe('no failure');
});

test.each([
  ['select count(*) > 9000 from orders', 'it returned false'],
  ['select 0', 'it returned 0'],
  ['select null', 'it returned null'],
  ['select 1 where false', 'it returned no row'],
  ['select nothing from orders', 'column "nothing" does not exist'],
  ['delete from orders returning true', 'cannot execute DELETE in a read-only transaction'],
])('the check "%s" fails: %s', async (statement, detail) => {
  const results = await checkCluster(options({ sql: [statement] }));
  expect(results.filter((result) => !result.ok)).toEqual([
    { ok: false, what: statement, ms: expect.any(Number), detail },
  ]);
});

test('a database that is not there is a failed check', async () => {
  const results = await checkCluster(options({ database: 'lost' }));
  expect(results[0]).toMatchObject({ ok: false, detail: 'there is no database "lost"' });
});

test('without leave to create it, amcheck is reported as not done', async () => {
  await server.sql('drop extension if exists amcheck', [], 'shop');
  const results = await checkCluster(options({ amcheck: 'sample', mayCreateExtension: false }));
  expect(results.find((result) => result.what === 'amcheck shop')?.detail).toMatch(
    /^not done: .*create extension amcheck/,
  );
});

test('a damaged table and a damaged index are named, and the failed checksum is counted', async () => {
  const files: string[] = [];
  for (const name of ['broken', 'broken_id']) {
    const [row] = await server.sql<{ path: string }>('select pg_relation_filepath($1) as path', [name], 'shop');
    files.push(join(server.dataDirectory, row?.path ?? ''));
  }
  await server.stop();
  for (const path of files) {
    const file = openSync(path, 'r+');
    writeSync(file, Buffer.from('rotten bytes'), 0, 12, 3 * 8192 + 4000);
    closeSync(file);
  }
  await server.start();
  const results = await checkCluster(options({ amcheck: 'all', sql: ['select true'] }));
  const bad = Object.fromEntries(results.filter((result) => !result.ok).map((result) => [result.what, result.detail]));
  expect(Object.keys(bad).sort()).toEqual(['amcheck shop', 'data checksums']);
  expect(bad['amcheck shop']).toMatch(/broken: .*invalid page in block 3/);
  expect(bad['amcheck shop']).toMatch(/broken_id: .*invalid page in block 3/);
  expect(bad['data checksums']).toMatch(/\d+ failures in shop/);
});
