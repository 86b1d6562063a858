import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { backupResource } from '../../src/backup/backup-resource.ts';
import { listBackupIds, newestBackup } from '../../src/backup/catalog.ts';
import type { BackupContext } from '../../src/backup/context.ts';
import { restoreBackup } from '../../src/backup/restore.ts';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import type { MemoryStore } from '../../src/vault/memory-store.ts';
import { S3Store } from '../../src/vault/s3-store.ts';
import type { ObjectStore } from '../../src/vault/store.ts';
import { FastClock } from '../harness/fast-clock.ts';
import type { S3Request } from '../harness/s3-server/faults.ts';
import { S3Server } from '../harness/s3-server/server.ts';
import { tempDir } from '../harness/temp.ts';
import { backupWorld, memoryVault } from './fixture.ts';

// What a vault in trouble does to a backup: the backup gets through, or that vault is left out and the other one holds it whole.

let server: S3Server;
let east: S3Store;
let west: MemoryStore;
let world: Awaited<ReturnType<typeof backupWorld>>;
let root: string;
let clock: Clock;

beforeEach(async () => {
  server = await S3Server.start();
  clock = new FastClock(40);
  const { endpoint, accessKeyId, secretAccessKey } = server;
  east = new S3Store({
    name: 'east',
    region: 'region-east',
    bucket: 'vault',
    prefix: 'dr',
    endpoint,
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
    clock,
  });
  west = memoryVault('west');
  // The vault in trouble comes first: it is the one that holds the lease.
  world = await backupWorld([east, west]);
  root = await tempDir('uploads');
  for (let i = 0; i < 8; i++) writeFileSync(join(root, `file-${i}`), randomBytes(1024 * 1024));
});
afterEach(async () => {
  await east.close();
  await world.pool.close();
  await server.stop();
});

const uploads = () => ({
  type: 'directory' as const,
  name: 'uploads',
  kind: 'data' as const,
  path: root,
  exclude: [],
  allowEmpty: false,
});
const context = (more: Partial<BackupContext> = {}): BackupContext => ({
  ...world.context,
  clock,
  partBytes: 1024 * 1024,
  ...more,
});

async function expectWhole(store: ObjectStore): Promise<void> {
  const manifest = await newestBackup(store, 'uploads');
  expect(manifest).toBeDefined();
  if (!manifest) return;
  const target = join(await tempDir('restored'), 'uploads');
  await restoreBackup({ store, manifest, keyRing: world.keyRing, pool: world.pool, target });
  expect(readdirSync(target).sort()).toEqual(readdirSync(root).sort());
  for (const name of readdirSync(root)) {
    expect(readFileSync(join(target, name)).equals(readFileSync(join(root, name))), name).toBe(true);
  }
}

/** Calls back once, when the server has stored so many parts. */
function afterParts(count: number, then: () => void): void {
  let parts = 0;
  server.faults.add(
    { kind: 'reset' },
    {
      times: Number.POSITIVE_INFINITY,
      matches: (request) => {
        if (request.operation === 'PutObject' && request.key.startsWith('dr/parts/') && ++parts === count) then();
        return false;
      },
    },
  );
}

test('a minute of 503 SlowDown to everything, longer than the lease lasts: the backup is in both vaults', async () => {
  let throttled = 0;
  afterParts(1, () => {
    const until = clock.now() + 60_000;
    const matches = () => clock.now() < until && ++throttled > 0;
    server.faults.add({ kind: 'status', status: 503, code: 'SlowDown' }, { times: Number.POSITIVE_INFINITY, matches });
  });
  const taken = await backupResource(context(), uploads());
  expect(throttled).toBeGreaterThan(8);
  expect(taken).toMatchObject({ vaults: ['east', 'west'], lost: [] });
  await expectWhole(east);
  await expectWhole(west);
});

describe('the vault is left out and the other one completes', () => {
  const always = { times: Number.POSITIVE_INFINITY };
  test.each<[string, () => void, RegExp, RegExp]>([
    [
      'credentials that expire',
      () => server.faults.add({ kind: 'status', status: 400, code: 'ExpiredToken' }, always),
      /vault east: the store answered 400 ExpiredToken/,
      /Renew the temporary credentials/,
    ],
    [
      'a bucket that is deleted',
      () => server.buckets.drop('vault'),
      /bucket vault of vault east does not exist/,
      /Create bucket vault in region-east or correct the url of vault east/,
    ],
    [
      'a bucket that may not be written any more',
      () =>
        server.faults.add(
          { kind: 'status', status: 403, code: 'AccessDenied' },
          { ...always, matches: ({ operation }: S3Request) => operation === 'PutObject' },
        ),
      /vault east: the store answered 403 AccessDenied/,
      /Allow .*s3:PutObject/,
    ],
    [
      'a quota that is used up',
      () => server.faults.add({ kind: 'status', status: 507, code: 'InsufficientStorage' }, always),
      /vault east: the store answered 507/,
      /Raise the quota of the bucket/,
    ],
  ])('%s in mid-backup', async (_, harm, message, next) => {
    afterParts(1, harm);
    const taken = await backupResource(context(), uploads());
    expect(taken.vaults).toEqual(['west']);
    expect(taken.lost).toMatchObject([{ vault: 'east', error: { next: expect.stringMatching(next) } }]);
    expect(taken.lost[0]?.reason).toMatch(message);
    expect(taken.manifest.notes).toMatchObject([{ kind: 'vault-lost', subject: 'east' }]);
    await expectWhole(west);
    server.faults.clear();
    server.buckets.make('vault');
    expect(await listBackupIds(east, 'uploads')).toEqual([]);
  });

  test('a vault that takes no lease from the beginning', async () => {
    const matches = ({ operation }: S3Request) => operation === 'PutObject';
    server.faults.add({ kind: 'status', status: 403, code: 'AccessDenied' }, { ...always, matches });
    expect((await backupResource(context(), uploads())).vaults).toEqual(['west']);
    await expectWhole(west);
  });
});

describe('a clock that goes back an hour', () => {
  test('does not change the order of backups, and the backup says so', async () => {
    const now = Date.UTC(2026, 10, 23, 12);
    const at = (ms: number) => context({ stores: [west], clock: { ...systemClock, now: () => ms } });
    const ahead = await backupResource(at(now + 3_600_000), uploads());
    writeFileSync(join(root, 'later'), 'later');
    const right = await backupResource(at(now + 60_000), uploads());
    const next = await backupResource(at(now + 120_000), uploads());
    const ids = [ahead, right, next].map(({ manifest }) => manifest.id);
    expect(ids).toEqual([...ids].sort());
    expect(await listBackupIds(west, 'uploads')).toEqual(ids);
    expect((await newestBackup(west, 'uploads'))?.id).toBe(next.manifest.id);
    expect(right.manifest.startedAt).toBe(new Date(now + 60_000).toISOString());
    expect(right.manifest.notes).toMatchObject([
      { detail: expect.stringContaining('bears a time 59 min after its start') },
    ]);
    const later = await backupResource(at(now + 7_200_000), uploads());
    expect(later.manifest.notes).toEqual([]);
    expect(later.manifest.id).toMatch(/^20261123T140000000Z-/);
  });
});
