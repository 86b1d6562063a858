import { hash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { BLOCK_DIGEST_BYTES, type StatFacts } from './previous-backup.ts';

// What is kept on local disk of the newest backup of a resource: one file, written once.
//
//   magic "DRPREV1\n"
//   records, one a file of the backup: header (20 bytes), index line, stat facts (0 or 40), block digests in chunks
//   table: rows of 16 bytes (hash of the path, offset of its record + 1; 0 = free), open addressing
//   facts: JSON
//   footer (72 bytes): offset of the table, its rows, bytes of the facts, number of records, SHA-256 of table, facts and these, magic
//
// A record and each chunk of digests has a CRC-32; anything that does not fit means that nothing is known of the file concerned, or of
// the whole backup where it is the table, the facts or the footer.

export const MAGIC = Buffer.from('DRPREV1\n');
export const RECORD_HEADER_BYTES = 20;
export const STAT_BYTES = 40;
export const ROW_BYTES = 16;
export const FOOTER_BYTES = 8 + 8 + 8 + 8 + 32 + 8;

/** Block digests below one CRC-32: those of a frame of PostgreSQL's blocks. */
export const CHUNK_BLOCKS = 512;
export const CHUNK_BYTES = CHUNK_BLOCKS * BLOCK_DIGEST_BYTES;

export interface RecordHeader {
  readonly lineBytes: number;
  readonly blocks: number;
  readonly hasStat: boolean;
  /** Of the header before it, the line and the stat facts. */
  readonly crc: number;
}

export interface Footer {
  readonly tableOffset: number;
  readonly rows: number;
  readonly factsBytes: number;
  readonly records: number;
  readonly digest: Buffer;
}

/** A record: what a state has of one file. `text`: its line of the index. `digests` of its blocks, if they are known. */
export function encodeRecord(text: Buffer, stat: StatFacts | undefined, digests: Buffer | undefined): Buffer {
  const chunks = Math.ceil((digests?.length ?? 0) / CHUNK_BYTES);
  const head = RECORD_HEADER_BYTES + text.length + (stat ? STAT_BYTES : 0);
  const record = Buffer.allocUnsafe(head + (digests?.length ?? 0) + 4 * chunks);
  record.writeUInt32LE(text.length, 0);
  record.writeDoubleLE((digests?.length ?? 0) / BLOCK_DIGEST_BYTES, 4);
  record.writeUInt32LE(stat ? 1 : 0, 12);
  text.copy(record, RECORD_HEADER_BYTES);
  if (stat) {
    const facts = [stat.size, stat.mtimeNs, stat.ctimeNs, stat.ino, stat.dev];
    for (const [i, fact] of facts.entries()) {
      record.writeBigUInt64LE(BigInt.asUintN(64, fact), RECORD_HEADER_BYTES + text.length + 8 * i);
    }
  }
  const crc = recordCrc(record.subarray(0, head));
  record.writeUInt32LE(crc, 16);
  for (let n = 0; digests && n < chunks; n++) {
    const chunk = digests.subarray(n * CHUNK_BYTES, (n + 1) * CHUNK_BYTES);
    const at = head + n * (CHUNK_BYTES + 4);
    chunk.copy(record, at);
    record.writeUInt32LE(chunkCrc(chunk, crc, n), at + chunk.length);
  }
  return record;
}

/** Reads the header at the beginning of `bytes`. */
export function decodeHeader(bytes: Buffer): RecordHeader {
  return {
    lineBytes: bytes.readUInt32LE(0),
    blocks: bytes.readDoubleLE(4),
    hasStat: bytes.readUInt32LE(12) === 1,
    crc: bytes.readUInt32LE(16),
  };
}

export function decodeStat(bytes: Buffer): StatFacts {
  const fact = (i: number) => bytes.readBigInt64LE(8 * i);
  return { size: fact(0), mtimeNs: fact(1), ctimeNs: fact(2), ino: fact(3), dev: fact(4) };
}

/** Of header, line and stat facts; the place of the sum itself left out. */
export function recordCrc(head: Buffer): number {
  return crc32(head.subarray(RECORD_HEADER_BYTES), crc32(head.subarray(0, 16)));
}

/** Of a chunk as the one that it is: number `n` of the record with this sum. */
export function chunkCrc(chunk: Buffer, recordCrc: number, n: number): number {
  return crc32(chunk, (recordCrc + n) >>> 0);
}

/** The hash of a path in the table. */
export function pathHash(path: Buffer): Buffer {
  return hash('sha256', path, 'buffer').subarray(0, 8);
}

/** The first row where a hash may stand. */
export function firstRow(digest: Buffer, rows: number): number {
  return Math.floor((digest.readUInt32LE(0) / 0x1_0000_0000) * rows);
}

export function encodeFooter(footer: Omit<Footer, 'digest'>, table: Buffer, facts: Buffer): Buffer {
  const bytes = Buffer.alloc(FOOTER_BYTES);
  const numbers = [footer.tableOffset, footer.rows, footer.factsBytes, footer.records];
  for (const [i, number] of numbers.entries()) bytes.writeDoubleLE(number, 8 * i);
  footerDigest(bytes, table, facts).copy(bytes, 32);
  MAGIC.copy(bytes, 64);
  return bytes;
}

export function decodeFooter(bytes: Buffer): Footer | undefined {
  if (!bytes.subarray(64).equals(MAGIC)) return undefined;
  const [tableOffset = 0, rows = 0, factsBytes = 0, records = 0] = [0, 8, 16, 24].map((at) => bytes.readDoubleLE(at));
  const numbers = [tableOffset, rows, factsBytes, records];
  if (!numbers.every((number) => Number.isSafeInteger(number) && number >= 0)) return undefined;
  return { tableOffset, rows, factsBytes, records, digest: bytes.subarray(32, 64) };
}

export function footerDigest(footer: Buffer, table: Buffer, facts: Buffer): Buffer {
  return hash('sha256', Buffer.concat([hash('sha256', table, 'buffer'), facts, footer.subarray(0, 32)]), 'buffer');
}
