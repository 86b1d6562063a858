import { DrError } from '../base/errors.ts';
import { formatBytes } from '../base/units.ts';

/** One member of a tar archive. */
export interface TarEntry {
  /** Without a slash at the end; not valid UTF-8 shows as replacement characters: then `rawPath` has the bytes. */
  readonly path: string;
  /** Only when `path` is not valid UTF-8. */
  readonly rawPath: Buffer | undefined;
  readonly type: 'file' | 'directory' | 'symlink' | 'hardlink';
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeMs: number;
  /** Bytes of content; 0 for anything but a file. */
  readonly size: number;
  /** Of a symlink or a hard link. */
  readonly linkTarget: string | undefined;
}

/** Gets the members in order: `entry`, `data` as often as needed, `endEntry`. A returned promise stops the reader until it is settled. */
export interface TarSink {
  entry(entry: TarEntry): void | Promise<void>;
  /** A view of what was written into the reader: valid until the call returns, or its promise resolves. */
  data(chunk: Uint8Array): void | Promise<void>;
  endEntry(): void | Promise<void>;
}

const blockBytes = 512;
/** Extended headers (long names) are held in memory: none is near this. */
const maxExtendedBytes = 1024 * 1024;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

interface Overrides {
  path?: Buffer;
  linkTarget?: Buffer;
  size?: number;
  mtimeMs?: number;
  uid?: number;
  gid?: number;
}

/**
 * Reads a tar stream (ustar, sizes in base 256, GNU long names, pax headers) as it comes, cut anywhere, in constant memory.
 * PostgreSQL itself writes only ustar, with base-256 numbers above 8 GiB (`tarCreateHeader` in `src/port/tar.c`).
 * Throws `corrupt` for a wrong checksum, an unknown kind of member or a stream that ends early.
 */
export class TarReader {
  readonly #sink: TarSink;
  readonly #where: string;
  readonly #scratch = Buffer.alloc(blockBytes);
  #scratched = 0;
  #state: 'header' | 'content' | 'extended' | 'padding' = 'header';
  #left = 0;
  #padding = 0;
  #zeroBlocks = 0;
  #extendedKind = '';
  #extended: Buffer[] = [];
  #overrides: Overrides = {};

  constructor(sink: TarSink, where: string) {
    this.#sink = sink;
    this.#where = where;
  }

  /** Takes the next bytes of the archive; when a promise comes back, `chunk` must stay as it is until it resolves. */
  write(chunk: Buffer): void | Promise<void> {
    let at = 0;
    while (at < chunk.length) {
      let waiting: void | Promise<void>;
      if (this.#state === 'header') {
        let block: Buffer | undefined;
        if (this.#scratched === 0 && chunk.length - at >= blockBytes) {
          block = chunk.subarray(at, at + blockBytes);
          at += blockBytes;
        } else {
          const copied = chunk.copy(this.#scratch, this.#scratched, at, at + blockBytes - this.#scratched);
          at += copied;
          this.#scratched += copied;
          if (this.#scratched < blockBytes) break;
          this.#scratched = 0;
          block = this.#scratch;
        }
        waiting = this.#header(block);
      } else {
        const end = Math.min(chunk.length, at + (this.#state === 'padding' ? this.#padding : this.#left));
        const piece = chunk.subarray(at, end);
        at = end;
        waiting = this.#piece(piece);
      }
      if (waiting !== undefined) return this.#after(waiting, chunk.subarray(at));
    }
  }

  /** Call it after the last byte: throws `corrupt` when the archive is not complete. */
  end(): void {
    if (this.#zeroBlocks < 2 || this.#scratched > 0) throw this.#corrupt('it ends before its trailer');
  }

  async #after(waiting: Promise<void>, rest: Buffer): Promise<void> {
    await waiting;
    await this.write(rest);
  }

  #piece(piece: Buffer): void | Promise<void> {
    if (this.#state === 'padding') {
      this.#padding -= piece.length;
      if (this.#padding === 0) this.#state = 'header';
      return undefined;
    }
    this.#left -= piece.length;
    if (this.#state === 'extended') {
      this.#extended.push(Buffer.from(piece));
      if (this.#left === 0) {
        this.#applyExtended(Buffer.concat(this.#extended));
        this.#extended = [];
        this.#skipPadding();
      }
      return undefined;
    }
    const waiting = this.#sink.data(piece);
    if (this.#left > 0) return waiting;
    this.#skipPadding();
    if (waiting === undefined) return this.#sink.endEntry();
    return waiting.then(() => this.#sink.endEntry());
  }

  #skipPadding(): void {
    this.#state = this.#padding > 0 ? 'padding' : 'header';
  }

  #header(block: Buffer): void | Promise<void> {
    if (block[0] === 0 && block.every((byte) => byte === 0)) {
      this.#zeroBlocks++;
      return undefined;
    }
    if (this.#zeroBlocks > 0) throw this.#corrupt('there are bytes after its trailer');
    this.#verifyChecksum(block);
    const kind = String.fromCharCode(block[156] ?? 0);
    const size = this.#overrides.size ?? number(block, 124, 12);
    if (!Number.isSafeInteger(size) || size < 0) throw this.#corrupt('a member has an impossible size');
    if (kind === 'x' || kind === 'g' || kind === 'L' || kind === 'K') {
      if (size > maxExtendedBytes) throw this.#corrupt(`an extended header is ${formatBytes(size)} long`);
      this.#begin('extended', size);
      this.#extendedKind = kind;
      return undefined;
    }
    const type = memberTypes[kind];
    if (type === undefined) throw this.#corrupt(`a member is of the unknown kind ${JSON.stringify(kind)}`);
    const overrides = this.#overrides;
    this.#overrides = {};
    const path = overrides.path ?? ustarPath(block);
    const rawPath = path.at(-1) === 0x2f && path.length > 1 ? path.subarray(0, -1) : path;
    const text = decode(rawPath);
    const content = type === 'file' ? size : 0;
    const entry: TarEntry = {
      path: text ?? rawPath.toString('utf8'),
      rawPath: text === undefined ? Buffer.from(rawPath) : undefined,
      type,
      mode: number(block, 100, 8) & 0o7777,
      uid: overrides.uid ?? number(block, 108, 8),
      gid: overrides.gid ?? number(block, 116, 8),
      mtimeMs: overrides.mtimeMs ?? number(block, 136, 12) * 1000,
      size: content,
      linkTarget:
        type === 'symlink' || type === 'hardlink'
          ? (overrides.linkTarget ?? cString(block, 157, 100)).toString('utf8')
          : undefined,
    };
    this.#begin('content', content);
    const waiting = this.#sink.entry(entry);
    if (content > 0) return waiting;
    this.#state = 'header';
    if (waiting === undefined) return this.#sink.endEntry();
    return waiting.then(() => this.#sink.endEntry());
  }

  #begin(state: 'content' | 'extended', size: number): void {
    this.#state = size === 0 ? 'header' : state;
    this.#left = size;
    this.#padding = (blockBytes - (size % blockBytes)) % blockBytes;
  }

  #applyExtended(bytes: Buffer): void {
    const overrides = this.#overrides;
    if (this.#extendedKind === 'L') overrides.path = cString(bytes, 0, bytes.length);
    else if (this.#extendedKind === 'K') overrides.linkTarget = cString(bytes, 0, bytes.length);
    else if (this.#extendedKind === 'x') {
      for (const [key, value] of paxRecords(bytes, () => this.#corrupt('a pax header cannot be read'))) {
        if (key === 'path') overrides.path = value;
        else if (key === 'linkpath') overrides.linkTarget = value;
        else if (key === 'size') overrides.size = Number(value.toString('latin1'));
        else if (key === 'mtime') overrides.mtimeMs = Number(value.toString('latin1')) * 1000;
        else if (key === 'uid') overrides.uid = Number(value.toString('latin1'));
        else if (key === 'gid') overrides.gid = Number(value.toString('latin1'));
      }
    }
    // A global header ('g') holds only comments and defaults that no archive of a server has.
  }

  #verifyChecksum(block: Buffer): void {
    let sum = 8 * 0x20;
    for (let at = 0; at < blockBytes; at++) if (at < 148 || at >= 156) sum += block[at] ?? 0;
    if (sum !== number(block, 148, 8)) throw this.#corrupt('the checksum of a header is wrong');
  }

  #corrupt(why: string): DrError {
    return new DrError('corrupt', `the tar stream of the server is damaged: ${why}`, {
      where: this.#where,
      next: 'Take the backup again; if it repeats, look for a network device that alters traffic and use TLS (sslmode=verify-full).',
    });
  }
}

const memberTypes: Readonly<Record<string, TarEntry['type']>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '5': 'directory',
};

function cString(bytes: Buffer, start: number, length: number): Buffer {
  const end = bytes.subarray(start, start + length).indexOf(0);
  return Buffer.from(bytes.subarray(start, end < 0 ? start + length : start + end));
}

function ustarPath(block: Buffer): Buffer {
  const name = cString(block, 0, 100);
  const isUstar = block.toString('latin1', 257, 262) === 'ustar' && block[262] === 0;
  const prefix = isUstar ? cString(block, 345, 155) : Buffer.alloc(0);
  return prefix.length === 0 ? name : Buffer.concat([prefix, Buffer.from('/'), name]);
}

/** A number of a header: octal text, or base 256 when the first bit is set. */
function number(block: Buffer, start: number, length: number): number {
  const first = block[start] ?? 0;
  if (first & 0x80) {
    let value = first & 0x7f;
    for (let at = start + 1; at < start + length; at++) value = value * 256 + (block[at] ?? 0);
    return value;
  }
  const text = cString(block, start, length).toString('latin1').trim();
  return text === '' ? 0 : /^[0-7]+$/.test(text) ? Number.parseInt(text, 8) : Number.NaN;
}

function decode(bytes: Buffer): string | undefined {
  try {
    return utf8.decode(bytes);
  } catch {
    return undefined;
  }
}

/** The records of a pax header: `length key=value\n`. */
function* paxRecords(bytes: Buffer, damaged: () => DrError): Generator<[string, Buffer]> {
  let at = 0;
  while (at < bytes.length) {
    const space = bytes.indexOf(0x20, at);
    const length = Number(bytes.toString('latin1', at, space));
    const equals = bytes.indexOf(0x3d, space);
    if (
      space < 0 ||
      !Number.isInteger(length) ||
      length < 5 ||
      at + length > bytes.length ||
      equals < 0 ||
      equals >= at + length
    ) {
      throw damaged();
    }
    yield [bytes.toString('utf8', space + 1, equals), Buffer.from(bytes.subarray(equals + 1, at + length - 1))];
    at += length;
  }
}
