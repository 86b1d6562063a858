import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { createServer, type Socket, type Server as TcpServer } from 'node:net';
import {
  type Answer,
  AUTHORITATIVE_ANSWER,
  type DecodedPacket,
  decode,
  encode,
  type Packet,
  TRUNCATED_RESPONSE,
} from 'dns-packet';
import type { Faults } from './faults.ts';
import { fullName, type RecordSet, type Zone } from './zone.ts';

/** Response codes of RFC 1035 4.1.1. */
const rcode = { formatError: 1, noName: 3, notImplemented: 4, refused: 5 };

/** An authoritative name server of one zone, on one port by UDP and TCP. */
export class DnsServer {
  readonly #udp: UdpSocket;
  readonly #tcp: TcpServer;
  readonly #connections = new Set<Socket>();
  /** How many queries came, by transport. */
  readonly queries = { udp: 0, tcp: 0 };

  constructor(zone: Zone, faults: Faults) {
    this.#udp = createSocket('udp4');
    this.#udp.on('message', (bytes, from) => {
      this.queries.udp++;
      const answer = respond(zone, faults, bytes, 'udp');
      if (answer !== undefined) this.#udp.send(answer, from.port, from.address);
    });
    this.#tcp = createServer((socket) => {
      this.#connections.add(socket);
      socket.on('close', () => this.#connections.delete(socket));
      socket.on('error', () => socket.destroy());
      let received = Buffer.alloc(0);
      socket.on('data', (bytes) => {
        received = Buffer.concat([received, bytes]);
        while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
          const end = 2 + received.readUInt16BE(0);
          this.queries.tcp++;
          const answer = respond(zone, faults, received.subarray(2, end), 'tcp');
          received = received.subarray(end);
          if (answer === undefined) continue;
          const length = Buffer.alloc(2);
          length.writeUInt16BE(answer.length);
          socket.write(Buffer.concat([length, answer]));
        }
      });
    });
  }

  /** Listens on 127.0.0.1; with port 0 on one that is free for both transports. Returns the port. */
  async listen(port: number): Promise<number> {
    for (let attempt = 1; ; attempt++) {
      await new Promise<void>((resolve, reject) => {
        this.#tcp.once('error', reject);
        this.#tcp.listen(port, '127.0.0.1', resolve);
      });
      const address = this.#tcp.address();
      const chosen = typeof address === 'object' && address !== null ? address.port : port;
      try {
        await new Promise<void>((resolve, reject) => {
          this.#udp.once('error', reject);
          this.#udp.bind(chosen, '127.0.0.1', resolve);
        });
        return chosen;
      } catch (error) {
        // The port that TCP got may be somebody's for UDP: let the system choose another.
        await new Promise((resolve) => this.#tcp.close(resolve));
        if (port !== 0 || attempt === 10) throw error;
      }
    }
  }

  async close(): Promise<void> {
    for (const socket of this.#connections) socket.destroy();
    await Promise.all([
      new Promise<void>((resolve) => this.#tcp.close(() => resolve())),
      new Promise<void>((resolve) => this.#udp.close(() => resolve())),
    ]);
  }
}

function respond(zone: Zone, faults: Faults, bytes: Buffer, transport: 'udp' | 'tcp'): Buffer | undefined {
  if (faults.dns === 'silent') return undefined;
  let query: DecodedPacket;
  try {
    query = decode(bytes);
  } catch {
    return undefined;
  }
  if (query.type !== 'query') return undefined;
  return encode(replyTo(zone, faults, query, transport));
}

function replyTo(zone: Zone, faults: Faults, query: DecodedPacket, transport: 'udp' | 'tcp'): Packet {
  const question = query.questions?.[0];
  const recursionDesired = query.flag_rd ? 1 << 8 : 0;
  const base: Packet = { type: 'response', id: query.id, flags: recursionDesired, questions: query.questions ?? [] };
  const failed = (code: number): Packet => ({ ...base, flags: recursionDesired | code });
  if (question === undefined) return failed(rcode.formatError);
  const name = fullName(question.name);
  const inZone = name === zone.name || name.endsWith(`.${zone.name}`);
  if (faults.dns === 'refuse' || !inZone) return failed(rcode.refused);
  const authority = faults.dns === 'not-authoritative' ? 0 : AUTHORITATIVE_ANSWER;
  const flags = recursionDesired | authority;
  if (faults.dns === 'truncate' && transport === 'udp') return { ...base, flags: flags | TRUNCATED_RESPONSE };
  if (name === zone.name && question.type === 'SOA') return { ...base, flags, answers: [soa(zone)] };
  const sets = zone.published(name, question.type);
  const isNamed = sets !== undefined || name === zone.name;
  const several = (sets ?? []).some((set) => set.setIdentifier !== undefined);
  const chosen = several ? [zone.chosen(sets ?? [])].filter((set) => set !== undefined) : (sets ?? []);
  const answers = chosen.flatMap(answersOf);
  if (answers.length > 0) return { ...base, flags, answers };
  return { ...base, flags: isNamed ? flags : flags | rcode.noName, authorities: [soa(zone)] };
}

function answersOf(set: RecordSet): Answer[] {
  const name = set.name.replace(/\.$/, '');
  const { type, ttl = 0, values = [] } = set;
  if (type === 'A' || type === 'AAAA') return values.map((data) => ({ type, name, ttl, class: 'IN', data }));
  if (type === 'NS') return values.map((data) => ({ type, name, ttl, class: 'IN', data: data.replace(/\.$/, '') }));
  if (type === 'CNAME') return values.map((data) => ({ type, name, ttl, class: 'IN', data: data.replace(/\.$/, '') }));
  if (type === 'TXT') return values.map((data) => ({ type, name, ttl, class: 'IN', data: data.replace(/^"|"$/g, '') }));
  return [];
}

/** Negative answers may be kept 5 s (`minimum`): the demo's clients ask again soon. */
function soa(zone: Zone): Answer {
  const name = zone.name.replace(/\.$/, '');
  const data = {
    mname: `ns1.${name}`,
    rname: `hostmaster.${name}`,
    serial: zone.serial,
    refresh: 7200,
    retry: 900,
    expire: 1_209_600,
    minimum: 5,
  };
  return { type: 'SOA', name, ttl: 5, class: 'IN', data };
}
