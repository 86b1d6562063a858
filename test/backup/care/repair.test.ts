import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { copyMissing, type RepairOptions } from '../../../src/backup/care/repair.ts';
import { readBackup } from '../../../src/backup/restore.ts';
import { applyRetention } from '../../../src/backup/retention/collect.ts';
import { setHold } from '../../../src/backup/retention/holds.ts';
import type { RetentionPolicy } from '../../../src/backup/retention/retention.ts';
import { takeDirectoryBackup } from '../../../src/backup/take-directory.ts';
import { DrError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import type { Progress } from '../../../src/base/progress.ts';
import { layout } from '../../../src/vault/layout.ts';
import { tempDir } from '../../harness/temp.ts';
import { FaultyStore } from '../faulty-store.ts';
import { backupWorld } from '../fixture.ts';
import { damage, day, hour, keysOf, putBackup, putVerification, TestTime } from './vault-fixture.ts';

let time: TestTime;
let east: FaultyStore;
let west: FaultyStore;

beforeEach(() => {
  time = new TestTime();
  east = new FaultyStore(time.vault('east'));
  west = new FaultyStore(time.vault('west'));
});

const policies = new Map<string, RetentionPolicy>([
  ['orders', { kind: 'database', retentionMs: 30 * day, keepAtLeast: 1 }],
]);
const options = (facts: Partial<RepairOptions> = {}): RepairOptions => ({
  from: [east],
  to: west,
  policies,
  clock: time,
  log: silentLog,
  ...facts,
});
const content = async (store: FaultyStore) => (await keysOf(store)).filter((key) => !key.startsWith('leases/'));
const bytesOf = async (store: FaultyStore) => {
  const found: Record<string, string> = {};
  for (const key of await content(store)) found[key] = (await store.read(key)).toString('hex');
  return found;
};

describe('repair between vaults', () => {
  test('a vault that was away gets everything, byte for byte, manifest last, and restores alone', async () => {
    const root = await tempDir('repair');
    mkdirSync(path.join(root, 'sub'));
    for (let i = 0; i < 40; i++) writeFileSync(path.join(root, 'sub', `file-${i}`), `content ${i}\n`.repeat(i * 500));
    const world = await backupWorld([east]);
    const source = { name: 'uploads', kind: 'data' as const, path: root, exclude: [], allowEmpty: false };
    const { manifest } = await takeDirectoryBackup({ ...world.context, partBytes: 4096 }, source);
    await putBackup([east], { time });
    const { hold } = await setHold([east], { reason: 'incident', by: 'alice', nowMs: time.now() });
    await putVerification([east], manifest, time);
    const seen: Progress[] = [];
    const result = await copyMissing(options({ onProgress: (progress) => seen.push(progress) }));
    expect(result.failed).toEqual([]);
    expect(result.copied).toHaveLength(2);
    expect(result.records).toBe(2);
    expect(await bytesOf(west)).toEqual(await bytesOf(east));
    expect(await keysOf(west, 'holds/')).toEqual([layout.hold(hold.id)]);
    for (const resource of ['uploads', 'orders']) {
      const own = west.created.filter((key) => key.includes(`/${resource}/`) && !key.startsWith('verifications/'));
      expect(own.at(-1)).toMatch(/^manifests\//);
    }
    expect(seen.at(-1)).toMatchObject({ task: 'repair west', unit: 'bytes' });
    expect(seen.at(-1)?.done).toBe(seen.at(-1)?.total);
    const { keyRing, pool } = world;
    const restored = await readBackup({ store: west, manifest, keyRing, pool });
    expect(restored.bytes).toBe(manifest.logicalBytes);
    expect(await copyMissing(options())).toMatchObject({ copied: [], records: 0 });
    await pool.close();
  });

  test('interrupted anywhere it leaves no backup that is not whole, and goes on where it stopped', async () => {
    for (let i = 0; i < 3; i++) await time.ago(i * hour, () => putBackup([east], { time, parts: 3 }));
    const expected = await bytesOf(east);
    const writes = Object.keys(expected).length;
    for (let stopAt = 0; stopAt < writes; stopAt++) {
      const fresh = new FaultyStore(time.vault('west'));
      let count = 0;
      fresh.fail = (kind, key) =>
        kind === 'create' && !key.startsWith('leases/') && count++ === stopAt
          ? new DrError('unreachable', 'cut off')
          : undefined;
      await expect(copyMissing(options({ to: fresh }))).rejects.toThrow('cut off');
      fresh.fail = () => undefined;
      const half = await bytesOf(fresh);
      for (const key of Object.keys(half).filter((k) => k.startsWith('manifests/'))) {
        const { parts, index }: { parts: Array<{ key: string }>; index: { key: string } } = JSON.parse(
          Buffer.from(half[key] ?? '', 'hex').toString(),
        );
        for (const needed of [...parts, index]) expect(half).toHaveProperty([needed.key]);
      }
      const already = fresh.created.length;
      await copyMissing(options({ to: fresh }));
      expect(await bytesOf(fresh)).toEqual(expected);
      // Nothing was sent twice (leases come and go).
      const sent = fresh.created.slice(already).filter((key) => !key.startsWith('leases/'));
      expect(sent.filter((key) => half[key] !== undefined)).toEqual([]);
    }
  });

  test('a backup that is damaged at its source is named and not copied; the others are', async () => {
    const good = await time.ago(2 * hour, () => putBackup([east], { time }));
    const bad = await time.ago(1 * hour, () => putBackup([east], { time }));
    await damage(east, bad.parts[1]?.key ?? '');
    const result = await copyMissing(options());
    expect(result.copied.map(({ id }) => id)).toEqual([good.id]);
    expect(result.failed).toMatchObject([
      { id: bad.id, error: { kind: 'corrupt', where: `memory://east/${bad.parts[1]?.key}` } },
    ]);
    expect(await keysOf(west, 'manifests/')).toEqual([layout.manifest('orders', good.id)]);
  });

  test('a damaged manifest at the only source is named', async () => {
    const bad = await putBackup([east], { time });
    await damage(east, layout.manifest('orders', bad.id));
    expect((await copyMissing(options())).failed).toMatchObject([{ id: bad.id, error: { kind: 'corrupt' } }]);
  });

  test('of two sources each damaged in another place one whole copy is made', async () => {
    const north = new FaultyStore(time.vault('north'));
    const backup = await putBackup([east, north], { time });
    await damage(east, backup.parts[0]?.key ?? '');
    await damage(north, backup.parts[1]?.key ?? '');
    await north.delete([backup.index.key]);
    const result = await copyMissing(options({ from: [east, north] }));
    expect(result.failed).toEqual([]);
    for (const { key } of [...backup.parts, backup.index]) expect(await keysOf(west)).toContain(key);
  });

  test('a source that does not answer is left out; when none answers it is an error', async () => {
    const north = new FaultyStore(time.vault('north'));
    await putBackup([north], { time });
    east.fail = () => new DrError('unreachable', 'no answer');
    const result = await copyMissing(options({ from: [east, north] }));
    expect(result.copied).toHaveLength(1);
    expect(result.unread.map(({ vault }) => vault)).toEqual(['east']);
    await expect(copyMissing(options({ from: [east] }))).rejects.toMatchObject({ kind: 'unreachable' });
  });

  test('other content under the same name in the target is never taken for the backup: it is replaced', async () => {
    const backup = await putBackup([east], { time });
    const key = backup.parts[0]?.key ?? '';
    await west.create(key, Buffer.from('half'));
    expect(await copyMissing(options())).toMatchObject({ failed: [], copied: [{ id: backup.id }] });
    expect(await bytesOf(west)).toEqual(await bytesOf(east));
    // Not where no good copy is at hand.
    const worse = await putBackup([east], { time });
    const bad = worse.parts[0]?.key ?? '';
    await west.create(bad, Buffer.from('half'));
    await damage(east, bad);
    expect((await copyMissing(options())).failed).toMatchObject([{ id: worse.id, error: { kind: 'corrupt' } }]);
    expect(await keysOf(west, layout.manifests())).toEqual([layout.manifest('orders', backup.id)]);
    expect((await west.read(bad)).toString()).toBe('half');
  });

  test('what retention has deleted is not brought back', async () => {
    const old = await time.ago(60 * day, () => putBackup([east, west], { time }));
    await time.ago(50 * day, () => putBackup([east, west], { time }));
    await time.ago(1 * day, () => putBackup([east, west], { time }));
    await west.delete([layout.manifest('orders', old.id)]);
    expect((await copyMissing(options())).copied).toEqual([]);
    expect(await keysOf(west, 'manifests/')).toHaveLength(2);
  });

  test('what is being copied is not collected meanwhile, and what came late is kept after', async () => {
    const backup = await time.ago(10 * day, () => putBackup([east], { time }));
    let blocked: unknown;
    west.before = async (kind, key) => {
      if (kind !== 'create' || key !== backup.index.key) return;
      west.before = () => {};
      const report = await applyRetention({ stores: [east, west], policies, clock: time, log: silentLog });
      blocked = report.vaults[1]?.error;
    };
    await copyMissing(options());
    expect(blocked).toMatchObject({ kind: 'lease-held' });
    await applyRetention({ stores: [east, west], policies, clock: time, log: silentLog });
    expect(await bytesOf(west)).toEqual(await bytesOf(east));
  });
});
