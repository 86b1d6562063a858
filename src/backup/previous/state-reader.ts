import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { codeOf, messageOf } from '../../base/errors.ts';
import { extentsProblem, sliceExtents } from '../extents.ts';
import { decodeEntry, type Extent, type IndexEntry } from '../index-format.ts';
import { BLOCK_DIGEST_BYTES, type StatFacts } from './previous-backup.ts';
import {
  CHUNK_BLOCKS,
  CHUNK_BYTES,
  chunkCrc,
  decodeFooter,
  decodeHeader,
  decodeStat,
  FOOTER_BYTES,
  firstRow,
  footerDigest,
  MAGIC,
  pathHash,
  RECORD_HEADER_BYTES,
  ROW_BYTES,
  recordCrc,
  STAT_BYTES,
} from './state-format.ts';
import type { StateFacts } from './state-writer.ts';

/** What is read at once of a record: the whole of it for most files. */
const READ_BYTES = 1024;

/** A file as a state has it. */
export interface SavedEntry {
  readonly entry: IndexEntry;
  readonly stat: StatFacts | undefined;
  /** Blocks of which the digests are kept. */
  readonly blocks: number;
  /** Where they begin, and the sum of the record that they belong to. */
  readonly digestsOffset: number;
  readonly crc: number;
}

/** Reads a state in place: only its table is in memory, 24 bytes a file. */
export class StateReader {
  readonly facts: StateFacts;
  /** Records that could not be read so far. */
  damaged = 0;
  readonly #file: number;
  readonly #table: Buffer;
  readonly #rows: number;
  readonly #tableOffset: number;
  readonly #buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  #chunk: { readonly offset: number; readonly bytes: Buffer } | undefined;

  private constructor(file: number, facts: StateFacts, table: Buffer, tableOffset: number) {
    this.#file = file;
    this.facts = facts;
    this.#table = table;
    this.#rows = table.length / ROW_BYTES;
    this.#tableOffset = tableOffset;
  }

  /** Opens a state; the reason, as half a sentence, where it cannot be used. */
  static open(place: string): StateReader | string {
    let file: number;
    try {
      file = openSync(place, 'r');
    } catch (error) {
      return codeOf(error) === 'ENOENT' ? 'it is not here' : `it cannot be read: ${messageOf(error)}`;
    }
    try {
      const found = StateReader.#load(file);
      if (found) return found;
    } catch (error) {
      closeSync(file);
      return `it cannot be read: ${messageOf(error)}`;
    }
    closeSync(file);
    return 'it is damaged';
  }

  static #load(file: number): StateReader | undefined {
    const { size } = fstatSync(file);
    if (size < MAGIC.length + FOOTER_BYTES) return undefined;
    const footerBytes = readAt(file, size - FOOTER_BYTES, FOOTER_BYTES);
    const footer = decodeFooter(footerBytes);
    if (!footer) return undefined;
    const { tableOffset, rows, factsBytes } = footer;
    if (tableOffset + rows * ROW_BYTES + factsBytes + FOOTER_BYTES !== size) return undefined;
    const table = readAt(file, tableOffset, rows * ROW_BYTES);
    const text = readAt(file, tableOffset + table.length, factsBytes);
    if (!footerDigest(footerBytes, table, text).equals(footer.digest)) return undefined;
    // What the digest covers was written by dr.
    return new StateReader(file, JSON.parse(text.toString('utf8')) as StateFacts, table, tableOffset);
  }

  close(): void {
    closeSync(this.#file);
  }

  /** The file of this path; undefined if there is none or its record is damaged. */
  find(path: Buffer): SavedEntry | undefined {
    const digest = pathHash(path);
    for (let n = 0, at = firstRow(digest, this.#rows); n < this.#rows; n++, at = (at + 1) % this.#rows) {
      const offset = this.#table.readDoubleLE(at * ROW_BYTES + 8) - 1;
      if (offset < 0) return undefined;
      if (this.#table.compare(digest, 0, 8, at * ROW_BYTES, at * ROW_BYTES + 8) !== 0) continue;
      const saved = this.#orDamaged(() => this.#read(offset));
      if (!saved) continue;
      // Another path may have the same hash.
      if (saved.entry.path.equals(path)) return saved;
    }
    return undefined;
  }

  /** All files, in the order in which they were written; damaged records are left out. */
  *all(): Generator<SavedEntry> {
    const offsets = new Float64Array(this.#rows);
    for (let at = 0; at < this.#rows; at++) offsets[at] = this.#table.readDoubleLE(at * ROW_BYTES + 8) - 1;
    for (const offset of offsets.sort()) {
      const saved = offset < 0 ? undefined : this.#orDamaged(() => this.#read(offset));
      if (saved) yield saved;
    }
  }

  /** The digests of `count` blocks from `first` on, zeros where none is known or they are damaged. */
  digests(saved: SavedEntry, first: number, count: number): Buffer {
    const found = Buffer.alloc(count * BLOCK_DIGEST_BYTES);
    const end = Math.min(first + count, saved.blocks);
    for (let at = first; at < end; ) {
      const n = Math.floor(at / CHUNK_BLOCKS);
      const to = Math.min(end, (n + 1) * CHUNK_BLOCKS);
      const inChunk = (at - n * CHUNK_BLOCKS) * BLOCK_DIGEST_BYTES;
      const chunk = this.#orDamaged(() => this.#readChunk(saved, n));
      chunk?.copy(found, (at - first) * BLOCK_DIGEST_BYTES, inChunk, inChunk + (to - at) * BLOCK_DIGEST_BYTES);
      at = to;
    }
    return found;
  }

  /** Counts what could not be read: nothing is then known of it. */
  #orDamaged<T>(read: () => T | undefined): T | undefined {
    let found: T | undefined;
    try {
      found = read();
    } catch {
      found = undefined;
    }
    if (found === undefined) this.damaged++;
    return found;
  }

  #read(offset: number): SavedEntry | undefined {
    const { lineBytes, blocks, hasStat, crc, head } = this.#readHead(offset);
    if (!head || recordCrc(head) !== crc) return undefined;
    const lineEnd = RECORD_HEADER_BYTES + lineBytes;
    const entry = decodeEntry(head.subarray(RECORD_HEADER_BYTES, lineEnd), 'what is kept of the previous backup');
    if (extentsProblem(entry.extents, entry.size) !== undefined) return undefined;
    const stat = hasStat ? decodeStat(head.subarray(lineEnd)) : undefined;
    return { entry, stat, blocks, digestsOffset: offset + head.length, crc };
  }

  #readHead(offset: number) {
    const room = Math.min(READ_BYTES, this.#tableOffset - offset);
    if (room < RECORD_HEADER_BYTES || readSync(this.#file, this.#buffer, 0, room, offset) !== room) return nothing;
    const header = decodeHeader(this.#buffer);
    const bytes = RECORD_HEADER_BYTES + header.lineBytes + (header.hasStat ? STAT_BYTES : 0);
    if (offset + bytes > this.#tableOffset) return nothing;
    const head = bytes <= room ? this.#buffer.subarray(0, bytes) : readAt(this.#file, offset, bytes);
    return { ...header, head };
  }

  #readChunk({ blocks, digestsOffset, crc }: SavedEntry, n: number): Buffer | undefined {
    const bytes = Math.min(CHUNK_BYTES, blocks * BLOCK_DIGEST_BYTES - n * CHUNK_BYTES);
    const offset = digestsOffset + n * (CHUNK_BYTES + 4);
    if (this.#chunk?.offset === offset) return this.#chunk.bytes;
    if (offset + bytes + 4 > this.#tableOffset) return undefined;
    const read = readAt(this.#file, offset, bytes + 4);
    const chunk = read.subarray(0, bytes);
    if (chunkCrc(chunk, crc, n) !== read.readUInt32LE(bytes)) return undefined;
    this.#chunk = { offset, bytes: chunk };
    return chunk;
  }
}

const nothing = { lineBytes: 0, blocks: 0, hasStat: false, crc: 0, head: undefined };

/**
 * Zeroes the digests of blocks (`first` on, `blockBytes` each) that `usable` extents do not hold wholly: what is there must be stored again,
 * whatever it is now.
 */
export function hideUnusable(
  digests: Buffer,
  { extents, size }: Pick<IndexEntry, 'extents' | 'size'>,
  blockBytes: number,
  first: number,
  usable: (extent: Extent) => boolean,
): void {
  const from = first * blockBytes;
  const to = Math.min(size, from + (digests.length / BLOCK_DIGEST_BYTES) * blockBytes);
  const found = sliceExtents(extents, from, to).filter(usable);
  if (found.reduce((sum, { length }) => sum + length, 0) === to - from) return;
  for (let at = from, n = 0; at < to; at += blockBytes, n++) {
    const end = Math.min(at + blockBytes, to);
    const held = sliceExtents(found, at, end).reduce((sum, { length }) => sum + length, 0);
    if (held !== end - at) digests.fill(0, n * BLOCK_DIGEST_BYTES, (n + 1) * BLOCK_DIGEST_BYTES);
  }
}

function readAt(file: number, offset: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  const got = readSync(file, bytes, 0, length, offset);
  if (got !== length) throw new Error(`the file ends at ${offset + got}`);
  return bytes;
}
