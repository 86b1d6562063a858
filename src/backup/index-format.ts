import { createHash } from 'node:crypto';
import { DrError, messageOf } from '../base/errors.ts';

/**
 * A run of a file's bytes inside a frame of a part. Gaps between extents are holes (zeros).
 * Stored as a JSON array in this order.
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
  /** SHA-256 of the run. */
  readonly digest: Buffer;
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
  /** SHA-256 over (position as 8 bytes, digest) of every extent and the size as 8 bytes; files only. */
  readonly checksum?: Buffer;
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

/** One line of the index, newline included. */
export function encodeEntry(entry: IndexEntry): string {
  const extents = entry.extents.map((x) => [
    x.position,
    x.length,
    x.part,
    x.frameOffset,
    x.frameLength,
    x.counter,
    x.rawOffset,
    x.digest.toString('base64'),
  ]);
  return `${JSON.stringify({
    p: encodeName(entry.path),
    t: typeLetters[entry.type],
    m: entry.mode,
    u: entry.uid,
    g: entry.gid,
    mt: entry.mtimeNs.toString(),
    ...(entry.type === 'file' ? { s: entry.size, c: entry.checksum?.toString('base64') ?? '' } : {}),
    ...(entry.target === undefined ? {} : { l: encodeName(entry.target) }),
    ...(extents.length === 0 ? {} : { x: extents }),
  })}\n`;
}

/** Reads one line of an index; throws `corrupt` naming `where`. */
export function decodeEntry(line: string, where: string): IndexEntry {
  try {
    const raw: unknown = JSON.parse(line);
    if (typeof raw !== 'object' || raw === null) throw new Error('not an object');
    const fields = raw as Record<string, unknown>;
    const type = lettersToType[text(fields.t)];
    if (type === undefined) throw new Error(`unknown entry type ${String(fields.t)}`);
    const extents = Array.isArray(fields.x) ? fields.x.map(decodeExtent) : [];
    return {
      path: safePath(decodeName(text(fields.p))),
      type,
      mode: count(fields.m),
      uid: count(fields.u),
      gid: count(fields.g),
      mtimeNs: BigInt(text(fields.mt)),
      size: type === 'file' ? count(fields.s) : 0,
      extents,
      ...(type === 'file' ? { checksum: Buffer.from(text(fields.c), 'base64') } : {}),
      ...(fields.l === undefined ? {} : { target: decodeName(text(fields.l)) }),
    };
  } catch (error) {
    throw new DrError('corrupt', `a line of the index cannot be read: ${messageOf(error)}`, {
      where,
      next: 'Restore from another vault (--vault NAME), then repair this one from it.',
      cause: error,
    });
  }
}

function decodeExtent(value: unknown): Extent {
  if (!Array.isArray(value)) throw new Error('an extent is not a list');
  const [position, length, part, frameOffset, frameLength, counter, rawOffset, digest] = value as unknown[];
  return {
    position: count(position),
    length: count(length),
    part: count(part),
    frameOffset: count(frameOffset),
    frameLength: count(frameLength),
    counter: count(counter),
    rawOffset: count(rawOffset),
    digest: Buffer.from(text(digest), 'base64'),
  };
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

/** The checksum of a file's content as the index records it. */
export function treeChecksum(extents: readonly Extent[], size: number): Buffer {
  const hash = createHash('sha256');
  const number = Buffer.alloc(8);
  for (const extent of extents) {
    number.writeBigUInt64BE(BigInt(extent.position));
    hash.update(number).update(extent.digest);
  }
  number.writeBigUInt64BE(BigInt(size));
  return hash.update(number).digest();
}
