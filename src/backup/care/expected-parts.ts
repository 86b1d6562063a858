/** What a manifest says of a stored object. */
export interface Content {
  readonly size: number;
  /** Hexadecimal. */
  readonly sha256: string;
  /** The data key of its frames; absent in a plain vault. */
  readonly keyId?: string | undefined;
}

export interface ExpectedPart {
  readonly resource: string;
  /** The backup that wrote it. */
  readonly id: string;
  readonly number: number;
  readonly content: Content;
}

const PER_CHUNK = 16;
const DIGEST = 32;
const SIZE_AT = DIGEST;
const KEY_AT = SIZE_AT + 6;
const STATE_AT = KEY_AT + 4;
const BYTES = STATE_AT + 1;
const [EXPECTED, FOUND] = [1, 2];

/**
 * The parts that manifests name, until a listing has shown them. A vault may hold millions, each named by many manifests: 43 bytes each,
 * in chunks of neighbouring numbers.
 */
export class ExpectedParts {
  readonly #owners = new Map<string, Map<number, Buffer>>();
  readonly #keyIds: string[] = [];
  readonly #keyNumbers = new Map<string, number>();

  /** False when another manifest has said something else about the same part. */
  add(resource: string, id: string, number: number, { size, sha256, keyId }: Content): boolean {
    const { chunk, at } = this.#place(resource, id, number);
    const digest = Buffer.from(sha256, 'hex');
    const key = keyId === undefined ? 0 : this.#numberOf(keyId);
    if (chunk[at + STATE_AT] !== 0) {
      const same = chunk.readUIntBE(at + SIZE_AT, 6) === size && chunk.readUInt32BE(at + KEY_AT) === key;
      return same && chunk.subarray(at, at + DIGEST).equals(digest);
    }
    digest.copy(chunk, at);
    chunk.writeUIntBE(size, at + SIZE_AT, 6);
    chunk.writeUInt32BE(key, at + KEY_AT);
    chunk[at + STATE_AT] = EXPECTED;
    return true;
  }

  /** Notes that a part is there; what is expected of it, or undefined when no manifest names it. */
  take(resource: string, id: string, number: number): Content | undefined {
    const chunk = this.#owners.get(`${resource}/${id}`)?.get(Math.floor(number / PER_CHUNK));
    const at = (number % PER_CHUNK) * BYTES;
    if (!chunk || chunk[at + STATE_AT] === 0) return undefined;
    chunk[at + STATE_AT] = FOUND;
    return this.#content(chunk, at);
  }

  /** Parts that no listing has shown. */
  *left(): Generator<ExpectedPart> {
    for (const [owner, chunks] of this.#owners) {
      const [resource = '', id = ''] = owner.split('/');
      for (const [number, chunk] of chunks) {
        for (let i = 0; i < PER_CHUNK; i++) {
          const at = i * BYTES;
          if (chunk[at + STATE_AT] !== EXPECTED) continue;
          yield { resource, id, number: number * PER_CHUNK + i, content: this.#content(chunk, at) };
        }
      }
    }
  }

  #place(resource: string, id: string, number: number): { chunk: Buffer; at: number } {
    const owner = `${resource}/${id}`;
    const chunks = this.#owners.get(owner) ?? new Map<number, Buffer>();
    this.#owners.set(owner, chunks);
    const index = Math.floor(number / PER_CHUNK);
    const chunk = chunks.get(index) ?? Buffer.alloc(PER_CHUNK * BYTES);
    chunks.set(index, chunk);
    return { chunk, at: (number % PER_CHUNK) * BYTES };
  }

  #content(chunk: Buffer, at: number): Content {
    const keyId = this.#keyIds[chunk.readUInt32BE(at + KEY_AT) - 1];
    return {
      size: chunk.readUIntBE(at + SIZE_AT, 6),
      sha256: chunk.toString('hex', at, at + DIGEST),
      ...(keyId === undefined ? {} : { keyId }),
    };
  }

  #numberOf(keyId: string): number {
    const known = this.#keyNumbers.get(keyId);
    if (known !== undefined) return known;
    const number = this.#keyIds.push(keyId);
    this.#keyNumbers.set(keyId, number);
    return number;
  }
}
