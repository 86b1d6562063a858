import { randomBytes } from 'node:crypto';
import { chmod, link, mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Comparison, compareSides } from '../../../src/backup/compare/compare.ts';
import { liveCluster } from '../../../src/backup/compare/live-cluster.ts';
import { liveFolder } from '../../../src/backup/compare/live-folder.ts';
import { backupSide } from '../../../src/backup/compare/side.ts';
import type { Manifest } from '../../../src/backup/manifest.ts';
import { takeObjectsBackup } from '../../../src/backup/objects/take-objects.ts';
import { takeDirectoryBackup } from '../../../src/backup/take-directory.ts';
import { MemoryCluster } from '../../../src/cluster/memory/cluster.ts';
import { renderConfigDiff } from '../../../src/report/config-diff.ts';
import { tempDir } from '../../harness/temp.ts';
import { backupWorld } from '../fixture.ts';
import { everything, fill } from '../objects-restore/shop.ts';

let world: Awaited<ReturnType<typeof backupWorld>>;

beforeEach(async () => {
  world = await backupWorld();
});
afterEach(() => world.pool.close());

async function side(manifest: Manifest) {
  const [store] = world.stores;
  if (!store) throw new Error('no vault');
  return await backupSide({ store, manifest, keyRing: world.keyRing });
}

function paths({ changes }: Comparison): string[] {
  return changes.map(({ path, status, content }) => `${status} ${path} (${content})`);
}

describe('a folder', () => {
  const source = async () => {
    const path = await tempDir('compare');
    await mkdir(join(path, 'conf.d'));
    await writeFile(join(path, 'app.conf'), 'port = 80\nworkers = 4\nlog = on\n');
    await writeFile(join(path, 'conf.d', 'same.conf'), 'x\n');
    await writeFile(join(path, 'conf.d', 'gone.conf'), 'y\n');
    await writeFile(join(path, 'logo.png'), Buffer.from([0, 1, 2]));
    await writeFile(join(path, 'large.bin'), randomBytes(9_000_000));
    await writeFile(join(path, 'late.tmp'), 'excluded');
    await symlink('app.conf', join(path, 'current'));
    await link(join(path, 'conf.d', 'same.conf'), join(path, 'hard.conf'));
    await chmod(join(path, 'conf.d', 'same.conf'), 0o644);
    return { name: 'settings', kind: 'configuration' as const, path, exclude: ['*.tmp'], allowEmpty: false };
  };

  test('between two backups, and between a backup and now: the same', async () => {
    const folder = await source();
    const { path, exclude } = folder;
    const before = await side((await takeDirectoryBackup(world.context, folder)).manifest);
    const now = async () => await liveFolder(path, exclude, before.index, Date.now());
    expect(paths(await compareSides(before, await now()))).toEqual([]);

    await writeFile(join(path, 'app.conf'), 'port = 80\nworkers = 8\nlog = on\n');
    await writeFile(join(path, 'logo.png'), Buffer.from([0, 1, 3]));
    await writeFile(join(path, 'new.conf'), 'tab\tand \u001b[31m\n');
    await rm(join(path, 'conf.d', 'gone.conf'));
    await rm(join(path, 'current'));
    await symlink('new.conf', join(path, 'current'));
    await chmod(join(path, 'conf.d', 'same.conf'), 0o600);
    await writeFile(join(path, 'large.bin'), randomBytes(9_000_000));
    const live = await compareSides(before, await now());
    expect(paths(live)).toEqual([
      'changed app.conf (text)',
      'removed conf.d/gone.conf (text)',
      'changed conf.d/same.conf (same)',
      'changed current (text)',
      'changed hard.conf (same)',
      'changed large.bin (large)',
      'changed logo.png (binary)',
      'added new.conf (text)',
    ]);
    const after = await side((await takeDirectoryBackup(world.context, folder)).manifest);
    expect((await compareSides(before, after)).changes).toEqual(live.changes);

    const text = renderConfigDiff('settings', live, false);
    expect(text).toContain('@@ -1,3 +1,3 @@\n port = 80\n-workers = 4\n+workers = 8\n log = on');
    expect(text).toContain('old mode 644\nnew mode 600');
    expect(text).toContain('Binary files a/logo.png and b/logo.png differ');
    expect(text).toContain('-app.conf\n+new.conf');
    // A terminal is not told to change its colours.
    expect(text).toContain('+tab\tand \\x1b[31m');
    expect(renderConfigDiff('settings', live, true)).toMatch(/M +app\.conf +\+1 -1/);
  });
});

describe('objects of a cluster', () => {
  const source = { name: 'cluster', select: everything, exclude: [], allowEmpty: false };

  test('only what differs is read: the index, and the parts of what changed', async () => {
    const cluster = new MemoryCluster();
    await fill(cluster);
    for (let i = 0; i < 2000; i++) {
      const metadata = { name: `noise-${i}`, namespace: 'shop' };
      await cluster.create({
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata,
        data: { a: randomBytes(3000).toString('hex') },
      });
    }
    const first = (await takeObjectsBackup(world.context, source, cluster)).manifest;
    const settings = { apiVersion: 'v1', kind: 'ConfigMap', name: 'settings', namespace: 'shop' };
    await cluster.merge(settings, { data: { mode: 'off' } }, { manager: 'kubectl-edit' });
    const second = (await takeObjectsBackup(world.context, source, cluster)).manifest;
    const [store] = world.stores;
    if (!store) throw new Error('no vault');
    let bytes = 0;
    const read = store.read.bind(store);
    store.read = async (key, ...rest) => {
      const content = await read(key, ...rest);
      if (key.startsWith('parts/')) bytes += content.length;
      return content;
    };
    const { changes } = await compareSides(await side(first), await side(second));
    expect(changes.map(({ path, by }) => [path, by.map(({ manager, fields }) => [manager, fields])])).toEqual([
      ['namespaces/shop/core/ConfigMap/settings.yaml', [['kubectl-edit', ['data.mode']]]],
    ]);
    // Of about 6 MB that each backup has: one frame, and the small one of what is new.
    expect(bytes).toBeGreaterThan(0);
    expect(bytes).toBeLessThan(first.storedBytes * 0.8);

    bytes = 0;
    const live = await liveCluster(cluster, source, Date.now(), new AbortController().signal);
    expect(paths(await compareSides(await side(second), live))).toEqual([]);
    expect(bytes).toBe(0);
  });

  test('a cluster that has nothing of it says which, and what was looked for', async () => {
    const nothing = liveCluster(new MemoryCluster(), source, Date.now(), new AbortController().signal);
    await expect(nothing).rejects.toMatchObject({ kind: 'not-found', where: 'cluster in memory, namespaces shop' });
  });

  test('who scaled it is named however often: of that servers do not say when', async () => {
    const cluster = new MemoryCluster();
    await fill(cluster);
    const deployment = { apiVersion: 'apps/v1', kind: 'Deployment', name: 'orders', namespace: 'shop' };
    await cluster.setScale(deployment, 5, { manager: 'kubectl' });
    const { metadata } = await cluster.get(deployment);
    expect(metadata.managedFields?.find(({ manager }) => manager === 'kubectl')).not.toHaveProperty('time');
    const first = await side((await takeObjectsBackup(world.context, source, cluster)).manifest);
    await cluster.setScale(deployment, 6, { manager: 'kubectl' });
    const live = async () => await liveCluster(cluster, source, Date.now(), new AbortController().signal);
    const who = ({ changes }: Comparison) =>
      changes.map(({ by }) => by.map(({ manager, fields }) => [manager, ...fields]));
    expect(who(await compareSides(first, await live()))).toEqual([[['kubectl', 'spec.replicas']]]);
    // What it scaled once is no reason to blame it for what others do.
    await cluster.merge(deployment, { metadata: { labels: { seen: 'yes' } } }, { manager: 'inventory' });
    await cluster.setScale(deployment, 5, { manager: 'kubectl' });
    expect(who(await compareSides(first, await live()))).toEqual([[['inventory', 'metadata.labels']]]);
  });

  test('who changed it: whoever wrote the fields that differ; of what was taken away, who wrote last', async () => {
    const cluster = new MemoryCluster();
    await fill(cluster);
    const settings = { apiVersion: 'v1', kind: 'ConfigMap', name: 'settings', namespace: 'shop' };
    const first = await side((await takeObjectsBackup(world.context, source, cluster)).manifest);
    await cluster.merge(settings, { metadata: { labels: { seen: 'yes' } } }, { manager: 'inventory' });
    await cluster.merge(settings, { data: { mode: 'off', url: null } }, { manager: 'kubectl-edit' });
    const metadata = { name: 'new', namespace: 'shop' };
    await cluster.create({ apiVersion: 'v1', kind: 'ConfigMap', metadata, data: {} }, { manager: 'helm' });
    const live = await liveCluster(cluster, source, Date.now(), new AbortController().signal);
    const { changes } = await compareSides(first, live);
    expect(
      changes.map(({ status, object, by }) => [status, object?.name, by.map(({ manager }) => manager).sort()]),
    ).toEqual([
      ['added', 'new', ['helm']],
      ['changed', 'settings', ['inventory', 'kubectl-edit']],
    ]);
  });
});
