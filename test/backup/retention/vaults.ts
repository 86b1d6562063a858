import { beforeEach } from 'vitest';
import type { Manifest } from '../../../src/backup/manifest.ts';
import type { RetentionOptions } from '../../../src/backup/retention/collect.ts';
import type { RetentionPolicy } from '../../../src/backup/retention/retention.ts';
import { silentLog } from '../../../src/base/log.ts';
import { layout } from '../../../src/vault/layout.ts';
import type { ObjectStore } from '../../../src/vault/store.ts';
import { day, type FakeBackup, keysOf, putBackup, TestTime } from '../care/vault-fixture.ts';
import { FaultyStore } from '../faulty-store.ts';

/** Two vaults in memory, made anew before each test. */
export let time: TestTime;
export let east: FaultyStore;
export let west: FaultyStore;

beforeEach(() => {
  time = new TestTime();
  east = new FaultyStore(time.vault('east'));
  west = new FaultyStore(time.vault('west'));
});

export const data: RetentionPolicy = { kind: 'data', retentionMs: 90 * day, keepAtLeast: 1 };
export const orders: RetentionPolicy = { kind: 'database', retentionMs: 30 * day, keepAtLeast: 1 };
export const policies = new Map<string, RetentionPolicy>([
  ['orders', orders],
  ['uploads', data],
]);

export const both = (): ObjectStore[] => [east, west];

export const options = (stores: readonly ObjectStore[] = both()): RetentionOptions => ({
  stores,
  policies,
  clock: time,
  log: silentLog,
});

/** A backup in both vaults, of `ms` milliseconds ago. */
export const backupAgo = (ms: number, facts: Partial<FakeBackup> = {}): Promise<Manifest> =>
  time.ago(ms, () => putBackup(both(), { time, ...facts }));

export const objectsOf = (manifest: Manifest): string[] => [
  layout.manifest(manifest.resource, manifest.id),
  manifest.index.key,
  ...manifest.parts.map(({ key }) => key),
  ...(manifest.index.keyId === undefined ? [] : [layout.key(manifest.index.keyId)]),
];

/** Everything but leases, which deleting leaves behind. */
export const content = async (store: ObjectStore): Promise<string[]> =>
  (await keysOf(store)).filter((key) => !key.startsWith('leases/'));
