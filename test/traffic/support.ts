import { type Clock, systemClock } from '../../src/base/clock.ts';
import type { Route53Config } from '../../src/config/types.ts';
import type { Route53Server } from '../harness/route53/server.ts';

/** Known to no one: the embedded endpoint accepts any. */
export const testCredentials = { accessKeyId: 'AKIDRTEST', secretAccessKey: 'a-secret-that-must-never-show' };

/** Configuration for `orders.example.com A` at the embedded endpoint. */
export function route53Config(
  server: Pick<Route53Server, 'endpoint'>,
  change: Partial<Route53Config> = {},
): Route53Config {
  return {
    kind: 'route53',
    routing: 'simple',
    setIdentifiers: {},
    zone: 'ZTEST',
    record: 'orders.example.com',
    type: 'A',
    ttlSeconds: 30,
    endpoint: server.endpoint,
    nameservers: undefined,
    credentials: testCredentials,
    ...change,
  };
}

/** A clock whose sleeps pass at once: time moves by what was slept. `onSleep` sees each pause. */
export function skippingClock(onSleep: (pauseCount: number) => void = () => {}): Clock & { readonly pauses: number[] } {
  let nowMs = Date.UTC(2026, 0, 1);
  const pauses: number[] = [];
  return {
    pauses,
    now: () => nowMs,
    sleep: async (ms, signal) => {
      signal?.throwIfAborted();
      nowMs += ms;
      pauses.push(ms);
      onSleep(pauses.length);
    },
  };
}

/** The real time, with pauses of 20 ms at most: for what happens by itself within moments. */
export const hastyClock: Clock = {
  now: () => systemClock.now(),
  sleep: (ms, signal) => systemClock.sleep(Math.min(ms, 20), signal),
};
