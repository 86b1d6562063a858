import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { listRunIds } from '../../src/runbook/journal.ts';
import { readReport } from '../../src/runbook/run-report.ts';
import { DisasterWorld, ORDERS, PHOTO_BYTES, pause } from './disaster-world.ts';

// The same disaster again and again: `dr failover` is killed with -9 at random moments, and resumed until it ends. DR_FAILOVERS=100 does it
// as often; DR_SEED repeats a history.
const rounds = Number(process.env['DR_FAILOVERS'] ?? 1);
const seed = Number(process.env['DR_SEED'] ?? Date.now() % 1_000_000);
const random = mulberry(seed);
const failover = ['failover', '--yes', '--reason', 'a test', '--json'];

let world: DisasterWorld;
let undisturbedMs = 0;

beforeAll(async () => {
  world = await DisasterWorld.create('kill-failover');
}, 60_000);

afterAll(async () => await world?.close());

describe(`failovers killed with -9 at random moments (seed ${seed})`, () => {
  it(
    'each ends with one writable primary, every commit, DNS at the right site, and a whole report',
    async () => {
      await world.anew();
      const begun = performance.now();
      await endsWell('undisturbed');
      undisturbedMs = performance.now() - begun;
      for (let round = 1; round <= rounds; round++) {
        await world.anew();
        const kills = 1 + Math.floor(random() * 3);
        for (let kill = 0; kill < kills; kill++) {
          const process = world.start(...failover);
          await Promise.race([pause(random() * undisturbedMs), process.ended]);
          await process.kill9();
        }
        await endsWell(`round ${round} of seed ${seed}, ${kills} kills`);
      }
    },
    120_000 + rounds * 60_000,
  );
});

/** Gives the command again until it has ended, and looks at everything. */
async function endsWell(what: string): Promise<void> {
  const { code, stdout, stderr } = await world.run(...failover);
  // 11: the last kill came after the end, and nothing fails back by itself.
  expect([0, 11], `${what}: ${stdout}${stderr}`).toContain(code);
  const ids = await listRunIds(world.west);
  expect(ids, what).toHaveLength(1);
  const report = await readReport(world.west, ids[0] ?? '');
  expect(report, what).toMatchObject({ outcome: 'succeeded', runbook: 'failover', site: 'west' });
  expect(
    report.resources.map(({ name, status }) => `${name} ${status}`),
    what,
  ).toEqual(['orders recovered', 'uploads recovered']);
  expect(
    report.steps.every(({ status }) => status === 'done' || status === 'skipped'),
    what,
  ).toBe(true);
  expect(world.dns.zone.published('orders.demo.test', 'A')?.[0]?.values, what).toEqual(['198.51.100.10']);
  expect(await world.served(), what).toEqual({ n: ORDERS, last: ORDERS, standby: false });
  expect((await readFile(join(world.root, 'west/uploads/photo.bin'))).length, what).toBe(PHOTO_BYTES);
}

/** A small generator of random numbers that a seed repeats. */
function mulberry(from: number): () => number {
  let state = from;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
