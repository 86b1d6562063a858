import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { lookup } from 'node:dns/promises';
import { connect, isIP, isIPv6 } from 'node:net';
import { type DecodedPacket, decode, encode, type Packet, streamEncode } from 'dns-packet';
import { messageOf } from '../base/errors.ts';
import { plainName, plainValues, type RecordKind } from './record.ts';

/**
 * What one authoritative server says. `node:dns` is not used because it hides the AA bit: a forwarder or cache configured
 * by mistake would be believed although it repeats the old answer for a whole TTL.
 */
export interface DnsAnswer {
  /** Sorted; empty for NXDOMAIN and for a name without this type. */
  readonly values: readonly string[];
  readonly ttlSeconds: number | undefined;
}

/** `host`, `host:port`, `[v6]:port` or a bare IPv6 address; port 53 unless given. */
export function parseServer(server: string): { host: string; port: number } {
  if (isIPv6(server)) return { host: server, port: 53 };
  const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(server);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3] ?? 53);
  if (host === undefined || port < 1 || port > 65_535) {
    throw new Error(`${JSON.stringify(server)} is not a name server: write host, host:port or [IPv6]:port`);
  }
  return { host, port };
}

/**
 * Asks `server` itself for `name`, by UDP and again by TCP when the answer was cut short.
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
  const { host, port } = parseServer(server);
  const address = isIP(host) !== 0 ? host : await addressOf(host, timeoutMs, signal);
  // A fresh unpredictable id and the random source port make a forged answer unlikely (RFC 5452). RD stays 0: no recursion.
  const id = randomInt(65_536);
  const query: Packet = { type: 'query', id, questions: [{ type, name: plainName(name), class: 'IN' }] };
  const accept = (packet: DecodedPacket) =>
    packet.type === 'response' && packet.id === id && echoes(packet, name, type);
  let packet: DecodedPacket;
  try {
    packet = await askUdp(address, port, encode(query), accept, timeoutMs, signal);
  } catch (error) {
    if (signal?.aborted) throw error;
    packet = await askUdp(address, port, encode(query), accept, timeoutMs, signal);
  }
  if (packet.flag_tc) packet = await askTcp(address, port, streamEncode(query), accept, timeoutMs, signal);
  return answerOf(packet, name, type);
}

function echoes(packet: DecodedPacket, name: string, type: RecordKind): boolean {
  const question = packet.questions?.[0];
  return question !== undefined && question.type === type && plainName(question.name) === plainName(name);
}

/** dns-packet decodes the header bits but its types leave `rcode` out. */
function answerOf(packet: DecodedPacket & { rcode?: string }, name: string, type: RecordKind): DnsAnswer {
  const rcode = packet.rcode ?? 'NOERROR';
  if (rcode !== 'NOERROR' && rcode !== 'NXDOMAIN') throw new Error(`it answers ${rcode}`);
  if (!packet.flag_aa) throw new Error('its answer is not authoritative: it is a cache or does not serve this zone');
  const values: string[] = [];
  let ttlSeconds: number | undefined;
  for (const answer of packet.answers ?? []) {
    if (answer.type !== type || plainName(answer.name) !== plainName(name)) continue;
    if (answer.type === 'A' || answer.type === 'AAAA' || answer.type === 'CNAME') {
      values.push(answer.data);
      ttlSeconds = answer.ttl;
    }
  }
  return { values: plainValues(type, values), ttlSeconds };
}

function addressOf(host: string, timeoutMs: number, signal: AbortSignal | undefined): Promise<string> {
  // getaddrinfo cannot be cancelled: the deadline only stops waiting for it.
  return within(timeoutMs, signal, `its address was not found within ${timeoutMs} ms`, (settle) => {
    lookup(host).then(
      ({ address }) => settle.resolve(address),
      (error: unknown) => settle.reject(new Error(`its address cannot be found: ${messageOf(error)}`)),
    );
    return () => {};
  });
}

function askUdp(
  address: string,
  port: number,
  query: Buffer,
  accept: (packet: DecodedPacket) => boolean,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<DecodedPacket> {
  return within(timeoutMs, signal, `no answer within ${timeoutMs} ms`, (settle) => {
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    socket.on('error', (error) => settle.reject(error));
    socket.on('message', (bytes) => {
      const packet = tryDecode(bytes);
      // Anything that is not the answer to this question may be a stray or a forgery: keep waiting.
      if (packet !== undefined && accept(packet)) settle.resolve(packet);
    });
    // A connected socket takes datagrams from this server only, and hears at once when nothing listens there.
    socket.once('connect', () => socket.send(query));
    socket.connect(port, address);
    return () => socket.close();
  });
}

function askTcp(
  address: string,
  port: number,
  query: Buffer,
  accept: (packet: DecodedPacket) => boolean,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<DecodedPacket> {
  return within(timeoutMs, signal, `no answer by TCP within ${timeoutMs} ms`, (settle) => {
    const socket = connect({ host: address, port }, () => socket.write(query));
    let received = Buffer.alloc(0);
    socket.on('error', (error) => settle.reject(error));
    socket.on('end', () => settle.reject(new Error('it closed the TCP connection before its answer was complete')));
    socket.on('data', (bytes) => {
      received = Buffer.concat([received, bytes]);
      // RFC 1035 4.2.2: two bytes of length, then the message.
      if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
      const packet = tryDecode(received.subarray(2));
      if (packet !== undefined && accept(packet)) settle.resolve(packet);
      else settle.reject(new Error('its TCP answer is not the answer to this question'));
    });
    return () => socket.destroy();
  });
}

function tryDecode(bytes: Buffer): DecodedPacket | undefined {
  try {
    return decode(bytes);
  } catch {
    return undefined;
  }
}

interface Settle<T> {
  resolve(value: T): void;
  reject(error: Error): void;
}

/** Runs `start` until it settles, the time is over or the signal aborts; then always runs the clean-up that it returned. */
function within<T>(
  timeoutMs: number,
  signal: AbortSignal | undefined,
  late: string,
  start: (settle: Settle<T>) => () => void,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    let settled = false;
    let cleanUp = () => {};
    const once = (act: () => void) => {
      if (settled) return;
      settled = true;
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      cleanUp();
      act();
    };
    const onAbort = () => once(() => reject(signal?.reason));
    const timer = setTimeout(() => once(() => reject(new Error(late))), timeoutMs);
    signal?.addEventListener('abort', onAbort, { once: true });
    cleanUp = start({
      resolve: (value) => once(() => resolve(value)),
      reject: (error) => once(() => reject(error)),
    });
  });
}
