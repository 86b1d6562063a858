import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { exitCodes } from '../src/commands/exit-codes.ts';
import { type Column, renderTable } from '../src/report/table.ts';
import { nodeBinary, startNode } from '../test/harness/process.ts';
import { tempDir } from '../test/harness/temp.ts';
import { catalogueKey, catalogueSpec } from './catalogue-vault.ts';
import { startOfDr } from './contestants.ts';
import { type Cost, measure, median } from './measure.ts';

const help = `The verbs that read the whole catalogue, over two local vaults of 20,000 backups and a million objects each.

  node bench/catalogue.ts [--scale 1] [--rounds 3] [--keep DIR | --use DIR] [--against CHECKOUT]…

  --scale    share of the 20,000 backups (default 1: needs 10 GB and 2.2 million inodes, and three minutes to write)
  --rounds   measured rounds, after one that warms up (default 3)
  --keep     write the vaults to this new directory and leave them there
  --use      measure the vaults that an earlier run kept
  --against  another checkout of dr as a further contestant, in the same rounds`;

const GOAL_SECONDS = 5;
const GOAL_MB = 300;
const VAULTS = ['east', 'west'];
const VERBS = [['backups'], ['backups', '--json'], ['retention'], ['retention', '--json'], ['status']];

const { values } = parseArgs({
  options: {
    scale: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '3' },
    keep: { type: 'string' },
    use: { type: 'string' },
    against: { type: 'string', multiple: true, default: [] },
    help: { type: 'boolean', default: false },
  },
});
const [scale, rounds] = [Number(values.scale), Number(values.rounds)];
if (values.help || !(scale > 0) || !(rounds >= 1)) {
  console.log(help);
  process.exit(values.help ? 0 : 2);
}

const checkouts = [join(import.meta.dirname, '..'), ...values.against.map((path) => resolve(path))];
const home = resolve(values.use ?? values.keep ?? (await tempDir('catalogue')));
try {
  if (values.use === undefined) await writeVaults();
  await measureAll();
} finally {
  if (values.use === undefined && values.keep === undefined) rmSync(home, { recursive: true, force: true });
}

/** Both vaults at once, each by a process of its own, and a configuration that names them and their resources. */
async function writeVaults(): Promise<void> {
  mkdirSync(home, { recursive: true });
  const recipient = await identityToRecipient(await generateIdentity());
  const began = performance.now();
  const now = Date.now();
  const key = JSON.stringify(await catalogueKey(recipient, now));
  const script = join(import.meta.dirname, 'catalogue-vault.ts');
  const written = await Promise.all(
    VAULTS.map(async (vault) => {
      const facts = { root: join(home, vault), vault, key, now: String(now), scale: values.scale };
      const args = Object.entries(facts).flatMap(([name, text]) => [`--${name}`, text]);
      const { code, stdout, stderr } = await startNode(script, args).ended;
      if (code !== 0) throw new Error(`vault ${vault} was not written:\n${stderr}`);
      return Number(stdout);
    }),
  );
  const seconds = ((performance.now() - began) / 1000).toFixed(0);
  console.log(`${written.join(' and ')} objects written in ${seconds} s`);
  const resources = (kind: string, retention: string, schedule: string) =>
    Object.fromEntries(
      catalogueSpec(scale)
        .filter((resource) => resource.kind === kind)
        .map(({ name }) => [
          name,
          kind === 'database'
            ? { url: `postgresql://dr@127.0.0.1:1/${name}`, schedule, retention }
            : { path: `/srv/${name}`, schedule, retention },
        ]),
    );
  const config = {
    version: 1,
    // The vaults are as old as this run is: what is measured is how long the answer takes, not what it is.
    objectives: { rpo: '30 days' },
    vaults: Object.fromEntries(
      VAULTS.map((name) => [name, { region: `bench-${name}`, url: pathToFileURL(join(home, name)).href }]),
    ),
    sites: Object.fromEntries(VAULTS.map((name) => [name, { region: `bench-${name}`, vault: name }])),
    active: 'east',
    encryption: { recipients: [recipient] },
    databases: resources('database', '30 days', 'every 1 hour'),
    data: resources('data', '90 days', 'every 1 hour'),
    configuration: resources('configuration', '1 year', 'on change'),
    verification: { schedule: 'never' },
  };
  writeFileSync(join(home, 'dr.yaml'), JSON.stringify(config));
}

async function measureAll(): Promise<void> {
  const costs = new Map<string, Cost[]>();
  // These verbs write nothing: there is nothing to sync.
  const nothing = await tempDir('nothing');
  // Vaults of an earlier run are old, which is an objective that is broken.
  const codes = [0, exitCodes['objective-broken'].code];
  for (let round = 0; round <= rounds; round++) {
    for (const verb of VERBS) {
      for (const checkout of checkouts) {
        const start = startOfDr(checkout);
        const args = [...start.args, ...verb, '--config', join(home, 'dr.yaml'), '--site', 'east'];
        const cost = await measure({ program: nodeBinary, args, env: start.env, codes }, nothing);
        const name = `${verb.join(' ')}${checkouts.length > 1 ? ` (${checkout})` : ''}`;
        if (round > 0) costs.set(name, [...(costs.get(name) ?? []), cost]);
      }
    }
  }
  const rows = [...costs].map(([name, all]) => ({
    name,
    seconds: all.map(({ seconds }) => seconds),
    cpu: median(all.map(({ cpuSeconds }) => cpuSeconds)),
    peakMb: Math.max(...all.map(({ peakBytes }) => peakBytes)) / 1e6,
  }));
  const columns: Column<(typeof rows)[number]>[] = [
    { title: 'VERB', value: ({ name }) => name },
    { title: 'SECONDS (MEDIAN)', value: ({ seconds }) => median(seconds).toFixed(2), align: 'right' },
    { title: 'MAX', value: ({ seconds }) => Math.max(...seconds).toFixed(2), align: 'right' },
    { title: 'CPU', value: ({ cpu }) => cpu.toFixed(2), align: 'right' },
    { title: 'PEAK MB', value: ({ peakMb }) => peakMb.toFixed(0), align: 'right' },
    {
      title: `GOAL (${GOAL_SECONDS} s, ${GOAL_MB} MB)`,
      value: ({ seconds, peakMb }) => (median(seconds) <= GOAL_SECONDS && peakMb <= GOAL_MB ? 'met' : 'MISSED'),
    },
  ];
  const load = readFileSync('/proc/loadavg', 'utf8').split(' ')[0];
  console.log(`${rounds} rounds, warm; load ${load}\n\n${renderTable(columns, rows)}`);
}
