import { createHash } from 'node:crypto';
import { isIP, isIPv4, isIPv6, SocketAddress } from 'node:net';
import { DrError } from '../base/errors.ts';
import type { RecordType } from '../config/types.ts';
import type { TrafficSplit, TrafficState } from './contract.ts';

export type RecordKind = RecordType;

/** A name as every part of traffic/ compares it: lower case, no trailing dot, `\052`-like escapes (RFC 1035) decoded. */
export function plainName(name: string): string {
  return name
    .replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
    .toLowerCase()
    .replace(/\.$/, '');
}

/** True when `name` is `zone` itself or lies below it. */
export function isInZone(name: string, zone: string): boolean {
  const plain = plainName(name);
  const parent = plainName(zone);
  return plain === parent || plain.endsWith(`.${parent}`);
}

/** One value in the one spelling that is compared: `2001:DB8:0::1` is `2001:db8::1`, `West.Example.com.` is `west.example.com`. */
export function plainValue(type: RecordKind, value: string): string {
  if (type === 'CNAME') return plainName(value);
  if (type === 'AAAA' && isIPv6(value)) return new SocketAddress({ address: value, family: 'ipv6' }).address;
  return value;
}

/** Values in their compared spelling, sorted, each once. */
export function plainValues(type: RecordKind, values: readonly string[]): string[] {
  return [...new Set(values.map((value) => plainValue(type, value)))].sort();
}

/** True when both lists publish the same, whatever the order and the spelling. */
export function sameValues(type: RecordKind, a: readonly string[], b: readonly string[]): boolean {
  return plainValues(type, a).join(' ') === plainValues(type, b).join(' ');
}

/** Values for people: `192.0.2.10, 192.0.2.11`, or `nothing`. */
export function showValues(values: readonly string[]): string {
  return values.length === 0 ? 'nothing' : values.join(', ');
}

/**
 * The values in the spelling to publish. Refuses what must never be published: an empty list (an outage of our own making:
 * AWS, October 2025), a value that is none of this type, two targets for one CNAME, a CNAME to itself.
 */
export function checkedValues(record: string, type: RecordKind, values: readonly string[]): string[] {
  const where = `${plainName(record)} ${type}`;
  if (values.length === 0) {
    throw new DrError('refused', 'an empty record would make the name vanish for every client', {
      where,
      next: 'Give the site an address under endpoints of this traffic entry.',
    });
  }
  for (const value of values) {
    const wrong = whatIsWrong(record, type, value);
    if (wrong !== undefined) {
      throw new DrError('refused', `${JSON.stringify(value)} cannot be published: ${wrong}`, {
        where,
        next: 'Correct the endpoints of this traffic entry, or its type.',
      });
    }
  }
  const plain = plainValues(type, values);
  if (type === 'CNAME' && plain.length > 1) {
    throw new DrError('refused', `a CNAME has one target, not ${plain.length} (${plain.join(', ')})`, {
      where,
      next: 'Give one host name, or use type A or AAAA for several addresses.',
    });
  }
  return plain;
}

/** Letters, digits, hyphens and underscores in labels of 1 to 63 characters, 253 in all (RFC 1035, RFC 8552). */
const hostName = /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$/;

function whatIsWrong(record: string, type: RecordKind, value: string): string | undefined {
  switch (type) {
    case 'A':
      return isIPv4(value) ? undefined : 'an A record needs an IPv4 address such as 192.0.2.10';
    case 'AAAA':
      // A zone index (fe80::1%eth0) means something on one machine only.
      return isIPv6(value) && !value.includes('%')
        ? undefined
        : 'an AAAA record needs an IPv6 address such as 2001:db8::10';
    case 'CNAME':
      if (isIP(value) !== 0) return 'a CNAME needs a host name; for an address use type A or AAAA';
      if (!hostName.test(plainName(value))) return 'a CNAME needs a host name such as lb.west.example.com';
      return plainName(value) === plainName(record) ? 'a CNAME cannot point to itself' : undefined;
  }
}

/**
 * The generation of a published state: a digest over everything that a rival writer could have changed. Two states with the
 * same content have the same generation, so writing a value and writing it back is no conflict.
 */
export function generationOf(record: string, type: RecordKind, values: readonly string[], ttlSeconds: number): string {
  return digestOf([plainName(record), type, plainValues(type, values), values.length === 0 ? 0 : ttlSeconds]);
}

/** A short digest of anything that JSON can say. */
export function digestOf(content: unknown): string {
  return createHash('sha256').update(JSON.stringify(content)).digest('hex').slice(0, 16);
}

/** The single endpoint that a division comes to for a driver that only switches; refuses what lies between. */
export function wholeOf({ from, to, percent }: TrafficSplit, target: string): string {
  checkPercent(percent, target);
  if (percent === 100) return to;
  if (percent === 0) return from;
  throw new DrError('refused', `this name has one answer for all clients: it cannot give ${percent} % to ${to}`, {
    where: target,
    next: 'Switch it at once (100 %), or use weighted records (route53.routing: weighted) for a gradual shift.',
  });
}

/** Refuses anything but whole percent from 0 to 100. */
export function checkPercent(percent: number, target: string): void {
  if (Number.isInteger(percent) && percent >= 0 && percent <= 100) return;
  throw new DrError('refused', `${percent} is no share of traffic: it goes from 0 to 100 in whole percent`, {
    where: target,
    next: 'Correct the steps of the shift.',
  });
}

/** The error for a state that is no longer the one a change was to replace. */
export function conflict(where: string, expected: TrafficState, found: TrafficState): DrError {
  return new DrError(
    'conflict',
    `somebody else changed the record: this change was to replace ${showState(expected)}, but it now is ${showState(found)}`,
    {
      where,
      next: 'Find out who writes this record (external-dns, another run, a person), stop them, then run the command again.',
    },
  );
}

function showState({ values, shares, ttlSeconds, generation }: TrafficState): string {
  const shown = shares?.map(({ value, percent }) => `${value} ${percent} %`).join(', ') ?? showValues(values);
  return `${shown} (ttl ${ttlSeconds} s, generation ${generation})`;
}
