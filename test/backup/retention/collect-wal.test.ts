import { describe, expect, test } from 'vitest';
import { examineVault } from '../../../src/backup/care/check-vault.ts';
import { applyRetention } from '../../../src/backup/retention/collect.ts';
import { silentLog } from '../../../src/base/log.ts';
import { layout } from '../../../src/vault/layout.ts';
import { openVaults } from '../../../src/vault/roster.ts';
import { damage, day, hour, keysOf, MIB, putBackup, SYSTEM, walSession } from '../care/vault-fixture.ts';
import { backupAgo, both, east, options, orders, time, west } from './vaults.ts';

describe('WAL', () => {
  test('goes with its base: only what lies before the oldest base that is kept, on every timeline', async () => {
    const [session] = await time.ago(40 * day, async () => {
      const open = await walSession(both(), time);
      for (const n of [1, 2, 3, 4, 5, 6]) await open.segment(n);
      await open.piece(3, 0, 1000, 2);
      await open.piece(5, 0, 1000, 2);
      for (const store of both()) await store.create(layout.walHistory(SYSTEM, 2), Buffer.from('history'));
      return [open];
    });
    await backupAgo(39 * day, { walSegment: 1 });
    await backupAgo(31 * day, { walSegment: 4 });
    await backupAgo(1 * day, { walSegment: 6 });
    const report = await applyRetention(options());
    expect(report.vaults.map(({ error }) => error)).toEqual([undefined, undefined]);
    const left = (await keysOf(east, 'wal/')).map((key) => key.slice(`wal/${SYSTEM}/`.length));
    expect(left).toEqual([
      '00000001/000000010000000000000004',
      '00000001/000000010000000000000005',
      '00000001/000000010000000000000006',
      '00000002.history',
      '00000002/000000020000000000000005.00000000-000003E8',
    ]);
    expect(await keysOf(east, 'keys/')).toContain(session.keyObject);
  });

  test('of a base that only a rule of the calendar keeps, what makes it consistent stays, and nothing between it and the window', async () => {
    await openVaults(both(), { log: silentLog });
    const session = await time.ago(100 * day, () => walSession(both(), time));
    for (let n = 0; n <= 12; n++) await time.ago((100 - 8 * n) * day, () => session.segment(n));
    await time.ago(70 * day, () => session.piece(4, 0, 300));
    await time.ago(70 * day, () => session.piece(5, 0, 300));
    await backupAgo(99 * day, { walSegment: 1 });
    // Ends in the segment after the one that it begins in.
    const monthly = await backupAgo(63 * day, { walSegment: 4, walBytes: MIB });
    await backupAgo(31 * day, { walSegment: 8 });
    await backupAgo(1 * day, { walSegment: 12 });
    const rules = {
      ...options(),
      policies: new Map([['orders', { ...orders, periods: { monthly: 3, timeZone: 'UTC' } }]]),
    };
    const report = await applyRetention(rules);
    expect(report.vaults.map(({ error }) => error)).toEqual([undefined, undefined]);
    for (const store of both()) {
      const left = (await keysOf(store, 'wal/')).map((key) => key.slice(`wal/${SYSTEM}/00000001/`.length));
      const segment = (n: number) => `0000000100000000${n.toString(16).toUpperCase().padStart(8, '0')}`;
      expect(left).toEqual([
        segment(4),
        `${segment(4)}.00000000-0000012C`,
        segment(5),
        `${segment(5)}.00000000-0000012C`,
        ...[8, 9, 10, 11, 12].map(segment),
      ]);
      expect(await keysOf(store, 'keys/')).toContain(session.keyObject);
      expect(await keysOf(store, 'manifests/')).toContain(layout.manifest('orders', monthly.id));
    }
    expect(report.vaults[0]?.backups.map(({ rules: [rule] }) => rule)).toEqual([
      'expired',
      'monthly',
      'window',
      'young',
    ]);
    // What is left is not damage: a check knows the same rules.
    const [store, other] = [east, west];
    const found = await examineVault({ store, others: [other], policies: rules.policies, clock: time });
    expect(found.problems.filter(({ kind }) => kind === 'wal')).toEqual([]);
    await east.delete([`wal/${SYSTEM}/00000001/000000010000000000000004`]);
    const hole = await examineVault({ store, others: [other], policies: rules.policies, clock: time });
    expect(hole.problems.filter(({ kind }) => kind === 'wal')).toMatchObject([{ state: 'missing' }]);
  });

  test('that is younger than the grace period stays although no base needs it', async () => {
    await time.ago(47 * hour, async () => await (await walSession(both(), time)).segment(1));
    await backupAgo(1 * hour, { walSegment: 9 });
    await applyRetention(options());
    expect(await keysOf(east, 'wal/')).toHaveLength(1);
  });

  test('of a lineage without base backup goes only when it is older than retention and grace', async () => {
    const other = '42';
    await time.ago(33 * day, async () => await (await walSession(both(), time, other)).segment(1));
    await time.ago(31 * day, async () => await (await walSession(both(), time, other)).segment(2));
    await backupAgo(1 * day);
    await applyRetention(options());
    expect(await keysOf(east, 'wal/')).toEqual(['wal/42/00000001/000000010000000000000002']);
  });

  test('a base that only another vault has keeps its WAL here too', async () => {
    await time.ago(20 * day, async () => await (await walSession(both(), time)).segment(2));
    await time.ago(20 * day, () => putBackup([west], { time, walSegment: 2 }));
    await backupAgo(1 * day, { walSegment: 7 });
    await applyRetention(options());
    expect(await keysOf(east, 'wal/')).toHaveLength(1);
  });

  test('keys of sessions go when the session is over and no WAL in any vault uses them', async () => {
    const idle = await time.ago(60 * day, () => walSession(both(), time));
    const used = await time.ago(50 * day, () => walSession(both(), time));
    const elsewhere = await time.ago(45 * day, () => walSession(both(), time));
    const current = await time.ago(40 * day, () => walSession(both(), time));
    await time.ago(1 * day, () => used.segment(8));
    await time.ago(1 * day, async () => {
      const lone = await elsewhere.segment(9);
      await east.delete([lone]);
    });
    await backupAgo(1 * hour, { walSegment: 1 });
    const report = await applyRetention(options());
    expect(report.vaults[0]?.error).toBeUndefined();
    const keys = await keysOf(east, 'keys/');
    expect(keys).not.toContain(idle.keyObject);
    expect(keys).toContain(used.keyObject);
    expect(keys).toContain(elsewhere.keyObject);
    // An idle database: the session lives on and will seal its next WAL with it.
    expect(keys).toContain(current.keyObject);
  });

  test('with damaged WAL no key of its lineage goes, because nobody knows which it needs', async () => {
    const idle = await time.ago(60 * day, () => walSession(both(), time));
    const current = await time.ago(40 * day, () => walSession(both(), time));
    const segment = await time.ago(1 * day, () => current.segment(8));
    await damage(west, segment);
    await backupAgo(1 * hour, { walSegment: 1 });
    const report = await applyRetention(options());
    expect(await keysOf(east, 'keys/')).toContain(idle.keyObject);
    expect(report.vaults[0]?.notes.join()).toMatch(/left alone/);
  });
});
