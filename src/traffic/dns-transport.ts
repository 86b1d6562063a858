import { createSocket } from 'node:dgram';
import { lookup } from 'node:dns/promises';
import { connect, isIP, isIPv6 } from 'node:net';
import { messageOf } from '../base/errors.ts';

/** Where a DNS message goes: an address (not a name) and a port. */
export interface DnsPeer {
  readonly address: string;
  readonly port: number;
}

/** Reads a received message; undefined when it is not the answer that was waited for. */
export type ReadAnswer<T> = (message: Buffer) => T | undefined;

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

/** The address of a server as people write it; names are looked up by the system's resolver. */
export async function peerOf(server: string, timeoutMs: number, signal?: AbortSignal): Promise<DnsPeer> {
  const { host, port } = parseServer(server);
  return { address: isIP(host) !== 0 ? host : await addressOf(host, timeoutMs, signal), port };
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

/** Sends one datagram and waits for the answer that `read` takes; anything else may be a stray or a forgery and is ignored. */
export function exchangeUdp<T>(
  { address, port }: DnsPeer,
  message: Buffer,
  read: ReadAnswer<T>,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<T> {
  return within<T>(timeoutMs, signal, `no answer within ${timeoutMs} ms`, (settle) => {
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    socket.on('error', (error) => settle.reject(error));
    socket.on('message', (bytes) => {
      const answer = attempt(read, bytes);
      if (answer !== undefined) settle.resolve(answer);
    });
    // A connected socket takes datagrams from this server only, and hears at once when nothing listens there.
    socket.once('connect', () => socket.send(message));
    socket.connect(port, address);
    return () => socket.close();
  });
}

/** Sends one message by TCP; the first that comes back has to be the answer. */
export function exchangeTcp<T>(
  { address, port }: DnsPeer,
  message: Buffer,
  read: ReadAnswer<T>,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<T> {
  return within<T>(timeoutMs, signal, `no answer by TCP within ${timeoutMs} ms`, (settle) => {
    // RFC 1035 4.2.2: two bytes of length, then the message.
    const length = Buffer.alloc(2);
    length.writeUInt16BE(message.length);
    const socket = connect({ host: address, port }, () => socket.write(Buffer.concat([length, message])));
    let received = Buffer.alloc(0);
    socket.on('error', (error) => settle.reject(error));
    socket.on('end', () => settle.reject(new Error('it closed the TCP connection before its answer was complete')));
    socket.on('data', (bytes) => {
      received = Buffer.concat([received, bytes]);
      if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
      const answer = attempt(read, received.subarray(2, 2 + received.readUInt16BE(0)));
      if (answer !== undefined) settle.resolve(answer);
      else settle.reject(new Error('its TCP answer is not the answer to this question'));
    });
    return () => socket.destroy();
  });
}

function attempt<T>(read: ReadAnswer<T>, bytes: Buffer): T | undefined {
  try {
    return read(bytes);
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
