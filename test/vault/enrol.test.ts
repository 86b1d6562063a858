import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { doctorVault } from '../../src/vault/doctor.ts';
import { checkVault, enrolVault } from '../../src/vault/enrol.ts';
import { FileStore } from '../../src/vault/file-store.ts';
import { layout } from '../../src/vault/layout.ts';
import { MemoryStore } from '../../src/vault/memory-store.ts';
import { S3Store } from '../../src/vault/s3-store.ts';
import type { Body } from '../../src/vault/store.ts';
import { collect } from '../conformance/object-store.ts';
import { S3Server } from '../harness/s3-server/server.ts';
import { tempDir } from '../harness/temp.ts';

const memory = () => new MemoryStore({ name: 'east' });
const keysOf = async (store: MemoryStore | S3Store) => (await collect(store.list(''))).map(({ key }) => key);

async function s3(bucket = 'vault'): Promise<{ server: S3Server; store: S3Store }> {
  const server = await S3Server.start();
  const { accessKeyId, secretAccessKey, endpoint } = server;
  const store = new S3Store({
    name: 'west',
    region: 'eu-central-1',
    bucket,
    prefix: 'prod',
    endpoint,
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
    limits: { attempts: 3, retryBaseMs: 1 },
  });
  onTestFinished(async () => {
    await store.close();
    await server.stop();
  });
  return { server, store };
}

it('makes an empty place a vault once, with its documents, and finds it again', async () => {
  const store = memory();
  const documents = { [layout.format]: '# Format 1', [layout.restoreScript]: 'restore()' };
  const first = await enrolVault(store, { systemName: 'orders', documents, now: () => Date.UTC(2026, 0, 2) });
  expect(first).toMatchObject({
    format: 2,
    system: 'orders',
    createdAt: '2026-01-02T00:00:00.000Z',
    created: true,
    deletable: true,
  });
  expect(await keysOf(store)).toEqual(['FORMAT.md', 'dr-restore.mjs', 'dr-vault.json']);
  const second = await enrolVault(store, { documents: { [layout.format]: 'another text' } });
  expect(second).toMatchObject({ id: first.id, created: false });
  expect((await store.read(layout.format)).toString()).toBe('# Format 1');
  expect(await keysOf(store)).toEqual(['FORMAT-4895ecc6.md', 'FORMAT.md', 'dr-restore.mjs', 'dr-vault.json']);
  expect(await checkVault(store)).toMatchObject({ id: first.id });
});

it('makes the directory of a file vault, which checkVault never does', async () => {
  const root = join(await tempDir(), 'new', 'vault');
  const store = new FileStore({ name: 'east', region: 'r', root });
  await expect(checkVault(store)).rejects.toMatchObject({ kind: 'unreachable' });
  expect(existsSync(root)).toBe(false);
  const { id } = await enrolVault(store);
  expect((await checkVault(store)).id).toBe(id);
});

it('gives ten concurrent enrolments one and the same vault', async () => {
  const { store } = await s3();
  const all = await Promise.all(
    Array.from({ length: 10 }, () => enrolVault(store, { documents: { [layout.format]: 'x' } })),
  );
  expect(new Set(all.map(({ id }) => id)).size).toBe(1);
  expect(all.filter(({ created }) => created)).toHaveLength(1);
  expect(await keysOf(store)).toEqual(['FORMAT.md', 'dr-vault.json']);
});

it('refuses a store that ignores create-only writes, writing no marker', async () => {
  const { server, store } = await s3();
  server.faults.add({ kind: 'ignore-condition' }, { times: Number.POSITIVE_INFINITY });
  await expect(enrolVault(store)).rejects.toMatchObject({
    kind: 'refused',
    message: expect.stringContaining('both succeed'),
    next: expect.stringContaining('If-None-Match'),
  });
  expect(await keysOf(store)).toEqual([]);
});

it('refuses a store whose refused create changes the object, and one that races', async () => {
  class Changing extends MemoryStore {
    override async create(key: string, body: Body): Promise<'created' | 'exists'> {
      const outcome = await super.create(key, body);
      if (outcome === 'exists') await this.overwrite(key, body);
      return outcome;
    }
  }
  await expect(enrolVault(new Changing({ name: 'x' }))).rejects.toMatchObject({
    message: expect.stringContaining('changed'),
  });

  class Racing extends MemoryStore {
    override async create(key: string, body: Body): Promise<'created' | 'exists'> {
      if (await this.stat(key)) return 'exists';
      await new Promise(setImmediate); // Both of two concurrent callers get here before either writes.
      await this.overwrite(key, body);
      return 'created';
    }
  }
  const racing = new Racing({ name: 'x' });
  await expect(enrolVault(racing)).rejects.toMatchObject({
    kind: 'refused',
    message: expect.stringContaining('at once'),
  });
  expect(await keysOf(racing)).toEqual([]);
});

it('refuses a place that holds other things, writing nothing there', async () => {
  const { server, store } = await s3();
  server.buckets.put('vault', 'prod/holiday photos/1.jpg', Buffer.from('x'), undefined);
  await expect(enrolVault(store)).rejects.toMatchObject({
    kind: 'refused',
    message: expect.stringContaining('holiday photos'),
  });
  expect(server.requests.filter(({ operation }) => operation === 'PutObject')).toEqual([]);
});

it('lets the doctor say so as well, and write nothing', async () => {
  const { server, store } = await s3();
  await store.create('photos/1.jpg', Buffer.from('x'));
  server.requests.length = 0;
  const { findings, marker } = await doctorVault(store, { now: Date.now });
  expect(marker).toBeUndefined();
  expect(findings).toMatchObject([
    { verdict: 'fail', what: expect.stringContaining('holds other things (photos/1.jpg)'), next: expect.any(String) },
  ]);
  expect(server.requests.filter(({ operation }) => /Put|Delete/.test(operation))).toEqual([]);
});

it('goes on where a killed enrolment left its probes', async () => {
  const store = memory();
  await store.create('probes/left', Buffer.from('x'));
  expect((await enrolVault(store)).created).toBe(true);
});

it('refuses a vault of a newer dr and calls a damaged marker corrupt, for backup and restore alike', async () => {
  const newer = memory();
  await newer.create(layout.marker, Buffer.from(JSON.stringify({ format: 3, id: 'x', createdAt: 'x', more: 1 })));
  for (const work of [enrolVault, checkVault]) {
    await expect(work(newer)).rejects.toMatchObject({ kind: 'refused', message: expect.stringContaining('newer dr') });
  }
  expect(await keysOf(newer)).toEqual([layout.marker]);
  for (const text of ['', '{', '{"format":"1"}', '[]']) {
    const damaged = memory();
    await damaged.create(layout.marker, Buffer.from(text));
    await expect(checkVault(damaged), text).rejects.toMatchObject({
      kind: 'corrupt',
      where: `memory://east/${layout.marker}`,
    });
  }
});

it('tells an empty place from a missing bucket', async () => {
  const { store } = await s3();
  await expect(checkVault(store)).rejects.toMatchObject({
    kind: 'not-found',
    message: expect.stringContaining('no vault'),
  });
  const { store: lost } = await s3('nowhere');
  for (const work of [enrolVault, checkVault]) {
    await expect(work(lost)).rejects.toMatchObject({
      kind: 'not-found',
      message: expect.stringContaining('bucket nowhere'),
    });
  }
});

it('accepts a store that refuses deletion, and says so', async () => {
  const { server, store } = await s3();
  const matches = ({ operation }: { operation: string }) => operation === 'DeleteObjects';
  server.faults.add({ kind: 'status', status: 403, code: 'AccessDenied' }, { matches });
  expect(await enrolVault(store)).toMatchObject({ created: true, deletable: false });
});
