import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { lookAtOldAnswers, type OldAnswers, waitOutOldAnswers } from '../../src/traffic/old-answers.ts';
import { Route53Traffic } from '../../src/traffic/route53.ts';
import { CachingResolver } from '../harness/caching-resolver.ts';
import { type Route53Server, startRoute53 } from '../harness/route53/server.ts';
import { route53Config, skippingClock } from './support.ts';

const west = ['198.51.100.10'];
let dns: Route53Server;
let clock: ReturnType<typeof skippingClock>;
let resolver: CachingResolver;
let driver: Route53Traffic;

beforeEach(async () => {
  dns = await startRoute53({ zoneId: 'ZTEST', zoneName: 'example.com' });
  dns.zone.seed({ name: 'orders.example.com', type: 'A', ttl: 300, values: ['192.0.2.10'] });
  clock = skippingClock();
  resolver = await CachingResolver.start(dns.nameserver, clock);
  driver = new Route53Traffic(route53Config(dns), silentLog, { clock }, { resolvers: [resolver.server] });
});
afterEach(async () => {
  driver.close();
  await resolver[Symbol.asyncDispose]();
  await dns.close();
});

/** Redirects to the west when the resolver has kept the old answer for `keptSeconds`. */
async function redirect(keptSeconds: number | undefined) {
  if (keptSeconds !== undefined) {
    await driver.resolved();
    await clock.sleep(keptSeconds * 1000);
  }
  const before = await driver.current();
  await driver.settled(await driver.point(west, before));
  return { driver, before, settledAtMs: clock.now(), clock };
}

describe('old answers', () => {
  it('live as long as the old TTL, even when the resolver watched has the new one', async () => {
    const options = await redirect(undefined);
    const look = await lookAtOldAnswers(options);
    expect(look.behind).toEqual([]);
    expect(look.gonePastMs).toBe(options.settledAtMs + 300_000);
    expect(look.sentence).toBe(
      'clients may be sent to the old place for up to 300 s more; the resolver watched has the new answer',
    );
  });

  it('are seen at a resolver, with the time it goes on', async () => {
    const options = await redirect(100);
    const look = await lookAtOldAnswers(options);
    expect(look.behind).toEqual([{ server: resolver.server, values: ['192.0.2.10'], ttlSeconds: 200 }]);
    expect(look.sentence).toContain(`${resolver.server} answers 192.0.2.10 for 200 s`);
    await clock.sleep(201_000);
    expect((await lookAtOldAnswers(options)).behind).toEqual([]);
  });

  it('are waited out: until the TTL is over and every resolver has the new answer', async () => {
    const options = await redirect(10);
    const looks: OldAnswers[] = [];
    const last = await waitOutOldAnswers({ ...options, onLook: (look) => looks.push(look) });
    expect(last).toMatchObject({
      behind: [],
      sentence: 'the old TTL is over; the resolver watched has the new answer',
    });
    expect(clock.now()).toBe(options.settledAtMs + 300_000);
    expect(looks[0]?.behind).toHaveLength(1);
    expect(looks.at(-1)?.resolvers).toEqual([
      { server: resolver.server, values: west, ttlSeconds: expect.any(Number) },
    ]);
  });

  it('are not waited for beyond the limit, and the resolver that keeps them is named', async () => {
    // It took the old answer from a server that lagged, right before the end.
    const options = await redirect(undefined);
    dns.zone.seed({ name: 'orders.example.com', type: 'A', ttl: 3000, values: ['192.0.2.10'] });
    await driver.resolved();
    dns.zone.seed({ name: 'orders.example.com', type: 'A', ttl: 30, values: west });
    const last = await waitOutOldAnswers(options);
    expect(clock.now()).toBe(options.settledAtMs + 330_000);
    expect(last.behind).toMatchObject([{ server: resolver.server, ttlSeconds: 2670 }]);
    expect(last.sentence).toContain('for up to 2670 s more');
  });

  it('of a name that was not there are none', async () => {
    dns.zone.apply([
      { action: 'DELETE', set: { name: 'orders.example.com', type: 'A', ttl: 300, values: ['192.0.2.10'] } },
    ]);
    const options = await redirect(undefined);
    expect(await lookAtOldAnswers(options)).toMatchObject({ behind: [], gonePastMs: options.settledAtMs });
  });

  it('of a name that was not there are seen at a resolver that keeps that', async () => {
    const set = { name: 'orders.example.com', type: 'A', ttl: 300, values: ['192.0.2.10'] };
    dns.zone.apply([{ action: 'DELETE', set }]);
    const before = await driver.current();
    const look = { before, settledAtMs: clock.now(), clock };
    const behind = { current: async () => ({ ...before, values: west }), resolved: () => driver.resolved() };
    expect((await lookAtOldAnswers({ driver: behind, ...look })).behind).toHaveLength(1);
  });

  it('are none where the record was as it is now', async () => {
    const before = await driver.current();
    const look = await lookAtOldAnswers({ driver, before, settledAtMs: clock.now(), clock });
    expect(look).toMatchObject({ behind: [], gonePastMs: clock.now() });
  });

  it('are told from the TTL alone where no resolver answers', async () => {
    const options = await redirect(undefined);
    await resolver[Symbol.asyncDispose]();
    const look = await lookAtOldAnswers(options);
    expect(look.sentence).toBe(
      'clients may be sent to the old place for up to 300 s more; no resolver that is asked from here knows the name',
    );
    resolver = await CachingResolver.start(dns.nameserver, clock);
  });
});
