import { beforeEach, describe, expect, test } from 'vitest';
import { recordActiveSite } from '../../../src/backup/active-site.ts';
import { type CheckOptions, examineVault } from '../../../src/backup/care/check-vault.ts';
import { copyMissing } from '../../../src/backup/care/repair.ts';
import { repairVault } from '../../../src/backup/care/repair-vault.ts';
import { everything, sampleOfSeed } from '../../../src/backup/care/sample.ts';
import type { Manifest } from '../../../src/backup/manifest.ts';
import { clearHolds, setHold } from '../../../src/backup/retention/holds.ts';
import { WalSealer } from '../../../src/backup/wal/sealer.ts';
import { DrError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import type { Progress } from '../../../src/base/progress.ts';
import { layout } from '../../../src/vault/layout.ts';
import { acquireLease } from '../../../src/vault/lease.ts';
import { decodeRecord, encodeRecord } from '../../../src/vault/record.ts';
import { openVaults } from '../../../src/vault/roster.ts';
import { SealPool } from '../../../src/vault/seal-pool.ts';
import { FaultyStore } from '../faulty-store.ts';
import {
  damage,
  day,
  hour,
  keysOf,
  MIB,
  putBackup,
  putVerification,
  SYSTEM,
  TestTime,
  walSession,
} from './vault-fixture.ts';

let time: TestTime;
let east: FaultyStore;
let west: FaultyStore;
let backups: Manifest[];

const documents = { [layout.format]: '# The format\n', [layout.restoreScript]: '// restores\n' };
const options = (facts: Partial<CheckOptions> = {}): CheckOptions => ({
  store: west,
  others: [east],
  policies: new Map([
    ['orders', { kind: 'database' as const, retentionMs: 30 * day, keepAtLeast: 1 }],
    ['uploads', { kind: 'data' as const, retentionMs: 30 * day, keepAtLeast: 1 }],
  ]),
  data: everything,
  documents,
  clock: time,
  ...facts,
});
const repair = (facts: Partial<CheckOptions> = {}) => repairVault({ ...options(facts), log: silentLog });
const bytesOf = async (store: FaultyStore) => {
  const found = new Map<string, string>();
  for (const key of await keysOf(store)) {
    if (!key.startsWith('leases/')) found.set(key, (await store.read(key)).toString('hex'));
  }
  return found;
};
const readable = async (store: FaultyStore) => {
  const { problems, foreign } = await examineVault(options({ store, others: store === west ? [east] : [west] }));
  return { problems, foreign };
};

/** Two vaults alike, with everything in them that a vault can hold. */
beforeEach(async () => {
  time = new TestTime();
  east = new FaultyStore(time.vault('east'));
  west = new FaultyStore(time.vault('west'));
  const both = [east, west];
  await time.ago(5 * hour, async () => {
    await openVaults(both, { log: silentLog, documents });
    const session = await walSession(both, time);
    const first = await putBackup(both, { time, walSegment: 1 });
    const second = await putBackup(both, { time, walSegment: 2, shares: first.parts });
    const files = await putBackup(both, { time, resource: 'uploads', kind: 'data', sealed: false });
    backups = [first, second, files];
    for (const segment of [1, 2, 3]) await session.segment(segment);
    await session.piece(4, 0, 1000);
    await session.piece(4, 1000, 5000);
    await session.segment(4, 2);
    const sealer = new WalSealer({ systemId: SYSTEM, key: undefined, pool: new SealPool(1), level: 1 });
    const content = Buffer.from('1\t0/400100\tno recovery target specified\n');
    const ancestors = [{ timeline: 1, end: '0/400100' }];
    const history = sealer.history(layout.walHistory(SYSTEM, 2), 2, content, ancestors, MIB);
    for (const store of both) await store.create(history.key, history.body);
    await putVerification(both, first, time);
    const { hold } = await setHold(both, { reason: 'incident', by: 'alice', nowMs: time.now() });
    await clearHolds(both, { id: hold.id, by: 'alice', nowMs: time.now() });
    await recordActiveSite(both, { site: 'east', since: new Date(time.now()).toISOString(), by: 'test' }, silentLog);
    const runId = '20261123T050102123Z-3f9a1c';
    for (const store of both) {
      for (const number of [1, 2, 3]) {
        await store.create(layout.runEntry(runId, number), encodeRecord({ format: 1, runId, number, event: {} }));
      }
      await store.create(
        layout.runApproval(runId, 'promote'),
        encodeRecord({ format: 1, runId, step: 'promote', answer: 'approve' }),
      );
      await store.overwrite(layout.runReport(runId, 'json'), encodeRecord({ format: 1, runId, runbook: 'failover' }));
      await store.overwrite(layout.runReport(runId, 'md'), Buffer.from('# Run\n'));
      await store.overwrite(layout.walHeartbeat('orders'), encodeRecord({ format: 1, resource: 'orders' }));
      await store.overwrite(layout.retentionDone, encodeRecord({ format: 1, done: {} }));
      const lease = await acquireLease(store, 'backup/orders', { purpose: 'test', clock: time });
      await lease.release();
    }
  });
});

describe('every file of a vault, one at a time', () => {
  /** What is written anew by itself, is of no use any more, or cannot be told from what never was. */
  const mayGo = /^(heartbeats|hints|leases)\//;

  test('removed: the check finds it, the repair mends it', async () => {
    expect(await readable(west)).toEqual({ problems: [], foreign: [] });
    const whole = await bytesOf(west);
    expect(whole.size).toBeGreaterThan(25);
    for (const [key, bytes] of whole) {
      await west.delete([key]);
      const found = await examineVault(options());
      if (mayGo.test(key)) {
        expect(found.problems, key).toEqual([]);
        await west.create(key, Buffer.from(bytes, 'hex'));
        continue;
      }
      expect(found.problems, key).not.toEqual([]);
      for (const problem of found.problems) expect(problem).toMatchObject({ state: 'missing' });
      expect(
        found.problems.map((problem) => problem.key),
        key,
      ).toContain(nameOf(key));
      expect(
        found.problems.every(({ touches }) => touches.length > 0),
        key,
      ).toBe(true);
      const result = await repair();
      expect({ key, failed: result.failed, left: result.check.problems }).toEqual({ key, failed: [], left: [] });
      expect((await west.read(key)).toString('hex'), key).toBe(bytes);
    }
  });

  test.each(['a flipped byte', 'cut off', 'emptied'])('%s: the check finds it, the repair mends it', async (how) => {
    const whole = await bytesOf(west);
    for (const [key, bytes] of whole) {
      // For people only: its content is not checked.
      if (key.endsWith('report.md')) continue;
      const good = Buffer.from(bytes, 'hex');
      const bad = Buffer.from(good);
      const at = Math.floor(bad.length / 2);
      bad[at] = (bad[at] ?? 0) ^ 1;
      await west.overwrite(key, how === 'cut off' ? good.subarray(0, at) : how === 'emptied' ? Buffer.alloc(0) : bad);
      const found = await examineVault(options());
      expect(found.problems, key).toMatchObject([{ state: 'damaged', key }]);
      const result = await repair();
      expect({ key, failed: result.failed, left: result.check.problems }).toEqual({ key, failed: [], left: [] });
      expect(result.mended).toMatchObject([{ key }]);
      if (!/^(heartbeats|hints)/.test(key)) {
        expect((await west.read(key)).toString('hex'), key).toBe(bytes);
      }
    }
    expect(await readable(west)).toEqual({ problems: [], foreign: [] });
  });

  /** A hole in the WAL is named by the segment that it is in. */
  function nameOf(key: string): string {
    return key.startsWith('wal/') ? key.replace(/\.[0-9A-F]{8}-[0-9A-F]{8}$/, '') : key;
  }
});

describe('what a check says', () => {
  const orders = () => backups[0] as Manifest;
  const [first, second, files] = [0, 1, 2].map((i) => () => backups[i] as Manifest);

  test('content that two backups share touches both; damage is only found where content is read', async () => {
    const key = first?.().parts[0]?.key ?? '';
    await damage(west, key);
    expect((await examineVault(options({ data: undefined }))).problems).toEqual([]);
    const { problems } = await examineVault(options());
    expect(problems).toMatchObject([
      { key, touches: [`backup orders ${first?.().id}`, `backup orders ${second?.().id}`].sort() },
    ]);
    await west.overwrite(key, Buffer.from('short'));
    expect((await examineVault(options({ data: undefined }))).problems).toMatchObject([{ key, state: 'damaged' }]);
  });

  test('a hole in the WAL says which recoveries end there', async () => {
    const key = layout.walSegment(SYSTEM, 1, '000000010000000000000003');
    await west.delete([key]);
    const { problems } = await examineVault(options({ others: [] }));
    expect(problems).toMatchObject([{ state: 'missing', kind: 'wal', key }]);
    expect(problems[0]?.touches).toHaveLength(2);
    expect(problems[0]?.touches[0]).toMatch(
      /^recovery of orders from backup .* beyond 0\/300000 \(2026-11-22T19:00:00.000Z\)$/,
    );
  });

  test('a hole in the WAL is no news where WAL is not archived all the time, unless a backup needs it', async () => {
    const known = options({ others: [] });
    const policies = new Map([...known.policies].map(([name, policy]) => [name, { ...policy, basesOnly: true }]));
    await west.delete([layout.walSegment(SYSTEM, 1, '000000010000000000000003')]);
    expect((await examineVault({ ...known, policies })).problems).toEqual([]);
    const key = layout.walSegment(SYSTEM, 1, '000000010000000000000002');
    await west.delete([key]);
    expect((await examineVault({ ...known, policies })).problems).toMatchObject([{ kind: 'wal', state: 'missing' }]);
  });

  test('foreign objects are named and left alone, leftovers are counted', async () => {
    const strangers = ['photos/cat.jpg', 'notes.txt', 'parts/orders/x', 'keys/mine.json', 'wal/readme', 'holds/x.txt'];
    for (const key of strangers) await west.create(key, Buffer.from('mine'));
    const left = await putBackup([west], { time, commit: false, parts: 3 });
    const found = await examineVault(options());
    expect(found.problems).toEqual([]);
    expect([...found.foreign].sort()).toEqual([...strangers.slice(1), 'photos/'].sort());
    expect(found.orphans).toEqual({ objects: 4, bytes: 3100 });
    await repair();
    for (const key of [...strangers, left.index.key]) expect(await keysOf(west)).toContain(key);
  });

  test('a share of the content is the same for the same seed, and about as large as asked', async () => {
    const many = await putBackup([east, west], { time, parts: 200 });
    const parts = new Set(many.parts.map(({ key }) => key));
    const readBy = async (seed: string) => {
      const read = new Set<string>();
      west.before = (kind, key) => void (kind === 'read' && parts.has(key) && read.add(key));
      await examineVault(options({ data: sampleOfSeed(0.25, seed) }));
      return [...read].sort();
    };
    const one = await readBy('monday');
    expect(one.length).toBeGreaterThan(25);
    expect(one.length).toBeLessThan(80);
    expect(await readBy('monday')).toEqual(one);
    expect(await readBy('friday')).not.toEqual(one);
  });

  test('what has just been written elsewhere is on its way, what retention would delete is not missing', async () => {
    const uploads = { time, resource: 'uploads', kind: 'data' as const };
    await putBackup([east], uploads);
    await time.ago(3 * day, () => putBackup([east, west], uploads));
    await time.ago(100 * day, () => putBackup([east], uploads));
    expect((await examineVault(options())).problems).toEqual([]);
    time.nowMs += hour;
    expect((await examineVault(options())).problems).toMatchObject([{ state: 'missing', kind: 'manifest' }]);
  });

  test('reports and journals that retention has removed here are not missed, nor brought back', async () => {
    const old = '20251001T060000000Z-aaaaaa';
    await putVerification([east], { ...orders(), resource: 'orders' }, time, { id: old });
    for (const number of [1, 2]) {
      const entry = encodeRecord({ format: 1, runId: old, number, event: {} });
      await east.create(layout.runEntry(old, number), entry);
      if (number === 2) await west.create(layout.runEntry(old, number), entry);
    }
    time.nowMs += hour;
    expect((await examineVault(options())).problems).toEqual([]);
    const { records } = await copyMissing({ from: [east], to: west, policies: new Map(), clock: time, log: silentLog });
    expect(records).toBe(0);
  });

  test('copies of a journal may come in any order while its run is young', async () => {
    const runId = '20261123T060000000Z-aaaaaa';
    await west.create(layout.runEntry(runId, 2), encodeRecord({ format: 1, runId, number: 2, event: {} }));
    expect((await examineVault(options())).problems).toEqual([]);
    time.nowMs += hour;
    expect((await examineVault(options())).problems).toMatchObject([{ key: layout.runEntry(runId, 1) }]);
  });

  test('says how far it is', async () => {
    const seen: Progress[] = [];
    const found = await examineVault(options({ onProgress: (progress) => seen.push(progress) }));
    expect(seen.at(-1)).toMatchObject({
      task: 'check west',
      unit: 'bytes',
      total: found.readBytes,
      done: found.readBytes,
    });
    expect(found.objects).toBe((await keysOf(west)).length);
    expect(found.readBytes).toBeGreaterThan(3000);
    seen.length = 0;
    await examineVault(options({ data: undefined, onProgress: (progress) => seen.push(progress) }));
    const total = (await keysOf(west)).length;
    expect(seen.at(-1)).toMatchObject({ task: 'check west', unit: 'objects', done: total, total });
  });

  test('what retention removes during the check is not missing', async () => {
    const { id, index, parts } = files?.() ?? { id: '', index: { key: '' }, parts: [] };
    let done = false;
    west.before = async (kind, key) => {
      if (kind !== 'list' || key !== 'indexes/' || done) return;
      done = true;
      await west.delete([layout.manifest('uploads', id), index.key, ...parts.map((part) => part.key)]);
    };
    expect((await examineVault(options({ others: [] }))).problems).toEqual([]);
    expect(done).toBe(true);
  });

  test('a vault that does not answer is not compared, with a note; one that cannot be read throws', async () => {
    east.fail = () => new DrError('unreachable', 'no answer');
    const found = await examineVault(options());
    expect(found.problems).toEqual([]);
    expect(found.notes).toContain('vault east could not be compared: no answer');
    await expect(examineVault(options({ store: east, others: [west] }))).rejects.toMatchObject({ kind: 'unreachable' });
  });

  test('a place that is another vault, or none, is refused', async () => {
    const other = new FaultyStore(time.vault('west'));
    await expect(examineVault(options({ store: other, others: [] }))).rejects.toMatchObject({ kind: 'refused' });
    await expect(examineVault(options({ store: other }))).rejects.toMatchObject({ kind: 'unreachable' });
    await openVaults([other], { log: silentLog });
    await expect(repair({ store: other })).rejects.toMatchObject({ kind: 'refused' });
  });
});

describe('repair', () => {
  const orders = () => backups[0] as Manifest;

  test('everything at once, interrupted at any write, goes on where it stopped', async () => {
    const whole = await bytesOf(west);
    const keys = [...whole.keys()].filter(
      (key) => !/^(dr-vault|FORMAT|dr-restore|heartbeats|hints|runs.*report)/.test(key),
    );
    const spoil = async () => {
      for (const [i, key] of keys.entries()) {
        if (i % 2 === 0) await west.delete([key]);
        else await west.overwrite(key, Buffer.from('spoilt'));
      }
    };
    for (let stopAt = 0; stopAt < keys.length; stopAt += 3) {
      await spoil();
      let count = 0;
      west.fail = (kind, key) => {
        if (!['create', 'overwrite', 'delete'].includes(kind) || key.startsWith('leases/') || count++ < stopAt)
          return undefined;
        return new DrError('unreachable', 'cut off');
      };
      await expect(repair()).rejects.toThrow('cut off');
      west.fail = () => undefined;
      const result = await repair();
      expect({ stopAt, left: result.check.problems, failed: result.failed }).toEqual({ stopAt, left: [], failed: [] });
    }
    const after = await bytesOf(west);
    for (const key of keys) expect(after.get(key), key).toBe(whole.get(key));
  });

  test('the bad object goes only when a good one is at hand; what is bad everywhere stays and is named', async () => {
    const key = orders().parts[0]?.key ?? '';
    await damage(west, key);
    await damage(east, key, 30);
    west.deleted.length = 0;
    const { mended, failed, check } = await repair();
    expect(mended).toEqual([]);
    expect(failed).toMatchObject([{ key, error: { kind: 'corrupt' } }]);
    expect(check.problems).toMatchObject([{ key }]);
    expect(west.deleted.filter((each) => !each.startsWith('leases/'))).toEqual([]);
  });

  test('is done under the lease of retention, and under a hold as well', async () => {
    await setHold([east, west], { reason: 'incident', by: 'alice', nowMs: time.now() });
    const key = orders().index.key;
    await damage(west, key);
    const lease = await acquireLease(west, 'retention', { purpose: 'test', clock: time });
    await expect(repair()).rejects.toMatchObject({ kind: 'lease-held' });
    await lease.release();
    expect((await repair()).mended).toMatchObject([{ key, done: 'replaced', from: 'east' }]);
  });

  test('a damaged lease ends when nobody can be at work under it any more', async () => {
    await west.overwrite(layout.leaseGeneration('retention', 1), Buffer.from('{'));
    expect((await repair()).failed).toMatchObject([{ key: 'leases/retention/', error: { kind: 'lease-held' } }]);
    time.nowMs += hour;
    const result = await repair();
    expect(result).toMatchObject({ failed: [], mended: [{ done: 'written anew' }], check: { problems: [] } });
    const lease = await acquireLease(west, 'retention', { purpose: 'test', clock: time });
    expect(lease.generation).toBeGreaterThan(1);
    await lease.release();
  });

  test('a damaged piece is mended by the segment that another vault has, a segment by pieces', async () => {
    const segment = (number: number) => layout.walSegment(SYSTEM, 2, `00000002000000000000000${number}`);
    const keys = await time.ago(5 * hour, async () => {
      const [onlyEast, onlyWest] = [await walSession([east], time), await walSession([west], time)];
      await onlyEast.segment(5, 2);
      const piece = await onlyWest.piece(5, 0, 3000, 2);
      await onlyEast.piece(6, 0, 2000, 2);
      await onlyEast.piece(6, 2000, MIB - 2000, 2);
      return { piece, segment: await onlyWest.segment(6, 2) };
    });
    await damage(west, keys.piece);
    await damage(west, keys.segment);
    const result = await repair();
    expect(result).toMatchObject({ failed: [], check: { problems: [] } });
    const there = await keysOf(west, `wal/${SYSTEM}/00000002/`);
    expect(there).toContain(segment(5));
    expect(there).not.toContain(keys.piece);
    expect(there).not.toContain(keys.segment);
    expect(there.filter((key) => key.startsWith(segment(6)))).toHaveLength(2);
  });

  test('a damaged object whose header tells of other WAL is a second history and stays', async () => {
    const key = layout.walSegment(SYSTEM, 1, '000000010000000000000002');
    const bytes = await west.read(key);
    const end = 8 + bytes.readUInt32BE(4);
    const record = decodeRecord(bytes.subarray(8, end), 'header', key);
    const header = encodeRecord({ ...record, rawSha256: '0'.repeat(64) });
    const length = Buffer.alloc(4);
    length.writeUInt32BE(header.length);
    await west.overwrite(key, Buffer.concat([bytes.subarray(0, 4), length, header, bytes.subarray(end)]));
    const result = await repair();
    expect(result.failed).toMatchObject([{ key, error: { kind: 'conflict' } }]);
    expect(result.check.problems).toMatchObject([{ key, state: 'damaged' }]);
  });

  test("a stranger's files among the manifests keep nothing from being copied or mended, and stay", async () => {
    const strangers = ['manifests/notes.txt', 'manifests/orders/notes.json', 'manifests/a/b/c.json'];
    for (const store of [east, west]) for (const key of strangers) await store.create(key, Buffer.from('mine'));
    await west.delete([layout.manifest('orders', orders().id), orders().index.key]);
    const damaged = (backups[1] as Manifest).index.key;
    await damage(west, damaged);
    const result = await repair();
    expect(result).toMatchObject({ mended: [{ key: damaged }], copied: [{ id: orders().id }], failed: [] });
    expect(result.check.problems).toEqual([]);
    expect([...result.check.foreign].sort()).toEqual([...strangers].sort());
    expect(await keysOf(west)).toEqual(expect.arrayContaining(strangers));
  });

  test('leftovers in the way of a missing backup are replaced', async () => {
    const { id, parts } = orders();
    await west.delete([layout.manifest('orders', id)]);
    await west.delete([layout.manifest('orders', (backups[1] as Manifest).id)]);
    await damage(west, parts[1]?.key ?? '');
    const result = await repair();
    expect(result).toMatchObject({ failed: [], check: { problems: [] } });
    expect(result.copied.map((copied) => copied.id)).toContain(id);
  });
});
