import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DrError } from '../../../src/base/errors.ts';
import { silentLog } from '../../../src/base/log.ts';
import type { Cluster, ClusterObject } from '../../../src/cluster/contract.ts';
import { KubernetesCluster } from '../../../src/cluster/kubernetes.ts';
import { stepRights } from '../../../src/cluster/step-rights.ts';
import type { Config } from '../../../src/config/types.ts';
import { examineClusterSteps } from '../../../src/steps/cluster/doctor.ts';
import type { RunMode, StepContext } from '../../../src/steps/contract.ts';
import { stepRegistry } from '../../../src/steps/registry.ts';
import { settingsFor } from '../../cluster/support.ts';
import { Controllers, workload } from '../../harness/kubernetes/controllers.ts';
import type { Rule } from '../../harness/kubernetes/rbac.ts';
import { KubernetesServer } from '../../harness/kubernetes/server.ts';
import { FastClock } from '../../runbook/world.ts';
import { stepContext } from '../context.ts';

// Every step over HTTP against an API server with RBAC, as an account that has exactly the rights that the chart gives.

let server: KubernetesServer;
let controllers: Controllers;
let runbooks: string;
const opened: Cluster[] = [];

beforeEach(async () => {
  runbooks = await mkdtemp(join(tmpdir(), 'dr-runbooks-'));
  server = await KubernetesServer.start();
  for (const name of ['shop', 'flux-system', 'argocd'])
    server.objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } }, undefined);
  controllers = new Controllers(server.objects);
});
afterEach(async () => {
  controllers.isAlive = false;
  for (const cluster of opened.splice(0)) cluster.close();
  await server[Symbol.asyncDispose]();
  await rm(runbooks, { recursive: true });
});

function rulesOf(step: string): Rule[] {
  return (stepRights[step] ?? []).map(({ apiGroups, resources, verbs }) => ({
    apiGroups: [...apiGroups],
    resources: [...resources],
    verbs: [...verbs],
  }));
}

/** A context whose clusters are the server, seen with the rights of one kind of step. */
function contextFor(
  uses: string,
  each: string | undefined,
  { mode = 'failover' as RunMode, rules = rulesOf(uses), run = 'run-1' } = {},
): StepContext & { readonly notes: string[] } {
  const token = `token-${server.accounts.size}-of-somebody`;
  server.accounts.set(token, { name: `dr-${server.accounts.size}`, rules });
  const cluster = new KubernetesCluster(settingsFor(server, { token }), { log: silentLog });
  opened.push(cluster);
  const sites = ['east', 'west'];
  const entry = (kind: string, name: string, namespace = 'shop') => ({ entry: name, kind, namespace, name, sites });
  const none = { replicas: undefined, database: undefined, restore: undefined };
  const config = {
    workloads: {
      api: { ...entry('Deployment', 'api'), ...none },
      db: { ...entry('StatefulSet', 'db'), ...none },
      agent: { ...entry('DaemonSet', 'agent'), ...none },
    },
    gitops: {
      shop: entry('Application', 'shop', 'argocd'),
      apps: entry('Kustomization', 'apps', 'flux-system'),
      release: entry('HelmRelease', 'release', 'flux-system'),
    },
    objects: {},
    runbooks,
  } as unknown as Partial<Config>;
  const context = stepContext(config, { mode, clock: new FastClock() });
  return {
    ...context,
    each,
    run: { ...context.run, id: run },
    world: { ...context.world, cluster: async () => cluster },
  };
}

async function run(
  uses: string,
  each: string | undefined,
  params: object,
  options: Parameters<typeof contextFor>[2] = {},
) {
  const kind = stepRegistry.get(uses);
  if (!kind) throw new Error(uses);
  const context = contextFor(uses, each, options);
  const outputs = await kind.run(context, { ...params });
  return { outputs, notes: context.notes.join('\n'), undo: () => kind.undo(context, { ...params }, outputs) };
}

async function plan(uses: string, each: string | undefined, params: object) {
  const kind = stepRegistry.get(uses);
  if (!kind) throw new Error(uses);
  return await kind.plan(contextFor(uses, each), { ...params });
}

function create(object: ClusterObject, manager = 'kubectl-create'): void {
  server.objects.create(object, undefined, { manager });
}

function get(kind: string, name: string): ClusterObject | undefined {
  return server.objects.all().find((each) => each.kind === kind && each.metadata.name === name);
}

function setImage(kind: string, name: string, image: string): void {
  const type = server.objects.typeOf({ apiVersion: 'apps/v1', kind });
  const containers = [{ name: 'app', image }];
  server.objects.merge(type, 'shop', name, { spec: { template: { spec: { containers } } } }, { manager: 'ci' });
}

interface Template {
  readonly spec: { readonly containers: ReadonlyArray<{ readonly image: string }> };
}

function templateOf(kind: string, name: string): Template {
  const { template } = (get(kind, name)?.['spec'] ?? {}) as { template?: Template };
  if (template === undefined) throw new Error(`no ${kind} ${name}`);
  return template;
}

const imageOf = (kind: string, name: string) => templateOf(kind, name).spec.containers[0]?.image;

describe('workload.scale', () => {
  it('stops, keeps the number, and takes that back', async () => {
    create(workload('Deployment', 'api', { replicas: 3 }));
    await controllers.settled();
    const stopped = await run('workload.scale', 'api', { to: 0 });
    expect(stopped.outputs).toEqual({ reached: true, before: 3, after: 0 });
    expect(get('Deployment', 'api')).toMatchObject({
      spec: { replicas: 0 },
      metadata: { annotations: { 'dr.io/replicas': '3' } },
    });
    await stopped.undo();
    await stopped.undo();
    await controllers.settled();
    expect(get('Deployment', 'api')).toMatchObject({ spec: { replicas: 3 } });
    expect(get('Deployment', 'api')?.metadata.annotations ?? {}).toEqual({});
  });

  it('starts what was parked, once for all; another run does not take it back', async () => {
    const api = workload('Deployment', 'api', { replicas: 0 });
    create({ ...api, metadata: { ...api.metadata, annotations: { 'dr.io/replicas': '2' } } });
    expect((await run('workload.scale', 'api', { to: 'kept' })).outputs).toEqual({
      reached: true,
      before: 0,
      after: 2,
    });
    const again = await run('workload.scale', 'api', { to: 'kept' }, { run: 'run-2' });
    expect(again.outputs).toEqual({ reached: true, before: 2, after: 2 });
    await again.undo();
    expect(get('Deployment', 'api')).toMatchObject({ spec: { replicas: 2 } });
  });

  it('takes two changes of one run back to what was before the first', async () => {
    create(workload('Deployment', 'api', { replicas: 3 }));
    await controllers.settled();
    const first = await run('workload.scale', 'api', { to: 0 });
    const second = await run('workload.scale', 'api', { to: 5 });
    expect(second.outputs).toEqual({ reached: true, before: 3, after: 5 });
    await second.undo();
    await first.undo();
    expect(get('Deployment', 'api')).toMatchObject({ spec: { replicas: 3 } });
  });

  it('refuses to guess how many', async () => {
    create(workload('Deployment', 'api', { replicas: 0 }));
    await expect(run('workload.scale', 'api', { to: 'kept' })).rejects.toMatchObject({
      kind: 'refused',
      next: expect.stringContaining('Add "replicas" to workloads.api'),
    });
    const { problems } = await plan('workload.scale', 'api', { to: 'kept' });
    expect(problems[0]?.what).toContain('nothing says how many copies');
  });

  it('names who puts it back', async () => {
    create(workload('Deployment', 'api', { replicas: 3 }));
    await controllers.settled();
    const type = server.objects.typeOf({ apiVersion: 'apps/v1', kind: 'Deployment' });
    // An autoscaler that knows better, a moment later.
    const stop = server.objects.history.watch('apps/deployments', server.objects.history.revision, {
      onChange: ({ after }) => {
        if ((after?.['spec'] as { replicas: number } | undefined)?.replicas !== 0) return;
        setImmediate(() =>
          server.objects.merge(type, 'shop', 'api', { spec: { replicas: 3 } }, { manager: 'kustomize-controller' }),
        );
      },
      onBookmark: () => {},
    });
    controllers.stuck.add(get('Pod', podOf('api'))?.metadata.name ?? '');
    const error = await run('workload.scale', 'api', { to: 0 }).catch((reason: unknown) => reason);
    stop();
    expect(error).toMatchObject({ kind: 'conflict', retryable: true, next: expect.stringContaining('gitops.pause') });
  });

  it('says in the plan that GitOps owns the number of copies, or an operator the workload', async () => {
    create(workload('Deployment', 'api', { replicas: 3 }), 'kustomize-controller');
    const db = workload('StatefulSet', 'db');
    const ownerReferences = [
      { apiVersion: 'x.io/v1', kind: 'PostgresCluster', name: 'main', uid: 'u', controller: true },
    ];
    create({ ...db, metadata: { ...db.metadata, ownerReferences } });
    // A Kustomization is in the configuration, so it is taken for the one that is paused.
    expect((await plan('workload.scale', 'api', { to: 0 })).problems).toEqual([]);
    expect((await plan('workload.scale', 'db', { to: 0, of: 'all' })).problems[0]?.what).toContain(
      'belongs to PostgresCluster main',
    );
  });

  it('names the missing right, and what a DaemonSet is', async () => {
    create(workload('Deployment', 'api'));
    create(workload('DaemonSet', 'agent'));
    const rules = [{ apiGroups: ['apps'], resources: ['deployments'], verbs: ['get'] }];
    await expect(run('workload.scale', 'api', { to: 0 }, { rules })).rejects.toMatchObject({
      kind: 'denied',
      next: expect.stringContaining('resources: ["deployments"], verbs: ["patch"]'),
    });
    const both = [...rulesOf('workload.scale'), ...rulesOf('workload.rollout')];
    await expect(run('workload.scale', 'agent', { to: 0 }, { rules: both })).rejects.toMatchObject({ kind: 'refused' });
  });

  it('waits on while the API server restarts, and does not wait for one that never answered', async () => {
    create(workload('Deployment', 'api', { replicas: 3 }));
    await controllers.settled();
    const context = contextFor('workload.scale', 'api');
    const cluster = await context.world.cluster('west');
    const get = cluster.get.bind(cluster);
    const away = new DrError('unreachable', 'the API server does not answer', { where: 'x', next: 'x' });
    let looks = 0;
    cluster.get = async (ref, signal) => {
      // The first look is answered, and the next twenty are not.
      if (looks++ > 0 && looks < 22) throw away;
      return await get(ref, signal);
    };
    const kind = stepRegistry.get('workload.scale');
    expect(await kind?.run(context, { to: 0 })).toMatchObject({ after: 0 });
    looks = 1;
    await expect(kind?.run(context, { to: 'kept' })).rejects.toBe(away);
    looks = 1;
    expect(await kind?.run(context, { to: 'kept', ifUnreachable: 'go-on' })).toMatchObject({ reached: false });
  });

  it('changes nothing in a drill', async () => {
    create(workload('Deployment', 'api', { replicas: 3 }));
    await controllers.settled();
    const before = server.objects.history.revision;
    const { notes } = await run('workload.scale', 'api', { to: 0 }, { mode: 'drill' });
    expect(notes).toContain('would take 0 (dry run)');
    expect(server.objects.history.revision).toBe(before);
  });

  it('comes up in words when a pod cannot start', async () => {
    create(workload('Deployment', 'api', { replicas: 0, image: 'shop/api:broken' }));
    const kind = stepRegistry.get('workload.scale');
    const stop = new AbortController();
    const context = {
      ...contextFor('workload.scale', 'api'),
      signal: stop.signal,
      progress: ({ detail }: { detail?: string }) => {
        if (detail?.includes('ImagePullBackOff')) stop.abort(new Error('time is up'));
      },
    };
    await expect(kind?.run(context, { to: 1 })).rejects.toThrow();
    expect(context.notes.join()).toContain(
      'seen last: 0 of 1 ready, 1 of the newest template; app: ImagePullBackOff, no such image',
    );
  });
});

describe.each(['Deployment', 'StatefulSet', 'DaemonSet'] as const)('workload.rollout of a %s', (kind) => {
  const name = { Deployment: 'api', StatefulSet: 'db', DaemonSet: 'agent' }[kind];

  it('goes back to the template before, exactly, and once for a run', async () => {
    create(workload(kind, name, { image: 'shop/app:1' }));
    await controllers.settled();
    const type = server.objects.typeOf({ apiVersion: 'apps/v1', kind });
    const env = {
      metadata: { annotations: { build: '2' } },
      spec: { containers: [{ name: 'app', image: 'shop/app:2' }], priorityClassName: 'high' },
    };
    server.objects.merge(type, 'shop', name, { spec: { template: env } }, { manager: 'ci' });
    await controllers.settled();
    const template = JSON.stringify(templateOf(kind, name));
    const { will } = await plan('workload.rollout', name, { do: 'undo' });
    expect(will[0]).toContain('go back to revision 1');
    const back = await run('workload.rollout', name, { do: 'undo' });
    expect(back.outputs).toEqual({ reached: true, from: 2, to: 1 });
    expect(imageOf(kind, name)).toBe('shop/app:1');
    expect(templateOf(kind, name).spec).not.toHaveProperty('priorityClassName');
    expect((await run('workload.rollout', name, { do: 'undo' })).outputs).toEqual({ reached: true, from: 2, to: 1 });
    expect(imageOf(kind, name)).toBe('shop/app:1');
    await back.undo();
    expect(JSON.stringify(templateOf(kind, name))).toBe(template);
  });

  it('restarts once for a run', async () => {
    create(workload(kind, name));
    await controllers.settled();
    await run('workload.rollout', name, { do: 'restart' });
    const { generation } = get(kind, name)?.metadata ?? {};
    await run('workload.rollout', name, { do: 'restart' });
    expect(get(kind, name)?.metadata.generation).toBe(generation);
    await run('workload.rollout', name, { do: 'restart' }, { run: 'run-2' });
    expect(get(kind, name)?.metadata.generation).toBe((generation ?? 0) + 1);
  });
});

describe('workload.rollout', () => {
  it('goes back by one, or to the revision that is named', async () => {
    create(workload('Deployment', 'api', { image: 'shop/api:1' }));
    await controllers.settled();
    for (const image of ['shop/api:2', 'shop/api:3', 'shop/api:4', 'shop/api:5']) {
      setImage('Deployment', 'api', image);
      await controllers.settled();
    }
    expect((await run('workload.rollout', 'api', { do: 'undo' })).outputs).toMatchObject({ from: 5, to: 4 });
    expect(imageOf('Deployment', 'api')).toBe('shop/api:4');
    await controllers.settled();
    const named = await run('workload.rollout', 'api', { do: 'undo', revision: 2 }, { run: 'run-2' });
    expect(named.outputs).toMatchObject({ to: 2 });
    expect(imageOf('Deployment', 'api')).toBe('shop/api:2');
  });

  it('says that there is nothing to go back to', async () => {
    create(workload('Deployment', 'api'));
    await controllers.settled();
    await expect(run('workload.rollout', 'api', { do: 'undo' })).rejects.toMatchObject({
      kind: 'not-found',
      message: expect.stringContaining('there is no earlier revision'),
    });
  });

  it('waits for a rollout, and goes back from one that does not come up', async () => {
    create(workload('Deployment', 'api', { image: 'shop/api:1' }));
    await controllers.settled();
    setImage('Deployment', 'api', 'shop/api:broken');
    await controllers.settled();
    const type = { apiVersion: 'apps/v1', kind: 'Deployment', namespace: 'shop', name: 'api' };
    const status = get('Deployment', 'api')?.['status'] as object;
    controllers.isAlive = false;
    const gaveUp = {
      type: 'Progressing',
      status: 'False',
      reason: 'ProgressDeadlineExceeded',
      message: 'ReplicaSet "api" has timed out progressing.',
    };
    controllers.cluster.setStatus(type, { ...status, conditions: [gaveUp] });
    await expect(run('workload.rollout', 'api', { do: 'wait' })).rejects.toMatchObject({
      kind: 'check-failed',
      message: expect.stringMatching(/timed out progressing.*ImagePullBackOff, no such image/),
      next: expect.stringContaining('do: undo'),
    });
    controllers.isAlive = true;
    await run('workload.rollout', 'api', { do: 'undo' });
    expect(imageOf('Deployment', 'api')).toBe('shop/api:1');
  });
});

describe('object.apply', () => {
  const everything = [{ apiGroups: ['*'], resources: ['*'], verbs: ['*'] }];
  const limits = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'limits', namespace: 'shop' },
    data: { requests: '100' },
  };

  it('applies a file beside the runbooks, in order, and removes what it made', async () => {
    const manifest = `apiVersion: v1
kind: Namespace
metadata: { name: extra }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: limits }
data: { requests: "200" }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: first, namespace: extra }
data: { a: b }
`;
    await writeFile(join(runbooks, 'limits.yaml'), manifest);
    create({ ...limits, data: { other: '1' } });
    const kind = stepRegistry.get('object.apply');
    const params = { file: 'limits.yaml', namespace: 'shop' };
    const planned = await kind?.plan(contextFor('object.apply', undefined, { rules: everything }), params);
    expect(planned?.problems).toEqual([]);
    expect(planned?.will).toEqual(['create Namespace extra, ConfigMap extra/first', 'change ConfigMap shop/limits']);
    expect(get('Namespace', 'extra')).toBeUndefined();
    const { outputs, undo } = await run('object.apply', undefined, params, { rules: everything });
    expect(outputs).toMatchObject({
      created: ['Namespace extra', 'ConfigMap extra/first'],
      changed: ['ConfigMap shop/limits'],
    });
    const again = await run('object.apply', undefined, params, { rules: everything });
    expect(again.outputs).toMatchObject({ created: [], changed: [] });
    await undo();
    expect(get('Namespace', 'extra')).toBeUndefined();
    expect(get('ConfigMap', 'limits')).toMatchObject({ data: { requests: '200', other: '1' } });
  });

  it('names the owner of a contested field, applies the rest, and takes it only by force', async () => {
    create({ ...limits, metadata: { ...limits.metadata } }, 'argocd-controller');
    const wanted = { ...limits, data: { requests: '500' } };
    const other = { ...limits, metadata: { name: 'other', namespace: 'shop' } };
    const options = { rules: everything };
    await expect(run('object.apply', undefined, { objects: [wanted, other] }, options)).rejects.toMatchObject({
      kind: 'conflict',
      message: expect.stringContaining('.data.requests belongs to argocd-controller'),
    });
    expect(get('ConfigMap', 'limits')).toMatchObject({ data: { requests: '100' } });
    expect(get('ConfigMap', 'other')).toBeDefined();
    await run('object.apply', undefined, { objects: [wanted], force: true }, options);
    expect(get('ConfigMap', 'limits')).toMatchObject({ data: { requests: '500' } });
  });

  it.each([
    [{ file: '../secrets.yaml' }, 'does not lie in the folder'],
    [{ file: 'none.yaml' }, 'none.yaml'],
    [
      { objects: [{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'x' } }] },
      'a Secret has no place in a runbook',
    ],
    [
      { objects: [{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'x', uid: 'u' }, status: {} }] },
      'remove metadata.uid, status',
    ],
    [{}, 'needs either "file" or "objects"'],
  ])('refuses %j', async (params, reason) => {
    const error = await run('object.apply', undefined, params, { rules: everything }).catch(
      (failure: Error & { where?: string }) => failure,
    );
    expect(`${(error as Error).message} ${(error as { where?: string }).where}`).toContain(reason);
  });

  it('waits until a kind that it has just defined is served', async () => {
    const definition = (group: string) => ({
      apiVersion: 'apiextensions.k8s.io/v1',
      kind: 'CustomResourceDefinition',
      metadata: { name: `widgets.${group}` },
      spec: {
        group,
        scope: 'Namespaced',
        names: { kind: 'Widget', plural: 'widgets' },
        versions: [{ name: 'v1', served: true, storage: true }],
      },
    });
    const widget = { apiVersion: 'x.io/v1', kind: 'Widget', metadata: { name: 'one', namespace: 'shop' } };
    const { outputs } = await run(
      'object.apply',
      undefined,
      { objects: [definition('x.io'), widget] },
      { rules: everything },
    );
    expect(outputs).toMatchObject({ created: ['CustomResourceDefinition widgets.x.io', 'Widget shop/one'] });
  });
});

function define(group: string, kind: string, version: string): void {
  create({
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${kind.toLowerCase()}s.${group}` },
    spec: {
      group,
      scope: 'Namespaced',
      names: { kind, plural: `${kind.toLowerCase()}s` },
      versions: [{ name: version, served: true, storage: true }],
    },
  });
}

describe.each([
  ['Kustomization', 'apps', 'kustomize.toolkit.fluxcd.io/v1'],
  ['HelmRelease', 'release', 'helm.toolkit.fluxcd.io/v2beta2'],
] as const)('gitops.pause of a %s of Flux', (kind, name, apiVersion) => {
  const [group = '', version = ''] = apiVersion.split('/');
  const object = { apiVersion, kind, metadata: { name, namespace: 'flux-system' }, spec: { interval: '10m' } };
  const spec = () => get(kind, name)?.['spec'] as { suspend?: boolean } | undefined;

  it('suspends it, sees that it does nothing, and lets it go on', async () => {
    define(group, kind, version);
    create(object);
    const paused = await run('gitops.pause', name, {});
    expect(paused.outputs).toEqual({ reached: true, changed: true });
    expect(paused.notes).toMatch(/was paused by run run-1; it did nothing for 1\d s/);
    expect(spec()?.suspend).toBe(true);
    // Another run finds it paused, and does not let it go on when it is taken back.
    const second = await run('gitops.pause', name, {}, { run: 'run-2' });
    expect(second.outputs).toEqual({ reached: true, changed: false });
    await second.undo();
    expect(spec()?.suspend).toBe(true);
    expect((await run('gitops.resume', name, {})).outputs).toEqual({ reached: true, changed: true });
    expect(spec()?.suspend).toBe(false);
    expect((await run('gitops.resume', name, {})).outputs).toEqual({ reached: true, changed: false });
  });

  it('waits until what it was doing is over', async () => {
    define(group, kind, version);
    create(object);
    const ref = { apiVersion, kind, namespace: 'flux-system', name };
    controllers.cluster.setStatus(ref, {
      conditions: [{ type: 'Reconciling', status: 'True', message: 'building manifests' }],
    });
    const step = stepRegistry.get('gitops.pause');
    let seen = '';
    const context = {
      ...contextFor('gitops.pause', name),
      progress: ({ detail = '' }) => {
        if (!detail.includes('under way') || seen !== '') return;
        seen = detail;
        controllers.cluster.setStatus(ref, { conditions: [{ type: 'Ready', status: 'True' }] });
      },
    };
    expect(await step?.run(context, {})).toEqual({ reached: true, changed: true });
    expect(seen).toContain('building manifests');
  });

  it('leaves alone what a person has suspended', async () => {
    define(group, kind, version);
    create({ ...object, spec: { interval: '10m', suspend: true } });
    const { outputs, undo } = await run('gitops.pause', name, {});
    expect(outputs).toEqual({ reached: true, changed: false });
    await undo();
    await run('gitops.resume', name, {});
    expect(spec()?.suspend).toBe(true);
  });

  it('asks by a dry run only in a drill', async () => {
    define(group, kind, version);
    create(object);
    const before = server.objects.history.revision;
    expect((await run('gitops.pause', name, {}, { mode: 'drill' })).outputs).toEqual({ reached: true, changed: false });
    expect(server.objects.history.revision).toBe(before);
  });
});

describe('gitops.pause of an Application of Argo CD', () => {
  const automated = { prune: true, selfHeal: true };
  const application = (metadata: object = {}, name = 'shop') => ({
    apiVersion: 'argoproj.io/v1alpha1',
    kind: 'Application',
    metadata: { name, namespace: 'argocd', ...metadata },
    spec: { project: 'default', syncPolicy: { automated, syncOptions: ['CreateNamespace=true'] } },
  });
  const policy = () => (get('Application', 'shop')?.['spec'] as { syncPolicy: object } | undefined)?.syncPolicy;

  it('keeps the sync policy and puts it back as it was', async () => {
    define('argoproj.io', 'Application', 'v1alpha1');
    create(application());
    const { notes, undo } = await run('gitops.pause', 'shop', {});
    expect(notes).toContain('its controller has looked at it since');
    expect(policy()).toEqual({ syncOptions: ['CreateNamespace=true'] });
    await undo();
    expect(policy()).toEqual({ automated, syncOptions: ['CreateNamespace=true'] });
    expect(get('Application', 'shop')?.metadata.annotations ?? {}).toEqual({});
  });

  it('does not believe a pause that its controller has not seen', async () => {
    define('argoproj.io', 'Application', 'v1alpha1');
    create(application());
    await controllers.settled();
    controllers.isAlive = false;
    const stop = new AbortController();
    const context = {
      ...contextFor('gitops.pause', 'shop'),
      signal: stop.signal,
      progress: () => stop.abort(new Error('time is up')),
    };
    await expect(stepRegistry.get('gitops.pause')?.run(context, {})).rejects.toThrow();
    expect(context.notes.join()).toContain('its controller has not looked at it since the change');
  });

  it.each([
    [{}, true],
    [{ syncPolicy: { applicationsSync: 'create-only' } }, false],
    [{ ignoreApplicationDifferences: [{ jsonPointers: ['/spec/syncPolicy'] }] }, false],
    [{ ignoreApplicationDifferences: [{ jqPathExpressions: ['.spec.syncPolicy.automated'] }] }, false],
    [{ ignoreApplicationDifferences: [{ jsonPointers: ['/spec/source/targetRevision'] }] }, true],
  ])('refuses one whose ApplicationSet %j would put it back: %s', async (spec, isRefused) => {
    define('argoproj.io', 'Application', 'v1alpha1');
    define('argoproj.io', 'ApplicationSet', 'v1alpha1');
    create({
      apiVersion: 'argoproj.io/v1alpha1',
      kind: 'ApplicationSet',
      metadata: { name: 'shops', namespace: 'argocd' },
      spec,
    });
    create(
      application({
        ownerReferences: [{ apiVersion: 'argoproj.io/v1alpha1', kind: 'ApplicationSet', name: 'shops', uid: 'u' }],
      }),
    );
    const outcome = run('gitops.pause', 'shop', {});
    if (!isRefused) return expect((await outcome).outputs).toMatchObject({ changed: true });
    await expect(outcome).rejects.toMatchObject({
      kind: 'refused',
      message: expect.stringContaining('ApplicationSet shops'),
      next: expect.stringContaining('ignoreApplicationDifferences'),
    });
    expect(policy()).toMatchObject({ automated });
    expect((await plan('gitops.pause', 'shop', {})).problems).toHaveLength(1);
  });

  it('is paused after the parent that heals it', async () => {
    define('argoproj.io', 'Application', 'v1alpha1');
    create(application({}, 'all'));
    create(
      application({ annotations: { 'argocd.argoproj.io/tracking-id': 'all:argoproj.io/Application:argocd/shop' } }),
    );
    const context = contextFor('gitops.pause', 'shop');
    const parent = { entry: 'all', kind: 'Application', namespace: 'argocd', name: 'all', sites: ['east', 'west'] };
    Object.assign(context.world.config.gitops, { all: parent });
    const order: string[] = [];
    const waiting = {
      ...context,
      progress: ({ detail = '' }) => {
        if (!detail.includes('which heals it, is not paused yet') || order.length > 0) return;
        order.push(`shop ${JSON.stringify(policy())}`);
        const type = server.objects.typeOf({ apiVersion: 'argoproj.io/v1alpha1', kind: 'Application' });
        server.objects.merge(type, 'argocd', 'all', { spec: { syncPolicy: { automated: null } } }, { manager: 'dr' });
      },
    };
    await stepRegistry.get('gitops.pause')?.run(waiting, {});
    expect(order).toEqual([expect.stringContaining('"selfHeal":true')]);
    expect(policy()).not.toHaveProperty('automated');
  });

  it('refuses one that a parent heals which nobody pauses', async () => {
    define('argoproj.io', 'Application', 'v1alpha1');
    create(application({}, 'all'));
    const tracking = { 'argocd.argoproj.io/tracking-id': 'all:argoproj.io/Application:argocd/shop' };
    create(application({ annotations: tracking }));
    await expect(run('gitops.pause', 'shop', {})).rejects.toMatchObject({
      kind: 'refused',
      next: expect.stringContaining('Name all under "gitops"'),
    });
  });

  it('says when the cluster has no Argo CD', async () => {
    await expect(run('gitops.pause', 'shop', {})).rejects.toMatchObject({ kind: 'not-found' });
  });
});

describe('the doctor', () => {
  const look = async (rules: Rule[], role: 'active' | 'recovery' | 'other' = 'recovery') => {
    const context = contextFor('doctor', undefined, { rules });
    const cluster = await context.world.cluster('west');
    const { config } = context.world;
    return await examineClusterSteps({ cluster, config, site: 'west', role, signal: context.signal });
  };

  it('finds nothing to mend where everything is there and allowed', async () => {
    create(workload('Deployment', 'api', { replicas: 3 }));
    create(workload('StatefulSet', 'db', { replicas: 1 }));
    create(workload('DaemonSet', 'agent'));
    define('argoproj.io', 'Application', 'v1alpha1');
    define('kustomize.toolkit.fluxcd.io', 'Kustomization', 'v1');
    define('helm.toolkit.fluxcd.io', 'HelmRelease', 'v2beta2');
    create({
      apiVersion: 'argoproj.io/v1alpha1',
      kind: 'Application',
      metadata: { name: 'shop', namespace: 'argocd' },
    });
    for (const [kind, name, apiVersion] of [
      ['Kustomization', 'apps', 'kustomize.toolkit.fluxcd.io/v1'],
      ['HelmRelease', 'release', 'helm.toolkit.fluxcd.io/v2beta2'],
    ] as const)
      create({ apiVersion, kind, metadata: { name, namespace: 'flux-system' } });
    const steps = ['workload.scale', 'workload.rollout', 'gitops.pause'];
    const findings = await look(steps.flatMap(rulesOf));
    expect(findings.filter(({ verdict }) => verdict !== 'ok')).toEqual([]);
    expect(findings.map(({ what }) => what)).toContain('Deployment shop/api is there and wants 3');
  });

  it('names what is missing, with the rule to add', async () => {
    const api = workload('Deployment', 'api');
    create(api);
    const rules = [{ apiGroups: ['apps'], resources: ['deployments', 'statefulsets', 'daemonsets'], verbs: ['get'] }];
    const findings = await look(rules);
    const told = findings.map(({ what, next }) => `${what}: ${next}`).join('\n');
    expect(told).toContain(
      'dr may not patch deployments in the namespace shop: Add the rule { apiGroups: ["apps"], resources: ["deployments"], verbs: ["patch"] }',
    );
    expect(told).toContain('dr may not list pods');
    expect(told).toContain('StatefulSet shop/db is not there');
    expect(told).toContain('the cluster has no kind Application');
  });

  it('asks at the active site for no rights that only a recovery needs', async () => {
    create(workload('Deployment', 'api'));
    const rules = [{ apiGroups: ['apps'], resources: ['deployments', 'statefulsets', 'daemonsets'], verbs: ['get'] }];
    const told = (await look(rules, 'active')).map(({ verdict, what }) => `${verdict} ${what}`);
    expect(told.filter((line) => line.includes('dr may'))).toEqual([
      'ok whether dr may change it is not asked: it need not while west is active, only for a failback',
    ]);
    expect(told).toContainEqual(expect.stringMatching(/^fail StatefulSet shop\/db is not there/));
  });

  it('says beforehand that nobody knows how many copies an application has', async () => {
    create(workload('Deployment', 'api', { replicas: 0 }));
    const rules = rulesOf('workload.scale');
    const unknown = expect.objectContaining({
      verdict: 'fail',
      what: expect.stringContaining('nothing says how many copies of api there should be'),
      next: expect.stringContaining('Add "replicas" to workloads.api'),
    });
    expect(await look(rules)).toContainEqual(unknown);
    expect(await look(rules, 'active')).not.toContainEqual(unknown);
  });
});

const podOf = (app: string) =>
  server.objects.all().find(({ kind, metadata }) => kind === 'Pod' && metadata.labels?.['app'] === app)?.metadata
    .name ?? '';
