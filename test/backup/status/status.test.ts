import { beforeEach, describe, expect, test } from 'vitest';
import { recordActiveSite } from '../../../src/backup/active-site.ts';
import { setHold } from '../../../src/backup/retention/holds.ts';
import type { WatchedResource } from '../../../src/backup/status/model.ts';
import { measureStatus, type StatusOptions } from '../../../src/backup/status/status.ts';
import { writeWatchHeartbeat } from '../../../src/backup/status/watch.ts';
import type { WalHeartbeat } from '../../../src/backup/wal/heartbeat.ts';
import { DrError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import { formatLsn } from '../../../src/postgres/lsn.ts';
import { layout } from '../../../src/vault/layout.ts';
import { encodeRecord } from '../../../src/vault/record.ts';
import type { ObjectStore } from '../../../src/vault/store.ts';
import {
  damage,
  day,
  hour,
  MIB,
  putBackup,
  putVerification,
  SYSTEM,
  TestTime,
  walSession,
} from '../care/vault-fixture.ts';
import { FaultyStore } from '../faulty-store.ts';

const minute = 60_000;
let time: TestTime;
let east: FaultyStore;
let west: FaultyStore;

beforeEach(() => {
  time = new TestTime();
  east = new FaultyStore(time.vault('east'));
  west = new FaultyStore(time.vault('west'));
});

const orders: WatchedResource = {
  name: 'orders',
  kind: 'database',
  schedule: 'every 6 hours',
  intervalMs: 6 * hour,
  rpoMs: 15 * minute,
  retentionMs: 30 * day,
  wal: true,
  verifyEveryMs: day,
  nextRun: (nowMs) => nowMs + hour,
};
const uploads: WatchedResource = {
  ...orders,
  name: 'uploads',
  kind: 'data',
  schedule: 'daily',
  intervalMs: day,
  rpoMs: undefined,
  wal: false,
  verifyEveryMs: undefined,
};
const settings: WatchedResource = {
  ...uploads,
  name: 'settings',
  kind: 'configuration',
  schedule: 'on change',
  intervalMs: undefined,
  nextRun: () => undefined,
};

const status = (resources: readonly WatchedResource[], facts: Partial<StatusOptions> = {}) =>
  measureStatus({
    stores: [east, west],
    resources,
    siteRegions: { east: 'region-east', west: 'region-west' },
    firstActive: 'east',
    rtoMs: hour,
    clock: time,
    ...facts,
  });
const broken = (found: Awaited<ReturnType<typeof status>>) =>
  found.alerts.filter(({ level }) => level === 'broken').map(({ message }) => message);
const warnings = (found: Awaited<ReturnType<typeof status>>) =>
  found.alerts.filter(({ level }) => level === 'warning').map(({ message }) => message);

/** A base backup two hours old whose WAL (segments 2 and 3) reaches to one minute ago. */
async function protectedOrders(stores: readonly ObjectStore[] = [east, west]) {
  const backup = await time.ago(2 * hour, () => putBackup(stores, { time, walSegment: 2 }));
  const session = await time.ago(2 * hour, () => walSession(stores, time));
  await time.ago(2 * hour, () => session.segment(2));
  await time.ago(minute, () => session.piece(3, 0, 5000));
  await putVerification(stores, backup, time);
  return { backup, session };
}

async function heartbeat(store: ObjectStore, ageMs: number, lsn: bigint): Promise<void> {
  const beat: WalHeartbeat = {
    format: 1,
    resource: 'orders',
    systemId: SYSTEM,
    timeline: 1,
    lsn: formatLsn(lsn),
    receivedLsn: formatLsn(lsn),
    serverClockMs: time.now() - ageMs,
    writtenAt: new Date(time.now() - ageMs).toISOString(),
    connected: true,
    site: 'east',
    host: 'h',
    everyMs: 5000,
  };
  await store.overwrite(layout.walHeartbeat('orders'), encodeRecord(beat));
}

describe('recovery point of a database', () => {
  test('is what its WAL in the other region proves', async () => {
    const { backup } = await protectedOrders();
    const found = await status([orders]);
    expect(found.alerts).toEqual([]);
    expect(found).toMatchObject({ ok: true, active: { site: 'east', region: 'region-east', recorded: false } });
    expect(found.resources[0]).toMatchObject({
      rpoNowMs: minute,
      objectiveMs: 15 * minute,
      crossRegion: true,
      newest: { id: backup.id },
      nextRunMs: time.now() + hour,
      vaults: [{ walEnd: formatLsn(BigInt(3 * MIB + 5000)) }, {}],
    });
  });

  test('an idle database is current by its heartbeat, if the WAL that it speaks of is there', async () => {
    await protectedOrders();
    time.nowMs += 5 * hour;
    expect(broken(await status([orders]))).toEqual([expect.stringMatching(/5 h 1 min of orders would be lost now/)]);
    await heartbeat(west, 3000, BigInt(3 * MIB + 5000));
    expect((await status([orders])).resources[0]?.rpoNowMs).toBe(3000);
    await heartbeat(west, 3000, BigInt(3 * MIB + 6000));
    const hole = await status([orders]);
    expect(hole.resources[0]?.rpoNowMs).toBe(5 * hour + minute);
    expect(warnings(hole).join()).toMatch(/west: the WAL has a hole at 0\/301388: it is said to reach 0\/301770/);
  });

  test('counts only what would survive: WAL in the active region alone breaks the objective', async () => {
    const { session } = await protectedOrders();
    time.nowMs += 20 * minute;
    const key = await session.piece(3, 5000, 1000);
    await west.delete([key]);
    const found = await status([orders]);
    expect(found.resources[0]).toMatchObject({ rpoNowMs: 21 * minute, crossRegion: false, ok: false });
    expect(found.resources[0]?.vaults[0]?.recoveryPointMs).toBe(time.now());
    expect(warnings(found).join()).toMatch(/not cross-region/);
    await recordActiveSite([east, west], { site: 'west', since: '2026-11-23', by: 'test' }, silentLog);
    // With the west active it is the east that would be left, and that has everything.
    expect((await status([orders])).resources[0]?.rpoNowMs).toBe(0);
  });

  test('a hole in the WAL ends it there; a base without its WAL does not count', async () => {
    const { session } = await protectedOrders();
    await time.ago(30_000, () => session.segment(5));
    expect((await status([orders])).resources[0]?.rpoNowMs).toBe(minute);
    const newer = await putBackup([east, west], { time, walSegment: 7 });
    const found = await status([orders]);
    expect(found.resources[0]?.rpoNowMs).toBe(minute);
    expect(warnings(found).join()).toContain(`the WAL that base backup ${newer.id} needs is missing`);
  });

  test('an old base backup is a warning while the WAL keeps the objective', async () => {
    await protectedOrders();
    time.nowMs += 8 * hour;
    await heartbeat(west, 0, BigInt(3 * MIB + 5000));
    await heartbeat(east, 0, BigInt(3 * MIB + 5000));
    const found = await status([orders]);
    expect(found.ok).toBe(true);
    expect(warnings(found)).toEqual([expect.stringMatching(/newest base backup of orders is 10 h/)]);
  });
});

describe('directories', () => {
  test('without an objective of its own the schedule is the promise, with a quarter for the work itself', async () => {
    await time.ago(29 * hour, () => putBackup([east, west], { time, resource: 'uploads', kind: 'data' }));
    expect((await status([uploads])).ok).toBe(true);
    time.nowMs += 2 * hour;
    expect(broken(await status([uploads]))).toEqual([expect.stringMatching(/31 h of uploads would be lost now/)]);
  });

  test('backed up on change nothing is promised; with an objective a watcher proves that nothing changed', async () => {
    const backup = await time.ago(20 * day, () =>
      putBackup([east, west], { time, resource: 'settings', kind: 'configuration' }),
    );
    expect((await status([settings])).ok).toBe(true);
    const strict = { ...settings, rpoMs: hour };
    expect((await status([strict])).ok).toBe(false);
    const facts = { resource: 'settings', backupId: backup.id, unchangedAtMs: time.now() - minute, site: 'east' };
    for (const store of [east, west]) await writeWatchHeartbeat(store, facts);
    expect((await status([strict])).resources[0]).toMatchObject({ ok: true, rpoNowMs: minute });
  });

  test('a backup that lacks what could not be read is good, and said to be degraded', async () => {
    const facts = { time, resource: 'settings', kind: 'configuration' } as const;
    const notes = [
      { kind: 'unreadable' as const, subject: 'widgets.example.com', detail: 'dr may not list widgets' },
      { kind: 'unreadable' as const, subject: 'namespace shop', detail: 'it was deleted while it was read' },
      { kind: 'vanished' as const, subject: 'lock', detail: 'gone' },
    ];
    await putBackup([east, west], { ...facts, notes });
    const found = await status([settings]);
    expect(found.ok).toBe(true);
    expect(warnings(found)).toEqual([
      'the newest backup of settings is degraded: widgets.example.com could not be read (dr may not list widgets), and 1 more',
    ]);
    expect(found.resources[0]?.newest?.losses).toHaveLength(2);
    time.nowMs += minute;
    await putBackup([east, west], facts);
    expect(warnings(await status([settings]))).toEqual([]);
  });

  test('a configured resource without any backup is broken', async () => {
    expect(broken(await status([uploads, settings]))).toEqual([
      'uploads cannot be recovered: west has no backup of it',
      'settings cannot be recovered: west has no backup of it',
    ]);
  });

  test('a damaged newest manifest is shown and the one before it counts', async () => {
    const older = await time.ago(2 * hour, () => putBackup([east, west], { time, resource: 'uploads', kind: 'data' }));
    const newer = await time.ago(1 * hour, () => putBackup([east, west], { time, resource: 'uploads', kind: 'data' }));
    await damage(west, layout.manifest('uploads', newer.id));
    const found = await status([uploads]);
    expect(found.resources[0]?.rpoNowMs).toBe(2 * hour);
    expect(found.resources[0]?.vaults[1]?.backup?.id).toBe(older.id);
    expect(warnings(found).join()).toContain(layout.manifest('uploads', newer.id));
  });
});

describe('verification', () => {
  test('one that failed, one that is too old and one that never came break the objective', async () => {
    const { backup } = await protectedOrders();
    await putVerification([west], backup, new TestTime(time.now() + 1), { ok: false, failure: 'orders is empty' });
    expect(broken(await status([orders]))).toEqual([
      expect.stringMatching(/verification of orders .* failed: orders is empty/),
    ]);
    await putVerification([west], backup, new TestTime(time.now() + 2));
    expect((await status([orders])).ok).toBe(true);
    const never = { ...uploads, verifyEveryMs: day };
    await time.ago(10 * hour, () => putBackup([east, west], { time, resource: 'uploads', kind: 'data' }));
    expect((await status([never])).ok).toBe(true);
    await time.ago(50 * hour, () => putBackup([east, west], { time, resource: 'uploads', kind: 'data' }));
    expect(broken(await status([never]))).toEqual([expect.stringMatching(/uploads has never been verified/)]);
    time.nowMs += 31 * hour;
    expect(broken(await status([orders])).join()).toMatch(/orders was last verified 31 h ago/);
  });

  test('a restore that takes longer than the RTO breaks it', async () => {
    const { backup } = await protectedOrders();
    await putVerification([west], backup, new TestTime(time.now() + 1), { restoreMs: 2 * hour });
    expect(broken(await status([orders]))).toEqual([
      expect.stringMatching(/took 2 h in its last verification; the RTO is 1 h/),
    ]);
  });
});

describe('vaults', () => {
  test('one that does not answer is shown; when it is what would survive, nothing can be promised', async () => {
    await protectedOrders();
    east.fail = () => new DrError('unreachable', 'no answer');
    const fine = await status([orders]);
    expect(fine.ok).toBe(true);
    expect(fine.vaults[0]).toMatchObject({ vault: 'east', problem: 'no answer', survives: false });
    expect(warnings(fine).join()).toMatch(/vault east cannot be read: no answer/);
    east.fail = () => undefined;
    west.fail = () => new DrError('unreachable', 'no answer');
    expect(broken(await status([orders]))).toEqual([expect.stringMatching(/cannot be measured: no answer from west/)]);
    east.fail = () => new DrError('unreachable', 'no answer');
    await expect(status([orders])).rejects.toMatchObject({ kind: 'unreachable' });
  });

  test('what one vault lacks is counted, without what retention has deleted elsewhere', async () => {
    await time.ago(40 * day, () => putBackup([east], { time, resource: 'uploads', kind: 'data' }));
    await time.ago(3 * hour, () => putBackup([east], { time, resource: 'uploads', kind: 'data' }));
    await time.ago(2 * hour, () => putBackup([east, west], { time, resource: 'uploads', kind: 'data' }));
    const found = await status([uploads]);
    expect(found.vaults.map(({ vault, lacks }) => [vault, lacks])).toEqual([
      ['east', 0],
      ['west', 1],
    ]);
    expect(found.ok).toBe(true);
    expect(warnings(found)).toEqual([expect.stringMatching(/vault west lacks one backup/)]);
  });

  test('a hold is shown, and does not break anything', async () => {
    await protectedOrders();
    await setHold([west], { reason: 'incident 7', by: 'alice', nowMs: time.now() });
    const found = await status([orders]);
    expect(found.ok).toBe(true);
    expect(warnings(found)).toEqual([expect.stringMatching(/incident 7/)]);
  });
});
