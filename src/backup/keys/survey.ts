import { forEachLimit } from '../../base/concurrency.ts';
import { DrError, isAbort } from '../../base/errors.ts';
import type { OnProgress } from '../../base/progress.ts';
import { generationOf } from '../../vault/copy-key.ts';
import { decodeKeyObject, type KeyObject, type KeyPolicy } from '../../vault/key-object.ts';
import type { ObjectStore } from '../../vault/store.ts';

const READS_IN_FLIGHT = 32;

/** One generation of a wrapped data key as one vault has it. */
export interface StoredGeneration {
  readonly number: number;
  /** Name of the object. */
  readonly key: string;
  readonly bytes: Buffer;
  /** Undefined when it is damaged or of a newer `dr`; `error` then says why. */
  readonly object: KeyObject | undefined;
  readonly error: DrError | undefined;
}

/** All data keys of one vault, by id; generations in their order, the newest last. */
export interface VaultKeys {
  readonly store: ObjectStore;
  readonly keys: ReadonlyMap<string, readonly StoredGeneration[]>;
}

/** Reads every key object of a vault: some hundred bytes each. Opens nothing. Throws what the store throws. */
export async function surveyKeys(
  store: ObjectStore,
  options: { readonly onProgress?: OnProgress | undefined; readonly signal?: AbortSignal | undefined } = {},
): Promise<VaultKeys> {
  const { onProgress, signal } = options;
  const keys = new Map<string, StoredGeneration[]>();
  let done = 0;
  await forEachLimit(store.list('keys/', { signal }), READS_IN_FLIGHT, async ({ key }) => {
    const number = generationOf(key);
    if (number === undefined) return;
    const id = key.split('/')[1] ?? '';
    const generation = await readGeneration(store, key, id, number, signal);
    if (generation) keys.set(id, [...(keys.get(id) ?? []), generation]);
    onProgress?.({ task: `read keys of ${store.name}`, done: ++done, total: 0, unit: 'objects' });
  });
  for (const generations of keys.values()) generations.sort((a, b) => a.number - b.number);
  return { store, keys: new Map([...keys].sort(([a], [b]) => (a < b ? -1 : 1))) };
}

async function readGeneration(
  store: ObjectStore,
  key: string,
  id: string,
  number: number,
  signal: AbortSignal | undefined,
): Promise<StoredGeneration | undefined> {
  let bytes: Buffer = Buffer.alloc(0);
  try {
    bytes = await store.read(key, undefined, { signal });
    return { number, key, bytes, object: decodeKeyObject(bytes, id, `${store.location}/${key}`), error: undefined };
  } catch (error) {
    if (signal?.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
    // Retention has just removed it.
    if (error.kind === 'not-found') return undefined;
    if (error.kind !== 'corrupt' && error.kind !== 'refused') throw error;
    return { number, key, bytes, object: undefined, error };
  }
}

/** Who can open what an object holds: age public keys, and `kms:<ARN>`. */
export function openersOf(object: KeyObject): string[] {
  return [...object.recipients, ...(object.kms ? [`kms:${object.kms.key}`] : [])];
}

/** Whom the policy names, in the same words. */
export function wantedOpeners(policy: Exclude<KeyPolicy, 'none'>): string[] {
  return [...new Set(policy.recipients), ...(policy.kms ? [`kms:${policy.kms.key}`] : [])];
}

/** True when the object is wrapped for exactly those whom the policy names, and names all regions where KMS can be asked. */
export function isCurrent(object: KeyObject, policy: Exclude<KeyPolicy, 'none'>): boolean {
  const [wrapped, wanted] = [new Set(openersOf(object)), new Set(wantedOpeners(policy))];
  const regions = (key: { readonly regions: readonly string[] } | undefined) => [...(key?.regions ?? [])].sort().join();
  return (
    wrapped.size === wanted.size &&
    [...wanted].every((opener) => wrapped.has(opener)) &&
    regions(object.kms) === regions(policy.kms)
  );
}
