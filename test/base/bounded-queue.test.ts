import { expect, test } from 'vitest';
import { BoundedQueue } from '../../src/base/bounded-queue.ts';

async function settled(promise: Promise<unknown>): Promise<boolean> {
  const pending = Symbol('pending');
  await new Promise((resolve) => setImmediate(resolve));
  return (await Promise.race([promise, Promise.resolve(pending)])) !== pending;
}

test('items come in order, and the maker waits while too much is waiting', async () => {
  const queue = new BoundedQueue<string>(10);
  expect(await queue.push('a', 4)).toBe(true);
  const second = queue.push('b', 6);
  expect(await settled(second)).toBe(false);
  const batches = queue.batches();
  expect((await batches.next()).value).toEqual(['a', 'b']);
  // Taken is not used up yet.
  expect(await settled(second)).toBe(false);
  queue.release(4);
  expect(await second).toBe(true);
  const third = batches.next();
  expect(await settled(third)).toBe(false);
  void queue.push('c');
  expect((await third).value).toEqual(['c']);
  queue.close();
  expect((await batches.next()).done).toBe(true);
});

test('a failure comes after what was made before it', async () => {
  const queue = new BoundedQueue<number>(100);
  await queue.push(1);
  queue.fail(new Error('broken'));
  const batches = queue.batches();
  expect((await batches.next()).value).toEqual([1]);
  await expect(batches.next()).rejects.toThrow('broken');
});

test('a maker that waits is told when nobody wants more', async () => {
  const queue = new BoundedQueue<number>(1);
  const pushed = queue.push(1);
  expect(await settled(pushed)).toBe(false);
  queue.cancel();
  expect(await pushed).toBe(false);
  expect(await queue.push(2)).toBe(false);
});
