import { randomUUID } from 'node:crypto';
import { ChangeResourceRecordSetsCommand, Route53Client } from '@aws-sdk/client-route-53';
import { describe, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { MemoryTraffic, MemoryZone } from '../../src/traffic/memory.ts';
import { Route53Traffic } from '../../src/traffic/route53.ts';
import { Route53Api } from '../../src/traffic/route53-api.ts';
import { trafficConformance } from '../conformance/traffic.ts';
import { startRoute53 } from '../harness/route53/server.ts';
import { route53Config, testCredentials } from './support.ts';

trafficConformance('memory', async () => {
  const zone = new MemoryZone();
  return {
    open: () => new MemoryTraffic({ record: 'orders.example.com', type: 'A', ttlSeconds: 30 }, zone),
    hold: () => zone.hold(),
    release: () => zone.release(),
    hasNameServers: true,
    isFaithful: true,
    [Symbol.asyncDispose]: async () => {},
  };
});

trafficConformance('memory, gradual', async () => {
  const zone = new MemoryZone();
  const options = { record: 'orders.example.com', type: 'A', ttlSeconds: 30, shifting: 'gradual' } as const;
  return {
    open: () => new MemoryTraffic(options, zone),
    hold: () => zone.hold(),
    release: () => zone.release(),
    hasNameServers: true,
    isFaithful: true,
    [Symbol.asyncDispose]: async () => {},
  };
});

const sites = { east: '192.0.2.10', west: '198.51.100.10', south: '203.0.113.10' };
const set = (site: keyof typeof sites) => ({
  name: 'orders.example.com',
  type: 'A',
  ttl: 30,
  values: [sites[site]],
  setIdentifier: site,
});

/** How each routing of Route 53 looks before dr comes. */
const routings = [
  { routing: 'simple', premade: [], endpoints: {} },
  {
    routing: 'weighted',
    premade: [
      { ...set('east'), weight: 100 },
      { ...set('west'), weight: 0 },
      { ...set('south'), weight: 0 },
    ],
    endpoints: sites,
  },
  {
    routing: 'failover',
    premade: [
      { ...set('east'), failover: 'PRIMARY' },
      { ...set('west'), failover: 'SECONDARY' },
    ],
    endpoints: { east: sites.east, west: sites.west },
  },
] as const;

for (const { routing, premade, endpoints } of routings) {
  trafficConformance(`route53 with the embedded endpoint, ${routing}`, async () => {
    const server = await startRoute53({ zoneId: 'ZTEST', zoneName: 'example.com' });
    server.zone.seed(...premade);
    const places = { endpoints, resolvers: [server.nameserver] };
    return {
      open: () => new Route53Traffic(route53Config(server, { routing }), silentLog, {}, places),
      hold: () => server.zone.hold(),
      release: () => server.zone.release(),
      hasNameServers: true,
      isFaithful: true,
      sites: premade.length === 0 ? undefined : Object.values(endpoints),
      isPremade: premade.length > 0,
      [Symbol.asyncDispose]: () => server.close(),
    };
  });
}

/**
 * Any other endpoint: DR_TEST_ROUTE53_ENDPOINT (a URL, or `aws` for the real one), DR_TEST_ROUTE53_ZONE (the zone id), and
 * DR_TEST_ROUTE53_NAMESERVERS (separated by commas; `zone` = the zone's own; none = nobody is asked).
 * DR_TEST_ROUTE53_LENIENT=1 is for emulators that do not compare what a DELETE names (moto 5): their tests are skipped by name. Credentials come from
 * the AWS chain. Every test writes a record of its own under a random name and removes it.
 */
const {
  DR_TEST_ROUTE53_ENDPOINT: endpoint,
  DR_TEST_ROUTE53_ZONE: zone,
  DR_TEST_ROUTE53_NAMESERVERS: servers,
  DR_TEST_ROUTE53_LENIENT: lenient,
} = process.env;

if (endpoint === undefined || zone === undefined) {
  describe('traffic contract: another Route 53 endpoint', () => {
    it.skip('needs DR_TEST_ROUTE53_ENDPOINT and DR_TEST_ROUTE53_ZONE', () => {});
  });
} else {
  const url = endpoint === 'aws' ? undefined : endpoint;
  trafficConformance(`route53 at ${endpoint}`, async () => {
    const credentials =
      process.env['AWS_ACCESS_KEY_ID'] === undefined && url !== undefined ? testCredentials : undefined;
    const api = new Route53Api({ zone, endpoint: url, credentials, log: silentLog });
    const record = `dr-test-${randomUUID()}.${(await api.zoneFacts()).name}`;
    const nameservers = servers === 'zone' ? undefined : (servers?.split(',') ?? []);
    const config = {
      kind: 'route53',
      zone,
      record,
      type: 'A',
      ttlSeconds: 30,
      routing: 'simple',
      setIdentifiers: {},
      endpoint: url,
      credentials,
      nameservers,
    } as const;
    return {
      open: () => new Route53Traffic(config, silentLog),
      hasNameServers: servers !== undefined,
      hasResolver: false,
      isFaithful: lenient === undefined,
      [Symbol.asyncDispose]: async () => {
        const client = new Route53Client({
          region: 'us-east-1',
          ...(url === undefined ? {} : { endpoint: url }),
          ...(credentials === undefined ? {} : { credentials }),
        });
        for (const set of await api.recordsOf(record)) {
          const Changes = [{ Action: 'DELETE' as const, ResourceRecordSet: set }];
          await client.send(new ChangeResourceRecordSetsCommand({ HostedZoneId: zone, ChangeBatch: { Changes } }));
        }
        client.destroy();
        api.close();
      },
    };
  });
}
