import { createHash, type Hash, hash } from 'node:crypto';
import { DrError, messageOf } from '../base/errors.ts';
import { readExtents, writeExtents } from './extent-text.ts';

/**
 * Bytes of a file inside a frame of a part. Gaps between extents are holes (zeros).
 *
 * What a backup seals together is a *run*: `runLength` bytes at `rawOffset` of the frame's raw content, of which `digest` is the digest.
 * An extent is `length` bytes at `skip` inside the run: the whole of it, or the piece of an older run that has not changed since.
 */
export interface Extent {
  /** Offset in the file, bytes. */
  readonly position: number;
  readonly length: number;
  /** Number of the part in the manifest's list. */
  readonly part: number;
  /** Where the frame begins in the part, its length as stored, and its counter. */
  readonly frameOffset: number;
  readonly frameLength: number;
  readonly counter: number;
  /** Offset of the run in the frame's raw content. */
  readonly rawOffset: number;
  /** Of the whole run, 32 bytes: its SHA-256, or with the entry's `blockBytes` the SHA-256 over those of its blocks. */
  readonly digest: Buffer;
  /** Offset of these bytes in the run; 0 for the whole run. */
  readonly skip: number;
  /** `length` for the whole run. */
  readonly runLength: number;
}

/** An extended attribute. Names and values are bytes. */
export interface Attribute {
  readonly name: Buffer;
  readonly value: Buffer;
}

/** One file system entry of a backup. */
export interface IndexEntry {
  /** Relative path as bytes (file names need not be UTF-8), parts divided by `/`; empty for the root directory itself. */
  readonly path: Buffer;
  readonly type: 'file' | 'directory' | 'symlink' | 'hardlink';
  /** Permission bits, 12 of them. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Nanoseconds since 1970. */
  readonly mtimeNs: bigint;
  /** Bytes of a file; 0 for anything else. */
  readonly size: number;
  /** Where a symbolic link points, or the path of the entry that a hard link equals. */
  readonly target?: Buffer;
  /** `treeChecksum` of the extents and the size; files only. */
  readonly checksum?: Buffer;
  /**
   * Files compared by blocks of this many bytes: the digest of each run is SHA-256 over the SHA-256s of its blocks, of which only the
   * last may be shorter.
   */
  readonly blockBytes?: number;
  /** Extended attributes by name in byte order; absent for none. */
  readonly attributes?: readonly Attribute[];
  /** In the order of their positions, without overlaps. */
  readonly extents: readonly Extent[];
}

/** File names that are valid UTF-8 are kept readable; others as base64 behind an impossible first byte. */
function encodeName(name: Buffer): string {
  const text = name.toString('utf8');
  return Buffer.from(text, 'utf8').equals(name) ? text : `\u0000${name.toString('base64')}`;
}

function decodeName(text: string): Buffer {
  return text.startsWith('\u0000') ? Buffer.from(text.slice(1), 'base64') : Buffer.from(text, 'utf8');
}

const typeLetters = { file: 'f', directory: 'd', symlink: 'l', hardlink: 'h' } as const;
const lettersToType: Record<string, IndexEntry['type']> = { f: 'file', d: 'directory', l: 'symlink', h: 'hardlink' };

/** How the extents begin, the last field of a line. */
const extentsField = Buffer.from(',"x":');
const lineEnd = Buffer.from('}\n');
/** Bytes from which on the extents of a line are worth being read by themselves. */
const LONG_LINE = 4096;

/** True when an extent is all of its run. */
export function isWholeRun({ skip, length, runLength }: Extent): boolean {
  return skip === 0 && length === runLength;
}

/** One line of the index, newline included. */
export function encodeEntry(entry: IndexEntry): Buffer {
  const head = JSON.stringify({
    p: encodeName(entry.path),
    t: typeLetters[entry.type],
    m: entry.mode,
    u: entry.uid,
    g: entry.gid,
    mt: entry.mtimeNs.toString(),
    ...(entry.type === 'file' ? { s: entry.size, c: entry.checksum?.toString('base64') ?? '' } : {}),
    ...(entry.blockBytes === undefined ? {} : { b: entry.blockBytes }),
    ...(entry.target === undefined ? {} : { l: encodeName(entry.target) }),
    ...(entry.attributes === undefined || entry.attributes.length === 0
      ? {}
      : { xa: entry.attributes.map(({ name, value }) => [encodeName(name), value.toString('base64')]) }),
  });
  if (entry.extents.length === 0) return Buffer.from(`${head}\n`);
  return Buffer.concat([Buffer.from(head.slice(0, -1)), extentsField, writeExtents(entry.extents), lineEnd]);
}

/** Reads one line of an index, with its newline or without; throws `corrupt` naming `where`. */
export function decodeEntry(line: Buffer, where: string): IndexEntry {
  try {
    const { raw, extents } = parseLine(line);
    if (typeof raw !== 'object' || raw === null) throw new Error('not an object');
    const fields = raw as Record<string, unknown>;
    const type = lettersToType[text(fields.t)];
    if (type === undefined) throw new Error(`unknown entry type ${String(fields.t)}`);
    return {
      path: safePath(decodeName(text(fields.p))),
      type,
      mode: count(fields.m),
      uid: count(fields.u),
      gid: count(fields.g),
      mtimeNs: BigInt(text(fields.mt)),
      size: type === 'file' ? count(fields.s) : 0,
      extents: extents ?? decodeExtents(fields.x),
      ...(type === 'file' ? { checksum: Buffer.from(text(fields.c), 'base64') } : {}),
      ...(fields.b === undefined ? {} : { blockBytes: count(fields.b) }),
      ...(fields.l === undefined ? {} : { target: decodeName(text(fields.l)) }),
      ...(Array.isArray(fields.xa) ? { attributes: fields.xa.map(decodeAttribute) } : {}),
    };
  } catch (error) {
    throw new DrError('corrupt', `a line of the index cannot be read: ${messageOf(error)}`, {
      where,
      next: 'Restore from another vault (--vault NAME), then repair this one from it.',
      cause: error,
    });
  }
}

/** What a line says; of a long one the extents by themselves. */
function parseLine(line: Buffer): { readonly raw: unknown; readonly extents: Extent[] | undefined } {
  const at = line.length < LONG_LINE ? -1 : line.indexOf(extentsField);
  const end = line.at(-1) === 10 ? line.length - 2 : line.length - 1;
  // Inside of texts a quote has a backslash before it, so this is the field.
  const extents = at < 0 || line[end] !== lineEnd[0] ? undefined : readExtents(line, at + extentsField.length, end);
  const text = extents ? `${line.toString('utf8', 0, at)}}` : line.toString('utf8');
  return { raw: JSON.parse(text), extents };
}

function decodeExtents(list: unknown): Extent[] {
  if (!Array.isArray(list)) return [];
  let lastText = '';
  let last: Buffer = Buffer.alloc(0);
  return list.map((value: unknown) => {
    if (!Array.isArray(value) || (value.length !== 8 && value.length !== 10)) {
      throw new Error('an extent is not a list of 8 or 10');
    }
    const [position, length, part, frameOffset, frameLength, counter, rawOffset, digest, skip, runLength] =
      value as unknown[];
    const digestText = text(digest);
    if (digestText !== lastText) last = Buffer.from(digestText, 'base64');
    lastText = digestText;
    return {
      position: count(position),
      length: count(length),
      part: count(part),
      frameOffset: count(frameOffset),
      frameLength: count(frameLength),
      counter: count(counter),
      rawOffset: count(rawOffset),
      digest: last,
      skip: skip === undefined ? 0 : count(skip),
      runLength: runLength === undefined ? count(length) : count(runLength),
    };
  });
}

function decodeAttribute(value: unknown): Attribute {
  if (!Array.isArray(value)) throw new Error('an attribute is not a list');
  const [name, content] = value as unknown[];
  return { name: decodeName(text(name)), value: Buffer.from(text(content), 'base64') };
}

function count(value: unknown): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw new Error('not a count');
  return value;
}

function text(value: unknown): string {
  if (typeof value !== 'string') throw new Error('not a text');
  return value;
}

/** A path that stays inside the restore target, whatever an index says. */
function safePath(path: Buffer): Buffer {
  const parts = path.toString('latin1').split('/');
  const unsafe = path.length > 0 && parts.some((part) => part === '' || part === '.' || part === '..');
  if (unsafe || path.includes(0)) throw new Error('a path leaves the restored directory');
  return path;
}

/**
 * The checksum of a file's content as the index records it: SHA-256 over (position, digest) of each extent, of a piece of a run also
 * (skip, length), and the size; numbers as 8 bytes.
 */
export function treeChecksum(extents: readonly Extent[], size: number): Buffer {
  // Gathered: a large file may have hundreds of thousands of extents, and each call of `update` costs more than what it hashes. A small
  // one needs no hash object, which costs more than all of its content.
  const bytes = Buffer.allocUnsafe(64 * Math.min(extents.length + 1, 1024));
  let gathered: Hash | undefined;
  let used = 0;
  const number = (value: number) => {
    used = bytes.writeUInt32BE(Math.floor(value / 0x1_0000_0000), used);
    used = bytes.writeUInt32BE(value % 0x1_0000_0000, used);
  };
  for (const extent of extents) {
    number(extent.position);
    bytes.set(extent.digest, used);
    used += extent.digest.length;
    if (!isWholeRun(extent)) {
      number(extent.skip);
      number(extent.length);
    }
    if (used <= bytes.length - 64) continue;
    gathered ??= createHash('sha256');
    gathered.update(bytes.subarray(0, used));
    used = 0;
  }
  number(size);
  const rest = bytes.subarray(0, used);
  return gathered ? gathered.update(rest).digest() : hash('sha256', rest, 'buffer');
}
