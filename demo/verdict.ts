import { createHash } from 'node:crypto';
import { formatDuration } from '../src/base/units.ts';
import type { RunReport } from '../src/runbook/run-report.ts';
import { askServer } from '../src/traffic/dns-query.ts';
import { fingerprint, urlOf } from './database.ts';
import type { Ruin } from './disaster.ts';
import { differences, readTree, sizeText, type Tree } from './files.ts';
import type { Running } from './processes.ts';
import type { DemoReport, Fact } from './report.ts';
import { resources, type StatusAnswer } from './safety.ts';
import { shopName } from './settings.ts';
import type { World } from './world.ts';

/** The database of the demo must be at least this large, bytes. */
const wantedBytes = 200_000_000;

/** How everything was before the disaster. */
export interface Before {
  readonly daemon: Running;
  readonly first: StatusAnswer;
  readonly uploads: Tree;
  readonly settings: Tree;
  readonly notice: string;
  /** Fingerprint of the tables that do not change. */
  readonly history: string;
  /** What `dr status` said last. */
  readonly status: StatusAnswer;
}

interface Evidence {
  readonly world: World;
  readonly before: Before;
  readonly ruin: Ruin;
  /** Of dr failover. */
  readonly exitCode: number | null;
  readonly run: RunReport;
}

/** Asks everybody, believes nothing that it has not seen, and draws up the bill. */
export async function judge(evidence: Evidence): Promise<Omit<DemoReport, 'totalMs'>> {
  const { world, before, ruin, exitCode, run } = evidence;
  const { customers, folders } = world;
  const { orders, noHole } = await countOrders(world, ruin);
  const firstAtWest = customers.accepted.find(({ site }) => site === 'west');
  const database = run.resources.find(({ name }) => name === 'orders');
  const rpoObjectiveMs = database?.objectiveMs ?? 0;
  const missing = resources.filter(
    (name) => !before.status.resources.some((each) => each.name === name && each.crossRegion),
  );

  const facts: Fact[] = [
    fact(
      'The database was large enough to mean something',
      world.databaseBytes >= wantedBytes,
      `${Math.round(world.databaseBytes / 1e6)} MB`,
    ),
    fact(
      'Every resource was in both regions before',
      missing.length === 0,
      missing.length === 0 ? resources.join(', ') : `not ${missing.join(', ')}`,
    ),
    fact(
      'Site east is gone',
      ruin.survivors.length === 0,
      ruin.survivors.join(', ') || 'no process, no folder, no port answers',
    ),
    fact(
      'dr failover succeeded',
      exitCode === 0 && run.outcome === 'succeeded',
      `exit code ${exitCode}, run ${run.runId} ${run.outcome ?? 'unfinished'}`,
    ),
    await nameLeadsWest(world),
    noHole,
    await lastOrderIsRead(world),
    await historyIsTheSame(world, before),
    sameTree('All uploads are back, byte for byte', before.uploads, await readTree(folders.west.uploads)),
    sameTree('All settings are back, byte for byte', before.settings, await readTree(folders.west.settings)),
    await changesAreSeen(world, before),
  ];
  // The customers' own clock, from the disaster on: dr counts from the moment at which it was asked.
  const outageMs = firstAtWest === undefined ? undefined : firstAtWest.acceptedAtMs - ruin.atMs;
  const rto = {
    achievedMs: outageMs,
    objectiveMs: run.rto.objectiveMs,
    met: run.rto.met && outageMs !== undefined && outageMs <= run.rto.objectiveMs,
  };
  const rpo = { achievedMs: orders.lostMs, objectiveMs: rpoObjectiveMs, met: orders.lostMs <= rpoObjectiveMs };
  facts.push(
    fact(
      'RTO is met',
      rto.met,
      outageMs === undefined
        ? 'nobody could order'
        : `the first order at west ${formatDuration(outageMs)} after the disaster`,
    ),
    fact(
      'RPO is met',
      rpo.met && orders.confirmed > 0,
      `${orders.confirmed - orders.lost} of ${orders.confirmed} confirmed orders are at west`,
    ),
  );
  return {
    ok: facts.every(({ ok }) => ok),
    facts,
    databaseBytes: world.databaseBytes,
    orders,
    disasterAtMs: ruin.atMs,
    rto,
    rpo,
    stages: stagesOf(run, ruin, firstAtWest?.acceptedAtMs),
    run,
  };
}

/** Where the time went, from the disaster to the first order: before dr began, its stages, and until customers followed the name. */
function stagesOf(run: RunReport, ruin: Ruin, firstOrderMs: number | undefined): DemoReport['stages'] {
  const redirected = run.stages.find(({ name }) => name === 'redirect')?.endedAtMs;
  return [
    { name: 'begin', ms: run.startedAtMs - ruin.atMs },
    ...run.stages.filter(({ name }) => name !== 'stabilize').map(({ name, ms }) => ({ name, ms })),
    {
      name: 'DNS caches',
      ms: redirected === undefined || firstOrderMs === undefined ? undefined : Math.max(0, firstOrderMs - redirected),
    },
  ];
}

/**
 * Orders that are confirmed side by side may be committed in another order than placed, but never so far apart. Whatever is
 * missing beyond that would be a hole.
 */
const sideBySideMs = 1000;

/** Compares every order that was confirmed at east with what west has. */
async function countOrders({ customers }: World, ruin: Ruin): Promise<{ orders: DemoReport['orders']; noHole: Fact }> {
  const confirmed = customers.accepted.filter(({ site }) => site === 'east');
  const { known } = await customers.askJson<{ known: string[] }>(
    'POST',
    '/orders/known',
    confirmed.map(({ reference }) => reference),
  );
  const there = new Set(known);
  const lost = confirmed.filter(({ reference }) => !there.has(reference));
  const [oldest] = lost;
  const newest = confirmed.findLast(({ reference }) => there.has(reference));
  const apartMs = oldest === undefined || newest === undefined ? 0 : newest.placedAtMs - oldest.placedAtMs;
  return {
    orders: {
      confirmed: confirmed.length,
      lost: lost.length,
      lostMs: oldest === undefined ? 0 : Math.max(0, ruin.atMs - oldest.placedAtMs),
      confirmedAtWest: customers.accepted.filter(({ site }) => site === 'west').length,
    },
    noHole: fact(
      'No hole: everything before the newest recovered order is there',
      newest !== undefined && apartMs <= sideBySideMs,
      newest === undefined ? 'no order came back' : `up to order ${newest.id} of ${confirmed.at(-1)?.id}`,
    ),
  };
}

async function nameLeadsWest({ nameserver, network }: World): Promise<Fact> {
  const { values, ttlSeconds } = await askServer(nameserver, shopName, 'A', 2000);
  const ok = values.length === 1 && values[0] === network.west.published;
  return fact(
    `The DNS answers ${network.west.published} for ${shopName}`,
    ok,
    `${values.join(', ')}, TTL ${ttlSeconds} s`,
  );
}

async function lastOrderIsRead({ customers }: World): Promise<Fact> {
  const what = 'A customer reads the last order at west, by name';
  const newest = customers.accepted.findLast(({ site }) => site === 'west');
  const { site, order } = await customers.askJson<{
    site: string;
    order: { id: number; customer: string; amountCents: number; currency: string } | null;
  }>('GET', '/orders/latest');
  if (order === null) return fact(what, false, `${site} has no order`);
  const amount = `${(order.amountCents / 100).toFixed(2)} ${order.currency}`;
  return fact(
    what,
    site === 'west' && newest !== undefined && order.id >= newest.id,
    `order ${order.id} of ${order.customer} over ${amount}, answered by ${site}`,
  );
}

async function historyIsTheSame({ database, network }: World, before: Before): Promise<Fact> {
  const now = await fingerprint(urlOf({ ...database, port: network.databasePorts.west }, 'postgres'));
  const rows = now.split('\n').reduce((sum, line) => sum + Number(line.split(' ')[1]), 0);
  const ok = now === before.history;
  const detail = ok
    ? `${rows} rows of customers, products and invoices, same checksums`
    : `was\n${before.history}\nis\n${now}`;
  return fact('Years of history are back, row for row', ok, detail);
}

/** What changed last at east: the setting, and the picture, fetched from the shop by name. */
async function changesAreSeen({ customers }: World, before: Before): Promise<Fact> {
  const { settings } = await customers.askJson<{ settings: { notice?: string } }>('GET', '/shop');
  const picture = await customers.ask('GET', '/uploads/new-picture.jpg');
  const digest = createHash('sha256').update(picture.body).digest('hex');
  const ok = settings.notice === before.notice && digest === before.uploads.digests.get('new-picture.jpg');
  return fact(
    'The last changes are served by west',
    ok,
    `the shop says "${settings.notice}", and shows the new picture (${picture.body.length} bytes)`,
  );
}

function sameTree(what: string, wanted: Tree, found: Tree): Fact {
  const different = differences(wanted, found);
  const ok = different.length === 0 && wanted.digests.size > 0;
  return fact(what, ok, ok ? sizeText(found) : `${different.length} files differ: ${different.slice(0, 5).join(', ')}`);
}

function fact(what: string, ok: boolean, detail: string): Fact {
  return { what, ok, detail };
}
