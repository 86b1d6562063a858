import { afterAll, beforeAll, expect, test } from 'vitest';
import { newestBackup, RECENT_MS, recentNames } from '../../../src/backup/catalog.ts';
import type { Manifest } from '../../../src/backup/manifest.ts';
import type { WatchedResource } from '../../../src/backup/status/model.ts';
import { measureStatus } from '../../../src/backup/status/status.ts';
import { layout, timedId } from '../../../src/vault/layout.ts';
import { S3Store } from '../../../src/vault/s3-store.ts';
import { S3Server } from '../../harness/s3-server/server.ts';
import { day, hour, putBackup, putVerification, TestTime } from '../care/vault-fixture.ts';

let server: S3Server;
const opened: S3Store[] = [];
beforeAll(async () => {
  server = await S3Server.start({ buckets: [] });
});
afterAll(async () => {
  for (const store of opened) await store.close();
  await server.stop();
});

function bucket(name: string): S3Store {
  server.buckets.make(name);
  const { endpoint, accessKeyId, secretAccessKey } = server;
  const credentials = { accessKeyId, secretAccessKey };
  const place = { region: `region-${name}`, bucket: name, prefix: 'dr', endpoint, forcePathStyle: true };
  const store = new S3Store({ name, ...place, credentials });
  opened.push(store);
  return store;
}

const uploads: WatchedResource = {
  name: 'uploads',
  kind: 'data',
  schedule: 'daily',
  intervalMs: day,
  rpoMs: undefined,
  retentionMs: 90 * day,
  wal: false,
  verifyEveryMs: day,
  nextRun: (nowMs) => nowMs + hour,
};

/** Two buckets with three recent backups and `old` ones, a few hours apart, before them; and how many requests a status takes. */
async function requestsOf(name: string, old: number) {
  const time = new TestTime();
  const stores = [bucket(`${name}-one`), bucket(`${name}-two`)];
  for (let i = 0; i < old; i++) {
    const id = timedId(time.now() - RECENT_MS - (i + 1) * hour, 'aaaaaa');
    for (const { name } of stores) {
      // Never read, so it need not be one.
      server.buckets.put(name, `dr/${layout.manifest('uploads', id)}`, Buffer.from('old'), undefined);
      server.buckets.put(name, `dr/${layout.verification('uploads', id)}`, Buffer.from('old'), undefined);
    }
  }
  let newest: Manifest | undefined;
  for (const ago of [30 * day, 2 * day, hour]) {
    newest = await time.ago(ago, () => putBackup(stores, { resource: 'uploads', kind: 'data', time }));
  }
  if (newest) await putVerification(stores, newest, time);
  server.requests.length = 0;
  const status = await measureStatus({
    stores,
    resources: [uploads],
    siteRegions: { here: `region-${name}-one` },
    firstActive: 'here',
    rtoMs: hour,
    clock: time,
  });
  return { status, newest: newest?.id, requests: server.requests.map(({ operation }) => operation).sort() };
}

test('the requests of a status do not grow with the number of backups', async () => {
  const few = await requestsOf('few', 2);
  const many = await requestsOf('many', 4000);
  expect(many.status).toMatchObject({ ok: true, alerts: [], resources: [{ newest: { id: many.newest } }] });
  expect(many.status.resources[0]?.verified?.backupId).toBe(many.newest);
  expect(many.requests).toEqual(few.requests);
  // By vault: active site, holds, retention and care; recent and oldest backups, the newest one, its heartbeat, verifications.
  expect(many.requests.length).toBeLessThan(30);
});

test('the newest is found however old it is, and whatever the clock says', async () => {
  const store = bucket('sparse');
  const time = new TestTime();
  const backup = (ago: number) => time.ago(ago, () => putBackup([store], { resource: 'uploads', kind: 'data', time }));
  const prefix = layout.manifests('uploads');
  expect(await recentNames(store, prefix, time.now())).toEqual([]);
  const [oldest, old, newer] = [await backup(4000 * day), await backup(700 * day), await backup(690 * day)];
  expect(await recentNames(store, prefix, time.now() - 680 * day)).toEqual([old.id, newer.id]);
  expect(await recentNames(store, prefix, time.now() - 400 * day)).toEqual([old.id, newer.id]);
  expect(await recentNames(store, prefix, time.now() - 3000 * day)).toEqual([old.id, newer.id]);
  expect(await recentNames(store, prefix, time.now())).toEqual([oldest.id, old.id, newer.id]);
  expect(await recentNames(store, prefix, time.now() + 9000 * day)).toEqual([oldest.id, old.id, newer.id]);
  expect((await newestBackup(store, 'uploads'))?.id).toBe(newer.id);
  expect((await newestBackup(store, 'uploads', time.now() - 695 * day))?.id).toBe(old.id);
  expect((await newestBackup(store, 'uploads', time.now() - 3000 * day))?.id).toBe(oldest.id);
  expect(await newestBackup(store, 'uploads', time.now() - 5000 * day)).toBeUndefined();
});
