import { chownSync, rmSync, statfsSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { formatBytes, parseBytes } from '../src/base/units.ts';
import { type Column, renderTable } from '../src/report/table.ts';
import { serverUser } from '../test/harness/npm-postgres.ts';
import type { TestPostgres } from '../test/harness/postgres.ts';
import { startProcess } from '../test/harness/process.ts';
import { tempDir } from '../test/harness/temp.ts';
import { requirePackage, startCluster } from './cluster.ts';
import {
  type Contestant,
  drOf,
  PROCESSES,
  peerHome,
  peerOf,
  peerSettings,
  preparePeer,
  writePeerConfig,
} from './contestants.ts';
import { databaseDigests } from './digests.ts';
import { type Command, type Cost, endedChildrenCpuSeconds, measure, median, run } from './measure.ts';

const help = `The next backup after 1 % of the rows has changed: dr beside pgBackRest's incremental, same machine, same run.

  node bench/incremental.ts [--size 2g] [--rounds 5]

  --size      size of each of the two databases (default 2g); needs about six times that in ${tmpdir()}
  --rounds    measured rounds, each with both kinds of change; the order of the contestants rotates (default 5, after one that only
              warms up)

Two servers get the same content and the same changes: PostgreSQL 15 (dr compares all blocks of a full stream; pgBackRest copies the
files that changed) and PostgreSQL 17 with summarize_wal (dr gets the changed blocks). The packaged pgBackRest 2.45 knows neither
PostgreSQL 17 nor block incremental on it, so its run on 15 is what both are compared with. The WAL of the changes is archived before the
clock starts, by archive_command for the one and by the daemon for the other, as it is where they are used.`;

const PEER = 'pgBackRest incremental';
/** How long archiving the WAL of a change may take, milliseconds. */
const ARCHIVED_WITHIN_MS = 180_000;

type Change = 'clustered' | 'scattered';
interface Sample extends Cost {
  readonly change: Change;
  readonly contestant: string;
  /** What the repository grew by, WAL left out. */
  readonly storedBytes: number;
  readonly serverCpuSeconds: number;
}
interface Runner {
  readonly contestant: Contestant;
  readonly server: TestPostgres;
  /** Where its backups lie, WAL left out. */
  readonly folders: readonly string[];
}

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '2g' },
    rounds: { type: 'string', default: '5' },
    help: { type: 'boolean', default: false },
  },
});
const sizeBytes = parseBytes(values.size);
const rounds = Number(values.rounds);
if (values.help || sizeBytes === undefined || !(rounds >= 1)) {
  console.log(help);
  process.exit(values.help ? 0 : 2);
}
const free = statfsSync(tmpdir());
if (free.bavail * free.bsize < 6 * sizeBytes) {
  throw new Error(
    `${tmpdir()} has ${formatBytes(free.bavail * free.bsize)} free, ${formatBytes(6 * sizeBytes)} needed`,
  );
}
process.umask(0o022);

await requirePackage('/usr/bin/pgbackrest', 'pgbackrest');
const peer = await peerHome();
console.error(`building two clusters of ${formatBytes(sizeBytes)} …`);
const old = await startCluster(sizeBytes, peerSettings(peer));
const summarizing = await startCluster(sizeBytes, { summarize_wal: 'on' }, 17);
try {
  await writePeerConfig(peer, old);
  const peerVersion = await preparePeer(peer);
  const checkout = join(import.meta.dirname, '..');
  const drFolders = (vault: string) => ['parts', 'indexes', 'manifests', 'keys'].map((name) => join(vault, name));
  const runnerOf = (contestant: Contestant, server: TestPostgres): Runner => ({
    contestant,
    server,
    folders: contestant.name === PEER ? [join(contestant.repository, 'backup')] : drFolders(contestant.repository),
  });
  // The daemon archives; base backups are taken by hand.
  const archiving = (url: string) => ({ databases: { orders: { url, schedule: 'every 7 days' } } });
  const dr15 = await drOf(checkout, 'dr on 15, compared', old, archiving(old.url));
  const dr17 = await drOf(checkout, 'dr on 17, summaries', summarizing, archiving(summarizing.url));
  const runners = [
    runnerOf({ ...(await peerOf(peer, false, 'incr')), name: PEER }, old),
    runnerOf(dr15, old),
    runnerOf(dr17, summarizing),
  ];
  // First backups are full ones: not what is measured here.
  for (const { contestant } of runners) await run(contestant.backup());
  await using _daemon15 = start(dr15.daemon());
  await using _daemon17 = start(dr17.daemon());
  const samples = await playRounds(runners);
  const [size] = await old.sql<{ bytes: string }>('select sum(pg_database_size(oid)) as bytes from pg_database');
  print(samples, runners, Number(size?.bytes ?? 0), peerVersion);
  for (const runner of runners) await verify(runner);
  console.log("\nThe newest backup of each restored: every file equal to the server's.");
} finally {
  await old.stop('immediate');
  await summarizing.stop('immediate');
}

function start({ program, args, env }: Command) {
  return startProcess(program, args, { env: { ...process.env, ...env } });
}

/** Interleaved, so that what else happens on the machine meets all alike; the order rotates. */
async function playRounds(all: readonly Runner[]): Promise<Sample[]> {
  const samples: Sample[] = [];
  for (let round = 0; round <= rounds; round++) {
    for (const change of ['clustered', 'scattered'] as const) {
      for (const server of [old, summarizing]) await makeChange(server, change, round);
      for (let turn = 0; turn < all.length; turn++) {
        const runner = all[(round + turn) % all.length];
        if (!runner) continue;
        const sample = await play(runner, change);
        console.error(
          `round ${round === 0 ? '0 (warm-up)' : round}: ${change}: ${sample.contestant} ${sample.seconds.toFixed(2)} s, CPU ${sample.cpuSeconds.toFixed(2)} s, ${formatBytes(sample.storedBytes)}`,
        );
        if (round > 0) samples.push(sample);
      }
    }
  }
  return samples;
}

/** Changes 1 % of the rows of the largest table: neighbours, or every hundredth one, which is in almost half of its pages. */
async function makeChange(server: TestPostgres, change: Change, round: number): Promise<void> {
  const [table] = await server.sql<{ rows: number }>('select max(aid) as rows from pgbench_accounts');
  const rows = table?.rows ?? 0;
  const from = Math.floor((rows * ((round * 17) % 90)) / 100);
  // Not an arithmetic sequence: pages would get exactly as many each.
  const where =
    change === 'clustered'
      ? `aid > ${from} and aid <= ${from + Math.floor(rows / 100)}`
      : `hashint4(aid # ${round + 1}) % 100 = 0`;
  await server.sql(`update pgbench_accounts set abalance = abalance + 1 where ${where}`);
  await server.sql('checkpoint');
  for (const began = performance.now(); ; ) {
    const [archive] = await server.sql<{ left: string; all: boolean | null }>(
      `select (select count(*) from pg_ls_archive_statusdir() where name like '%.ready') as left,
        (select bool_and(flush_lsn >= pg_current_wal_flush_lsn()) from pg_stat_replication) as all`,
    );
    if (archive?.all === true && Number(archive.left) === 0) return;
    if (performance.now() - began > ARCHIVED_WITHIN_MS) {
      throw new Error(
        `${server.url}: after ${ARCHIVED_WITHIN_MS / 1000} s the WAL is not archived (${archive?.left} segments wait for archive_command; in all vaults of the daemon: ${archive?.all}): read the server's log, and run "dr daemon" by hand`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

async function play({ contestant, server, folders }: Runner, change: Change): Promise<Sample> {
  await run({ program: 'sync', args: ['-f', contestant.repository] });
  const bytesBefore = await bytesBelow(folders);
  const cpuBefore = endedChildrenCpuSeconds(server.pid() ?? 0);
  const cost = await measure(contestant.backup(), contestant.repository);
  const serverCpuSeconds = endedChildrenCpuSeconds(server.pid() ?? 0) - cpuBefore;
  const storedBytes = (await bytesBelow(folders)) - bytesBefore;
  return { ...cost, change, contestant: contestant.name, serverCpuSeconds, storedBytes };
}

async function bytesBelow(folders: readonly string[]): Promise<number> {
  let bytes = 0;
  for (const folder of folders) {
    const entries = await readdir(folder, { recursive: true, withFileTypes: true });
    for (const entry of entries) {
      if (entry.isFile()) bytes += (await stat(join(entry.parentPath, entry.name))).size;
    }
  }
  return bytes;
}

function print(samples: readonly Sample[], all: readonly Runner[], bytes: number, peerVersion: string): void {
  interface Row {
    readonly change: Change;
    readonly contestant: string;
    readonly own: readonly Sample[];
    readonly time: number;
    readonly stored: number;
  }
  const rows = (['clustered', 'scattered'] as const).flatMap((change) =>
    all.map(({ contestant: { name } }): Row => {
      const of = (contestant: string) => samples.filter((s) => s.change === change && s.contestant === contestant);
      const own = of(name);
      const peers = of(PEER);
      // Round by round: both of a pair met the same load.
      const ratio = (value: (sample: Sample) => number) =>
        median(own.map((sample, round) => value(sample) / (peers[round] ? value(peers[round]) : Number.NaN)));
      return { change, contestant: name, own, time: ratio((s) => s.seconds), stored: ratio((s) => s.storedBytes) };
    }),
  );
  const middle = (row: Row, value: (sample: Sample) => number) => median(row.own.map(value));
  const columns: Array<Column<Row>> = [
    { title: 'CHANGED 1 %', value: ({ change }) => change },
    { title: 'PROGRAM', value: ({ contestant }) => contestant },
    { title: 'MEDIAN', value: (row) => `${middle(row, (s) => s.seconds).toFixed(2)} s`, align: 'right' },
    { title: 'MIN', value: ({ own }) => Math.min(...own.map((s) => s.seconds)).toFixed(2), align: 'right' },
    { title: 'MAX', value: ({ own }) => Math.max(...own.map((s) => s.seconds)).toFixed(2), align: 'right' },
    { title: 'TIME RATIO', value: ({ time }) => time.toFixed(2), align: 'right' },
    { title: 'STORED', value: (row) => formatBytes(middle(row, (s) => s.storedBytes)), align: 'right' },
    { title: 'BYTES RATIO', value: ({ stored }) => stored.toFixed(2), align: 'right' },
    { title: 'CPU', value: (row) => `${middle(row, (s) => s.cpuSeconds).toFixed(1)} s`, align: 'right' },
    { title: 'SERVER CPU', value: (row) => `${middle(row, (s) => s.serverCpuSeconds).toFixed(1)} s`, align: 'right' },
    {
      title: 'PEAK MEMORY',
      value: ({ own }) => `${(Math.max(...own.map((s) => s.peakBytes)) / 1e6).toFixed(0)} MB`,
      align: 'right',
    },
  ];
  console.log(
    [
      `${(bytes / 1e9).toFixed(2)} GB each on PostgreSQL 15 of Debian and 17 of npm; ${peerVersion} on 15 (it does not know 17); zstd 3, encrypted, ${PROCESSES} workers; warm page cache;`,
      `${rounds} rounds after one to warm up, order rotated; every run ends with everything fsynced; ratio = median of own value / pgBackRest's of the same round; WAL is in no number of bytes.`,
      `${availableParallelism()} cores (${cpus()[0]?.model.trim() ?? 'unknown'}), load average ${loadavg()
        .map((load) => load.toFixed(1))
        .join(' ')}`,
      '',
      renderTable(columns, rows),
    ].join('\n'),
  );
}

/** Restores the newest backup and compares every file of the databases with the server's own. */
async function verify({ contestant, server }: Runner): Promise<void> {
  const target = await tempDir('verified');
  chownSync(target, serverUser?.uid ?? -1, serverUser?.gid ?? -1);
  await run(contestant.restore(target));
  const actual = await databaseDigests(target);
  for (const [path, digest] of await databaseDigests(server.dataDirectory)) {
    if (actual.get(path) !== digest) throw new Error(`${contestant.name}: base/${path} was not restored as it was`);
  }
  for (const path of [target, `${target}.dr-restored`]) rmSync(path, { recursive: true, force: true });
}
