import { chownSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { formatBytes, parseBytes } from '../src/base/units.ts';
import { type Column, renderTable } from '../src/report/table.ts';
import { serverUser } from '../test/harness/npm-postgres.ts';
import type { TestPostgres } from '../test/harness/postgres.ts';
import { tempDir } from '../test/harness/temp.ts';
import { debianBin, requirePackage, startCluster } from './cluster.ts';
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
import { type Cost, endedChildrenCpuSeconds, measure, median, run } from './measure.ts';

const help = `Backup and restore of one PostgreSQL 15 cluster: dr beside pgBackRest, same machine, same run.

  node bench/backup-restore.ts [--size 2g] [--rounds 5] [--cold] [--bundle] [--against CHECKOUT]… [--only backup|restore]

  --size      size of the database (default 2g); needs about three times that in ${tmpdir()}
  --rounds    measured rounds; the order of the contestants rotates (default 5, after one that only warms up)
  --cold      empties the page cache before every run (root only); default: warm
  --bundle    pgBackRest once more with repo1-bundle
  --against   another checkout of dr as a further contestant, to compare versions
  --only      measure one of the two; backups are taken all the same`;

type Kind = 'backup' | 'restore';
interface Sample extends Cost {
  readonly kind: Kind;
  readonly contestant: string;
  /** CPU seconds that the PostgreSQL server spent on it. */
  readonly serverCpuSeconds: number;
}

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '2g' },
    rounds: { type: 'string', default: '5' },
    cold: { type: 'boolean', default: false },
    bundle: { type: 'boolean', default: false },
    against: { type: 'string', multiple: true, default: [] },
    only: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});
const sizeBytes = parseBytes(values.size);
const rounds = Number(values.rounds);
if (
  values.help ||
  sizeBytes === undefined ||
  !(rounds >= 1) ||
  !['backup', 'restore', undefined].includes(values.only)
) {
  console.log(help);
  process.exit(values.help ? 0 : 2);
}
const free = statfsSync(tmpdir());
if (free.bavail * free.bsize < 3 * sizeBytes) {
  throw new Error(
    `${tmpdir()} has ${formatBytes(free.bavail * free.bsize)} free, ${formatBytes(3 * sizeBytes)} needed`,
  );
}
process.umask(0o022);

await requirePackage('/usr/bin/pgbackrest', 'pgbackrest');
const peer = await peerHome();
console.error(`building a cluster of ${formatBytes(sizeBytes)} …`);
const server = await startCluster(sizeBytes, peerSettings(peer));
try {
  await writePeerConfig(peer, server);
  const peerVersion = await preparePeer(peer);
  const here = join(import.meta.dirname, '..');
  const contestants: Contestant[] = [
    await drOf(here, 'dr', server),
    await peerOf(peer, false),
    ...(values.bundle ? [await peerOf(peer, true)] : []),
  ];
  for (const checkout of values.against) contestants.push(await drOf(resolve(checkout), `dr of ${checkout}`, server));
  const samples = await playRounds(contestants, server);
  const [size] = await server.sql<{ bytes: string }>('select sum(pg_database_size(oid)) as bytes from pg_database');
  print(samples, contestants, Number(size?.bytes ?? 0), peerVersion);
  const compared = await verify(contestants, server);
  console.log(`\nEvery restore verified: ${compared} files equal to the server's; pg_verifybackup accepts that of dr.`);
} finally {
  await server.stop('immediate');
}

/** Rounds interleaved, so that what else happens on the machine meets all alike; the order rotates. */
async function playRounds(contestants: readonly Contestant[], server: TestPostgres): Promise<Sample[]> {
  const samples: Sample[] = [];
  for (let round = 0; round <= rounds; round++) {
    for (const kind of ['backup', 'restore'] as const) {
      for (let turn = 0; turn < contestants.length; turn++) {
        const contestant = contestants[(round + turn) % contestants.length];
        if (!contestant || (round > 0 && values.only !== undefined && values.only !== kind)) continue;
        const sample = await play(contestant, kind, server);
        const { seconds, cpuSeconds, peakBytes } = sample;
        console.error(
          `round ${round === 0 ? '0 (warm-up)' : round}: ${contestant.name} ${kind} ${seconds.toFixed(2)} s, CPU ${cpuSeconds.toFixed(2)} s, ${formatBytes(peakBytes)}`,
        );
        if (round > 0) samples.push(sample);
      }
    }
  }
  return samples;
}

async function play(contestant: Contestant, kind: Kind, server: TestPostgres): Promise<Sample> {
  const target = await tempDir('restored');
  chownSync(target, serverUser?.uid ?? -1, serverUser?.gid ?? -1);
  if (kind === 'backup') contestant.forget?.();
  await run({ program: 'sync', args: ['-f', target] });
  if (values.cold) writeFileSync('/proc/sys/vm/drop_caches', '3');
  const before = endedChildrenCpuSeconds(server.pid() ?? 0);
  try {
    const cost =
      kind === 'backup'
        ? await measure(contestant.backup(), contestant.repository)
        : await measure(contestant.restore(target), target);
    const serverCpuSeconds = endedChildrenCpuSeconds(server.pid() ?? 0) - before;
    return { ...cost, kind, contestant: contestant.name, serverCpuSeconds };
  } finally {
    removeRestored(target);
  }
}

function removeRestored(target: string): void {
  for (const path of [target, `${target}.dr-restored`]) rmSync(path, { recursive: true, force: true });
}

function print(
  samples: readonly Sample[],
  contestants: readonly Contestant[],
  bytes: number,
  peerVersion: string,
): void {
  interface Row {
    readonly kind: Kind;
    readonly contestant: string;
    readonly own: readonly Sample[];
    readonly ratio: number;
  }
  const rows = (['backup', 'restore'] as const).flatMap((kind) =>
    contestants.flatMap(({ name }): Row[] => {
      const of = (contestant: string) => samples.filter((s) => s.kind === kind && s.contestant === contestant);
      const own = of(name);
      if (own.length === 0) return [];
      const peers = of('pgBackRest');
      // Round by round: both of a pair met the same load.
      const ratio = median(own.map(({ seconds }, round) => seconds / (peers[round]?.seconds ?? Number.NaN)));
      return [{ kind, contestant: name, own, ratio }];
    }),
  );
  const seconds = ({ own }: Row) => own.map((sample) => sample.seconds);
  const columns: Array<Column<Row>> = [
    { title: 'WORK', value: ({ kind }) => kind },
    { title: 'PROGRAM', value: ({ contestant }) => contestant },
    { title: 'MEDIAN', value: (row) => `${median(seconds(row)).toFixed(2)} s`, align: 'right' },
    { title: 'MIN', value: (row) => Math.min(...seconds(row)).toFixed(2), align: 'right' },
    { title: 'MAX', value: (row) => Math.max(...seconds(row)).toFixed(2), align: 'right' },
    { title: 'RATIO', value: ({ ratio }) => ratio.toFixed(2), align: 'right' },
    { title: 'MB/s', value: (row) => (bytes / 1e6 / median(seconds(row))).toFixed(0), align: 'right' },
    { title: 'CPU', value: ({ own }) => `${median(own.map((s) => s.cpuSeconds)).toFixed(1)} s`, align: 'right' },
    {
      title: 'SERVER CPU',
      value: ({ own }) => `${median(own.map((s) => s.serverCpuSeconds)).toFixed(1)} s`,
      align: 'right',
    },
    {
      title: 'PEAK MEMORY',
      value: ({ own }) => `${(Math.max(...own.map((s) => s.peakBytes)) / 1e6).toFixed(0)} MB`,
      align: 'right',
    },
  ];
  const cache = values.cold ? 'cold (page cache emptied before every run)' : 'warm (page cache)';
  console.log(
    [
      `${(bytes / 1e9).toFixed(2)} GB, PostgreSQL 15 of Debian; ${peerVersion}; zstd 3, encrypted, ${PROCESSES} workers; ${cache};`,
      `${rounds} rounds after one to warm up, order rotated; every run ends with everything fsynced; ratio = median of own time / pgBackRest's of the same round.`,
      `${availableParallelism()} cores (${cpus()[0]?.model.trim() ?? 'unknown'}), load average ${loadavg()
        .map((load) => load.toFixed(1))
        .join(' ')}`,
      '',
      renderTable(columns, rows),
    ].join('\n'),
  );
}

/** Restores the newest backup of each once more and compares every file of the databases with the server's own. */
async function verify(contestants: readonly Contestant[], server: TestPostgres): Promise<number> {
  const expected = await databaseDigests(server.dataDirectory);
  for (const contestant of contestants) {
    const target = await tempDir('verified');
    chownSync(target, serverUser?.uid ?? -1, serverUser?.gid ?? -1);
    await run(contestant.restore(target));
    if (contestant.name.startsWith('dr')) {
      await run({ program: join(debianBin, 'pg_verifybackup'), args: [target] });
    }
    const actual = await databaseDigests(target);
    for (const [path, digest] of expected) {
      if (actual.get(path) !== digest) throw new Error(`${contestant.name}: base/${path} was not restored as it was`);
    }
    removeRestored(target);
  }
  return expected.size;
}
