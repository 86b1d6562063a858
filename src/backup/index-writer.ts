import { createHash } from 'node:crypto';
import { encodeEntry, type IndexEntry } from './index-format.ts';

/** Raw bytes of one frame of an index. */
const INDEX_FRAME_BYTES = 1024 * 1024;

/** Collects index entries, in any order, into sealed frames kept in memory (a tenth of their raw size). */
export class IndexWriter {
  readonly #seal: (raw: Uint8Array) => Promise<Uint8Array>;
  readonly #pieces: Uint8Array[] = [];
  readonly #content = Buffer.alloc(32);
  #lines: string[] = [];
  #bytes = 0;
  #sealing: Promise<void> = Promise.resolve();

  constructor(seal: (raw: Uint8Array) => Promise<Uint8Array>) {
    this.#seal = seal;
  }

  /** Adds an entry, of which `line` is the line; resolves when there is room for more. */
  async add(entry: IndexEntry, line: string = encodeEntry(entry)): Promise<void> {
    this.#addContent(entry);
    this.#lines.push(line);
    this.#bytes += Buffer.byteLength(line);
    if (this.#bytes >= INDEX_FRAME_BYTES) await this.#flush();
  }

  /** The sealed frames, in order. */
  async finish(): Promise<Uint8Array[]> {
    if (this.#lines.length > 0) await this.#flush();
    await this.#sealing;
    return this.#pieces;
  }

  /**
   * The same for the same set of entries whatever their order: the exclusive or of the SHA-256 of each entry's name, kind, mode, owner,
   * content and extended attributes. Paths are unique, so no two terms cancel. Times are left out: touching a file is no change. Equal
   * digests prove equal content; a large file whose content lies in other pieces gives another one.
   */
  get contentDigest(): string {
    return createHash('sha256').update(this.#content).digest('hex');
  }

  #addContent(entry: IndexEntry): void {
    const { type, mode, uid, gid, size } = entry;
    const hash = createHash('sha256').update(`${type} ${mode} ${uid} ${gid} ${size} ${entry.path.length}\n`);
    hash
      .update(entry.path)
      .update(entry.checksum ?? '')
      .update(entry.target ?? '');
    for (const { name, value } of entry.attributes ?? [])
      hash.update(`${name.length} ${value.length}\n`).update(name).update(value);
    const digest = hash.digest();
    for (let i = 0; i < 32; i++) this.#content[i] = (this.#content[i] ?? 0) ^ (digest[i] ?? 0);
  }

  async #flush(): Promise<void> {
    const raw = Buffer.from(this.#lines.join(''));
    this.#lines = [];
    this.#bytes = 0;
    // One after the other: the frames of an index are read in this order.
    this.#sealing = this.#sealing.then(async () => {
      this.#pieces.push(await this.#seal(raw));
    });
    await this.#sealing;
  }
}
