import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Cluster, ClusterObject, ObjectRef, WatchEvent } from '../../src/cluster/contract.ts';
import { fieldConflicts, isExpired } from '../../src/cluster/errors.ts';
import { type Followed, follow } from '../../src/cluster/follow.ts';
import type { Rule } from '../harness/kubernetes/rbac.ts';

/** One cluster with a namespace of its own to write to. */
export interface ClusterFixture extends AsyncDisposable {
  /** A new client that may do everything in the namespace, and read the whole cluster. */
  open(): Cluster;
  /** A client that may do only this. */
  openAs(rules: readonly Rule[]): Promise<Cluster>;
  readonly namespace: string;
  /** Lets the server forget all past versions; absent where it is not ours. */
  readonly forget?: () => void;
  /** Lets the server send a bookmark to every watch; absent where it does so by itself, about every minute. */
  readonly bookmark?: () => void;
}

const configMaps = { apiVersion: 'v1', kind: 'ConfigMap' };

/** What every cluster driver promises (`src/cluster/contract.ts`), tried on a real one. Needs an API server with RBAC; no pod has to run. */
export function clusterConformance(name: string, start: () => Promise<ClusterFixture>): void {
  describe(`cluster contract: ${name}`, () => {
    let fixture: ClusterFixture;
    let cluster: Cluster;
    let rival: Cluster;
    const clients: Cluster[] = [];

    beforeEach(async () => {
      fixture = await start();
      cluster = fixture.open();
      rival = fixture.open();
    });

    afterEach(async () => {
      for (const client of [cluster, rival, ...clients.splice(0)]) client.close();
      await fixture[Symbol.asyncDispose]();
    });

    const settings = (name: string, data: Record<string, string> = { a: '1' }, labels = {}): ClusterObject => {
      return { ...configMaps, metadata: { name, namespace: fixture.namespace, labels }, data };
    };
    const ref = (name: string): ObjectRef => ({ ...configMaps, namespace: fixture.namespace, name });
    const failure = (work: Promise<unknown>) => work.then(() => undefined).catch((error: unknown) => error);
    const as = async (...rules: Rule[]) => {
      const client = await fixture.openAs(rules);
      clients.push(client);
      return client;
    };

    it('tells its version and its kinds, each once', async () => {
      const version = await cluster.version();
      expect(version).toMatchObject({ git: expect.stringMatching(/^v\d/), major: 1 });
      expect(version.minor).toBeGreaterThan(20);
      const { types } = await cluster.discover();
      const find = (kind: string) => types.filter((type) => type.kind === kind && !type.group.includes('.'));
      expect(find('ConfigMap')).toMatchObject([{ group: '', version: 'v1', plural: 'configmaps', namespaced: true }]);
      expect(find('Namespace')).toMatchObject([{ apiVersion: 'v1', namespaced: false }]);
      expect(find('Deployment')).toMatchObject([{ apiVersion: 'apps/v1', group: 'apps', plural: 'deployments' }]);
      expect(find('Deployment')[0]?.subresources).toEqual(expect.arrayContaining(['scale', 'status']));
      expect(find('ConfigMap')[0]?.verbs).toEqual(expect.arrayContaining(['get', 'list', 'watch', 'patch', 'delete']));
      const names = types.map(({ group, plural }) => `${group}/${plural}`);
      expect(new Set(names).size).toBe(names.length);
    });

    it('says which kind it does not have', async () => {
      const error = await failure(cluster.list({ apiVersion: 'nowhere.example.com/v1', kind: 'Widget' }));
      expect(error).toMatchObject({ kind: 'not-found', retryable: false });
      expect(String(error)).toContain('Widget in nowhere.example.com/v1');
    });

    it('makes an object once, and says so to whoever makes it again', async () => {
      const made = await cluster.create(settings('orders'));
      expect(made).toMatchObject({ ...configMaps, data: { a: '1' } });
      expect(made.metadata).toMatchObject({ name: 'orders', namespace: fixture.namespace, uid: expect.any(String) });
      expect(await rival.get(ref('orders'))).toEqual(made);
      const error = await failure(rival.create(settings('orders', { a: '2' })));
      expect(error).toMatchObject({ kind: 'conflict', retryable: false });
      expect(String(error)).toContain(`ConfigMap ${fixture.namespace}/orders`);
      expect(await cluster.get(ref('orders'))).toEqual(made);
    });

    it('names what is not there: an object, a namespace', async () => {
      const works = [
        () => cluster.get(ref('none')),
        () => cluster.merge(ref('none'), {}),
        () => cluster.delete(ref('none')),
      ];
      for (const work of works) {
        const error = await failure(work());
        expect(error).toMatchObject({ kind: 'not-found' });
        expect(String(error)).toContain(`ConfigMap ${fixture.namespace}/none`);
      }
      const nowhere = { ...settings('orders'), metadata: { name: 'orders', namespace: 'dr-test-nowhere' } };
      expect(await failure(cluster.create(nowhere))).toMatchObject({ kind: 'not-found' });
    });

    it('refuses what the server calls invalid, in its words', async () => {
      const error = await failure(cluster.create(settings('Not A Name')));
      expect(error).toMatchObject({ kind: 'refused', retryable: false });
      expect(String(error)).toContain('metadata.name');
    });

    it('lists in pages of one moment, whatever happens in between', async () => {
      for (const i of [1, 2, 3, 4, 5, 6, 7]) await cluster.create(settings(`page-${i}`, {}, { test: 'pages' }));
      const query = { namespace: fixture.namespace, labels: 'test=pages', limit: 3 };
      const first = await cluster.list(configMaps, query);
      await rival.delete(ref('page-7'));
      await rival.create(settings('page-8', {}, { test: 'pages' }));
      const names: string[] = [];
      const sizes: number[] = [];
      for (let page = first; ; ) {
        for (const object of page.objects) {
          expect(object).toMatchObject(configMaps);
          names.push(object.metadata.name);
        }
        sizes.push(page.objects.length);
        expect(page.resourceVersion).toBe(first.resourceVersion);
        if (page.continue === undefined) break;
        page = await cluster.list(configMaps, { ...query, continue: page.continue });
      }
      expect(sizes).toEqual([3, 3, 1]);
      expect(names.sort()).toEqual([1, 2, 3, 4, 5, 6, 7].map((i) => `page-${i}`));
    });

    it('selects by label, field and namespace', async () => {
      await cluster.create(settings('one', {}, { app: 'orders', tier: 'web' }));
      await cluster.create(settings('two', {}, { app: 'orders' }));
      await cluster.create(settings('three', {}, { app: 'stock' }));
      const names = async (query: object) =>
        (await cluster.list(configMaps, { namespace: fixture.namespace, ...query })).objects
          .map(({ metadata }) => metadata.name)
          .filter((each) => each !== 'kube-root-ca.crt');
      expect(await names({ labels: 'app=orders' })).toEqual(['one', 'two']);
      expect(await names({ labels: 'app in (orders, stock),tier!=web' })).toEqual(['three', 'two']);
      expect(await names({ labels: '!tier,app' })).toEqual(['three', 'two']);
      expect(await names({ fields: 'metadata.name=three' })).toEqual(['three']);
      const everywhere = await cluster.list(configMaps, { labels: 'app=stock' });
      expect(everywhere.objects.map(({ metadata }) => metadata.namespace)).toEqual([fixture.namespace]);
    });

    it('applies: makes, changes, takes away what it no longer names, and leaves the rest', async () => {
      const made = await cluster.apply(settings('orders', { a: '1', b: '2' }));
      expect(made['data']).toEqual({ a: '1', b: '2' });
      expect(made.metadata.managedFields).toMatchObject([{ manager: 'dr', operation: 'Apply' }]);
      await rival.merge(ref('orders'), { data: { theirs: 'x' } }, { manager: 'somebody' });
      const after = await cluster.apply(settings('orders', { a: '3' }));
      expect(after['data']).toEqual({ a: '3', theirs: 'x' });
      const again = await cluster.apply(settings('orders', { a: '3' }));
      expect(again.metadata.resourceVersion).toBe(after.metadata.resourceVersion);
    });

    it('names the manager and the field when an apply would take them, and takes them by force', async () => {
      await rival.apply(settings('orders', { a: '1', b: '2' }), { manager: 'argocd-controller' });
      const error = await failure(cluster.apply(settings('orders', { a: '9', b: '2' })));
      expect(error).toMatchObject({ kind: 'conflict', retryable: false, next: expect.stringContaining('GitOps') });
      expect(fieldConflicts(error)).toEqual([{ manager: 'argocd-controller', field: '.data.a' }]);
      expect(String(error)).toContain('.data.a belongs to argocd-controller');
      expect((await cluster.get(ref('orders')))['data']).toEqual({ a: '1', b: '2' });
      const taken = await cluster.apply(settings('orders', { a: '9', b: '2' }), { force: true });
      expect(taken['data']).toEqual({ a: '9', b: '2' });
      expect(
        fieldConflicts(await failure(rival.apply(settings('orders', { a: '1' }), { manager: 'argocd-controller' }))),
      ).toEqual([{ manager: 'dr', field: '.data.a' }]);
    });

    it('tries without storing anything', async () => {
      const before = await cluster.create(settings('orders'));
      expect((await cluster.apply(settings('orders', { a: '2' }), { dryRun: true, force: true }))['data']).toEqual({
        a: '2',
      });
      expect((await cluster.merge(ref('orders'), { data: { b: '1' } }, { dryRun: true }))['data']).toEqual({
        a: '1',
        b: '1',
      });
      await cluster.delete(ref('orders'), { dryRun: true });
      await cluster.create(settings('other'), { dryRun: true });
      expect(await cluster.get(ref('orders'))).toEqual(before);
      expect(await failure(cluster.get(ref('other')))).toMatchObject({ kind: 'not-found' });
    });

    it('merges: null takes away, all else stays', async () => {
      await cluster.create(settings('orders', { a: '1', b: '2' }, { app: 'orders' }));
      const change = { data: { a: null, c: '3' }, metadata: { annotations: { note: 'x' } } };
      const after = await cluster.merge(ref('orders'), change);
      expect(after['data']).toEqual({ b: '2', c: '3' });
      expect(after.metadata).toMatchObject({ labels: { app: 'orders' }, annotations: { note: 'x' } });
      expect(after.metadata.managedFields?.map(({ manager }) => manager)).toEqual(['dr']);
    });

    it('replaces only the version that the caller knew', async () => {
      const known = await cluster.create(settings('orders'));
      const resourceVersion = known.metadata.resourceVersion ?? '';
      const now = await rival.merge(ref('orders'), { data: { a: '2' } });
      const stale = [
        () => cluster.merge(ref('orders'), { data: { a: '3' }, metadata: { resourceVersion } }),
        () =>
          cluster.apply(
            { ...settings('orders', { a: '3' }), metadata: { ...ref('orders'), resourceVersion } as never },
            { force: true },
          ),
        () => cluster.delete(ref('orders'), { resourceVersion }),
        () => cluster.delete(ref('orders'), { uid: '11111111-2222-3333-4444-555555555555' }),
      ];
      for (const work of stale) {
        const error = await failure(work());
        expect(error).toMatchObject({ kind: 'conflict', retryable: false });
        expect(fieldConflicts(error)).toEqual([]);
      }
      expect(await cluster.get(ref('orders'))).toEqual(now);
    });

    it('lets one of many writers that saw the same version succeed', async () => {
      const { metadata } = await cluster.create(settings('orders'));
      const { resourceVersion } = metadata;
      const outcomes = await Promise.allSettled(
        Array.from({ length: 8 }, (_, i) =>
          cluster.merge(ref('orders'), { data: { a: `by ${i}` }, metadata: { resourceVersion } }),
        ),
      );
      const winners = outcomes.flatMap((outcome, i) => (outcome.status === 'fulfilled' ? [`by ${i}`] : []));
      expect(winners).toHaveLength(1);
      expect((await cluster.get(ref('orders')))['data']).toEqual({ a: winners[0] });
    });

    it('deletes, and says what is held back by a finalizer', async () => {
      await cluster.create(settings('plain'));
      expect(await cluster.delete(ref('plain'))).toBe('gone');
      expect(await failure(cluster.get(ref('plain')))).toMatchObject({ kind: 'not-found' });
      const held = settings('held');
      await cluster.create({ ...held, metadata: { ...held.metadata, finalizers: ['dr.example.com/test'] } });
      expect(await cluster.delete(ref('held'))).toBe('leaving');
      expect((await cluster.get(ref('held'))).metadata.deletionTimestamp).toEqual(expect.any(String));
      await cluster.merge(ref('held'), { metadata: { finalizers: null } });
      expect(await failure(cluster.get(ref('held')))).toMatchObject({ kind: 'not-found' });
    });

    it('scales a workload, replacing only the scale that the caller knew', async () => {
      const workload = { apiVersion: 'apps/v1', kind: 'Deployment' };
      const place = { ...workload, namespace: fixture.namespace, name: 'orders' };
      const labels = { app: 'orders' };
      await cluster.create({
        ...workload,
        metadata: { name: 'orders', namespace: fixture.namespace },
        spec: {
          replicas: 2,
          selector: { matchLabels: labels },
          template: {
            metadata: { labels },
            spec: { containers: [{ name: 'pause', image: 'registry.k8s.io/pause:3.10' }] },
          },
        },
      });
      const before = await cluster.scale(place);
      expect(before).toMatchObject({ replicas: 2, running: expect.any(Number), selector: 'app=orders' });
      expect(await cluster.setScale(place, 0)).toMatchObject({ replicas: 0 });
      expect(await rival.scale(place)).toMatchObject({ replicas: 0 });
      expect(await failure(cluster.setScale(place, 5, { replaces: before }))).toMatchObject({ kind: 'conflict' });
      expect(await cluster.scale(place)).toMatchObject({ replicas: 0 });
      expect((await cluster.get(place))['spec']).toMatchObject({ replicas: 0, selector: { matchLabels: labels } });
      await cluster.create(settings('none'));
      expect(await failure(cluster.scale(ref('none')))).toMatchObject({ kind: 'not-found' });
    });

    it('names the rule that is missing, and answers what is allowed', async () => {
      await cluster.create(settings('orders'));
      const { namespace } = fixture;
      const reader = await as({ apiGroups: [''], resources: ['configmaps'], verbs: ['get'], namespace });
      expect((await reader.get(ref('orders'))).metadata.name).toBe('orders');
      const denied = [
        {
          work: () => reader.list(configMaps, { namespace }),
          rule: `{ apiGroups: [""], resources: ["configmaps"], verbs: ["list"] } in a Role in the namespace ${namespace}`,
        },
        {
          work: () => reader.list(configMaps),
          rule: '{ apiGroups: [""], resources: ["configmaps"], verbs: ["list"] } in a ClusterRole',
        },
        { work: () => reader.merge(ref('orders'), {}), rule: 'verbs: ["patch"], resourceNames: ["orders"]' },
        { work: () => reader.create(settings('new')), rule: 'verbs: ["create"] } in a Role' },
        {
          work: () => reader.scale({ apiVersion: 'apps/v1', kind: 'Deployment', namespace, name: 'orders' }),
          rule: '{ apiGroups: ["apps"], resources: ["deployments/scale"], verbs: ["get"]',
        },
        { work: () => next(reader.watch(configMaps, { namespace, resourceVersion: '0' })), rule: 'verbs: ["watch"]' },
      ];
      for (const { work, rule } of denied) {
        const error = await failure(work());
        expect(error).toMatchObject({ kind: 'denied', retryable: false, next: expect.stringContaining(rule) });
      }
      const about = { ...configMaps, namespace };
      expect(await reader.allows({ ...about, verb: 'get' })).toBe(true);
      expect(await reader.allows({ ...about, verb: 'patch' })).toBe(false);
      expect(await reader.allows({ ...configMaps, verb: 'get', namespace: 'default' })).toBe(false);
      expect(await cluster.allows({ ...about, verb: 'patch', name: 'orders' })).toBe(true);
    });

    it('tells changes in order, from the moment of a list on', async () => {
      await cluster.create(settings('before', { a: '1' }, { test: 'watch' }));
      const query = { namespace: fixture.namespace, labels: 'test=watch' };
      const { resourceVersion } = await cluster.list(configMaps, query);
      await rival.create(settings('orders', { a: '1' }, { test: 'watch' }));
      const stop = new AbortController();
      const events = cluster.watch(configMaps, { ...query, resourceVersion }, stop.signal)[Symbol.asyncIterator]();
      const told = async () => shown((await events.next()).value);
      expect(await told()).toBe('added orders 1');
      await rival.merge(ref('orders'), { data: { a: '2' } });
      await rival.create(settings('unseen'));
      await rival.merge(ref('orders'), { metadata: { labels: { test: 'other' } } });
      await rival.merge(ref('orders'), { metadata: { labels: { test: 'watch' } } });
      await rival.delete(ref('orders'));
      expect(await told()).toBe('modified orders 2');
      expect(await told()).toBe('deleted orders 2');
      expect(await told()).toBe('added orders 2');
      expect(await told()).toBe('deleted orders 2');
      const waiting = failure(Promise.resolve(events.next()));
      stop.abort();
      expect(await waiting).toMatchObject({ kind: 'interrupted' });
    });

    it('ends a watch after the time that was asked for', async () => {
      const { resourceVersion } = await cluster.list(configMaps, { namespace: fixture.namespace });
      const query = { namespace: fixture.namespace, resourceVersion, timeoutSeconds: 1 };
      const events: WatchEvent[] = [];
      for await (const event of cluster.watch(configMaps, query)) events.push(event);
      expect(events.filter(({ type }) => type !== 'bookmark')).toEqual([]);
    });

    it('tells by bookmarks how far a quiet watch has come', async (test) => {
      test.skip(fixture.bookmark === undefined, 'needs a server whose bookmarks can be asked for');
      const { resourceVersion } = await cluster.list(configMaps, { namespace: fixture.namespace });
      const events = cluster.watch(configMaps, { labels: 'test=quiet', resourceVersion })[Symbol.asyncIterator]();
      await rival.create(settings('seen', {}, { test: 'quiet' }));
      expect(shown((await events.next()).value)).toBe('added seen ');
      const other = await rival.create(settings('unseen'));
      fixture.bookmark?.();
      expect((await events.next()).value).toEqual({
        type: 'bookmark',
        resourceVersion: other.metadata.resourceVersion,
      });
      await events.return?.();
    });

    it('says of a moment that is forgotten that it has expired', async (test) => {
      test.skip(fixture.forget === undefined, 'needs a server that can be made to forget');
      for (const i of [1, 2, 3]) await cluster.create(settings(`page-${i}`));
      const page = await cluster.list(configMaps, { namespace: fixture.namespace, limit: 1 });
      fixture.forget?.();
      const { resourceVersion } = page;
      const tooOld = await failure(next(cluster.watch(configMaps, { namespace: fixture.namespace, resourceVersion })));
      expect(isExpired(tooOld)).toBe(true);
      const lost = await failure(cluster.list(configMaps, { namespace: fixture.namespace, continue: page.continue }));
      expect(isExpired(lost)).toBe(true);
      expect(isExpired(await failure(cluster.get(ref('none'))))).toBe(false);
    });

    it('is followed over a gap: everything is told again, and what is gone is missing', async (test) => {
      test.skip(fixture.forget === undefined, 'needs a server that can be made to forget');
      for (const i of [1, 2, 3]) await cluster.create(settings(`orders-${i}`, { a: '0' }, { test: 'follow' }));
      const stop = new AbortController();
      const options = { namespace: fixture.namespace, labels: 'test=follow', limit: 2, timeoutSeconds: 1 };
      const followed = follow(cluster, configMaps, options, stop.signal)[Symbol.asyncIterator]();
      const told = async () => shownFollowed((await followed.next()).value);
      expect([await told(), await told(), await told(), await told()]).toEqual([
        'relist',
        'present orders-1 orders-2',
        'present orders-3',
        'synced',
      ]);
      await rival.merge(ref('orders-1'), { data: { a: '1' } });
      expect(await told()).toBe('changed orders-1 1');
      await rival.delete(ref('orders-2'));
      expect(await told()).toBe('gone orders-2 0');
      // While nobody listens, the server forgets: the watch cannot go on from where it was.
      const quiet = told();
      await rival.delete(ref('orders-3'));
      expect(await quiet).toBe('gone orders-3 0');
      fixture.forget?.();
      const relisted = told();
      expect(await relisted).toBe('relist');
      expect([await told(), await told()]).toEqual(['present orders-1', 'synced']);
      stop.abort();
      expect((await followed.next()).done).toBe(true);
    });

    it('does nothing for a caller that has stopped already', async () => {
      const stopped = AbortSignal.abort();
      const works = [
        () => cluster.get(ref('none'), stopped),
        () => cluster.list(configMaps, {}, stopped),
        () => cluster.create(settings('none'), {}, stopped),
        () => next(cluster.watch(configMaps, { resourceVersion: '0' }, stopped)),
      ];
      for (const work of works) expect(await failure(work())).toMatchObject({ kind: 'interrupted' });
      expect(await failure(cluster.get(ref('none')))).toMatchObject({ kind: 'not-found' });
    });
  });
}

async function next(events: AsyncIterable<WatchEvent>): Promise<WatchEvent | undefined> {
  for await (const event of events) return event;
  return undefined;
}

function shown(event: WatchEvent | undefined): string {
  if (event === undefined || event.type === 'bookmark') return event?.type ?? 'nothing';
  return `${event.type} ${content(event.object)}`;
}

function shownFollowed(event: Followed | undefined): string {
  if (event?.type === 'present') return `present ${event.objects.map(({ metadata }) => metadata.name).join(' ')}`;
  if (event?.type === 'changed' || event?.type === 'gone') return `${event.type} ${content(event.object)}`;
  return event?.type === 'trouble' ? `trouble ${event.error.message}` : (event?.type ?? 'nothing');
}

function content({ metadata, data }: ClusterObject): string {
  return `${metadata.name} ${(data as { a?: string } | undefined)?.a ?? ''}`;
}
