import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import type { Route53Config } from '../../src/config/types.ts';
import { Route53Traffic } from '../../src/traffic/route53.ts';
import { type Route53Options, type Route53Server, startRoute53 } from '../harness/route53/server.ts';
import { route53Config, skippingClock } from './support.ts';

const record = { name: 'orders.example.com', type: 'A', ttl: 30, values: ['192.0.2.10'] };
let server: Route53Server;

async function start(options: Partial<Route53Options> = {}): Promise<void> {
  server = await startRoute53({ zoneId: 'ZTEST', zoneName: 'example.com', ...options });
}

beforeEach(() => start());
afterEach(() => server.close());

/** What the doctor says, and proof that it changed nothing. */
async function examine(change: Partial<Route53Config> = {}) {
  const before = { serial: server.zone.serial, records: server.zone.records() };
  const tuning = { clock: skippingClock(), dnsTimeoutMs: 100, attempts: 2 };
  const driver = new Route53Traffic(route53Config(server, change), silentLog, tuning);
  try {
    const findings = await driver.doctor();
    for (const finding of findings) expect(finding.ok || /\.$/.test(finding.next ?? '')).toBe(true);
    return { findings, wrong: findings.filter((finding) => !finding.ok) };
  } finally {
    driver.close();
    expect({ serial: server.zone.serial, records: server.zone.records() }).toEqual(before);
  }
}

describe('the doctor of Route 53 changes nothing and finds', () => {
  it('nothing wrong with a healthy record, having asked for every permission', async () => {
    server.zone.seed(record);
    const { findings, wrong } = await examine();
    expect(wrong).toEqual([]);
    expect(findings.map((finding) => finding.what)).toEqual([
      'hosted zone ZTEST (example.com) can be read',
      'orders.example.com A points to 192.0.2.10',
      'the TTL of orders.example.com A is 30 s',
      'these credentials may change the record',
      'these credentials may follow a change until it is in sync',
      `name server ${server.nameserver} answers 192.0.2.10`,
    ]);
    expect(new Set(server.calls)).toEqual(
      new Set(['GetHostedZone', 'ListResourceRecordSets', 'ChangeResourceRecordSets', 'GetChange']),
    );
  });

  it('a missing record, and no other fault', async () => {
    const { wrong } = await examine();
    expect(wrong).toEqual([{ ok: false, what: 'there is no record orders.example.com A', next: expect.any(String) }]);
  });

  it('a TTL that outlasts a redirect, now and after it', async () => {
    server.zone.seed({ ...record, ttl: 300 });
    const { wrong } = await examine({ ttlSeconds: 61 });
    expect(wrong.map((finding) => finding.what)).toEqual([
      'the TTL of orders.example.com A is 300 s',
      'a redirect would publish a TTL of 61 s',
    ]);
  });

  it.each(['ChangeResourceRecordSets', 'GetChange'])('the missing permission %s, and goes on', async (action) => {
    server.zone.seed(record);
    server.faults.always(action, { kind: 'deny' });
    const { wrong, findings } = await examine();
    expect(wrong).toHaveLength(1);
    expect(wrong[0]?.next).toContain(`route53:${action} `);
    expect(findings.at(-1)?.what).toContain('name server');
  });

  it('nothing to create again when the record is removed under its eyes', async () => {
    server.zone.seed(record);
    const remove = () => server.zone.apply([{ action: 'DELETE', set: record }]);
    server.faults.next('ChangeResourceRecordSets', { kind: 'before', act: () => void remove() });
    const driver = new Route53Traffic(route53Config(server), silentLog);
    const findings = await driver.doctor();
    driver.close();
    expect(findings).toContainEqual({ ok: true, what: 'these credentials may change the record' });
    expect(server.zone.records()).toEqual([]);
  });

  it('an endpoint that accepts what Route 53 must reject', async () => {
    server.zone.seed(record);
    server.faults.next('ChangeResourceRecordSets', { kind: 'accept' });
    const { wrong } = await examine();
    expect(wrong.map((finding) => finding.what)).toEqual([expect.stringContaining('not a faithful Route 53')]);
  });

  it('a wrong zone, and names the right one', async () => {
    server.zone.seed(record);
    const { wrong } = await examine({ zone: 'ZWRONG' });
    expect(wrong).toHaveLength(1);
    expect(wrong[0]?.next).toContain('to ZTEST, the zone example.com');
    const foreign = await examine({ record: 'orders.example.org' });
    expect(foreign.wrong[0]?.what).toBe('orders.example.org does not belong to the zone example.com');
  });

  it('an endpoint that refuses or does not answer', async () => {
    server.faults.always('GetHostedZone', { kind: 'status', status: 503 });
    expect((await examine()).wrong[0]?.what).toContain('answers with HTTP 503');
  });

  it('a record that dr cannot redirect', async () => {
    server.zone.seed({ ...record, setIdentifier: 'east', weight: 1 });
    expect((await examine()).wrong[0]?.what).toContain('redirects simple records');
  });

  it('name servers that say something else, nothing, or are no authority', async () => {
    server.zone.seed(record);
    server.zone.hold();
    server.zone.apply([{ action: 'UPSERT', set: { ...record, values: ['198.51.100.10'] } }]);
    const lagging = (await examine()).wrong;
    expect(lagging.map((finding) => finding.what)).toEqual([
      `name server ${server.nameserver} answers 192.0.2.10, but the record says 198.51.100.10`,
    ]);
    server.zone.release();
    for (const [mode, message] of [
      ['silent', 'no answer within 100 ms'],
      ['refuse', 'it answers REFUSED'],
      ['not-authoritative', 'not authoritative'],
    ] as const) {
      server.faults.dns = mode;
      const { wrong } = await examine();
      expect(wrong).toHaveLength(1);
      expect(wrong[0]?.what).toContain(message);
    }
  });

  it('a private zone without servers to ask, which nameservers of the configuration mend', async () => {
    await server.close();
    await start({ delegation: [] });
    server.zone.seed(record);
    expect((await examine()).wrong.map((finding) => finding.what)).toEqual([
      expect.stringContaining('the zone is private'),
    ]);
    expect((await examine({ nameservers: [server.nameserver] })).wrong).toEqual([]);
  });
});
