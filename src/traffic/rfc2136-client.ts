import { randomInt } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { DrError, messageOf } from '../base/errors.ts';
import { exchangeTcp, exchangeUdp, peerOf } from './dns-transport.ts';
import type { RecordKind } from './record.ts';
import { rejectedError, unansweredError, updateError } from './rfc2136-errors.ts';
import { sign, type TsigKey, type TsigVerdict, verify } from './tsig.ts';
import { classCode, encodeName, encodeRecord, readMessage, recordData, typeCode, type WireRecord } from './wire.ts';

const updateOpcode = 5;
/** RFC 2136 section 2.2; the ones by which a server says that a prerequisite does not hold. */
const unmet = new Set([3, 6, 7, 8]);

/** One atomic change: all of it happens, or, when a prerequisite does not hold, nothing. */
export interface Update {
  readonly prerequisites: readonly WireRecord[];
  readonly updates: readonly WireRecord[];
}

export interface UpdateClientOptions {
  readonly server: string;
  readonly zone: string;
  readonly key: TsigKey;
  readonly clock: Clock;
  /** Milliseconds to wait for the answer to one message. */
  readonly timeoutMs: number;
}

/** Sends signed updates (RFC 2136) to the primary server of a zone and believes only signed answers (RFC 8945). */
export class UpdateClient {
  readonly #options: UpdateClientOptions;

  constructor(options: UpdateClientOptions) {
    this.#options = options;
  }

  /**
   * `done`: the server made the change durable. `unmet`: a prerequisite did not hold and nothing was changed. Anything else is
   * a `DrError`. When the answer is lost the change may have been made: the record tells.
   */
  async send(update: Update, signal: AbortSignal | undefined): Promise<'done' | 'unmet'> {
    const { server, zone, key, clock, timeoutMs } = this.#options;
    const where = `name server ${server}, zone ${zone}`;
    const id = randomInt(65_536);
    const { message, mac } = sign(encodeUpdate(id, zone, update), key, clock.now());
    const read = (bytes: Buffer): { rcode: number; tsig: TsigVerdict } | undefined => {
      const parts = readMessage(bytes);
      if (!parts.isResponse || parts.id !== id || parts.opcode !== updateOpcode) return undefined;
      return { rcode: parts.rcode, tsig: verify(bytes, key, mac, clock.now()) };
    };
    let answer: { rcode: number; tsig: TsigVerdict };
    try {
      const peer = await peerOf(server, timeoutMs, signal);
      try {
        answer = await exchangeTcp(peer, message, read, timeoutMs, signal);
      } catch (error) {
        if (signal?.aborted) throw error;
        // Where TCP is blocked. It is the same message: had the first one worked, its prerequisites no longer hold.
        answer = await exchangeUdp(peer, message, read, timeoutMs, signal).catch((second: unknown) => {
          throw new Error(`${messageOf(error)}; by UDP ${messageOf(second)}`, { cause: second });
        });
      }
    } catch (error) {
      if (signal?.aborted) {
        throw new DrError('interrupted', 'the update was stopped before the name server answered', {
          where,
          cause: signal.reason,
        });
      }
      throw unansweredError(where, server, error);
    }
    if (answer.tsig.verdict === 'rejected') throw rejectedError(where, key, answer.tsig, clock.now());
    if (answer.tsig.verdict === 'good' && answer.rcode === 0) return 'done';
    if (answer.tsig.verdict === 'good' && unmet.has(answer.rcode)) return 'unmet';
    throw updateError(where, { server, zone, key }, answer.rcode, answer.tsig);
  }
}

/** Exactly these values are there (RFC 2136 section 2.4.2); the TTL is not compared. */
export function holds(name: string, type: RecordKind, values: readonly string[]): WireRecord[] {
  return values.map((value) => ({
    name,
    type: typeCode[type],
    class: classCode.IN,
    ttl: 0,
    data: recordData(type, value),
  }));
}

/** No record of this type is there (2.4.3); of ANY: no record at all has the name (2.4.5). */
export function isAbsent(name: string, type: RecordKind | 'ANY'): WireRecord {
  return { name, type: typeCode[type], class: classCode.NONE, ttl: 0, data: Buffer.alloc(0) };
}

/** Takes all records of this type away (2.5.2). Never sent without `add` behind it in the same message. */
export function remove(name: string, type: RecordKind): WireRecord {
  return { name, type: typeCode[type], class: classCode.ANY, ttl: 0, data: Buffer.alloc(0) };
}

export function add(name: string, type: RecordKind, values: readonly string[], ttl: number): WireRecord[] {
  return values.map((value) => ({
    name,
    type: typeCode[type],
    class: classCode.IN,
    ttl,
    data: recordData(type, value),
  }));
}

/** RFC 2136 section 2: header with opcode UPDATE, the zone, prerequisites, updates. */
function encodeUpdate(id: number, zone: string, { prerequisites, updates }: Update): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(updateOpcode << 11, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(prerequisites.length, 6);
  header.writeUInt16BE(updates.length, 8);
  const question = Buffer.alloc(4);
  question.writeUInt16BE(typeCode.SOA, 0);
  question.writeUInt16BE(classCode.IN, 2);
  const records = [...prerequisites, ...updates].map(encodeRecord);
  return Buffer.concat([header, encodeName(zone), question, ...records]);
}
