import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { S3Store } from '../../../src/vault/s3-store.ts';
import { startPostgres, type TestPostgres } from '../../harness/postgres.ts';
import { S3Server } from '../../harness/s3-server/server.ts';
import { compareWithServer, durableAt, until, type WalWorld, walEnd, walWorld } from './world.ts';

const segmentBytes = 2 * 1024 * 1024;
let server: TestPostgres;
let world: WalWorld;
let s3: S3Server;
let slow: S3Store;

beforeAll(async () => {
  server = await startPostgres({
    initdb: ['--wal-segsize=2'],
    settings: { wal_keep_size: '4GB', max_wal_size: '8GB' },
  });
  await server.sql('create table orders(id bigserial primary key, note text)');
});
afterAll(() => server.stop('immediate'));
beforeEach(async () => {
  world = await walWorld();
  s3 = await S3Server.start();
  const { endpoint, accessKeyId, secretAccessKey } = s3;
  slow = new S3Store({
    name: 'slow',
    region: 'eu-west-1',
    bucket: 'vault',
    prefix: 'dr',
    endpoint,
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
    // The pauses of a minute in three seconds: a twentieth.
    limits: { retryBaseMs: 12, retryMaxMs: 400, throttledMs: 9000, throttledPauseMs: 750 },
  });
});
afterEach(async () => {
  await world.close();
  await slow.close();
  await s3.stop();
});

test('WAL goes on into the other vault while one asks to slow down, and is in both without a hole afterwards', async () => {
  const archiver = world.archiver(server.replicationUrl, { stores: [slow, world.west], durable: 'all' });
  archiver.start();
  await until(archiver, ({ state }) => state === 'streaming');
  const from = await walEnd(server);
  const insert = 'insert into orders(note) select md5(i::text || clock_timestamp()) from generate_series(1, $1::int) i';
  await server.sql(insert, [100]);
  await durableAt(archiver, await walEnd(server));

  s3.requests.length = 0;
  const untilMs = Date.now() + 3000;
  const throttled = { kind: 'status', status: 503, code: 'SlowDown' } as const;
  s3.faults.add(throttled, { times: Number.POSITIVE_INFINITY, matches: () => Date.now() < untilMs });
  while (Date.now() < untilMs) {
    // More than a segment in all, so that pieces are replaced meanwhile.
    await server.sql(insert, [2000]);
    await durableAt(archiver, await walEnd(server), ['west']);
  }
  const asked = s3.requests.length;
  const end = await walEnd(server);
  await durableAt(archiver, end);
  expect(archiver.status()).toMatchObject({ state: 'streaming', gaps: [] });
  for (const store of [slow, world.west]) {
    expect(await compareWithServer(store, world.keyRing, server, from, end, { segmentBytes })).toBeGreaterThanOrEqual(
      2,
    );
  }
  // Backing off: some tens of requests in what stands for a minute, not as many as the store refuses a second.
  expect(asked).toBeGreaterThan(3);
  expect(asked).toBeLessThan(200);
});
