import { describe, expect, test } from 'vitest';
import { applyRetention, planRetention } from '../../../src/backup/retention/collect.ts';
import { setHold } from '../../../src/backup/retention/holds.ts';
import { DrError } from '../../../src/base/errors.ts';
import { acquireLease } from '../../../src/vault/lease.ts';
import type { ObjectStore } from '../../../src/vault/store.ts';
import { damage, day, keysOf } from '../care/vault-fixture.ts';
import { backupAgo, both, content, east, options, time, west } from './vaults.ts';

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
