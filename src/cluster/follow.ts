import { type Clock, systemClock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import { backoffMs } from '../base/retry.ts';
import type { Cluster, ClusterObject, Selection, TypeRef, WatchEvent } from './contract.ts';
import { isExpired } from './errors.ts';

/** What `follow` tells, in this order: relist, present …, synced, then changed and gone as they happen; and all over again after a gap. */
export type Followed =
  /** A list begins. Whatever is not `present` before `synced` is not there any more. */
  | { readonly type: 'relist' }
  | { readonly type: 'present'; readonly objects: readonly ClusterObject[] }
  /** Everything was told up to this moment. */
  | { readonly type: 'synced'; readonly resourceVersion: string }
  /** New or different. */
  | { readonly type: 'changed'; readonly object: ClusterObject }
  | { readonly type: 'gone'; readonly object: ClusterObject }
  /** Nothing happened up to this moment, and the server says so. */
  | { readonly type: 'alive'; readonly resourceVersion: string }
  /** The server cannot be read now: `follow` tries again by itself after `pauseMs`. */
  | { readonly type: 'trouble'; readonly error: DrError; readonly pauseMs: number };

export interface FollowOptions extends Selection {
  /** Most objects in one page of a list; default 500. */
  readonly limit?: number;
  /** When the server ends each watch, seconds; default 120. */
  readonly timeoutSeconds?: number;
  readonly clock?: Clock;
}

/** A watch that ends sooner than this, without having told anything, is a failure: the server is busy or going away. */
const shortestWatchMs = 1000;

/**
 * Lists the objects of a kind and goes on with their changes, for ever: through watches that end or stall, servers that restart or
 * throttle, and versions that the server has forgotten (410: it lists anew). Ends when the signal aborts. Throws what no waiting mends: a kind that
 * the cluster does not have (any more).
 */
export async function* follow(
  cluster: Cluster,
  type: TypeRef,
  options: FollowOptions = {},
  signal?: AbortSignal,
): AsyncGenerator<Followed> {
  const { clock = systemClock, limit = 500, timeoutSeconds, ...selection } = options;
  let from: string | undefined;
  let pageSize = limit;
  let failures = 0;
  while (!signal?.aborted) {
    const startedMs = clock.now();
    let isHeard = false;
    try {
      if (from === undefined) {
        yield { type: 'relist' };
        let next: string | undefined;
        do {
          const page = await cluster.list(type, { ...selection, limit: pageSize, continue: next }, signal);
          if (page.objects.length > 0) yield { type: 'present', objects: page.objects };
          next = page.continue;
          if (next === undefined) from = page.resourceVersion;
        } while (next !== undefined);
        pageSize = limit;
        failures = 0;
        yield { type: 'synced', resourceVersion: from ?? '' };
      }
      const query = {
        ...selection,
        resourceVersion: from ?? '',
        ...(timeoutSeconds !== undefined && { timeoutSeconds }),
      };
      for await (const event of cluster.watch(type, query, signal)) {
        isHeard = true;
        failures = 0;
        from = event.type === 'bookmark' ? event.resourceVersion : (event.object.metadata.resourceVersion ?? from);
        yield told(event);
      }
      if (isHeard || clock.now() - startedMs >= shortestWatchMs) continue;
      failures++;
      await clock.sleep(backoffMs(failures, 500, 30_000), signal);
    } catch (error) {
      if (signal?.aborted) return;
      if (!(error instanceof DrError)) throw error;
      if (isExpired(error)) {
        // A list whose later pages are forgotten before they are asked for is asked for in one piece.
        if (from === undefined) pageSize = 0;
        from = undefined;
        failures++;
        // Once is usual after a long pause; a server that forgets everything at once is not asked in a tight loop.
        if (failures > 1) await clock.sleep(backoffMs(failures, 500, 30_000), signal).catch(() => {});
        continue;
      }
      if (error.kind === 'not-found' || error.kind === 'refused') throw error;
      failures++;
      // A missing right is given by a person: asking often changes nothing.
      const pauseMs = error.retryable ? backoffMs(failures, 1000, 30_000) : 60_000;
      yield { type: 'trouble', error, pauseMs };
      await clock.sleep(pauseMs, signal).catch(() => {});
    }
  }
}

function told(event: WatchEvent): Followed {
  if (event.type === 'bookmark') return { type: 'alive', resourceVersion: event.resourceVersion };
  return { type: event.type === 'deleted' ? 'gone' : 'changed', object: event.object };
}
