import { expect, test } from 'vitest';
import { backedUp, restoredCount } from '../backup/objects-restore/shop.ts';
import { ConfigWorld } from './config-world.ts';

test('a drill lets the API server check every object and stores none; a failover restores them', async () => {
  await using world = await ConfigWorld.make();
  const taken = await world.dr('backup');
  expect(taken.code, taken.stderr).toBe(0);
  const before = world.west.objects.history.revision;
  const drill = await world.dr('failover', '--drill', '--to', 'west', '--yes');
  expect(drill.code, drill.stdout + drill.stderr).toBe(0);
  expect(world.west.objects.history.revision).toBe(before);
  const writes = world.west.calls.filter((call) => !/^(get|list|post) /.test(call));
  expect(writes.length).toBeGreaterThan(3);
  expect(writes.filter((call) => !call.includes('dryRun=All'))).toEqual([]);

  const theirs = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop', labels: { tier: 'test' } } };
  await world.western.create(theirs, { manager: 'terraform' });
  const failover = ['failover', '--to', 'west', '--yes', '--accept-split-brain', 'somebody', '--reason', 'a test'];
  const degraded = await world.dr(...failover);
  // The shipped runbook goes on without what could not be restored, and says so.
  expect(degraded.code, degraded.stdout + degraded.stderr).toBe(4);
  expect(degraded.stdout).toContain('Namespace shop: other managers own fields');
  expect(degraded.stdout).toContain('.metadata.labels.tier belongs to terraform');
  const orders = await world.western.get({
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    name: 'orders',
    namespace: 'shop',
  });
  expect(orders).toMatchObject({ spec: { replicas: 0 }, metadata: { annotations: { 'dr.io/replicas': '3' } } });
  expect((await backedUp(world.western)).objects).toHaveLength(restoredCount);
});

test('a plan says that the cluster of the recovery site does not answer', async () => {
  await using world = await ConfigWorld.make();
  const taken = await world.dr('backup', 'cluster');
  expect(taken.code, taken.stderr).toBe(0);
  await world.west.stop();
  const plan = await world.dr('failover', '--plan', '--to', 'west');
  expect(plan.code, plan.stdout + plan.stderr).toBe(14);
  expect(plan.stdout).toContain('the API server does not answer');
  expect(plan.stdout).toContain('it cannot be asked');
});
