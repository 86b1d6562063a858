import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectVersionsCommand,
  PutObjectCommand,
  PutObjectRetentionCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { LockPolicy } from '../../src/vault/lock-policy.ts';
import type { S3Store } from '../../src/vault/s3-store.ts';
import { LockedError, type ObjectStore } from '../../src/vault/store.ts';
import { collect } from './object-store.ts';

/** A bucket with Object Lock for one run of the suite. */
export interface LockedBucket {
  readonly client: S3Client;
  readonly bucket: string;
  readonly prefix: string;
  open(lock: LockPolicy | undefined): S3Store;
  cleanUp(): Promise<void>;
}

const hour = 3_600_000;
const policy: LockPolicy = { mode: 'governance', byResource: { uploads: 2 * hour }, otherwiseMs: 8 * hour };

/**
 * What the driver relies on, asked of the store itself, and what the driver makes of it. `without`: what a store is known not to do.
 * Run against our test server and, where they are there, against real ones: so the test server stays honest.
 */
export function objectLockConformance(
  name: string,
  factory: () => Promise<LockedBucket>,
  options: { readonly skip?: boolean; readonly without?: readonly 'shortening'[] } = {},
): void {
  const { skip = false, without = [] } = options;
  describe.skipIf(skip)(`Object Lock and versions: ${name}`, () => {
    let world: LockedBucket;
    let store: S3Store;
    beforeAll(async () => {
      world = await factory();
      store = world.open(policy);
    });
    afterAll(async () => {
      await store?.close();
      await world?.cleanUp();
    });
    const at = (key: string) => ({ Bucket: world.bucket, Key: `${world.prefix}/${key}` });
    const inMs = (ms: number) => new Date(Math.ceil((Date.now() + ms) / 1000) * 1000);
    const put = async (key: string, body: string, more: object = {}) =>
      (await world.client.send(new PutObjectCommand({ ...at(key), Body: body, ChecksumAlgorithm: 'SHA256', ...more })))
        .VersionId ?? 'none';
    const status = async (work: Promise<unknown>): Promise<unknown> =>
      work.then(
        () => 'done',
        (error) => error.$metadata?.httpStatusCode,
      );
    const versions = async (key: string) => {
      const found = await world.client.send(
        new ListObjectVersionsCommand({ Bucket: world.bucket, Prefix: `${world.prefix}/${key}` }),
      );
      return { contents: found.Versions ?? [], markers: found.DeleteMarkers ?? [] };
    };

    it('the store: a locked version stays, a plain delete hides it, and it is still there', async () => {
      const versionId = await put('raw/locked', 'one', {
        ObjectLockMode: 'GOVERNANCE',
        ObjectLockRetainUntilDate: inMs(hour),
      });
      expect(
        await status(world.client.send(new DeleteObjectCommand({ ...at('raw/locked'), VersionId: versionId }))),
      ).toBe(403);
      const head = await world.client.send(new HeadObjectCommand(at('raw/locked')));
      expect(head).toMatchObject({ ObjectLockMode: 'GOVERNANCE', VersionId: versionId });
      expect(await status(world.client.send(new DeleteObjectCommand(at('raw/locked'))))).toBe('done');
      expect(await status(world.client.send(new HeadObjectCommand(at('raw/locked'))))).toBe(404);
      const answer = await world.client.send(new GetObjectCommand({ ...at('raw/locked'), VersionId: versionId }));
      expect(await answer.Body?.transformToString()).toBe('one');
      expect((await versions('raw/locked')).markers).toMatchObject([{ IsLatest: true }]);
    });

    it('the store: a locked object can be written over, and the old version stays locked', async () => {
      const first = await put('raw/over', 'one', {
        ObjectLockMode: 'GOVERNANCE',
        ObjectLockRetainUntilDate: inMs(hour),
      });
      const second = await put('raw/over', 'two');
      expect(second).not.toBe(first);
      expect(await status(world.client.send(new DeleteObjectCommand({ ...at('raw/over'), VersionId: second })))).toBe(
        'done',
      );
      const answer = await world.client.send(new GetObjectCommand(at('raw/over')));
      expect(await answer.Body?.transformToString()).toBe('one');
    });

    it.skipIf(without.includes('shortening'))('the store: a lock can be made longer, not shorter', async () => {
      await put('raw/longer', 'one', { ObjectLockMode: 'GOVERNANCE', ObjectLockRetainUntilDate: inMs(hour) });
      const retain = (ms: number) =>
        status(
          world.client.send(
            new PutObjectRetentionCommand({
              ...at('raw/longer'),
              Retention: { Mode: 'GOVERNANCE', RetainUntilDate: inMs(ms) },
              ChecksumAlgorithm: 'SHA256',
            }),
          ),
        );
      expect(await retain(2 * hour)).toBe('done');
      expect(await retain(hour)).toBe(403);
      expect(await retain(-hour)).toBe(400);
    });

    it('the store: a hidden key is free for a create-only write', async () => {
      await put('raw/free', 'one');
      await world.client.send(new DeleteObjectCommand(at('raw/free')));
      expect(await status(put('raw/free', 'two', { IfNoneMatch: '*' }))).toBe('done');
      expect(await status(put('raw/free', 'three', { IfNoneMatch: '*' }))).toBe(412);
      expect((await versions('raw/free')).contents).toHaveLength(2);
    });

    it('locks what it stores, by resource, but not leases, hints, probes and pieces of WAL', async () => {
      const expected: Array<[string, number]> = [
        ['parts/uploads/b1/000000', 2 * hour],
        ['manifests/other/b1.json', 8 * hour],
        ['keys/0123456789abcdef0123456789abcdef/000001.json', 8 * hour],
        ['wal/1/00000001/000000010000000000000001', 8 * hour],
        ['leases/x/0000000001.json', 0],
        ['heartbeats/orders.json', 0],
        ['wal/1/00000001/000000010000000000000001.00000000-00000BB8', 0],
      ];
      for (const [key, period] of expected) {
        await store.create(key, Buffer.from(key));
        const until = await store.locks?.lockedUntil(key);
        if (period === 0) expect(until, key).toBeUndefined();
        else {
          expect((until ?? 0) - Date.now(), key).toBeGreaterThan(period);
          expect((until ?? 0) - Date.now(), key).toBeLessThan(period * 1.2);
        }
      }
    });

    it('says which objects are locked and until when, removes the others, and hides nothing', async () => {
      for (const key of ['manifests/uploads/d1.json', 'leases/d/0000000001.json']) {
        await store.create(key, Buffer.from('x'));
      }
      const fresh = world.open(policy);
      const error = await fresh
        .delete(['manifests/uploads/d1.json', 'leases/d/0000000001.json', 'manifests/uploads/never.json'])
        .catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(LockedError);
      expect(error).toMatchObject({ kind: 'refused', locked: new Set(['manifests/uploads/d1.json']) });
      expect((error as LockedError).untilMs).toBeGreaterThan(Date.now() + hour);
      expect((await store.read('manifests/uploads/d1.json')).toString()).toBe('x');
      expect(await versions('leases/d/')).toEqual({ contents: [], markers: [] });
      expect((await versions('manifests/uploads/d1.json')).markers).toEqual([]);
      await fresh.close();
    });

    it('leaves nothing behind of what is not locked, however often it was written over', async () => {
      for (const text of ['one', 'two', 'three']) await store.overwrite('hints/h.json', Buffer.from(text));
      for (let i = 1; i <= 5; i++) await store.create(`leases/many/000000000${i}.json`, Buffer.from('x'));
      await store.delete(['hints/h.json', ...[1, 2, 3, 4, 5].map((i) => `leases/many/000000000${i}.json`)]);
      expect(await versions('hints/')).toEqual({ contents: [], markers: [] });
      expect(await versions('leases/many/')).toEqual({ contents: [], markers: [] });
    });

    it('makes locks longer only where they are too short', async () => {
      const short = world.open({ ...policy, byResource: { uploads: hour } });
      const long = world.open({ ...policy, byResource: { uploads: 30 * hour } });
      const keys = ['parts/uploads/e1/000000', 'parts/uploads/e1/000001'];
      for (const key of keys) await short.create(key, Buffer.from(key));
      await short.create('keys/1123456789abcdef0123456789abcdef/000001.json', Buffer.from('k'));
      const before = structuredClone(short.stats.requests);
      expect(await short.locks?.extend(keys)).toBe(0);
      expect(short.stats.requests).toEqual(before);
      expect(await long.locks?.extend([...keys, 'keys/1123456789abcdef0123456789abcdef/'])).toBe(2);
      expect((await short.locks?.lockedUntil(keys[0] ?? '')) ?? 0).toBeGreaterThan(Date.now() + 30 * hour);
      const asked = structuredClone(long.stats.requests);
      expect(await long.locks?.extend([...keys, 'keys/1123456789abcdef0123456789abcdef/'])).toBe(0);
      expect(long.stats.requests).toEqual(asked);
      await expect(long.locks?.extend(['parts/uploads/none/000000'])).rejects.toMatchObject({ kind: 'not-found' });
      await Promise.all([short.close(), long.close()]);
    });

    it('finds what was hidden, reads it, and brings it back; a create over it is a new object', async () => {
      const plain: ObjectStore = world.open(undefined);
      const keys = ['manifests/hidden/a.json', 'manifests/hidden/b.json', 'manifests/hidden/c.json'];
      for (const key of keys) await plain.create(key, Buffer.from(key));
      await plain.delete(keys.slice(0, 2));
      expect(await collect(plain.list('manifests/hidden/'))).toMatchObject([{ key: keys[2] }]);
      const hidden = await collect(store.versions.hidden('manifests/hidden/'));
      expect(hidden).toMatchObject([{ key: keys[0], size: 23 }, { key: keys[1] }]);
      expect((await store.versions.readHidden(keys[0] ?? '')).toString()).toBe(keys[0]);
      await store.versions.reveal([keys[0] ?? '', keys[2] ?? '']);
      expect((await plain.read(keys[0] ?? '')).toString()).toBe(keys[0]);
      expect(await plain.create(keys[1] ?? '', Buffer.from('anew'))).toBe('created');
      expect((await plain.read(keys[1] ?? '')).toString()).toBe('anew');
      expect(await collect(store.versions.hidden('manifests/hidden/'))).toEqual([]);
      await store.versions.purge(keys);
      expect(await versions('manifests/hidden/')).toEqual({ contents: [], markers: [] });
      await plain.close();
    });

    it('lists versions over several pages', async () => {
      const plain = world.open(undefined);
      const keys = Array.from({ length: 520 }, (_, i) => `runs/many/${String(i).padStart(6, '0')}`);
      for (let at = 0; at < keys.length; at += 50) {
        await Promise.all(keys.slice(at, at + 50).map((key) => plain.create(key, Buffer.from('x'))));
      }
      await plain.delete(keys);
      expect(await collect(store.versions.hidden('runs/many/'))).toHaveLength(520);
      await store.versions.purge(keys);
      expect(await collect(store.versions.hidden('runs/many/'))).toEqual([]);
      await plain.close();
    });

    it('proves that locks hold, and says whether these credentials may bypass them', async () => {
      expect(await store.locks?.prove()).toEqual({ mayBypass: true, mayExtend: true });
      const strict = world.open({ ...policy, mode: 'compliance' });
      expect(await strict.locks?.prove()).toEqual({ mayBypass: false, mayExtend: true });
      await strict.close();
    });
  });
}
