import { mkdirSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { type CheckOptions, examine, examineVault } from '../../../src/backup/care/check-vault.ts';
import { copyMissing } from '../../../src/backup/care/repair.ts';
import { repairVault } from '../../../src/backup/care/repair-vault.ts';
import { everything } from '../../../src/backup/care/sample.ts';
import type { Manifest } from '../../../src/backup/manifest.ts';
import { restoreBackup } from '../../../src/backup/restore.ts';
import { setHold } from '../../../src/backup/retention/holds.ts';
import { takeDirectoryBackup } from '../../../src/backup/take-directory.ts';
import { DrError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import { layout } from '../../../src/vault/layout.ts';
import { openVaults } from '../../../src/vault/roster.ts';
import { tempDir } from '../../harness/temp.ts';
import { FaultyStore } from '../faulty-store.ts';
import { backupWorld } from '../fixture.ts';
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
} from './vault-fixture.ts';

let time: TestTime;
let east: FaultyStore;
let west: FaultyStore;
let backups: Manifest[];

const policies = new Map([['orders', { kind: 'database' as const, retentionMs: 30 * day, keepAtLeast: 1 }]]);
const options = (facts: Partial<CheckOptions> = {}): CheckOptions => ({
  store: west,
  others: [east],
  policies,
  data: everything,
  clock: time,
  ...facts,
});
const repair = (facts: Partial<CheckOptions> = {}) => repairVault({ ...options(facts), log: silentLog });
const contentOf = async (store: FaultyStore) => {
  const found: Record<string, string> = {};
  for (const key of await keysOf(store))
    if (!key.startsWith('leases/')) found[key] = (await store.read(key)).toString('hex');
  return found;
};

beforeEach(async () => {
  time = new TestTime();
  east = new FaultyStore(time.vault('east'));
  west = new FaultyStore(time.vault('west'));
  const both = [east, west];
  await time.ago(5 * hour, async () => {
    await openVaults(both, { log: silentLog });
    const session = await walSession(both, time);
    backups = [];
    for (let i = 0; i < 4; i++) backups.push(await putBackup(both, { time, walSegment: 1 + i, parts: 3 }));
    for (let segment = 1; segment < 8; segment++) await session.segment(segment);
    const [first] = backups;
    if (first) await putVerification(both, first, time);
    await setHold(both, { reason: 'incident', by: 'alice', nowMs: time.now() });
  });
});

describe('a listing that is not whole', () => {
  /** Which objects the listings of west lose. */
  const losses: ReadonlyArray<readonly [string, (keys: readonly string[]) => readonly string[]]> = [
    ['its last object', (keys) => keys.slice(-1)],
    ['its end', (keys) => keys.slice(-3)],
    ['a page in the middle', (keys) => keys.slice(1, 3)],
  ];
  const folders = ['manifests/', 'indexes/', 'parts/', 'keys/', 'verifications/', 'holds/'];

  test.each(losses)('%s: the check says so, and nothing is taken for missing or written', async (_, choose) => {
    const whole = await contentOf(west);
    for (const folder of folders) {
      const keys = Object.keys(whole).filter((key) => key.startsWith(folder));
      const lost = new Set(choose(keys).length > 0 ? choose(keys) : keys);
      west.listed = (key) => !lost.has(key);
      const { problems } = await examineVault(options());
      const named = (state: string) => problems.filter((problem) => problem.state === state).map(({ key }) => key);
      expect({ folder, missing: named('missing'), damaged: named('damaged') }).toEqual({
        folder,
        missing: [],
        damaged: [],
      });
      expect(named('unlisted').sort()).toEqual([...lost].sort());
      west.created.length = 0;
      west.deleted.length = 0;
      const result = await repair();
      expect(result.failed.map(({ key }) => key).sort()).toEqual([...lost].sort());
      expect(result).toMatchObject({ mended: [], copied: [], losses: [] });
      for (const { error } of result.failed)
        expect(error).toMatchObject({ kind: 'corrupt', next: expect.stringMatching(/whoever runs the store/) });
      const written = [...west.created, ...west.deleted].filter((key) => !key.startsWith('leases/'));
      expect(written).toEqual([]);
      west.listed = () => true;
    }
    expect(await contentOf(west)).toEqual(whole);
  });

  test('of WAL: a segment in the middle, or the end of it, is known to be there', async () => {
    for (const number of [3, 6]) {
      const key = layout.walSegment(SYSTEM, 1, `00000001000000000000000${number}`);
      west.listed = (other) => other !== key;
      const { problems } = await examineVault(options());
      expect(problems).toMatchObject([{ state: 'unlisted', kind: 'wal', key }]);
      expect((await repair()).walCopied).toBe(0);
    }
  });

  test('a copy into a vault whose listing hides what it has sends nothing twice and harms nothing', async () => {
    const whole = await contentOf(west);
    west.listed = (key) => !/^(manifests|parts)\//.test(key);
    west.created.length = 0;
    const result = await copyMissing({ from: [east], to: west, policies, clock: time, log: silentLog });
    expect(result.failed).toEqual([]);
    expect(west.created.filter((key) => !key.startsWith('leases/'))).toEqual([]);
    west.listed = () => true;
    expect(await contentOf(west)).toEqual(whole);
  });

  test('of the other vault: what it hides is not missed here', async () => {
    east.listed = (key) => !/^(manifests|wal|holds)\//.test(key);
    expect((await examineVault(options())).problems).toEqual([]);
  });
});

describe('a store whose listings and reads agree only after a while', () => {
  test('an object that was just written: listed and not readable, or readable and not listed, is no damage', async () => {
    const young = await putBackup([east, west], { time, walSegment: 5 });
    const keys = new Set([layout.manifest('orders', young.id), young.index.key, ...young.parts.map(({ key }) => key)]);
    west.hidden = (key) => key === layout.manifest('orders', young.id);
    expect((await examineVault(options())).problems).toEqual([]);
    west.hidden = () => false;
    west.listed = (key) => !keys.has(key);
    expect((await examineVault(options())).problems).toEqual([]);
  });

  test('an old one that is listed and cannot be read is missing, and mended as soon as the store lets it be', async () => {
    const key = backups[1]?.parts[0]?.key ?? '';
    west.hidden = (other) => other === key;
    const { problems } = await examineVault(options());
    expect(problems).toMatchObject([{ state: 'missing', key }]);
    const still = await repair();
    // The store says that the name is taken, and gives nothing back.
    expect(still.failed).toMatchObject([{ key, error: { kind: 'conflict' } }]);
    west.hidden = () => false;
    expect(await repair()).toMatchObject({ failed: [], check: { problems: [] } });
  });

  test('a manifest that another vault lists and does not give yet keeps nothing else from being copied', async () => {
    const empty = new FaultyStore(time.vault('north'));
    const hidden = layout.manifest('orders', backups[3]?.id ?? '');
    east.hidden = (key) => key === hidden;
    const result = await copyMissing({ from: [east], to: empty, policies, clock: time, log: silentLog });
    expect(result.failed).toEqual([]);
    expect(result.copied).toHaveLength(3);
    east.hidden = () => false;
    const again = await copyMissing({ from: [east], to: empty, policies, clock: time, log: silentLog });
    expect(again.copied.map(({ id }) => id)).toEqual([backups[3]?.id]);
  });
});

describe('half-written objects', () => {
  test('in the place of content, records and WAL: found and mended', async () => {
    const whole = await contentOf(west);
    const keys = Object.keys(whole).filter((key) =>
      /^(parts|indexes|manifests|keys|wal|verifications|holds)\//.test(key),
    );
    for (const key of keys) await west.overwrite(key, Buffer.from(whole[key] ?? '', 'hex').subarray(0, 20));
    const { problems } = await examineVault(options());
    expect(problems.map(({ key }) => key)).toEqual(
      expect.arrayContaining(keys.filter((key) => !/^(parts|indexes)\//.test(key))),
    );
    expect(await repair()).toMatchObject({ failed: [], losses: [], check: { problems: [] } });
    expect(await contentOf(west)).toEqual(whole);
  });

  test('a copy that the store takes and does not keep is not called mended', async () => {
    const key = backups[0]?.index.key ?? '';
    await damage(west, key);
    const bad = await west.read(key);
    west.before = async (kind, name) => {
      // The disk gives back what it had.
      if (kind === 'read' && name === key) await lying.overwrite(key, bad);
    };
    const lying = west.behind;
    const { failed, mended } = await repair();
    expect(mended).toEqual([]);
    expect(failed).toMatchObject([
      { key, error: { kind: 'corrupt', message: expect.stringMatching(/took the good copy/) } },
    ]);
  });
});

describe('a restore from such a store', () => {
  test('of content that is listed and cannot be read: an error that names it, and nothing passes for restored', async () => {
    const world = await backupWorld([west]);
    const root = await tempDir('bad-store');
    mkdirSync(path.join(root, 'sub'));
    for (let i = 0; i < 10; i++) writeFileSync(path.join(root, 'sub', `${i}`), `${i}`.repeat(10_000));
    const source = { name: 'uploads', kind: 'data' as const, path: root, exclude: [], allowEmpty: false };
    const { manifest } = await takeDirectoryBackup(world.context, source);
    const { keyRing, pool } = world;
    for (const key of [manifest.index.key, manifest.parts[0]?.key]) {
      const target = path.join(await tempDir('restored'), 'content');
      west.hidden = (other) => other === key;
      await expect(restoreBackup({ store: west, manifest, keyRing, pool, target })).rejects.toMatchObject({
        kind: 'corrupt',
        where: expect.stringContaining(key ?? ''),
      });
      const left = await readdir(target).catch(() => []);
      expect(left.length === 0 || left.some((name) => /incomplete/i.test(name))).toBe(true);
    }
    west.hidden = () => false;
    await pool.close();
  });
});

describe('replacing what is damaged', () => {
  const bad = () => backups[2]?.parts[1]?.key ?? '';
  const denied = (kind: string) => new DrError('denied', `no right to ${kind}`);

  test('in one step: at no moment is neither copy there', async () => {
    await damage(west, bad());
    west.before = async (_, key) => {
      if (key === bad()) expect(await west.behind.stat(key)).toBeDefined();
    };
    expect((await repair()).mended).toMatchObject([{ key: bad(), done: 'replaced', from: 'east' }]);
    expect(west.deleted).not.toContain(bad());
  });

  test('where nothing may be written over, it is deleted and created', async () => {
    await damage(west, bad());
    west.fail = (kind) => (kind === 'overwrite' ? denied(kind) : undefined);
    expect(await repair()).toMatchObject({ mended: [{ key: bad() }], failed: [], check: { problems: [] } });
    expect(west.deleted).toContain(bad());
  });

  test('where neither is allowed, it is named with what to do, the rest is mended, and nothing counts as lost', async () => {
    const other = backups[0]?.index.key ?? '';
    await west.delete([other]);
    await damage(west, bad());
    west.fail = (kind, key) =>
      key === bad() && ['overwrite', 'delete', 'create'].includes(kind) ? denied(kind) : undefined;
    const result = await repair();
    expect(result).toMatchObject({ mended: [{ key: other }], losses: [] });
    expect(result.failed).toMatchObject([
      { key: bad(), error: { kind: 'denied', next: expect.stringMatching(/s3:PutObject/) } },
    ]);
  });

  test('two copies that are damaged in different places give a good one together', async () => {
    const good = await west.read(bad());
    await damage(west, bad(), 100);
    await damage(west, bad(), 900);
    await damage(east, bad(), 500);
    const wal = layout.walSegment(SYSTEM, 1, '000000010000000000000004');
    const goodWal = await west.read(wal);
    await damage(west, wal, goodWal.length - 40);
    await east.overwrite(wal, goodWal.subarray(0, goodWal.length - 10));
    const manifest = layout.manifest('orders', backups[2]?.id ?? '');
    const goodManifest = await west.read(manifest);
    await damage(west, manifest, 30);
    await damage(east, manifest, 300);
    const result = await repair();
    expect(result).toMatchObject({ failed: [], losses: [], check: { problems: [] } });
    expect(result.mended.find(({ key }) => key === bad())?.from).toBe('east and west, each damaged elsewhere');
    expect(await west.read(bad())).toEqual(good);
    expect(await west.read(wal)).toEqual(goodWal);
    expect(await west.read(manifest)).toEqual(goodManifest);
    // And then the other one from it.
    expect(await repair({ store: east, others: [west] })).toMatchObject({ failed: [], check: { problems: [] } });
  });
});

describe('what both vaults lack or have damaged', () => {
  const time_ = (ms: number) => new Date(ms).toISOString();

  test('a part: the backups that need it are lost, the others remain', async () => {
    const key = backups[1]?.parts[0]?.key ?? '';
    for (const store of [east, west]) await damage(store, key);
    const { losses } = await repair();
    expect(losses).toMatchObject([
      { resource: 'orders', backups: [{ id: backups[1]?.id }], moments: [], remains: { backups: 3 } },
    ]);
    const others = backups.map(({ id }) => id).filter((id) => id !== backups[1]?.id);
    expect(losses[0]?.remains.newest?.id).toBe(others.sort().at(-1));
  });

  test('all manifests of a resource: nothing remains, and it says so', async () => {
    for (const store of [east, west]) {
      for (const { id } of backups) await store.overwrite(layout.manifest('orders', id), Buffer.from('{}'));
    }
    const { losses } = await repair();
    expect(losses).toMatchObject([{ resource: 'orders', remains: { backups: 0, newest: undefined, windows: [] } }]);
    expect(losses[0]?.backups.map(({ id }) => id)).toEqual(backups.map(({ id }) => id).sort());
  });

  test('WAL: the moments behind the hole up to the next base backup, and what can be recovered to', async () => {
    const base = time.now();
    const system = '8301234567890123456';
    const both = [east, west];
    const at = async (hoursAgo: number, work: () => Promise<unknown>) => await time.ago(hoursAgo * hour, work);
    await at(20, async () => {
      const session = await walSession(both, time, system);
      await putBackup(both, { time, resource: 'sales', systemId: system, walSegment: 1 });
      for (let segment = 1; segment < 12; segment++) {
        await time.ago(-segment * hour, async () => {
          if (segment === 8) await putBackup(both, { time, resource: 'sales', systemId: system, walSegment: 8 });
          await session.segment(segment);
        });
      }
    });
    expect((await examine(options())).check.problems).toEqual([]);
    const hole = layout.walSegment(system, 1, '000000010000000000000005');
    await west.delete([hole]);
    await damage(east, hole, 400);
    const { losses, check } = await repair();
    expect(check.problems).toMatchObject([{ state: 'missing', kind: 'wal', key: hole }]);
    const from = base - 20 * hour;
    expect(losses).toMatchObject([
      {
        resource: 'sales',
        backups: [],
        moments: [{ fromMs: from + 4 * hour, toMs: from + 8 * hour }],
        remains: {
          backups: 2,
          windows: [
            { fromMs: from, toMs: from + 4 * hour },
            { fromMs: from + 8 * hour, toMs: from + 11 * hour },
          ],
        },
      },
    ]);
    expect(time_(losses[0]?.moments[0]?.fromMs ?? 0)).toBe('2026-11-22T08:00:00.000Z');
    // Behind the last base backup nothing leads over a hole.
    const last = layout.walSegment(system, 1, '00000001000000000000000A');
    for (const store of both) await store.delete([last]);
    expect((await repair()).losses[0]?.moments).toEqual([
      { fromMs: from + 4 * hour, toMs: from + 8 * hour },
      { fromMs: from + 9 * hour },
    ]);
    // WAL that the second base backup cannot do without.
    const needed = layout.walSegment(system, 1, '000000010000000000000008');
    for (const store of both) await store.delete([needed]);
    const sales = (await repair()).losses[0];
    expect(sales?.backups).toHaveLength(1);
    expect(sales?.remains).toMatchObject({ backups: 1, windows: [{ fromMs: from, toMs: from + 4 * hour }] });
  });

  test('a vault that does not answer may have a copy: that is noted', async () => {
    const key = backups[1]?.parts[0]?.key ?? '';
    await damage(west, key);
    east.fail = () => new DrError('unreachable', 'no answer');
    const result = await repair();
    expect(result.losses).toEqual([]);
    expect(result.failed).toMatchObject([{ key }]);
    expect(result.check.notes).toContain('vault east could not be compared: no answer');
  });
});
