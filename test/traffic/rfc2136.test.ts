import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import type { Rfc2136Config } from '../../src/config/types.ts';
import { plainValue } from '../../src/traffic/record.ts';
import { Rfc2136Traffic, type Rfc2136Tuning } from '../../src/traffic/rfc2136.ts';
import { readMessage } from '../../src/traffic/wire.ts';
import { trafficConformance } from '../conformance/traffic.ts';
import { startDnsProxy } from '../harness/dns-proxy.ts';
import {
  bindVersion,
  knotVersion,
  type NameServer,
  powerDnsVersion,
  startKnot,
  startNamed,
  startPowerDns,
} from '../harness/named.ts';
import { skippingClock } from './support.ts';

const zone = 'example.test';
let serial = 0;

/** Configuration for a fresh record of the server's zone. */
function configOf(server: NameServer, change: Partial<Rfc2136Config> = {}): Rfc2136Config {
  serial++;
  return {
    kind: 'rfc2136',
    server: server.server,
    zone,
    record: `orders-${serial}.${zone}`,
    type: 'A',
    ttlSeconds: 30,
    key: server.key,
    nameservers: [server.server],
    ...change,
  };
}

function open(server: NameServer, change: Partial<Rfc2136Config> = {}, tuning: Rfc2136Tuning = {}): Rfc2136Traffic {
  return new Rfc2136Traffic(configOf(server, change), silentLog, { dnsTimeoutMs: 1000, attempts: 1, ...tuning });
}

async function failure(promise: Promise<unknown>): Promise<DrError> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  if (!(error instanceof DrError)) throw new Error(`expected a DrError, got ${String(error)}`);
  return error;
}

const servers = [
  { name: 'BIND', program: 'named', version: bindVersion, start: startNamed },
  { name: 'Knot DNS', program: 'knotd', version: knotVersion, start: startKnot },
  { name: 'PowerDNS', program: 'pdns_server', version: powerDnsVersion, start: startPowerDns },
];

for (const { name, program, version, start } of servers) {
  if (version === undefined) {
    describe(`traffic contract: rfc2136 with ${name}`, () => {
      it.skip(`needs ${program} on this machine`, () => {});
    });
    continue;
  }
  describe(`needs ${program} (here ${version})`, () => {
    let server: NameServer;
    beforeAll(async () => {
      server = await start({ zone });
    });
    afterAll(() => server?.stop());

    trafficConformance(`rfc2136 with ${name}`, async () => {
      const config = configOf(server);
      return {
        open: () => new Rfc2136Traffic(config, silentLog, {}, { resolvers: [server.server] }),
        hasNameServers: true,
        isFaithful: true,
        [Symbol.asyncDispose]: async () => {},
      };
    });
  });
}

describe.skipIf(bindVersion === undefined)(`needs named (here ${bindVersion})`, () => {
  const policy = [
    'grant dr name allowed.example.test A;',
    'grant dr name six.example.test AAAA;',
    'grant dr name alias.example.test CNAME;',
    'grant dr name text.example.test A CNAME;',
    'grant dr name chained.example.test A;',
    'grant dr wildcard *.wild.example.test A;',
  ].join(' ');
  let server: NameServer;
  beforeAll(async () => {
    const records = [
      'chained IN CNAME allowed',
      'text IN TXT "heritage=external-dns,external-dns/owner=east-cluster,external-dns/resource=ingress/a/b"',
      'text IN A 192.0.2.10',
    ];
    server = await startNamed({ zone, policy, records, algorithm: 'hmac-sha512' });
  });
  afterAll(() => server?.stop());

  it.each([
    ['AAAA', 'six.example.test', '2001:db8::10', '2001:DB8:0:0::20'],
    ['CNAME', 'alias.example.test', 'lb.east.example.net', 'LB.West.example.net.'],
    ['A', '*.wild.example.test', '192.0.2.10', '198.51.100.10'],
  ] as const)('redirects %s records', async (type, record, before, after) => {
    const driver = open(server, { type, record });
    await driver.point([before], await driver.current());
    const change = await driver.point([after], await driver.current());
    expect(change.id).toMatch(/^serial \d+$/);
    await driver.settled(change);
    expect((await driver.current()).values).toEqual([plainValue(type, after)]);
  });

  it('refuses an address where a CNAME stands, which the server would ignore in silence', async () => {
    const driver = open(server, { record: 'chained.example.test' });
    expect(await failure(driver.current())).toMatchObject({
      kind: 'refused',
      message: expect.stringContaining('is a CNAME to allowed.example.test'),
    });
  });

  it('does not make a CNAME of a name that other records have', async () => {
    const driver = open(server, { record: 'text.example.test', type: 'CNAME' });
    const error = await failure(driver.point(['lb.example.net'], await driver.current()));
    expect(error).toMatchObject({ kind: 'conflict', next: expect.stringContaining('another type excludes') });
  });

  it('names the key and the statement that is missing when the update is refused', async () => {
    const driver = open(server, { record: 'forbidden.example.test' });
    const error = await failure(driver.point(['192.0.2.10'], await driver.current()));
    expect(error).toMatchObject({ kind: 'denied', retryable: false });
    expect(error.message).toContain('REFUSED');
    expect(error.next).toContain('grant dr name');
    const findings = await driver.doctor();
    expect(findings).toContainEqual({ ok: false, what: error.message, next: error.next });
    expect((await driver.current()).values).toEqual([]);
  });

  it.each<[string, Partial<Rfc2136Config['key']>, string]>([
    ['BADKEY', { name: 'nobody' }, 'rfc2136.key.name'],
    ['BADKEY', { algorithm: 'hmac-sha256' }, 'rfc2136.key.algorithm'],
    ['BADSIG', { secret: Buffer.alloc(32, 7).toString('base64') }, 'rfc2136.key.secret'],
  ])('tells %s: what differs from the server', async (code, key, advice) => {
    const driver = open(server, { record: 'allowed.example.test', key: { ...server.key, ...key } });
    const error = await failure(driver.point(['192.0.2.99'], await driver.current()));
    expect(error).toMatchObject({ kind: 'denied', next: expect.stringContaining(advice) });
    expect(error.message).toContain(code);
    expect(`${error.message}${error.next}${error.stack}`).not.toContain(key.secret ?? server.key.secret);
    expect((await driver.current()).values).toEqual([]);
  });

  it.each([
    // The server tells whole seconds.
    [-20, /(19 min 59 s|20 min|20 min 1 s) apart: this machine is behind/],
    [11, /(10 min 59 s|11 min|11 min 1 s) apart: this machine is ahead/],
  ])('tells how far the clocks are apart: %s min', async (minutes, message) => {
    const clock = { ...skippingClock(), now: () => Date.now() + minutes * 60_000 };
    const driver = open(server, { record: 'allowed.example.test' }, { clock });
    const error = await failure(driver.point(['192.0.2.99'], await driver.current()));
    expect(error).toMatchObject({ kind: 'denied', next: expect.stringContaining('NTP') });
    expect(error.message).toMatch(message);
    expect((await driver.current()).values).toEqual([]);
  });

  it.each([
    ['BIND', startNamed, 'grant dr name allowed.example.test A;'],
    [
      'Knot DNS',
      startKnot,
      'update-owner: name\nupdate-owner-match: equal\nupdate-owner-name: [allowed]\nupdate-type: [A]',
    ],
  ])('lets the key change one record only, and the doctor sees which: %s', async (name, start, limited) => {
    if (name !== 'BIND' && knotVersion === undefined) return;
    await using server = await start({ zone, policy: limited });
    const allowed = open(server, { record: 'allowed.example.test' });
    const forbidden = open(server, { record: 'forbidden.example.test' });
    expect(await failure(forbidden.point(['192.0.2.10'], await forbidden.current()))).toMatchObject({ kind: 'denied' });
    const said = async (driver: Rfc2136Traffic) =>
      (await driver.doctor()).filter(({ what }) => /may send updates|REFUSED|BADKEY/.test(what)).map(({ ok }) => ok);
    expect(await said(forbidden)).toEqual([false]);
    expect(await said(allowed)).toEqual([true]);
    await allowed.settled(await allowed.point(['192.0.2.10'], await allowed.current()));
    expect((await allowed.current()).values).toEqual(['192.0.2.10']);
  });

  it('finds external-dns by what it leaves beside its records', async () => {
    const driver = open(server, { record: 'text.example.test' });
    expect(await driver.doctor()).toContainEqual(
      expect.objectContaining({ ok: false, severity: 'warning', what: expect.stringContaining('owner east-cluster') }),
    );
  });

  it('tells a zone that the server does not have, and a server that is not there', async () => {
    const foreign = open(server, { zone: 'example.org', record: 'orders.example.org' });
    expect(await failure(foreign.current())).toMatchObject({
      kind: 'unreachable',
      message: expect.stringContaining('REFUSED'),
    });
    expect((await foreign.doctor())[0]).toMatchObject({ ok: false, what: expect.stringContaining('REFUSED') });
    const nowhere = open(server, { server: '127.0.0.1:1' });
    const error = await failure(nowhere.current());
    expect(error).toMatchObject({
      kind: 'unreachable',
      retryable: true,
      where: 'name server 127.0.0.1:1, zone example.test',
    });
  });

  it('waits for secondaries, and says which one lags and by how much', async () => {
    await using primary = await startNamed({ zone });
    await using secondary = await startNamed({ zone, primary });
    const nameservers = [primary.server, secondary.server];
    const driver = open(primary, { nameservers });
    const change = await driver.point(['192.0.2.10'], await driver.current());
    expect(await driver.answers()).toEqual([
      { server: primary.server, values: ['192.0.2.10'] },
      { server: secondary.server, values: [] },
    ]);
    const late = await failure(driver.settled(change, AbortSignal.timeout(300)));
    expect(late).toMatchObject({ kind: 'unreachable', retryable: true });
    expect(late.message).toContain(`${secondary.server} answers nothing (serial 1, the primary has 2)`);
    expect(late.message).not.toContain(`${primary.server} answers`);
    const settling = driver.settled(change);
    await secondary.notify();
    await settling;
    expect((await driver.answers()).map(({ values }) => values)).toEqual([['192.0.2.10'], ['192.0.2.10']]);
    // A secondary in the region that was lost must not stop the redirect.
    await secondary.stop();
    await driver.settled(await driver.point(['198.51.100.10'], await driver.current()));
    expect((await driver.answers())[1]).toMatchObject({
      server: secondary.server,
      values: [],
      error: expect.any(String),
    });
  });

  it('finds the servers that the zone names, with their addresses, without any resolver', async () => {
    // Nothing listens at the second address.
    await using primary = await startNamed({ zone, nameservers: ['127.0.0.1', '127.0.0.9'] });
    const driver = open(primary, { nameservers: undefined }, { nameserverPort: primary.port });
    await driver.settled(await driver.point(['192.0.2.10'], await driver.current()));
    expect(await driver.answers()).toEqual([
      { server: 'ns1.example.test (127.0.0.1)', values: ['192.0.2.10'] },
      { server: 'ns2.example.test (127.0.0.9)', values: [], error: expect.stringContaining('ECONNREFUSED') },
    ]);
    const findings = (await driver.doctor()).filter(({ ok }) => !ok);
    expect(findings.map(({ what }) => what)).toEqual([
      expect.stringContaining('ns2.example.test (127.0.0.9) does not answer'),
    ]);
  });

  it('succeeds once when the answer is lost and the update is sent again', async () => {
    await using primary = await startNamed({ zone });
    await using proxy = await startDnsProxy(primary);
    const driver = open(primary, { server: proxy.server });
    let lost = 0;
    proxy.mangle = (answer, transport) => {
      if (transport === 'udp') return answer;
      lost++;
      return undefined;
    };
    await driver.settled(await driver.point(['192.0.2.10'], await driver.current()));
    expect(lost).toBe(1);
    expect((await driver.current()).values).toEqual(['192.0.2.10']);
    expect((await driver.doctor())[0]?.what).toContain('serial 2');
  });

  it('gives up on a server that takes updates and never answers, having tried by TCP and UDP', async () => {
    await using primary = await startNamed({ zone });
    await using proxy = await startDnsProxy(primary);
    const clock = { ...skippingClock(), now: () => Date.now() };
    const driver = open(primary, { server: proxy.server }, { attempts: 2, clock });
    const before = await driver.current();
    const isUpdate = (message: Buffer) => ((message.readUInt16BE(2) >> 11) & 0xf) === 5;
    const tried: string[] = [];
    proxy.mangle = (answer, transport) => {
      if (!isUpdate(answer)) return answer;
      tried.push(transport);
      return transport === 'tcp' ? undefined : Buffer.from('noise');
    };
    const error = await failure(driver.point(['192.0.2.10'], before, AbortSignal.timeout(400)));
    expect(error).toMatchObject({ kind: 'interrupted' });
    expect(tried).toEqual(['tcp', 'udp']);
    proxy.mangle = (answer) => answer;
    expect(await driver.point(['192.0.2.10'], before)).toMatchObject({ id: 'unchanged' });
  });

  it.each<['A' | 'CNAME', string]>([
    ['A', '192.0.2.99'],
    ['CNAME', 'lb.example.net'],
  ])('changes nothing when a rival made a %s record after the last look', async (type, value) => {
    await using primary = await startNamed({ zone });
    await using proxy = await startDnsProxy(primary);
    const record = `orders.${zone}`;
    const driver = open(primary, { server: proxy.server, record });
    const rival = open(primary, { type, record });
    let seen: Buffer = Buffer.alloc(0);
    proxy.mangle = (answer) => {
      seen = answer;
      return answer;
    };
    const absent = await driver.current();
    await rival.point([value], await rival.current());
    // The driver goes on seeing what it saw: only the server can notice.
    proxy.mangle = (answer, transport) =>
      transport === 'tcp' ? answer : Buffer.concat([answer.subarray(0, 2), seen.subarray(2)]);
    expect(await failure(driver.point(['198.51.100.10'], absent))).toMatchObject({ kind: 'conflict' });
    expect((await rival.current()).values).toEqual([value]);
  });

  it.each<[string, (answer: Buffer) => Buffer, string]>([
    ['without its signature', withoutLast, 'it is not signed (it says NOERROR)'],
    ['with another result', (answer) => flipped(answer, 3, 5), 'its signature is wrong'],
    ['with a changed signature', (answer) => flipped(answer, answer.length - 20, 1), 'its signature is wrong'],
  ])('does not believe an answer %s', async (_, change, message) => {
    await using primary = await startNamed({ zone });
    await using proxy = await startDnsProxy(primary);
    const driver = open(primary, { server: proxy.server });
    const before = await driver.current();
    proxy.mangle = (answer, transport) => (transport === 'tcp' ? change(answer) : answer);
    const error = await failure(driver.point(['192.0.2.10'], before));
    expect(error).toMatchObject({ kind: 'denied', message: expect.stringContaining('cannot be believed') });
    expect(error.message).toContain(message);
  });
});

/** The message without its last record, the signature. */
function withoutLast(message: Buffer): Buffer {
  const { last } = readMessage(message);
  const bare = Buffer.from(message.subarray(0, last?.start));
  bare.writeUInt16BE(message.readUInt16BE(10) - 1, 10);
  return bare;
}

function flipped(message: Buffer, at: number, bits: number): Buffer {
  const copy = Buffer.from(message);
  copy.writeUInt8(copy.readUInt8(at) ^ bits, at);
  return copy;
}
