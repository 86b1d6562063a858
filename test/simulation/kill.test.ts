import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { examineVault } from '../../src/backup/care/check-vault.ts';
import { copyMissing } from '../../src/backup/care/repair.ts';
import { listBackupIds, readManifest } from '../../src/backup/catalog.ts';
import { restoreBackup } from '../../src/backup/restore.ts';
import { applyRetention } from '../../src/backup/retention/collect.ts';
import { silentLog } from '../../src/base/log.ts';
import { KeyRing } from '../../src/vault/keys.ts';
import { openVaults } from '../../src/vault/roster.ts';
import { SealPool } from '../../src/vault/seal-pool.ts';
import { nodeBinary, startProcess, type TestProcess } from '../harness/process.ts';
import { tempDir } from '../harness/temp.ts';
import { contentOf, openShifted, policies, shiftedClock } from './kill-world.ts';
import { Random } from './random.ts';

/** `DR_KILLS=500` for more (about ten minutes); `DR_KILLS_SEED` decides who is killed when (what the processes do meanwhile is up to the machine). */
const KILLS = Number(process.env['DR_KILLS'] ?? 15);
const SEED = Number(process.env['DR_KILLS_SEED'] ?? 1);
/** After so many kills time passes: old backups expire, and what the dead have left may go. */
const KILLS_IN_EPOCH = KILLS > 50 ? 10 : 5;
const EPOCH_MS = 60 * 3_600_000;
const WORK = ['uploads', 'settings', 'retention', 'repair'] as const;

const pool = new SealPool(2);
let folder: string;
let recipient: string;
let keyRing: KeyRing;
const shifts: Array<[number, number]> = [];

beforeAll(async () => {
  folder = await tempDir('kills');
  const identity = await generateIdentity();
  recipient = await identityToRecipient(identity);
  keyRing = new KeyRing([identity]);
  for (const name of ['east', 'west', 'content', 'expected', 'scratch']) mkdirSync(path.join(folder, name));
  timePasses();
  const { east, west } = openShifted(folder);
  await openVaults([east, west], { log: silentLog });
});
afterAll(async () => await pool.close());

function timePasses(): void {
  shifts.push([Date.now(), shifts.length * EPOCH_MS]);
  writeFileSync(path.join(folder, 'shifts.json'), JSON.stringify(shifts));
}

function start(work: string): TestProcess {
  return startProcess(nodeBinary, [path.join(import.meta.dirname, 'kill-child.ts'), folder, recipient, work]);
}

/** Each vault restores each of its backups, byte for byte one of the states that were backed up. */
async function restoreAll(): Promise<number> {
  let restored = 0;
  const expected = new Set(readdirSync(path.join(folder, 'expected')));
  for (const store of Object.values(openShifted(folder))) {
    for (const resource of policies.keys()) {
      for (const id of await listBackupIds(store, resource)) {
        const target = path.join(folder, `restored-${id}`);
        const manifest = await readManifest(store, resource, id);
        await restoreBackup({ store, manifest, keyRing, pool, target });
        const digest = createHash('sha256')
          .update(JSON.stringify(contentOf(target)))
          .digest('hex');
        expect(expected, `${resource} ${id} from ${store.name}`).toContain(digest);
        rmSync(target, { recursive: true });
        restored++;
      }
    }
  }
  return restored;
}

test(`${KILLS} random kills during backup, retention and repair: each vault restores every backup that was kept`, {
  timeout: 1e8,
}, async () => {
  const random = new Random(SEED);
  const said: string[] = [];
  let restored = 0;
  for (let kills = 0; kills < KILLS; ) {
    const running = new Map<string, TestProcess>(WORK.map((work) => [work, start(work)]));
    await Promise.all([...running.values()].map((process) => process.waitFor(/begins/)));
    for (let n = 0; n < KILLS_IN_EPOCH && kills < KILLS; n++, kills++) {
      await new Promise((resolve) => setTimeout(resolve, random.below(400)));
      const work = random.pick(WORK);
      const victim = running.get(work);
      if (!victim) continue;
      const { signal, stdout, stderr } = await victim.kill9();
      expect(signal, `${work} ended by itself: ${stderr}`).toBe('SIGKILL');
      said.push(...stdout.split('\n'));
      const next = start(work);
      running.set(work, next);
      await next.waitFor(/begins/);
    }
    for (const process of running.values()) {
      const { signal, stdout, stderr } = await process.kill9();
      expect(signal, stderr).toBe('SIGKILL');
      said.push(...stdout.split('\n'));
    }
    restored += await restoreAll();
    timePasses();
  }
  const count = (pattern: RegExp) => said.filter((line) => pattern.test(line)).length;
  const facts = {
    restored,
    begun: count(/^begins/),
    ended: count(/^(ends|stops)/),
    backups: count(/^ends (uploads|settings): .* in /),
    incremental: count(/ [1-9]\d* bytes used again/),
    collected: count(/^ends retention: (east [1-9]|.*west [1-9])/),
    copied: count(/^ends repair: [1-9]/),
  };
  process.stdout.write(`${KILLS} kills, seed ${SEED}: ${JSON.stringify(facts)}\n`);
  expect(facts.restored).toBeGreaterThan(0);
  expect(facts.incremental).toBeGreaterThan(0);
  expect(facts.collected).toBeGreaterThan(0);
  expect(facts.begun - facts.ended).toBeGreaterThan(KILLS / 4);

  // Afterwards everything is mended: both vaults are whole, equal, and without leftovers.
  const { east, west } = openShifted(folder);
  const clock = shiftedClock(folder);
  for (const [from, to] of [
    [east, west],
    [west, east],
  ] as const) {
    expect((await copyMissing({ from: [from], to, policies, clock, log: silentLog })).failed).toEqual([]);
  }
  timePasses();
  const later = openShifted(folder);
  const stores = [later.east, later.west];
  const report = await applyRetention({ stores, policies, clock: shiftedClock(folder), log: silentLog });
  expect(report.vaults.map(({ blocked }) => blocked)).toEqual([undefined, undefined]);
  for (const [store, other] of [
    [later.east, later.west],
    [later.west, later.east],
  ] as const) {
    const data = { share: 1, from: 0, seed: 'all' };
    const found = await examineVault({ store, others: [other], policies, data, clock: shiftedClock(folder) });
    expect(found.problems).toEqual([]);
    expect(found.orphans).toEqual({ objects: 0, bytes: 0 });
  }
  expect(await restoreAll()).toBeGreaterThanOrEqual(4);
});
