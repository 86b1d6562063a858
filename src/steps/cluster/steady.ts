import type { Clock } from '../../base/clock.ts';
import { DrError } from '../../base/errors.ts';
import type { Cluster } from '../../cluster/contract.ts';

/** How long an API server that has answered before may be away (it restarts, its network flaps), milliseconds. */
const AWAY_MS = 2 * 60_000;
const PAUSE_MS = 2000;

/**
 * The cluster, as steps that wait for minutes need it: looks at objects survive an API server that goes away for a while in their middle. One
 * that never answered is not waited for.
 */
export function steady(cluster: Cluster, clock: Clock): Cluster {
  let hasAnswered = false;
  const patiently = async <T>(work: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> => {
    const begun = clock.now();
    for (;;) {
      try {
        const result = await work();
        hasAnswered = true;
        return result;
      } catch (error) {
        const isAway = error instanceof DrError && error.kind === 'unreachable' && error.retryable;
        if (!isAway || !hasAnswered || clock.now() - begun > AWAY_MS) throw error;
      }
      await clock.sleep(PAUSE_MS, signal);
    }
  };
  const looks: Pick<Cluster, 'get' | 'list'> = {
    get: async (ref, signal) => await patiently(async () => await cluster.get(ref, signal), signal),
    list: async (type, query, signal) => await patiently(async () => await cluster.list(type, query, signal), signal),
  };
  return new Proxy(cluster, {
    get(target, name) {
      if (name === 'get' || name === 'list') return looks[name];
      const member: unknown = Reflect.get(target, name);
      return typeof member === 'function' ? member.bind(target) : member;
    },
  });
}
