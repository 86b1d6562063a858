import { randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, test } from 'vitest';
import { type CheckOptions, type Examination, examine } from '../../../src/backup/care/check-vault.ts';
import { repairVault } from '../../../src/backup/care/repair-vault.ts';
import { everything } from '../../../src/backup/care/sample.ts';
import { parseWalKey, rangeOfName } from '../../../src/backup/wal/names.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLog } from '../../../src/base/log.ts';
import { parseLsn, segmentStart } from '../../../src/postgres/lsn.ts';
import type { MemoryStore } from '../../../src/vault/memory-store.ts';
import { realVaults } from './real-vault.ts';
import { hour, keysOf } from './vault-fixture.ts';

/** Objects whose absence is legal, with the reason. Whatever is there has to be good all the same. */
const mayBeAbsent: ReadonlyArray<readonly [RegExp, string]> = [
  [/^heartbeats\//, 'a hint: the archiver or watcher writes it again within seconds'],
  [/^hints\//, 'a hint: retention and checks write it again'],
  [/^leases\//, 'given back, or replaced by a later generation'],
];
/** WAL from before the oldest base backup leads nowhere; retention removes it. */
function isBeforeBackups(key: string): boolean {
  const name = parseWalKey(key);
  if (!name || name.kind === 'history') return false;
  const bases = world.manifests.flatMap(({ database }) => (database ? [database] : []));
  const { end } = rangeOfName(name, bases[0]?.segmentBytes ?? 0);
  return bases.every(
    ({ timeline, startLsn, segmentBytes }) =>
      timeline > name.timeline ||
      (timeline === name.timeline && segmentStart(parseLsn(startLsn) ?? 0n, segmentBytes) >= end),
  );
}

let world: Awaited<ReturnType<typeof realVaults>>;
let whole: ReadonlyMap<string, Buffer>;
let west: MemoryStore;

/** An hour later all of it is settled. */
const options = (facts: Partial<CheckOptions> = {}): CheckOptions => ({
  store: west,
  others: [world.east],
  policies: new Map(),
  data: everything,
  documents: world.documents,
  clock: { now: () => Date.now() + hour, sleep: systemClock.sleep },
  ...facts,
});
const contentOf = async (store: MemoryStore) => {
  const found = new Map<string, Buffer>();
  for (const key of await keysOf(store)) found.set(key, await store.read(key));
  return found;
};

beforeAll(async () => {
  world = await realVaults();
  ({ west } = world);
  // The vaults give each other what only one has: afterwards they are alike.
  for (const [store, other] of [
    [world.east, west],
    [west, world.east],
  ] as const) {
    const { check } = await repairVault({ ...options({ store, others: [other] }), log: silentLog });
    expect(check).toMatchObject({ problems: [], foreign: [], notes: [] });
  }
  whole = await contentOf(west);
}, 180_000);

test('the vault holds what a vault can hold', () => {
  const kinds = [
    /^dr-vault\.json$/,
    /^FORMAT\.md$/,
    /^dr-restore\.mjs$/,
    /^configuration\//,
    /^keys\//,
    /^manifests\/orders\//,
    /^manifests\/uploads\//,
    /^manifests\/settings\//,
    /^indexes\//,
    /^parts\/orders\//,
    /^parts\/uploads\//,
    /^wal\/\d+\/00000001\/[0-9A-F]{24}$/,
    /^wal\/\d+\/00000001\/[0-9A-F]{24}\.[0-9A-F-]{17}$/,
    /^wal\/\d+\/00000002\.history$/,
    /^wal\/\d+\/00000002\//,
    /^heartbeats\//,
    /^hints\/retention\.json$/,
    /^hints\/care-/,
    /^records\/active\//,
    /^records\/vaults\//,
    /^runs\/.*\/journal\//,
    /^runs\/.*\/approvals\//,
    /^runs\/.*\/report\.(md|html|json)$/,
    /^leases\//,
    /^verifications\//,
    /^holds\/[^.]*\.json$/,
    /^holds\/.*\.cleared\.json$/,
  ];
  for (const kind of kinds)
    expect([...whole.keys()].filter((key) => kind.test(key)).length, String(kind)).toBeGreaterThan(0);
});

test('whole vaults are found to be whole, and open with the identity', async () => {
  for (const store of [world.east, west]) {
    const { check } = await examine(
      options({ store, others: [store === west ? world.east : west], keyRing: world.keyRing }),
    );
    expect(check).toMatchObject({ problems: [], foreign: [], notes: [], opened: { closedKeys: 0 } });
    expect(check.opened?.bytes).toBe(check.readBytes);
  }
});

const flip = (share: number) => (bytes: Buffer) => {
  const bad = Buffer.from(bytes);
  const at = Math.min(bad.length - 1, Math.floor(bad.length * share));
  bad[at] = (bad[at] ?? 0) ^ 0x10;
  return bad;
};

describe('every object, one at a time', () => {
  test('removed', async () => {
    for (const [key, bytes] of whole) {
      await west.delete([key]);
      const found = await examine(options({ data: undefined }));
      const { problems } = found.check;
      if (mayBeAbsent.some(([pattern]) => pattern.test(key)) || isBeforeBackups(key)) {
        expect(problems, key).toEqual([]);
        await west.create(key, bytes);
        continue;
      }
      // WAL is missed by the segment that the hole begins in.
      const name = key.replace(/\.[0-9A-F]{8}-[0-9A-F]{8}$/, '');
      expect(
        problems.map((problem) => [problem.state, problem.key]),
        key,
      ).toContainEqual(['missing', name]);
      expect(
        problems.every(({ touches }) => touches.length > 0),
        key,
      ).toBe(true);
      await mends(key, bytes, found);
    }
    await isWhole();
  });

  test.each([
    ['its first byte flipped', flip(0)],
    ['a byte flipped at a third', flip(1 / 3)],
    ['a byte flipped at nine tenths', flip(0.9)],
    ['its last byte flipped', flip(1)],
    ['cut off', (bytes: Buffer) => bytes.subarray(0, Math.floor(bytes.length * 0.7))],
    ['its last byte cut off', (bytes: Buffer) => bytes.subarray(0, -1)],
    ['longer', (bytes: Buffer) => Buffer.concat([bytes, Buffer.from('\n')])],
    ['emptied', () => Buffer.alloc(0)],
    ['noise of the same length', (bytes: Buffer) => randomBytes(bytes.length)],
    ['the content of another object of its kind', (_: Buffer, key: string) => another(key)],
  ])('%s', async (_, spoil) => {
    for (const [key, bytes] of whole) {
      const bad = spoil(bytes, key);
      if (bad.equals(bytes)) continue;
      await west.overwrite(key, bad);
      // Only content has to be read to be found damaged.
      const data = /^(parts|indexes|wal)\//.test(key) ? everything : undefined;
      const found = await examine(options({ data }));
      if (key.startsWith('leases/') && (isOldLease(key) || isReadableLease(bad))) {
        await west.overwrite(key, bytes);
        continue;
      }
      const named = /^leases\//.test(key) ? key.replace(/[^/]*$/, '') : key;
      expect(
        found.check.problems.map((problem) => [problem.state, problem.key]),
        key,
      ).toContainEqual(['damaged', named]);
      await mends(key, bytes, found);
    }
    await isWhole();
  });
});

/** A lease has no digest: what can be read is believed, and ends by its time. */
function isReadableLease(bytes: Buffer): boolean {
  try {
    const { holder }: { holder?: { host?: unknown } } = JSON.parse(bytes.toString());
    return typeof holder?.host === 'string';
  } catch {
    return false;
  }
}

/** Of a lease only the newest generation counts. */
function isOldLease(key: string): boolean {
  const folder = key.replace(/[^/]*$/, '');
  return [...whole.keys()].some((other) => other.startsWith(folder) && other > key);
}

/** The next object of the same folder, or else any. */
function another(key: string): Buffer {
  const folder = key.split('/')[0] ?? '';
  const others = [...whole].filter(([other]) => other !== key);
  const alike = others.find(([other]) => other.startsWith(`${folder}/`)) ?? others[0];
  return alike?.[1] ?? Buffer.alloc(1);
}

async function mends(key: string, bytes: Buffer, found: Examination): Promise<void> {
  const { failed, check } = await repairVault({ ...options(), found, log: silentLog });
  expect({ key, failed, left: check.problems }).toEqual({ key, failed: [], left: [] });
  if (mayBeAbsent.some(([pattern]) => pattern.test(key))) {
    for (const extra of await keysOf(west)) if (!whole.has(extra)) await west.delete([extra]);
    await west.overwrite(key, bytes);
  } else expect((await west.read(key)).equals(bytes), key).toBe(true);
}

async function isWhole(): Promise<void> {
  const leases = /^leases\//;
  const now = await contentOf(west);
  const changed = [...now].filter(([key, bytes]) => !leases.test(key) && whole.get(key)?.equals(bytes) !== true);
  const gone = [...whole.keys()].filter((key) => !leases.test(key) && !now.has(key));
  expect({ changed: changed.map(([key]) => key), gone }).toEqual({ changed: [], gone: [] });
}
