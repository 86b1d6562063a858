import { describe, expect, test } from 'vitest';
import { clearHolds, readHolds, setHold, whyHeld } from '../../../src/backup/retention/holds.ts';
import { DrError } from '../../../src/base/errors.ts';
import { layout } from '../../../src/vault/layout.ts';
import type { MemoryStore } from '../../../src/vault/memory-store.ts';
import { FaultyStore } from '../faulty-store.ts';
import { memoryVault } from '../fixture.ts';

const facts = { reason: 'database corrupted', by: 'alice@ops', nowMs: Date.UTC(2026, 10, 23) };

describe('holds', () => {
  test('a hold set while a vault is away stands for all, and the silent vault counts as held', async () => {
    const [east, west] = [memoryVault('east'), memoryVault('west')];
    const away = new FaultyStore(west);
    away.fail = () => new DrError('unreachable', 'no answer');
    const { hold, vaults, lost } = await setHold([east, away], facts);
    expect(vaults).toEqual(['east']);
    expect(lost.map(({ vault }) => vault)).toEqual(['west']);
    const state = await readHolds([east, west]);
    expect(state.active).toEqual([{ ...hold, vaults: ['east'] }]);
    expect(whyHeld(state)).toContain('database corrupted');
    const silent = await readHolds([memoryVault('empty'), away]);
    expect(silent.active).toEqual([]);
    expect(whyHeld(silent)).toMatch(/vault west cannot be asked/);
    expect(whyHeld(await readHolds([memoryVault('empty')]))).toBeUndefined();
  });

  test('clearing in one vault clears everywhere; another hold still stands', async () => {
    const [east, west] = [memoryVault('east'), memoryVault('west')];
    const first = await setHold([east, west], facts);
    const second = await setHold([west], { ...facts, nowMs: facts.nowMs + 1, reason: 'second' });
    await clearHolds([east], { id: first.hold.id, by: 'bob', nowMs: facts.nowMs + 2 });
    const { active } = await readHolds([east, west]);
    expect(active.map(({ id, vaults }) => [id, vaults])).toEqual([[second.hold.id, ['west']]]);
    await clearHolds([east, west], { by: 'bob', nowMs: facts.nowMs + 3 });
    expect((await readHolds([east, west])).active).toEqual([]);
    await expect(clearHolds([east, west], { by: 'bob', nowMs: 0 })).rejects.toMatchObject({ kind: 'not-found' });
  });

  test('the hold of a run is one however often the run asks, and stays cleared', async () => {
    const east = memoryVault('east');
    await setHold([east], { ...facts, runId: 'r1' });
    await setHold([east], { ...facts, runId: 'r1', nowMs: facts.nowMs + 5 });
    expect((await readHolds([east])).active.map(({ id }) => id)).toEqual(['run-r1']);
    await clearHolds([east], { id: 'run-r1', by: 'bob', nowMs: 0 });
    await setHold([east], { ...facts, runId: 'r1' });
    expect((await readHolds([east])).active).toEqual([]);
  });

  test('a damaged hold stands; a damaged clearing clears nothing', async () => {
    const east = memoryVault('east');
    const { hold } = await setHold([east], facts);
    await damage(east, layout.hold(hold.id));
    expect((await readHolds([east])).active).toMatchObject([{ id: hold.id, reason: expect.stringMatching(/damaged/) }]);
    await clearHolds([east], { id: hold.id, by: 'bob', nowMs: 0 });
    await damage(east, layout.holdCleared(hold.id));
    expect((await readHolds([east])).active).toMatchObject([{ id: hold.id }]);
  });

  test('when no vault takes it, setting a hold is an error', async () => {
    const away = new FaultyStore(memoryVault('east'));
    away.fail = () => new DrError('unreachable', 'no answer');
    await expect(setHold([away], facts)).rejects.toMatchObject({ kind: 'unreachable', where: 'east: no answer' });
  });
});

async function damage(store: MemoryStore, key: string): Promise<void> {
  const bytes = await store.read(key);
  const at = bytes.indexOf('"at"') + 8;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  await store.overwrite(key, bytes);
}
