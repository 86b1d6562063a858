import { setTimeout as delay } from 'node:timers/promises';

/** Time as the code sees it: tests pass their own. All times are milliseconds since 1970 (UTC). */
export interface Clock {
  now(): number;
  /** Resolves after `ms` milliseconds; rejects when aborted. With `unref` the wait alone does not keep the process alive. */
  sleep(ms: number, signal?: AbortSignal, options?: { readonly unref?: boolean }): Promise<void>;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  sleep: async (ms, signal, options) => {
    await delay(ms, undefined, { ...(signal && { signal }), ref: options?.unref !== true });
  },
};
