import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, cp, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { walCoverage } from '../../../src/backup/wal/coverage.ts';
import { planRecovery } from '../../../src/backup/wal/plan.ts';
import { fetchWalFile } from '../../../src/backup/wal/reader.ts';
import type { WalGap } from '../../../src/backup/wal/session.ts';
import { DrError } from '../../../src/base/errors.ts';
import { formatLsn, parseLsn } from '../../../src/postgres/lsn.ts';
import { own, startPostgres, type TestPostgres } from '../../harness/postgres.ts';
import { tempDir } from '../../harness/temp.ts';
import { databaseManifest } from './manifest.ts';
import { compareWithServer, durableAt, systemIdOf, until, type WalWorld, walEnd, walWorld } from './world.ts';

const MIB = 1024 * 1024;
let world: WalWorld;
const servers: TestPostgres[] = [];

beforeEach(async () => {
  world = await walWorld();
});
afterEach(async () => {
  await world.close();
  for (const server of servers.splice(0)) await server.stop('immediate');
});

async function newServer(options: Parameters<typeof startPostgres>[0] = {}): Promise<TestPostgres> {
  const settings = { wal_keep_size: '1GB', max_wal_size: '4GB', ...options.settings };
  const server = await startPostgres({ initdb: ['--wal-segsize=1'], ...options, settings });
  servers.push(server);
  return server;
}

/** A streaming standby of `primary`, made from a copy of its files. */
async function newStandby(primary: TestPostgres): Promise<TestPostgres> {
  const dataDirectory = join(await tempDir('standby'), 'data');
  await primary.stop();
  await cp(primary.dataDirectory, dataDirectory, { recursive: true });
  await promisify(execFile)('chmod', ['-R', 'u=rwX,go=', dataDirectory]);
  await primary.start();
  await rm(join(dataDirectory, 'postmaster.pid'), { force: true });
  await writeFile(join(dataDirectory, 'standby.signal'), '');
  const conninfo = `host=127.0.0.1 port=${primary.port} user=postgres`;
  await appendFile(join(dataDirectory, 'postgresql.conf'), `\nprimary_conninfo = '${conninfo}'\n`);
  own(join(dataDirectory, '..'));
  await chownAll(dataDirectory);
  const standby = await startPostgres({ version: primary.version, dataDirectory });
  servers.push(standby);
  return standby;
}

async function chownAll(directory: string): Promise<void> {
  if (process.getuid?.() !== 0) return;
  const { serverUser } = await import('../../harness/npm-postgres.ts');
  if (serverUser) await promisify(execFile)('chown', ['-R', `${serverUser.uid}:${serverUser.gid}`, directory]);
}

async function write(server: TestPostgres, rows: number): Promise<bigint> {
  await server.sql('create table if not exists orders(id bigserial primary key, note text)');
  await server.sql('insert into orders(note) select md5(i::text) from generate_series(1, $1::int) i', [rows]);
  return await walEnd(server);
}

async function replayed(standby: TestPostgres, lsn: bigint): Promise<void> {
  for (;;) {
    const [row] = await standby.sql<{ lsn: string }>('select pg_last_wal_replay_lsn()::text as lsn');
    if ((parseLsn(row?.lsn ?? '') ?? 0n) >= lsn) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

test('a standby that is archived and promoted: the new timeline follows without a hole', async () => {
  const primary = await newServer();
  const standby = await newStandby(primary);
  const archiver = world.archiver(standby.replicationUrl);
  archiver.start();
  await until(archiver, ({ state }) => state === 'streaming');
  const from = parseLsn(archiver.status().receivedLsn ?? '') ?? 0n;
  const before = await write(primary, 20_000);
  await replayed(standby, before);
  await primary.stop();
  await standby.promote();
  const end = await write(standby, 20_000);
  await until(archiver, ({ timeline }) => timeline === 2);
  await durableAt(archiver, end);
  const systemId = await systemIdOf(standby);
  const history = await readFile(join(standby.dataDirectory, 'pg_wal/00000002.history'));
  for (const store of world.stores) {
    const options = { segmentBytes: MIB, systemId };
    expect((await fetchWalFile(store, world.keyRing, systemId, '00000002.history'))?.equals(history)).toBe(true);
    const coverage = await walCoverage(store, systemId);
    const [fork] = coverage.timelines[1]?.ancestors ?? [];
    expect(fork?.timeline).toBe(1);
    const at = fork?.end ?? 0n;
    // Timeline 1 up to the fork byte for byte from the old primary, timeline 2 from the segment of the fork on.
    await compareWithServer(store, world.keyRing, { ...primaryFiles(primary) }, from, at, { ...options, timeline: 1 });
    await compareWithServer(store, world.keyRing, standby, at, end, { ...options, timeline: 2 });
    const manifest = databaseManifest({ systemId, timeline: 1, startLsn: from, endLsn: from, segmentBytes: MIB });
    const plan = planRecovery({ manifest, coverage, target: { kind: 'latest' } });
    expect(plan.timeline).toBe(2);
    expect(plan.endLsn).toBeGreaterThanOrEqual(end);
  }
});

/** A stopped server: only its files are looked at. */
function primaryFiles(server: TestPostgres): TestPostgres {
  return Object.assign(Object.create(server), { dataDirectory: server.dataDirectory });
}

test('a promotion that lost WAL which the archive has: the new line is followed, the old primary is refused', async () => {
  const primary = await newServer();
  const standby = await newStandby(primary);
  const first = world.archiver(primary.replicationUrl);
  first.start();
  await until(first, ({ state }) => state === 'streaming');
  await replayed(standby, await write(primary, 10));
  // The standby is cut off, and the primary writes on: this reaches only the archive.
  await standby.sql("alter system set primary_conninfo = ''");
  await standby.sql('select pg_reload_conf()');
  const lost = await write(primary, 30_000);
  await durableAt(first, lost);
  await first.stop({ drain: true });
  await standby.promote();
  const end = await write(standby, 10_000);
  const second = world.archiver(standby.replicationUrl);
  second.start();
  await until(second, ({ timeline }) => timeline === 2);
  await durableAt(second, end);
  const systemId = await systemIdOf(standby);
  const coverage = await walCoverage(world.west, systemId);
  const fork = coverage.timelines[1]?.ancestors?.[0]?.end ?? 0n;
  expect(fork).toBeLessThan(lost);
  expect(coverage.timelines[0]?.ranges.at(-1)?.end).toBeGreaterThanOrEqual(lost);
  await compareWithServer(world.west, world.keyRing, standby, fork, end, { segmentBytes: MIB, timeline: 2 });
  await second.stop({ drain: true });

  const old = world.archiver(primary.replicationUrl);
  old.start();
  const status = await until(old, ({ state }) => state === 'failed');
  expect(status.lastError).toMatch(/old primary/);
});

test('WAL that the server had to throw away is a gap that everybody can see', async () => {
  const server = await newServer({
    settings: { wal_keep_size: 0, max_slot_wal_keep_size: '2MB', min_wal_size: '2MB' },
  });
  const first = world.archiver(server.replicationUrl);
  first.start();
  await until(first, ({ state }) => state === 'streaming');
  // The archive ends exactly with a segment: what is then asked for first is also what the server last saw acknowledged.
  await write(server, 10);
  await server.sql('select pg_switch_wal()');
  const from = await walEnd(server);
  await durableAt(first, from);
  await first.stop({ drain: true });
  const systemId = await systemIdOf(server);
  const [before] = (await walCoverage(world.east, systemId)).timelines[0]?.ranges ?? [];
  for (let i = 0; i < 6; i++) {
    await write(server, 10_000);
    await server.sql('select pg_switch_wal()');
    await server.sql('checkpoint');
  }
  const gaps: WalGap[] = [];
  const second = world.archiver(server.replicationUrl, { onGap: (gap) => gaps.push(gap) });
  second.start();
  const status = await until(second, ({ state, gaps }) => gaps.length === 1 && state === 'streaming');
  expect(gaps).toHaveLength(1);
  expect(status.gaps[0]).toMatchObject({ timeline: 1, from: formatLsn(gaps[0]?.from ?? 0n) });
  const end = await write(server, 5000);
  await durableAt(second, end);
  const coverage = await walCoverage(world.east, systemId);
  const ranges = coverage.timelines[0]?.ranges ?? [];
  expect(ranges).toHaveLength(2);
  expect(ranges[0]?.end).toBe(before?.end);
  expect(ranges[1]?.start).toBe(gaps[0]?.to && gaps[0].to - (gaps[0].to % BigInt(MIB)));
  await compareWithServer(world.west, world.keyRing, server, ranges[1]?.start ?? 0n, end, { segmentBytes: MIB });
  const manifest = databaseManifest({ systemId, startLsn: ranges[0]?.start ?? 0n, endLsn: from, segmentBytes: MIB });
  const plan = planRecovery({ manifest, coverage, target: { kind: 'latest' } });
  expect(plan.endLsn).toBe(ranges[0]?.end);
  expect(() => planRecovery({ manifest, coverage, target: { kind: 'lsn', lsn: end } })).toThrow(/beyond the archive/);
});

test('a gap that leads to another timeline: the history of that timeline is archived too', async () => {
  const server = await newServer({ settings: { wal_keep_size: 0, min_wal_size: '2MB' } });
  const first = world.archiver(server.replicationUrl);
  first.start();
  await until(first, ({ state }) => state === 'streaming');
  await durableAt(first, await write(server, 10));
  await first.stop({ drain: true });
  // As a backup without a daemon does it.
  await server.sql("select pg_drop_replication_slot('dr')");
  await server.stop();
  const signal = join(server.dataDirectory, 'standby.signal');
  await writeFile(signal, '');
  own(signal);
  await server.start();
  await server.promote();
  for (let i = 0; i < 6; i++) {
    await write(server, 10_000);
    await server.sql('select pg_switch_wal()');
    await server.sql('checkpoint');
  }
  const second = world.archiver(server.replicationUrl);
  second.start();
  const { gaps } = await until(second, ({ state, gaps }) => gaps.length === 1 && state === 'streaming');
  expect(gaps[0]?.timeline).toBe(1);
  await durableAt(second, await write(server, 10));
  const history = await readFile(join(server.dataDirectory, 'pg_wal/00000002.history'));
  const systemId = await systemIdOf(server);
  for (const store of world.stores)
    expect((await fetchWalFile(store, world.keyRing, systemId, '00000002.history'))?.equals(history)).toBe(true);
});

test('large segments are archived in blocks, so memory does not grow with them', async () => {
  const server = await newServer({
    version: 15,
    initdb: ['--wal-segsize=64'],
    settings: { min_wal_size: '128MB' },
  });
  const archiver = world.archiver(server.replicationUrl, { memoryBytes: 48 * MIB });
  archiver.start();
  await until(archiver, ({ state }) => state === 'streaming');
  const from = await walEnd(server);
  const end = await write(server, 400_000);
  await durableAt(archiver, end);
  await compareWithServer(world.west, world.keyRing, server, from, end, { segmentBytes: 64 * MIB });
  const { timelines } = await walCoverage(world.west, await systemIdOf(server));
  expect(timelines[0]?.ranges).toHaveLength(1);
});

test('another system behind the same address is refused, and a broken network is not the end', async () => {
  const [one, two] = [await newServer(), await newServer({ version: 18 })];
  let port = one.port;
  const sockets = new Set<ReturnType<typeof connect>>();
  const proxy = createServer((client) => {
    const upstream = connect(port, '127.0.0.1');
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket
        .on('error', () => {})
        .on('close', () => {
          sockets.delete(socket);
          client.destroy();
          upstream.destroy();
        });
    }
    client.pipe(upstream).pipe(client);
  }).listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const url = one.replicationUrl.replace(String(one.port), String((proxy.address() as AddressInfo).port));
  let fatal: DrError | undefined;
  const archiver = world.archiver(url, {
    onFatal: (error) => {
      fatal = error;
    },
  });
  try {
    archiver.start();
    await until(archiver, ({ state }) => state === 'streaming');
    const from = await write(one, 10);
    for (let i = 0; i < 3; i++) {
      for (const socket of sockets) socket.destroy();
      const end = await write(one, 3000);
      await durableAt(archiver, end);
      await compareWithServer(world.east, world.keyRing, one, from, end, { segmentBytes: MIB });
    }
    port = two.port;
    for (const socket of sockets) socket.destroy();
    await until(archiver, ({ state }) => state === 'failed');
    expect(fatal).toBeInstanceOf(DrError);
    expect(fatal).toMatchObject({ kind: 'conflict' });
    expect(fatal?.message).toContain(await systemIdOf(two));
  } finally {
    await archiver.stop({ drain: false });
    for (const socket of sockets) socket.destroy();
    proxy.close();
  }
});
