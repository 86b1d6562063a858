import { randomBytes } from 'node:crypto';
import { Decrypter, Encrypter } from 'age-encryption';
import { DrError, messageOf } from '../base/errors.ts';
import { layout } from './layout.ts';
import { decodeRecord, encodeRecord } from './record.ts';
import type { ObjectStore } from './store.ts';

/** A random key that seals the frames of one backup or one WAL session. */
export interface DataKey {
  /** 32 hexadecimal digits; the key's name in the vault. */
  readonly id: string;
  /** 32 bytes; never stored, never logged. */
  readonly secret: Uint8Array;
}

/** How new data keys are wrapped: for age recipients (public keys), or not at all. */
export type KeyPolicy = 'none' | { readonly recipients: readonly string[] };

/** The stored form of a data key (`keys/<id>/<generation>.json`). */
interface KeyObject {
  readonly format: 1;
  readonly id: string;
  readonly wrap: 'age';
  readonly recipients: readonly string[];
  /** An age file holding the 32 bytes, base64. */
  readonly wrapped: string;
  readonly createdAt: string;
  /** What it seals, so that retention knows what must be gone before the key may go: `backup`, `wal/<system id>`. */
  readonly usedFor?: string;
}

/**
 * A new data key and its wrapped object; undefined for a vault that is plain by configuration. Retention never removes a key that
 * does not say what it is used for.
 */
export async function createDataKey(
  policy: KeyPolicy,
  nowMs: number,
  usedFor?: 'backup' | `wal/${string}`,
): Promise<{ key: DataKey; objectKey: string; object: Buffer } | undefined> {
  if (policy === 'none') return undefined;
  const key: DataKey = { id: randomBytes(16).toString('hex'), secret: randomBytes(32) };
  const encrypter = new Encrypter();
  for (const recipient of policy.recipients) encrypter.addRecipient(recipient);
  const object: KeyObject = {
    format: 1,
    id: key.id,
    wrap: 'age',
    recipients: policy.recipients,
    wrapped: Buffer.from(await encrypter.encrypt(key.secret)).toString('base64'),
    createdAt: new Date(nowMs).toISOString(),
    ...(usedFor === undefined ? {} : { usedFor }),
  };
  return { key, objectKey: layout.key(key.id), object: encodeRecord(object) };
}

/** Opens wrapped data keys with the identities of the person or daemon that restores. Opened keys are remembered. */
export class KeyRing {
  readonly #identities: readonly string[];
  readonly #open = new Map<string, Promise<DataKey>>();

  /** `identities`: age secret keys (`AGE-SECRET-KEY-1…`); empty for plain vaults. */
  constructor(identities: readonly string[]) {
    this.#identities = identities;
  }

  get isEmpty(): boolean {
    return this.#identities.length === 0;
  }

  /** The data key `id`, read from `store`. Throws `not-found`, `corrupt`, `wrong-key` or what the store throws. */
  async open(store: ObjectStore, id: string): Promise<DataKey> {
    const known = this.#open.get(id);
    if (known) return await known;
    const opening = this.#read(store, id);
    this.#open.set(id, opening);
    opening.catch(() => this.#open.delete(id));
    return await opening;
  }

  async #read(store: ObjectStore, id: string): Promise<DataKey> {
    const prefix = layout.key(id).replace(/[^/]*$/, '');
    let newest: string | undefined;
    for await (const { key } of store.list(prefix)) newest = key;
    if (newest === undefined) {
      throw new DrError('corrupt', `the data key ${id} is missing from the vault`, {
        where: `${store.location}/${prefix}`,
        next: 'Restore from another vault (--vault NAME), then repair this one from it.',
      });
    }
    const where = `${store.location}/${newest}`;
    const object = parseKeyObject(await store.read(newest), id, where);
    if (this.isEmpty) {
      throw new DrError('wrong-key', 'this backup is encrypted and no identity was given', {
        where,
        next: 'Give the age identity with --identity FILE or $DR_IDENTITY_FILE.',
      });
    }
    return { id, secret: await this.#unwrap(object, where) };
  }

  async #unwrap(object: KeyObject, where: string): Promise<Uint8Array> {
    const decrypter = new Decrypter();
    for (const identity of this.#identities) decrypter.addIdentity(identity);
    let secret: Uint8Array;
    try {
      secret = await decrypter.decrypt(Buffer.from(object.wrapped, 'base64'));
    } catch (error) {
      if (!/no identity matched/i.test(messageOf(error))) {
        throw new DrError('corrupt', `the wrapped data key cannot be read: ${messageOf(error)}`, {
          where,
          next: 'Restore from another vault (--vault NAME), then repair this one from it.',
          cause: error,
        });
      }
      throw new DrError('wrong-key', 'the identity given does not open this vault', {
        where,
        next: `Use the identity of one of these recipients: ${object.recipients.join(', ')}.`,
        cause: error,
      });
    }
    if (secret.length !== 32) throw new DrError('corrupt', 'the wrapped data key is not 32 bytes long', { where });
    return secret;
  }
}

/** When a stored data key was made (milliseconds since 1970) and what for; opens nothing. Throws `corrupt` and `refused`. */
export function readKeyFacts(
  bytes: Uint8Array,
  id: string,
  where: string,
): { readonly createdAtMs: number; readonly usedFor: string | undefined } {
  const { createdAt, usedFor } = parseKeyObject(bytes, id, where);
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

function parseKeyObject(bytes: Uint8Array, id: string, where: string): KeyObject {
  const object = decodeRecord(bytes, 'the wrapped data key', where);
  if (object.format !== 1 || object.wrap !== 'age') {
    throw new DrError('refused', 'the data key was wrapped by a newer dr', {
      where,
      next: 'Use that version of dr or a newer one.',
    });
  }
  if (object.id !== id || typeof object.wrapped !== 'string') {
    throw new DrError('corrupt', 'the wrapped data key is that of another object', {
      where,
      next: 'Restore from another vault (--vault NAME), then repair this one from it.',
    });
  }
  return object as unknown as KeyObject;
}
