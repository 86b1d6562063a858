import { Decrypter, Encrypter } from 'age-encryption';
import { DrError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { type KmsKey, kmsDecrypt, kmsEncrypt } from './kms.ts';
import { decodeRecord, encodeRecord } from './record.ts';

/** How new data keys are wrapped: for age recipients (public keys), by a key of AWS KMS, for both, or not at all. */
export type KeyPolicy =
  | 'none'
  | {
      /** Empty only beside `kms`. */
      readonly recipients: readonly string[];
      readonly kms?: KmsKey | undefined;
      /** Is told when KMS does not answer and a key is wrapped for the age recipients alone; without it that is an error. */
      readonly log?: Log | undefined;
    };

/** What a data key seals, so that retention knows what must be gone before the key may go: `backup`, `wal/<system id>`. */
export type KeyUse = 'backup' | `wal/${string}`;

/** The wrap of a data key by AWS KMS. */
export interface KmsWrap {
  /** ARN. */
  readonly key: string;
  /** Where that key can be asked: its own region, then those of its replicas. */
  readonly regions: readonly string[];
  /** What KMS made of the 32 bytes, base64. Its encryption context is `{"dr-data-key": <id>}`. */
  readonly wrapped: string;
}

/** The stored form of a data key (`keys/<id>/<generation>.json`). */
export interface KeyObject {
  readonly format: 1;
  readonly id: string;
  /** `kms`: by KMS alone, so that a reader that knows only age refuses it. */
  readonly wrap: 'age' | 'kms';
  /** age public keys; empty where KMS alone wraps it. */
  readonly recipients: readonly string[];
  /** An age file holding the 32 bytes, base64. */
  readonly wrapped?: string;
  readonly kms?: KmsWrap;
  /** When the data key was made; of a later generation also `rewrappedAt`. */
  readonly createdAt: string;
  readonly rewrappedAt?: string;
  readonly usedFor?: string;
}

/** What opens data keys. */
export interface KeyOpeners {
  /** age secret keys (`AGE-SECRET-KEY-1…`). */
  readonly identities: readonly string[];
  /** How KMS is asked; its regions come before those that the key object names. Undefined: as the key object says. */
  readonly kms?: KmsKey | undefined;
}

/**
 * Wraps the 32 bytes for everyone whom the policy names. KMS may be away where there are age recipients: the next `dr keys rotate`
 * adds its wrap. Throws what KMS says where it alone could wrap.
 */
export async function wrapKey(
  secret: Uint8Array,
  facts: Pick<KeyObject, 'id' | 'createdAt' | 'rewrappedAt' | 'usedFor'>,
  policy: Exclude<KeyPolicy, 'none'>,
): Promise<KeyObject> {
  const { recipients, kms } = policy;
  const wrapped = recipients.length === 0 ? undefined : await ageEncrypt(secret, recipients);
  let byKms: KmsWrap | undefined;
  if (kms) {
    try {
      byKms = { key: kms.key, regions: kms.regions, wrapped: await kmsEncrypt(kms, secret, facts.id) };
    } catch (error) {
      if (wrapped === undefined || !policy.log || !(error instanceof DrError)) throw error;
      policy.log.warn(
        { key: kms.key, error },
        'KMS did not wrap a data key: it is wrapped for the age recipients alone',
      );
    }
  }
  return {
    format: 1,
    id: facts.id,
    wrap: wrapped === undefined ? 'kms' : 'age',
    recipients: wrapped === undefined ? [] : recipients,
    ...(wrapped === undefined ? {} : { wrapped }),
    ...(byKms === undefined ? {} : { kms: byKms }),
    createdAt: facts.createdAt,
    ...(facts.rewrappedAt === undefined ? {} : { rewrappedAt: facts.rewrappedAt }),
    ...(facts.usedFor === undefined ? {} : { usedFor: facts.usedFor }),
  };
}

export function encodeKeyObject(object: KeyObject): Buffer {
  return encodeRecord(object);
}

/** Throws `corrupt`, and `refused` for what a newer `dr` has written. */
export function decodeKeyObject(bytes: Uint8Array, id: string, where: string): KeyObject {
  const object = decodeRecord(bytes, 'the wrapped data key', where);
  if (object.format !== 1 || (object.wrap !== 'age' && object.wrap !== 'kms')) {
    throw new DrError('refused', 'the data key was wrapped by a newer dr', {
      where,
      next: 'Use that version of dr or a newer one.',
    });
  }
  const whole =
    object.id === id &&
    Array.isArray(object.recipients) &&
    (object.wrap === 'age' ? typeof object.wrapped === 'string' : isKmsWrap(object.kms)) &&
    (object.kms === undefined || isKmsWrap(object.kms));
  if (!whole) {
    throw new DrError('corrupt', 'the wrapped data key is that of another object', {
      where,
      next: 'Restore from another vault (--vault NAME), then repair this one from it.',
    });
  }
  return object as unknown as KeyObject;
}

/**
 * The 32 bytes: by an age identity that is given, else by KMS where it has wrapped them. Throws `wrong-key` when nothing that is given
 * opens it, `corrupt`, and what KMS answers.
 */
export async function unwrapKey(object: KeyObject, openers: KeyOpeners, where: string): Promise<Uint8Array> {
  const { identities } = openers;
  const byAge = identities.length === 0 ? undefined : await ageDecrypt(object, identities, where);
  const secret = byAge ?? (await byKms(object, openers, where));
  if (secret === undefined) throw cannotOpen(object, identities.length === 0, where);
  if (secret.length !== 32) throw new DrError('corrupt', 'the wrapped data key is not 32 bytes long', { where });
  return secret;
}

async function byKms(
  { id, kms, recipients }: KeyObject,
  openers: KeyOpeners,
  where: string,
): Promise<Uint8Array | undefined> {
  if (!kms) return undefined;
  const regions = [...new Set([...(openers.kms?.key === kms.key ? openers.kms.regions : []), ...kms.regions])];
  const { endpoint, credentials } = openers.kms ?? {};
  const key = { key: kms.key, regions, endpoint, credentials };
  try {
    return await kmsDecrypt(key, Buffer.from(kms.wrapped, 'base64'), id, where);
  } catch (error) {
    if (!(error instanceof DrError) || recipients.length === 0) throw error;
    const given = openers.identities.length === 0 ? 'no identity was given' : 'the identity given does not open it';
    const kind = openers.identities.length > 0 && error.kind !== 'unreachable' ? 'wrong-key' : error.kind;
    throw new DrError(kind, `${given}, and ${error.message}`, {
      where,
      next: `Use the identity of one of these recipients: ${recipients.join(', ')}. Or: ${error.next ?? ''}`.trimEnd(),
      cause: error,
    });
  }
}

function cannotOpen({ recipients }: KeyObject, noIdentity: boolean, where: string): DrError {
  if (noIdentity) {
    return new DrError('wrong-key', 'this backup is encrypted and no identity was given', {
      where,
      next: 'Give the age identity with --identity FILE or $DR_IDENTITY_FILE.',
    });
  }
  return new DrError('wrong-key', 'the identity given does not open this vault', {
    where,
    next: `Use the identity of one of these recipients: ${recipients.join(', ')}.`,
  });
}

async function ageEncrypt(secret: Uint8Array, recipients: readonly string[]): Promise<string> {
  const encrypter = new Encrypter();
  for (const recipient of recipients) encrypter.addRecipient(recipient);
  return Buffer.from(await encrypter.encrypt(secret)).toString('base64');
}

/** Undefined when none of the identities is a recipient. */
async function ageDecrypt(
  { wrapped }: KeyObject,
  identities: readonly string[],
  where: string,
): Promise<Uint8Array | undefined> {
  if (wrapped === undefined) return undefined;
  const decrypter = new Decrypter();
  for (const identity of identities) decrypter.addIdentity(identity);
  try {
    return await decrypter.decrypt(Buffer.from(wrapped, 'base64'));
  } catch (error) {
    if (/no identity matched/i.test(messageOf(error))) return undefined;
    throw new DrError('corrupt', `the wrapped data key cannot be read: ${messageOf(error)}`, {
      where,
      next: 'Restore from another vault (--vault NAME), then repair this one from it.',
      cause: error,
    });
  }
}

function isKmsWrap(value: unknown): value is KmsWrap {
  if (typeof value !== 'object' || value === null) return false;
  const { key, regions, wrapped } = value as Record<string, unknown>;
  const named = Array.isArray(regions) && regions.length > 0 && regions.every((region) => typeof region === 'string');
  return typeof key === 'string' && named && typeof wrapped === 'string';
}
