import { afterEach, expect, test } from 'vitest';
import { readActiveSite, recordActiveSite } from '../../src/backup/active-site.ts';
import { DrError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { RoleKeeper, type RoleState } from '../../src/daemon/role.ts';
import { layout } from '../../src/vault/layout.ts';
import { MemoryStore } from '../../src/vault/memory-store.ts';
import { encodeRecord } from '../../src/vault/record.ts';
import { ManualClock, memoryLog } from './support.ts';

/** A vault that can be away. */
class AwayStore extends MemoryStore {
  away = false;

  override async *list(...args: Parameters<MemoryStore['list']>) {
    if (this.away) throw new DrError('unreachable', `vault ${this.name} does not answer`);
    yield* super.list(...args);
  }
}

const keepers: RoleKeeper[] = [];
afterEach(async () => {
  await Promise.all(keepers.splice(0).map((keeper) => keeper.stop(0)));
});

function setUp(site: string, stores = ['east', 'west'].map((name) => new AwayStore({ name, region: name }))) {
  const clock = new ManualClock();
  const { log, lines } = memoryLog();
  const changes: RoleState[] = [];
  const keeper = new RoleKeeper({
    site,
    firstActive: 'east',
    stores,
    clock,
    log,
    everyMs: 10_000,
    onChange: async (state) => void changes.push(state),
  });
  keepers.push(keeper);
  return { clock, lines, stores, keeper, changes };
}

test('the first start at the first active site writes the record; the other site waits for it and stands by', async () => {
  const west = setUp('west');
  void west.keeper.run();
  await west.clock.advance(0);
  expect(west.keeper.state).toMatchObject({ role: 'standby', active: { site: 'east', generation: 0 } });
  expect((await readActiveSite(west.stores)).active).toBeUndefined();
  const east = setUp('east', west.stores);
  void east.keeper.run();
  await east.clock.advance(0);
  expect(east.keeper.state).toMatchObject({ role: 'active', active: { site: 'east', generation: 1 } });
  for (const store of east.stores) expect((await readActiveSite([store])).active?.site).toBe('east');
});

test('a record of another site demotes within one question, one of this site promotes', async () => {
  const { clock, stores, keeper, changes } = setUp('east');
  void keeper.run();
  await clock.advance(0);
  const next = { since: new Date(clock.now()).toISOString(), by: 'failover', runId: 'run-1' };
  await recordActiveSite(stores, { ...next, site: 'west' }, silentLog);
  await clock.advance(10_000);
  await recordActiveSite(stores, { ...next, site: 'east', runId: 'run-2' }, silentLog);
  await clock.advance(10_000);
  expect(changes.map(({ role, active }) => [role, active?.generation])).toEqual([
    ['active', 1],
    ['standby', 2],
    ['active', 3],
  ]);
});

test('a returning old site follows the vault that knows more, and touches nothing', async () => {
  const { clock, stores, keeper, changes } = setUp('east');
  const [east, west] = stores;
  const record = { format: 1, since: new Date(0).toISOString(), by: 'failover' };
  await east?.create(layout.activeSite(1), encodeRecord({ ...record, generation: 1, site: 'east' }));
  await west?.create(layout.activeSite(1), encodeRecord({ ...record, generation: 1, site: 'east' }));
  await west?.create(layout.activeSite(2), encodeRecord({ ...record, generation: 2, site: 'west' }));
  void keeper.run();
  await clock.advance(0);
  expect(changes.map(({ role }) => role)).toEqual(['standby']);
});

test('while no vault answers: nothing at first, afterwards the role known; said once, not at every question', async () => {
  const { clock, stores, keeper, changes, lines } = setUp('east');
  for (const store of stores) store.away = true;
  void keeper.run();
  await clock.advance(60_000);
  expect(keeper.state.role).toBe('unknown');
  expect(changes).toEqual([]);
  for (const store of stores) store.away = false;
  await clock.advance(10_000);
  expect(keeper.state).toMatchObject({ role: 'active', error: undefined });
  for (const store of stores) store.away = true;
  await clock.advance(60_000);
  expect(keeper.state.role).toBe('active');
  expect(keeper.state.error).toMatchObject({ kind: 'unreachable' });
  expect(changes).toHaveLength(1);
  expect(lines.filter(({ level }) => level === 'warn')).toHaveLength(2);
});

test('vaults that name two sites for one generation change nothing', async () => {
  const { clock, stores, keeper, changes } = setUp('east');
  void keeper.run();
  await clock.advance(0);
  const record = { format: 1, generation: 2, since: new Date(0).toISOString(), by: 'failover' };
  await stores[0]?.create(layout.activeSite(2), encodeRecord({ ...record, site: 'east' }));
  await stores[1]?.create(layout.activeSite(2), encodeRecord({ ...record, site: 'west' }));
  await clock.advance(10_000);
  expect(keeper.state).toMatchObject({ role: 'active', active: { generation: 1 }, error: { kind: 'conflict' } });
  expect(changes).toHaveLength(1);
});
