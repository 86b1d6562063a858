import type { ClusterObject } from '../../src/cluster/contract.ts';
import type { MemoryObjects } from '../../src/cluster/memory/objects.ts';
import type { RouteConfig } from '../../src/config/types.ts';

export const backends = { east: 'orders-east', west: 'orders-west', south: 'orders-south' };

/** Definition of a kind of the outside, as far as an API server needs it to serve objects. */
function definition(group: string, version: string, kind: string, plural: string): ClusterObject {
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: {
      name: `${plural}.${group}`,
      // Groups below k8s.io are protected: servers want to see that somebody means it.
      annotations: { 'api-approved.kubernetes.io': 'unapproved, for the tests of dr' },
    },
    spec: {
      group,
      scope: 'Namespaced',
      names: { kind, plural, singular: kind.toLowerCase(), listKind: `${kind}List` },
      versions: [
        {
          name: version,
          served: true,
          storage: true,
          subresources: { status: {} },
          schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
        },
      ],
    },
  };
}

export const httpRoute: ClusterObject = {
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind: 'HTTPRoute',
  metadata: { name: 'orders', namespace: 'shop' },
  spec: {
    hostnames: ['orders.example.com'],
    parentRefs: [{ group: 'gateway.networking.k8s.io', kind: 'Gateway', name: 'public' }],
    rules: [
      {
        name: 'static',
        matches: [{ path: { type: 'PathPrefix', value: '/static' } }],
        backendRefs: [
          { name: 'files', port: 80, weight: 3 },
          { name: 'files-old', port: 80 },
        ],
      },
      {
        name: 'all',
        filters: [
          { type: 'RequestHeaderModifier', requestHeaderModifier: { set: [{ name: 'x-route', value: 'all' }] } },
        ],
        backendRefs: [
          { group: '', kind: 'Service', name: backends.east, port: 80, weight: 1 },
          { group: '', kind: 'Service', name: backends.west, port: 80, weight: 0 },
          { group: '', kind: 'Service', name: backends.south, port: 80, weight: 0 },
        ],
        timeouts: { request: '10s' },
      },
    ],
  },
};

export const virtualService: ClusterObject = {
  apiVersion: 'networking.istio.io/v1',
  kind: 'VirtualService',
  metadata: { name: 'orders', namespace: 'shop' },
  spec: {
    hosts: ['orders.example.com'],
    gateways: ['istio-system/public'],
    http: [
      { name: 'static', match: [{ uri: { prefix: '/static' } }], route: [{ destination: { host: 'files' } }] },
      {
        name: 'all',
        retries: { attempts: 3 },
        route: [
          { destination: { host: backends.east, port: { number: 80 } }, weight: 100 },
          { destination: { host: backends.west, port: { number: 80 } } },
          { destination: { host: backends.south, port: { number: 80 } }, weight: 0 },
        ],
      },
    ],
  },
};

export const routeDefinitions: readonly ClusterObject[] = [
  definition('gateway.networking.k8s.io', 'v1', 'HTTPRoute', 'httproutes'),
  definition('networking.istio.io', 'v1', 'VirtualService', 'virtualservices'),
];

/** Puts the definitions of both kinds, the namespace `shop` and one of the routes into a cluster. */
export function seedRoutes(objects: MemoryObjects, ...routes: readonly ClusterObject[]): void {
  for (const each of routeDefinitions) objects.create(each, undefined);
  objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } }, undefined);
  for (const route of routes) objects.create(route, undefined, { manager: 'kubectl-create' });
}

export function routeConfig(kind: RouteConfig['kind'], change: Partial<RouteConfig> = {}): RouteConfig {
  const cluster = { kubeconfig: undefined, context: undefined };
  return { kind, cluster, namespace: 'shop', name: 'orders', rule: 'all', ...change };
}

/** What a gateway controller writes into the status once it carries the present generation out. */
export function accepted(generation: number, change: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  const condition = (type: string) => {
    return { type, status: 'True', reason: type, message: '', observedGeneration: generation, ...change };
  };
  return {
    parents: [
      {
        parentRef: { group: 'gateway.networking.k8s.io', kind: 'Gateway', name: 'public' },
        controllerName: 'example.com/gateway-controller',
        conditions: [condition('Accepted'), condition('ResolvedRefs')],
      },
    ],
  };
}

/** A gateway controller that accepts every version of the route at once, until it is held. */
export class GatewayController {
  isHeld = false;
  readonly #objects: MemoryObjects;
  readonly #stop: () => void;

  constructor(objects: MemoryObjects) {
    this.#objects = objects;
    const type = objects.typeOf(httpRoute);
    this.#stop = objects.history.watch(objects.tableOf(type), objects.history.revision, {
      onChange: ({ after }) => {
        if (after && !this.isHeld) queueMicrotask(() => this.accept());
      },
      onBookmark: () => {},
    });
    this.accept();
  }

  accept(): void {
    const type = this.#objects.typeOf(httpRoute);
    const { metadata } = this.#objects.get(type, 'shop', 'orders');
    const options = { subresource: 'status', manager: 'gateway-controller' } as const;
    this.#objects.merge(type, 'shop', 'orders', { status: accepted(metadata.generation ?? 0) }, options);
  }

  close(): void {
    this.#stop();
  }
}
