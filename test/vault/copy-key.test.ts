import { generateIdentity, identityToRecipient } from 'age-encryption';
import { expect, test } from 'vitest';
import { copyDataKey } from '../../src/vault/copy-key.ts';
import { encodeKeyObject, wrapKey } from '../../src/vault/key-object.ts';
import { layout } from '../../src/vault/layout.ts';
import { MemoryStore } from '../../src/vault/memory-store.ts';

const id = 'a'.repeat(32);
const recipients = [await identityToRecipient(await generateIdentity())];
const wraps: Buffer[] = [];
for (let i = 0; i < 3; i++) {
  wraps.push(
    encodeKeyObject(await wrapKey(Buffer.alloc(32, 7), { id, createdAt: '2026-01-01T00:00:00Z' }, { recipients })),
  );
}

async function vaultWith(generations: Readonly<Record<number, Buffer>>, store = new MemoryStore({ name: 'source' })) {
  for (const [number, bytes] of Object.entries(generations)) await store.create(layout.key(id, Number(number)), bytes);
  return store;
}

async function held(store: MemoryStore): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list('keys/')) keys.push(key);
  return keys;
}

const [one, two, three] = wraps as [Buffer, Buffer, Buffer];
const damaged = Buffer.from('{}');

test('only the newest generation is copied, from whichever vault has it', async () => {
  const target = await vaultWith({});
  const sources = [
    await vaultWith({ 1: one }),
    await vaultWith({ 1: one, 2: two }, new MemoryStore({ name: 'newer' })),
  ];
  expect(await copyDataKey(sources, target, id)).toEqual({ how: 'copied', from: 'newer' });
  expect(await held(target)).toEqual([layout.key(id, 2)]);
  expect(await copyDataKey(sources, target, id)).toEqual({ how: 'there' });
});

test('an older generation is never put beside a newer one', async () => {
  const target = await vaultWith({ 2: two });
  expect(await copyDataKey([await vaultWith({ 1: one })], target, id)).toEqual({ how: 'there' });
  expect(await held(target)).toEqual([layout.key(id, 2)]);
  expect(await copyDataKey([await vaultWith({ 3: three })], target, id)).toMatchObject({ how: 'copied' });
  expect(await held(target)).toEqual([layout.key(id, 2), layout.key(id, 3)]);
});

test('a damaged newest one is passed over; what is missing everywhere is said', async () => {
  const target = await vaultWith({});
  expect(await copyDataKey([await vaultWith({ 1: one, 2: damaged })], target, id)).toMatchObject({ how: 'copied' });
  expect(await held(target)).toEqual([layout.key(id, 1)]);
  const empty = await vaultWith({});
  expect(await copyDataKey([await vaultWith({ 1: damaged })], empty, id)).toMatchObject({
    how: 'missing',
    cause: { kind: 'corrupt' },
  });
  expect(await copyDataKey([], empty, id)).toEqual({ how: 'missing', cause: undefined });
});

test('two wraps under one name are a conflict, and nothing is changed', async () => {
  const target = await vaultWith({ 2: two });
  await expect(copyDataKey([await vaultWith({ 2: three })], target, id)).rejects.toMatchObject({ kind: 'conflict' });
  expect(await target.read(layout.key(id, 2))).toEqual(two);
});
