import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import type { Route53Config } from '../../src/config/types.ts';
import { Route53Traffic } from '../../src/traffic/route53.ts';
import { type Route53Server, startRoute53 } from '../harness/route53/server.ts';
import type { RecordSet } from '../harness/route53/zone.ts';
import { route53Config, skippingClock } from './support.ts';

const endpoints = { east: '192.0.2.10', west: '198.51.100.10' };
let server: Route53Server;
const opened: Route53Traffic[] = [];

beforeEach(async () => {
  server = await startRoute53({ zoneId: 'ZTEST', zoneName: 'example.com' });
});
afterEach(async () => {
  for (const driver of opened.splice(0)) driver.close();
  await server.close();
});

function open(routing: Route53Config['routing'], change: Partial<Route53Config> = {}): Route53Traffic {
  const tuning = { clock: skippingClock(), attempts: 2, dnsTimeoutMs: 200 };
  const driver = new Route53Traffic(route53Config(server, { routing, ...change }), silentLog, tuning, { endpoints });
  opened.push(driver);
  return driver;
}

const record = { name: 'orders.example.com', type: 'A', ttl: 30 };
const weighted = (site: string, weight: number, more: Partial<RecordSet> = {}): RecordSet => ({
  ...record,
  setIdentifier: site,
  values: [endpoints[site === 'west' ? 'west' : 'east']],
  weight,
  ...more,
});
const failover = (site: 'east' | 'west', role: 'PRIMARY' | 'SECONDARY', more: Partial<RecordSet> = {}): RecordSet => ({
  ...record,
  setIdentifier: site,
  values: [endpoints[site]],
  failover: role,
  ...more,
});

async function failure(promise: Promise<unknown>): Promise<DrError> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  if (!(error instanceof DrError)) throw new Error(`expected a DrError, got ${String(error)}`);
  return error;
}

const west = [endpoints.west];
const split = (percent: number) => ({ from: endpoints.east, to: endpoints.west, percent });
/** The zone by set identifier. */
const stored = () => Object.fromEntries(server.zone.records().map(({ setIdentifier, ...set }) => [setIdentifier, set]));
const batches = () => server.calls.filter((call) => call === 'ChangeResourceRecordSets').length;

describe('weighted records', () => {
  it('are made where a site has none, with the weight they need at once', async () => {
    server.zone.seed(weighted('east', 100));
    const driver = open('weighted');
    expect((await driver.doctor()).find(({ ok }) => !ok)).toMatchObject({
      severity: 'warning',
      what: 'there is no weighted record for west (set identifier west)',
    });
    await driver.shift(split(10), await driver.current());
    expect(stored()).toMatchObject({ east: { weight: 90 }, west: { weight: 10, ttl: 30, values: west } });
  });

  it('keep their health checks', async () => {
    server.zone.seed(weighted('east', 100, { healthCheckId: 'hc-e' }), weighted('west', 0, { healthCheckId: 'hc-w' }));
    const driver = open('weighted');
    await driver.shift(split(25), await driver.current());
    expect(stored()).toMatchObject({ east: { healthCheckId: 'hc-e' }, west: { weight: 25, healthCheckId: 'hc-w' } });
  });

  it('that the configuration does not know lose their traffic and stay', async () => {
    const canary = weighted('canary', 50, { values: ['203.0.113.7'] });
    server.zone.seed(weighted('east', 50), weighted('west', 0), canary);
    const driver = open('weighted');
    const before = await driver.current();
    expect(before.shares).toEqual([
      { value: '192.0.2.10', percent: 50 },
      { value: '198.51.100.10', percent: 0 },
      { value: '203.0.113.7', percent: 50 },
    ]);
    await driver.point(west, before);
    expect(stored()).toMatchObject({ canary: { weight: 0, values: ['203.0.113.7'] }, west: { weight: 100 } });
    expect((await driver.current()).values).toEqual(west);
  });

  it('in the same proportion are left alone, and those of no weight at all are not', async () => {
    server.zone.seed(weighted('east', 0), weighted('west', 255));
    await open('weighted').point(west, await open('weighted').current());
    expect(batches()).toBe(0);
    server.zone.seed(weighted('west', 0));
    const driver = open('weighted');
    // Without any weight Route 53 gives every record the same.
    expect((await driver.current()).values).toEqual([endpoints.east, endpoints.west]);
    await driver.point(west, await driver.current());
    expect(stored()).toMatchObject({ east: { weight: 0 }, west: { weight: 100 } });
  });

  it('are corrected where they hold another value or TTL than the configuration', async () => {
    server.zone.seed(weighted('east', 100, { ttl: 300 }), weighted('west', 0, { values: ['198.51.100.99'] }));
    const driver = open('weighted');
    const wrong = (await driver.doctor()).filter(({ ok }) => !ok).map(({ what }) => what);
    expect(wrong).toEqual([
      'the TTL of orders.example.com A is 300 s',
      'the weighted record of west holds 198.51.100.99, not the endpoint 198.51.100.10',
    ]);
    await driver.point(west, await driver.current());
    expect(stored()).toMatchObject({ east: { ttl: 30, weight: 0 }, west: { ttl: 30, weight: 100, values: west } });
  });

  it('are found under set identifiers of their own', async () => {
    server.zone.seed(weighted('blue', 100), weighted('green', 0, { values: west }));
    const driver = open('weighted', { setIdentifiers: { east: 'blue', west: 'green' } });
    await driver.shift(split(50), await driver.current());
    expect(stored()).toMatchObject({ blue: { weight: 50 }, green: { weight: 50 } });
  });

  it('are not changed when a rival changed any of them after the last look, even one that stays', async () => {
    server.zone.seed(weighted('east', 0), weighted('west', 100), weighted('canary', 0, { values: ['203.0.113.7'] }));
    const driver = open('weighted');
    const before = await driver.current();
    server.faults.next('ChangeResourceRecordSets', {
      kind: 'before',
      act: () => server.zone.seed(weighted('canary', 0, { values: ['203.0.113.8'] })),
    });
    expect(await failure(driver.shift(split(50), before))).toMatchObject({ kind: 'conflict' });
    expect(stored()).toMatchObject({ east: { weight: 0 }, canary: { values: ['203.0.113.8'] } });
  });

  it('are changed once when the answer is lost', async () => {
    server.zone.seed(weighted('east', 100), weighted('west', 0));
    server.faults.next('ChangeResourceRecordSets', { kind: 'lose-reply' });
    const driver = open('weighted');
    const { serial } = server.zone;
    await driver.settled(await driver.shift(split(10), await driver.current()));
    expect(server.zone.serial).toBe(serial + 1);
    expect(stored()).toMatchObject({ east: { weight: 90 }, west: { weight: 10 } });
  });

  it('give answers by their weights', async () => {
    server.zone.seed(weighted('east', 100), weighted('west', 0));
    const driver = open('weighted');
    await driver.settled(await driver.shift(split(25), await driver.current()));
    const seen = new Map<string, number>();
    for (let i = 0; i < 200; i++) {
      const [answer] = await driver.answers();
      const [value = ''] = answer?.values ?? [];
      seen.set(value, (seen.get(value) ?? 0) + 1);
    }
    // Of 200 draws of one in four, 20 to 85 leave out less than one in a million.
    expect(seen.get(endpoints.west)).toBeGreaterThan(19);
    expect(seen.get(endpoints.west)).toBeLessThan(86);
  });
});

describe('failover records', () => {
  it('change places in one batch and keep their health checks', async () => {
    server.zone.seed(failover('east', 'PRIMARY', { healthCheckId: 'hc-e' }), failover('west', 'SECONDARY'));
    const driver = open('failover');
    await driver.settled(await driver.point(west, await driver.current()));
    expect(batches()).toBe(1);
    expect(stored()).toMatchObject({
      east: { failover: 'SECONDARY', healthCheckId: 'hc-e' },
      west: { failover: 'PRIMARY', values: west },
    });
    expect(stored()['west']).not.toHaveProperty('healthCheckId');
    expect((await driver.answers())[0]?.values).toEqual(west);
  });

  it('are never made: a name without the pair is told, with what to do', async () => {
    const driver = open('failover');
    const none = { name: '', values: [], ttlSeconds: 0, generation: (await driver.current()).generation };
    expect(await failure(driver.point(west, none))).toMatchObject({
      kind: 'not-found',
      next: expect.stringContaining('Create the PRIMARY and the SECONDARY'),
    });
    server.zone.seed(failover('east', 'PRIMARY'));
    expect((await driver.doctor()).filter(({ ok }) => !ok).map(({ what }) => what)).toEqual([
      'there is no failover record for west (set identifier west)',
    ]);
    expect(await failure(driver.point(west, await driver.current()))).toMatchObject({ kind: 'not-found' });
    expect(batches()).toBe(1);
  });

  it('whose health check moves traffic by itself are doubted', async () => {
    server.zone.seed(failover('east', 'PRIMARY', { healthCheckId: 'hc-e' }), failover('west', 'SECONDARY'));
    const wrong = (await open('failover').doctor()).filter(({ ok }) => !ok);
    expect(wrong).toMatchObject([{ severity: 'warning', what: expect.stringContaining('and back again') }]);
    expect(wrong[0]?.next).toContain('driver "health"');
  });

  it('are seen as they are answered: the doctor tells when the health check overrules the PRIMARY', async () => {
    server.zone.seed(failover('east', 'PRIMARY', { healthCheckId: 'hc-e' }), failover('west', 'SECONDARY'));
    server.zone.health.set('hc-e', () => false);
    expect((await open('failover').doctor()).filter(({ ok }) => !ok).map(({ what }) => what)).toContain(
      `name server ${server.nameserver} answers 198.51.100.10, but the record says 192.0.2.10`,
    );
  });
});

describe('a record of another form is refused, and the setting that fits is named', () => {
  const simple = { ...record, values: [endpoints.east] };
  it.each<[Route53Config['routing'], RecordSet, RegExp, RegExp]>([
    ['simple', weighted('east', 1), /of weighted routing \(weight 1\)/, /routing of this traffic entry to weighted/],
    ['simple', failover('east', 'PRIMARY'), /the PRIMARY of failover/, /routing of this traffic entry to failover/],
    ['weighted', failover('east', 'PRIMARY'), /the PRIMARY of failover/, /routing of this traffic entry to failover/],
    ['weighted', simple, /a simple record/, /a record of its own/],
    ['failover', simple, /a simple record/, /a record of its own/],
    [
      'weighted',
      weighted('east', 1, { alias: { zone: 'Z2', name: 'lb.example.net.' } }),
      /an alias of lb\.example\.net/,
      /a record of its own/,
    ],
  ])('%s routing, %j', async (routing, set, message, next) => {
    server.zone.seed(set);
    const error = await failure(open(routing).current());
    expect(error.kind).toBe('refused');
    expect(error.message).toMatch(message);
    expect(error.next).toMatch(next);
    expect(batches()).toBe(0);
  });
});
