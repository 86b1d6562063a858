import { beforeEach, expect, it } from 'vitest';
import type { ClusterObject, ObjectRef } from '../../src/cluster/contract.ts';
import { refOf } from '../../src/cluster/contract.ts';
import { MemoryCluster } from '../../src/cluster/memory/cluster.ts';
import { ManualClock } from '../harness/manual-clock.ts';
import { httpRoute, seedRoutes } from '../traffic/routes.ts';

let cluster: MemoryCluster;
const failure = (work: Promise<unknown>) => work.then(() => undefined).catch((error: unknown) => error);
const shop: ObjectRef = { apiVersion: 'v1', kind: 'Namespace', name: 'shop' };
const config = (name: string, more: object = {}): ClusterObject => {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace: 'shop', ...more } };
};

beforeEach(async () => {
  cluster = new MemoryCluster({ clock: new ManualClock() });
  seedRoutes(cluster.objects, httpRoute);
});

it('deletes with a namespace what lies in it, and waits for what a finalizer holds', async () => {
  const held = await cluster.create(config('held', { finalizers: ['example.com/test'] }));
  await cluster.create(config('plain'));
  expect(await cluster.delete(shop)).toBe('leaving');
  expect(
    cluster.objects
      .all()
      .filter(({ metadata }) => metadata.namespace === 'shop')
      .map(({ metadata }) => metadata.name),
  ).toEqual(['held']);
  expect(await failure(cluster.create(config('new')))).toMatchObject({
    kind: 'denied',
    message: expect.stringContaining('being terminated'),
  });
  await cluster.merge(refOf(held), { metadata: { finalizers: [] } });
  expect(await failure(cluster.get(shop))).toMatchObject({ kind: 'not-found' });
});

it('deletes with a definition its objects and its kind', async () => {
  const name = 'httproutes.gateway.networking.k8s.io';
  expect(await cluster.delete({ apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition', name })).toBe(
    'gone',
  );
  expect(await failure(cluster.get(refOf(httpRoute)))).toMatchObject({
    message: expect.stringContaining('no kind HTTPRoute'),
  });
  expect((await cluster.discover()).types.map(({ kind }) => kind)).not.toContain('HTTPRoute');
});

it('lets owned objects follow their owner, or stay', async () => {
  for (const propagation of ['Background', 'Orphan'] as const) {
    const owner = await cluster.create(config('owner'));
    const { apiVersion, kind, metadata } = owner;
    await cluster.create(
      config('owned', { ownerReferences: [{ apiVersion, kind, name: 'owner', uid: metadata.uid }] }),
    );
    await cluster.delete(refOf(owner), { propagation });
    const left = await failure(cluster.get(refOf(config('owned'))));
    expect(left).toEqual(propagation === 'Orphan' ? undefined : expect.objectContaining({ kind: 'not-found' }));
  }
});

it('keeps status and wish apart: who writes one does not change the other', async () => {
  const ref = refOf(httpRoute);
  cluster.setStatus(ref, { parents: [] });
  const after = await cluster.merge(ref, { status: { parents: 'mine' }, spec: { hostnames: ['b.example.com'] } });
  expect(after).toMatchObject({
    status: { parents: [] },
    spec: { hostnames: ['b.example.com'] },
    metadata: { generation: 2 },
  });
  const told = cluster.setStatus(ref, { parents: ['x'] });
  expect(told.metadata.generation).toBe(2);
  expect(told.metadata.managedFields).toContainEqual(
    expect.objectContaining({ manager: 'controller', subresource: 'status' }),
  );
});

it('serves an object in every version of its kind', async () => {
  const name = 'httproutes.gateway.networking.k8s.io';
  const definition = { apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition', name };
  const { spec } = await cluster.get(definition);
  const [version] = (spec as { versions: object[] }).versions;
  await cluster.merge(definition, { spec: { versions: [{ ...version, name: 'v1beta1', storage: false }, version] } });
  const old = { ...refOf(httpRoute), apiVersion: 'gateway.networking.k8s.io/v1beta1' };
  expect(await cluster.get(old)).toMatchObject({ apiVersion: old.apiVersion, spec: httpRoute['spec'] });
  expect(
    (await cluster.discover()).types.filter(({ kind }) => kind === 'HTTPRoute').map(({ version }) => version),
  ).toEqual(['v1']);
});
