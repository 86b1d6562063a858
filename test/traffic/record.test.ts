import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkedValues, generationOf, isInZone, plainName, plainValues, sameValues } from '../../src/traffic/record.ts';

describe('names', () => {
  it('are compared without case, trailing dot and escapes', () => {
    expect(plainName('Orders.Example.COM.')).toBe('orders.example.com');
    expect(plainName('\\052.example.com.')).toBe('*.example.com');
  });

  it('belong to a zone by whole labels', () => {
    expect(isInZone('orders.example.com', 'example.com.')).toBe(true);
    expect(isInZone('example.com', 'example.com.')).toBe(true);
    expect(isInZone('badexample.com', 'example.com')).toBe(false);
  });
});

describe('values', () => {
  it('that may not be published are refused with the value and the reason', () => {
    const cases: Array<['A' | 'AAAA' | 'CNAME', string[], RegExp]> = [
      ['A', [], /vanish for every client/],
      ['A', ['192.0.2.300'], /"192\.0\.2\.300" cannot be published/],
      ['A', ['192.0.2.1 '], /IPv4/],
      ['AAAA', ['192.0.2.1'], /IPv6/],
      ['AAAA', ['fe80::1%eth0'], /IPv6/],
      ['CNAME', ['192.0.2.1'], /use type A/],
      ['CNAME', ['2001:db8::1'], /use type A/],
      ['CNAME', ['no spaces.example.com'], /host name/],
      ['CNAME', [`${'a'.repeat(64)}.example.com`], /host name/],
      ['CNAME', ['-a.example.com'], /host name/],
      ['CNAME', ['Orders.example.com.'], /itself/],
      ['CNAME', ['a.example.com', 'b.example.com'], /one target, not 2/],
    ];
    for (const [type, values, message] of cases) {
      expect(() => checkedValues('orders.example.com', type, values), `${type} ${values}`).toThrow(message);
    }
  });

  it('are published once each, sorted, in one spelling', () => {
    expect(checkedValues('o.example.com', 'A', ['192.0.2.2', '192.0.2.1', '192.0.2.2'])).toEqual([
      '192.0.2.1',
      '192.0.2.2',
    ]);
    expect(checkedValues('o.example.com', 'AAAA', ['2001:DB8:0::1', '2001:db8::1'])).toEqual(['2001:db8::1']);
    expect(checkedValues('o.example.com', 'CNAME', ['LB.example.net.'])).toEqual(['lb.example.net']);
  });

  it('are the same in any order and spelling of IPv6, and have one generation', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.ipV6(), { minLength: 1, maxLength: 4 }), fc.nat(300), (values, ttl) => {
        const shuffled = [...values].reverse().map((value) => value.toUpperCase());
        expect(sameValues('AAAA', values, shuffled)).toBe(true);
        expect(plainValues('AAAA', plainValues('AAAA', values))).toEqual(plainValues('AAAA', values));
        expect(generationOf('o.example.com', 'AAAA', values, ttl)).toBe(
          generationOf('O.example.com.', 'AAAA', shuffled, ttl),
        );
      }),
    );
  });

  it('that differ, or another TTL, type or name, are another generation', () => {
    const generations = [
      generationOf('o.example.com', 'A', ['192.0.2.1'], 30),
      generationOf('o.example.com', 'A', ['192.0.2.1'], 31),
      generationOf('o.example.com', 'A', ['192.0.2.2'], 30),
      generationOf('o.example.com', 'A', ['192.0.2.1', '192.0.2.2'], 30),
      generationOf('o.example.com', 'A', [], 30),
      generationOf('p.example.com', 'A', ['192.0.2.1'], 30),
    ];
    expect(new Set(generations).size).toBe(generations.length);
    expect(generationOf('o.example.com', 'A', [], 0)).toBe(generations[4]);
  });
});
