import { afterAll, expect, test } from 'vitest';
import { giveBackMemory } from '../../src/base/free-memory.ts';
import { libc } from '../../src/base/libc.ts';

const kept: unknown[] = [];
afterAll(() => kept.splice(0));

test.runIf(libc()?.trimMemory)('memory of work that is over is given back', () => {
  giveBackMemory();
  const before = process.memoryUsage.rss();
  let work: unknown[] | undefined = Array.from({ length: 400_000 }, (_, i) => ({ text: `line ${i}`.repeat(8) + i }));
  work.length -= 1;
  expect(process.memoryUsage.rss() - before).toBeGreaterThan(30 * 2 ** 20);
  work = undefined;
  giveBackMemory();
  expect(process.memoryUsage.rss() - before).toBeLessThan(20 * 2 ** 20);
});
