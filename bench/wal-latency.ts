import { existsSync, readdirSync, watch } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { contiguousEnd, minLsn, parseWalKey, rangeOfName, type WalRange } from '../src/backup/wal/names.ts';
import { type Lsn, parseLsn, parseSegmentName } from '../src/postgres/lsn.ts';
import { type Column, renderTable } from '../src/report/table.ts';
import type { TestPostgres } from '../test/harness/postgres.ts';
import { nodeBinary, startProcess } from '../test/harness/process.ts';
import { requirePackage, startCluster } from './cluster.ts';
import { drHome, peerHome, peerSettings, preparePeer, startOfDr, writePeerConfig } from './contestants.ts';
import { cpuSeconds, highWaterBytes, percentile } from './measure.ts';

const help = `From commit to durable: how long after a commit returned its WAL is in both vaults (dr) or the repository (pgBackRest).

  node bench/wal-latency.ts [--flush 200ms,1s,5s] [--seconds 60] [--tps 20] [--peer-seconds 185]

  --flush         values of flushEvery, one run each
  --seconds       length of each run of dr (default 60)
  --tps           commits a second, at random moments (default 20)
  --peer-seconds  length of the run of pgBackRest with archive_timeout 60; 0 = without it (default 185)`;

const SEGMENT_BYTES = 16 * 1024 * 1024;
const CLUSTER_BYTES = 64 * 1024 * 1024;

interface Commit {
  readonly lsn: Lsn;
  /** When the commit had returned, performance.now(). */
  readonly atMs: number;
}

/** From this moment on the store held all WAL up to `end`. */
interface Mark {
  readonly end: Lsn;
  readonly atMs: number;
}

interface Result {
  readonly name: string;
  readonly flushMs: number;
  readonly latenciesMs: readonly number[];
  readonly peakBytes: number;
  readonly cpuShare: number;
}

const { values } = parseArgs({
  options: {
    flush: { type: 'string', default: '200ms,1s,5s' },
    seconds: { type: 'string', default: '60' },
    tps: { type: 'string', default: '20' },
    'peer-seconds': { type: 'string', default: '185' },
    help: { type: 'boolean', default: false },
  },
});
const [seconds, tps, peerSeconds] = [Number(values.seconds), Number(values.tps), Number(values['peer-seconds'])];
if (values.help || !(seconds > 0) || !(tps > 0) || !(peerSeconds >= 0)) {
  console.log(help);
  process.exit(values.help ? 0 : 2);
}
process.umask(0o022);

const results: Result[] = [];
for (const flush of values.flush.split(',')) results.push(await measureDr(flush));
if (peerSeconds > 0) results.push(await measurePeer());
print();

/** The real daemon with two file vaults, watched from outside: only what has a name in a vault counts. */
async function measureDr(flushEvery: string): Promise<Result> {
  await using server = await startCluster(CLUSTER_BYTES, {});
  const home = await drHome(server, ['east', 'west'], {
    databases: { orders: { url: server.url, wal: { flushEvery } } },
  });
  const start = startOfDr(join(import.meta.dirname, '..'));
  const env = { ...process.env, ...start.env, DR_IDENTITY_FILE: home.identityFile };
  await using daemon = startProcess(nodeBinary, [...start.args, 'daemon', '--config', home.config], { env });
  const vaults = [...home.vaults.values()];
  // Its first base backup is not what is measured here.
  await until(`a first backup by the daemon`, daemon.ended, () =>
    vaults.every((vault) => existsSync(join(vault, 'manifests/orders')) && walFolder(vault) !== undefined),
  );
  const marks = vaults.map((): Mark[] => []);
  const watchers = vaults.map((vault, i) => watchWal(walFolder(vault) ?? '', marks[i] ?? []));
  const cpuBefore = cpuSeconds(daemon.pid);
  const began = performance.now();
  const commits = await writeCommits(server, seconds);
  await until('the last commit to be durable', daemon.ended, () => durableAt(commits.at(-1), marks) !== undefined);
  const cpuShare = (cpuSeconds(daemon.pid) - cpuBefore) / ((performance.now() - began) / 1000);
  const peakBytes = highWaterBytes(daemon.pid);
  for (const watcher of watchers) watcher.close();
  await daemon.stop();
  const flushMs = { ms: 1, s: 1000 }[/m?s$/.exec(flushEvery)?.[0] ?? ''] ?? Number.NaN;
  const name = `dr, flushEvery ${flushEvery}, two vaults`;
  const latenciesMs = latencies(commits, marks);
  return { name, flushMs: flushMs * Number.parseFloat(flushEvery), latenciesMs, peakBytes, cpuShare };
}

async function measurePeer(): Promise<Result> {
  await requirePackage('/usr/bin/pgbackrest', 'pgbackrest');
  const peer = await peerHome();
  await using server = await startCluster(CLUSTER_BYTES, peerSettings(peer, 60));
  await writePeerConfig(peer, server);
  await preparePeer(peer);
  const marks: Mark[] = [];
  const archive = join(peer.repository, 'archive');
  const seen = new Set<string>();
  const look = () => {
    for (const path of readdirSync(archive, { recursive: true, encoding: 'utf8' })) {
      const segment = /^([0-9A-F]{24})-[0-9a-f]{40}\.zst$/.exec(basename(path))?.[1];
      const parsed = segment === undefined ? undefined : parseSegmentName(segment, SEGMENT_BYTES);
      if (!parsed || seen.has(path)) continue;
      seen.add(path);
      marks.push({ end: parsed.start + BigInt(SEGMENT_BYTES), atMs: performance.now() });
    }
  };
  const timer = setInterval(look, 20);
  try {
    const commits = await writeCommits(server, peerSeconds);
    await until('the last commit to be archived', undefined, () => durableAt(commits.at(-1), [marks]) !== undefined);
    const name = 'pgBackRest archive-push, archive_timeout 60';
    return { name, flushMs: 60_000, latenciesMs: latencies(commits, [marks]), peakBytes: 0, cpuShare: 0 };
  } finally {
    clearInterval(timer);
  }
}

/** Small commits at random moments: regular ones could fall into step with a timer. */
async function writeCommits(server: TestPostgres, forSeconds: number): Promise<Commit[]> {
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  try {
    await client.query('create table if not exists written (id bigserial primary key, note text)');
    const commits: Commit[] = [];
    const end = performance.now() + forSeconds * 1000;
    for (let next = performance.now(); next < end; next += (-Math.log(1 - Math.random()) * 1000) / tps) {
      await sleep(Math.max(0, next - performance.now()));
      await client.query('insert into written (note) values (repeat(md5(random()::text), 8))');
      const atMs = performance.now();
      const { rows } = await client.query<{ lsn: string }>('select pg_current_wal_insert_lsn()::text as lsn');
      commits.push({ lsn: parseLsn(rows[0]?.lsn ?? '') ?? 0n, atMs });
    }
    return commits;
  } finally {
    await client.end();
  }
}

/** The folder of the only timeline in a vault, once it is there. */
function walFolder(vault: string): string | undefined {
  const wal = join(vault, 'wal');
  const system = existsSync(wal) ? readdirSync(wal).find((name) => /^\d+$/.test(name)) : undefined;
  const folder = system === undefined ? undefined : join(wal, system, '00000001');
  return folder !== undefined && existsSync(folder) ? folder : undefined;
}

/** Notes the end of gapless WAL whenever an object gets its name (it is synced before). */
function watchWal(folder: string, marks: Mark[]): ReturnType<typeof watch> {
  const ranges: WalRange[] = [];
  const add = (name: string) => {
    const parsed = parseWalKey(`wal/${basename(join(folder, '..'))}/00000001/${name}`);
    if (parsed && parsed.kind !== 'history') ranges.push(rangeOfName(parsed, SEGMENT_BYTES));
  };
  for (const name of readdirSync(folder)) add(name);
  const base = ranges.reduce((least, { start }) => minLsn(start, least), ranges[0]?.start ?? 0n);
  return watch(folder, (_event, name) => {
    if (name === null) return;
    const atMs = performance.now();
    add(name);
    const end = contiguousEnd(ranges, base);
    if (end > (marks.at(-1)?.end ?? 0n)) marks.push({ end, atMs });
  });
}

/** When the last of the stores had the commit. */
function durableAt(commit: Commit | undefined, stores: ReadonlyArray<readonly Mark[]>): number | undefined {
  if (!commit) return undefined;
  const times = stores.map((marks) => marks.find(({ end }) => end >= commit.lsn)?.atMs);
  return times.some((time) => time === undefined) ? undefined : Math.max(...times.map((time) => time ?? 0));
}

function latencies(commits: readonly Commit[], stores: ReadonlyArray<readonly Mark[]>): number[] {
  return commits.map((commit) => Math.max(0, (durableAt(commit, stores) ?? Number.POSITIVE_INFINITY) - commit.atMs));
}

async function until(what: string, ended: Promise<{ stderr: string }> | undefined, condition: () => boolean) {
  let failure: string | undefined;
  void ended?.then(({ stderr }) => {
    failure = stderr;
  });
  for (const start = performance.now(); !condition(); ) {
    if (failure !== undefined) throw new Error(`the daemon ended while waiting for ${what}:\n${failure}`);
    if (performance.now() - start > 180_000) throw new Error(`waited 3 minutes for ${what}`);
    await sleep(20);
  }
}

function print(): void {
  const ms = (value: number) => (value < 10_000 ? `${value.toFixed(0)} ms` : `${(value / 1000).toFixed(1)} s`);
  const columns: Array<Column<Result>> = [
    { title: 'ARCHIVER', value: ({ name }) => name },
    { title: 'COMMITS', value: ({ latenciesMs }) => String(latenciesMs.length), align: 'right' },
    { title: 'P50', value: ({ latenciesMs }) => ms(percentile(latenciesMs, 0.5)), align: 'right' },
    { title: 'P99', value: ({ latenciesMs }) => ms(percentile(latenciesMs, 0.99)), align: 'right' },
    { title: 'MAX', value: ({ latenciesMs }) => ms(Math.max(...latenciesMs)), align: 'right' },
    {
      title: 'P99 - INTERVAL',
      value: ({ latenciesMs, flushMs }) => ms(percentile(latenciesMs, 0.99) - flushMs),
      align: 'right',
    },
    {
      title: 'PEAK MEMORY',
      value: ({ peakBytes }) => (peakBytes === 0 ? '-' : `${(peakBytes / 1e6).toFixed(0)} MB`),
      align: 'right',
    },
    {
      title: 'CPU',
      value: ({ peakBytes, cpuShare }) => (peakBytes === 0 ? '-' : `${(100 * cpuShare).toFixed(1)} %`),
      align: 'right',
    },
  ];
  console.log(
    `Commit to durable at ${tps} commits/s, PostgreSQL 15, real daemon (memory includes its first base backup)\n`,
  );
  console.log(renderTable(columns, results));
}
