import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { during } from '../../src/base/activity.ts';
import { DrError } from '../../src/base/errors.ts';
import type { ObjectStore, Operation } from '../../src/vault/store.ts';
import { totalUsage } from '../../src/vault/usage.ts';

/** A store for one run of the suite, empty, and how to clean up after it. */
export interface StoreUnderTest {
  readonly store: ObjectStore;
  /** A second, independent client of the same place: another process as far as the store can tell. */
  readonly other: ObjectStore;
  cleanUp(): Promise<void>;
}

/** The contract of `src/vault/store.ts`, to be kept by every driver against every store. */
export function objectStoreConformance(
  name: string,
  factory: () => Promise<StoreUnderTest>,
  options: { readonly skip?: boolean } = {},
): void {
  describe.skipIf(options.skip === true)(`object store contract: ${name}`, () => {
    let test: StoreUnderTest;
    let store: ObjectStore;
    const keys = async (prefix: string, startAfter?: string) =>
      (await collect(store.list(prefix, startAfter === undefined ? {} : { startAfter }))).map(({ key }) => key);

    beforeAll(async () => {
      test = await factory();
      store = test.store;
    });
    afterAll(() => test?.cleanUp());

    it('creates an object once and keeps the first content', async () => {
      expect(await store.create('once/a.json', Buffer.from('first'))).toBe('created');
      expect(await store.create('once/a.json', Buffer.from('second'))).toBe('exists');
      expect(await test.other.create('once/a.json', Buffer.from('first'))).toBe('exists');
      expect((await test.other.read('once/a.json')).toString()).toBe('first');
    });

    it('lets exactly one of twenty concurrent creators win, and keeps the content of that one', async () => {
      const outcomes = await Promise.all(
        Array.from({ length: 20 }, (_, i) =>
          (i % 2 === 0 ? store : test.other).create('race/x', Buffer.from(`writer ${i}`)),
        ),
      );
      expect(outcomes.filter((outcome) => outcome === 'created')).toHaveLength(1);
      expect((await store.read('race/x')).toString()).toBe(`writer ${outcomes.indexOf('created')}`);
    });

    it('stores bodies of several views, empty views and empty bodies exactly', async () => {
      const large = [randomBytes(300_000), Buffer.alloc(0), randomBytes(70_001).subarray(1), randomBytes(1)];
      expect(await store.create('bodies/large', large)).toBe('created');
      expect(Buffer.concat(large).equals(await store.read('bodies/large'))).toBe(true);
      const small = [Buffer.from('ab'), Buffer.from('c')];
      await store.create('bodies/small', small);
      expect((await store.read('bodies/small')).toString()).toBe('abc');
      await store.create('bodies/empty', []);
      expect(await store.read('bodies/empty')).toHaveLength(0);
      expect(await store.stat('bodies/empty')).toMatchObject({ size: 0 });
    });

    it('stores and returns 16 MiB, whole and by range', async () => {
      const bytes = randomBytes(16 * 1024 * 1024);
      expect(await store.create('big/part', bytes)).toBe('created');
      expect(bytes.equals(await store.read('big/part'))).toBe(true);
      const range = await store.read('big/part', { offset: 5_000_001, length: 4_000_000 });
      expect(bytes.subarray(5_000_001, 9_000_001).equals(range)).toBe(true);
    });

    it('reads ranges: first byte, last byte, nothing; a range past the end is corrupt', async () => {
      await store.create('ranges/ten', Buffer.from('0123456789'));
      const read = async (offset: number, length: number) =>
        (await store.read('ranges/ten', { offset, length })).toString();
      expect(await read(0, 1)).toBe('0');
      expect(await read(9, 1)).toBe('9');
      expect(await read(0, 10)).toBe('0123456789');
      expect(await read(3, 4)).toBe('3456');
      expect(await read(4, 0)).toBe('');
      expect(await read(10, 0)).toBe('');
      for (const [offset, length] of [
        [9, 2],
        [0, 11],
        [10, 1],
        [50, 5],
        [11, 0],
      ] as const) {
        await expect(read(offset, length), `${offset}+${length}`).rejects.toMatchObject({ kind: 'corrupt' });
      }
    });

    it('says not-found, with the place, for what is not there', async () => {
      await store.create('there/a', Buffer.from('a'));
      for (const key of ['missing', 'there', 'there/a.b', 'there/b/c']) {
        const error = await store.read(key).catch((thrown: unknown) => thrown);
        expect(error, key).toBeInstanceOf(DrError);
        expect(error, key).toMatchObject({ kind: 'not-found', where: `${store.location}/${key}` });
        expect(await store.stat(key), key).toBeUndefined();
      }
    });

    it('knows size and time of an object', async () => {
      await store.create('stat/x', Buffer.from('12345'));
      const info = await store.stat('stat/x');
      expect(info).toMatchObject({ key: 'stat/x', size: 5 });
      expect(Math.abs((info?.modifiedMs ?? 0) - Date.now())).toBeLessThan(60_000);
    });

    it('overwrites', async () => {
      await store.overwrite('hints/h.json', Buffer.from('one'));
      await store.overwrite('hints/h.json', Buffer.from('two and more'));
      expect((await test.other.read('hints/h.json')).toString()).toBe('two and more');
    });

    it('lists in byte order of the whole key, by any prefix, after any key', async () => {
      const names = [
        'wal/1/0',
        'wal/1.history',
        'wal/1/00.0',
        'wal/1-a',
        'wal/10',
        'wal/1/0_',
        'wal/A/z',
        'wal/a/B',
        'wal/1/A/b',
      ];
      for (const key of names) await store.create(key, Buffer.from(key));
      const sorted = [...names].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      expect(await keys('wal/')).toEqual(sorted);
      for (const prefix of ['wal/1', 'wal/1/', 'wal/1/0', 'wal/1/A', 'wal/A/z', 'wal/x', 'wal/1/0/']) {
        expect(await keys(prefix), prefix).toEqual(sorted.filter((key) => key.startsWith(prefix)));
      }
      for (const after of [...sorted, 'wal/', 'wal/1/', 'wal/1/1', 'wal/B', 'wal/zz', 'a']) {
        expect(await keys('wal/', after), after).toEqual(sorted.filter((key) => key > after));
        for (const before of [...sorted, 'wal/', 'wal/1/', 'wal/B', 'wal/zz', 'a']) {
          const range = { startAfter: after, before };
          const between = sorted.filter((key) => key > after && key < before);
          expect(await collect(store.names('wal/', range)), `${after} to ${before}`).toEqual(between);
          const listed = await collect(store.list('wal/', range));
          expect(listed.map(({ key }) => key)).toEqual(between);
        }
      }
      expect(await collect(store.names('wal/1/A'))).toEqual(sorted.filter((key) => key.startsWith('wal/1/A')));
      const [first] = await collect(store.list('wal/1-a'));
      expect(first).toMatchObject({ key: 'wal/1-a', size: 7 });
    });

    it('lists folders once each, in order, and only those', async () => {
      for (const key of ['tree/b/1', 'tree/b/2', 'tree/a.x/1', 'tree/a/deep/er/1', 'tree/file'])
        await store.create(key, Buffer.from('x'));
      expect(await store.folders('tree/')).toEqual(['a.x', 'a', 'b']);
      expect(await store.folders('tree/a/')).toEqual(['deep']);
      expect(await store.folders('tree/none/')).toEqual([]);
      expect(await store.folders('')).toContain('tree');
      await store.delete(['tree/b/1', 'tree/b/2']);
      expect(await store.folders('tree/')).toEqual(['a.x', 'a']);
      expect((await store.folders('tree/', { emptyToo: true })).filter((name) => name !== 'b')).toEqual(['a.x', 'a']);
    });

    it('deletes many, the missing ones without complaint; a freed key can be created again', async () => {
      await store.create('gone/a', Buffer.from('1'));
      await store.create('gone/b/c', Buffer.from('2'));
      await store.delete(['gone/a', 'gone/b/c', 'gone/never', 'gone/a/b']);
      await store.delete([]);
      expect(await keys('gone/')).toEqual([]);
      expect(await store.create('gone/b', Buffer.from('a file where a folder was'))).toBe('created');
      expect(await store.create('gone/a', Buffer.from('again'))).toBe('created');
      expect((await store.read('gone/a')).toString()).toBe('again');
    });

    it('lists and deletes 2,500 objects completely', async () => {
      const names = Array.from(
        { length: 2500 },
        (_, i) => `many/${String(i % 7)}/${String(i).padStart(6, '0')}`,
      ).sort();
      for (let at = 0; at < names.length; at += 50) {
        await Promise.all(names.slice(at, at + 50).map((key) => store.create(key, Buffer.from(key))));
      }
      expect(await keys('many/')).toEqual(names);
      expect(await keys('many/', names[1234])).toEqual(names.slice(1235));
      expect(await store.folders('many/')).toEqual(['0', '1', '2', '3', '4', '5', '6']);
      for await (const { key } of store.list('many/')) {
        expect(key).toBe(names[0]);
        break; // Leaving a listing early is fine.
      }
      await store.delete(names);
      expect(await keys('many/')).toEqual([]);
    });

    it('reads 600 small objects in the order asked for, and says which one is missing', async () => {
      const names = Array.from({ length: 600 }, (_, i) => `small/${i % 3}/${i}`);
      const content = (key: string) => Buffer.alloc(key.endsWith('7') ? 30_000 : 10, key);
      for (let at = 0; at < names.length; at += 50) {
        await Promise.all(names.slice(at, at + 50).map((key) => store.create(key, content(key))));
      }
      await store.create('small/empty', []);
      const asked = [...names.slice(0, 300), 'small/none', 'small/0', ...names.slice(300), 'small/empty'];
      const before = store.stats.bytesIn;
      const read: string[] = [];
      const missing: string[] = [];
      for await (const outcome of store.readEach(asked)) {
        read.push(outcome.key);
        if ('error' in outcome) {
          expect(outcome.error).toMatchObject({ kind: 'not-found', where: `${store.location}/${outcome.key}` });
          missing.push(outcome.key);
        } else if (outcome.key === 'small/empty') expect(outcome.bytes).toHaveLength(0);
        else expect(outcome.bytes.equals(content(outcome.key)), outcome.key).toBe(true);
      }
      expect(read).toEqual(asked);
      expect(missing).toEqual(['small/none', 'small/0']);
      expect(store.stats.bytesIn - before).toBe(names.reduce((sum, key) => sum + content(key).length, 0));
      for (const count of [10, 600]) {
        for await (const { key } of store.readEach(names.slice(0, count))) {
          expect(key).toBe(names[0]);
          break; // Leaving early is fine: nothing is read on.
        }
        const received = store.stats.bytesIn;
        await new Promise((resolve) => setTimeout(resolve, 50));
        expect(store.stats.bytesIn).toBe(received);
        const signal = AbortSignal.abort();
        const stopped = collect(store.readEach(names.slice(0, count), { signal }));
        await expect(stopped).rejects.toMatchObject({ kind: 'interrupted' });
      }
    });

    it('refuses names that could leave the vault or that some store cannot hold', async () => {
      const bad = [
        '',
        '/etc/passwd',
        '../x',
        'a/../../x',
        'a/./b',
        'a//b',
        'a/',
        '.tmp/x',
        'a/.b',
        'a b',
        'a\\b',
        'ä',
        'a\0b',
        `${'x'.repeat(201)}`,
        'a/'.repeat(300),
      ];
      for (const key of bad) {
        const refused = { kind: 'refused' };
        await expect(store.create(key, Buffer.from('x')), key).rejects.toMatchObject(refused);
        await expect(store.overwrite(key, Buffer.from('x')), key).rejects.toMatchObject(refused);
        await expect(store.read(key), key).rejects.toMatchObject(refused);
        await expect(store.stat(key), key).rejects.toMatchObject(refused);
        await expect(store.delete(['fine', key]), key).rejects.toMatchObject(refused);
      }
      for (const prefix of ['../', '/', 'a/../', '.']) {
        await expect(collect(store.list(prefix)), prefix).rejects.toMatchObject({ kind: 'refused' });
        await expect(collect(store.names(prefix)), prefix).rejects.toMatchObject({ kind: 'refused' });
        await expect(store.folders(prefix), prefix).rejects.toMatchObject({ kind: 'refused' });
      }
      await expect(store.folders('no-slash')).rejects.toMatchObject({ kind: 'refused' });
    });

    it('stops when asked to', async () => {
      const signal = AbortSignal.abort(new Error('enough'));
      const interrupted = { kind: 'interrupted' };
      await expect(store.create('abort/x', Buffer.from('x'), { signal })).rejects.toMatchObject(interrupted);
      await expect(store.read('abort/x', undefined, { signal })).rejects.toMatchObject(interrupted);
      await expect(collect(store.list('abort/', { signal }))).rejects.toMatchObject(interrupted);
      expect(await store.stat('abort/x')).toBeUndefined();
    });

    it('counts what it does', async () => {
      const before = structuredClone(store.stats);
      await store.create('count/x', [Buffer.alloc(1000), Buffer.alloc(24)]);
      await store.read('count/x', { offset: 0, length: 100 });
      expect(store.stats.bytesOut - before.bytesOut).toBe(1024);
      expect(store.stats.bytesIn - before.bytesIn).toBe(100);
      expect(store.stats.requests.create).toBe(before.requests.create + 1);
      expect(store.stats.requests.read).toBe(before.requests.read + 1);
    });

    it('counts what was done for what', async () => {
      await during('the test', async () => {
        await store.create('purpose/x', Buffer.alloc(1000));
        await Promise.all([store.read('purpose/x'), store.stat('purpose/x'), collect(store.list('purpose/'))]);
        await during('something else', () => store.overwrite('purpose/y', Buffer.alloc(7)));
        await store.delete(['purpose/x', 'purpose/y']);
      });
      const requests = { PUT: 1, GET: 2, LIST: 1, DELETE: 1 };
      expect(store.stats.byActivity.get('the test')).toEqual({ requests, bytesIn: 1000, bytesOut: 1000 });
      expect(store.stats.byActivity.get('something else')).toMatchObject({ requests: { PUT: 1 }, bytesOut: 7 });
      const total = totalUsage(store.stats);
      const sum = (operation: Operation) =>
        [...store.stats.byActivity.values()].reduce((all, usage) => all + usage.requests[operation], 0);
      for (const operation of ['PUT', 'GET', 'LIST', 'DELETE'] as const) {
        expect(sum(operation)).toBe(total.requests[operation]);
      }
    });
  });
}

export async function collect<T>(listing: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const object of listing) all.push(object);
  return all;
}
