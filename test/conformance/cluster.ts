import { describe, expect, it } from 'vitest';
import { fieldConflicts } from '../../src/cluster/errors.ts';
import { type ClusterFixture, configMaps, failure, next, trials } from './cluster-trial.ts';
import { watchConformance } from './cluster-watch.ts';

export type { ClusterFixture } from './cluster-trial.ts';

/** What every cluster driver promises (`src/cluster/contract.ts`), tried on a real one. Needs an API server with RBAC; no pod has to run. */
export function clusterConformance(name: string, start: () => Promise<ClusterFixture>): void {
  watchConformance(name, start);
  describe(`cluster contract: ${name}`, () => {
    const trial = trials(start);

    it('tells its version and its kinds, each once', async () => {
      const { cluster } = trial();
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
      const { cluster } = trial();
      const error = await failure(cluster.list({ apiVersion: 'nowhere.example.com/v1', kind: 'Widget' }));
      expect(error).toMatchObject({ kind: 'not-found', retryable: false });
      expect(String(error)).toContain('Widget in nowhere.example.com/v1');
    });

    it('makes an object once, and says so to whoever makes it again', async () => {
      const { fixture, cluster, rival, settings, ref } = trial();
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
      const { settings, fixture, cluster, ref } = trial();
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
      const { cluster, settings } = trial();
      const error = await failure(cluster.create(settings('Not A Name')));
      expect(error).toMatchObject({ kind: 'refused', retryable: false });
      expect(String(error)).toContain('metadata.name');
    });

    it('lists in pages of one moment, whatever happens in between', async () => {
      const { fixture, cluster, rival, settings, ref } = trial();
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
      const { fixture, cluster, settings } = trial();
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
      const { cluster, rival, settings, ref } = trial();
      const made = await cluster.apply(settings('orders', { a: '1', b: '2' }));
      expect(made['data']).toEqual({ a: '1', b: '2' });
      expect(made.metadata.managedFields).toMatchObject([{ manager: 'dr', operation: 'Apply' }]);
      await rival.merge(ref('orders'), { data: { theirs: 'x' } }, { manager: 'somebody' });
      const after = await cluster.apply(settings('orders', { a: '3' }));
      expect(after['data']).toEqual({ a: '3', theirs: 'x' });
      const again = await cluster.apply(settings('orders', { a: '3' }));
      expect(again.metadata.resourceVersion).toBe(after.metadata.resourceVersion);
    });

    it('keeps every character, whichever way it is written', async () => {
      const { cluster, settings, ref } = trial();
      // An apply is read as YAML, where some of these may not stand raw and others are the end of a line.
      const data = {
        a: 'del \u007f c1 \u0080 nel \u0085 line \u2028 paragraph \u2029 mark \ufeff none \uffff ctl \u0001 \r\n\t 😀',
      };
      await cluster.create({ ...settings('created'), data });
      await cluster.apply({ ...settings('applied'), data });
      await cluster.merge(ref('applied'), { data: { b: data.a } });
      expect(await cluster.get(ref('created'))).toMatchObject({ data });
      expect(await cluster.get(ref('applied'))).toMatchObject({ data: { ...data, b: data.a } });
    });

    it('names the manager and the field when an apply would take them, and takes them by force', async () => {
      const { cluster, rival, settings, ref } = trial();
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
      const { cluster, settings, ref } = trial();
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
      const { cluster, settings, ref } = trial();
      await cluster.create(settings('orders', { a: '1', b: '2' }, { app: 'orders' }));
      const change = { data: { a: null, c: '3' }, metadata: { annotations: { note: 'x' } } };
      const after = await cluster.merge(ref('orders'), change);
      expect(after['data']).toEqual({ b: '2', c: '3' });
      expect(after.metadata).toMatchObject({ labels: { app: 'orders' }, annotations: { note: 'x' } });
      expect(after.metadata.managedFields?.map(({ manager }) => manager)).toEqual(['dr']);
    });

    it('replaces only the version that the caller knew', async () => {
      const { cluster, rival, settings, ref } = trial();
      const known = await cluster.create(settings('orders'));
      const resourceVersion = known.metadata.resourceVersion ?? '';
      const now = await rival.merge(ref('orders'), { data: { a: '2' } });
      const stale = [
        () => cluster.merge(ref('orders'), { data: { a: '3' }, metadata: { resourceVersion } }),
        () =>
          cluster.apply(
            {
              ...settings('orders', { a: '3' }),
              metadata: { ...settings('orders').metadata, resourceVersion },
            },
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
      const { cluster, settings, ref } = trial();
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
      const { cluster, settings, ref } = trial();
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
      const { fixture, cluster, rival, settings, ref } = trial();
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
      const { fixture, cluster, as, settings, ref } = trial();
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

    it('does nothing for a caller that has stopped already', async () => {
      const { cluster, settings, ref } = trial();
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
