import { createHash, randomBytes } from 'node:crypto';
import { expect, it } from 'vitest';
import { PartTable } from '../../src/backup/part-table.ts';
import { PartWriter } from '../../src/backup/part-writer.ts';
import { silentLog } from '../../src/base/log.ts';
import { MemoryStore } from '../../src/vault/memory-store.ts';
import { Mirror } from '../../src/vault/mirror.ts';
import type { Body, CreateOptions } from '../../src/vault/store.ts';

/** Stores after a few turns of the event loop, so that frames come while parts are on their way. */
class SlowStore extends MemoryStore {
  atOnce = 0;
  most = 0;

  override async create(key: string, body: Body, options?: CreateOptions): Promise<'created' | 'exists'> {
    this.most = Math.max(this.most, ++this.atOnce);
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
    this.atOnce--;
    return await super.create(key, body, options);
  }
}

it('puts frames that come all at once into parts, each where it says, with buffers used again only when they are stored', async () => {
  const store = new SlowStore({ name: 'east' });
  // Parts that a single frame fills: every frame closes one while others wait for the next.
  const partBytes = 1000;
  const mirror = new Mirror([store], silentLog);
  const table = new PartTable();
  const parts = new PartWriter({ resource: 'orders', backupId: 'b', mirror, parts: table, key: undefined, partBytes });
  const frames = Array.from({ length: 60 }, (_, i) => randomBytes(i % 3 === 0 ? 1500 : 400));
  const placed = await Promise.all(
    frames.map(async (frame) => {
      const place = await parts.append(frame, frame.length);
      await place.stored;
      return place;
    }),
  );
  await parts.close();
  for (const [i, { part, offset }] of placed.entries()) {
    const stored = await store.read(table.parts[part]?.key ?? '');
    expect(stored.subarray(offset, offset + (frames[i]?.length ?? 0)).equals(frames[i] ?? Buffer.alloc(0))).toBe(true);
  }
  for (const { key, size, sha256 } of table.parts) {
    const stored = await store.read(key);
    expect(stored.length).toBe(size);
    expect(createHash('sha256').update(stored).digest('hex')).toBe(sha256);
  }
  expect(table.parts.reduce((sum, { size }) => sum + size, 0)).toBe(
    frames.reduce((sum, { length }) => sum + length, 0),
  );
  expect(store.most).toBeGreaterThan(1);
  expect(store.most).toBeLessThanOrEqual(3);
});
