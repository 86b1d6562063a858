import { mkdirSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { encodeRecord } from '../../src/vault/record.ts';
import { openVaults, readableVaults, requireOneSystem } from '../../src/vault/roster.ts';
import { S3Store } from '../../src/vault/s3-store.ts';
import type { ObjectStore } from '../../src/vault/store.ts';
import { collect } from '../conformance/object-store.ts';
import { S3Server } from '../harness/s3-server/server.ts';
import { tempDir } from '../harness/temp.ts';

async function places() {
  const base = await tempDir('roster');
  const make = (name: string, root: string) => new FileStore({ name, region: name, root, log: silentLog });
  return { base, east: path.join(base, 'east'), west: path.join(base, 'west'), make };
}

test('new vaults are enrolled, and known ones opened again', async () => {
  const { east, west, make } = await places();
  const stores = [make('east', east), make('west', west)];
  const first = await openVaults(stores, { log: silentLog });
  expect(first.map(({ enrolled }) => enrolled)).toEqual([true, true]);
  const second = await openVaults(stores, { log: silentLog });
  expect(second.map(({ enrolled }) => enrolled)).toEqual([false, false]);
  expect(second.map(({ marker }) => marker?.id)).toEqual(first.map(({ marker }) => marker?.id));
});

test('a vault whose volume is not mounted is away: nothing is written there, and it is used again when it is back', async () => {
  const { base, east, west, make } = await places();
  const stores = [make('east', east), make('west', west)];
  await openVaults(stores, { log: silentLog });
  for (const unmount of [() => renameSync(east, `${base}/away`), () => mkdirSync(east)]) {
    unmount();
    const [opened] = await openVaults(stores, { log: silentLog });
    expect(opened?.reason).toMatchObject({ kind: 'unreachable', next: expect.stringContaining('dr vault enrol east') });
    await expect(opened?.store.create('manifests/x/y.json', Buffer.from('x'))).rejects.toMatchObject({
      kind: 'unreachable',
    });
  }
  rmSync(east, { recursive: true });
  renameSync(`${base}/away`, east);
  const [back] = await openVaults(stores, { log: silentLog });
  expect(await back?.store.create('manifests/x/y.json', Buffer.from('x'))).toBe('created');
});

test('a vault that was lost for good begins anew only when it is named', async () => {
  const { east, west, make } = await places();
  const stores = [make('east', east), make('west', west)];
  const [before] = await openVaults(stores, { log: silentLog });
  rmSync(east, { recursive: true });
  const [replaced] = await openVaults(stores, { log: silentLog, replace: 'east' });
  expect(replaced?.enrolled).toBe(true);
  expect(replaced?.marker?.id).not.toBe(before?.marker?.id);
  const [known] = await openVaults(stores, { log: silentLog });
  expect(known).toMatchObject({ enrolled: false, marker: { id: replaced?.marker?.id } });
});

test('two names for one place are refused', async () => {
  const { east, make } = await places();
  await expect(openVaults([make('east', east), make('west', east)], { log: silentLog })).rejects.toMatchObject({
    kind: 'config',
  });
});

test('a vault that refuses the credentials does not keep the others from being written', async () => {
  const { west, make } = await places();
  const server = await S3Server.start({ buckets: ['acme'] });
  const denied = new S3Store({
    name: 'east',
    region: 'us-east-1',
    bucket: 'acme',
    prefix: 'dr',
    endpoint: server.endpoint,
    forcePathStyle: true,
    credentials: { accessKeyId: 'nobody-knows', secretAccessKey: 'wrong-secret' },
    log: silentLog,
  });
  const [east, other] = await openVaults([denied, make('west', west)], { log: silentLog });
  expect(east?.reason).toMatchObject({ kind: 'denied' });
  await expect(east?.store.create('keys/x/1.json', Buffer.from('x'))).rejects.toMatchObject({ kind: 'denied' });
  expect(other?.enrolled).toBe(true);
  await server.stop();
});

describe('a vault of another system, by a wrong url', () => {
  /** Two systems, each with two vaults of its own names. */
  async function twoSystems(names: readonly [string, string]) {
    const { base, make } = await places();
    const system = async (folder: string, called: readonly [string, string]) => {
      const roots = called.map((name) => path.join(base, folder, name));
      await openVaults(
        called.map((name, i) => make(name, roots[i] ?? '')),
        { log: silentLog },
      );
      return roots;
    };
    const [ours, theirs] = [await system('ours', ['east', 'west']), await system('theirs', names)];
    return { make, ours, theirs };
  }
  const keysOf = async (store: ObjectStore) => (await collect(store.list(''))).map(({ key }) => key);

  test('is left out and nothing is written there, when its names are others', async () => {
    const { make, ours, theirs } = await twoSystems(['north', 'south']);
    const stores = [make('east', ours[0] ?? ''), make('west', theirs[1] ?? '')];
    const before = await Promise.all(stores.map(keysOf));
    const [east, west] = await openVaults(stores, { log: silentLog });
    expect(east?.reason).toBeUndefined();
    expect(west?.reason).toMatchObject({
      kind: 'refused',
      message: expect.stringMatching(
        /^vault west is the vault of another system: it belongs together with file:.*\/theirs\/north$/,
      ),
      next: expect.stringContaining('Correct the url of vault west'),
    });
    await expect(west?.store.create('manifests/x/y.json', Buffer.from('x'))).rejects.toMatchObject({ kind: 'refused' });
    expect(await Promise.all(stores.map(keysOf))).toEqual(before);
    await expect(requireOneSystem(stores, {})).rejects.toMatchObject({ kind: 'refused' });
    const [first, second] = readableVaults(stores, {});
    expect(await first?.folders('')).toContain('records');
    await expect(second?.folders('')).rejects.toMatchObject({
      kind: 'refused',
      message: expect.stringContaining('another system'),
    });
  });

  test('stops everything when its names are the same: nobody can say which of the two is wrong', async () => {
    const { make, ours, theirs } = await twoSystems(['east', 'west']);
    const stores = [make('east', ours[0] ?? ''), make('west', theirs[1] ?? '')];
    const before = await Promise.all(stores.map(keysOf));
    const refused = {
      kind: 'refused',
      message: expect.stringMatching(/^the vaults west and east are of two systems: .*theirs\/east, .*ours\/west$/),
      next: expect.stringContaining('Correct the url of the one that is not yours'),
    };
    await expect(openVaults(stores, { log: silentLog })).rejects.toMatchObject(refused);
    await expect(requireOneSystem(stores, {})).rejects.toMatchObject(refused);
    expect(await Promise.all(stores.map(keysOf))).toEqual(before);
  });

  test('is taken over only when it is named; and a vault that has moved, or is new, is no stranger', async () => {
    const { make, ours, theirs } = await twoSystems(['east', 'west']);
    const moved = `${ours[1]}-moved`;
    renameSync(ours[1] ?? '', moved);
    const fresh = path.join(ours[1] ?? '', '../third');
    for (const root of [moved, fresh, moved]) {
      const opened = await openVaults([make('east', ours[0] ?? ''), make('west', root)], { log: silentLog });
      expect(opened.map(({ reason }) => reason)).toEqual([undefined, undefined]);
    }
    const taken = await openVaults([make('east', ours[0] ?? ''), make('west', theirs[1] ?? '')], {
      log: silentLog,
      replace: 'west',
    });
    expect(taken.map(({ reason }) => reason)).toEqual([undefined, undefined]);
    const again = await openVaults([make('east', ours[0] ?? ''), make('west', theirs[1] ?? '')], { log: silentLog });
    expect(again.map(({ reason }) => reason)).toEqual([undefined, undefined]);
  });
});

test('a record of a newer dr is refused as such', async () => {
  const { east, west, make } = await places();
  const stores = [make('east', east), make('west', west)];
  await openVaults(stores, { log: silentLog });
  await stores[0]?.create('records/vaults/east/0000000002.json', encodeRecord({ format: 2, anything: 'else' }));
  await expect(openVaults(stores, { log: silentLog })).rejects.toMatchObject({
    kind: 'refused',
    message: expect.stringContaining('has format 2'),
    next: expect.stringContaining('newer dr'),
  });
});
