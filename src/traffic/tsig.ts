import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Rfc2136Config } from '../config/types.ts';
import { classCode, encodeName, encodeRecord, type MessageParts, readMessage, readName, typeCode } from './wire.ts';

/** Signatures of DNS messages by a shared key (RFC 8945). */

export type TsigKey = Rfc2136Config['key'];

/** How far clocks may be apart, seconds: the value that RFC 8945 recommends. */
const fudgeSeconds = 300;

/** Error codes in a TSIG record (RFC 8945 section 3). */
const errorNames: Readonly<Record<number, string>> = { 16: 'BADSIG', 17: 'BADKEY', 18: 'BADTIME', 22: 'BADTRUNC' };

/** What a verified look at an answer found. */
export type TsigVerdict =
  | { readonly verdict: 'good' }
  /** There is no signature: anybody may have sent it. */
  | { readonly verdict: 'unsigned' }
  /** Signed by another key, or changed on its way, or an old answer that was sent again. */
  | { readonly verdict: 'forged'; readonly why: string }
  /** The server did not accept the signature of the request. `serverMs`: its clock, of BADTIME, milliseconds since 1970. */
  | { readonly verdict: 'rejected'; readonly error: string; readonly serverMs: number | undefined };

interface TsigRecord {
  readonly algorithm: string;
  readonly seconds: number;
  readonly fudge: number;
  readonly mac: Buffer;
  readonly originalId: number;
  readonly error: number;
  readonly other: Buffer;
}

/** The message with its signature added, and the signature, which the answer's covers. */
export function sign(message: Buffer, key: TsigKey, nowMs: number): { readonly message: Buffer; readonly mac: Buffer } {
  const seconds = Math.floor(nowMs / 1000);
  const record = { algorithm: key.algorithm, seconds, fudge: fudgeSeconds, error: 0, other: Buffer.alloc(0) };
  const mac = hmac(key, [message, variables(key, record)]);
  const tsig = encodeRecord({
    name: key.name,
    type: typeCode.TSIG,
    class: classCode.ANY,
    ttl: 0,
    data: encodeTsig({ ...record, mac, originalId: message.readUInt16BE(0) }),
  });
  const signed = Buffer.concat([message, tsig]);
  signed.writeUInt16BE(message.readUInt16BE(10) + 1, 10);
  return { message: signed, mac };
}

/** Judges the answer to a request that was signed with `requestMac`. Throws when it cannot be read as a DNS message. */
export function verify(message: Buffer, key: TsigKey, requestMac: Buffer, nowMs: number): TsigVerdict {
  const { last } = readMessage(message);
  if (last?.type !== typeCode.TSIG) return { verdict: 'unsigned' };
  // Neither field is part of what is signed (RFC 8945 section 4.2 fixes both).
  if (last.class !== classCode.ANY || last.ttl !== 0) return { verdict: 'forged', why: 'its signature is malformed' };
  const tsig = decodeTsig(message, last);
  const error = tsig.error === 0 ? undefined : (errorNames[tsig.error] ?? `TSIG error ${tsig.error}`);
  // A server that does not know the key or finds the signature wrong cannot sign its answer (RFC 8945 section 5.2).
  if (tsig.mac.length === 0 && error !== undefined) return { verdict: 'rejected', error, serverMs: undefined };
  if (last.name !== readName(encodeName(key.name), 0).name) {
    return { verdict: 'forged', why: `it is signed with the key ${last.name}` };
  }
  if (tsig.algorithm !== key.algorithm) return { verdict: 'forged', why: `it is signed with ${tsig.algorithm}` };
  const bare = Buffer.from(message.subarray(0, last.start));
  bare.writeUInt16BE(tsig.originalId, 0);
  bare.writeUInt16BE(message.readUInt16BE(10) - 1, 10);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(requestMac.length);
  const mac = hmac(key, [length, requestMac, bare, variables(key, tsig)]);
  if (mac.length !== tsig.mac.length || !timingSafeEqual(mac, tsig.mac)) {
    return { verdict: 'forged', why: 'its signature is wrong' };
  }
  if (error !== undefined) return { verdict: 'rejected', error, serverMs: serverTime(tsig) };
  const apart = Math.abs(Math.floor(nowMs / 1000) - tsig.seconds);
  if (apart > tsig.fudge) return { verdict: 'forged', why: `it was signed ${apart} s away from the time here` };
  return { verdict: 'good' };
}

/** Of BADTIME: the server puts its own time into "other data". */
function serverTime({ other }: TsigRecord): number | undefined {
  return other.length === 6 ? other.readUIntBE(0, 6) * 1000 : undefined;
}

function hmac({ algorithm, secret }: TsigKey, pieces: readonly Uint8Array[]): Buffer {
  const digest = createHmac(algorithm.replace('hmac-', ''), Buffer.from(secret, 'base64'));
  for (const piece of pieces) digest.update(piece);
  return digest.digest();
}

/** The TSIG variables that the signature covers (RFC 8945 section 4.3.3). */
function variables(
  key: TsigKey,
  tsig: Pick<TsigRecord, 'algorithm' | 'seconds' | 'fudge' | 'error' | 'other'>,
): Buffer {
  const fixed = Buffer.alloc(6);
  fixed.writeUInt16BE(classCode.ANY, 0);
  const rest = Buffer.alloc(12);
  rest.writeUIntBE(tsig.seconds, 0, 6);
  rest.writeUInt16BE(tsig.fudge, 6);
  rest.writeUInt16BE(tsig.error, 8);
  rest.writeUInt16BE(tsig.other.length, 10);
  return Buffer.concat([encodeName(key.name), fixed, encodeName(tsig.algorithm), rest, tsig.other]);
}

function encodeTsig({ algorithm, seconds, fudge, mac, originalId, error, other }: TsigRecord): Buffer {
  const times = Buffer.alloc(10);
  times.writeUIntBE(seconds, 0, 6);
  times.writeUInt16BE(fudge, 6);
  times.writeUInt16BE(mac.length, 8);
  const rest = Buffer.alloc(6);
  rest.writeUInt16BE(originalId, 0);
  rest.writeUInt16BE(error, 2);
  rest.writeUInt16BE(other.length, 4);
  return Buffer.concat([encodeName(algorithm), times, mac, rest, other]);
}

function decodeTsig(message: Buffer, last: NonNullable<MessageParts['last']>): TsigRecord {
  // The algorithm's name may not be compressed, but some servers do: it is read inside the message.
  const start = message.length - last.data.length;
  const { name: algorithm, end } = readName(message, start);
  const macLength = message.readUInt16BE(end + 8);
  const macEnd = end + 10 + macLength;
  const otherLength = message.readUInt16BE(macEnd + 4);
  if (macEnd + 6 + otherLength !== message.length) throw new Error('the signature cannot be read');
  return {
    algorithm,
    seconds: message.readUIntBE(end, 6),
    fudge: message.readUInt16BE(end + 6),
    mac: message.subarray(end + 10, macEnd),
    originalId: message.readUInt16BE(macEnd),
    error: message.readUInt16BE(macEnd + 2),
    other: message.subarray(macEnd + 6),
  };
}
