import { afterEach, beforeEach, expect, test } from 'vitest';
import { pagesOf } from '../../../src/backup/objects/pages.ts';
import type { KubernetesCluster } from '../../../src/cluster/kubernetes.ts';
import { KubernetesServer } from '../../harness/kubernetes/server.ts';
import { add, clientOf, configMap } from './support.ts';

let server: KubernetesServer;
let cluster: KubernetesCluster;

beforeEach(async () => {
  server = await KubernetesServer.start();
  add(server.objects, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } });
  cluster = clientOf(server);
});
afterEach(async () => {
  cluster.close();
  await server[Symbol.asyncDispose]();
});

async function read(): Promise<{ names: Set<string>; limits: number[] }> {
  server.calls.length = 0;
  const type = await cluster.type({ apiVersion: 'v1', kind: 'ConfigMap' });
  const names = new Set<string>();
  for await (const page of pagesOf(cluster, type, { namespace: 'shop' })) {
    for (const { metadata } of page) names.add(metadata.name);
  }
  return { names, limits: server.calls.flatMap((call) => /limit=(\d+)/.exec(call)?.[1] ?? []).map(Number) };
}

test('small objects come many at a time', async () => {
  for (let i = 0; i < 600; i++) add(server.objects, configMap(`small-${i}`));
  const { names, limits } = await read();
  expect(names.size).toBe(600);
  expect(limits).toEqual([50, 500, 500]);
});

test('objects as large as the server takes come few at a time: a page fits into memory', async () => {
  for (let i = 0; i < 60; i++) add(server.objects, configMap(`large-${i}`, 'shop', { a: 'x'.repeat(1_400_000) }));
  const { names, limits } = await read();
  expect(names.size).toBe(60);
  expect(limits.slice(0, 2)).toEqual([50, 2]);
});

test('a server that forgets the list whenever it is read gives it in one piece in the end', async () => {
  for (let i = 0; i < 600; i++) add(server.objects, configMap(`small-${i}`));
  const first = { kind: 'before', act: () => {} } as const;
  const forget = { kind: 'before', act: () => server.objects.history.forget() } as const;
  for (const fault of [first, forget, first, forget, first, forget]) server.faults.next('list', fault);
  const { names, limits } = await read();
  expect(names.size).toBe(600);
  expect(limits.at(-1)).toBe(0);
});

test('a page that the server cannot give is asked for in smaller ones, down to a single object', async () => {
  for (let i = 0; i < 7; i++) add(server.objects, configMap(`small-${i}`));
  server.faults.next('list', { kind: 'status', code: 413, message: 'too large' }, 2);
  const { names, limits } = await read();
  expect(names.size).toBe(7);
  expect(limits.slice(0, 3)).toEqual([50, 5, 1]);
  server.faults.always('list', { kind: 'status', code: 413, message: 'too large' });
  await expect(read()).rejects.toMatchObject({ kind: 'refused' });
});
