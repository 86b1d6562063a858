import { createHash } from 'node:crypto';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { formatLsn, type Lsn } from './lsn.ts';

/** What a `backup_manifest` says of the backup itself. */
export interface ManifestFacts {
  /** Decimal. */
  readonly systemId: string;
  readonly timeline: number;
  readonly startLsn: Lsn;
  readonly endLsn: Lsn;
}

export interface ManifestFile {
  /** Relative to the data directory; bytes, because names need not be UTF-8. */
  readonly path: Buffer;
  /** Bytes. */
  readonly size: number;
  /** Milliseconds since 1970. */
  readonly mtimeMs?: number | undefined;
}

const pieceBytes = 64 * 1024;

/**
 * A `backup_manifest` of version 2 (PostgreSQL 17 and newer) without checksums of the files, in pieces. Its last line is the SHA-256 of
 * everything before (`parse_manifest.c`, `backup_manifest.c`; "Backup Manifest Format" in PostgreSQL's documentation).
 */
export async function* manifestPieces(
  { systemId, timeline, startLsn, endLsn }: ManifestFacts,
  files: Iterable<ManifestFile> | AsyncIterable<ManifestFile>,
): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  let text = `{ "PostgreSQL-Backup-Manifest-Version": 2,\n"System-Identifier": ${systemId},\n"Files": [`;
  let isFirst = true;
  for await (const file of files) {
    text += `${isFirst ? '' : ','}\n${fileLine(file)}`;
    isFirst = false;
    if (text.length < pieceBytes) continue;
    const piece = Buffer.from(text);
    hash.update(piece);
    yield piece;
    text = '';
  }
  text += `\n],\n"WAL-Ranges": [\n{ "Timeline": ${timeline}, "Start-LSN": "${formatLsn(startLsn)}", "End-LSN": "${formatLsn(endLsn)}" }\n],\n`;
  hash.update(text);
  yield Buffer.from(`${text}"Manifest-Checksum": "${hash.digest('hex')}"}\n`);
}

function fileLine({ path, size, mtimeMs }: ManifestFile): string {
  const text = path.toString('utf8');
  const name = Buffer.from(text).equals(path)
    ? `"Path": ${JSON.stringify(text)}`
    : `"Encoded-Path": "${path.toString('hex')}"`;
  const time = mtimeMs === undefined ? '' : `, "Last-Modified": "${serverTime(mtimeMs)}"`;
  return `{ ${name}, "Size": ${size}${time} }`;
}

/** As the server writes it: `2026-11-23 08:16:40 GMT`. */
function serverTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19).replace('T', ' ')} GMT`;
}

/** The files of a manifest while they are collected: a million of them stay below 20 MB, because their names are much alike. */
export class ManifestFiles {
  readonly #packed: Buffer[] = [];
  #lines: string[] = [];
  #bytes = 0;

  add({ path, size, mtimeMs }: ManifestFile): void {
    const line = `${path.toString('base64')} ${size} ${mtimeMs ?? ''}`;
    this.#lines.push(line);
    this.#bytes += line.length;
    if (this.#bytes >= 4 * pieceBytes) this.#pack();
  }

  *[Symbol.iterator](): Generator<ManifestFile> {
    this.#pack();
    for (const packed of this.#packed) {
      for (const line of zstdDecompressSync(packed).toString('latin1').split('\n')) {
        const [path = '', size, mtimeMs] = line.split(' ');
        yield {
          path: Buffer.from(path, 'base64'),
          size: Number(size),
          mtimeMs: mtimeMs ? Number(mtimeMs) : undefined,
        };
      }
    }
  }

  #pack(): void {
    if (this.#lines.length === 0) return;
    this.#packed.push(zstdCompressSync(Buffer.from(this.#lines.join('\n'), 'latin1')));
    this.#lines = [];
    this.#bytes = 0;
  }
}
