import { createSocket, type Socket } from 'node:dgram';
import type { AddressInfo } from 'node:net';
import { decode, encode, RECURSION_AVAILABLE, RECURSION_DESIRED } from 'dns-packet';
import type { Clock } from '../../src/base/clock.ts';

/** A recursive resolver of one zone: asks its name server once, and repeats the answer until its TTL is over. */
export class CachingResolver implements AsyncDisposable {
  readonly server: string;
  readonly #socket: Socket;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.server = `127.0.0.1:${(socket.address() as AddressInfo).port}`;
  }

  /** `authority` is `host:port`; the clock decides how old an answer is. */
  static async start(authority: string, clock: Pick<Clock, 'now'>): Promise<CachingResolver> {
    const [host = '', port = ''] = authority.split(':');
    const cache = new Map<string, { readonly bytes: Buffer; readonly atMs: number }>();
    const socket = createSocket('udp4');
    await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve));
    socket.on('message', (bytes, from) => {
      const query = decode(bytes);
      const key = JSON.stringify(query.questions);
      const reply = (answer: Buffer, atMs: number) => {
        const packet = decode(answer);
        const age = Math.floor((clock.now() - atMs) / 1000);
        const answers = (packet.answers ?? []).map((record) => {
          return 'ttl' in record ? { ...record, ttl: (record.ttl ?? 0) - age } : record;
        });
        const flags = RECURSION_DESIRED | RECURSION_AVAILABLE;
        const { questions = [] } = query;
        socket.send(encode({ type: 'response', id: query.id, flags, questions, answers }), from.port, from.address);
      };
      const kept = cache.get(key);
      const ttl = Math.min(
        ...(kept ? (decode(kept.bytes).answers ?? []) : []).map((one) => ('ttl' in one ? (one.ttl ?? 0) : 0)),
      );
      if (kept && clock.now() < kept.atMs + ttl * 1000) return reply(kept.bytes, kept.atMs);
      const upstream = createSocket('udp4');
      upstream.once('message', (answer) => {
        cache.set(key, { bytes: answer, atMs: clock.now() });
        reply(answer, clock.now());
        upstream.close();
      });
      upstream.send(bytes, Number(port), host);
    });
    return new CachingResolver(socket);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((resolve) => this.#socket.close(resolve));
  }
}
