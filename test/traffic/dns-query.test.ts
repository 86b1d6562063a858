import { createSocket } from 'node:dgram';
import type { AddressInfo } from 'node:net';
import { decode, encode } from 'dns-packet';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { askServer } from '../../src/traffic/dns-query.ts';
import { parseServer } from '../../src/traffic/dns-transport.ts';
import { type Route53Server, startRoute53 } from '../harness/route53/server.ts';

const name = 'orders.example.com';
let server: Route53Server;

beforeEach(async () => {
  server = await startRoute53({ zoneId: 'ZTEST', zoneName: 'example.com' });
  server.zone.seed(
    { name, type: 'A', ttl: 30, values: ['192.0.2.11', '192.0.2.10'] },
    { name, type: 'AAAA', ttl: 20, values: ['2001:db8::10'] },
    { name: 'text.example.com', type: 'TXT', ttl: 20, values: ['"hello"'] },
  );
});
afterEach(() => server.close());

describe('asking an authoritative server', () => {
  it('returns its values sorted with their TTL, by type', async () => {
    expect(await askServer(server.nameserver, 'Orders.Example.com.', 'A', 1000)).toEqual({
      values: ['192.0.2.10', '192.0.2.11'],
      ttlSeconds: 30,
    });
    expect((await askServer(server.nameserver, name, 'AAAA', 1000)).values).toEqual(['2001:db8::10']);
  });

  it('returns nothing for a name that is not there and for a type that the name does not have', async () => {
    for (const absent of ['nobody.example.com', 'text.example.com']) {
      expect(await askServer(server.nameserver, absent, 'A', 1000)).toEqual({ values: [], ttlSeconds: undefined });
    }
  });

  it('asks by TCP when the answer is cut short', async () => {
    server.faults.dns = 'truncate';
    expect((await askServer(server.nameserver, name, 'A', 1000)).values).toHaveLength(2);
    expect(server.queries).toEqual({ udp: 1, tcp: 1 });
  });

  it('asks twice by UDP before it gives up', async () => {
    server.faults.dns = 'silent';
    await expect(askServer(server.nameserver, name, 'A', 50)).rejects.toThrow('no answer within 50 ms');
    expect(server.queries).toEqual({ udp: 2, tcp: 0 });
  });

  it('believes no refusal, no cache and no server that does not serve the zone', async () => {
    await expect(askServer(server.nameserver, 'orders.example.org', 'A', 1000)).rejects.toThrow('REFUSED');
    server.faults.dns = 'not-authoritative';
    await expect(askServer(server.nameserver, name, 'A', 1000)).rejects.toThrow('not authoritative');
  });

  it('says so when nothing listens or the host does not exist', async () => {
    await server.close();
    await expect(askServer(server.nameserver, name, 'A', 500)).rejects.toThrow('ECONNREFUSED');
    await expect(askServer('name-server.invalid', name, 'A', 3000)).rejects.toThrow('its address');
  });

  it('stops when the caller stops', async () => {
    server.faults.dns = 'silent';
    const stop = new AbortController();
    const pending = askServer(server.nameserver, name, 'A', 60_000, stop.signal);
    await expect.poll(() => server.queries.udp).toBe(1);
    stop.abort(new Error('enough'));
    await expect(pending).rejects.toThrow('enough');
    expect(server.queries.udp).toBe(1);
  });

  it('ignores answers with a foreign id, to another question, or that are noise', async () => {
    const liar = createSocket('udp4');
    await new Promise<void>((resolve) => liar.bind(0, '127.0.0.1', resolve));
    const answer = { type: 'A', name, ttl: 1, class: 'IN' } as const;
    liar.on('message', (bytes, from) => {
      const query = decode(bytes);
      const id = query.id ?? 0;
      const questions = query.questions ?? [];
      const reply = (packet: Buffer) => liar.send(packet, from.port, from.address);
      reply(Buffer.from('noise'));
      const forged = [{ ...answer, data: '203.0.113.66' }];
      reply(encode({ type: 'response', id: (id + 1) % 65_536, flags: 1 << 10, questions, answers: forged }));
      const other = [{ type: 'A', name: 'other.example.com' }] as const;
      reply(encode({ type: 'response', id, flags: 1 << 10, questions: [...other], answers: forged }));
      reply(encode({ type: 'response', id, flags: 1 << 10, questions, answers: [{ ...answer, data: '192.0.2.77' }] }));
    });
    const { port } = liar.address() as AddressInfo;
    try {
      expect((await askServer(`127.0.0.1:${port}`, name, 'A', 2000)).values).toEqual(['192.0.2.77']);
    } finally {
      liar.close();
    }
  });
});

it('reads name servers as people write them', () => {
  expect(parseServer('ns-1.awsdns-01.org')).toEqual({ host: 'ns-1.awsdns-01.org', port: 53 });
  expect(parseServer('127.0.0.1:5300')).toEqual({ host: '127.0.0.1', port: 5300 });
  expect(parseServer('2001:db8::1')).toEqual({ host: '2001:db8::1', port: 53 });
  expect(parseServer('[2001:db8::1]:5300')).toEqual({ host: '2001:db8::1', port: 5300 });
  for (const wrong of ['', 'host:', 'host:70000', 'host:0', '[2001:db8::1', 'a:b:c']) {
    expect(() => parseServer(wrong), wrong).toThrow('is not a name server');
  }
});
