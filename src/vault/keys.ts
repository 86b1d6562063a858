import { randomBytes } from 'node:crypto';
import { DrError, isAbort } from '../base/errors.ts';
import { type Log, silentLog } from '../base/log.ts';
import {
  decodeKeyObject,
  encodeKeyObject,
  type KeyObject,
  type KeyPolicy,
  type KeyUse,
  unwrapKey,
  wrapKey,
} from './key-object.ts';
import type { KmsKey } from './kms.ts';
import { layout } from './layout.ts';
import type { ObjectStore } from './store.ts';

export type { KeyPolicy } from './key-object.ts';

/** A random key that seals the frames of one backup or one WAL session. */
export interface DataKey {
  /** 32 hexadecimal digits; the key's name in the vault. */
  readonly id: string;
  /** 32 bytes; never stored, never logged. */
  readonly secret: Uint8Array;
}

/** A data key that was just made, and what is to be stored of it. */
export interface CreatedDataKey {
  readonly key: DataKey;
  readonly objectKey: string;
  readonly object: Buffer;
  /** Who can open it: whoever has an age identity (perhaps KMS as well), or KMS alone. */
  readonly wrap: KeyObject['wrap'];
}

/**
 * A new data key and its wrapped object; undefined for a vault that is plain by configuration. Retention never removes a key that
 * does not say what it is used for.
 */
export async function createDataKey(
  policy: KeyPolicy,
  nowMs: number,
  usedFor?: KeyUse,
): Promise<CreatedDataKey | undefined> {
  if (policy === 'none') return undefined;
  const key: DataKey = { id: randomBytes(16).toString('hex'), secret: randomBytes(32) };
  const facts = { id: key.id, createdAt: new Date(nowMs).toISOString(), ...(usedFor === undefined ? {} : { usedFor }) };
  const object = await wrapKey(key.secret, facts, policy);
  return { key, objectKey: layout.key(key.id), object: encodeKeyObject(object), wrap: object.wrap };
}

export interface KeyRingOptions {
  /** The KMS key of the configuration. A key object that names one is opened by KMS without it, too. */
  readonly kms?: KmsKey | undefined;
  readonly log?: Log | undefined;
}

/** Opens wrapped data keys with what the person or daemon that restores has. Opened keys are remembered. */
export class KeyRing {
  readonly #identities: readonly string[];
  readonly #kms: KmsKey | undefined;
  readonly #log: Log;
  readonly #open = new Map<string, Promise<DataKey>>();

  /** `identities`: age secret keys (`AGE-SECRET-KEY-1…`); empty for plain vaults and where KMS opens. */
  constructor(identities: readonly string[], options: KeyRingOptions = {}) {
    this.#identities = identities;
    this.#kms = options.kms;
    this.#log = options.log ?? silentLog;
  }

  /** True when no identity was given. */
  get isEmpty(): boolean {
    return this.#identities.length === 0;
  }

  /**
   * The data key `id`, read from `store`: the highest generation that can be read and opened counts. Throws `not-found`, `corrupt`,
   * `wrong-key`, what KMS answers or what the store throws.
   */
  async open(store: ObjectStore, id: string): Promise<DataKey> {
    const known = this.#open.get(id);
    if (known) return await known;
    const opening = this.#read(store, id);
    this.#open.set(id, opening);
    opening.catch(() => this.#open.delete(id));
    return await opening;
  }

  async #read(store: ObjectStore, id: string): Promise<DataKey> {
    const folder = layout.keyGenerations(id);
    const generations: string[] = [];
    for await (const { key } of store.list(folder)) generations.push(key);
    let failure: unknown;
    for (const key of generations.reverse()) {
      const where = `${store.location}/${key}`;
      const bytes = await store.read(key);
      try {
        const object = decodeKeyObject(bytes, id, where);
        const secret = await unwrapKey(object, { identities: this.#identities, kms: this.#kms }, where);
        if (failure !== undefined) {
          this.#log.warn(
            { key: where, error: failure },
            'an older generation of a data key was used; see `dr keys list`',
          );
        }
        return { id, secret };
      } catch (error) {
        if (!(error instanceof DrError) || isAbort(error)) throw error;
        // What is wrong with the newest one says most.
        failure ??= error;
      }
    }
    if (failure !== undefined) throw failure;
    throw new DrError('corrupt', `the data key ${id} is missing from the vault`, {
      where: `${store.location}/${folder}`,
      next: 'Restore from another vault (--vault NAME), then repair this one from it.',
    });
  }
}

/** When a stored data key was made (milliseconds since 1970) and what for; opens nothing. Throws `corrupt` and `refused`. */
export function readKeyFacts(
  bytes: Uint8Array,
  id: string,
  where: string,
): { readonly createdAtMs: number; readonly usedFor: string | undefined } {
  const { createdAt, usedFor } = decodeKeyObject(bytes, id, where);
  return { createdAtMs: Date.parse(createdAt), usedFor };
}

/** The age identities in the text of an identity file: one a line, `#` comments allowed. */
export function parseIdentities(text: string, path: string): string[] {
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const identities = lines.filter((line) => line !== '' && !line.startsWith('#'));
  if (identities.length === 0 || !identities.every((line) => /^AGE-SECRET-KEY-(PQ-)?1[0-9A-Z]+$/i.test(line))) {
    throw new DrError('wrong-key', 'the identity file does not hold age secret keys (AGE-SECRET-KEY-1…), one a line', {
      where: path,
      next: 'Make one with `age-keygen -o FILE`, or point --identity at the right file.',
    });
  }
  return identities.map((line) => line.toUpperCase());
}
