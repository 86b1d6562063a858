import { forEachLimit } from '../../base/concurrency.ts';
import { DrError } from '../../base/errors.ts';
import { decodeKeyObject, type KeyPolicy } from '../../vault/key-object.ts';
import { layout } from '../../vault/layout.ts';
import type { ObjectStore } from '../../vault/store.ts';
import type { Manifest } from '../manifest.ts';

const KEYS_IN_FLIGHT = 16;

/** Why a part cannot be used again. */
export type Why =
  | 'missing or cut off there'
  | 'found damaged there'
  | 'its data key is missing there'
  | 'its data key is not wrapped for all recipients there';

/** What a vault has of the parts that a manifest names. */
export interface PartsFound {
  /** Keys of parts that are there with their size. */
  readonly there: ReadonlySet<string>;
  /** Positions of parts that cannot be used again. */
  readonly unusable: ReadonlyMap<number, Why>;
}

/**
 * Looks in one vault for the parts of a manifest and their data keys. A part is usable when it is there with its size, no check of the
 * vault has found it damaged (`bad`: keys of objects), and its data key is wrapped for every recipient of today: what a new
 * backup names must open with today's identities alone.
 */
export async function findParts(
  store: ObjectStore,
  manifest: Manifest,
  keyPolicy: KeyPolicy,
  bad: ReadonlySet<string>,
  signal?: AbortSignal,
): Promise<PartsFound> {
  const sizes = new Map(manifest.parts.map(({ key, size }) => [key, size]));
  const there = new Set<string>();
  const [first] = [...sizes.keys()].sort();
  if (first !== undefined) {
    // The name of the oldest backup sorts before its parts: nothing older is listed.
    const startAfter = first.slice(0, first.lastIndexOf('/'));
    for await (const { key, size } of store.list(`parts/${manifest.resource}/`, { startAfter, signal })) {
      if (sizes.get(key) === size) there.add(key);
    }
  }
  const keyIds = new Set(manifest.parts.flatMap(({ keyId }) => (keyId === undefined ? [] : [keyId])));
  const badKeys = new Map<string, Why>();
  await forEachLimit(keyIds, KEYS_IN_FLIGHT, async (keyId) => {
    const why = await keyProblem(store, keyId, keyPolicy, signal);
    if (why) badKeys.set(keyId, why);
  });
  const unusable = new Map<number, Why>();
  for (const [position, { key, keyId }] of manifest.parts.entries()) {
    const badKey = keyId === undefined ? undefined : badKeys.get(keyId);
    if (!there.has(key)) unusable.set(position, 'missing or cut off there');
    else if (bad.has(key)) unusable.set(position, 'found damaged there');
    else if (badKey) unusable.set(position, badKey);
  }
  return { there, unusable };
}

/** Undefined when whoever opens today's data keys opens this one. */
async function keyProblem(
  store: ObjectStore,
  keyId: string,
  policy: KeyPolicy,
  signal: AbortSignal | undefined,
): Promise<Why | undefined> {
  const recipients = new Set<string>();
  let wrappedByKms = false;
  let generations = 0;
  for await (const { key } of store.list(layout.keyGenerations(keyId), { signal })) {
    try {
      const object = decodeKeyObject(await store.read(key, undefined, { signal }), keyId, `${store.location}/${key}`);
      generations++;
      for (const recipient of object.recipients) recipients.add(recipient);
      wrappedByKms ||= policy !== 'none' && object.kms !== undefined && object.kms.key === policy.kms?.key;
    } catch (error) {
      if (!(error instanceof DrError) || !['corrupt', 'refused', 'not-found'].includes(error.kind)) throw error;
    }
  }
  if (generations === 0) return 'its data key is missing there';
  if (policy === 'none') return undefined;
  // KMS may have been away when the key was wrapped for the age recipients: they open it as well.
  const opens =
    policy.recipients.length === 0 ? wrappedByKms : policy.recipients.every((recipient) => recipients.has(recipient));
  return opens ? undefined : 'its data key is not wrapped for all recipients there';
}
