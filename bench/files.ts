import { mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { formatBytes, parseBytes } from '../src/base/units.ts';
import { type Column, renderTable } from '../src/report/table.ts';
import { tempDir } from '../test/harness/temp.ts';
import { requirePackage } from './cluster.ts';
import { PROCESSES } from './contestants.ts';
import { drOfFiles, type FileContestant, resticOf } from './file-contestants.ts';
import { changeTree, describeTree, makeTree } from './file-tree.ts';
import { type Cost, measure, median, run, syncFileSystem } from './measure.ts';

const help = `A tree of many small and some large files: dr beside restic, same machine, same run.

  node bench/files.ts [--files 100000] [--large 2g] [--rounds 3] [--cold] [--level 1] [--only dr] [--against CHECKOUT]…

  --files     small files of 0 to 64 KiB (16 KiB on average, half of them random) in folders of 100 (default 100000)
  --large     bytes in files of 256 MiB, two fifths of them random (default 2g); all needs eight times its size in ${tmpdir()}
  --rounds    each: a first backup into a new repository, 1 % of the files and of the large ones' bytes changed, a second
              backup, a restore; the order of the contestants rotates (default 3, after one that only warms up)
  --cold      empties the page cache before every run (root only); default: warm
  --only      parts of names, divided by commas: measures only such contestants
  --level     dr once more at this level of zstd (its default is 3; restic's own compresses less than zstd does at level 1)
  --against   another checkout of dr as a further contestant, to compare versions`;

type Kind = 'first' | 'second' | 'restore';
const kinds: readonly Kind[] = ['first', 'second', 'restore'];
interface Sample extends Cost {
  readonly kind: Kind;
  readonly contestant: string;
  /** Bytes in the repository (of dr: in one of its vaults) afterwards. */
  readonly storedBytes: number;
}

const { values } = parseArgs({
  options: {
    files: { type: 'string', default: '100000' },
    large: { type: 'string', default: '2g' },
    rounds: { type: 'string', default: '3' },
    cold: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    level: { type: 'string' },
    against: { type: 'string', multiple: true, default: [] },
    help: { type: 'boolean', default: false },
  },
});
const files = Number(values.files);
const largeBytes = parseBytes(values.large);
const rounds = Number(values.rounds);
if (values.help || !(files >= 1) || largeBytes === undefined || !(rounds >= 0)) {
  console.log(help);
  process.exit(values.help ? 0 : 2);
}
const shape = { files, folders: Math.max(1, Math.round(files / 100)), largeBytes };
const treeBytes = files * 16 * 1024 + largeBytes;
const free = statfsSync(tmpdir());
if (free.bavail * free.bsize < 8 * treeBytes) {
  throw new Error(
    `${tmpdir()} has ${formatBytes(free.bavail * free.bsize)} free, ${formatBytes(8 * treeBytes)} needed`,
  );
}
process.umask(0o022);

await requirePackage('/usr/bin/restic', 'restic');
const peerVersion = (await run({ program: '/usr/bin/restic', args: ['version'] })).trim().split(' compiled')[0];
const tree = join(await tempDir('tree'), 'tree');
console.error(`making a tree of ${files} files and ${formatBytes(largeBytes)} of large ones …`);
makeTree(tree, shape);
const here = join(import.meta.dirname, '..');
const contestants: FileContestant[] = [
  await drOfFiles(here, 'dr, two vaults', tree, ['east', 'west']),
  await drOfFiles(here, 'dr, one vault', tree, ['east']),
  await resticOf(tree),
];
for (const checkout of values.against) {
  contestants.push(await drOfFiles(resolve(checkout), `dr of ${checkout}`, tree, ['east', 'west']));
}
if (values.level !== undefined) {
  const settings = { compressionLevel: Number(values.level) };
  contestants.push(await drOfFiles(here, `dr, zstd ${values.level}`, tree, ['east', 'west'], settings));
}
const playing = contestants.filter(({ name }) => values.only.split(',').some((part) => name.includes(part)));
const samples: Sample[] = [];
/** What the restores of this round have written. */
const restored: string[] = [];
for (let round = 0; round <= rounds; round++) await playRound(round);
print();
await verify();

/** All contestants with each kind of work, so that what else happens on the machine meets all alike; the order rotates. */
async function playRound(round: number): Promise<void> {
  for (const contestant of playing) await contestant.renew();
  for (const kind of kinds) {
    if (kind === 'second') changeTree(tree, shape, round);
    // What was written a moment ago cannot be told from what is written now: nobody may trust its times yet.
    if (kind !== 'restore') await sleep(3000);
    for (let turn = 0; turn < playing.length; turn++) {
      const contestant = playing[(round + turn) % playing.length];
      if (!contestant) continue;
      const sample = await play(contestant, kind);
      const { seconds, cpuSeconds, peakBytes } = sample;
      console.error(
        `round ${round === 0 ? '0 (warm-up)' : round}: ${contestant.name} ${kind} ${seconds.toFixed(2)} s, CPU ${cpuSeconds.toFixed(2)} s, ${formatBytes(peakBytes)}`,
      );
      if (round > 0 || rounds === 0) samples.push(sample);
    }
  }
  // Only now, and long before the next restore: ext4 is slow to create files while it remembers thousands of deleted ones (a minute).
  for (const target of restored.splice(0)) rmSync(target, { recursive: true, force: true });
}

async function play(contestant: FileContestant, kind: Kind): Promise<Sample> {
  const target = await tempDir('restored');
  await syncFileSystem(target);
  if (values.cold) writeFileSync('/proc/sys/vm/drop_caches', '3');
  restored.push(target);
  const command = kind === 'restore' ? contestant.restore(target) : contestant.backup();
  const written = kind === 'restore' ? target : contestant.repository;
  const cost = await measure(command, written, syncFileSystem);
  return { ...cost, kind, contestant: contestant.name, storedBytes: contestant.storedBytes() };
}

function print(): void {
  interface Row {
    readonly kind: Kind;
    readonly contestant: string;
    readonly own: readonly Sample[];
    readonly ratio: number;
  }
  const rows = kinds.flatMap((kind) =>
    playing.map(({ name }): Row => {
      const of = (contestant: string) => samples.filter((s) => s.kind === kind && s.contestant === contestant);
      const own = of(name);
      const peers = of('restic');
      // Round by round: both of a pair met the same load.
      const ratio = median(own.map(({ seconds }, round) => seconds / (peers[round]?.seconds ?? Number.NaN)));
      return { kind, contestant: name, own, ratio };
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
    {
      title: 'STORED',
      value: ({ own }) => formatBytes(median(own.map((s) => s.storedBytes))),
      align: 'right',
    },
    { title: 'CPU', value: ({ own }) => `${median(own.map((s) => s.cpuSeconds)).toFixed(1)} s`, align: 'right' },
    {
      title: 'PEAK MEMORY',
      value: ({ own }) => `${(Math.max(...own.map((s) => s.peakBytes)) / 1e6).toFixed(0)} MB`,
      align: 'right',
    },
  ];
  const cache = values.cold ? 'cold (page cache emptied before every run)' : 'warm (page cache)';
  console.log(
    [
      `${files} files and ${formatBytes(shape.largeBytes)} of large ones; ${peerVersion}; dr with ${PROCESSES} workers, encrypted; ${cache};`,
      `${rounds} rounds after one to warm up, order rotated; every run ends with everything on disk; ratio = median of own time / restic's of the same round.`,
      `${availableParallelism()} cores (${cpus()[0]?.model.trim() ?? 'unknown'}), load average ${loadavg()
        .map((load) => load.toFixed(1))
        .join(' ')}`,
      '',
      renderTable(columns, rows),
    ].join('\n'),
  );
}

/** Restores the newest backup of each once more and compares every entry: content, mode, owner, time, attributes. */
async function verify(): Promise<void> {
  const expected = describeTree(tree);
  for (const contestant of playing) {
    const target = await tempDir('verified');
    mkdirSync(target, { recursive: true });
    await run(contestant.restore(target));
    const actual = describeTree(contestant.restored(target));
    const wrong = [...expected].filter(([path, line]) => actual.get(path) !== line).map(([path]) => path);
    const [example] = wrong;
    const text =
      example === undefined
        ? `all ${expected.size} entries equal`
        : `${wrong.length} of ${expected.size} entries differ, the first: ${example}\n  was ${expected.get(example)}\n  is  ${actual.get(example)}`;
    console.log(`${contestant.name}: ${text}`);
    rmSync(target, { recursive: true, force: true });
  }
}
