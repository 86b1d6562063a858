import { beforeEach, describe, expect, test } from 'vitest';
import { applyRetention } from '../../../src/backup/retention/collect.ts';
import { clearHolds, setHold } from '../../../src/backup/retention/holds.ts';
import { readRetentionMark, writeRetentionMark } from '../../../src/backup/retention/mark.ts';
import { markOutcome } from '../../../src/backup/retention/outcome.ts';
import type { Status } from '../../../src/backup/status/model.ts';
import { measureStatus } from '../../../src/backup/status/status.ts';
import { DrError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import { layout } from '../../../src/vault/layout.ts';
import { encodeRecord } from '../../../src/vault/record.ts';
import { damage, day, hour, keysOf, putBackup, TestTime } from '../care/vault-fixture.ts';
import { FaultyStore } from '../faulty-store.ts';

let time: TestTime;
let east: FaultyStore;
let west: FaultyStore;

beforeEach(async () => {
  time = new TestTime();
  east = new FaultyStore(time.vault('east'));
  west = new FaultyStore(time.vault('west'));
  await time.ago(49 * hour, () => backup());
});

const backup = () => putBackup([east, west], { time, resource: 'uploads', kind: 'data' });

const measure = (retentionEveryMs: number | undefined = day): Promise<Status> =>
  measureStatus({
    stores: [east, west],
    resources: [
      {
        name: 'uploads',
        kind: 'data',
        schedule: 'daily',
        intervalMs: 1000 * day,
        rpoMs: undefined,
        retentionMs: 90 * day,
        wal: false,
        verifyEveryMs: undefined,
        nextRun: () => undefined,
      },
    ],
    siteRegions: { east: 'region-east', west: 'region-west' },
    firstActive: 'east',
    rtoMs: hour,
    retentionEveryMs,
    clock: time,
  });

const ofRetention = ({ alerts }: Status) => alerts.filter(({ message }) => message.startsWith('retention'));

/** Retention as the daemon does it. */
async function retain(): Promise<void> {
  const policies = new Map([['uploads', { kind: 'data' as const, retentionMs: 90 * day, keepAtLeast: 1 }]]);
  const report = await applyRetention({ stores: [east, west], policies, clock: time, log: silentLog });
  await markOutcome([east, west], report, { nowMs: time.now(), site: 'east' }, silentLog);
}

describe('retention that did not happen', () => {
  test('is an alert after twice its interval, never done or done once', async () => {
    expect(ofRetention(await measure())).toMatchObject([
      {
        level: 'warning',
        message: expect.stringMatching(/not been done .* since the first backup 2 d 1 h ago.*nobody/),
      },
    ]);
    await retain();
    const done = await measure();
    expect(ofRetention(done)).toEqual([]);
    expect(done.retention).toEqual({ doneMs: time.now(), overdue: false, blocked: undefined });
    time.nowMs += 47 * hour;
    expect(ofRetention(await measure())).toEqual([]);
    time.nowMs += 2 * hour;
    expect(ofRetention(await measure())).toMatchObject([
      { message: expect.stringMatching(/last done in all vaults 2 d 1 h ago, and every 24 h is configured; nobody/) },
    ]);
    expect(ofRetention(await measure(7 * day))).toEqual([]);
  });

  test('young vaults have missed nothing', async () => {
    await east.delete(await keysOf(east, 'manifests/'));
    await west.delete(await keysOf(west, 'manifests/'));
    expect(ofRetention(await measure())).toEqual([]);
    await backup();
    expect(ofRetention(await measure())).toEqual([]);
  });

  test('says that a hold stood in its way, and nothing once it was done again', async () => {
    await retain();
    time.nowMs += 3 * day;
    await setHold([west], { reason: 'disk on fire', by: 'alice', nowMs: time.now() });
    await retain();
    expect(ofRetention(await measure())).toMatchObject([
      { message: expect.stringMatching(/it stopped: hold .* disk on fire/) },
    ]);
    expect((await measure()).retention).toMatchObject({
      overdue: true,
      blocked: expect.stringMatching(/disk on fire/),
    });
    await clearHolds([west], { by: 'alice', nowMs: time.now() });
    await retain();
    expect(ofRetention(await measure())).toEqual([]);
    expect((await measure()).retention).toEqual({ doneMs: time.now(), overdue: false, blocked: undefined });
  });

  test('says that doubt stood in its way: a manifest that cannot be read, a vault that refuses', async () => {
    const [manifest = ''] = await keysOf(east, 'manifests/');
    await damage(east, manifest);
    await retain();
    expect(ofRetention(await measure())[0]?.message).toMatch(
      /stopped: vault east: nothing is deleted while .* cannot be read/,
    );
    await damage(east, manifest);
    time.nowMs += hour;
    east.fail = (kind, key) =>
      kind === 'create' && key.startsWith('leases/') ? new DrError('denied', 'not your vault') : undefined;
    await retain();
    expect(ofRetention(await measure())[0]?.message).toMatch(/stopped: vault east: not your vault/);
  });

  test('what one vault alone was told counts, the later word of each kind', async () => {
    const at = (ms: number) => new Date(time.now() + ms).toISOString();
    await writeRetentionMark([east], { done: { at: at(-5000), site: 'a', freedBytes: 1 } }, silentLog);
    await writeRetentionMark([west], { blocked: { at: at(-4000), site: 'b', why: 'no' } }, silentLog);
    await writeRetentionMark([west], { done: { at: at(-9000), site: 'c', freedBytes: 2 } }, silentLog);
    expect(await readRetentionMark([east, west])).toMatchObject({ done: { site: 'a' }, blocked: { why: 'no' } });
    east.fail = () => new DrError('unreachable', 'away');
    expect(await readRetentionMark([east, west])).toMatchObject({ done: { site: 'c' } });
    west.fail = east.fail;
    await expect(readRetentionMark([east, west])).rejects.toThrow('away');
  });

  test('a mark of version 0.1 is understood, a damaged one is none', async () => {
    const mark = { format: 1, finishedAt: '2026-11-01T00:00:00.000Z', site: 'east', freedBytes: 5 };
    await east.overwrite(layout.retentionDone, encodeRecord(mark));
    expect(await readRetentionMark([east])).toEqual({ done: { at: mark.finishedAt, site: 'east', freedBytes: 5 } });
    await damage(east, layout.retentionDone);
    expect(await readRetentionMark([east])).toBeUndefined();
  });
});
