import { afterAll, describe, expect, test } from 'vitest';
import { copyMissing } from '../../../src/backup/care/repair.ts';
import { applyRetention } from '../../../src/backup/retention/collect.ts';
import { takeBackup } from '../../../src/backup/take.ts';
import { silentLog } from '../../../src/base/log.ts';
import { layout } from '../../../src/vault/layout.ts';
import { SealPool } from '../../../src/vault/seal-pool.ts';
import { day, hour, keysOf, putBackup } from '../care/vault-fixture.ts';
import { backupAgo, both, content, east, options, policies, time, west } from './vaults.ts';

const pool = new SealPool(1);
afterAll(async () => await pool.close());

/** A backup that takes `tookMs`. */
const take = (tookMs: number) =>
  takeBackup(
    {
      stores: both(),
      keyPolicy: 'none',
      pool,
      site: 'east',
      tool: 'dr test',
      compressionLevel: 1,
      partBytes: 1000,
      clock: time,
      log: silentLog,
    },
    {
      resource: 'uploads',
      kind: 'data',
      source: 'test',
      allowEmpty: false,
      pack: async (pack) => {
        await pack.begin({ path: Buffer.from('a'), type: 'file', mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n }, 3);
        await pack.write(Buffer.from('abc'));
        await pack.end();
        time.nowMs += tookMs;
        return { notes: [], files: 1, recoveryPointMs: time.now() };
      },
    },
  );

describe('who stood still for too long changes nothing', () => {
  test('a backup is not committed when what it stored first may have been collected', async () => {
    await expect(take(37 * hour)).rejects.toMatchObject({
      kind: 'refused',
      message: expect.stringMatching(/began 37 h ago/),
    });
    expect(await keysOf(east, 'manifests/')).toEqual([]);
    expect((await take(35 * hour)).vaults).toEqual(['east', 'west']);
  });

  test('retention whose lease ran out while it asked for it deletes nothing', async () => {
    for (const age of [200, 150]) await backupAgo(age * day, { resource: 'uploads', kind: 'data' });
    await backupAgo(3 * day, { resource: 'uploads', kind: 'data' });
    const before = await content(east);
    let looks = 0;
    east.before = (kind, key) => {
      // The look just before the deletion: the answer is right when it is given, and heard a minute later.
      if (kind === 'list' && key === layout.lease('retention') && ++looks === 3) time.nowMs += 60_000;
    };
    const report = await applyRetention(options());
    expect(looks).toBeGreaterThanOrEqual(3);
    expect(report.vaults[0]?.blocked).toMatch(/it was not renewed in time/);
    expect(await content(east)).toEqual(before);
    expect(report.vaults[1]?.blocked).toBeUndefined();
  });

  test('a copy between vaults whose lease ran out is not committed', async () => {
    const missing = await time.ago(3 * day, () => putBackup([east], { time, resource: 'uploads', kind: 'data' }));
    west.before = (kind, key) => {
      if (kind === 'create' && key === missing.index.key) time.nowMs += 60_000;
    };
    const copy = () => copyMissing({ from: [east], to: west, policies, clock: time, log: silentLog });
    await expect(copy()).rejects.toThrow(/not renewed in time/);
    expect(await keysOf(west, 'manifests/')).toEqual([]);
    west.before = () => {};
    expect((await copy()).copied).toMatchObject([{ id: missing.id }]);
  });
});
