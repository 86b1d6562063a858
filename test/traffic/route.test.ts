import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import type { ClusterObject } from '../../src/cluster/contract.ts';
import { KubernetesCluster } from '../../src/cluster/kubernetes.ts';
import type { RouteConfig } from '../../src/config/types.ts';
import { openTraffic } from '../../src/traffic/open.ts';
import { RouteTraffic } from '../../src/traffic/route-traffic.ts';
import { settingsFor } from '../cluster/support.ts';
import { KubernetesServer } from '../harness/kubernetes/server.ts';
import { accepted, backends, GatewayController, httpRoute, routeConfig, seedRoutes, virtualService } from './routes.ts';
import { hastyClock } from './support.ts';

let server: KubernetesServer;
const opened: { close(): void }[] = [];

beforeEach(async () => {
  server = await KubernetesServer.start();
});

afterEach(async () => {
  for (const each of opened.splice(0)) each.close();
  await server[Symbol.asyncDispose]();
});

function open(kind: RouteConfig['kind'], change: Partial<RouteConfig> = {}, token = 'admin-token'): RouteTraffic {
  const openCluster = async () =>
    new KubernetesCluster(settingsFor(server, { token }), { log: silentLog, attempts: 1 });
  const places = { endpoints: backends, openCluster };
  const driver = new RouteTraffic(routeConfig(kind, change), silentLog, { clock: hastyClock }, places);
  opened.push(driver);
  return driver;
}

const stored = (route: ClusterObject) => server.objects.get(server.objects.typeOf(route), 'shop', 'orders');
const write = (route: ClusterObject, change: object, manager = 'somebody', subresource?: 'status') =>
  server.objects.merge(
    server.objects.typeOf(route),
    'shop',
    'orders',
    { ...change },
    { manager, ...(subresource && { subresource }) },
  );
const failure = (work: Promise<unknown>) => work.then(() => undefined).catch((error: unknown) => error);
const shift = async (driver: RouteTraffic, percent: number) =>
  await driver.shift({ from: backends.east, to: backends.west, percent }, await driver.current());
/** The route as it was made, with one rule edited. */
const withRule = (
  route: ClusterObject,
  field: string,
  index: number,
  edit: (rule: Record<string, unknown>) => object,
) => {
  const spec = structuredClone(route['spec']) as Record<string, Record<string, unknown>[]>;
  const rules = spec[field] ?? [];
  return { ...route, spec: { ...spec, [field]: rules.map((rule, i) => (i === index ? edit(rule) : rule)) } };
};

describe.each([
  { kind: 'httpRoute', route: httpRoute, field: 'rules', list: 'backendRefs' },
  { kind: 'virtualService', route: virtualService, field: 'http', list: 'route' },
] as const)('a change of a $kind', ({ kind, route, field, list }) => {
  beforeEach(() => seedRoutes(server.objects, route));

  it('writes the weights of its rule, under its own name, and nothing else', async () => {
    await shift(open(kind), 25);
    const weights = [75, 25, 0];
    const expected = withRule(route, field, 1, (rule) => ({
      ...rule,
      [list]: (rule[list] as object[]).map((backend, i) => ({ ...backend, weight: weights[i] })),
    }));
    const after = stored(route);
    expect(after['spec']).toEqual(expected['spec']);
    const owner = after.metadata.managedFields?.find(({ fieldsV1 }) => JSON.stringify(fieldsV1).includes(`f:${field}`));
    expect(owner).toMatchObject({ manager: 'dr', operation: 'Update' });
  });

  it('is made although the status of the route changed in between', async () => {
    const driver = open(kind);
    const known = await driver.current();
    server.faults.before('patch', () => write(route, { status: { note: 'seen' } }, 'controller', 'status'));
    await driver.point([backends.west], known);
    expect((await driver.current()).values).toEqual([backends.west]);
    expect(stored(route)['status']).toEqual({ note: 'seen' });
  });

  it('loses against a rival who changed the weights in between, and tells both', async () => {
    const driver = open(kind);
    const known = await driver.current();
    const rival = open(kind);
    const rivalState = await rival.current();
    server.faults.before('patch', () =>
      rival.shift({ from: backends.east, to: backends.south, percent: 40 }, rivalState),
    );
    const error = await failure(driver.point([backends.west], known));
    expect(error).toMatchObject({ kind: 'conflict', next: expect.stringContaining('GitOps') });
    expect(String(error)).toMatch(/orders-east 100 %.*orders-east 60 %.*orders-south 40 %/);
    expect((await driver.current()).shares).toContainEqual({ value: backends.south, percent: 40 });
  });

  it('is found made by the next try when only its answer was lost', async () => {
    const driver = open(kind);
    const known = await driver.current();
    server.faults.next('patch', { kind: 'lose-reply' });
    expect(await failure(driver.point([backends.west], known))).toMatchObject({ kind: 'unreachable', retryable: true });
    expect(await driver.point([backends.west], known)).toMatchObject({ id: 'unchanged' });
  });

  it('never makes all weights zero', async () => {
    const driver = open(kind);
    const known = await driver.current();
    expect(await failure(driver.point([], known))).toMatchObject({ kind: 'refused' });
    await driver.shift({ from: backends.east, to: backends.east, percent: 0 }, known);
    expect((await driver.current()).values).toEqual([backends.east]);
  });

  it('brings a route back that somebody left without any weight', async () => {
    const { spec } = withRule(route, field, 1, (rule) => ({
      ...rule,
      [list]: (rule[list] as object[]).map((backend) => ({ ...backend, weight: 0 })),
    }));
    write(route, { spec });
    const driver = open(kind);
    expect(await driver.current()).toMatchObject({ values: [] });
    expect(await driver.doctor()).toContainEqual(
      expect.objectContaining({ ok: false, what: expect.stringContaining('no backend') }),
    );
    await driver.point([backends.west], await driver.current());
    expect((await driver.current()).values).toEqual([backends.west]);
  });

  it('finds its rule by name or number, and asks which one is meant', async () => {
    expect((await open(kind, { rule: '1' }).current()).values).toEqual([backends.east]);
    const unsaid = await failure(open(kind, { rule: undefined }).current());
    expect(unsaid).toMatchObject({ kind: 'refused', next: expect.stringContaining('"static", "all"') });
    for (const rule of ['2', 'al'])
      expect(await failure(open(kind, { rule }).current())).toMatchObject({
        kind: 'refused',
        next: expect.stringContaining(`${kind}.rule`),
      });
  });

  it('does not invent a backend, nor choose between two of one name', async () => {
    const some = withRule(route, field, 1, (rule) => ({ ...rule, [list]: (rule[list] as object[]).slice(0, 1) }));
    write(route, { spec: some['spec'] });
    const driver = open(kind);
    const missing = await failure(driver.point([backends.west], await driver.current()));
    expect(missing).toMatchObject({ kind: 'refused', next: expect.stringContaining('weight 0') });
    expect((await driver.doctor()).map(({ what }) => what)).toContainEqual(
      expect.stringContaining(`no backend ${backends.west} of west`),
    );
    const twice = withRule(route, field, 1, (rule) => ({
      ...rule,
      [list]: [...(rule[list] as object[]), (rule[list] as object[])[0]],
    }));
    write(route, { spec: twice['spec'] });
    expect(await failure(driver.current())).toMatchObject({
      kind: 'refused',
      message: expect.stringContaining(backends.east),
    });
  });
});

describe('a gateway', () => {
  it('is waited for until it has taken the change', async () => {
    seedRoutes(server.objects, httpRoute);
    const gateway = new GatewayController(server.objects);
    opened.push(gateway);
    const driver = open('httpRoute');
    gateway.isHeld = true;
    const change = await shift(driver, 50);
    expect(change.id).toBe('generation 2');
    expect(await driver.answers()).toEqual([
      { server: 'gateway public', values: [], error: 'it has seen generation 1, not yet 2' },
    ]);
    const late = await failure(driver.settled(change, AbortSignal.timeout(100)));
    expect(late).toMatchObject({
      kind: 'unreachable',
      retryable: true,
      message: expect.stringMatching(/generation 2.*all gateways.*seen generation 1/),
    });
    const settled = driver.settled(change);
    gateway.accept();
    await settled;
    expect(await driver.answers()).toEqual([{ server: 'gateway public', values: [backends.east, backends.west] }]);
  });

  it('that refuses the route is told in its words; one that the route has left is not asked', async () => {
    seedRoutes(server.objects, httpRoute);
    const refused = accepted(1, { status: 'False', reason: 'BackendNotFound', message: 'no Service orders-east' });
    const left = accepted(0)['parents'] as object[];
    const parents = [
      ...(refused['parents'] as object[]),
      ...left.map((each) => ({ ...each, parentRef: { name: 'old' } })),
    ];
    write(httpRoute, { status: { parents } }, 'controller', 'status');
    const driver = open('httpRoute');
    const [answer, ...more] = await driver.answers();
    expect(more).toEqual([]);
    expect(answer?.error).toBe('Accepted is False: BackendNotFound no Service orders-east');
    expect(await driver.doctor()).toContainEqual(
      expect.objectContaining({ ok: false, what: expect.stringContaining('BackendNotFound') }),
    );
  });

  it('that says nothing is doubted by the examination and not waited for', async () => {
    seedRoutes(server.objects, httpRoute);
    const driver = open('httpRoute');
    await driver.settled(await shift(driver, 100));
    expect(await driver.answers()).toEqual([{ server: 'HTTPRoute shop/orders', values: [backends.west] }]);
    expect(await driver.doctor()).toContainEqual(
      expect.objectContaining({ ok: false, severity: 'warning', what: expect.stringContaining('no gateway says') }),
    );
  });

  it('of Istio is waited for where istiod writes its status', async () => {
    seedRoutes(server.objects, virtualService);
    const driver = open('virtualService');
    const says = (status: object) => write(virtualService, { status }, 'pilot-discovery', 'status');
    says({ observedGeneration: '1', conditions: [{ type: 'Reconciled', status: 'True' }] });
    const change = await shift(driver, 100);
    expect((await driver.answers())[0]?.error).toBe('it has seen generation 1, not yet 2');
    says({
      observedGeneration: '2',
      conditions: [{ type: 'Reconciled', status: 'False', message: '3/4 proxies up to date.' }],
    });
    expect((await driver.answers())[0]?.error).toContain('3/4 proxies');
    says({ conditions: [{ type: 'Reconciled', status: 'True' }], validationMessages: [{ type: { code: 'IST0101' } }] });
    expect((await driver.answers())[0]?.error).toContain('IST0101');
    says({ validationMessages: null });
    await driver.settled(change);
    expect(await driver.answers()).toEqual([{ server: 'istiod', values: [backends.west] }]);
  });
});

describe('the examination', () => {
  const problems = async (driver: RouteTraffic) => (await driver.doctor()).filter(({ ok }) => !ok);

  it('names the missing right, and changes nothing', async () => {
    seedRoutes(server.objects, virtualService);
    const rules = [
      { apiGroups: ['networking.istio.io'], resources: ['virtualservices'], verbs: ['get'], namespace: 'shop' },
    ];
    server.accounts.set('reader-token', { name: 'reader', rules });
    const [found, ...more] = await problems(open('virtualService', {}, 'reader-token'));
    expect(more).toEqual([]);
    expect(found?.next).toContain(
      '{ apiGroups: ["networking.istio.io"], resources: ["virtualservices"], verbs: ["patch"]',
    );
    expect(stored(virtualService).metadata.generation).toBe(1);
  });

  it('says that there is no such route, or no such kind', async () => {
    seedRoutes(server.objects);
    expect(await problems(open('httpRoute'))).toEqual([
      expect.objectContaining({ what: expect.stringContaining('there is no HTTPRoute shop/orders') }),
    ]);
    const definition = server.objects.typeOf({
      apiVersion: 'apiextensions.k8s.io/v1',
      kind: 'CustomResourceDefinition',
    });
    server.objects.delete(definition, undefined, 'httproutes.gateway.networking.k8s.io');
    expect(await problems(open('httpRoute'))).toEqual([
      expect.objectContaining({
        what: expect.stringContaining('no kind HTTPRoute'),
        next: expect.stringContaining('definition'),
      }),
    ]);
  });

  it.each([
    ['argocd-controller', {}, /Argo CD manages.*argocd-controller owns spec.http/, /ignoreDifferences/],
    ['kustomize-controller', {}, /Flux manages/, /fence stage/],
    ['flagger', {}, /a rollout controller manages/, /routes of their own/],
    [
      'kubectl-create',
      { 'argocd.argoproj.io/tracking-id': 'orders:x' },
      /Argo CD manages.*its mark/,
      /ignoreDifferences/,
    ],
  ])('finds another manager of the weights: %s %j', async (manager, annotations, what, next) => {
    seedRoutes(server.objects);
    const object = { ...virtualService, metadata: { ...virtualService.metadata, annotations } };
    server.objects.apply(object, undefined, { manager });
    const driver = open('virtualService');
    expect(await problems(driver)).toEqual([
      { ok: false, severity: 'warning', what: expect.stringMatching(what), next: expect.stringMatching(next) },
    ]);
    // Once dr has changed the weights, their field is its own; a mark stays.
    await shift(driver, 100);
    expect(await problems(driver)).toHaveLength(Object.keys(annotations).length);
  });

  it('is at peace with a person who wrote the route, and tells when', async () => {
    seedRoutes(server.objects, virtualService);
    const driver = open('virtualService');
    expect(await problems(driver)).toEqual([]);
    expect((await driver.doctor()).map(({ what }) => what)).toContainEqual(
      expect.stringMatching(/kubectl-create wrote spec.http on 20.*would undo a redirect/),
    );
  });

  it('finds a backend of no site that gets traffic', async () => {
    const spec = withRule(virtualService, 'http', 1, (rule) => ({
      ...rule,
      route: [...(rule['route'] as object[]), { destination: { host: 'canary' }, weight: 5 }],
    }));
    seedRoutes(server.objects, spec);
    const driver = open('virtualService');
    expect(await problems(driver)).toEqual([
      expect.objectContaining({ severity: 'warning', what: expect.stringContaining('canary') }),
    ]);
    await shift(driver, 100);
    expect((await driver.current()).values).toEqual([backends.west]);
    expect(await problems(driver)).toEqual([]);
  });

  it('of an unreachable cluster ends with where it is', async () => {
    seedRoutes(server.objects, httpRoute);
    const driver = open('httpRoute');
    await server.stop();
    expect(await problems(driver)).toEqual([
      expect.objectContaining({ what: expect.stringMatching(/does not answer.*127\.0\.0\.1/) }),
    ]);
  });
});

it('is what the configuration opens, and needs a way to its cluster', async () => {
  const config = { name: 'orders', driver: routeConfig('httpRoute'), endpoints: backends, resolvers: undefined };
  const driver = openTraffic(config, silentLog);
  expect(driver).toMatchObject({ kind: 'httpRoute', target: 'HTTPRoute shop/orders rule all', shifting: 'gradual' });
  expect(await failure(driver.current())).toMatchObject({ kind: 'internal' });
  driver.close();
});
