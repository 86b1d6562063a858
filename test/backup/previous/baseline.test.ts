import { cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { generateIdentity, identityToRecipient } from 'age-encryption';
import { beforeEach, describe, expect, it } from 'vitest';
import { careOf, writeCare } from '../../../src/backup/care/care-record.ts';
import { repairVault } from '../../../src/backup/care/repair-vault.ts';
import { everything } from '../../../src/backup/care/sample.ts';
import type { TakenBackup } from '../../../src/backup/context.ts';
import { restoreBackup } from '../../../src/backup/restore.ts';
import { DrError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import { enrolVault } from '../../../src/vault/enrol.ts';
import { KeyRing } from '../../../src/vault/keys.ts';
import { layout } from '../../../src/vault/layout.ts';
import type { ObjectStore } from '../../../src/vault/store.ts';
import { tempDir } from '../../harness/temp.ts';
import { damage, keysOf } from '../care/vault-fixture.ts';
import type { FaultyStore } from '../faulty-store.ts';
import { BLOCK, contentOf, incrementalWorld, KIB, MIB, Random, type World, writeAt } from './world.ts';

let world: World;
const random = new Random(7);
const unreachable = () => new DrError('unreachable', 'no answer');

/** A large file of 10 MiB and twenty small ones. */
beforeEach(async () => {
  world = await incrementalWorld();
  writeFileSync(path.join(world.root, 'large'), random.bytes(10 * MIB));
  mkdirSync(path.join(world.root, 'small'));
  for (let n = 0; n < 20; n++) writeFileSync(path.join(world.root, 'small', `${n}`), random.bytes(2000 + n));
});

const changeABlock = () => writeAt(path.join(world.root, 'large'), 5 * MIB + 3, random.bytes(100));

/** Each of the vaults alone gives back what the directory holds now. */
async function expectRight({ manifest }: TakenBackup, stores: readonly ObjectStore[] = [world.east, world.west]) {
  for (const store of stores) expect(await world.restored(manifest, store)).toEqual(contentOf(world.root));
}

const wasBuiltOn = (taken: TakenBackup, previous: TakenBackup) => {
  expect(taken.manifest.previous).toEqual({ id: previous.manifest.id });
  expect(taken.manifest.storedBytes).toBeLessThan(2 * MIB);
};
const wasStoredAnew = (taken: TakenBackup, why: RegExp) => {
  expect(taken.manifest.previous).toBeUndefined();
  expect(taken.manifest.reusedBytes).toBe(0);
  expect(taken.manifest.storedBytes).toBeGreaterThan(10 * MIB);
  expect(taken.manifest.notes).toMatchObject([
    { kind: 'other', subject: 'uploads', detail: expect.stringMatching(why) },
  ]);
};
const stateOf = ({ manifest }: TakenBackup) => path.join(world.scratch, 'previous', 'uploads', manifest.id);

describe('what a second backup stores', () => {
  it('of an unchanged directory: an index', async () => {
    const first = await world.take();
    expect(first.manifest.notes).toEqual([]);
    const second = await world.take();
    expect(new Set(second.manifest.parts)).toEqual(new Set(first.manifest.parts));
    expect(second.manifest.storedBytes).toBe(second.manifest.index.size);
    expect(second.manifest.storedBytes).toBeLessThan(8 * KIB);
    expect(second.manifest.reusedBytes).toBe(second.manifest.logicalBytes);
    expect(second.manifest.contentDigest).toBe(first.manifest.contentDigest);
    await expectRight(second);
  });

  it('of changed blocks: those blocks, wherever they lie', async () => {
    await world.take();
    for (const block of [1, 63, 64, 150, 159])
      writeAt(path.join(world.root, 'large'), block * BLOCK + 5, random.bytes(10));
    writeFileSync(path.join(world.root, 'small', '3'), random.bytes(2003));
    const taken = await world.take();
    expect(taken.manifest.storedBytes).toBeLessThan(5 * BLOCK + 2003 + 12 * KIB);
    expect(taken.manifest.storedBytes).toBeGreaterThan(5 * BLOCK);
    expect(taken.manifest.logicalBytes - (taken.manifest.reusedBytes ?? 0)).toBe(5 * BLOCK + 2003);
    await expectRight(taken);
  });

  it('of files that exactly fill the frames that they share: nothing', async () => {
    for (let n = 0; n < 9; n++) writeFileSync(path.join(world.root, `mib-${n}`), random.bytes(MIB));
    await world.take();
    const taken = await world.take();
    expect(taken.manifest.reusedBytes).toBe(taken.manifest.logicalBytes);
    await expectRight(taken);
  });
});

describe('what is known here of the newest backup', () => {
  it('lost: everything is stored anew, with a note; the next backup is built on that one', async () => {
    await world.take();
    rmSync(path.join(world.scratch, 'previous'), { recursive: true });
    const anew = await world.take();
    wasStoredAnew(anew, /has forgotten it/);
    await expectRight(anew);
    changeABlock();
    const next = await world.take();
    wasBuiltOn(next, anew);
    await expectRight(next);
  });

  it('damaged in any place: more is stored, and every backup is right', async () => {
    let last = await world.take();
    const seed = new Random(3);
    for (let n = 0; n < 7; n++) {
      const bytes = readFileSync(stateOf(last));
      const at = n === 0 ? bytes.length - 1 : seed.below(bytes.length);
      bytes[at] = (bytes[at] ?? 0) ^ 0x10;
      writeFileSync(stateOf(last), bytes);
      writeAt(path.join(world.root, 'large'), seed.below(10 * MIB), random.bytes(100));
      last = await world.take();
      expect(last.manifest.notes, `byte ${at}`).toMatchObject([
        { kind: 'other', detail: expect.stringMatching(/damaged|anew/) },
      ]);
      await expectRight(last, [n % 2 === 0 ? world.east : world.west]);
    }
  });

  it('of an older backup under the name of the newest: ignored', async () => {
    const first = await world.take();
    const kept = readFileSync(stateOf(first));
    changeABlock();
    const second = await world.take();
    expect(readdirSync(path.dirname(stateOf(second)))).toEqual([second.manifest.id]);
    writeFileSync(stateOf(second), kept);
    wasStoredAnew(await world.take(), /has forgotten it/);
  });

  it('on another machine that took a backup meanwhile: that one is newer, so everything is stored anew', async () => {
    const ours = await world.take();
    const other = await world.take({ scratch: path.join(await tempDir('other'), 'scratch') });
    wasStoredAnew(other, /has forgotten it/);
    const again = await world.take();
    wasStoredAnew(again, /has forgotten it/);
    changeABlock();
    wasBuiltOn(await world.take(), again);
    await expectRight(again, []);
    expect(ours.manifest.parts.length).toBeGreaterThan(0);
  });

  it('used by two backups at once, each of which holds a lease in another vault: both are right, and so is the next', async () => {
    const first = await world.take();
    changeABlock();
    const taken = await Promise.all([world.take(), world.take()]);
    for (const each of taken) {
      wasBuiltOn(each, first);
      await expectRight(each);
    }
    changeABlock();
    await expectRight(await world.take());
  });

  it('is not kept without a scratch folder, and nothing is then compared', async () => {
    await world.take({ scratch: undefined });
    const taken = await world.take({ scratch: undefined });
    expect(taken.manifest.previous).toBeUndefined();
    expect(taken.manifest.notes).toEqual([]);
  });
});

describe('a machine that knows nothing', () => {
  const fresh = async () => ({ scratch: path.join(await tempDir('fresh'), 'scratch') });
  const withIdentity = async () => ({ ...(await fresh()), keyRing: world.keyRing });

  it('but can open the vault, builds on its index, and compares blocks from then on', async () => {
    const first = await world.take();
    const machine = await withIdentity();
    const second = await world.take(machine);
    expect(second.manifest.notes).toEqual([]);
    expect(second.manifest.previous).toEqual({ id: first.manifest.id });
    expect(second.manifest.storedBytes).toBe(second.manifest.index.size);
    changeABlock();
    const third = await world.take(machine);
    expect(third.manifest.storedBytes).toBeLessThan(BLOCK + 12 * KIB);
    await expectRight(third);
  });

  it('compares what it has not read itself by whole runs', async () => {
    await world.take();
    changeABlock();
    const second = await world.take();
    writeAt(path.join(world.root, 'large'), 9 * MIB, random.bytes(100));
    writeFileSync(path.join(world.root, 'small', '3'), random.bytes(2003));
    const third = await world.take(await withIdentity());
    expect(third.manifest.previous).toEqual({ id: second.manifest.id });
    // The first frame; the second holds what an earlier backup has changed, the third what has changed now.
    expect(third.manifest.logicalBytes - (third.manifest.reusedBytes ?? 0)).toBe(6 * MIB + 2003);
    await expectRight(third);
  });

  it('builds on a plain vault', async () => {
    const first = await world.take({ keyPolicy: 'none' });
    const second = await world.take({ keyPolicy: 'none', ...(await fresh()) });
    expect(second.manifest.previous).toEqual({ id: first.manifest.id });
    expect(second.manifest.storedBytes).toBe(second.manifest.index.size);
    await expectRight(second);
  });

  it('and whose identity opens nothing, or finds the index damaged everywhere, stores everything anew', async () => {
    const first = await world.take();
    const another = new KeyRing([await generateIdentity()]);
    const second = await world.take({ ...(await fresh()), keyRing: another });
    wasStoredAnew(second, /has forgotten it/);
    for (const store of [world.east, world.west]) await damage(store, second.manifest.index.key, 50);
    wasStoredAnew(await world.take(await withIdentity()), /has forgotten it/);
    expect(first.manifest.parts.length).toBeGreaterThan(0);
  });

  it('takes the index of another vault where one is damaged', async () => {
    const first = await world.take();
    await damage(world.east, first.manifest.index.key, 50);
    const second = await world.take(await withIdentity());
    expect(second.manifest.previous).toEqual({ id: first.manifest.id });
    await expectRight(second);
  });
});

describe('vaults', () => {
  const away = (store: FaultyStore) => {
    store.fail = unreachable;
    return () => {
      store.fail = () => undefined;
    };
  };

  it('one that is away is left out, and gets what it missed before the next backup', async () => {
    await world.take();
    const back = away(world.west);
    changeABlock();
    const missed = await world.take();
    expect(missed.lost).toMatchObject([{ vault: 'west', reason: 'no answer' }]);
    expect(missed.manifest.notes).toMatchObject([{ kind: 'vault-lost', subject: 'west' }]);
    const before = contentOf(world.root);
    back();
    changeABlock();
    const next = await world.take();
    wasBuiltOn(next, missed);
    expect(next.lost).toEqual([]);
    await expectRight(next);
    expect(await world.restored(missed.manifest, world.west)).toEqual(before);
    // Of what it had already nothing was written again.
    expect(world.west.created.filter((key) => key.startsWith('parts/')).length).toBe(
      new Set(world.west.created.filter((key) => key.startsWith('parts/'))).size,
    );
  });

  it('one that cannot get what it missed is left out, with the reason', async () => {
    await world.take();
    const back = away(world.west);
    changeABlock();
    const missed = await world.take();
    back();
    world.west.fail = (kind, key) =>
      kind === 'create' && key.includes(missed.manifest.id) ? unreachable() : undefined;
    changeABlock();
    const next = await world.take();
    wasBuiltOn(next, missed);
    expect(next.vaults).toEqual(['east']);
    expect(next.lost).toMatchObject([
      {
        vault: 'west',
        reason: expect.stringMatching(new RegExp(`lacks backup ${missed.manifest.id}.*dr vault repair west`)),
      },
    ]);
    await expectRight(next, [world.east]);
    expect(await keysOf(world.west, `parts/uploads/${next.manifest.id}`)).toEqual([]);
  });

  it('what no vault has good any more is stored anew everywhere', async () => {
    await world.take();
    const back = away(world.west);
    changeABlock();
    const missed = await world.take();
    back();
    const own = missed.manifest.parts.find(({ key }) => key.includes(missed.manifest.id));
    await damage(world.east, own?.key ?? '');
    const anew = await world.take();
    wasStoredAnew(anew, /vault west lacks it/);
    expect(anew.lost).toEqual([]);
    await expectRight(anew);
  });

  it.each(['gone', 'cut off'])('a part that is %s in one of them is stored again in all', async (how) => {
    const first = await world.take();
    const part = first.manifest.parts.at(-1);
    if (!part) throw new Error('no part');
    await world.west.delete([part.key]);
    if (how === 'cut off') await world.west.create(part.key, Buffer.alloc(100));
    const taken = await world.take();
    expect(taken.lost).toEqual([]);
    expect(taken.manifest.notes).toMatchObject([
      { kind: 'other', subject: 'west', detail: expect.stringMatching(/^1 part of earlier backups .* stored again$/) },
    ]);
    expect(taken.manifest.storedBytes).toBeLessThan(6 * MIB);
    expect(taken.manifest.parts.map(({ key }) => key)).not.toContain(part.key);
    await expectRight(taken);
    const next = await world.take();
    expect(next.manifest.notes).toEqual([]);
    expect(next.manifest.storedBytes).toBe(next.manifest.index.size);
  });

  it('a vault whose data keys are gone has nothing that could be used', async () => {
    await world.take();
    await world.west.delete(await keysOf(world.west, 'keys/'));
    const taken = await world.take();
    expect(taken.manifest.notes).toMatchObject([
      { subject: 'west', detail: expect.stringMatching(/data key is missing/) },
    ]);
    expect(taken.manifest.reusedBytes).toBe(0);
    await expectRight(taken);
  });

  it('another manifest under the newest id: that vault is left out', async () => {
    const first = await world.take();
    const key = layout.manifest('uploads', first.manifest.id);
    await damage(world.west, key);
    changeABlock();
    const taken = await world.take();
    wasBuiltOn(taken, first);
    expect(taken.lost).toMatchObject([{ vault: 'west' }]);
    await expectRight(taken, [world.east]);
  });

  it('with none that answers the backup fails', async () => {
    await world.take();
    away(world.west);
    away(world.east);
    await expect(world.take()).rejects.toMatchObject({ kind: 'unreachable' });
  });
});

it('what a check has found damaged and nobody could mend is stored again: the backup of the next hour is good', async () => {
  for (const store of [world.east, world.west]) await enrolVault(store);
  const first = await world.take();
  const part = first.manifest.parts.at(-1)?.key ?? '';
  for (const store of [world.east, world.west]) await damage(store, part, 5000);
  const check = { policies: new Map(), data: everything, clock: world.time, log: silentLog };
  const repair = await repairVault({ ...check, store: world.west, others: [world.east] });
  expect(repair.losses).toMatchObject([{ resource: 'uploads', backups: [{ id: first.manifest.id }] }]);
  const care = careOf({ check: repair.check, repair, before: undefined, site: 'east', nowMs: world.time.now() });
  await writeCare([world.east], care, silentLog);
  const second = await world.take();
  expect(second.manifest.notes).toMatchObject([
    { subject: 'west', detail: expect.stringMatching(/^1 part .*found damaged/) },
  ]);
  expect(second.manifest.storedBytes).toBeLessThan(6 * MIB);
  await expectRight(second);
});

it('everything is stored anew when a person asks for it', async () => {
  await world.take();
  const taken = await world.take({ full: true });
  expect(taken.manifest.previous).toBeUndefined();
  expect(taken.manifest.reusedBytes).toBe(0);
  expect(taken.manifest.notes).toMatchObject([{ detail: 'everything was stored anew, as asked' }]);
  wasBuiltOn(await world.take(), taken);
});

describe('keys', () => {
  it('what today’s recipients could not open is stored again: their identity alone restores', async () => {
    await world.take();
    const identity = await generateIdentity();
    const recipients = [await identityToRecipient(identity)];
    const taken = await world.take({ keyPolicy: { recipients } });
    expect(taken.manifest.reusedBytes).toBe(0);
    expect(taken.manifest.notes[0]?.detail).toMatch(/not wrapped for all recipients/);
    const target = path.join(await tempDir('restored'), 'content');
    const { pool } = world.context;
    await restoreBackup({
      store: world.west,
      manifest: taken.manifest,
      keyRing: new KeyRing([identity]),
      pool,
      target,
    });
    expect(contentOf(target)).toEqual(contentOf(world.root));
  });

  it('a backup is encrypted or plain as a whole', async () => {
    await world.take({ keyPolicy: 'none' });
    const sealed = await world.take();
    wasStoredAnew(sealed, /encryption is none/);
    wasStoredAnew(await world.take({ keyPolicy: 'none' }), /encryption is age/);
  });
});

describe('a backup that fails', () => {
  it('is not committed when what it is built on was removed meanwhile', async () => {
    const first = await world.take();
    const key = layout.manifest('uploads', first.manifest.id);
    let gone = false;
    world.east.before = async (kind, at) => {
      if (gone || kind !== 'create' || !at.startsWith('indexes/')) return;
      gone = true;
      await world.west.delete([key]);
    };
    changeABlock();
    await expect(world.take()).rejects.toMatchObject({
      kind: 'conflict',
      retryable: true,
      where: expect.stringMatching(key),
    });
    expect(await keysOf(world.east, 'manifests/')).toEqual([key]);
    world.east.before = () => {};
    // West lacks the newest backup now, so it gets it first.
    const next = await world.take();
    wasBuiltOn(next, first);
    await expectRight(next);
  });

  it('leaves out a vault that cannot say whether it still has what it is built on', async () => {
    const first = await world.take();
    const key = layout.manifest('uploads', first.manifest.id);
    let commits = false;
    world.west.before = (kind, at) => {
      commits ||= kind === 'create' && at.startsWith('indexes/');
    };
    world.west.fail = (kind, at) => (commits && kind === 'stat' && at === key ? unreachable() : undefined);
    changeABlock();
    const taken = await world.take();
    wasBuiltOn(taken, first);
    expect(taken.lost).toMatchObject([{ vault: 'west', reason: 'no answer' }]);
    expect(await keysOf(world.west, 'manifests/')).toEqual([key]);
    await expectRight(taken, [world.east]);
  });

  it('at its very end leaves the next one built on the last good one', async () => {
    const first = await world.take();
    const fail = (kind: string, key: string) =>
      kind === 'create' && key.startsWith('manifests/') ? unreachable() : undefined;
    world.east.fail = fail;
    world.west.fail = fail;
    changeABlock();
    await expect(world.take()).rejects.toMatchObject({ kind: 'unreachable' });
    world.east.fail = () => undefined;
    world.west.fail = () => undefined;
    changeABlock();
    const next = await world.take();
    wasBuiltOn(next, first);
    await expectRight(next);
    expect(readdirSync(path.dirname(stateOf(next)))).toEqual([next.manifest.id]);
  });

  it('when interrupted keeps nothing of what it learned', async () => {
    const first = await world.take();
    changeABlock();
    const stop = new AbortController();
    world.east.before = (kind, key) => {
      if (kind === 'create' && key.startsWith('indexes/')) stop.abort(new DrError('interrupted', 'stopped'));
    };
    await expect(world.take({ signal: stop.signal })).rejects.toMatchObject({ kind: 'interrupted' });
    expect(readdirSync(path.dirname(stateOf(first)))).toEqual([first.manifest.id]);
  });
});

it('files that move keep their content right, whatever is known under their names', async () => {
  writeFileSync(path.join(world.root, 'other'), random.bytes(9 * MIB));
  await world.take();
  const at = (name: string) => path.join(world.root, name);
  renameSync(at('large'), at('x'));
  renameSync(at('other'), at('large'));
  renameSync(at('x'), at('other'));
  cpSync(at('small/1'), at('small/2'));
  const taken = await world.take();
  expect(taken.manifest.storedBytes).toBeGreaterThan(18 * MIB);
  await expectRight(taken);
});
