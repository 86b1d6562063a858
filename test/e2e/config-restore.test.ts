import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Comparison } from '../../src/backup/compare/compare.ts';
import { cleaned } from '../../src/backup/objects-restore/clean.ts';
import type { ObjectResult } from '../../src/backup/objects-restore/result.ts';
import type { ClusterObject } from '../../src/cluster/contract.ts';
import { refOf, showRef } from '../../src/cluster/contract.ts';
import { backedUp, restoredCount } from '../backup/objects-restore/shop.ts';
import { everything } from '../harness/kubernetes/rbac.ts';
import type { Ended } from '../harness/process.ts';
import { ConfigWorld } from './config-world.ts';
import { expectHelp } from './world.ts';

let world: ConfigWorld;

beforeAll(async () => {
  world = await ConfigWorld.make();
  const taken = await world.dr('backup');
  expect(taken.code, taken.stderr).toBe(0);
});
afterAll(() => world[Symbol.asyncDispose]());
beforeEach(() => world.freshWest());

interface Restored {
  readonly counts: Readonly<Record<string, number>>;
  readonly objects: readonly ObjectResult[];
}

function resultOf<T>({ stdout }: Ended): T {
  return (JSON.parse(stdout) as { result: T }).result;
}

const toWest = ['config', 'restore', 'cluster', '--to', 'west', '--no-scale-to-zero', '--yes', '--reason', 'a test'];

/** Every object that a backup of the cluster would hold, as it is applied anywhere. */
async function content(cluster: ConfigWorld['eastern']): Promise<Map<string, ClusterObject>> {
  const { objects } = await backedUp(cluster);
  return new Map(objects.map((object) => [showRef(refOf(object)), cleaned(object)]));
}

async function expectShopInWest(): Promise<void> {
  const [source, restored] = [await content(world.eastern), await content(world.western)];
  expect([...restored.keys()].sort()).toEqual([...source.keys()].sort());
  for (const [name, object] of source) if (!name.startsWith('Job ')) expect(restored.get(name), name).toEqual(object);
}

/** Does something at the western cluster's Nth write. */
function atWrite(number: number, act: () => unknown): void {
  let writes = 0;
  const count = async () => {
    if (++writes === number) await act();
  };
  world.west.faults.next('patch', { kind: 'before', act: count }, number);
}

describe('dr config restore', () => {
  test('into an empty cluster: object by object as in the source; again: no change; diff sees none', async () => {
    const first = await world.dr(...toWest, '--json');
    expect(first.code, first.stdout + first.stderr).toBe(0);
    expect(resultOf<Restored>(first).counts).toMatchObject({ created: restoredCount, failed: 0 });
    await expectShopInWest();
    const before = world.west.objects.history.revision;
    const second = await world.dr(...toWest);
    expect(second.code, second.stderr).toBe(0);
    expect(second.stdout).toMatch(new RegExp(`${restoredCount - 1} unchanged`));
    expect(second.stdout).toContain('Reason: a test');
    expect(world.west.objects.history.revision).toBe(before);

    const diff = await world.dr('config', 'diff', 'cluster', 'latest', 'live:west', '--json');
    expect(diff.code, diff.stderr).toBe(0);
    const { changes } = resultOf<Comparison>(diff);
    // What waits for a person, and what that cluster assigns anew.
    expect(changes.map(({ path }) => path)).toEqual([
      'namespaces/shop/batch/Job/migrate.yaml',
      'namespaces/shop/core/Service/orders.yaml',
    ]);
  });

  test('as the configuration says for the site: workloads wait with 0 replicas', async () => {
    const ended = await world.dr('config', 'restore', 'cluster', '--to', 'west', '--yes');
    expect(ended.code, ended.stderr).toBe(0);
    const orders = await world.western.get({
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      name: 'orders',
      namespace: 'shop',
    });
    expect(orders).toMatchObject({ spec: { replicas: 0 }, metadata: { annotations: { 'dr.io/replicas': '3' } } });
  });

  test('without a person who means it: nothing', async () => {
    const before = world.west.objects.history.revision;
    expectHelp(await world.dr('config', 'restore', 'cluster', '--to', 'west'), 11, '--yes', '--diff');
    expect(world.west.objects.history.revision).toBe(before);
    const diff = await world.dr('config', 'restore', 'cluster', '--to', 'west', '--diff');
    expect(diff.code, diff.stdout + diff.stderr).toBe(0);
    expect(diff.stdout).toContain('+ Deployment shop/orders');
    expect(diff.stdout).toContain('registry.example/orders:1.4.2');
    expect(diff.stdout).toContain('Nothing was stored');
    expect(world.west.objects.history.revision).toBe(before);
  });

  test('into any cluster by its kubeconfig, only some objects, under another namespace', async () => {
    const args = [
      '--cluster',
      `${world.root}/west.kubeconfig`,
      '--only',
      'ConfigMap/shop/*',
      '--namespace',
      'shop=shop-dr',
    ];
    const ended = await world.dr('config', 'restore', 'cluster', ...args, '--yes');
    expect(ended.code, ended.stderr).toBe(0);
    expect(ended.stdout).toContain('2 objects: 2 created');
    const settings = { apiVersion: 'v1', kind: 'ConfigMap', name: 'settings', namespace: 'shop-dr' };
    expect(await world.western.get(settings)).toMatchObject({ data: { mode: 'on' } });
    // The same cluster, seen with that name.
    const config = `${world.root}/dr.yaml`;
    const text = readFileSync(config, 'utf8');
    writeFileSync(config, text.replace('kubernetes: {} }', 'kubernetes: { namespaces: { shop: shop-dr } } }'));
    try {
      const diff = await world.dr('config', 'diff', 'cluster', 'latest', 'live:west', '--json');
      expect(diff.code, diff.stderr).toBe(0);
      const { changes } = resultOf<Comparison>(diff);
      const there = ['namespaces/shop/core/ConfigMap/settings.yaml', 'cluster/core/Namespace/shop.yaml'];
      expect(changes.filter(({ path }) => there.includes(path))).toEqual([]);
      expect(changes.length).toBeGreaterThan(10);
    } finally {
      writeFileSync(config, text);
    }
    expectHelp(await world.dr('config', 'restore', 'settings', '--to', 'west', '--yes'), 2, 'dr restore settings');
  });
});

describe('trouble on the way', () => {
  test('the API server restarts in the middle: the restore waits and goes on', async () => {
    atWrite(9, async () => {
      await world.west.stop();
      setTimeout(() => void world.west.listen(), 1500);
    });
    const ended = await world.dr(...toWest);
    expect(ended.code, ended.stdout + ended.stderr).toBe(0);
    await expectShopInWest();
  });

  test('killed with -9 in the middle, the same command goes on', async () => {
    let child: ReturnType<ConfigWorld['start']> | undefined;
    const killed = new Promise<void>((resolve) => {
      atWrite(11, async () => {
        await child?.kill9();
        resolve();
      });
    });
    child = world.start(toWest);
    await killed;
    const made = (await backedUp(world.western)).objects.length;
    expect(made).toBeGreaterThan(3);
    expect(made).toBeLessThan(restoredCount);
    const ended = await world.dr(...toWest, '--json');
    expect(ended.code, ended.stdout + ended.stderr).toBe(0);
    const { counts } = resultOf<Restored>(ended);
    expect(counts['unchanged']).toBeGreaterThan(3);
    expect((counts['unchanged'] ?? 0) + (counts['created'] ?? 0) + (counts['left'] ?? 0)).toBe(restoredCount);
    await expectShopInWest();
  });

  test('a right is missing for one kind: it is named with the rule, the rest is there', async () => {
    const rules = everything.map((rule) => ({ ...rule, verbs: ['get', 'list', 'watch'] }));
    const write = ['configmaps', 'namespaces', 'services', 'deployments', 'statefulsets'].map((resource) => ({
      apiGroups: ['*'],
      resources: [resource],
      verbs: ['create', 'patch'],
    }));
    world.west.accounts.set('some-rights', { name: 'dr', rules: [...rules, ...write] });
    world.kubeconfig('west', 'some-rights');
    const only = ['--only', 'ConfigMap', 'Service', 'Deployment', 'StatefulSet', 'Secret'];
    const ended = await world.dr(...toWest, ...only);
    expect(ended.code, ended.stdout + ended.stderr).toBe(10);
    expect(ended.stdout).toMatch(/FAILED Secret shop\/database: dr may not patch secrets/);
    expect(ended.stdout).toContain('resources: ["secrets"], verbs: ["patch"]');
    expect(ended.stdout).toMatch(/3 FAILED/);
    const { objects } = await backedUp(world.western);
    const shops = objects.filter(({ metadata }) => metadata.namespace === 'shop');
    expect(shops.map(({ kind }) => kind).sort()).toEqual([
      'ConfigMap',
      'Deployment',
      'Service',
      'Service',
      'StatefulSet',
    ]);
  });

  test('the token expires in the middle: it ends at once, says so, and nothing is claimed', async () => {
    world.west.accounts.set('short', { name: 'dr', rules: everything });
    world.kubeconfig('west', 'short');
    atWrite(9, () => world.west.accounts.delete('short'));
    const ended = await world.dr(...toWest, '--json');
    expect(ended.code, ended.stdout + ended.stderr).toBe(10);
    const { counts } = resultOf<Restored>(ended);
    expect(counts['created']).toBeGreaterThan(5);
    expect(counts['not-tried']).toBeGreaterThan(5);
    expect(ended.stdout).toContain('token');
  });

  test('fields of other managers: named by manager, kept, and taken only when it is forced', async () => {
    await world.dr(...toWest);
    const settings = { apiVersion: 'v1', kind: 'ConfigMap', name: 'settings', namespace: 'shop' };
    await world.western.merge(settings, { data: { mode: 'theirs' } }, { manager: 'argocd-controller' });
    const ended = await world.dr(...toWest);
    expect(ended.code, ended.stdout).toBe(12);
    expect(ended.stdout).toMatch(/FAILED ConfigMap shop\/settings: .*\.data\.mode of argocd-controller/);
    expect(await world.western.get(settings)).toMatchObject({ data: { mode: 'theirs' } });
    expect((await world.dr(...toWest, '--force-conflicts')).code).toBe(0);
    expect(await world.western.get(settings)).toMatchObject({ data: { mode: 'on' } });
  });
});

describe('dr config diff', () => {
  test('of two backups: what changed as git shows it, and who did it; no value of a Secret', async () => {
    const deployment = { apiVersion: 'apps/v1', kind: 'Deployment', name: 'orders', namespace: 'shop' };
    await world.eastern.merge(deployment, { spec: { replicas: 4 } }, { manager: 'kubectl-edit' });
    const database = { apiVersion: 'v1', kind: 'Secret', name: 'database', namespace: 'shop' };
    await world.eastern.merge(database, { data: { password: 'aHVudGVyMg==' } }, { manager: 'vault-operator' });
    await world.eastern.delete({
      apiVersion: 'policy/v1',
      kind: 'PodDisruptionBudget',
      name: 'orders',
      namespace: 'shop',
    });
    const live = await world.dr('config', 'diff', 'cluster');
    expect(live.code, live.stderr).toBe(0);
    expect(live.stdout).toContain(
      'diff a/namespaces/shop/apps/Deployment/orders.yaml b/namespaces/shop/apps/Deployment/orders.yaml',
    );
    expect(live.stdout).toMatch(/^changed by kubectl-edit \(Update\) \S+ \S+ UTC: spec\.replicas$/m);
    expect(live.stdout).toMatch(/^- {2}replicas: 3\n\+ {2}replicas: 4$/m);
    expect(live.stdout).toMatch(/^changed by vault-operator .*: data\.password$/m);
    expect(live.stdout).toMatch(/^- {2}password: "?\(secret, before\)"?\n\+ {2}password: "?\(secret, after\)"?$/m);
    expect(live.stdout).toMatch(/^deleted file\nlast written by kubectl-create/m);
    expect(live.stdout + live.stderr).not.toMatch(/c2VzYW1l|aHVudGVyMg/);

    expect((await world.dr('backup', 'cluster')).code).toBe(0);
    const { backups } = resultOf<{ backups: Array<{ id: string }> }>(await world.dr('backups', 'cluster', '--json'));
    const ids = [...new Set(backups.map(({ id }) => id))].sort();
    expect(ids).toHaveLength(2);
    const [first = '', second = ''] = ids;
    const stat = await world.dr('config', 'diff', 'cluster', first, second, '--stat', '--exit-code');
    expect(stat.code, stat.stderr).toBe(14);
    expect(stat.stdout).toMatch(/M +namespaces\/shop\/apps\/Deployment\/orders\.yaml +\+1 -1 +kubectl-edit/);
    expect(stat.stdout).toMatch(/3 files of \d+ differ: 2 changed, 0 added, 1 removed/);
    const none = await world.dr('config', 'diff', 'cluster', '--exit-code');
    expect(none.code, none.stdout).toBe(0);
    expect(none.stdout).toContain('Nothing differs');
    expectHelp(
      await world.dr('config', 'diff', 'cluster', '20200101T000000000Z-abcdef'),
      6,
      '20200101T000000000Z-abcdef',
    );
  });
});
