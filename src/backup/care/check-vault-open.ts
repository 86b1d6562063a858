import { DrError } from '../../base/errors.ts';
import type { KeyRing } from '../../vault/keys.ts';
import { openFrame, readFrameHeader } from '../../vault/seal.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { decodeWalObject } from '../wal/object.ts';

/**
 * Opens what a check has read: the SHA-256 of an object proves that it is what was stored, opening its frames that what was stored can be
 * read. Data keys that the identities at hand do not open are counted and left aside.
 */
export class Opener {
  readonly #store: ObjectStore;
  readonly #keyRing: KeyRing;
  readonly #closed = new Set<string>();
  /** Bytes, as stored, that were opened. */
  bytes = 0;

  constructor(store: ObjectStore, keyRing: KeyRing) {
    this.#store = store;
    this.#keyRing = keyRing;
  }

  /** Data keys that the identities given do not open. */
  get closed(): number {
    return this.#closed.size;
  }

  /** Opens every frame of a part or an index. Throws `corrupt` naming the object. */
  async content(
    key: string,
    bytes: Uint8Array,
    seal: { readonly context: string; readonly keyId?: string | undefined },
  ) {
    const secret = seal.keyId === undefined ? undefined : await this.#secretOf(seal.keyId);
    if (seal.keyId !== undefined && !secret) return;
    const where = `${this.#store.location}/${key}`;
    for (let at = 0; at < bytes.length; ) {
      const rest = bytes.subarray(at);
      const { frameBytes, counter } = readFrameHeader(rest, where);
      openFrame(rest.subarray(0, frameBytes), counter, { secret, context: seal.context }, where);
      at += frameBytes;
      // A frame takes some ten milliseconds: others get their turn in between.
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    this.bytes += bytes.length;
  }

  /** Opens a WAL object. Throws `corrupt` naming it. */
  async wal(key: string, bytes: Uint8Array, keyId: string | undefined): Promise<void> {
    if (keyId !== undefined && !(await this.#secretOf(keyId))) return;
    await decodeWalObject(bytes, key, this.#store.location, async (id) => await this.#keyRing.open(this.#store, id));
    this.bytes += bytes.length;
  }

  /** Undefined for a key that cannot be had here; that it is missing or damaged is found where the keys are checked. */
  async #secretOf(id: string): Promise<Uint8Array | undefined> {
    if (this.#closed.has(id)) return undefined;
    try {
      return (await this.#keyRing.open(this.#store, id)).secret;
    } catch (error) {
      if (!(error instanceof DrError && ['wrong-key', 'corrupt', 'refused', 'not-found'].includes(error.kind)))
        throw error;
      this.#closed.add(id);
      return undefined;
    }
  }
}
