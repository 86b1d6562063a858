import { randomInt } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { listBackups, listResources } from '../../src/backup/catalog.ts';
import type { Manifest } from '../../src/backup/manifest.ts';
import { readBackup } from '../../src/backup/restore.ts';
import { applyRetention } from '../../src/backup/retention/collect.ts';
import type { RetentionPolicy } from '../../src/backup/retention/retention.ts';
import { walCoverage } from '../../src/backup/wal/coverage.ts';
import { systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { parseLsn } from '../../src/postgres/lsn.ts';
import { KeyRing } from '../../src/vault/keys.ts';
import { SealPool } from '../../src/vault/seal-pool.ts';
import type { ObjectStore } from '../../src/vault/store.ts';
import { startPostgres, type TestPostgres } from '../harness/postgres.ts';
import { type DaemonTestWorld, daemonWorld, haveSucceeded } from './world.ts';

const rounds = Number(process.env['DR_TEST_KILLS'] ?? 15);
const seed = Number(process.env['DR_TEST_SEED'] ?? randomInt(1_000_000));

/** Numbers between 0 and 1, the same for the same seed (mulberry32). */
function randomFrom(start: number): () => number {
  let state = start;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

let server: TestPostgres;
let pool: SealPool;
beforeAll(async () => {
  server = await startPostgres({ initdb: ['--wal-segsize=4'], settings: { max_wal_size: '2GB' } });
  pool = new SealPool(2);
});
afterAll(async () => {
  await pool.close();
  await server.stop('immediate');
});

/** Writes without pause until stopped; resolves to the number of the last committed row. */
function load(): { stop(): Promise<number> } {
  let stopped = false;
  const writing = (async () => {
    let last = 0;
    while (!stopped) {
      const [row] = await server.sql<{ id: string }>(
        'insert into orders(note) select repeat(md5(random()::text), 8) from generate_series(1, 500) returning id::text',
      );
      last = Number(row?.id ?? last);
    }
    return last;
  })();
  return {
    stop: async () => {
      stopped = true;
      return await writing;
    },
  };
}

async function committed(store: ObjectStore): Promise<Manifest[]> {
  const manifests: Manifest[] = [];
  for (const resource of await listResources(store)) {
    for (const { manifest, error } of await listBackups(store, resource)) {
      if (!manifest) throw error;
      manifests.push(manifest);
    }
  }
  return manifests;
}

/** Keys below a prefix that no manifest of the vault accounts for. */
async function unaccounted(store: ObjectStore): Promise<string[]> {
  const manifests = await committed(store);
  const known = new Set(manifests.flatMap(({ index, parts }) => [index.key, ...parts.map(({ key }) => key)]));
  const found: string[] = [];
  for (const prefix of ['parts/', 'indexes/']) {
    for await (const { key } of store.list(prefix)) if (!known.has(key)) found.push(key);
  }
  return found;
}

/** Every committed backup reads back whole, and from each base backup on the WAL has no gap up to `end`. */
async function checkVault(store: ObjectStore, world: DaemonTestWorld, end: bigint): Promise<number> {
  const keyRing = new KeyRing([world.identity]);
  const manifests = await committed(store);
  for (const manifest of manifests) {
    await readBackup({ store, manifest, keyRing, pool });
    if (!manifest.database) continue;
    const { systemId, timeline, startLsn } = manifest.database;
    const coverage = await walCoverage(store, systemId);
    const start = parseLsn(startLsn) ?? 0n;
    const range = coverage.timelines
      .find((each) => each.timeline === timeline)
      ?.ranges.find((each) => each.start <= start && each.end >= start);
    expect(range?.end, `${store.name}: WAL from ${startLsn} without a gap`).toBeGreaterThanOrEqual(end);
  }
  return manifests.length;
}

test(`the daemon killed ${rounds} times at random moments under load (DR_TEST_SEED=${seed}, DR_TEST_KILLS=${rounds}): nothing acknowledged is lost, every backup restores, no lease blocks, leftovers are cleared`, async () => {
  await server.sql('create table orders(id bigserial primary key, note text)');
  await server.sql('insert into orders(note) select repeat(md5(i::text), 8) from generate_series(1, 40000) i');
  const world = await daemonWorld(server);
  const random = randomFrom(seed);
  const writer = load();
  const logs: string[] = [];
  for (let round = 1; round <= rounds; round++) {
    writeFileSync(join(world.settings, 'app.conf'), `round = ${round}\n`);
    const daemon = await world.start();
    // Half of them while everything begins, half while everything is under way.
    const moment = new Promise((resolve) => setTimeout(resolve, random() * (round % 2 === 0 ? 600 : 2500)));
    await Promise.race([moment, daemon.process.ended]);
    const { signal, stderr } = await daemon.process.kill9();
    expect(signal, stderr).toBe('SIGKILL');
    logs.push(stderr);
  }
  await writer.stop();

  // The last one is left alone: it must be able to go on from whatever was left, and end cleanly.
  const daemon = await world.start();
  await daemon.until('all backups taken', (state) =>
    haveSucceeded(state, 'backup orders', 'backup uploads', 'backup settings'),
  );
  const [written] = await server.sql<{ lsn: string }>('select pg_current_wal_flush_lsn()::text as lsn');
  // A stop stores what was received; what the server has not sent by then waits in its slot.
  const received = 'select bool_and(restart_lsn >= $1::pg_lsn) as all from pg_replication_slots where active';
  await expect
    .poll(async () => (await server.sql<{ all: boolean }>(received, [written?.lsn]))[0]?.all, { timeout: 60_000 })
    .toBe(true);
  const { code, stderr } = await daemon.process.stop('SIGTERM');
  expect(code, stderr).toBe(0);
  logs.push(stderr);
  // A lease of a killed daemon is recognised as such at once.
  expect(logs.filter((log) => log.includes('another dr does this already'))).toEqual([]);

  const end = parseLsn(written?.lsn ?? '') ?? 0n;
  const stores = [world.vaults.east, world.vaults.west];
  for (const store of stores) expect(await checkVault(store, world, end)).toBeGreaterThanOrEqual(3);

  // What crashed backups left is cleared by retention once it is old enough; here everything is.
  const policies = new Map<string, RetentionPolicy>(
    (['orders', 'uploads', 'settings'] as const).map((name) => [
      name,
      {
        kind: name === 'orders' ? 'database' : name === 'uploads' ? 'data' : 'configuration',
        retentionMs: 30 * 86_400_000,
        keepAtLeast: 3,
      },
    ]),
  );
  const report = await applyRetention({ stores, policies, clock: systemClock, log: silentLog, graceMs: 0 });
  expect(report.vaults.map(({ blocked }) => blocked)).toEqual([undefined, undefined]);
  for (const store of stores) {
    expect(await unaccounted(store)).toEqual([]);
    await checkVault(store, world, end);
  }
});
