import { describe, expect, it } from 'vitest';
import type { ClusterObject, WatchEvent } from '../../src/cluster/contract.ts';
import { isExpired } from '../../src/cluster/errors.ts';
import { type Followed, follow } from '../../src/cluster/follow.ts';
import { type ClusterFixture, configMaps, failure, next, trials } from './cluster-trial.ts';

/** What every cluster driver promises about watches. */
export function watchConformance(name: string, start: () => Promise<ClusterFixture>): void {
  describe(`cluster contract, watches: ${name}`, () => {
    const trial = trials(start);

    it('tells changes in order, from the moment of a list on', async () => {
      const { fixture, cluster, rival, settings, ref } = trial();
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
      const { fixture, cluster } = trial();
      const { resourceVersion } = await cluster.list(configMaps, { namespace: fixture.namespace });
      const query = { namespace: fixture.namespace, resourceVersion, timeoutSeconds: 1 };
      const events: WatchEvent[] = [];
      for await (const event of cluster.watch(configMaps, query)) events.push(event);
      expect(events.filter(({ type }) => type !== 'bookmark')).toEqual([]);
    });

    it('tells by bookmarks how far a quiet watch has come', async (test) => {
      const { fixture, cluster, rival, settings } = trial();
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
      const { fixture, cluster, settings, ref } = trial();
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
      const { fixture, cluster, rival, settings, ref } = trial();
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
  });
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
