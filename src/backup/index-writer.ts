import { hash } from 'node:crypto';
import type { DataKey } from '../vault/keys.ts';
import { layout } from '../vault/layout.ts';
import type { Mirror } from '../vault/mirror.ts';
import { sha256 } from '../vault/seal.ts';
import type { SealPool } from '../vault/seal-pool.ts';
import { encodeEntry, type IndexEntry } from './index-format.ts';
import type { Manifest } from './manifest.ts';

/** Raw bytes of one frame of an index. */
const INDEX_FRAME_BYTES = 1024 * 1024;

export interface IndexOptions {
  readonly resource: string;
  readonly backupId: string;
  readonly mirror: Mirror;
  readonly pool: SealPool;
  readonly key: DataKey | undefined;
  readonly compressionLevel: number;
  /** Entries that do not count for the content digest. */
  readonly besideContent?: ((path: Buffer) => boolean) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Collects index entries, in any order, into sealed frames kept in memory (a tenth of their raw size). */
export class IndexWriter {
  readonly #options: IndexOptions;
  readonly #nextCounter: () => number;
  readonly #pieces: Uint8Array[] = [];
  readonly #content = Buffer.alloc(32);
  #lines: Buffer[] = [];
  #bytes = 0;
  #sealing: Promise<void> = Promise.resolve();

  /** `nextCounter` gives the counters of frames below the data key. */
  constructor(options: IndexOptions, nextCounter: () => number) {
    this.#options = options;
    this.#nextCounter = nextCounter;
  }

  /** Adds an entry, of which `line` is the line; resolves when there is room for more. */
  async add(entry: IndexEntry, line: Buffer = encodeEntry(entry)): Promise<void> {
    if (!this.#options.besideContent?.(entry.path)) this.#addContent(entry);
    this.#lines.push(line);
    this.#bytes += line.length;
    if (this.#bytes >= INDEX_FRAME_BYTES) await this.#flush();
  }

  /** Stores it in all vaults. */
  async store(): Promise<Manifest['index']> {
    if (this.#lines.length > 0) await this.#flush();
    await this.#sealing;
    const { resource, backupId, key, mirror, signal } = this.#options;
    const objectKey = layout.index(resource, backupId);
    await mirror.create(objectKey, this.#pieces, signal);
    return {
      key: objectKey,
      size: this.#pieces.reduce((sum, piece) => sum + piece.length, 0),
      sha256: sha256(...this.#pieces).toString('hex'),
      context: `${backupId}/index`,
      ...(key ? { keyId: key.id } : {}),
    };
  }

  /**
   * The same for the same set of entries whatever their order: the exclusive or of the SHA-256 of each entry's name, kind, mode, owner,
   * content and extended attributes. Paths are unique, so no two terms cancel. Times are left out: touching a file is no change. Equal
   * digests prove equal content; a large file whose content lies in other pieces gives another one.
   */
  get contentDigest(): string {
    return hash('sha256', this.#content, 'hex');
  }

  #addContent(entry: IndexEntry): void {
    const { type, mode, uid, gid, size, path, checksum, target, attributes = [] } = entry;
    const pieces = [Buffer.from(`${type} ${mode} ${uid} ${gid} ${size} ${path.length}\n`), path];
    if (checksum) pieces.push(checksum);
    if (target) pieces.push(target);
    for (const { name, value } of attributes) {
      pieces.push(Buffer.from(`${name.length} ${value.length}\n`), name, value);
    }
    // In one call: a hash object a file would cost more than the rest of its entry.
    const digest = hash('sha256', Buffer.concat(pieces), 'buffer');
    for (let i = 0; i < 32; i++) this.#content[i] = (this.#content[i] ?? 0) ^ (digest[i] ?? 0);
  }

  async #flush(): Promise<void> {
    const raw = Buffer.concat(this.#lines);
    this.#lines = [];
    this.#bytes = 0;
    // One after the other: the frames of an index are read in this order.
    this.#sealing = this.#sealing.then(async () => {
      this.#pieces.push(await this.#seal(raw));
    });
    await this.#sealing;
  }

  async #seal(raw: Buffer): Promise<Uint8Array> {
    const { pool, key, backupId, compressionLevel } = this.#options;
    const own = new Uint8Array(raw);
    const sealed = await pool.seal({
      kind: 'seal',
      raw: own.buffer,
      length: own.length,
      slices: [],
      counter: this.#nextCounter(),
      context: `${backupId}/index`,
      secret: key?.secret,
      level: compressionLevel,
    });
    return new Uint8Array(sealed.frame, 0, sealed.frameBytes);
  }
}
