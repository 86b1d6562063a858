import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { during } from '../../../src/base/activity.ts';
import { parseLsn } from '../../../src/postgres/lsn.ts';
import { ManualClock } from '../../harness/manual-clock.ts';
import { startPostgres, type TestPostgres } from '../../harness/postgres.ts';
import { durableAt, until, walEnd, walWorld } from './world.ts';

/** As docs/performance.md gives it: PUT requests to each vault in an hour, segments of WAL not counted. */
const heartbeats = (flushSeconds: number) => 3600 / Math.max(flushSeconds, 5);
const pieces = (flushSeconds: number, busy: boolean) => (busy ? 3600 / flushSeconds : 0);
/** Manual time that the archiver is watched for. */
const WATCHED_SECONDS = 20;

let server: TestPostgres;
beforeAll(async () => {
  // Nothing but this test writes WAL.
  server = await startPostgres({
    settings: { autovacuum: 'off', checkpoint_timeout: '1h', wal_keep_size: '1GB', wal_sender_timeout: '1h' },
  });
  await server.sql('create table orders(id bigserial primary key, note text)');
});
afterAll(() => server.stop('immediate'));

test.each([
  { flushSeconds: 0.2, busy: true },
  { flushSeconds: 1, busy: true },
  { flushSeconds: 5, busy: true },
  { flushSeconds: 0.2, busy: false },
  { flushSeconds: 5, busy: false },
])('the archiver asks for what the formula says: flushEvery $flushSeconds s, busy: $busy', async (facts) => {
  const { flushSeconds, busy } = facts;
  const world = await walWorld();
  const clock = new ManualClock();
  try {
    const archiver = world.archiver(server.replicationUrl, {
      clock,
      flushEveryMs: flushSeconds * 1000,
      durable: 'any',
    });
    during('wal', () => archiver.start());
    await passTimeUntil(clock, () => archiver.status().state === 'streaming');
    await server.sql('insert into orders(note) values ($1)', ['first']);
    const first = await walEnd(server);
    await passTimeUntil(clock, () => received(archiver) >= first);
    await clock.advance(30_000);
    await durableAt(archiver, first);

    const before = usage(world);
    const written = await walEnd(server);
    const stepMs = 100;
    for (let ms = 0; ms < WATCHED_SECONDS * 1000; ms += stepMs) {
      if (busy) {
        await server.sql('insert into orders(note) values ($1)', [`at ${ms}`]);
        const end = await walEnd(server);
        await until(archiver, () => received(archiver) >= end);
      }
      await clock.advance(stepMs);
    }
    await clock.advance(0);
    // A snapshot of running transactions, which the server writes by itself every 15 s, is one piece.
    const byItself = !busy && (await walEnd(server)) !== written ? 1 : 0;
    const hours = WATCHED_SECONDS / 3600;
    const expected = (heartbeats(flushSeconds) + pieces(flushSeconds, busy)) * hours;
    for (const [vault, asked] of Object.entries(usage(world))) {
      const puts = asked.PUT - (before[vault]?.PUT ?? 0);
      // A flush or beat that falls on either edge may count or not.
      expect(Math.abs(puts - expected), `${vault}: ${puts} of ${expected}`).toBeLessThanOrEqual(2 + byItself);
      expect([asked.GET - (before[vault]?.GET ?? 0), asked.LIST - (before[vault]?.LIST ?? 0)], vault).toEqual([0, 0]);
    }
  } finally {
    await world.close();
  }
});

test('the table in the documentation is what the formula gives', () => {
  const text = readFileSync(join(import.meta.dirname, '../../../docs/performance.md'), 'utf8');
  const perMillion = 5;
  const rows = [...text.matchAll(/^\| `(\d+m?s)` \| ([\d,]+) \| ([\d,]+) \| \$([\d.,]+) \| \$([\d.,]+) \|$/gm)];
  expect(rows.map(([, flush]) => flush)).toEqual(['200ms', '1s', '5s', '30s', '60s']);
  for (const [line, flush = '', idle, busy, idleCost, busyCost] of rows) {
    const seconds = flush.endsWith('ms') ? Number.parseInt(flush, 10) / 1000 : Number.parseInt(flush, 10);
    const idlePuts = heartbeats(seconds);
    const busyPuts = idlePuts + pieces(seconds, true);
    // Two vaults, 730 hours.
    const cost = (puts: number) => ((puts * 730 * 2 * perMillion) / 1e6).toFixed(2);
    expect(number(idle), line).toBe(idlePuts);
    expect(number(busy), line).toBe(busyPuts);
    expect([number(idleCost).toFixed(2), number(busyCost).toFixed(2)], line).toEqual([cost(idlePuts), cost(busyPuts)]);
  }
});

function number(text = ''): number {
  return Number(text.replaceAll(',', ''));
}

type World = Awaited<ReturnType<typeof walWorld>>;

function usage(world: World): Record<string, { PUT: number; GET: number; LIST: number }> {
  return Object.fromEntries(
    world.stores.map(({ name, stats }) => {
      const { PUT = 0, GET = 0, LIST = 0 } = stats.byActivity.get('wal')?.requests ?? {};
      return [name, { PUT, GET, LIST }];
    }),
  );
}

function received(archiver: ReturnType<World['archiver']>): bigint {
  return parseLsn(archiver.status().receivedLsn ?? '') ?? 0n;
}

/** Moves the clock on in small steps while the real server answers. */
async function passTimeUntil(clock: ManualClock, done: () => boolean): Promise<void> {
  const end = Date.now() + 20_000;
  while (!done()) {
    if (Date.now() > end) throw new Error('not reached');
    await clock.advance(20);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
