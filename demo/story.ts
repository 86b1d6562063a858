import { randomFillSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatDuration } from '../src/base/units.ts';
import type { RunReport } from '../src/runbook/run-report.ts';
import { fingerprint, query, urlOf } from './database.ts';
import { destroyEast } from './disaster.ts';
import { askDr, type Ran, runDr, startDaemon } from './dr.ts';
import { readTree, writeShopSettings } from './files.ts';
import type { Narrator } from './narrator.ts';
import type { Place } from './places.ts';
import type { DemoReport } from './report.ts';
import { askStatus, manifestsOf, rpoText, waitForFirstBackups, waitForNewBackup } from './safety.ts';
import { shopName } from './settings.ts';
import { type Before, judge } from './verdict.ts';
import { buildWorld, type World } from './world.ts';

/** Orders flow for so long between the last backup and the disaster, milliseconds: what only the WAL can bring back. */
const lullMs = 4000;
const notice = 'closed on Sundays, as of today';

export interface StoryOptions {
  readonly place: Place;
  readonly narrator: Narrator;
  readonly env: NodeJS.ProcessEnv;
  /** dr's own output is shown while it works; otherwise only its result is used. */
  readonly showDr: boolean;
}

/** The whole demo: builds the world, protects it, destroys half of it and recovers. Returns what was measured. */
export async function play(options: StoryOptions): Promise<{ report: DemoReport; world: World }> {
  const { place, narrator, env, showDr } = options;
  const begun = performance.now();
  if (place.elsewhere)
    narrator.say(
      `PostgreSQL does not run as root, and its user cannot enter this clone: the files are in ${place.root}.`,
    );

  narrator.chapter('1  Two sites, two vaults, one name');
  const world = await buildWorld(place, narrator, env);
  if (!world.network.secondAddress)
    narrator.say(
      `  This system has no second loopback address: customers reach ${world.network.west.published} at port ${world.network.west.port} of 127.0.0.1.`,
    );

  narrator.chapter('2  dr daemon protects site east');
  const before = await protect(world, narrator);

  narrator.chapter('3  Disaster: site east and the vault of its region are gone');
  const ruin = await narrator.step(
    'kill -9 to PostgreSQL, the shop and the daemon; rm -r of every folder of east',
    async () => await destroyEast(world, before.daemon),
    ({ survivors }) => (survivors.length === 0 ? 'nothing is left' : `LEFT: ${survivors.join(', ')}`),
  );

  narrator.chapter('4  dr failover --to west --yes');
  const args = ['failover', '--to', 'west', '--yes', '--reason', 'site east does not answer'];
  const ran = await runDr(world.root, world.drEnv.west, showDr ? args : [...args, '--json'], showDr ? 'show' : 'hide');
  const run = await readRun(world, ran, showDr);

  narrator.chapter('5  What the customers see');
  await narrator.step(
    `Customers ask for ${shopName} and order at west`,
    async (detail) => await waitForWest(world, detail),
    (ms) => `the first order was taken ${formatDuration(ms - ruin.atMs)} after the disaster`,
  );
  const report = await judge({ world, before, ruin, exitCode: ran.code, run });
  await world.customers.stop();
  return { report: { ...report, totalMs: Math.round(performance.now() - begun) }, world };
}

/** Until everything is in both vaults, and something of each kind has changed since. */
async function protect(world: World, narrator: Narrator): Promise<Before> {
  const { root, folders, drEnv, customers } = world;
  const daemon = startDaemon(root, drEnv.east);
  const first = await narrator.step(
    'First backups: database, uploads, settings, each into both vaults',
    async (detail) => await waitForFirstBackups(world, daemon, detail),
    ({ resources }) => {
      const logical = resources.reduce((sum, { newest }) => sum + (newest?.logicalBytes ?? 0), 0);
      const stored = resources.reduce((sum, { newest }) => sum + (newest?.storedBytes ?? 0), 0);
      return `${Math.round(logical / 1e6)} MB, stored as ${Math.round(stored / 1e6)} MB in each`;
    },
  );

  const settingsBefore = manifestsOf(world, 'settings');
  await narrator.step(
    'A setting changes',
    async () => {
      await writeShopSettings(folders.east.settings, notice);
      return await waitForNewBackup(world, daemon, 'settings', settingsBefore);
    },
    (id) => `the daemon noticed and backed it up (${id})`,
  );

  await narrator.step(
    'A customer uploads a picture: "dr backup uploads"',
    async () => {
      writeFileSync(join(folders.east.uploads, 'new-picture.jpg'), randomFillSync(Buffer.alloc(150_000)));
      const { code, stdout, stderr } = await runDr(root, drEnv.east, ['backup', 'uploads', '--json']);
      if (code !== 0) throw new Error(`dr backup uploads failed (exit ${code}):\n${stdout}${stderr}`);
      const status = await askStatus(world);
      return status.resources.find(({ name }) => name === 'uploads')?.newest;
    },
    (newest) =>
      newest === undefined ? 'no backup is listed' : `${Math.round(newest.logicalBytes / 1e6)} MB in both vaults`,
  );

  const confirmedBefore = customers.accepted.length;
  const before = await narrator.step(
    'Orders go on, 20 a second, and reach the vaults by the WAL',
    async () => {
      const uploads = await readTree(folders.east.uploads);
      const settings = await readTree(folders.east.settings);
      const history = await fingerprint(urlOf(world.database, 'postgres'));
      await sleep(lullMs);
      return { daemon, first, uploads, settings, notice, history, status: await askStatus(world) };
    },
    ({ status }) =>
      `${customers.accepted.length - confirmedBefore} more orders confirmed; dr status: if the region died now, lost at most: ${rpoText(status)}`,
  );
  if (customers.trouble !== undefined) throw new Error(`the shop at east does not work: ${customers.trouble}`);
  return before;
}

/** The report of the failover: with --json its result, otherwise asked for by the id that it has shown. */
async function readRun(world: World, { stdout, stderr }: Ran, shown: boolean): Promise<RunReport> {
  if (shown) {
    const id = /^Run: +(\S+)$/m.exec(stdout)?.[1];
    if (id === undefined) throw new Error('dr failover did not begin a run');
    return await askDr<RunReport>(world.root, world.drEnv.west, ['runs', id]);
  }
  const document: { result?: RunReport } = JSON.parse(stdout || '{}');
  if (document.result === undefined) throw new Error(`dr failover has no result:\n${stdout}${stderr}`);
  return document.result;
}

/** When a customer placed the first order at west, milliseconds since 1970. */
async function waitForWest({ customers, database, network }: World, detail: (text: string) => void): Promise<number> {
  const until = Date.now() + 30_000;
  for (;;) {
    const first = customers.accepted.find(({ site }) => site === 'west');
    if (first) {
      // Seen in the database of west itself, too.
      await query(urlOf({ ...database, port: network.databasePorts.west }, 'postgres'), 'select 1');
      return first.acceptedAtMs;
    }
    if (Date.now() > until)
      throw new Error(`no customer could order at west: ${customers.trouble ?? 'no reason known'}`);
    detail(customers.trouble ?? '');
    await sleep(100);
  }
}
