import { describe, expect, test } from 'vitest';
import type { Manifest } from '../../../src/backup/manifest.ts';
import { applyRetention, planRetention } from '../../../src/backup/retention/collect.ts';
import { DrError } from '../../../src/base/errors.ts';
import { layout, timedId } from '../../../src/vault/layout.ts';
import { day, hour, keysOf, putBackup, putVerification, walSession } from '../care/vault-fixture.ts';
import { FaultyStore } from '../faulty-store.ts';
import { backupAgo, both, content, data, east, objectsOf, options, time, west } from './vaults.ts';

describe('retention in vaults', () => {
  test('what is beyond retention goes with its parts, index and key; what is kept stays whole; the plan said so', async () => {
    const old = await backupAgo(40 * day);
    const base = await backupAgo(31 * day);
    const young = await backupAgo(2 * hour);
    const before = await content(east);
    const plan = await planRetention(options());
    expect(await content(east)).toEqual(before);
    expect(plan.vaults.map(({ vault, freedBytes, blocked }) => ({ vault, freedBytes, blocked }))).toMatchObject([
      { vault: 'east', freedBytes: expect.any(Number), blocked: undefined },
      { vault: 'west', blocked: undefined },
    ]);
    const applied = await applyRetention(options());
    expect(applied.vaults.map(({ removals, error }) => ({ removals, error }))).toEqual(
      plan.vaults.map(({ removals }) => ({ removals, error: undefined })),
    );
    expect(applied.vaults[0]?.freedBytes).toBeGreaterThan(2100);
    for (const store of both()) {
      expect(await content(store)).toEqual([...objectsOf(base), ...objectsOf(young)].sort());
    }
    const gone = east.deleted.filter((key) => !key.startsWith('leases/'));
    expect(gone[0]).toBe(layout.manifest('orders', old.id));
    expect(gone.toSorted()).toEqual(objectsOf(old).sort());
    expect((await applyRetention(options())).vaults.every(({ removals }) => removals.length === 0)).toBe(true);
  });

  test('parts that a kept backup shares stay, and so does their key', async () => {
    const old = await backupAgo(100 * day, { resource: 'uploads', kind: 'data', parts: 3 });
    const shared = old.parts.slice(1, 2);
    const kept = await backupAgo(3 * day, { resource: 'uploads', kind: 'data', shares: shared });
    await applyRetention(options());
    const sharedKeys = [...shared.map(({ key }) => key), layout.key(old.index.keyId ?? '')];
    expect(await content(east)).toEqual(
      [...objectsOf(kept), ...sharedKeys].toSorted().filter((k, i, a) => a[i - 1] !== k),
    );
  });

  test('parts outlive a chain of backups that used them, in any pattern, and go with the last one, and their keys too', async () => {
    const uploads = { resource: 'uploads', kind: 'data' as const };
    const first = await backupAgo(120 * day, { ...uploads, parts: 9 });
    const pick = (of: Manifest, numbers: readonly number[]) => of.parts.filter((_, n) => numbers.includes(n));
    const second = await backupAgo(110 * day, { ...uploads, parts: 3, shares: pick(first, [1, 2, 5, 8]) });
    // Parts of the second are no run for the third, and the first was never the one before it.
    const shares = [...pick(first, [2, 8]), ...second.parts.slice(4).filter((_, n) => n !== 1)];
    const third = await backupAgo(100 * day, { ...uploads, parts: 2, shares });
    const partsOf = async (of: Manifest) =>
      (await keysOf(east, `parts/uploads/${of.id}/`)).map((key) => Number(key.slice(-6)));
    const keyOf = (of: Manifest) => layout.key(of.index.keyId ?? '');
    const only = { ...options(), policies: new Map([['uploads', { ...data, retentionMs: 105 * day }]]) };

    const plan = await planRetention(only);
    await applyRetention(only);
    expect(await partsOf(first)).toEqual([2, 8]);
    expect(await partsOf(second)).toEqual([0, 2]);
    expect(await partsOf(third)).toEqual([0, 1]);
    for (const backup of [first, second, third]) expect(await content(east)).toContain(keyOf(backup));
    expect(await keysOf(east, 'indexes/')).toEqual([third.index.key]);
    // What it frees is what nothing uses any more: seven and one parts, and two indexes.
    expect(plan.vaults[0]?.freedBytes).toBe(8 * 1000 + 2 * 100);

    await backupAgo(3 * day, { ...uploads, shares: pick(first, [8]) });
    await applyRetention(only);
    expect(await partsOf(first)).toEqual([2, 8]);
    const old = { ...options(), policies: new Map([['uploads', { ...data, retentionMs: 50 * day }]]) };
    const last = await planRetention(old);
    await applyRetention(old);
    expect(await partsOf(first)).toEqual([8]);
    expect(await partsOf(second)).toEqual([]);
    expect(await partsOf(third)).toEqual([]);
    const left = await content(east);
    expect([first, second, third].map((backup) => left.includes(keyOf(backup)))).toEqual([true, false, false]);
    expect(last.vaults[0]?.removals.map(({ what, subject, objects }) => [what, subject, objects])).toEqual([
      ['manifest', `uploads ${third.id}`, 1],
      ['content', `uploads ${first.id}`, 1],
      ['content', `uploads ${second.id}`, 2],
      ['content', `uploads ${third.id}`, 3],
      ['keys', '2 data keys', 2],
    ]);
    expect(last.vaults[0]?.removals[1]?.why).toMatch(/the last backup that used it is beyond retention/);
  });

  test('what a killed backup left behind goes after the grace period, not before; a running one loses nothing', async () => {
    const kept = await backupAgo(3 * hour);
    const killed = await backupAgo(49 * hour, { commit: false });
    const running = await backupAgo(47 * hour, { commit: false });
    await applyRetention(options());
    const manifest = layout.manifest('orders', running.id);
    const expected = [...objectsOf(kept), ...objectsOf(running).filter((key) => key !== manifest)];
    expect(await content(east)).toEqual(expected.sort());
    expect(east.deleted).toContain(killed.index.key);
  });

  test('an object that was written just now stays although its name is old: a copy is under way', async () => {
    await backupAgo(1 * hour);
    const id = '20250101T000000000Z-abcdef';
    await east.create(layout.part('orders', id, 0), Buffer.from('copied'));
    await applyRetention(options());
    expect(await content(east)).toContain(layout.part('orders', id, 0));
    time.nowMs += 3 * day;
    await applyRetention(options());
    expect(await content(east)).not.toContain(layout.part('orders', id, 0));
  });

  test('a backup that began just now by its name stays whatever the store says of its age', async () => {
    await backupAgo(1 * hour);
    const key = layout.part('orders', timedId(time.now() - hour, 'abcdef'), 0);
    await time.ago(400 * day, () => east.create(key, Buffer.from('from a store whose clock is wrong')));
    await applyRetention(options());
    expect(await content(east)).toContain(key);
  });

  test('content that another vault has a kept manifest for is left for repair', async () => {
    const backup = await backupAgo(10 * day);
    await east.delete([layout.manifest('orders', backup.id)]);
    await applyRetention(options());
    expect(await content(east)).toContain(backup.index.key);
    expect(await content(east)).toContain(backup.parts[0]?.key);
  });

  test('a resource that is not in the configuration keeps everything', async () => {
    await backupAgo(5000 * day, { resource: 'forgotten' });
    await backupAgo(4000 * day, { resource: 'forgotten' });
    const before = await content(east);
    const report = await applyRetention(options());
    expect(await content(east)).toEqual(before);
    expect(report.vaults[0]?.backups.every(({ rules: [rule] }) => rule === 'no-policy')).toBe(true);
  });

  test('the newest verified backup and the last good one stay however old', async () => {
    const verified = await backupAgo(500 * day, { resource: 'uploads', kind: 'data' });
    const plain = await backupAgo(450 * day, { resource: 'uploads', kind: 'data' });
    const last = await backupAgo(400 * day, { resource: 'uploads', kind: 'data' });
    await putVerification([west], verified, time);
    await applyRetention(options());
    expect(await keysOf(east, 'manifests/')).toEqual([verified, last].map(({ id }) => layout.manifest('uploads', id)));
    expect(await content(east)).not.toContain(plain.index.key);
  });
});

describe('interruption', () => {
  test('cut off before any deletion, every backup that is listed is whole, and the next run completes', async () => {
    const build = async (store: FaultyStore) => {
      for (const age of [60, 50, 45, 31, 5])
        await time.ago(age * day, () => putBackup([store], { time, walSegment: 100 - age }));
      const session = await time.ago(60 * day, () => walSession([store], time));
      for (const n of [10, 50, 60]) await time.ago(60 * day, () => session.piece(n, 0, 100));
      await time.ago(55 * day, () => putBackup([store], { time, commit: false }));
    };
    const calls = async (store: FaultyStore, stopAt: number) => {
      let count = 0;
      store.fail = (kind, key) =>
        kind === 'delete' && !key.startsWith('leases/') && count++ === stopAt
          ? new DrError('unreachable', 'cut off')
          : undefined;
      const report = await applyRetention(options([store]));
      store.fail = () => undefined;
      return { count, error: report.vaults[0]?.error };
    };
    const reference = new FaultyStore(time.vault('one'));
    await build(reference);
    const { count: deletions, error } = await calls(reference, Number.POSITIVE_INFINITY);
    expect(error).toBeUndefined();
    const kinds = (keys: readonly string[]) => keys.map((key) => key.split('/')[0]).sort();
    expect(deletions).toBeGreaterThan(15);
    for (let stopAt = 0; stopAt < deletions; stopAt++) {
      const store = new FaultyStore(time.vault('one'));
      await build(store);
      expect((await calls(store, stopAt)).error).toMatchObject({ message: 'cut off' });
      const there = new Set(await content(store));
      for (const key of await keysOf(store, 'manifests/')) {
        const manifest: Manifest = JSON.parse((await store.read(key)).toString());
        for (const needed of objectsOf(manifest)) expect(there).toContain(needed);
      }
      await applyRetention(options([store]));
      expect(kinds(await content(store))).toEqual(kinds(await content(reference)));
    }
  });
});
