import { mkdirSync, rmSync, statfsSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { formatBytes, parseBytes } from '../src/base/units.ts';
import { type Column, renderTable } from '../src/report/table.ts';
import { serverUser } from '../test/harness/npm-postgres.ts';
import { freePort } from '../test/harness/postgres.ts';
import { nodeBinary, startProcess } from '../test/harness/process.ts';
import { tempDir } from '../test/harness/temp.ts';
import { debianBin, startCluster } from './cluster.ts';
import { drHome, startOfDr } from './contestants.ts';
import { run, syncFileSystem } from './measure.ts';

const help = `A failover of one PostgreSQL 15 database, stage by stage, and what standard tools need to bring the same bytes back.

  node bench/failover.ts [--size 5g] [--load 20]

  --size   size of the database (default 5g); needs about five times that in ${tmpdir()}
  --load   seconds of pgbench between the base backup and the disaster, whose WAL is replayed (default 20)

The daemon protects the first site as in production; then its server and the daemon are killed with -9 and "dr failover" recovers at the other.
Beside it: the data directory as tar, compressed by zstd -3 with two threads, decompressed and unpacked again, synced.`;

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '5g' },
    load: { type: 'string', default: '20' },
    help: { type: 'boolean', default: false },
  },
});
const sizeBytes = parseBytes(values.size);
const loadSeconds = Number(values.load);
if (values.help || sizeBytes === undefined || !(loadSeconds >= 1)) {
  console.log(help);
  process.exit(values.help ? 0 : 2);
}
const free = statfsSync(tmpdir());
if (free.bavail * free.bsize < 5 * sizeBytes) {
  throw new Error(
    `${tmpdir()} has ${formatBytes(free.bavail * free.bsize)} free, ${formatBytes(5 * sizeBytes)} needed`,
  );
}
process.umask(0o022);

/** What is read of `dr failover --json`. */
interface Answer {
  readonly result?: {
    readonly outcome: string;
    readonly rto: { readonly achievedMs: number };
    readonly stages: readonly Stage[];
  };
}
interface Stage {
  readonly name: string;
  readonly ms?: number;
  readonly budgetMs?: number;
}

console.error(`building a cluster of ${formatBytes(sizeBytes)} …`);
const server = await startCluster(sizeBytes, {});
const work = await tempDir('failover');
const port = await freePort();
const folder = (name: string) => pathToFileURL(join(work, `vault-${name}`)).href;
const home = await drHome(server, ['east', 'west'], {
  vaults: {
    east: { region: 'bench-east', url: folder('east') },
    west: { region: 'bench-west', url: folder('west') },
  },
  sites: { east: { region: 'bench-east', vault: 'east' }, west: { region: 'bench-west', vault: 'west' } },
  active: 'east',
  databases: {
    orders: {
      url: server.url,
      wal: { flushEvery: '1s' },
      recover: { west: { dataDirectory: join(work, 'west/orders'), port, listen: '127.0.0.1' } },
    },
  },
  validation: { stabilize: '5s' },
  postgresql: { binaries: [debianBin] },
});
mkdirSync(join(work, 'west'));
const start = startOfDr(join(import.meta.dirname, '..'));
const env = { ...process.env, ...start.env, DR_IDENTITY_FILE: home.identityFile };
const dr = (...args: string[]) => startProcess(nodeBinary, [...start.args, ...args, '--config', home.config], { env });

try {
  console.error('the daemon takes the first backup …');
  const daemon = dr('daemon', '--site', 'east');
  for (let taken = false; !taken; ) {
    await sleep(2000);
    const { stdout } = await dr('backups', 'orders', '--json').ended;
    const listed: { result?: { backups: readonly unknown[] } } = JSON.parse(stdout || '{}');
    taken = (listed.result?.backups.length ?? 0) > 0;
  }
  console.error(`pgbench for ${loadSeconds} s …`);
  await run({ program: join(debianBin, 'pgbench'), args: ['-n', '-c', '2', '-T', String(loadSeconds), server.url] });
  await sleep(3000);
  await server.kill9();
  await daemon.kill9();

  console.error('tar and zstd …');
  const archive = join(work, 'copy.tar.zst');
  const shell = async (script: string) => await run({ program: 'bash', args: ['-c', `set -o pipefail; ${script}`] });
  await shell(`tar -C ${server.dataDirectory} -cf - . | zstd -q -3 -T2 -o ${archive}`);
  const times: number[] = [];
  let stages: readonly Stage[] = [];
  for (let turn = 0; turn < 2; turn++) {
    const target = join(work, 'unpacked');
    mkdirSync(target);
    await syncFileSystem(work);
    const began = performance.now();
    await shell(`zstd -q -dc ${archive} | tar -C ${target} -xf -`);
    await syncFileSystem(work);
    times.push(performance.now() - began);
    rmSync(target, { recursive: true });
    // Before and after, so that what else happens on the machine meets both.
    if (turn === 0) stages = await failover();
  }
  const tools = times.reduce((sum, ms) => sum + ms, 0) / times.length;
  const restore = stages.find(({ name }) => name === 'restore')?.ms ?? 0;
  const seconds = (ms: number | undefined) => (ms === undefined ? '-' : `${(ms / 1000).toFixed(1)} s`);
  const columns: ReadonlyArray<Column<Stage>> = [
    { title: 'STAGE', value: ({ name }) => name },
    { title: 'TOOK', value: ({ ms }) => seconds(ms), align: 'right' },
    { title: 'BUDGET', value: ({ budgetMs }) => seconds(budgetMs), align: 'right' },
  ];
  console.log(renderTable(columns, stages));
  console.log(
    `zstd -d | tar -x, synced: ${times.map(seconds).join(' before, ')} after; restore stage / tools: ${(restore / tools).toFixed(2)}`,
  );
  const load = loadavg().map((n) => n.toFixed(1));
  console.log(`${availableParallelism()} cores (${cpus()[0]?.model}), load average ${load.join(' ')}`);
} finally {
  await server.stop('immediate').catch(() => {});
  const stop = ['-D', join(work, 'west/orders'), '-m', 'immediate', 'stop'];
  await run({ program: join(debianBin, 'pg_ctl'), args: stop, user: serverUser }).catch(() => {});
}

async function failover(): Promise<readonly Stage[]> {
  console.error('dr failover …');
  const args = ['--to', 'west', '--site', 'west', '--yes', '--reason', 'bench', '--json'];
  const { code, stdout, stderr } = await dr('failover', ...args).ended;
  const { result }: Answer = JSON.parse(stdout || '{}');
  if (code !== 0 || result?.outcome !== 'succeeded')
    throw new Error(`dr failover ended with ${code}:\n${stdout}${stderr}`);
  console.log(`${formatBytes(sizeBytes ?? 0)}: back in service after ${(result.rto.achievedMs / 1000).toFixed(1)} s`);
  return result.stages;
}
