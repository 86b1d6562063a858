import { beforeEach, expect, test } from 'vitest';
import { readActiveSite, recordActiveSite } from '../../src/backup/active-site.ts';
import { DrError, type ErrorKind } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { layout } from '../../src/vault/layout.ts';
import { encodeRecord } from '../../src/vault/record.ts';
import { FaultyStore } from './faulty-store.ts';
import { memoryVault } from './fixture.ts';

const next = (site: string) => ({ site, since: '2026-11-23T00:00:00.000Z', by: 'test', runId: `run-${site}` });
let east: FaultyStore;
let west: FaultyStore;
beforeEach(() => {
  [east, west] = [new FaultyStore(memoryVault('east')), new FaultyStore(memoryVault('west'))];
});
const trouble = (store: FaultyStore, kind: ErrorKind, when: (request: string) => boolean = () => true) => {
  store.fail = (request) => (when(request) ? new DrError(kind, `${kind} by the test`) : undefined);
};

test.each<ErrorKind>(['unreachable', 'denied', 'refused', 'not-found', 'local'])(
  'a vault that is %s is left out, and what the other one says counts',
  async (kind) => {
    await recordActiveSite([east, west], next('west'), silentLog);
    trouble(east, kind);
    const view = await readActiveSite([east, west]);
    expect(view.active).toMatchObject({ site: 'west', generation: 1 });
    expect(view.unanswered).toEqual([{ vault: 'east', reason: `${kind} by the test` }]);
    trouble(west, kind);
    await expect(readActiveSite([east, west])).rejects.toMatchObject({
      kind: 'unreachable',
      where: `east: ${kind} by the test; west: ${kind} by the test`,
    });
  },
);

test('a record that cannot be understood stops everything: it may name another site', async () => {
  await recordActiveSite([east, west], next('east'), silentLog);
  await west.create(layout.activeSite(2), encodeRecord({ format: 2, who: 'knows' }));
  await expect(readActiveSite([east, west])).rejects.toMatchObject({
    kind: 'refused',
    message: expect.stringContaining('has format 2'),
    next: expect.stringContaining('newer dr'),
    where: `${west.location}/${layout.activeSite(2)}`,
  });
  await west.create(layout.activeSite(3), Buffer.from('{"damaged'));
  await expect(readActiveSite([east, west])).rejects.toMatchObject({ kind: 'corrupt' });
});

test('a failover is recorded where that is possible, and nowhere is an error', async () => {
  trouble(east, 'denied', (request) => request === 'create');
  await recordActiveSite([east, west], next('west'), silentLog);
  expect((await readActiveSite([west])).active?.site).toBe('west');
  expect((await readActiveSite([east])).active).toBeUndefined();
  trouble(west, 'denied', (request) => request === 'create');
  await expect(recordActiveSite([east, west], next('east'), silentLog)).rejects.toMatchObject({ kind: 'denied' });
});
