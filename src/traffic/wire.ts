import { encode } from 'dns-packet';
import { plainName } from './record.ts';

/**
 * The pieces of the DNS wire format (RFC 1035 section 4) that `dns-packet` does not write: records without data, the classes of
 * updates (RFC 2136), and a message whose last record can be taken off again (RFC 8945).
 */

/** RFC 1035, RFC 3596, RFC 8945. */
export const typeCode = { A: 1, CNAME: 5, SOA: 6, AAAA: 28, TSIG: 250, ANY: 255 } as const;
/** RFC 1035, RFC 2136 section 1.1. */
export const classCode = { IN: 1, NONE: 254, ANY: 255 } as const;

export interface WireRecord {
  readonly name: string;
  readonly type: number;
  readonly class: number;
  readonly ttl: number;
  readonly data: Uint8Array;
}

/** Labels in lower case, uncompressed. Throws for what is no name: a label longer than 63 bytes, 255 bytes in all. */
export function encodeName(name: string): Buffer {
  const plain = plainName(name);
  const labels = plain === '' ? [] : plain.split('.');
  const pieces = labels.map((label) => {
    const bytes = Buffer.from(label, 'latin1');
    if (bytes.length === 0 || bytes.length > 63) throw new Error(`${JSON.stringify(name)} is no DNS name`);
    return Buffer.concat([Buffer.of(bytes.length), bytes]);
  });
  const whole = Buffer.concat([...pieces, Buffer.of(0)]);
  if (whole.length > 255) throw new Error(`${JSON.stringify(name)} is no DNS name: it is too long`);
  return whole;
}

/** A name at `offset` and where the next field begins; follows compression. */
export function readName(message: Buffer, offset: number): { readonly name: string; readonly end: number } {
  const labels: string[] = [];
  let end: number | undefined;
  let at = offset;
  // Every pointer leads backwards, so a message can hold no more jumps than bytes.
  for (let jumps = 0; jumps <= message.length; jumps++) {
    const length = message.readUInt8(at);
    if (length === 0) return { name: labels.join('.').toLowerCase(), end: end ?? at + 1 };
    if (length >= 0xc0) {
      end ??= at + 2;
      const target = message.readUInt16BE(at) & 0x3fff;
      if (target >= at) break;
      at = target;
    } else {
      if (length > 63 || at + 1 + length > message.length) break;
      labels.push(message.toString('latin1', at + 1, at + 1 + length));
      at += 1 + length;
    }
  }
  throw new Error('the name cannot be read');
}

export function encodeRecord({ name, type, class: cls, ttl, data }: WireRecord): Buffer {
  const fixed = Buffer.alloc(10);
  fixed.writeUInt16BE(type, 0);
  fixed.writeUInt16BE(cls, 2);
  fixed.writeUInt32BE(ttl, 4);
  fixed.writeUInt16BE(data.length, 8);
  return Buffer.concat([encodeName(name), fixed, data]);
}

/** The data of an address or alias record as it stands in a message. */
export function recordData(type: 'A' | 'AAAA' | 'CNAME', value: string): Buffer {
  const message = encode({ answers: [{ type, name: '.', ttl: 0, class: 'IN', data: value }] });
  // Header 12, root name 1, type 2, class 2, TTL 4, length 2: then the data.
  return message.subarray(23);
}

/** The four counts of a header, and where each section's records lie. */
export interface MessageParts {
  readonly id: number;
  readonly opcode: number;
  readonly rcode: number;
  readonly isResponse: boolean;
  readonly isTruncated: boolean;
  /** The last record of the additional section, where TSIG stands. */
  readonly last: (WireRecord & { readonly start: number }) | undefined;
}

/** Reads header and last record. Throws for a message that is cut short or has bytes left over. */
export function readMessage(message: Buffer): MessageParts {
  const flags = message.readUInt16BE(2);
  const [questions = 0, answers = 0, authorities = 0, additionals = 0] = [4, 6, 8, 10].map((at) =>
    message.readUInt16BE(at),
  );
  let at = 12;
  for (let i = 0; i < questions; i++) at = readName(message, at).end + 4;
  let last: MessageParts['last'];
  for (let i = 0; i < answers + authorities + additionals; i++) {
    const start = at;
    const { name, end } = readName(message, at);
    const length = message.readUInt16BE(end + 8);
    at = end + 10 + length;
    if (at > message.length) throw new Error('the message is cut short');
    last = {
      start,
      name,
      type: message.readUInt16BE(end),
      class: message.readUInt16BE(end + 2),
      ttl: message.readUInt32BE(end + 4),
      data: message.subarray(end + 10, at),
    };
  }
  if (at !== message.length) throw new Error('the message has bytes left over');
  return {
    id: message.readUInt16BE(0),
    opcode: (flags >> 11) & 0xf,
    rcode: flags & 0xf,
    isResponse: (flags & 0x8000) !== 0,
    isTruncated: (flags & 0x0200) !== 0,
    last: additionals > 0 ? last : undefined,
  };
}
