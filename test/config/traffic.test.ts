import { beforeAll, describe, expect, it } from 'vitest';
import { parseConfig } from '../../src/config/load.ts';
import { ConfigError, formatProblem } from '../../src/config/problems.ts';
import { exampleText, recipient } from './example.ts';

const secret = 'bmV2ZXItdG9sZC1uZXZlci10b2xkLTE3Mjk=';
const env = { ORDERS_DATABASE_URL: 'postgresql://dr@db.east:5432/orders', TSIG_SECRET: secret };
let publicKey: string;
beforeAll(async () => {
  publicKey = await recipient();
});

const route53 = 'route53: { zone: Z123, record: orders.example.com, type: A, ttl: 30 }';
const endpoints = 'endpoints: { east: 192.0.2.10, west: 198.51.100.10 }';
const rfc2136 =
  'rfc2136: { server: "ns1.example.com:5353", zone: example.com., record: orders.example.com., key: { name: dr, secret: "${TSIG_SECRET}" } }';
const health =
  'health: { record: orders.example.com, primary: east, switches: [{ url: "s3://acme-switch/active/orders", region: eu-central-1 }] }';

const httpRoute = 'httpRoute: { cluster: { context: hub }, namespace: shop, name: orders, rule: all }';

/** The example with another driver and other entries: what it comes to, or what is wrong with it. */
function read(driver: string, edit: (text: string) => string = (text) => text) {
  const text = edit(exampleText(publicKey).replace(route53, () => driver));
  try {
    const { config, warnings } = parseConfig(text, '/dr.yaml', env);
    return { traffic: config.traffic['orders'], config, warnings: warnings.map(formatProblem), problems: [] };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { traffic: undefined, config: undefined, warnings: [], problems: error.problems.map(formatProblem) };
  }
}

describe('a traffic entry', () => {
  it('of DNS updates, with its defaults', () => {
    const { traffic, warnings } = read(rfc2136);
    expect(warnings).toEqual([]);
    expect(traffic).toEqual({
      name: 'orders',
      driver: {
        kind: 'rfc2136',
        server: 'ns1.example.com:5353',
        zone: 'example.com',
        record: 'orders.example.com',
        type: 'A',
        ttlSeconds: 30,
        key: { name: 'dr', algorithm: 'hmac-sha256', secret },
        nameservers: undefined,
      },
      endpoints: { east: '192.0.2.10', west: '198.51.100.10' },
      resolvers: undefined,
    });
  });

  it.each(['httpRoute', 'virtualService'] as const)('of a %s, whose endpoints are backends', (kind) => {
    const names = (text: string) => text.replace(endpoints, 'endpoints: { east: orders-east, west: shop/orders-west }');
    const { traffic, warnings, problems } = read(httpRoute.replace('httpRoute', kind), names);
    expect({ warnings, problems }).toEqual({ warnings: [], problems: [] });
    expect(traffic).toMatchObject({
      driver: {
        kind,
        cluster: { kubeconfig: undefined, context: 'hub' },
        namespace: 'shop',
        name: 'orders',
        rule: 'all',
      },
      endpoints: { east: 'orders-east', west: 'shop/orders-west' },
    });
    const wrong = (value: string) =>
      read(httpRoute, (text) => names(text).replace('orders-east', value)).problems.join();
    expect(wrong('Orders')).toContain('endpoints.east: is no name of a backend');
    expect(wrong('shop/orders-west')).toContain('endpoints.west: is the endpoint of east too');
    const twin = `twin: { ${httpRoute}, endpoints: { east: a, west: b } }`;
    const twice = read(httpRoute, (text) => names(text).replace('traffic:\n', `traffic:\n  ${twin}\n`));
    expect(twice.problems.join()).toContain('httpRoute.name: is redirected by traffic.twin too');
  });

  it('of a health switch, with its defaults', () => {
    const { traffic, warnings } = read(health);
    expect(warnings).toEqual([]);
    expect(traffic?.driver).toEqual({
      kind: 'health',
      record: 'orders.example.com',
      type: 'A',
      primary: 'east',
      switches: [
        {
          url: 's3://acme-switch/active/orders',
          region: 'eu-central-1',
          endpoint: undefined,
          forcePathStyle: false,
          credentials: undefined,
        },
      ],
      nameservers: undefined,
    });
  });

  it('of weighted records', () => {
    const { traffic } = read(route53.replace('ttl: 30', 'ttl: 30, routing: weighted, setIdentifiers: { east: blue }'));
    expect(traffic?.driver).toMatchObject({ routing: 'weighted', setIdentifiers: { east: 'blue' } });
  });

  it('warns of a secret that stands in the file, without showing it', () => {
    const { warnings } = read(rfc2136.replace('${TSIG_SECRET}', secret));
    expect(warnings).toEqual([
      expect.stringContaining('traffic.orders.rfc2136.key.secret: a secret stands in the file'),
    ]);
    expect(warnings.join()).not.toContain(secret);
  });

  it.each<[string, string, string]>([
    [
      'no driver',
      '',
      'traffic.orders: says not where the name is kept: write one of route53, rfc2136, health, httpRoute and',
    ],
    ['two drivers', `${route53}, ${rfc2136}`, 'traffic.orders: says route53 and rfc2136: write one of'],
    [
      'a record of another zone',
      rfc2136.replace('record: orders.example.com.', 'record: orders.example.org'),
      'does not belong to the zone example.com',
    ],
    [
      'a zone that is none',
      rfc2136.replace('zone: example.com.', 'zone: "not a zone"'),
      'rfc2136.zone: is no name of a zone',
    ],
    [
      'a CNAME at the top',
      rfc2136.replace('record: orders.example.com.', 'record: example.com, type: CNAME'),
      'the top of a zone cannot be a CNAME',
    ],
    ['a server that is none', rfc2136.replace('ns1.example.com:5353', 'ns1:70000'), '"ns1:70000" is no name server'],
    ['a short secret', rfc2136.replace('${TSIG_SECRET}', 'c2hvcnQ='), 'is no TSIG secret of 16 bytes or more'],
    [
      'a weak algorithm',
      rfc2136.replace('name: dr', 'name: dr, algorithm: hmac-md5'),
      'must be one of hmac-sha256, hmac-sha512',
    ],
    [
      'a foreign primary',
      health.replace('primary: east', 'primary: wset'),
      'health.primary: there is no endpoint of a site "wset"; did you mean west?',
    ],
    ['a bucket without region', health.replace(', region: eu-central-1', ''), 'health.switches[0]: has no region'],
    ['a bucket without key', health.replace('/active/orders', ''), 'is no place for a document'],
    ['no switch', health.replace(/\[.*\]/, '[]'), 'needs at least one place'],
    [
      'an identifier of no site',
      route53.replace('ttl: 30', 'ttl: 30, routing: weighted, setIdentifiers: { wset: a }'),
      'there is no endpoint of a site "wset"; did you mean west?',
    ],
    [
      'one identifier for two',
      route53.replace('ttl: 30', 'ttl: 30, routing: weighted, setIdentifiers: { east: west }'),
      'gives two sites one identifier',
    ],
    ['a namespace that is none', httpRoute.replace('shop', 'Shop'), 'httpRoute.namespace: is no name of a namespace'],
    ['a rule by a bare number', httpRoute.replace('rule: all', 'rule: 0'), 'must be the name or number of a rule'],
    ['an unknown key', rfc2136.replace('secret:', 'sceret:'), 'unknown key; did you mean secret?'],
  ])('is refused with %s', (_, driver, reason) => {
    const found = read(driver, (text) => text.replace('{ ,', '{').replace('{  ,', '{'));
    expect(found.problems.join('\n')).toContain(reason);
    expect(found.problems.join('\n')).not.toContain(secret);
  });

  it('is refused when two sites have one value that has to tell them apart', () => {
    const same = (text: string) => text.replace(endpoints, 'endpoints: { east: 192.0.2.10, west: 192.0.2.10 }');
    expect(read(route53, same).problems).toEqual([]);
    for (const driver of [health, route53.replace('ttl: 30', 'ttl: 30, routing: failover')]) {
      expect(read(driver, same).problems.join()).toContain(
        'traffic.orders.endpoints.west: is the endpoint of east too',
      );
    }
  });

  it('is refused when another entry redirects the same name', () => {
    const twice = (text: string) => text.replace('traffic:\n', `traffic:\n  twin: { ${route53}, ${endpoints} }\n`);
    expect(read(rfc2136, twice).problems.join()).toContain('is redirected by traffic.twin too');
  });

  it('is doubted with two switches', () => {
    const two = health.replace('[{', '[{ url: "file:///srv/switch" }, {');
    expect(read(two).warnings).toEqual([expect.stringContaining('use one or three')]);
  });
});

describe('triggers', () => {
  const withTriggers = (lines: string) => read(route53, (text) => `${text}validation: { triggers: ${lines} }\n`);

  it('take shares and times as people write them', () => {
    const { config } = withTriggers(
      '{ errors: { above: 2.5%, over: 1m }, p95: { above: 800ms }, prometheus: { url: "http://prom:9090", p95: "q" } }',
    );
    expect(config?.validation.triggers).toEqual({
      errors: { above: 0.025, overMs: 60_000 },
      p95: { aboveMs: 800, overMs: 300_000 },
      health: { failures: 3, withinMs: 120_000 },
      prometheus: { url: 'http://prom:9090', errors: undefined, p95: 'q' },
    });
    expect(withTriggers('{ errors: { above: "0.1" } }').config?.validation.triggers.errors.above).toBe(0.1);
  });

  it.each([
    ['{ errors: { above: 500% } }', 'is no share'],
    ['{ errors: { above: much } }', 'is no share'],
    ['{ health: { failures: 0 } }', 'must be a whole number from 1'],
    ['{ prometheus: { url: prom } }', 'must be an http'],
  ])('are refused: %s', (lines, reason) => {
    expect(withTriggers(lines).problems.join()).toContain(reason);
  });
});
