import { createHash, randomBytes } from 'node:crypto';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { walCoverage } from '../../../src/backup/wal/coverage.ts';
import { fetchWalFile } from '../../../src/backup/wal/reader.ts';
import { WalSealer } from '../../../src/backup/wal/sealer.ts';
import { syncWal } from '../../../src/backup/wal/sync.ts';
import { DrError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import { segmentName } from '../../../src/postgres/lsn.ts';
import { createDataKey, KeyRing } from '../../../src/vault/keys.ts';
import { layout } from '../../../src/vault/layout.ts';
import { MemoryStore } from '../../../src/vault/memory-store.ts';
import { SealPool } from '../../../src/vault/seal-pool.ts';
import { keysOf, TroubledStore } from './world.ts';

const KIB = 1024;
const segmentBytes = 64 * KIB;
const systemId = '42';
/** The WAL of a made-up server, the same for every session. */
const wal = randomBytes(8 * segmentBytes);
let pool: SealPool;
let identity: string;
let recipient: string;

beforeAll(async () => {
  pool = new SealPool(1);
  identity = await generateIdentity();
  recipient = await identityToRecipient(identity);
});
afterAll(() => pool.close());

/** Writes stretches of the WAL to a vault as one session of the archiver would, with a key of its own. */
async function session(
  stores: readonly MemoryStore[],
  stretches: ReadonlyArray<readonly [number, number]>,
  content = wal,
) {
  const created = await createDataKey({ recipients: [recipient] }, 0);
  if (!created) throw new Error('no key');
  const sealer = new WalSealer({ systemId, key: created.key, pool, level: 1 });
  const keys: string[] = [];
  for (const store of stores) await store.create(created.objectKey, created.object);
  for (const [from, to] of stretches) {
    const view = content.subarray(from, to);
    const rawSha256 = createHash('sha256').update(view).digest('hex');
    const facts = { timeline: 1, start: BigInt(from), segmentBytes, rawSha256, serverClockMs: to, endClockMs: to };
    const { object } = await sealer.seal(facts, [{ view }]);
    for (const store of stores) await store.create(object.key, object.body);
    keys.push(object.key);
  }
  return { keys, keyObject: created.objectKey };
}

function vault(name = 'v'): MemoryStore {
  return new MemoryStore({ name });
}

/** The stretches of a quiet segment: pieces of `step` bytes. */
function pieces(from: number, to: number, step: number): Array<[number, number]> {
  const cuts: Array<[number, number]> = [];
  for (let at = from; at < to; at += step) cuts.push([at, Math.min(at + step, to)]);
  return cuts;
}

async function read(store: MemoryStore, segment: number): Promise<Buffer | undefined> {
  return await fetchWalFile(
    store,
    new KeyRing([identity]),
    systemId,
    segmentName(1, BigInt(segment * segmentBytes), segmentBytes),
  );
}

const sync = (source: MemoryStore | TroubledStore, target: MemoryStore | TroubledStore) =>
  syncWal({ sources: [source], target, systemId, segmentBytes, log: silentLog });

describe('copying between vaults', () => {
  test('brings exactly what is missing, with its key, and then has nothing more to do', async () => {
    const [east, west] = [vault('east'), vault('west')];
    await session([east, west], [[0, segmentBytes]]);
    const { keys, keyObject } = await session(
      [east],
      [
        [segmentBytes, 2 * segmentBytes],
        [2 * segmentBytes, 3 * segmentBytes],
        ...pieces(3 * segmentBytes, 3 * segmentBytes + 5000, 700),
      ],
    );
    const result = await sync(east, west);
    expect(result).toMatchObject({ copied: keys.length, failed: [], unread: [] });
    expect(await keysOf(west)).toEqual(await keysOf(east));
    expect(await keysOf(west)).toContain(keyObject);
    for (const segment of [0, 1, 2]) {
      expect(
        (await read(west, segment))?.equals(wal.subarray(segment * segmentBytes, (segment + 1) * segmentBytes)),
      ).toBe(true);
    }
    const open = await read(west, 3);
    expect(open?.subarray(0, 5000).equals(wal.subarray(3 * segmentBytes, 3 * segmentBytes + 5000))).toBe(true);
    expect(open?.subarray(5000).every((byte) => byte === 0)).toBe(true);
    expect(await sync(east, west)).toMatchObject({ copied: 0, swept: 0 });
  });

  test('other cuts of the same WAL are filled up by what covers, and swept once the segment is whole', async () => {
    const [east, west] = [vault('east'), vault('west')];
    await session([east], pieces(0, 9000, 1000));
    await session(
      [west],
      [
        [0, 2500],
        [7000, 9000],
      ],
    );
    await sync(east, west);
    const { timelines } = await walCoverage(west, systemId);
    expect(timelines[0]?.ranges).toMatchObject([{ start: 0n, end: 9000n }]);
    expect((await read(west, 0))?.subarray(0, 9000).equals(wal.subarray(0, 9000))).toBe(true);
    await session([west], [[0, segmentBytes]]);
    const result = await sync(east, west);
    expect(result.swept).toBeGreaterThan(3);
    expect((await keysOf(west, 'wal/')).filter((key) => key.includes('.'))).toEqual([]);
  });

  test('any two vaults that were written in any pieces end up covering the union', async () => {
    const cut = fc
      .tuple(fc.nat({ max: 3 * segmentBytes - 1 }), fc.integer({ min: 1, max: segmentBytes }))
      .map(([from, n]) => {
        const end = Math.min(from + n, (Math.floor(from / segmentBytes) + 1) * segmentBytes);
        return [from, end] as const;
      });
    const cuts = fc.uniqueArray(cut, { maxLength: 8, selector: ([from, to]) => `${from}-${to}` });
    await fc.assert(
      fc.asyncProperty(cuts, cuts, async (a, b) => {
        const [east, west, both] = [vault('east'), vault('west'), vault('both')];
        await session([east], a);
        await session([west], b);
        await session([both], a);
        await session([both], b);
        await sync(east, west);
        const covered = (await walCoverage(west, systemId)).timelines[0]?.ranges.map(({ start, end }) => [start, end]);
        // What begins at the start of a segment has to be the same; pieces behind a hole come along too.
        const wanted = (await walCoverage(both, systemId)).timelines[0]?.ranges.map(({ start, end }) => [start, end]);
        expect(covered).toEqual(wanted);
      }),
      { numRuns: 25 },
    );
  });

  test('interrupted anywhere, a second run completes it', async () => {
    const east = vault('east');
    await session(
      [east],
      [...pieces(0, 4 * segmentBytes, segmentBytes), ...pieces(4 * segmentBytes, 4 * segmentBytes + 3000, 500)],
    );
    const total = (await keysOf(east)).length;
    for (let failAt = 1; failAt < total; failAt++) {
      const west = new TroubledStore(vault('west'));
      let created = 0;
      west.onCreate = () => {
        west.away = ++created >= failAt;
      };
      const failure = await sync(east, west).catch((error: unknown) => error);
      west.onCreate = undefined;
      west.away = false;
      if (failure instanceof Error) expect(failure).toMatchObject({ kind: 'unreachable' });
      await sync(east, west);
      expect(await keysOf(west)).toEqual(await keysOf(east));
    }
  });

  test('a damaged object is not copied but named, and the next source gives it', async () => {
    const [east, south, west] = [vault('east'), vault('south'), vault('west')];
    const { keys } = await session([east, south], pieces(0, 3 * segmentBytes, segmentBytes));
    const [, bad = ''] = keys;
    const bytes = await east.read(bad);
    bytes[bytes.length - 100] = (bytes[bytes.length - 100] ?? 0) ^ 1;
    await east.overwrite(bad, bytes);
    const alone = await sync(east, west);
    expect(alone.copied).toBe(2);
    expect(alone.failed).toMatchObject([{ vault: 'east', key: bad, error: { kind: 'corrupt' } }]);
    const both = await syncWal({ sources: [east, south], target: west, systemId, segmentBytes, log: silentLog });
    expect(both.copied).toBe(1);
    expect((await read(west, 1))?.equals(wal.subarray(segmentBytes, 2 * segmentBytes))).toBe(true);
  });

  test('a source that does not answer is reported, a target with other WAL is a conflict', async () => {
    const [east, west] = [new TroubledStore(vault('east')), vault('west')];
    east.away = true;
    expect((await sync(east, west)).unread).toMatchObject([{ vault: 'east' }]);
    // The listing of the target does not show it yet (another archiver writes at the same time): only the creation finds out.
    const source = vault('source');
    await session([source], [[0, segmentBytes]]);
    const [key = ''] = (await keysOf(source, 'wal/')).slice(-1);
    const target = new TroubledStore(vault('target'));
    await session([target.inner as MemoryStore], [[0, segmentBytes]], randomBytes(segmentBytes));
    target.list = async function* (prefix: string) {
      if (!prefix.startsWith('wal/')) yield* target.inner.list(prefix);
    };
    const error = await sync(source, target).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(DrError);
    expect(error).toMatchObject({ kind: 'conflict', where: expect.stringContaining(key) });
  });
});

describe('reading for recovery', () => {
  test('nothing is only said when there is nothing', async () => {
    const store = vault();
    expect(await read(store, 0)).toBeUndefined();
    const { keys } = await session([store], [...pieces(0, 4000, 1000)]);
    const keyRing = new KeyRing([identity]);
    for (const name of ['00000002.history', '000000010000000000000005', 'backup_label', '00000001000000000000000G']) {
      expect(await fetchWalFile(store, keyRing, systemId, name)).toBeUndefined();
    }
    // One piece in the middle is gone: a hole, not the end.
    await store.delete([keys[1] ?? '']);
    await expect(read(store, 0)).rejects.toMatchObject({
      kind: 'corrupt',
      message: expect.stringContaining('1000 to 2000'),
    });
    await expect(
      fetchWalFile(store, new KeyRing([]), systemId, segmentName(1, 0n, segmentBytes)),
    ).rejects.toMatchObject({ kind: 'corrupt' });
    const away = new TroubledStore(store);
    away.away = true;
    await expect(fetchWalFile(away, keyRing, systemId, '00000002.history')).rejects.toMatchObject({
      kind: 'unreachable',
    });
  });

  test('without the identity, or with a damaged object, the error says so', async () => {
    const store = vault();
    const { keys, keyObject } = await session([store], [[0, segmentBytes]]);
    const name = segmentName(1, 0n, segmentBytes);
    await expect(fetchWalFile(store, new KeyRing([]), systemId, name)).rejects.toMatchObject({ kind: 'wrong-key' });
    const [key = ''] = keys;
    const good = await store.read(key);
    for (const at of [3, 60, 700, 20_000, good.length - 1]) {
      const bad = Buffer.from(good);
      bad[at] = (bad[at] ?? 0) ^ 1;
      await store.overwrite(key, bad);
      await expect(fetchWalFile(store, new KeyRing([identity]), systemId, name)).rejects.toMatchObject({
        kind: 'corrupt',
        where: expect.stringContaining(key),
      });
    }
    await store.overwrite(key, good);
    await store.delete([keyObject]);
    await expect(fetchWalFile(store, new KeyRing([identity]), systemId, name)).rejects.toMatchObject({
      kind: 'corrupt',
      where: expect.stringContaining(layout.key('').slice(0, 4)),
    });
  });
});
