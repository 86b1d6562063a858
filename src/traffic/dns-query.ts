import { randomInt } from 'node:crypto';
import { isIPv6 } from 'node:net';
import { type Answer, type DecodedPacket, decode, encode, RECURSION_DESIRED } from 'dns-packet';
import { exchangeTcp, exchangeUdp, peerOf } from './dns-transport.ts';
import { plainName, plainValues, type RecordKind } from './record.ts';

/**
 * What one server says. `node:dns` is not used because it hides the AA bit: a forwarder or cache configured
 * by mistake would be believed although it repeats the old answer for a whole TTL.
 */
export interface DnsAnswer {
  /** Sorted; empty for NXDOMAIN and for a name without this type. */
  readonly values: readonly string[];
  readonly ttlSeconds: number | undefined;
  /** The target of a CNAME that stands where another type was asked for. */
  readonly alias?: string;
}

type QueryKind = RecordKind | 'SOA' | 'NS' | 'TXT';

/** dns-packet decodes the header bits but its types leave `rcode` out. */
type Reply = DecodedPacket & { readonly rcode?: string };

/**
 * Asks an authoritative `server` itself for `name`, by UDP and again by TCP when the answer was cut short.
 * Each try waits `timeoutMs`; UDP is tried twice because a datagram may be lost.
 * Throws an `Error` with a reason for people when there is no authoritative answer.
 */
export async function askServer(
  server: string,
  name: string,
  type: RecordKind,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<DnsAnswer> {
  return valuesOf(await askAuthority(server, name, type, timeoutMs, signal), name, type);
}

/**
 * Asks a recursive resolver, which may answer from its cache. A record type of addresses follows the aliases in the answer.
 * Throws as `askServer` does.
 */
export async function askResolver(
  server: string,
  name: string,
  type: RecordKind,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<DnsAnswer> {
  const reply = await ask(server, name, type, RECURSION_DESIRED, timeoutMs, signal);
  let wanted = name;
  let ttlSeconds: number | undefined;
  // A chain is at most as long as the answer; each alias in it can outlive the address that it leads to.
  for (const _ of reply.answers ?? []) {
    const found = valuesOf(reply, wanted, type);
    if (found.values.length > 0) return { ...found, ttlSeconds: least(ttlSeconds, found.ttlSeconds) };
    if (found.alias === undefined) break;
    ttlSeconds = least(ttlSeconds, found.ttlSeconds);
    wanted = found.alias;
  }
  return { values: [], ttlSeconds: undefined };
}

/** The serial number and the primary server that an authoritative `server` has for a zone. */
export async function askSoa(
  server: string,
  zone: string,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<{ readonly serial: number; readonly primary: string }> {
  const reply = await askAuthority(server, zone, 'SOA', timeoutMs, signal);
  for (const answer of reply.answers ?? []) {
    if (answer.type === 'SOA' && plainName(answer.name) === plainName(zone))
      return { serial: answer.data.serial ?? 0, primary: plainName(answer.data.mname) };
  }
  throw new Error(`it does not serve the zone ${plainName(zone)}`);
}

/** The name servers of a zone as an authoritative `server` names them, with the addresses that came along. */
export async function askNameServers(
  server: string,
  zone: string,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<ReadonlyArray<{ readonly name: string; readonly addresses: readonly string[] }>> {
  const reply = await askAuthority(server, zone, 'NS', timeoutMs, signal);
  const along = [...(reply.answers ?? []), ...(reply.additionals ?? [])];
  return (reply.answers ?? []).flatMap((answer) => {
    if (answer.type !== 'NS') return [];
    const name = plainName(answer.data);
    return [{ name, addresses: along.flatMap((other) => (isAddressOf(other, name) ? [other.data] : [])) }];
  });
}

/** The texts under a name, each joined from its parts; empty when there are none. */
export async function askTexts(
  server: string,
  name: string,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<readonly string[]> {
  const reply = await askAuthority(server, name, 'TXT', timeoutMs, signal);
  return (reply.answers ?? []).flatMap((answer) => {
    if (answer.type !== 'TXT') return [];
    return [[answer.data].flat().map(String).join('')];
  });
}

/** A server as people write it, from an address and a port. */
export function serverText(address: string, port: number): string {
  if (port === 53) return address;
  return isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`;
}

async function askAuthority(
  server: string,
  name: string,
  type: QueryKind,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<Reply> {
  const reply = await ask(server, name, type, 0, timeoutMs, signal);
  if (!reply.flag_aa) throw new Error('its answer is not authoritative: it is a cache or does not serve this zone');
  return reply;
}

async function ask(
  server: string,
  name: string,
  type: QueryKind,
  flags: number,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<Reply> {
  const peer = await peerOf(server, timeoutMs, signal);
  // A fresh unpredictable id and the random source port make a forged answer unlikely (RFC 5452).
  const id = randomInt(65_536);
  const query = encode({ type: 'query', id, flags, questions: [{ type, name: plainName(name), class: 'IN' }] });
  const read = (bytes: Buffer): Reply | undefined => {
    const packet = decode(bytes);
    return packet.type === 'response' && packet.id === id && echoes(packet, name, type) ? packet : undefined;
  };
  let reply: Reply;
  try {
    reply = await exchangeUdp(peer, query, read, timeoutMs, signal);
  } catch (error) {
    if (signal?.aborted) throw error;
    reply = await exchangeUdp(peer, query, read, timeoutMs, signal);
  }
  if (reply.flag_tc) reply = await exchangeTcp(peer, query, read, timeoutMs, signal);
  const rcode = reply.rcode ?? 'NOERROR';
  if (rcode !== 'NOERROR' && rcode !== 'NXDOMAIN') throw new Error(`it answers ${rcode}`);
  return reply;
}

function echoes(packet: DecodedPacket, name: string, type: QueryKind): boolean {
  const question = packet.questions?.[0];
  return question !== undefined && question.type === type && plainName(question.name) === plainName(name);
}

function valuesOf(reply: Reply, name: string, type: RecordKind): DnsAnswer {
  const values: string[] = [];
  let ttlSeconds: number | undefined;
  const alias = (reply.answers ?? []).find(
    (answer) => answer.type === 'CNAME' && plainName(answer.name) === plainName(name),
  );
  if (type !== 'CNAME' && alias?.type === 'CNAME')
    return { values, ttlSeconds: alias.ttl, alias: plainName(alias.data) };
  for (const answer of reply.answers ?? []) {
    if (answer.type !== type || plainName(answer.name) !== plainName(name)) continue;
    if (answer.type === 'A' || answer.type === 'AAAA' || answer.type === 'CNAME') {
      values.push(answer.data);
      ttlSeconds = least(ttlSeconds, answer.ttl);
    }
  }
  return { values: plainValues(type, values), ttlSeconds };
}

function isAddressOf(answer: Answer, name: string): answer is Answer & { readonly data: string } {
  return (answer.type === 'A' || answer.type === 'AAAA') && plainName(answer.name) === name;
}

function least(a: number | undefined, b: number | undefined): number | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return Math.min(a, b);
}
