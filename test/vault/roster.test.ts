import { mkdirSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { openVaults } from '../../src/vault/roster.ts';
import { S3Store } from '../../src/vault/s3-store.ts';
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
