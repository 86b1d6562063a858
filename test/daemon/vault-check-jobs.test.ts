import { afterAll, beforeEach, expect, test } from 'vitest';
import { readCare } from '../../src/backup/care/care-record.ts';
import type { BackupContext } from '../../src/backup/context.ts';
import type { Manifest } from '../../src/backup/manifest.ts';
import { measureStatus } from '../../src/backup/status/status.ts';
import { silentLog } from '../../src/base/log.ts';
import type { VaultCheckConfig } from '../../src/config/types.ts';
import type { Job } from '../../src/daemon/job.ts';
import { createMetrics } from '../../src/daemon/metrics.ts';
import { checkJobName, readJobName, vaultCheckJobs } from '../../src/daemon/vault-check-jobs.ts';
import { layout } from '../../src/vault/layout.ts';
import { openVaults } from '../../src/vault/roster.ts';
import { SealPool } from '../../src/vault/seal-pool.ts';
import { damage, day, hour, putBackup, TestTime } from '../backup/care/vault-fixture.ts';
import { FaultyStore } from '../backup/faulty-store.ts';

const daily: VaultCheckConfig = {
  schedule: { kind: 'every', everyMs: day, text: 'daily' },
  readData: { kind: 'every', everyMs: 7 * day, text: 'weekly' },
  sample: 0.25,
  repair: true,
};
const signal = new AbortController().signal;
const pool = new SealPool(1);
afterAll(async () => await pool.close());
let time: TestTime;
let east: FaultyStore;
let west: FaultyStore;
let backups: Manifest[];

beforeEach(async () => {
  time = new TestTime();
  east = new FaultyStore(time.vault('east'));
  west = new FaultyStore(time.vault('west'));
  await time.ago(5 * hour, async () => {
    await openVaults([east, west], { log: silentLog });
    backups = [];
    for (let i = 0; i < 6; i++)
      backups.push(await putBackup([east, west], { time, resource: 'uploads', kind: 'data', parts: 4 }));
  });
});

/** The jobs of a daemon at the west site, made anew: they remember nothing. */
function jobs(facts: { config?: Partial<VaultCheckConfig>; ownVault?: string } = {}): Map<string, Job> {
  const context: BackupContext = {
    stores: [east, west],
    keyPolicy: 'none',
    pool,
    site: 'west',
    tool: 'dr test',
    compressionLevel: 1,
    partBytes: 1024,
    clock: time,
    log: silentLog,
  };
  const made = vaultCheckJobs({
    role: { state: { role: 'standby', active: undefined, askedMs: 0, error: undefined } },
    context,
    config: { ...daily, ...facts.config },
    policies: new Map([['uploads', { kind: 'data', retentionMs: 90 * day, keepAtLeast: 1 }]]),
    bare: [east, west],
    ownVault: facts.ownVault ?? 'west',
    documents: async () => ({}),
  });
  return new Map(made.map((job) => [job.name, job]));
}

const runs = async (
  name: string,
  facts: Parameters<typeof jobs>[0] = {},
  reason: 'scheduled' | 'asked' = 'scheduled',
) => await jobs(facts).get(name)?.run(signal, reason);
const status = async () =>
  await measureStatus({
    stores: [east, west],
    resources: [],
    siteRegions: { east: 'region-east', west: 'region-west' },
    firstActive: 'east',
    rtoMs: hour,
    vaultCheck: { checkEveryMs: day, readEveryMs: 7 * day },
    clock: time,
  });
const metrics = async () => {
  const now = await status();
  const registry = createMetrics('1', () => ({
    nowMs: time.now(),
    role: { role: 'standby', active: undefined, askedMs: 0, error: undefined },
    rtoMs: hour,
    stores: [east, west],
    vaults: [],
    status: now,
    jobs: [],
    services: [],
    archivers: [],
  }));
  return await registry.metrics();
};
const part = (backup: number, number: number) => backups[backup]?.parts[number]?.key ?? '';

test('what a check finds is mended by itself, and told to every vault, the status and the metrics', async () => {
  const bytes = await west.read(part(0, 1));
  await west.delete([part(0, 1), layout.manifest('uploads', backups[1]?.id ?? '')]);
  const facts = await runs(checkJobName('west'));
  expect(facts).toMatchObject({ mended: 1, backups: 1 });
  expect(await west.read(part(0, 1))).toEqual(bytes);
  for (const store of [east, west]) {
    expect(await readCare([store], 'west')).toMatchObject({
      check: { site: 'west', foreign: 0 },
      problems: 0,
      repair: { mended: 1, backups: 1, failed: 0, keys: [part(0, 1)] },
    });
  }
  const { alerts, vaults } = await status();
  expect(alerts).toEqual([]);
  expect(vaults.map(({ care }) => care?.repair?.mended)).toEqual([undefined, 1]);
  expect(await metrics()).toMatch(/dr_vault_mended_objects\{vault="west"\} 1\n/);
  expect(await metrics()).toMatch(/dr_vault_problems\{vault="west"\} 0\n/);
  time.nowMs += day;
  expect(await runs(checkJobName('west'))).not.toHaveProperty('mended');
  expect((await readCare([east], 'west'))?.repair).toMatchObject({ mended: 1 });
});

test('each reading takes another share; after as many as there are shares all of it was read once', async () => {
  const content = new Set(backups.flatMap(({ index, parts }) => [index.key, ...parts.map(({ key }) => key)]));
  const seen: string[][] = [];
  for (let week = 0; week < 4; week++) {
    const read: string[] = [];
    west.before = (kind, key) => void (kind === 'read' && content.has(key) && read.push(key));
    await runs(readJobName('west'));
    seen.push(read);
    time.nowMs += 7 * day;
  }
  expect(new Set(seen.flat())).toEqual(content);
  expect(seen.flat()).toHaveLength(content.size);
  expect((await readCare([west], 'west'))?.read).toMatchObject({ share: 0.25 });
  // The first share again.
  const again: string[] = [];
  west.before = (kind, key) => void (kind === 'read' && content.has(key) && again.push(key));
  await runs(readJobName('west'));
  expect(again.sort()).toEqual(seen[0]?.sort());
});

test('what no vault can give back is an objective broken, is looked at again by every check, and mended as soon as it can be', async () => {
  const key = part(2, 0);
  const good = await east.read(key);
  for (const store of [east, west]) await damage(store, key);
  await expect(runs(readJobName('west'), { config: { sample: 1 } })).rejects.toMatchObject({
    kind: 'corrupt',
    retryable: false,
    message: expect.stringContaining(
      `uploads: lost in every vault that answers: backups ${backups[2]?.id}; 5 backups remain`,
    ),
  });
  const { alerts, ok } = await status();
  expect(ok).toBe(false);
  expect(alerts).toMatchObject([{ level: 'broken', vault: 'west', message: expect.stringContaining('uploads: lost') }]);
  expect(await metrics()).toMatch(/dr_vault_losses\{vault="west"\} 1\n/);
  // A check of names only would not see it.
  await expect(runs(checkJobName('west'))).rejects.toMatchObject({ kind: 'corrupt' });
  expect((await status()).ok).toBe(false);
  await east.overwrite(key, good);
  expect(await runs(checkJobName('west'))).toMatchObject({ mended: 1 });
  expect(await west.read(key)).toEqual(good);
  expect((await status()).alerts).toEqual([]);
});

test('the vault of another site is left to that site, until it has not been looked at for one and a half intervals', async () => {
  await runs(checkJobName('east'), { ownVault: 'east' });
  const job = jobs().get(checkJobName('east'));
  time.nowMs += day;
  expect(await job?.lastDone(signal)).toBe('not-due');
  expect(await job?.run(signal, 'scheduled')).toEqual({ leftTo: 'the site of the vault' });
  time.nowMs += day / 2;
  expect(await job?.lastDone(signal)).toBe(time.nowMs - 1.5 * day);
  expect(await job?.run(signal, 'scheduled')).toMatchObject({ objects: expect.any(Number) });
  expect(await readCare([west], 'east')).toMatchObject({ check: { site: 'west' } });
});

test('without repair it is only reported; "never" makes no job; a check that was not made is an alert', async () => {
  await west.delete([part(0, 0)]);
  await expect(runs(checkJobName('west'), { config: { repair: false } })).rejects.toMatchObject({ kind: 'corrupt' });
  expect((await status()).alerts).toMatchObject([
    { level: 'warning', vault: 'west', message: expect.stringContaining('one object is missing or damaged') },
  ]);
  expect([...jobs({ config: { schedule: undefined, readData: undefined } })]).toEqual([]);
  time.nowMs += 2 * day;
  expect((await status()).alerts.map(({ message }) => message)).toContain(
    'check of vault west: last 2 d ago; every 24 h is configured',
  );
});

test('another process that checks the same vault is left alone', async () => {
  let second: unknown;
  west.before = async (kind, key) => {
    if (kind !== 'list' || key !== 'parts/') return;
    west.before = () => {};
    second = await runs(checkJobName('west')).catch((error: unknown) => error);
  };
  await runs(checkJobName('west'));
  expect(second).toMatchObject({ kind: 'lease-held' });
});
