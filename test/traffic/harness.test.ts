import { Resolver } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { silentLog } from '../../src/base/log.ts';
import { Route53Traffic } from '../../src/traffic/route53.ts';
import { nodeBinary, startProcess } from '../harness/process.ts';
import { startRoute53 } from '../harness/route53/server.ts';
import { parseXml, writeXml } from '../harness/route53/xml.ts';
import { InvalidBatch } from '../harness/route53/zone.ts';
import { tempDir } from '../harness/temp.ts';
import { route53Config } from './support.ts';

const record = { name: 'orders.example.com', type: 'A', ttl: 30, values: ['192.0.2.10'] };
const zone = { zoneId: 'ZTEST', zoneName: 'example.com' };

function resolverOf(nameserver: string): Resolver {
  const resolver = new Resolver({ timeout: 2000, tries: 2 });
  resolver.setServers([nameserver]);
  return resolver;
}

describe('the embedded Route 53', () => {
  it('answers an ordinary resolver as a name server does', async () => {
    await using server = await startRoute53(zone);
    server.zone.seed(record);
    const resolver = resolverOf(server.nameserver);
    expect(await resolver.resolve4('orders.example.com', { ttl: true })).toEqual([{ address: '192.0.2.10', ttl: 30 }]);
    expect(await resolver.resolveSoa('example.com')).toMatchObject({ nsname: 'ns1.example.com', minttl: 5 });
    await expect(resolver.resolve4('nobody.example.com')).rejects.toMatchObject({ code: 'ENOTFOUND' });
    await expect(resolver.resolve6('orders.example.com')).rejects.toMatchObject({ code: 'ENODATA' });
    await expect(resolver.resolve4('example.org')).rejects.toMatchObject({ code: 'EREFUSED' });
    server.faults.dns = 'truncate';
    expect(await resolver.resolve4('orders.example.com')).toEqual(['192.0.2.10']);
    expect(server.queries.tcp).toBe(1);
  });

  it('applies all of a batch or nothing, each change seeing those before it', async () => {
    await using server = await startRoute53(zone);
    server.zone.seed(record);
    const other = { ...record, values: ['198.51.100.10'] };
    const change = (action: 'CREATE' | 'DELETE' | 'UPSERT', set: typeof record) => ({ action, set });
    const refused: Array<[ReturnType<typeof change>[], string]> = [
      [[change('DELETE', other)], 'the values provided do not match the current values'],
      [[change('DELETE', { ...record, ttl: 31 })], 'the values provided do not match the current values'],
      [[change('DELETE', record), change('DELETE', record)], 'but it was not found'],
      [[change('CREATE', other)], 'but it already exists'],
      [[change('UPSERT', other), change('CREATE', { ...record, name: 'a.example.org' })], 'is not permitted in zone'],
      [[change('UPSERT', { ...record, values: ['west'] })], 'is not a valid IPv4 address'],
      [[change('CREATE', { ...record, type: 'CNAME', values: ['a.b'] })], 'conflicts with other records'],
    ];
    for (const [batch, message] of refused) {
      expect(() => server.zone.apply(batch), message).toThrow(message);
      expect(() => server.zone.apply(batch)).toThrow(InvalidBatch);
      expect(server.zone.records()).toEqual([{ ...record, name: 'orders.example.com.' }]);
    }
    server.zone.apply([change('DELETE', record), change('CREATE', other)]);
    expect(server.zone.records()[0]?.values).toEqual(other.values);
  });

  it('publishes a change after its delay, in order', async () => {
    await using server = await startRoute53({ ...zone, insyncDelayMs: 30 });
    const changes = ['192.0.2.1', '192.0.2.2'].map((value) =>
      server.zone.apply([{ action: 'UPSERT', set: { ...record, values: [value] } }]),
    );
    expect(changes.map((change) => change.status)).toEqual(['PENDING', 'PENDING']);
    expect(server.zone.published(record.name, 'A')).toBeUndefined();
    await expect.poll(() => changes.map((change) => change.status)).toEqual(['INSYNC', 'INSYNC']);
    expect(server.zone.published(record.name, 'A')?.[0]?.values).toEqual(['192.0.2.2']);
  });

  it('runs as a process that keeps its records over a kill -9', async () => {
    const stateFile = join(await tempDir('route53'), 'zone.json');
    const main = join(import.meta.dirname, '../harness/route53/main.ts');
    const args = [main, '--zone-id', 'ZTEST', '--zone-name', 'example.com', '--state-file', stateFile];
    const start = async () => {
      const child = startProcess(nodeBinary, [...args, '--record', 'orders.example.com A 30 192.0.2.10']);
      const [line] = await child.waitFor(/\{"endpoint".*\}/);
      return { child, at: JSON.parse(line) as { endpoint: string; nameserver: string } };
    };
    const first = await start();
    const driver = new Route53Traffic(route53Config(first.at), silentLog);
    await driver.settled(await driver.point(['198.51.100.10'], await driver.current()));
    expect(await resolverOf(first.at.nameserver).resolve4('orders.example.com')).toEqual(['198.51.100.10']);
    driver.close();
    await first.child.kill9();
    expect(JSON.parse(readFileSync(stateFile, 'utf8'))).toMatchObject({ records: [{ values: ['198.51.100.10'] }] });
    const second = await start();
    expect(await resolverOf(second.at.nameserver).resolve4('orders.example.com')).toEqual(['198.51.100.10']);
    expect(await second.child.stop('SIGTERM')).toMatchObject({ code: 0 });
  });

  it('reads and writes XML with entities, and refuses what is not well formed', () => {
    const text = `a<b>&"c" 'd' é`;
    expect(parseXml(writeXml('t', text)).text).toBe(text);
    expect(
      parseXml('<?xml version="1.0"?><a xmlns="x"><b/><c>&#65;&#x42;</c></a>').children.map((c) => c.text),
    ).toEqual(['', 'AB']);
    for (const wrong of ['', '<a>', '<a></b>', '<a/><b/>', '<a>&what;</a>', '<a', '</a>']) {
      expect(() => parseXml(wrong), wrong).toThrow();
    }
  });
});
