import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { startNode } from '../harness/process.ts';

const clone = join(import.meta.dirname, '../..');
const demo = join(clone, 'demo/main.ts');

/** Worlds in `.demo/`: somebody may have kept one, and another demo may run. */
function worlds(): string[] {
  const folder = join(clone, '.demo');
  return existsSync(folder) ? readdirSync(folder) : [];
}

/** Command lines of the processes that name a world; undefined where the system does not tell by file. */
function processesOf(world: string): string[] | undefined {
  if (!existsSync('/proc/self/cmdline')) return undefined;
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ');
      } catch {
        return []; // It has ended meanwhile.
      }
    })
    .filter((line) => line.includes(world));
}

test('npm run demo: a region is lost, the shop comes back at the other one (takes about a minute)', {
  timeout: 300_000,
}, async () => {
  const before = worlds();
  await using playing = startNode(demo, ['--json']);
  // Narrated as soon as the world stands, which is then found by its folder.
  await playing.waitFor(/dr daemon protects site east/);
  const mine = worlds().filter((name) => !before.includes(name));
  expect(mine).not.toEqual([]);

  const { code, stdout, stderr } = await playing.ended;
  expect(code, stderr + stdout).toBe(0);
  const report = JSON.parse(stdout);
  expect(report.facts.filter(({ ok }: { ok: boolean }) => !ok)).toEqual([]);
  expect(report.ok).toBe(true);
  expect(report.databaseBytes).toBeGreaterThan(200_000_000);
  expect(report.orders.confirmed).toBeGreaterThan(100);
  expect(report.orders.confirmedAtWest).toBeGreaterThan(0);
  expect(report.rto).toMatchObject({ objectiveMs: 3_600_000, met: true });
  expect(report.rpo).toMatchObject({ objectiveMs: 900_000, met: true });
  expect(report.stages.map(({ name }: { name: string }) => name)).toEqual([
    'begin',
    'assess',
    'activate',
    'restore',
    'validate',
    'redirect',
    'DNS caches',
  ]);
  expect(report.run).toMatchObject({ mode: 'failover', from: 'east', site: 'west', outcome: 'succeeded' });

  for (const world of mine) {
    expect(existsSync(join(clone, '.demo', world))).toBe(false);
    expect(processesOf(world) ?? []).toEqual([]);
  }
});

test('npm run demo: interrupted by Ctrl-C, nothing is left', { timeout: 120_000 }, async () => {
  const before = worlds();
  await using playing = startNode(demo, []);
  await playing.waitFor(/The shop at both sites/);
  const mine = worlds().filter((name) => !before.includes(name));
  expect(mine).not.toEqual([]);
  const running = processesOf(mine[0] ?? '');
  if (running) expect(running.some((line) => line.includes('bin/postgres'))).toBe(true);

  const { code } = await playing.stop('SIGINT');
  expect(code).toBe(130);
  for (const world of mine) {
    expect(existsSync(join(clone, '.demo', world))).toBe(false);
    expect(processesOf(world) ?? []).toEqual([]);
  }
});

test('npm run demo: killed with SIGKILL, its reaper leaves nothing either', { timeout: 120_000 }, async () => {
  const before = worlds();
  await using playing = startNode(demo, []);
  await playing.waitFor(/The shop at both sites/);
  const mine = worlds().filter((name) => !before.includes(name));
  const [world = ''] = mine;
  await playing.kill9();
  // The reaper is a process of its own that nobody can wait for: its end shows by the folder.
  for (const until = Date.now() + 60_000; existsSync(join(clone, '.demo', world)) && Date.now() < until; )
    await new Promise((resolve) => setTimeout(resolve, 50));
  expect(existsSync(join(clone, '.demo', world))).toBe(false);
  const left = (processesOf(world) ?? []).filter((line) => !line.includes('reaper.ts'));
  expect(left).toEqual([]);
});
