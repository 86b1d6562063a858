import { afterEach, beforeEach, expect, test } from 'vitest';
import { examineObjects } from '../../../src/backup/doctor/objects.ts';
import type { KubernetesCluster } from '../../../src/cluster/kubernetes.ts';
import { everything, type Rule } from '../../harness/kubernetes/rbac.ts';
import { KubernetesServer } from '../../harness/kubernetes/server.ts';
import { clientOf, seedShop, selecting, shop } from './support.ts';

let server: KubernetesServer;
let cluster: KubernetesCluster;

beforeEach(async () => {
  server = await KubernetesServer.start();
  seedShop(server.objects);
});
afterEach(async () => {
  cluster.close();
  await server[Symbol.asyncDispose]();
});

async function examine(rules: readonly Rule[], select = shop.select, onChange = true) {
  server.accounts.set('limited', { name: 'dr', rules });
  cluster = clientOf(server, 'limited');
  return await examineObjects({ cluster, select, onChange, signal: AbortSignal.timeout(10_000) });
}

test('all rights: nothing to mend', async () => {
  const findings = await examine(everything);
  expect(findings.map(({ verdict }) => verdict)).toEqual(['ok', 'ok', 'ok']);
  expect(findings[0]?.what).toContain('v1.32.3');
  expect(findings[1]?.what).toMatch(/^\d+ kinds can be read and watched, in 1 namespace$/);
});

test('a missing right is named with the rule that gives it; a right in each namespace is enough', async () => {
  const rules = [
    { apiGroups: [''], resources: ['*'], verbs: ['get', 'list', 'watch'], namespace: 'shop' },
    { apiGroups: ['apps', 'batch'], resources: ['*'], verbs: ['get', 'list'], namespace: 'shop' },
    { apiGroups: [''], resources: ['namespaces'], verbs: ['get'] },
  ];
  const kinds = { include: ['configmaps', 'deployments.apps', 'widgets.*', 'namespaces'], exclude: [] };
  const [, denied] = await examine(rules, selecting({ kinds }).select);
  expect(denied).toMatchObject({ verdict: 'fail' });
  expect(denied?.what).toContain('may not list or watch deployments.apps, namespaces, widgets.example.com');
  expect(denied?.next).toContain(
    '{ apiGroups: ["example.com"], resources: ["widgets"], verbs: ["get", "list", "watch"] }',
  );
  cluster.close();
  const [, scheduled] = await examine(rules, selecting({ kinds: { ...kinds, exclude: ['widgets'] } }).select, false);
  expect(scheduled).toMatchObject({ verdict: 'ok' });
});

test('a namespace that is not there, a selector that matches none, an API that is away', async () => {
  server.missing.add('example.com/v1');
  const found = await examine(everything, selecting({ namespaces: ['shop', 'shup'] }).select);
  expect(found.filter(({ verdict }) => verdict !== 'ok').map(({ what }) => what)).toEqual([
    'the servers of some APIs do not answer: example.com/v1',
    'namespace shup: there is no such namespace',
  ]);
  cluster.close();
  const none = await examine(everything, selecting({ namespaces: undefined, selector: 'tier=gold' }).select);
  expect(none.map(({ what }) => what)).toContain('there are no namespaces that match tier=gold');
});
