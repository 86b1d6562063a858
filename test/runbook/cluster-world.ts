import type { ClusterObject } from '../../src/cluster/contract.ts';
import type { Json } from '../../src/cluster/json.ts';
import { replicasAnnotation } from '../../src/cluster/parked.ts';
import { Controllers, workload } from '../harness/kubernetes/controllers.ts';
import { TestWorld } from './world.ts';

/** What the clusters of both sites run, as the configuration names it. */
const sections = `workloads:
  api: { kind: Deployment, namespace: shop }
  nightly: { kind: CronJob, namespace: shop }
  orders-db: { kind: StatefulSet, namespace: shop, database: orders, sites: [east] }
gitops:
  shop: { kind: Application, namespace: argocd, sites: [east] }
  all: { kind: Application, namespace: argocd, sites: [east] }
`;

const definition: ClusterObject = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: 'applications.argoproj.io' },
  spec: {
    group: 'argoproj.io',
    scope: 'Namespaced',
    names: { kind: 'Application', plural: 'applications' },
    versions: [{ name: 'v1alpha1', served: true, storage: true }],
  },
};

const automated = { prune: true, selfHeal: true };

function application(name: string, parent?: string): ClusterObject {
  const annotations = parent && {
    'argocd.argoproj.io/tracking-id': `${parent}:argoproj.io/Application:argocd/${name}`,
  };
  return {
    apiVersion: 'argoproj.io/v1alpha1',
    kind: 'Application',
    metadata: { name, namespace: 'argocd', ...(annotations && { annotations }) },
    spec: { project: 'default', syncPolicy: { automated, syncOptions: ['CreateNamespace=true'] } },
  };
}

const cronJob: ClusterObject = {
  apiVersion: 'batch/v1',
  kind: 'CronJob',
  metadata: { name: 'nightly', namespace: 'shop' },
  spec: { schedule: '0 3 * * *', jobTemplate: {} },
};

/** A world whose sites have clusters: the old one runs 3 copies, healed by Argo CD; the new one has them parked. */
export class ClusterWorld {
  readonly world: TestWorld;
  readonly east: Controllers;
  readonly west: Controllers;

  private constructor(world: TestWorld) {
    this.world = world;
    const [east, west] = [world.clusters.objects('east'), world.clusters.objects('west')];
    for (const objects of [east, west]) {
      for (const name of ['shop', 'argocd'])
        objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } }, undefined);
    }
    const kubectl = { manager: 'kubectl-create' };
    for (const object of [
      workload('Deployment', 'api', { replicas: 3 }),
      workload('StatefulSet', 'orders-db', { replicas: 1 }),
      cronJob,
    ])
      east.create(object, undefined, kubectl);
    for (const object of [definition, application('all'), application('shop', 'all')])
      east.create(object, undefined, kubectl);
    const api = workload('Deployment', 'api', { replicas: 0 });
    const parked = { ...api.metadata, annotations: { [replicasAnnotation]: '3' } };
    west.create({ ...api, metadata: parked }, undefined, kubectl);
    west.create(
      {
        ...cronJob,
        metadata: { ...cronJob.metadata, annotations: { 'dr.io/suspend': 'false' } },
        spec: { ...(cronJob['spec'] as Json), suspend: true },
      },
      undefined,
      kubectl,
    );
    this.east = new Controllers(east);
    this.west = new Controllers(west);
    // `all` keeps the Application `shop` as Git has it, and `shop` the Deployment.
    this.east.heals.set('all', () =>
      this.#heal('argoproj.io/v1alpha1', 'Application', 'argocd', 'shop', { syncPolicy: { automated } }),
    );
    this.east.heals.set('shop', () => this.#heal('apps/v1', 'Deployment', 'shop', 'api', { replicas: 3 }));
  }

  static async create(runbook?: Parameters<typeof TestWorld.create>[0], more = sections): Promise<ClusterWorld> {
    const it = new ClusterWorld(await TestWorld.create(runbook, more));
    await it.settled();
    return it;
  }

  async settled(): Promise<void> {
    await this.east.settled();
    await this.west.settled();
  }

  /** How many copies a site has and wants, and what is paused there. */
  state(site: 'east' | 'west'): Record<string, string> {
    const objects = this.world.clusters.objects(site).all();
    const state: Record<string, string> = {};
    for (const { kind, metadata, spec } of objects) {
      const { replicas, suspend, syncPolicy } = (spec ?? {}) as {
        replicas?: number;
        suspend?: boolean;
        syncPolicy?: { automated?: object };
      };
      if (kind === 'Deployment' || kind === 'StatefulSet') {
        const pods = objects.filter((pod) => pod.kind === 'Pod' && pod.metadata.labels?.['app'] === metadata.name);
        state[metadata.name] = `${pods.length} of ${replicas}`;
      }
      if (kind === 'CronJob') state[metadata.name] = suspend === true ? 'suspended' : 'due';
      if (kind === 'Application') state[metadata.name] = syncPolicy?.automated ? 'automated' : 'paused';
    }
    return state;
  }

  annotations(site: 'east' | 'west'): Record<string, string[]> {
    const objects = this.world.clusters.objects(site).all();
    return Object.fromEntries(
      objects.flatMap(({ metadata }) => {
        const ours = Object.keys(metadata.annotations ?? {}).filter((key) => key.startsWith('dr.io/'));
        return ours.length > 0 ? [[metadata.name, ours.sort()]] : [];
      }),
    );
  }

  #heal(apiVersion: string, kind: string, namespace: string, name: string, spec: Json): void {
    const objects = this.world.clusters.objects('east');
    objects.merge(objects.typeOf({ apiVersion, kind }), namespace, name, { spec }, { manager: 'argocd-controller' });
  }
}
