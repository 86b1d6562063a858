import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { listBackupIds, readManifest } from '../../../src/backup/catalog.ts';
import { silentLog } from '../../../src/base/log.ts';
import { FileStore } from '../../../src/vault/file-store.ts';
import { openVaults } from '../../../src/vault/roster.ts';
import type { ObjectStore } from '../../../src/vault/store.ts';
import { startNode } from '../../harness/process.ts';
import { tempDir } from '../../harness/temp.ts';
import { hour, keysOf, putBackup, putVerification, TestTime, walSession } from './vault-fixture.ts';

const child = join(import.meta.dirname, 'repair-child.ts');

async function contentOf(store: ObjectStore): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const key of await keysOf(store)) {
    if (!/^(leases|dr-vault)/.test(key))
      found[key] = createHash('sha256')
        .update(await store.read(key))
        .digest('hex');
  }
  return found;
}

/** What a manifest in the vault names is there, whole: a backup that is half copied has none. */
async function isConsistent(store: ObjectStore): Promise<void> {
  for (const id of await listBackupIds(store, 'orders')) {
    const { index, parts } = await readManifest(store, 'orders', id);
    for (const { key, sha256 } of [index, ...parts]) {
      expect(
        createHash('sha256')
          .update(await store.read(key))
          .digest('hex'),
        key,
      ).toBe(sha256);
    }
  }
}

test('killed at any write, a repair leaves nothing half done and goes on where it stopped', async () => {
  const root = await tempDir('repair-kill');
  const [east, west] = ['east', 'west'].map(
    (name) => new FileStore({ name, region: `region-${name}`, root: join(root, name) }),
  ) as [FileStore, FileStore];
  await openVaults([east, west], { log: silentLog });
  const time = new TestTime(Date.now());
  const session = await walSession([east], time);
  for (let i = 0; i < 8; i++) {
    const backup = await putBackup([east], { time, walSegment: i, parts: 3 });
    await session.segment(i);
    if (i % 4 === 0) await putVerification([east], backup, time);
  }
  const repaired = async (stopAt?: number) => {
    const args = [
      join(root, 'east'),
      join(root, 'west'),
      String(hour),
      ...(stopAt === undefined ? [] : [String(stopAt)]),
    ];
    return await startNode(child, args).ended;
  };
  for (const stopAt of [2, 9, 20, 31]) {
    expect(await repaired(stopAt)).toMatchObject({ signal: 'SIGKILL' });
    await isConsistent(west);
  }
  const rest = JSON.parse((await repaired()).stdout);
  expect(rest).toMatchObject({ failed: 0, left: [] });
  // What the killed ones had done was not done again: each write is one object and a little for the lease.
  expect(rest.writes).toBeLessThan(Object.keys(await contentOf(east)).length);
  expect(await contentOf(west)).toEqual(await contentOf(east));

  const spoilt = Object.keys(await contentOf(west)).filter((key) =>
    /^(parts|indexes|keys|manifests|wal|verifications)\//.test(key),
  );
  for (const [i, key] of spoilt.entries()) {
    if (i % 3 === 0) await west.delete([key]);
    else await west.overwrite(key, Buffer.from('spoilt'));
  }
  for (const stopAt of [3, 25, 40]) expect(await repaired(stopAt)).toMatchObject({ signal: 'SIGKILL' });
  expect(JSON.parse((await repaired()).stdout)).toMatchObject({ failed: 0, left: [] });
  expect(await contentOf(west)).toEqual(await contentOf(east));
}, 180_000);
