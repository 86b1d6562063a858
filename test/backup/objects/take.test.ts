import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { isFromCluster } from '../../../src/backup/manifest.ts';
import { readManagers, readSummary, toYaml } from '../../../src/backup/objects/layout.ts';
import { MemoryCluster } from '../../../src/cluster/memory/cluster.ts';
import { backupWorld } from '../fixture.ts';
import {
  add,
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
let cluster: MemoryCluster;

beforeEach(async () => {
  world = await backupWorld();
  cluster = new MemoryCluster();
  seedShop(cluster.objects);
});
afterEach(() => world.pool.close());

const deployment = { apiVersion: 'apps/v1', kind: 'Deployment', namespace: 'shop', name: 'orders' };
const settings = { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: 'settings' };

describe('a backup of objects', () => {
  test('holds what people and tools wrote, one file each, without what the cluster adds', async () => {
    cluster.setStatus(deployment, { readyReplicas: 2 });
    const { manifest } = await take(world, cluster);
    const files = await filesOf(world, manifest);
    expect(objectFiles(files)).toEqual(shopFiles);
    expect(files.get('namespaces/shop/apps/Deployment/orders.yaml')).toEqual({
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: {
        name: 'orders',
        namespace: 'shop',
        labels: { app: 'orders' },
        annotations: { 'example.com/owner': 'team-a' },
      },
      spec: { replicas: 2, template: { spec: { containers: [{ name: 'orders', image: 'orders:1' }] } } },
    });
    expect(files.get('namespaces/shop/example.com/Widget/wheel.yaml')).toHaveProperty('metadata.finalizers', [
      'example.com/wheel',
    ]);
    expect(manifest.kind).toBe('configuration');
    expect(isFromCluster(manifest)).toBe(true);
    expect(isFromCluster({ kind: 'configuration', source: '/etc/cluster' })).toBe(false);
    expect(manifest.notes).toEqual([]);
  });

  test('says who set which fields, and not who only wrote the status', async () => {
    cluster.setStatus(deployment, { readyReplicas: 2 });
    await cluster.merge(deployment, { spec: { replicas: 3 } }, { manager: 'on-call' });
    const { manifest } = await take(world, cluster);
    const files = await filesOf(world, manifest);
    const record = files.get('managers/namespaces/shop/apps/Deployment/orders.yaml');
    const managers = readManagers(toYaml(record), 'test');
    expect(managers.map(({ manager }) => manager).sort()).toEqual(['kubectl', 'on-call']);
    expect(managers.find(({ manager }) => manager === 'on-call')?.fields).toEqual(['spec.replicas']);
    expect(managers.find(({ manager }) => manager === 'kubectl')?.fields).toContain('metadata.labels.app');
  });

  test('says what was taken, and what was left out and why', async () => {
    const { manifest } = await take(
      world,
      cluster,
      selecting({}, { exclude: ['namespaces/*/core/ServiceAccount/**'] }),
    );
    const files = await filesOf(world, manifest);
    expect(objectFiles(files)).toEqual(shopFiles.filter((path) => !path.includes('ServiceAccount')));
    const summary = readSummary(toYaml(files.get('dr-cluster.yaml')), 'test');
    expect(summary).toMatchObject({ server: 'v1.32.0', namespaces: ['shop'], secrets: false, lost: [] });
    expect(summary.types).toContainEqual({
      group: 'example.com',
      version: 'v1',
      kind: 'Widget',
      plural: 'widgets',
      namespaced: true,
    });
    expect(summary.leftOut.map(({ what }) => what)).toEqual(
      expect.arrayContaining(['secrets', 'leases.coordination.k8s.io', 'nodes', 'events', 'endpoints']),
    );
  });

  test('has Secrets only when they are asked for, never tokens, and never readable', async () => {
    const { manifest } = await take(world, cluster, selecting({ secrets: true }));
    const secrets = objectFiles(await filesOf(world, manifest)).filter((path) => path.includes('/Secret/'));
    expect(secrets).toEqual(['namespaces/shop/core/Secret/login.yaml']);
    const plain = { ...world, context: { ...world.context, keyPolicy: 'none' as const } };
    await expect(take(plain, cluster, selecting({ secrets: true }))).rejects.toMatchObject({ kind: 'refused' });
  });

  test('takes the namespaces that a selector chooses, and kinds by name', async () => {
    const select = { namespaces: undefined, selector: 'tier=production', clusterObjects: false } as const;
    const { manifest } = await take(world, cluster, selecting(select));
    const inShop = shopFiles.filter((path) => !path.startsWith('cluster/') || path.includes('/Namespace/'));
    expect(objectFiles(await filesOf(world, manifest))).toEqual(inShop);

    add(cluster.objects, configMap('lock'));
    const kinds = { include: ['configmaps', 'Widget.example.com'], exclude: [] };
    const some = await take(world, cluster, selecting({ ...select, kinds }));
    expect(objectFiles(await filesOf(world, some.manifest))).toEqual([
      'namespaces/shop/core/ConfigMap/lock.yaml',
      'namespaces/shop/core/ConfigMap/settings.yaml',
      'namespaces/shop/example.com/Widget/wheel.yaml',
    ]);
    const without = { include: [], exclude: ['*.example.com', 'customresourcedefinitions.*'] };
    const rest = await take(world, cluster, selecting({ kinds: without }));
    expect(objectFiles(await filesOf(world, rest.manifest)).join()).not.toMatch(/Widget|CustomResource/);
  });

  test('of several namespaces is told apart by namespace', async () => {
    const { manifest } = await take(world, cluster, selecting({ namespaces: ['other', 'shop'] }));
    const maps = objectFiles(await filesOf(world, manifest)).filter((path) => path.includes('/ConfigMap/'));
    expect(maps).toEqual([
      'namespaces/other/core/ConfigMap/settings.yaml',
      'namespaces/shop/core/ConfigMap/settings.yaml',
    ]);
  });
});

describe('the next backup', () => {
  test('is not made when only noise has changed, or who owns a field', async () => {
    const first = await take(world, cluster);
    cluster.setStatus(deployment, { readyReplicas: 1 });
    await cluster.merge(
      { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', namespace: 'shop', name: 'orders-leader' },
      { spec: { holderIdentity: 'b' } },
    );
    add(cluster.objects, { apiVersion: 'v1', kind: 'Event', metadata: { name: 'orders.2', namespace: 'shop' } });
    await cluster.merge(settings, { metadata: { annotations: { 'control-plane.alpha.kubernetes.io/leader': 'me' } } });
    await cluster.apply({ ...configMap('settings', 'shop', { colour: 'blue' }) }, { manager: 'gitops', force: true });
    const again = await take(world, cluster, shop, first.manifest);
    expect(again).toMatchObject({ unchanged: true, manifest: { id: first.manifest.id } });

    await cluster.merge(settings, { data: { colour: 'green' } });
    const changed = await take(world, cluster, shop, first.manifest);
    expect(changed.unchanged).toBe(false);
    const files = await filesOf(world, changed.manifest);
    expect(files.get('namespaces/shop/core/ConfigMap/settings.yaml')).toHaveProperty('data.colour', 'green');
    const managers = readManagers(toYaml(files.get('managers/namespaces/shop/core/ConfigMap/settings.yaml')), 'test');
    expect(managers.map(({ manager }) => manager)).toEqual(['dr']);
  });

  test('does not have what is gone', async () => {
    await take(world, cluster);
    await cluster.delete(settings);
    const { manifest } = await take(world, cluster);
    expect(objectFiles(await filesOf(world, manifest))).toEqual(
      shopFiles.filter((path) => !path.includes('ConfigMap')),
    );
  });
});
