import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DeleteObjectCommand, DeleteObjectsCommand, ListObjectVersionsCommand, S3Client } from '@aws-sdk/client-s3';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { examineVault } from '../../src/backup/care/check-vault.ts';
import { repairVault } from '../../src/backup/care/repair-vault.ts';
import type { BackupContext } from '../../src/backup/context.ts';
import { rotateKeys } from '../../src/backup/keys/rotate.ts';
import type { Manifest } from '../../src/backup/manifest.ts';
import { restoreBackup } from '../../src/backup/restore.ts';
import { applyRetention } from '../../src/backup/retention/collect.ts';
import type { RetentionPolicy } from '../../src/backup/retention/retention.ts';
import { takeDirectoryBackup } from '../../src/backup/take-directory.ts';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import { silentLog } from '../../src/base/log.ts';
import { doctorVault } from '../../src/vault/doctor.ts';
import { enrolVault } from '../../src/vault/enrol.ts';
import { layout } from '../../src/vault/layout.ts';
import type { LockPolicy } from '../../src/vault/lock-policy.ts';
import { MemoryStore } from '../../src/vault/memory-store.ts';
import { S3Store } from '../../src/vault/s3-store.ts';
import type { S3Request } from '../harness/s3-server/faults.ts';
import { S3Server } from '../harness/s3-server/server.ts';
import { tempDir } from '../harness/temp.ts';
import { backupWorld } from './fixture.ts';

const day = 86_400_000;
/** What `for: retention` gives for a daily backup that is kept for 30 days. */
const period = 32 * day;
const slack = 4 * day;
const lock: LockPolicy = { mode: 'governance', byResource: { uploads: period }, otherwiseMs: period };
const policy: RetentionPolicy = {
  kind: 'data',
  retentionMs: 30 * day,
  keepAtLeast: 1,
};
const policies = new Map([['uploads', policy]]);

let server: S3Server;
let east: S3Store;
let world: Awaited<ReturnType<typeof backupWorld>>;
let context: BackupContext;
let source: string;
let shiftMs: number;
const now = () => Date.now() + shiftMs;
/** Time passes for the store, its objects and dr alike; signatures stay in the present. */
const clock: Clock = { now, sleep: systemClock.sleep };

const open = (locks: LockPolicy | undefined = lock) =>
  new S3Store({
    name: 'east',
    region: 'eu-west-1',
    bucket: 'vault',
    prefix: 'p',
    endpoint: server.endpoint,
    forcePathStyle: true,
    credentials: { accessKeyId: server.accessKeyId, secretAccessKey: server.secretAccessKey },
    lock: locks,
    now,
    limits: { attempts: 2, retryBaseMs: 1, retryMaxMs: 2 },
  });

beforeEach(async () => {
  shiftMs = 0;
  server = await S3Server.start({ buckets: { vault: { objectLock: true }, plain: {} }, objectsNow: now });
  east = open();
  await enrolVault(east);
  server.requests.length = 0;
  world = await backupWorld([east, new MemoryStore({ name: 'west', region: 'eu-central-1', now })]);
  context = { ...world.context, partBytes: 1024 * 1024, scratch: await tempDir('scratch'), clock };
  source = await tempDir('source');
  mkdirSync(join(source, 'a'));
  for (let i = 0; i < 6; i++) writeFileSync(join(source, 'a', String(i)), randomBytes(1_300_000));
});
afterEach(async () => {
  await east.close();
  await world.pool.close();
  await server.stop();
});

async function backup(): Promise<Manifest> {
  const directory = { name: 'uploads', kind: 'data', path: source, exclude: [], allowEmpty: false } as const;
  const taken = await takeDirectoryBackup(context, directory);
  expect(taken.lost).toEqual([]);
  return taken.manifest;
}

async function restores(manifest: Manifest, store: S3Store = east): Promise<void> {
  const target = join(await tempDir('target'), 'restored');
  await restoreBackup({ store, manifest, target, keyRing: world.keyRing, pool: world.pool });
  for (const name of ['0', '5']) {
    expect(readFileSync(join(target, 'a', name)).equals(readFileSync(join(source, 'a', name)))).toBe(true);
  }
}

/** Everything that a restore of the backup reads. */
function needsOf({ id, index, parts }: Manifest): string[] {
  const keyIds = new Set([index, ...parts].map(({ keyId = '' }) => layout.key(keyId)));
  return [layout.manifest('uploads', id), index.key, ...parts.map(({ key }) => key), ...keyIds];
}

const asked = (operation: S3Request['operation']) => server.requests.filter((each) => each.operation === operation);

/** What an attacker with the daemon's credentials does: hides everything, and tries to remove every version. */
async function attack(): Promise<{ refused: number }> {
  const { endpoint, accessKeyId, secretAccessKey } = server;
  const credentials = { accessKeyId, secretAccessKey };
  const client = new S3Client({ region: 'eu-west-1', endpoint, forcePathStyle: true, credentials });
  let refused = 0;
  const { Versions = [] } = await client.send(new ListObjectVersionsCommand({ Bucket: 'vault' }));
  for (const { Key, VersionId } of Versions) {
    const one = new DeleteObjectCommand({ Bucket: 'vault', Key, VersionId });
    await client.send(one).catch(() => refused++);
  }
  const Objects = Versions.map(({ Key }) => ({ Key }));
  await client.send(new DeleteObjectsCommand({ Bucket: 'vault', Delete: { Objects }, ChecksumAlgorithm: 'SHA256' }));
  client.destroy();
  return { refused };
}

describe('a backup in a vault with Object Lock', () => {
  test('everything that a later backup uses again is locked as long as that one; requests only when a lock is too short', async () => {
    const first = await backup();
    for (const key of needsOf(first)) {
      expect((await east.locks?.lockedUntil(key)) ?? 0, key).toBeGreaterThan(now() + period);
    }
    shiftMs += day;
    writeFileSync(join(source, 'a', '0'), 'changed');
    const second = await backup();
    const reused = second.parts.filter(({ key }) => first.parts.some((part) => part.key === key));
    expect(reused.length).toBeGreaterThan(3);
    expect(asked('PutObjectRetention')).toHaveLength(0);
    // Day 4.5: too late for the locks of the first backup, not yet for those of the second.
    shiftMs += slack - day / 2;
    // Another process, which remembers nothing.
    await east.close();
    east = open();
    context = { ...context, stores: [east, ...context.stores.slice(1)] };
    writeFileSync(join(source, 'a', '1'), 'changed too');
    const third = await backup();
    const extended = asked('PutObjectRetention').length;
    expect(extended).toBeGreaterThan(3);
    for (const key of needsOf(third)) {
      expect((await east.locks?.lockedUntil(key)) ?? 0, key).toBeGreaterThan(now() + period - 60_000);
    }
    shiftMs += 0.4 * day;
    writeFileSync(join(source, 'a', '2'), 'changed again');
    await backup();
    // Longer than they had to be, so that the next backups need nothing.
    expect(asked('PutObjectRetention').length).toBe(extended);
    await restores(third);
  });

  test('without the right to make locks longer the backup is taken all the same, with a warning', async () => {
    await backup();
    shiftMs += 6 * day;
    writeFileSync(join(source, 'a', '0'), 'changed');
    const denied = { kind: 'status', status: 403, code: 'AccessDenied' } as const;
    const matches = ({ operation }: S3Request) => operation === 'PutObjectRetention';
    server.faults.add(denied, { times: 1000, matches });
    const warned: object[] = [];
    context = { ...context, log: { ...silentLog, warn: (facts) => void warned.push(facts), child: () => context.log } };
    await restores(await backup());
    expect(warned).toMatchObject([{ vault: 'east', error: { kind: 'denied' } }]);
  });

  test('what an attacker hides is found, brought back by taking the markers away, and restores', async () => {
    const manifests = [await backup()];
    writeFileSync(join(source, 'a', '1'), 'changed');
    manifests.push(await backup());
    const { refused } = await attack();
    expect(refused).toBeGreaterThan(8);
    await expect(east.read(layout.manifest('uploads', manifests[1]?.id ?? ''))).rejects.toMatchObject({
      kind: 'not-found',
    });
    // The marker of the vault is hidden, too: it is brought back like everything else.
    await east.versions.reveal([layout.marker]);
    const options = { store: east, others: [], policies, settledMs: 0, clock };
    const check = await examineVault(options);
    expect(check.problems.map(({ key }) => key)).toEqual(
      expect.arrayContaining(manifests.map(({ id }) => layout.manifest('uploads', id))),
    );
    expect(check.problems.find(({ kind }) => kind === 'manifest')?.why).toContain('somebody deleted it at');
    const puts = asked('PutObject').length;
    const repair = await repairVault({ ...options, log: silentLog });
    expect(repair.failed).toEqual([]);
    expect(repair.check.problems).toEqual([]);
    expect(repair.mended.filter(({ done }) => done === 'revealed').length).toBeGreaterThan(8);
    // Leases apart, nothing was sent again.
    const sent = asked('PutObject').slice(puts);
    expect(sent.filter(({ key }) => !key.startsWith('p/leases/'))).toEqual([]);
    const last = manifests[1];
    if (last) await restores(last);
  });

  test('without the right to take markers away the content is copied from behind them', async () => {
    const manifest = await backup();
    await attack();
    await east.versions.reveal([layout.marker]);
    const denied = { kind: 'status', status: 403, code: 'AccessDenied' } as const;
    const matches = ({ operation }: S3Request) => operation === 'DeleteObjects' || operation === 'DeleteObject';
    server.faults.add(denied, { times: 1000, matches });
    const repair = await repairVault({ store: east, others: [], policies, settledMs: 0, clock, log: silentLog });
    server.faults.clear();
    expect(repair.check.problems).toEqual([]);
    expect(repair.mended.filter(({ done }) => done === 'revealed')).toEqual([]);
    await restores(manifest);
  });
});

describe('retention in a vault with Object Lock', () => {
  const retention = () => applyRetention({ stores: context.stores, policies, clock, log: silentLog });

  test('keeps what is locked, says so once, and removes it for good when its lock has ended', async () => {
    const first = await backup();
    for (const days of [1, 31]) {
      shiftMs += days * day;
      writeFileSync(join(source, 'a', '0'), `day ${days}`);
      writeFileSync(join(source, 'a', '5'), `day ${days}`);
      await backup();
    }
    const held = await retention();
    const inEast = held.vaults.find(({ vault }) => vault === 'east');
    expect(inEast).toMatchObject({ removals: [] });
    expect(inEast?.notes.join()).toMatch(
      /^Object Lock keeps what retention would remove: \d+ objects, the last .* until 20/,
    );
    expect(await east.stat(layout.manifest('uploads', first.id))).toBeDefined();
    const west = held.vaults.find(({ vault }) => vault === 'west');
    expect(west?.removals.length).toBeGreaterThan(0);
    shiftMs += period;
    writeFileSync(join(source, 'a', '0'), 'last');
    await backup();
    const done = await retention();
    expect(done.vaults.find(({ vault }) => vault === 'east')?.removals.length).toBeGreaterThan(0);
    expect(server.buckets.versions('vault', `p/${layout.manifest('uploads', first.id)}`)).toEqual([]);
  });

  test('keeps locked what is kept longer than its lock was made for', async () => {
    const only = await backup();
    const original = (await east.locks?.lockedUntil(layout.manifest('uploads', only.id))) ?? 0;
    // No new backup comes: the last good one is kept whatever its age, and somebody waits for its lock to end.
    for (let i = 0; i < 10; i++) {
      shiftMs += 6 * day;
      await retention();
    }
    expect(now()).toBeGreaterThan(original);
    for (const key of [...needsOf(only), layout.marker]) {
      expect((await east.locks?.lockedUntil(key)) ?? 0, key).toBeGreaterThan(now() + 5 * day);
    }
    const { refused } = await attack();
    expect(refused).toBeGreaterThanOrEqual(needsOf(only).length);
  });
});

test('old wraps of data keys stay while they are locked, and are removed for good afterwards', async () => {
  const manifest = await backup();
  const fresh = await generateIdentity();
  const policy = { recipients: [await identityToRecipient(fresh)] };
  const rotate = () =>
    rotateKeys({
      stores: [east],
      policy,
      openers: { identities: [world.identity, fresh] },
      removeOld: true,
      clock,
      log: silentLog,
    });
  const old = layout.key(manifest.index.keyId ?? '');
  expect((await rotate()).kept).toMatchObject([
    { vault: 'east', objects: 1, why: expect.stringContaining('Object Lock') },
  ]);
  expect(await east.stat(old)).toBeDefined();
  shiftMs += period + slack + day;
  expect(await rotate()).toMatchObject({ kept: [], vaults: [{ removed: 1 }] });
  expect(server.buckets.versions('vault', `p/${old}`)).toEqual([]);
});

describe('enrolment and doctor', () => {
  test('a bucket without Object Lock is refused before anything is written; doctor says so of one that lost it', async () => {
    const plain = new S3Store({
      name: 'west',
      region: 'eu-west-1',
      bucket: 'plain',
      prefix: '',
      endpoint: server.endpoint,
      forcePathStyle: true,
      credentials: { accessKeyId: server.accessKeyId, secretAccessKey: server.secretAccessKey },
      lock,
    });
    await expect(enrolVault(plain)).rejects.toMatchObject({
      kind: 'refused',
      message: expect.stringContaining('Object Lock is not enabled'),
      next: expect.stringContaining('vaults.west.objectLock'),
    });
    expect(server.buckets.keys('plain')).toEqual([]);
    const { findings } = await doctorVault(plain, { now });
    expect(findings.filter(({ verdict }) => verdict === 'fail').map(({ what }) => what)).toEqual([
      'not immutable although objectLock is configured: Object Lock is not enabled for the bucket',
    ]);
    await plain.close();
  });

  test('the delete of a locked object is refused; a right to bypass, and a default lock, are warned of', async () => {
    const verdicts = async (store: S3Store) =>
      (await doctorVault(store, { now })).findings
        .filter(({ what }) => /immutable|bypass|the bucket locks/.test(what))
        .map(({ verdict, what }) => `${verdict} ${what}`);
    expect(await verdicts(east)).toEqual([
      'ok immutable (governance): the delete of a locked object was refused',
      expect.stringMatching(/^warn these credentials may bypass the lock/),
    ]);
    const bypass = ({ headers }: S3Request) => headers['x-amz-bypass-governance-retention'] === 'true';
    server.faults.add({ kind: 'status', status: 403, code: 'AccessDenied' }, { matches: bypass });
    expect(await verdicts(east)).toHaveLength(1);
    server.buckets.make('vault', { objectLock: { mode: 'GOVERNANCE', days: 7 } });
    expect((await verdicts(east)).at(-1)).toMatch(/^warn the bucket locks everything for 7 days/);
  });

  test('a store that lets locked objects be deleted is found out', async () => {
    const matches = ({ operation, versionId }: S3Request) => operation === 'DeleteObject' && versionId !== undefined;
    server.faults.add({ kind: 'ignore-lock' }, { matches });
    const { findings } = await doctorVault(east, { now });
    expect(findings.find(({ verdict }) => verdict === 'fail')?.what).toContain('could be deleted');
  });
});
