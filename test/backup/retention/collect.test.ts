import { beforeEach, describe, expect, test } from 'vitest';
import type { Manifest } from '../../../src/backup/manifest.ts';
import { applyRetention, planRetention, type RetentionOptions } from '../../../src/backup/retention/collect.ts';
import { setHold } from '../../../src/backup/retention/holds.ts';
import type { RetentionPolicy } from '../../../src/backup/retention/retention.ts';
import { DrError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import { layout, timedId } from '../../../src/vault/layout.ts';
import { acquireLease } from '../../../src/vault/lease.ts';
import type { ObjectStore } from '../../../src/vault/store.ts';
import {
  damage,
  day,
  hour,
  keysOf,
  putBackup,
  putVerification,
  SYSTEM,
  TestTime,
  walSession,
} from '../care/vault-fixture.ts';
import { FaultyStore } from '../faulty-store.ts';

let time: TestTime;
let east: FaultyStore;
let west: FaultyStore;

beforeEach(() => {
  time = new TestTime();
  east = new FaultyStore(time.vault('east'));
  west = new FaultyStore(time.vault('west'));
});

const data: RetentionPolicy = { kind: 'data', retentionMs: 90 * day, keepAtLeast: 1 };
const policies = new Map<string, RetentionPolicy>([
  ['orders', { kind: 'database', retentionMs: 30 * day, keepAtLeast: 1 }],
  ['uploads', data],
]);

const options = (stores: readonly ObjectStore[] = [east, west]): RetentionOptions => ({
  stores,
  policies,
  clock: time,
  log: silentLog,
});

const both = (): ObjectStore[] => [east, west];
const backupAgo = (ms: number, facts: object = {}) => time.ago(ms, () => putBackup(both(), { time, ...facts }));
const objectsOf = (manifest: Manifest) => [
  layout.manifest(manifest.resource, manifest.id),
  manifest.index.key,
  ...manifest.parts.map(({ key }) => key),
  ...(manifest.index.keyId === undefined ? [] : [layout.key(manifest.index.keyId)]),
];
/** Everything but leases, which deleting leaves behind. */
const content = async (store: ObjectStore) => (await keysOf(store)).filter((key) => !key.startsWith('leases/'));

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
    expect(report.vaults[0]?.backups.every(({ rule }) => rule === 'no-policy')).toBe(true);
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

describe('doubt', () => {
  const old = async () => {
    await backupAgo(60 * day);
    await backupAgo(50 * day);
    await backupAgo(1 * day);
  };
  const nothingGoes = async (stores: readonly ObjectStore[] = both()) => {
    const before = await Promise.all([content(east), content(west)]);
    const report = await applyRetention(options(stores));
    expect(await Promise.all([content(east), content(west)])).toEqual(before);
    return report;
  };

  test('under hold nothing goes anywhere, whichever vault has it', async () => {
    await old();
    await setHold([west], { reason: 'incident', by: 'alice', nowMs: time.now() });
    expect((await nothingGoes()).held).toMatch(/incident/);
    expect((await planRetention(options())).vaults[0]?.removals).toEqual([]);
  });

  test('while one vault does not answer nothing goes anywhere', async () => {
    await old();
    west.fail = () => new DrError('unreachable', 'no answer');
    const report = await applyRetention(options());
    expect(report.held).toMatch(/west/);
    expect(east.deleted).toEqual([]);
  });

  test('while the manifests of one vault cannot be listed nothing goes anywhere', async () => {
    await old();
    west.fail = (kind, key) =>
      kind === 'list' && key.startsWith('manifests/') ? new DrError('denied', 'no right to list') : undefined;
    const report = await applyRetention(options());
    expect(report.held).toMatch(/vault west could not be read: no right to list/);
    expect(east.deleted).toEqual([]);
  });

  test('a manifest that cannot be read blocks its vault; the other one goes on', async () => {
    await old();
    const [, second = ''] = await keysOf(east, 'manifests/');
    await damage(east, second);
    const before = await content(east);
    const report = await applyRetention(options());
    expect(await content(east)).toEqual(before);
    expect(report.vaults[0]?.blocked).toContain(second);
    expect(report.vaults[1]?.removals.length).toBeGreaterThan(0);
  });

  test('a manifest that a listing leaves out is found before its content is taken for a leftover', async () => {
    await old();
    const kept = (await keysOf(east, 'manifests/')).at(-1) ?? '';
    time.nowMs += 5 * day;
    // Were it only one of the two, the other's manifest would protect it.
    for (const store of [east, west]) store.listed = (key) => key !== kept;
    const report = await applyRetention(options());
    for (const store of [east, west]) store.listed = () => true;
    expect(report.vaults[0]?.blocked).toMatch(/does not show this one/);
    expect(await keysOf(east, 'manifests/')).toContain(kept);
    const id = kept.slice('manifests/orders/'.length, -'.json'.length);
    expect(await keysOf(east, `parts/orders/${id}/`)).toHaveLength(2);
    expect(await keysOf(east, `indexes/orders/${id}`)).toHaveLength(1);
  });

  test('a listing that shrinks between the two looks stops everything', async () => {
    await old();
    const kept = (await keysOf(east, 'manifests/')).at(-1) ?? '';
    let listings = 0;
    east.before = (kind, key) => {
      if (kind === 'list' && key === 'manifests/') listings++;
    };
    east.listed = (key) => key !== kept || listings < 2;
    const before = await content(west);
    const report = await applyRetention(options([east]));
    expect(report.vaults[0]?.blocked).toMatch(/not listed any more/);
    expect(east.deleted).toEqual([]);
    expect(await content(west)).toEqual(before);
  });

  test('a listing that breaks off deletes nothing', async () => {
    await old();
    let parts = 0;
    east.fail = (kind, key) => {
      if (kind === 'list' && key.startsWith('parts/orders/2') && ++parts === 3)
        return new DrError('unreachable', 'broke off');
      return undefined;
    };
    const report = await applyRetention(options());
    expect(report.vaults[0]?.blocked).toBe('broke off');
    expect(east.deleted.filter((key) => /^(parts|indexes|keys|wal)\//.test(key))).toEqual([]);
  });

  test('a hold that is set while manifests are being deleted saves the content', async () => {
    await old();
    east.before = async (kind, key) => {
      if (kind === 'delete' && key.startsWith('manifests/')) {
        await setHold([west], { reason: 'just now', by: 'alice', nowMs: time.now() });
      }
    };
    const report = await applyRetention(options());
    expect(report.vaults[0]?.blocked).toMatch(/just now/);
    expect(east.deleted.filter((key) => key.startsWith('parts/'))).toEqual([]);
    expect(west.deleted).toEqual([]);
  });

  test('a clock that differs from that of the vault deletes nothing', async () => {
    await old();
    const ahead = { ...options(), clock: { now: () => time.now() + 100 * day, sleep: time.sleep } };
    const before = await content(east);
    const report = await applyRetention(ahead);
    expect(report.vaults[0]?.blocked).toMatch(/clock of this machine differs/);
    expect(await content(east)).toEqual(before);
  });

  test('of two at once one works and the other is told who does', async () => {
    await old();
    const lease = await acquireLease(east, 'retention', { purpose: 'another retention', clock: time });
    const report = await applyRetention(options());
    await lease.release();
    expect(report.vaults[0]?.error).toMatchObject({ kind: 'lease-held' });
    expect(east.deleted.filter((key) => !key.startsWith('leases/'))).toEqual([]);
    expect(report.vaults[1]?.error).toBeUndefined();
  });

  test('a store that refuses to delete (immutable) keeps the content of what it still shows', async () => {
    await old();
    east.fail = (kind, key) =>
      kind === 'delete' && key.startsWith('manifests/') ? new DrError('denied', 'object is locked') : undefined;
    const report = await applyRetention(options());
    expect(report.vaults[0]?.blocked).toBe('object is locked');
    expect(east.deleted.filter((key) => key.startsWith('parts/'))).toEqual([]);
  });
});
