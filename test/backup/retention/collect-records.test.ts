import { describe, expect, test } from 'vitest';
import type { Manifest } from '../../../src/backup/manifest.ts';
import { applyRetention, planRetention } from '../../../src/backup/retention/collect.ts';
import { setHold } from '../../../src/backup/retention/holds.ts';
import { layout, timedId } from '../../../src/vault/layout.ts';
import { day, keysOf, putVerification } from '../care/vault-fixture.ts';
import { backupAgo, both, data, east, options, time, west } from './vaults.ts';

describe('old records', () => {
  const year = 366 * day;
  const run = async (ageMs: number, objects: readonly string[]) => {
    const id = timedId(time.now() - ageMs, 'abcdef');
    await time.ago(ageMs, async () => {
      for (const name of objects)
        for (const store of both()) await store.create(`runs/${id}/${name}`, Buffer.from('{}'));
    });
    return id;
  };
  const whole = ['journal/000001.json', 'journal/000002.json', 'approvals/redirect.json', 'report.json', 'report.md'];

  test('runs that ended more than a year ago go, journal first; those that did not end, and younger ones, stay', async () => {
    await backupAgo(1 * day);
    const old = await run(year + day, whole);
    const cut = await run(year + 2 * day, whole.slice(0, 2));
    const young = await run(year - day, whole);
    const plan = await planRetention(options());
    expect(plan.vaults[0]?.removals).toMatchObject([{ what: 'records', subject: `run ${old}`, objects: 5 }]);
    await applyRetention(options());
    expect(await east.folders('runs/')).toEqual([cut, young]);
    const gone = east.deleted.filter((key) => key.startsWith('runs/'));
    expect(gone.slice(-2)).toEqual([`runs/${old}/report.json`, `runs/${old}/report.md`]);
  });

  test('a run whose objects were copied here lately stays although its name is old', async () => {
    const id = timedId(time.now() - 2 * year, 'abcdef');
    for (const name of whole) await east.create(`runs/${id}/${name}`, Buffer.from('{}'));
    await applyRetention(options());
    expect(await east.folders('runs/')).toEqual([id]);
  });

  test('verification reports go after a year, but the newest of a resource and of each backup that is kept stay', async () => {
    const first = await backupAgo(3 * year, { resource: 'uploads', kind: 'data' });
    const second = await backupAgo(2 * year, { resource: 'uploads', kind: 'data' });
    const report = (of: Manifest, ageMs: number) => time.ago(ageMs, () => putVerification(both(), of, time));
    const expected = [];
    await report(first, 2.9 * year);
    await report(second, 1.9 * year);
    expected.push(await report(second, 1.8 * year));
    expected.push(await report(first, 1.7 * year), await report(first, 0.9 * year), await report(second, 0.5 * year));
    await putVerification([west], { ...first, resource: 'forgotten' }, time, {
      id: timedId(time.now() - 2 * year, 'a'),
    });
    const only = { ...options(), policies: new Map([['uploads', { ...data, keepAtLeast: 2 }]]) };
    await applyRetention(only);
    // Both backups have younger reports: what is old says nothing any more.
    const left = expected.slice(2).map(({ id }) => layout.verification('uploads', id));
    expect(await keysOf(east, 'verifications/')).toEqual(left);
    time.nowMs += 2 * year;
    await applyRetention(only);
    expect(await keysOf(east, 'verifications/')).toEqual(left);
    await backupAgo(1 * day, { resource: 'uploads', kind: 'data' });
    time.nowMs += 3 * day;
    await applyRetention({ ...only, policies: new Map([['uploads', data]]) });
    // The first backup has gone; of the second, verified last, the report stays.
    expect(await keysOf(east, 'verifications/')).toEqual(left.slice(1));
    expect(await keysOf(west, 'verifications/forgotten/')).toHaveLength(1);
  });

  test('probes go after the grace period', async () => {
    await time.ago(3 * day, () => east.create('probes/0123', Buffer.from('x')));
    await east.create('probes/4567', Buffer.from('x'));
    await applyRetention(options());
    expect(await keysOf(east, 'probes/')).toEqual(['probes/4567']);
  });

  test('under hold records stay too', async () => {
    await run(year + day, whole);
    await setHold([west], { reason: 'incident', by: 'alice', nowMs: time.now() });
    await applyRetention(options());
    expect(await east.folders('runs/')).toHaveLength(1);
  });
});
