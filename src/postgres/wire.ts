import { DrError } from '../base/errors.ts';
import type { Lsn } from './lsn.ts';

/**
 * PostgreSQL's frontend/backend protocol 3, as much of it as a replication client needs, without input or output.
 * Source: "Message Formats" and "Streaming Replication Protocol" in PostgreSQL's documentation.
 */

/** First bytes of the messages that a server sends. */
export const backend = {
  copyBothResponse: 0x57, // W
  copyData: 0x64, // d
  copyDone: 0x63, // c
  copyInResponse: 0x47, // G
  copyOutResponse: 0x48, // H
  commandComplete: 0x43, // C
  dataRow: 0x44, // D
  emptyQuery: 0x49, // I
  error: 0x45, // E
  notice: 0x4e, // N
  notification: 0x41, // A
  parameterStatus: 0x53, // S
  readyForQuery: 0x5a, // Z
  rowDescription: 0x54, // T
} as const;

/** The server's side of the connection came to its end. */
export function serverClosed(where: string): DrError {
  return new DrError('unreachable', 'the server closed the connection', {
    where,
    next: 'Look at the server log for a crash, a restart or a terminated connection.',
  });
}

/** Where the bytes of the server come from. Nothing is read ahead of the calls: not calling is back-pressure. */
export interface ByteSource {
  /** Some bytes, at least one: a view that is valid until the next call. Undefined when the server closed its side. */
  read(): Promise<Buffer | undefined>;
}

/** Only messages that are buffered whole are limited: the largest known is a row of TIMELINE_HISTORY. */
const maxBufferedBytes = 64 * 1024 * 1024;
const noBytes = Buffer.alloc(0);

/**
 * Cuts the stream into messages without copying their bodies: a body comes as views of the source's own buffer, in as many
 * pieces as it arrived in. Only what must be contiguous (headers, rows) is copied, and only when a packet boundary cuts it.
 */
export class MessageReader {
  readonly #source: ByteSource;
  readonly #where: string;
  #chunk: Buffer = noBytes;
  #at = 0;
  #left = 0;

  constructor(source: ByteSource, where: string) {
    this.#source = source;
    this.#where = where;
  }

  /** Bytes of the current message's body that were not read yet. */
  get left(): number {
    return this.#left;
  }

  /** Skips what is left of the current message and returns the type of the next one. */
  async next(): Promise<number> {
    while (this.#left > 0) await this.view();
    const header = await this.#contiguous(5);
    const type = header[0] ?? 0;
    const length = header.readUInt32BE(1);
    if (length < 4 || type < 0x31 || type > 0x7a) {
      throw new DrError(
        'corrupt',
        `the server sent bytes that are no PostgreSQL message (type ${type}, length ${length})`,
        {
          where: this.#where,
          next: 'Check that host and port lead to a PostgreSQL server and not to a proxy that does not know replication.',
        },
      );
    }
    this.#left = length - 4;
    return type;
  }

  /** Some of the current body (at least one byte): a view that is valid until the next call of any method. */
  async view(): Promise<Buffer> {
    if (this.#at === this.#chunk.length) await this.#fill();
    const end = Math.min(this.#chunk.length, this.#at + this.#left);
    const view = this.#chunk.subarray(this.#at, end);
    this.#left -= view.length;
    this.#at = end;
    return view;
  }

  /** Exactly `count` bytes of the current body: a view that is valid until the next call of any method. */
  async take(count: number): Promise<Buffer> {
    if (count > this.#left || count > maxBufferedBytes) {
      throw new DrError(
        'corrupt',
        `the server sent a message of an impossible length (${this.#left} bytes, ${count} expected)`,
        {
          where: this.#where,
          next: 'Run it again; if it repeats, report it with the version of the server.',
        },
      );
    }
    const bytes = await this.#contiguous(count);
    this.#left -= count;
    return bytes;
  }

  /** All that is left of the current body. */
  rest(): Promise<Buffer> {
    return this.take(this.#left);
  }

  async #contiguous(count: number): Promise<Buffer> {
    if (this.#chunk.length - this.#at >= count) {
      this.#at += count;
      return this.#chunk.subarray(this.#at - count, this.#at);
    }
    const bytes = Buffer.allocUnsafe(count);
    let have = 0;
    while (have < count) {
      if (this.#at === this.#chunk.length) await this.#fill();
      const copied = this.#chunk.copy(bytes, have, this.#at, Math.min(this.#chunk.length, this.#at + count - have));
      this.#at += copied;
      have += copied;
    }
    return bytes;
  }

  async #fill(): Promise<void> {
    this.#chunk = noBytes;
    this.#at = 0;
    const chunk = await this.#source.read();
    if (chunk === undefined) {
      throw serverClosed(this.#where);
    }
    this.#chunk = chunk;
  }
}

/** An ErrorResponse or NoticeResponse. */
export interface ServerMessage {
  /** Never translated: ERROR, FATAL, PANIC, WARNING, NOTICE … */
  readonly severity: string;
  readonly sqlstate: string;
  readonly message: string;
  readonly detail: string | undefined;
  readonly hint: string | undefined;
  /** The function of the server's source that raised it: unlike the message it is never translated. */
  readonly routine: string | undefined;
}

/** Decodes the body of an ErrorResponse or NoticeResponse. */
export function parseServerMessage(body: Buffer): ServerMessage {
  const fields = new Map<string, string>();
  let at = 0;
  while (at < body.length && body[at] !== 0) {
    const end = body.indexOf(0, at + 1);
    const stop = end < 0 ? body.length : end;
    fields.set(String.fromCharCode(body[at] ?? 0), body.toString('utf8', at + 1, stop));
    at = stop + 1;
  }
  return {
    severity: fields.get('V') ?? fields.get('S') ?? 'ERROR',
    sqlstate: fields.get('C') ?? 'XX000',
    message: fields.get('M') ?? 'unknown error',
    detail: fields.get('D'),
    hint: fields.get('H'),
    routine: fields.get('R'),
  };
}

/** Column names of a RowDescription. */
export function parseRowDescription(body: Buffer): string[] {
  const names: string[] = [];
  let at = 2;
  for (let count = body.readInt16BE(0); count > 0; count--) {
    const end = body.indexOf(0, at);
    names.push(body.toString('utf8', at, end));
    at = end + 1 + 18; // table, column, type, size, modifier, format
  }
  return names;
}

/** The values of a DataRow as raw bytes (copied), null for NULL. */
export function parseDataRow(body: Buffer): Array<Buffer | null> {
  const values: Array<Buffer | null> = [];
  let at = 2;
  for (let count = body.readInt16BE(0); count > 0; count--) {
    const length = body.readInt32BE(at);
    at += 4;
    values.push(length < 0 ? null : Buffer.from(body.subarray(at, at + length)));
    at += Math.max(0, length);
  }
  return values;
}

/** Name and value of a ParameterStatus. */
export function parseParameterStatus(body: Buffer): { name: string; value: string } {
  const end = body.indexOf(0);
  return { name: body.toString('utf8', 0, end), value: body.toString('utf8', end + 1, body.length - 1) };
}

/** First bytes inside the CopyData messages of WAL streaming and of a base backup. */
export const copyKind = {
  wal: 0x77, // w
  keepalive: 0x6b, // k
  newArchive: 0x6e, // n
  manifest: 0x6d, // m
  data: 0x64, // d
  progress: 0x70, // p
} as const;

/** Bytes of the header of XLogData after its kind: start, end of WAL on the server, clock. */
export const walHeaderBytes = 24;
/** Bytes of a primary keepalive after its kind: end of WAL on the server, clock, reply requested. */
export const keepaliveBytes = 17;

/** PostgreSQL counts microseconds since 2000-01-01; this is that moment in milliseconds since 1970. */
const epoch2000Ms = 946_684_800_000;

/** Milliseconds since 1970 of a clock value at `offset`. */
export function readClockMs(bytes: Buffer, offset: number): number {
  return Number(bytes.readBigInt64BE(offset)) / 1000 + epoch2000Ms;
}

/** A simple query. */
export function encodeQuery(text: string): Buffer {
  const length = Buffer.byteLength(text);
  const message = Buffer.alloc(1 + 4 + length + 1);
  message[0] = 0x51; // Q
  message.writeInt32BE(4 + length + 1, 1);
  message.write(text, 5);
  return message;
}

/** Bytes for a copy into the server. */
export function encodeCopyData(bytes: Uint8Array): Buffer {
  const message = Buffer.allocUnsafe(1 + 4 + bytes.length);
  message[0] = backend.copyData;
  message.writeInt32BE(4 + bytes.length, 1);
  message.set(bytes, 5);
  return message;
}

export const encodedCopyDone = Buffer.from([0x63, 0, 0, 0, 4]);
export const encodedTerminate = Buffer.from([0x58, 0, 0, 0, 4]);

/** Standby status update: how far WAL was received, is durable and is applied (0 = says nothing about it). */
export function encodeStatus(status: {
  readonly written: Lsn;
  readonly flushed: Lsn;
  readonly applied: Lsn;
  /** The client's clock, milliseconds since 1970. */
  readonly clockMs: number;
  /** Asks the server to answer with a keepalive at once. */
  readonly replyRequested: boolean;
}): Buffer {
  const message = Buffer.alloc(1 + 4 + 34);
  message[0] = backend.copyData;
  message.writeInt32BE(4 + 34, 1);
  message[5] = 0x72; // r
  message.writeBigUInt64BE(status.written, 6);
  message.writeBigUInt64BE(status.flushed, 14);
  message.writeBigUInt64BE(status.applied, 22);
  message.writeBigInt64BE(BigInt(Math.round((status.clockMs - epoch2000Ms) * 1000)), 30);
  message[38] = status.replyRequested ? 1 : 0;
  return message;
}
