import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readSummary, toYaml } from '../../../src/backup/objects/layout.ts';
import type { KubernetesCluster } from '../../../src/cluster/kubernetes.ts';
import type { MemoryObjects } from '../../../src/cluster/memory/objects.ts';
import { everything, type Rule } from '../../harness/kubernetes/rbac.ts';
import { KubernetesServer } from '../../harness/kubernetes/server.ts';
import { backupWorld } from '../fixture.ts';
import {
  add,
  clientOf,
  configMap,
  filesOf,
  objectFiles,
  seedShop,
  selecting,
  shop,
  shopFiles,
  take,
  type World,
} from './support.ts';

let world: World;
let server: KubernetesServer;
let objects: MemoryObjects;
let cluster: KubernetesCluster;

beforeEach(async () => {
  world = await backupWorld();
  server = await KubernetesServer.start();
  objects = server.objects;
  seedShop(objects);
  cluster = clientOf(server);
});
afterEach(async () => {
  cluster.close();
  await server[Symbol.asyncDispose]();
  await world.pool.close();
});

const read = ['get', 'list', 'watch'];
/** All rights to read but those of some kinds. */
function readersWithout(...plurals: string[]): Rule[] {
  const all = [...new Set(objects.types.map(({ plural }) => plural))].filter((plural) => !plurals.includes(plural));
  return [{ apiGroups: ['*'], resources: all, verbs: read }];
}
const without = (...parts: string[]) => shopFiles.filter((path) => parts.every((part) => !path.includes(part)));

describe('what cannot be read is named and the rest is kept', () => {
  test('a right is missing for one kind', async () => {
    server.accounts.set('limited', { name: 'dr', rules: readersWithout('widgets') });
    const limited = clientOf(server, 'limited');
    const { manifest } = await take(world, limited);
    limited.close();
    const [note, ...others] = manifest.notes;
    expect(others).toEqual([]);
    expect(note).toMatchObject({ kind: 'unreadable', subject: 'widgets.example.com of namespace shop' });
    expect(note?.detail).toMatch(/dr may not list widgets.*apiGroups: \["example.com"\], resources: \["widgets"\]/);
    const files = await filesOf(world, manifest);
    expect(objectFiles(files)).toEqual(without('/Widget/'));
    expect(readSummary(toYaml(files.get('dr-cluster.yaml')), 'test').lost).toMatchObject([
      { what: 'widgets.example.com of namespace shop' },
    ]);
  });

  test('roles allow the namespaces one by one, and namespaces themselves not at all', async () => {
    const ofNamespace = (namespace: string): Rule => ({
      apiGroups: ['*'],
      resources: ['*'],
      verbs: ['list'],
      namespace,
    });
    server.accounts.set('limited', { name: 'dr', rules: [ofNamespace('shop'), ofNamespace('other')] });
    const limited = clientOf(server, 'limited');
    const source = selecting({ namespaces: ['shop', 'other'], clusterObjects: false });
    const { manifest } = await take(world, limited, source);
    limited.close();
    expect(objectFiles(await filesOf(world, manifest)).sort()).toEqual(
      ['namespaces/other/core/ConfigMap/settings.yaml', ...without('cluster/')].sort(),
    );
    expect(manifest.notes.map(({ subject }) => subject)).toEqual(['namespace shop', 'namespace other']);
  });

  test('the namespace is deleted in the middle', async () => {
    add(objects, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'stock' } });
    add(objects, configMap('levels', 'stock'));
    add(objects, { apiVersion: 'batch/v1', kind: 'CronJob', metadata: { name: 'count', namespace: 'stock' } });
    const remove = () => objects.delete(objects.typeOf({ apiVersion: 'v1', kind: 'Namespace' }), undefined, 'stock');
    server.faults.next('list', { kind: 'before', act: remove }, 1, 'cronjobs');
    const { manifest } = await take(world, cluster, selecting({ namespaces: ['shop', 'stock'] }));
    expect(manifest.notes).toMatchObject([{ kind: 'unreadable', subject: 'namespace stock' }]);
    expect(manifest.notes[0]?.detail).toContain('deleted while it was read');
    const files = objectFiles(await filesOf(world, manifest));
    expect(files).toEqual(expect.arrayContaining(shopFiles));
    expect(files).toContain('namespaces/stock/core/ConfigMap/levels.yaml');
    expect(files.join()).not.toContain('CronJob');
  });

  test('a namespace that is named does not exist', async () => {
    const { manifest } = await take(world, cluster, selecting({ namespaces: ['shop', 'shup'] }));
    expect(manifest.notes).toMatchObject([{ subject: 'namespace shup', detail: 'there is no such namespace' }]);
    expect(objectFiles(await filesOf(world, manifest))).toEqual(shopFiles);
  });

  test('a definition is removed in the middle', async () => {
    const type = objects.typeOf({ apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition' });
    const widget = objects.typeOf({ apiVersion: 'example.com/v1', kind: 'Widget' });
    objects.merge(widget, 'shop', 'wheel', { metadata: { finalizers: null } });
    server.faults.before('list', () => objects.delete(type, undefined, 'widgets.example.com'));
    const { manifest } = await take(world, cluster);
    expect(manifest.notes).toMatchObject([{ subject: 'widgets.example.com of namespace shop' }]);
    expect(objectFiles(await filesOf(world, manifest)).join()).not.toContain('/Widget/');
  });

  test('an API that is served elsewhere does not answer; one that only measures is no loss', async () => {
    server.missing.add('example.com/v1');
    server.missing.add('metrics.k8s.io/v1beta1');
    const { manifest } = await take(world, cluster);
    expect(manifest.notes).toMatchObject([
      { kind: 'unreadable', subject: 'example.com/v1', detail: 'the server of this API does not answer' },
    ]);
    expect(objectFiles(await filesOf(world, manifest))).toEqual(without('/Widget/'));
  });

  test('a custom kind always fails, as with a broken conversion', async () => {
    server.faults.always('list', { kind: 'status', code: 500, message: 'conversion webhook failed' }, 'widgets');
    const { manifest } = await take(world, cluster);
    expect(manifest.notes).toMatchObject([{ subject: 'widgets.example.com of namespace shop' }]);
    expect(manifest.notes[0]?.detail).toContain('conversion webhook failed');
  });
});

describe('a backup is whole or is not made', () => {
  test('when the server throttles and loses connections for a while', async () => {
    server.faults.next('list', { kind: 'status', code: 429, retryAfter: 0 }, 1, 'configmaps');
    server.faults.next('list', { kind: 'drop' }, 1, 'deployments');
    const { manifest } = await take(world, cluster);
    expect(manifest.notes).toEqual([]);
    expect(objectFiles(await filesOf(world, manifest))).toEqual(shopFiles);
  });

  test('when the pages of a list are forgotten, or too large for the server', async () => {
    for (let i = 0; i < 120; i++) add(objects, configMap(`many-${i}`));
    const forget = () => objects.history.forget();
    // The second page of ConfigMaps.
    server.faults.next('list', { kind: 'before', act: () => {} }, 1, 'configmaps');
    server.faults.next('list', { kind: 'before', act: forget }, 1, 'configmaps');
    server.faults.next('list', { kind: 'status', code: 413, message: 'too large' }, 1, 'serviceaccounts');
    const { manifest } = await take(world, cluster);
    expect(manifest.notes).toEqual([]);
    const files = objectFiles(await filesOf(world, manifest));
    expect(files.filter((path) => path.includes('many-'))).toHaveLength(120);
    expect(files).toEqual(expect.arrayContaining(shopFiles));
    const limits = server.calls
      .filter((call) => call.includes('/configmaps'))
      .map((call) => /limit=(\d+)/.exec(call)?.[1]);
    expect(limits[0]).toBe('50');
    expect(limits.length).toBeGreaterThan(2);
  });

  test('when a kind of Kubernetes itself cannot be read, or the server is away', async () => {
    server.faults.always('list', { kind: 'status', code: 503 }, 'deployments');
    await expect(take(world, cluster)).rejects.toMatchObject({ kind: 'unreachable' });
    await server.stop();
    await expect(take(world, cluster)).rejects.toMatchObject({ kind: 'unreachable' });
  });

  test('when nothing may be read at all: the first reason is told', async () => {
    server.accounts.set('nobody', { name: 'dr', rules: [] });
    const nobody = clientOf(server, 'nobody');
    await expect(take(world, nobody)).rejects.toMatchObject({ kind: 'denied' });
    nobody.close();
    const expired = clientOf(server, 'expired');
    await expect(take(world, expired)).rejects.toMatchObject({ kind: 'denied' });
    expired.close();
  });

  test('what was lost before and can be read again makes a new backup', async () => {
    server.accounts.set('limited', { name: 'dr', rules: readersWithout('widgets') });
    const limited = clientOf(server, 'limited');
    const first = await take(world, limited);
    server.accounts.set('limited', { name: 'dr', rules: everything });
    const second = await take(world, limited, shop, first.manifest);
    expect(second.unchanged).toBe(false);
    expect(second.manifest.notes).toEqual([]);
    limited.close();
  });
});
