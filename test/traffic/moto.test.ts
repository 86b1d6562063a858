import { randomUUID } from 'node:crypto';
import { ChangeResourceRecordSetsCommand, type ResourceRecordSet, Route53Client } from '@aws-sdk/client-route-53';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import type { Route53Config } from '../../src/config/types.ts';
import { Route53Traffic } from '../../src/traffic/route53.ts';
import { S3Switch } from '../../src/traffic/switch-s3.ts';
import { trafficConformance } from '../conformance/traffic.ts';
import { hasMoto, type Moto, motoCredentials, startMoto } from '../harness/moto.ts';
import { skippingClock } from './support.ts';

const endpoints = { east: '192.0.2.10', west: '198.51.100.10' };
const set = (record: string, site: keyof typeof endpoints, form: Partial<ResourceRecordSet>) =>
  ({
    Name: record,
    Type: 'A',
    TTL: 30,
    ResourceRecords: [{ Value: endpoints[site] }],
    ...form,
  }) satisfies ResourceRecordSet;

/** How each routing looks before dr comes; `id` gives a site's set identifier. */
const routings = {
  simple: () => [],
  weighted: (record: string, id: (site: string) => string) => [
    set(record, 'east', { SetIdentifier: id('east'), Weight: 100 }),
    set(record, 'west', { SetIdentifier: id('west'), Weight: 0 }),
  ],
  failover: (record: string, id: (site: string) => string) => [
    set(record, 'east', { SetIdentifier: id('east'), Failover: 'PRIMARY' }),
    set(record, 'west', { SetIdentifier: id('west'), Failover: 'SECONDARY' }),
  ],
} satisfies Record<Route53Config['routing'], (record: string, id: (site: string) => string) => ResourceRecordSet[]>;

describe.skipIf(!hasMoto)('needs moto_server, a Route 53 and S3 that are not ours', () => {
  let moto: Moto;
  beforeAll(async () => {
    moto = await startMoto();
  });
  afterAll(() => moto?.stop());

  for (const routing of ['simple', 'weighted', 'failover'] as const) {
    // moto neither compares what a DELETE names nor lets a set be made that it has seen before: those tests are skipped by name.
    trafficConformance(`route53 at moto, ${routing}`, async () => {
      const zoneName = `${randomUUID()}.test`;
      const zone = await moto.makeZone(zoneName);
      const record = `orders.${zoneName}`;
      // moto deletes by set identifier in all zones at once.
      const setIdentifiers = { east: randomUUID(), west: randomUUID() };
      const premade = routings[routing](record, (site) => setIdentifiers[site === 'east' ? 'east' : 'west']);
      if (premade.length > 0) {
        const client = new Route53Client({
          region: 'us-east-1',
          endpoint: moto.endpoint,
          credentials: motoCredentials,
        });
        const Changes = premade.map((ResourceRecordSet) => ({ Action: 'CREATE' as const, ResourceRecordSet }));
        await client.send(new ChangeResourceRecordSetsCommand({ HostedZoneId: zone, ChangeBatch: { Changes } }));
        client.destroy();
      }
      const config: Route53Config = {
        kind: 'route53',
        zone,
        record,
        type: 'A',
        ttlSeconds: 30,
        routing,
        setIdentifiers: routing === 'simple' ? {} : setIdentifiers,
        endpoint: moto.endpoint,
        nameservers: [],
        credentials: motoCredentials,
      };
      const tuning = { clock: skippingClock(), attempts: 2 };
      return {
        open: () => new Route53Traffic(config, silentLog, tuning, { endpoints, resolvers: [] }),
        hasNameServers: false,
        isFaithful: false,
        sites: routing === 'simple' ? undefined : Object.values(endpoints),
        isPremade: routing !== 'simple',
        [Symbol.asyncDispose]: async () => {},
      };
    });
  }

  it('a health switch is written only in place of what was read', async () => {
    await moto.makeBucket('switches');
    const at = new S3Switch({
      url: 's3://switches/active/orders',
      region: 'eu-central-1',
      endpoint: moto.endpoint,
      forcePathStyle: true,
      credentials: motoCredentials,
    });
    expect(await at.read()).toBeUndefined();
    await at.checkWrite();
    expect(await at.write('one', undefined)).toBe('written');
    const one = await at.read();
    expect(await at.write('two', undefined)).toBe('changed');
    expect(await at.write('two', one?.tag)).toBe('written');
    expect(await at.write('three', one?.tag)).toBe('changed');
    await at.checkWrite();
    expect((await at.read())?.text).toBe('two');
    at.close();
  });
});
