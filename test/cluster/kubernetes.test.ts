import { randomUUID } from 'node:crypto';
import { describe, it } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { DrError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import type { Cluster, ClusterObject } from '../../src/cluster/contract.ts';
import { loadSettings } from '../../src/cluster/kubeconfig.ts';
import { KubernetesCluster } from '../../src/cluster/kubernetes.ts';
import { RouteTraffic } from '../../src/traffic/route-traffic.ts';
import { clusterConformance } from '../conformance/cluster.ts';
import { trafficConformance } from '../conformance/traffic.ts';
import type { Rule } from '../harness/kubernetes/rbac.ts';
import { backends, httpRoute, routeConfig, routeDefinitions, virtualService } from '../traffic/routes.ts';

/*
 * The same suites against any real cluster: `KUBECONFIG=… npm run test:kubernetes`. Everything is written into namespaces
 * `dr-test-…`, which are removed. Needs an API server with RBAC and an administrator who may impersonate users; no pod has to run. Definitions
 * of HTTPRoute and VirtualService that are not there are made for the time of the tests.
 */
const kubeconfig = process.env['KUBECONFIG'];
const isWanted = process.env['DR_TEST_KUBERNETES'] === '1' && kubeconfig !== undefined;

const rbac = 'rbac.authorization.k8s.io/v1';
const impersonated = 'dr-test-somebody';

function open(impersonate?: string): KubernetesCluster {
  const settings = loadSettings({ env: { KUBECONFIG: kubeconfig } });
  return new KubernetesCluster({ ...settings, user: { ...settings.user, impersonate } }, { log: silentLog });
}

async function ownNamespace(admin: Cluster): Promise<string> {
  const name = `dr-test-${randomUUID().slice(0, 8)}`;
  await admin.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
  return name;
}

/** Gives a user these rights in the namespace and waits until the server grants them. */
async function grant(admin: Cluster, namespace: string, rules: readonly Rule[]): Promise<KubernetesCluster> {
  const metadata = { name: 'dr-test', namespace };
  const plain = rules.map(({ namespace: _namespace, ...rule }) => rule);
  await admin.apply({ apiVersion: rbac, kind: 'Role', metadata, rules: plain });
  await admin.apply({
    apiVersion: rbac,
    kind: 'RoleBinding',
    metadata,
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'dr-test' },
    subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: impersonated }],
  });
  const somebody = open(impersonated);
  await eventually(() => somebody.allows({ apiVersion: 'v1', kind: 'ConfigMap', verb: 'get', namespace }));
  return somebody;
}

/** Asks until the server has followed: its authorizer and its discovery lag behind what is written by moments. */
async function eventually(ask: () => Promise<boolean>): Promise<void> {
  const deadline = AbortSignal.timeout(30_000);
  while (!(await ask())) await systemClock.sleep(100, deadline);
}

async function has(work: Promise<unknown>): Promise<boolean> {
  return await work.then(
    () => true,
    (error: unknown) => {
      if (error instanceof DrError && error.kind === 'not-found') return false;
      throw error;
    },
  );
}

if (!isWanted) {
  describe('cluster contract: a real cluster (API server with RBAC)', () => {
    it.skip('needs KUBECONFIG and npm run test:kubernetes', () => {});
  });
} else {
  clusterConformance('a real cluster (API server with RBAC)', async () => {
    const admin = open();
    const namespace = await ownNamespace(admin);
    return {
      open: () => open(),
      openAs: (rules) => grant(admin, namespace, rules),
      namespace,
      [Symbol.asyncDispose]: async () => {
        await admin.delete({ apiVersion: 'v1', kind: 'Namespace', name: namespace });
        admin.close();
      },
    };
  });

  for (const [kind, route] of [
    ['httpRoute', httpRoute],
    ['virtualService', virtualService],
  ] as const) {
    trafficConformance(`${route.kind} in a real cluster`, async () => {
      const admin = open();
      const definition = routeDefinitions.find(({ metadata }) =>
        metadata.name.startsWith(`${route.kind.toLowerCase()}s.`),
      );
      if (definition && !(await has(admin.get({ ...definition, name: definition.metadata.name }))))
        await admin.create(definition);
      const namespace = await ownNamespace(admin);
      await eventually(() => has(admin.list(route, { namespace })));
      const object: ClusterObject = { ...route, metadata: { ...route.metadata, namespace } };
      await admin.create(object, { manager: 'kubectl-create' });
      const places = { endpoints: backends, openCluster: async () => open() };
      return {
        // Servers of the standard channel of the Gateway API drop the names of rules.
        open: () => new RouteTraffic(routeConfig(kind, { namespace, rule: '1' }), silentLog, {}, places),
        hasNameServers: false,
        hasResolver: false,
        isFaithful: true,
        isPremade: true,
        sites: Object.values(backends),
        [Symbol.asyncDispose]: async () => {
          await admin.delete({ apiVersion: 'v1', kind: 'Namespace', name: namespace });
          admin.close();
        },
      };
    });
  }
}
