import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { copyMissing } from '../../../src/backup/care/repair.ts';
import { readManifest } from '../../../src/backup/catalog.ts';
import { listKeys } from '../../../src/backup/keys/list.ts';
import { rotateKeys } from '../../../src/backup/keys/rotate.ts';
import { surveyKeys } from '../../../src/backup/keys/survey.ts';
import { restoreBackup } from '../../../src/backup/restore.ts';
import { clearHolds, setHold } from '../../../src/backup/retention/holds.ts';
import { takeDirectoryBackup } from '../../../src/backup/take-directory.ts';
import { systemClock } from '../../../src/base/clock.ts';
import { DrError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import { encodeKeyObject, wrapKey } from '../../../src/vault/key-object.ts';
import { createDataKey, KeyRing } from '../../../src/vault/keys.ts';
import { layout } from '../../../src/vault/layout.ts';
import type { ObjectStore } from '../../../src/vault/store.ts';
import { KmsServer } from '../../harness/kms/server.ts';
import { tempDir } from '../../harness/temp.ts';
import { FaultyStore } from '../faulty-store.ts';
import { backupWorld, memoryVault } from '../fixture.ts';

const [old, kept, fresh, stranger] = [
  await generateIdentity(),
  await generateIdentity(),
  await generateIdentity(),
  await generateIdentity(),
];
const recipientOf = new Map<string, string>();
for (const identity of [old, kept, fresh, stranger]) recipientOf.set(identity, await identityToRecipient(identity));
const recipients = (...identities: string[]) => identities.map((identity) => recipientOf.get(identity) ?? '');
const pools: Array<{ close(): Promise<void> }> = [];
afterAll(async () => {
  for (const pool of pools) await pool.close();
});

let east: FaultyStore;
let west: FaultyStore;
let source: string;
let world: Awaited<ReturnType<typeof backupWorld>>;

beforeEach(async () => {
  [east, west] = [new FaultyStore(memoryVault('east')), new FaultyStore(memoryVault('west'))];
  world = await backupWorld([east, west]);
  pools.push(world.pool);
  source = await tempDir('source');
  mkdirSync(join(source, 'a'));
  writeFileSync(join(source, 'a', 'file'), 'content');
});

async function backup(...identities: string[]) {
  const directory = {
    name: 'uploads',
    kind: 'data' as const,
    path: source,
    exclude: [],
    allowEmpty: false,
  };
  const context = { ...world.context, keyPolicy: { recipients: recipients(...identities) } };
  return (await takeDirectoryBackup(context, directory)).manifest;
}

/** Restores from one vault with one identity; the content, or the kind of the error. */
async function restores(store: ObjectStore, id: string, ...identities: string[]): Promise<string> {
  const target = join(await tempDir('target'), 'restored');
  try {
    const keyRing = new KeyRing(identities);
    await restoreBackup({
      store,
      manifest: await readManifest(store, 'uploads', id),
      target,
      keyRing,
      pool: world.pool,
    });
    return readFileSync(join(target, 'a', 'file'), 'utf8');
  } catch (error) {
    if (!(error instanceof DrError)) throw error;
    return error.kind;
  }
}

interface Asked {
  readonly give: readonly string[];
  readonly to: readonly string[];
  readonly removeOld?: boolean;
  readonly stores?: readonly ObjectStore[];
}

function rotate({ give, to, removeOld = false, stores = [east, west] }: Asked) {
  const policy = { recipients: recipients(...to) };
  return rotateKeys({ stores, policy, openers: { identities: give }, removeOld, clock: systemClock, log: silentLog });
}

/** Everything in a vault but leases, by name. */
async function objects(store: ObjectStore, prefix = ''): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for await (const { key } of store.list(prefix)) {
    if (!key.startsWith('leases/')) found[key] = (await store.read(key)).toString('base64');
  }
  return found;
}

test('losing one identity of two loses nothing', async () => {
  const { id } = await backup(old, kept);
  for (const store of [east, west]) {
    expect(await restores(store, id, old)).toBe('content');
    expect(await restores(store, id, kept)).toBe('content');
    expect(await restores(store, id, stranger)).toBe('wrong-key');
  }
});

describe('rotation', () => {
  test('gives every data key a new wrap, the same in every vault, and touches nothing else', async () => {
    const ids = [(await backup(old)).id, (await backup(old)).id];
    const before = await objects(east);
    const result = await rotate({ give: [old, fresh], to: [fresh, kept] });
    expect(result).toMatchObject({ rewrapped: 2, already: 0, proven: 2, failed: [], away: [], kept: [] });
    const after = await objects(east);
    const added = Object.keys(after).filter((key) => !(key in before));
    expect(added).toHaveLength(2);
    for (const key of added) expect(key).toMatch(/^keys\/[0-9a-f]{32}\/000002\.json$/);
    for (const [key, bytes] of Object.entries(before)) expect(after[key], key).toBe(bytes);
    expect(await objects(west)).toEqual(after);
    for (const id of ids) {
      for (const identity of [fresh, kept, old]) expect(await restores(west, id, identity)).toBe('content');
    }
    expect(await rotate({ give: [fresh], to: [kept, fresh] })).toMatchObject({ rewrapped: 0, already: 2, proven: 0 });
    expect(await objects(east)).toEqual(after);
  });

  test('without an identity of a new recipient the wraps are right by construction', async () => {
    const { id } = await backup(old);
    expect(await rotate({ give: [old], to: [fresh] })).toMatchObject({ rewrapped: 1, proven: 0 });
    expect(await restores(east, id, fresh)).toBe('content');
  });

  test('an identity that opens none of them changes nothing and says whose would', async () => {
    await backup(old);
    const before = await objects(east);
    const result = await rotate({ give: [stranger], to: [fresh] });
    expect(result).toMatchObject({
      rewrapped: 0,
      failed: [{ error: { kind: 'wrong-key', next: expect.stringContaining(recipients(old)[0] ?? '-') } }],
    });
    expect(await objects(east)).toEqual(before);
  });

  test('one that was killed half way is continued; what it did stays', async () => {
    for (let i = 0; i < 5; i++) await backup(old);
    let created = 0;
    west.fail = (kind, key) =>
      kind === 'create' && key.startsWith('keys/') && ++created > 2 ? new Error('killed') : undefined;
    await expect(rotate({ give: [old], to: [fresh] })).rejects.toThrow('killed');
    const half = await objects(east, 'keys/');
    west.fail = () => undefined;
    await rotate({ give: [old], to: [fresh] });
    const whole = await objects(east, 'keys/');
    for (const [key, bytes] of Object.entries(half)) expect(whole[key], key).toBe(bytes);
    expect(Object.keys(whole)).toHaveLength(10);
    expect(await objects(west, 'keys/')).toEqual(whole);
  });

  test('of two at once one proceeds, the other says who; a backup beside them is no trouble', async () => {
    for (let i = 0; i < 3; i++) await backup(old);
    let during: Promise<{ id: string }> | undefined;
    let second: Promise<unknown> | undefined;
    east.before = (kind, key) => {
      if (kind !== 'create' || !key.endsWith('/000002.json') || second) return;
      second = rotate({ give: [old], to: [kept] }).catch((error: unknown) => error);
      during = backup(fresh);
      return second.then(() => {});
    };
    expect(await rotate({ give: [old, fresh], to: [fresh] })).toMatchObject({ rewrapped: 3, proven: 3 });
    expect(await second).toMatchObject({ kind: 'lease-held', message: expect.stringContaining('rotation of keys') });
    const { id } = (await during) ?? { id: '' };
    expect(await restores(west, id, fresh)).toBe('content');
    expect(await objects(west, 'keys/')).toEqual(await objects(east, 'keys/'));
  });

  test('a vault that is away is named; the daemon’s copying brings it up to date without an identity', async () => {
    const { id } = await backup(old);
    west.fail = () => new DrError('unreachable', 'west is gone');
    const result = await rotate({ give: [old, fresh], to: [fresh] });
    expect(result).toMatchObject({ rewrapped: 1, away: [{ vault: 'west', reason: 'west is gone' }] });
    west.fail = () => undefined;
    expect(await restores(west, id, fresh)).toBe('wrong-key');
    const policies = new Map();
    await copyMissing({ from: [east], to: west, policies, clock: systemClock, log: silentLog });
    expect(await restores(west, id, fresh)).toBe('content');
    expect(await objects(west, 'keys/')).toEqual(await objects(east, 'keys/'));
  });

  test('a vault that drops out half way is named, and the rest goes on', async () => {
    for (let i = 0; i < 4; i++) await backup(old);
    let created = 0;
    west.fail = (kind, key) =>
      kind === 'create' && key.startsWith('keys/') && ++created > 1 ? new DrError('unreachable', 'gone') : undefined;
    expect(await rotate({ give: [old], to: [fresh] })).toMatchObject({
      rewrapped: 4,
      away: [{ vault: 'west', reason: 'gone' }],
    });
    expect(Object.keys(await objects(east, 'keys/'))).toHaveLength(8);
  });

  test('a damaged newest generation is passed over, by readers as by the next rotation', async () => {
    const { id, index } = await backup(old);
    await rotate({ give: [old], to: [kept] });
    const newest = layout.key(index.keyId ?? '', 2);
    for (const store of [east, west]) await store.overwrite(newest, Buffer.from('{}'));
    const warned: object[] = [];
    const log = { ...silentLog, warn: (facts: object) => void warned.push(facts) };
    await new KeyRing([old], { log }).open(east, index.keyId ?? '');
    expect(warned).toMatchObject([{ error: { kind: 'corrupt', where: expect.stringContaining('000002.json') } }]);
    expect(await restores(east, id, kept)).toBe('corrupt');
    expect(await rotate({ give: [old], to: [kept] })).toMatchObject({ rewrapped: 1 });
    expect(Object.keys(await objects(east, 'keys/')).at(-1)).toMatch(/000003\.json$/);
    expect(await restores(east, id, kept)).toBe('content');
  });

  test('adds the wrap of KMS that was missing, and leaves KMS again', async () => {
    const user = { accessKeyId: 'K', secretAccessKey: 'secret', allow: ['kms:Encrypt', 'kms:Decrypt'] as const };
    const kms = await KmsServer.start([user]);
    try {
      const { id } = await backup(old);
      const key = {
        key: kms.createKey('eu-west-1'),
        regions: ['eu-west-1'],
        endpoint: kms.endpoint,
        credentials: user,
      };
      const common = { stores: [east, west], removeOld: true, clock: systemClock, log: silentLog };
      const to = await rotateKeys({
        ...common,
        policy: { recipients: [], kms: key },
        openers: { identities: [old], kms: key },
      });
      expect(to).toMatchObject({ rewrapped: 1, proven: 1, kept: [] });
      expect(await restores(east, id, old)).not.toBe('content');
      const back = await rotateKeys({
        ...common,
        policy: { recipients: recipients(fresh) },
        openers: { identities: [fresh], kms: key },
      });
      expect(back).toMatchObject({ rewrapped: 1, proven: 1, kept: [] });
      expect(await restores(west, id, fresh)).toBe('content');
    } finally {
      await kms.stop();
    }
  });
});

describe('--remove-old', () => {
  test('a recipient who is no more finds nothing to open', async () => {
    const { id } = await backup(old, kept);
    const result = await rotate({ give: [kept], to: [kept, fresh], removeOld: true });
    expect(result).toMatchObject({ rewrapped: 1, proven: 1, kept: [], vaults: [{ removed: 1 }, { removed: 1 }] });
    for (const store of [east, west]) {
      expect(await restores(store, id, old)).toBe('wrong-key');
      expect(await restores(store, id, fresh)).toBe('content');
      expect(Object.keys(await objects(store, 'keys/'))).toHaveLength(1);
    }
  });

  test('removes afterwards what an earlier rotation has left', async () => {
    await backup(old);
    await rotate({ give: [old], to: [fresh] });
    expect(await rotate({ give: [fresh], to: [fresh], removeOld: true })).toMatchObject({
      already: 1,
      vaults: [{ removed: 1 }, { removed: 1 }],
    });
  });

  test('keeps them where nothing that was given opens the new wrap', async () => {
    await backup(old);
    const result = await rotate({ give: [old], to: [fresh], removeOld: true });
    expect(result.kept).toMatchObject([
      { vault: 'east', objects: 1, why: expect.stringContaining('nothing that was given opens the new wrap') },
      { vault: 'west' },
    ]);
    expect(Object.keys(await objects(east, 'keys/'))).toHaveLength(2);
  });

  test('keeps them while a hold stands, and while a vault cannot be asked for one', async () => {
    await backup(old);
    const { ids } = await setHold([east], { reason: 'incident', by: 'me', nowMs: Date.now() });
    const held = await rotate({ give: [old, fresh], to: [fresh], removeOld: true });
    expect(held.kept[0]?.why).toContain('incident');
    await clearHolds([east, west], { id: ids[0], by: 'me', nowMs: Date.now() });
    west.fail = () => new DrError('unreachable', 'west is gone');
    const away = await rotate({ give: [fresh], to: [fresh], removeOld: true });
    expect(away.kept).toMatchObject([{ vault: 'east', why: expect.stringContaining('west cannot be asked') }]);
    expect(Object.keys(await objects(east, 'keys/'))).toHaveLength(2);
  });

  test('keeps them where the newer generation is forged: it holds another key', async () => {
    const { id, index } = await backup(kept);
    const facts = { id: index.keyId ?? '', createdAt: new Date().toISOString() };
    const forged = encodeKeyObject(await wrapKey(Buffer.alloc(32, 9), facts, { recipients: recipients(kept) }));
    for (const store of [east, west]) await store.create(layout.key(facts.id, 2), forged);
    const result = await rotate({ give: [kept], to: [kept], removeOld: true });
    expect(result.kept).toMatchObject([{ why: expect.stringContaining('forged') }, {}]);
    await Promise.all([east, west].map((store) => store.delete([layout.key(facts.id, 2)])));
    expect(await restores(east, id, kept)).toBe('content');
  });

  test('copying between vaults never brings back what was removed', async () => {
    const { index } = await backup(old);
    await rotate({ give: [old, fresh], to: [fresh], removeOld: true });
    // A third vault that missed it all has only the old wrap.
    const north = memoryVault('north');
    const created = await createDataKey({ recipients: recipients(old) }, 0);
    await north.create(layout.key(index.keyId ?? '', 1), created?.object ?? Buffer.alloc(0));
    for (const [from, to] of [
      [north, east],
      [east, north],
    ] as const) {
      await copyMissing({ from: [from], to, policies: new Map(), clock: systemClock, log: silentLog });
    }
    expect(Object.keys(await objects(east, 'keys/'))).toEqual([layout.key(index.keyId ?? '', 2)]);
    expect(Object.keys(await objects(north, 'keys/'))).toContain(layout.key(index.keyId ?? '', 2));
  });
});

test('the list counts who opens what', async () => {
  await backup(old);
  await backup(old, kept);
  await backup(stranger);
  const list = async (...configured: string[]) =>
    listKeys(await Promise.all([east, west].map((store) => surveyKeys(store))), {
      recipients: recipients(...configured),
    });
  const first = await list(kept, fresh);
  expect(first).toMatchObject({ keys: 3, outdated: 3, damaged: [], behind: [] });
  expect(first.unopened).toHaveLength(2);
  const counts = Object.fromEntries(first.openers.map(({ opener, ...rest }) => [opener, rest]));
  expect(counts).toEqual({
    [recipients(kept)[0] ?? '']: { configured: true, opens: 1, opensOld: 0 },
    [recipients(fresh)[0] ?? '']: { configured: true, opens: 0, opensOld: 0 },
    [recipients(old)[0] ?? '']: { configured: false, opens: 2, opensOld: 0 },
    [recipients(stranger)[0] ?? '']: { configured: false, opens: 1, opensOld: 0 },
  });
  west.fail = (kind) => (kind === 'create' ? new DrError('unreachable', 'gone') : undefined);
  await rotate({ give: [old], to: [kept], stores: [east] });
  west.fail = () => undefined;
  const second = await list(kept);
  expect(second).toMatchObject({ outdated: 1, behind: [{ vault: 'west', keys: 2 }] });
  expect(second.openers).toContainEqual({ opener: recipients(old)[0], configured: false, opens: 0, opensOld: 2 });
});
