import { afterEach, beforeEach, expect, test } from 'vitest';
import { createWal } from '../../../src/backup/wal/create.ts';
import type { WalHeader } from '../../../src/backup/wal/object.ts';
import { layout } from '../../../src/vault/layout.ts';
import { S3Store } from '../../../src/vault/s3-store.ts';
import { S3Server } from '../../harness/s3-server/server.ts';

const day = 86_400_000;
const keyId = 'b'.repeat(32);
let shiftMs = 0;
const now = () => Date.now() + shiftMs;
let server: S3Server;
let store: S3Store;

beforeEach(async () => {
  shiftMs = 0;
  server = await S3Server.start({ buckets: { vault: { objectLock: true } }, objectsNow: now });
  const { endpoint, accessKeyId, secretAccessKey } = server;
  store = new S3Store({
    name: 'east',
    region: 'eu-west-1',
    bucket: 'vault',
    prefix: '',
    endpoint,
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
    lock: { mode: 'compliance', byResource: {}, otherwiseMs: 30 * day },
    now,
  });
});
afterEach(async () => {
  await store.close();
  await server.stop();
});

test('the key of a long WAL session stays locked as long as what it seals; pieces are not locked', async () => {
  await store.create(layout.key(keyId), Buffer.from('a wrapped key'));
  const wal = (segment: number, piece = '') => ({
    key: `wal/1/00000001/00000001000000000000000${segment}${piece}`,
    header: { keyId } as WalHeader,
    body: Buffer.from('wal'),
  });
  const longer = () => server.requests.filter(({ operation }) => operation === 'PutObjectRetention').length;
  for (let segment = 1; segment <= 9; segment++) {
    await createWal(store, wal(segment, '.00000000-00000BB8'));
    await createWal(store, wal(segment));
    const [sealed, key] = [
      await store.locks?.lockedUntil(wal(segment).key),
      await store.locks?.lockedUntil(layout.key(keyId)),
    ];
    expect(key ?? 0, `segment ${segment}`).toBeGreaterThanOrEqual(now() + 30 * day - 60_000);
    expect(sealed ?? 0).toBeGreaterThan(now() + 30 * day - 60_000);
    expect(await store.locks?.lockedUntil(wal(segment, '.00000000-00000BB8').key)).toBeUndefined();
    shiftMs += day;
  }
  // Nine days, and a lock that is made nearly four days longer than it must.
  expect(longer()).toBe(2);
});
