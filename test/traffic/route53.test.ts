import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { createLog, silentLog } from '../../src/base/log.ts';
import type { Route53Config } from '../../src/config/types.ts';
import { openTraffic } from '../../src/traffic/open.ts';
import { Route53Traffic, type Route53Tuning } from '../../src/traffic/route53.ts';
import { Route53Api } from '../../src/traffic/route53-api.ts';
import { type Route53Server, startRoute53 } from '../harness/route53/server.ts';
import { route53Config, skippingClock, testCredentials } from './support.ts';

const east = { name: 'orders.example.com', type: 'A', ttl: 30, values: ['192.0.2.10'] };
const west = ['198.51.100.10'];

let server: Route53Server;
const opened: Route53Traffic[] = [];

beforeEach(async () => {
  server = await startRoute53({ zoneId: 'ZTEST', zoneName: 'example.com', accessKeys: [testCredentials.accessKeyId] });
});

afterEach(async () => {
  for (const driver of opened.splice(0)) driver.close();
  await server.close();
});

function open(change: Partial<Route53Config> = {}, tuning: Route53Tuning = {}): Route53Traffic {
  const driver = new Route53Traffic(route53Config(server, change), silentLog, { clock: skippingClock(), ...tuning });
  opened.push(driver);
  return driver;
}

/** The failure of a promise that must fail. */
async function failure(promise: Promise<unknown>): Promise<DrError> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  if (!(error instanceof DrError)) throw new Error(`expected a DrError, got ${String(error)}`);
  return error;
}

const redirect = async (driver: Route53Traffic, values: readonly string[] = west) =>
  driver.point(values, await driver.current());

describe('a change', () => {
  it('is found by the client that its configuration names', async () => {
    server.zone.seed(east);
    const config = { name: 'orders', driver: route53Config(server), endpoints: {}, resolvers: undefined };
    const driver = openTraffic(config, silentLog);
    expect(driver.target).toBe('route53 zone ZTEST record orders.example.com A');
    await driver.settled(await driver.point(west, await driver.current()));
    driver.close();
    expect(server.zone.records()).toEqual([{ ...east, name: 'orders.example.com.', values: west }]);
  });

  it.each(['error-response', 'own-document'] as const)(
    'loses against a rival who writes after the last look, whatever the form of the error (%s)',
    async (batchErrorForm) => {
      await server.close();
      server = await startRoute53({ zoneId: 'ZTEST', zoneName: 'example.com', batchErrorForm });
      server.zone.seed(east);
      const rival = { ...east, values: ['203.0.113.99'] };
      server.faults.next('ChangeResourceRecordSets', { kind: 'before', act: () => server.zone.seed(rival) });
      const error = await failure(redirect(open()));
      expect(error).toMatchObject({ kind: 'conflict', where: expect.stringContaining('ZTEST') });
      expect(error.message).toMatch(/192\.0\.2\.10.*203\.0\.113\.99/);
      expect(server.zone.records()[0]?.values).toEqual(rival.values);
    },
  );

  it('loses against a rival who changes nothing but the TTL', async () => {
    server.zone.seed(east);
    server.faults.next('ChangeResourceRecordSets', {
      kind: 'before',
      act: () => server.zone.seed({ ...east, ttl: 31 }),
    });
    expect(await failure(redirect(open()))).toMatchObject({ kind: 'conflict' });
    expect(server.zone.records()[0]).toMatchObject({ ttl: 31, values: east.values });
  });

  it('succeeds once when its answer is lost and the call is repeated', async () => {
    server.zone.seed(east);
    server.faults.next('ChangeResourceRecordSets', { kind: 'lose-reply' });
    const driver = open();
    const before = server.zone.serial;
    await driver.settled(await redirect(driver));
    expect(server.calls.filter((call) => call === 'ChangeResourceRecordSets')).toHaveLength(2);
    expect(server.zone.serial).toBe(before + 1);
    expect(server.zone.records()[0]?.values).toEqual(west);
  });

  it('writes nothing when the values are there, and writes when only the TTL differs', async () => {
    server.zone.seed(east);
    const driver = open();
    await redirect(driver, east.values);
    expect(server.calls).not.toContain('ChangeResourceRecordSets');
    await redirect(open({ ttlSeconds: 10 }), east.values);
    expect(server.zone.records()[0]).toMatchObject({ ttl: 10, values: east.values });
  });

  it('leaves every other record of the zone and of the name alone', async () => {
    const others = [
      { name: 'a.orders.example.com', type: 'A', ttl: 30, values: east.values },
      { name: 'orders.example.com', type: 'AAAA', ttl: 300, values: ['2001:db8::10'] },
      { name: 'orders2.example.com', type: 'A', ttl: 300, values: east.values },
    ];
    server.zone.seed(east, ...others);
    await redirect(open());
    const now = server.zone.records();
    expect(now).toHaveLength(4);
    for (const other of others) expect(now).toContainEqual({ ...other, name: `${other.name}.` });
  });

  it('finds its record among more record sets of the name than fit in one page', async () => {
    const weighted = Array.from({ length: 45 }, (_, i) => ({ ...east, setIdentifier: `s${i}`, weight: 1 }));
    server.zone.seed(...weighted, { ...east, type: 'AAAA', values: ['2001:db8::10'] });
    const driver = open({ type: 'AAAA' });
    expect((await driver.current()).values).toEqual(['2001:db8::10']);
    expect(server.calls).toHaveLength(3);
    await redirect(driver, ['2001:db8::20']);
    expect(server.zone.records()).toHaveLength(46);
  });

  it('compares addresses and host names, not their spelling', async () => {
    server.zone.seed(
      { name: 'six.example.com', type: 'AAAA', ttl: 30, values: ['2001:DB8:0:0::10'] },
      { name: 'alias.example.com', type: 'CNAME', ttl: 30, values: ['East.Example.com.'] },
    );
    await redirect(open({ record: 'Six.example.com.', type: 'AAAA' }), ['2001:db8::10']);
    await redirect(open({ record: 'alias.example.com', type: 'CNAME' }), ['east.example.com']);
    expect(server.calls).not.toContain('ChangeResourceRecordSets');
    const alias = open({ record: 'alias.example.com', type: 'CNAME' });
    await alias.settled(await redirect(alias, ['West.example.com']));
    expect((await alias.current()).values).toEqual(['west.example.com']);
    expect((await alias.answers())[0]).toEqual({ server: server.nameserver, values: ['west.example.com'] });
  });

  it('handles a wildcard name, which the API shows escaped', async () => {
    const driver = open({ record: '*.example.com' });
    await redirect(driver);
    expect(server.zone.records()[0]?.name).toBe('\\052.example.com.');
    await redirect(driver, east.values);
    expect((await driver.current()).values).toEqual(east.values);
  });
});

describe('a record that is not simple is refused before anything is written', () => {
  it.each([
    [
      'an alias',
      { name: east.name, type: 'A', alias: { zone: 'Z2', name: 'lb.example.net.' } },
      /alias of lb\.example\.net/,
    ],
    ['weighted', { ...east, setIdentifier: 'east', weight: 10 }, /set identifier east/],
    ['bound to a health check', { ...east, healthCheckId: 'hc-1' }, /health check hc-1/],
    ['a CNAME', { ...east, type: 'CNAME', values: ['lb.example.net'] }, /type CNAME, which excludes one of type A/],
  ])('%s', async (_, set, message) => {
    server.zone.seed(set);
    const driver = open();
    for (const call of [
      driver.current(),
      driver.point(west, { name: '', values: [], ttlSeconds: 0, generation: '' }),
    ]) {
      const error = await failure(call);
      expect(error).toMatchObject({ kind: 'refused', next: expect.stringMatching(/\.$/) });
      expect(error.message).toMatch(message);
    }
    expect(server.calls).not.toContain('ChangeResourceRecordSets');
  });

  it('a CNAME beside other types', async () => {
    server.zone.seed(east);
    expect((await failure(open({ type: 'CNAME' }).current())).message).toMatch(
      /type A, which excludes one of type CNAME/,
    );
  });
});

describe('a Route 53 that does not do what is asked', () => {
  it('is asked again when it throttles, is busy, breaks down or hangs up, with growing pauses', async () => {
    server.zone.seed(east);
    const clock = skippingClock();
    server.faults.next('ListResourceRecordSets', { kind: 'throttle' }, 2);
    server.faults.next('ChangeResourceRecordSets', { kind: 'busy' });
    server.faults.next('ChangeResourceRecordSets', { kind: 'status', status: 503 });
    server.faults.next('ChangeResourceRecordSets', { kind: 'drop' });
    await redirect(open({}, { clock }));
    expect(server.zone.records()[0]?.values).toEqual(west);
    expect(clock.pauses).toHaveLength(5);
    for (const [i, boundMs] of [200, 400, 200, 400, 800].entries())
      expect(clock.pauses[i]).toBeLessThanOrEqual(boundMs);
  });

  it('is given up on after the last try, with an error that may be retried later', async () => {
    server.faults.always('ListResourceRecordSets', { kind: 'throttle' });
    const error = await failure(open({}, { attempts: 3 }).current());
    expect(error).toMatchObject({ kind: 'unreachable', retryable: true, where: 'route53 zone ZTEST' });
    expect(error.message).toContain('Rate exceeded');
    expect(server.calls).toHaveLength(3);
  });

  it('is given up on when it never answers', async () => {
    server.faults.always('ListResourceRecordSets', { kind: 'hang' });
    const error = await failure(open({}, { attempts: 2, requestTimeoutMs: 100 }).current());
    expect(error).toMatchObject({ kind: 'unreachable', retryable: true });
    expect(server.calls).toHaveLength(2);
  });

  it('is reported with its address when nothing listens there', async () => {
    await server.close();
    const error = await failure(open({}, { attempts: 2 }).current());
    expect(error).toMatchObject({ kind: 'unreachable', next: expect.stringContaining(server.endpoint) });
    expect(error.message).toContain('ECONNREFUSED');
  });

  it('is stopped waiting for when the caller stops, and no call follows', async () => {
    server.faults.always('ListResourceRecordSets', { kind: 'hang' });
    const stop = new AbortController();
    const pending = failure(open().current(stop.signal));
    await expect.poll(() => server.calls.length).toBe(1);
    stop.abort();
    expect(await pending).toMatchObject({ kind: 'interrupted' });
    expect(server.calls).toHaveLength(1);
  });

  it.each([
    ['ListResourceRecordSets', (driver: Route53Traffic) => driver.current()],
    ['ChangeResourceRecordSets', (driver: Route53Traffic) => redirect(driver)],
    ['GetChange', (driver: Route53Traffic) => driver.settled({ id: 'C1', submittedAtMs: 0 })],
    ['GetHostedZone', (driver: Route53Traffic) => driver.answers()],
  ])('names the IAM action that is missing: %s', async (action, call) => {
    server.zone.seed(east);
    server.faults.always(action, { kind: 'deny' });
    const error = await failure(call(open()));
    expect(error).toMatchObject({
      kind: 'denied',
      retryable: false,
      next: expect.stringContaining(`route53:${action} `),
    });
    expect(server.zone.records()[0]?.values).toEqual(east.values);
  });

  it('refuses credentials without showing the secret anywhere, and names a zone that is not there', async () => {
    const lines: string[] = [];
    const log = createLog('debug', { write: (line) => lines.push(line) });
    const secretAccessKey = 'mixed-up-secret-value';
    const credentials = { accessKeyId: 'AKIAUNKNOWN', secretAccessKey };
    const driver = new Route53Traffic(route53Config(server, { credentials }), log, { clock: skippingClock() });
    opened.push(driver);
    const error = await failure(driver.current());
    expect(error).toMatchObject({ kind: 'denied' });
    log.error({ error }, 'what a command would log');
    server.faults.next('ListResourceRecordSets', { kind: 'drop' });
    await failure(driver.current());
    expect(lines).toHaveLength(2);
    expect(`${lines.join('')}${error.stack}`).not.toMatch(/mixed-up-secret-value|Signature=/);
    expect(await failure(open({ zone: 'ZOTHER' }).current())).toMatchObject({
      kind: 'not-found',
      message: expect.stringContaining('ZOTHER'),
      next: expect.stringContaining('route53.zone'),
    });
  });

  it('says how to give credentials when there are none', async () => {
    const saved = { ...process.env };
    for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name];
    Object.assign(process.env, {
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_SHARED_CREDENTIALS_FILE: '/nonexistent/credentials',
      AWS_CONFIG_FILE: '/nonexistent/config',
    });
    try {
      const error = await failure(open({ credentials: undefined }).current());
      expect(error).toMatchObject({ kind: 'denied', next: expect.stringContaining('AWS_ACCESS_KEY_ID') });
    } finally {
      for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name];
      Object.assign(process.env, saved);
    }
  });

  it('accepts the zone id in the long form that the console copies', async () => {
    server.zone.seed(east);
    const api = new Route53Api({ ...route53Config(server), zone: '/hostedzone/ZTEST', log: silentLog });
    expect(await api.zoneFacts()).toEqual({ name: 'example.com', nameservers: [server.nameserver], isPrivate: false });
    api.close();
  });
});

describe('settling', () => {
  it('asks with growing pauses until Route 53 says INSYNC, whatever interrupts the asking', async () => {
    server.zone.seed(east);
    server.zone.hold();
    const clock = skippingClock((count) => {
      if (count === 12) server.zone.release();
    });
    const driver = open({}, { clock, attempts: 1 });
    const change = await redirect(driver);
    server.faults.next('GetChange', { kind: 'throttle' });
    server.faults.next('GetChange', { kind: 'status', status: 500 });
    await driver.settled(change);
    expect(clock.pauses.slice(0, 3)).toEqual([500, 750, 1125]);
    expect(Math.max(...clock.pauses)).toBe(5000);
    expect(clock.pauses).toHaveLength(12);
  });

  it('ends at its own limit with the change, the time and the state', async () => {
    server.zone.seed(east);
    server.zone.hold();
    const driver = open({}, { settleTimeoutMs: 60_000 });
    const change = await redirect(driver);
    const error = await failure(driver.settled(change));
    expect(error).toMatchObject({ kind: 'unreachable', retryable: true });
    expect(error.message).toMatch(new RegExp(`change ${change.id} .* after .* s: Route 53 says PENDING`));
  });

  it('fails at once for a change that Route 53 does not know', async () => {
    const error = await failure(open().settled({ id: 'CUNKNOWN', submittedAtMs: 0 }));
    expect(error).toMatchObject({ kind: 'not-found', where: 'route53 change CUNKNOWN' });
  });

  it('of a change made before waits for its age where no name server can be asked', async () => {
    server.zone.seed(east);
    server.faults.dns = 'refuse';
    const clock = skippingClock();
    const driver = open({}, { clock });
    await driver.settled(await redirect(driver, east.values));
    const waitedMs = clock.pauses.reduce((sum, ms) => sum + ms, 0);
    expect(waitedMs).toBeGreaterThanOrEqual(60_000);
    expect(waitedMs).toBeLessThan(66_000);
  });
});
