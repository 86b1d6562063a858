import { DrError, isAbort } from '../../base/errors.ts';
import type { ObjectStore } from '../../vault/store.ts';

export interface Mending {
  readonly target: ObjectStore;
  /** Vaults that may have a good copy, best first. */
  readonly sources: readonly ObjectStore[];
  readonly nowMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** What was done about one object. */
export type Mended =
  | { readonly how: 'copied' | 'replaced'; readonly from: string }
  /** It is as it should be: it was mended meanwhile, or could not be read for a moment only. */
  | { readonly how: 'good already' }
  | { readonly how: 'removed' | 'written anew' };

/** Throws `corrupt` unless the bytes are what should stand under the key. */
export type Require = (bytes: Buffer, where: string) => void;

/**
 * Puts a good copy in the place of one that is missing or damaged. The good one is read and checked before the bad one is removed, and
 * the bad one is looked at again before that: this is the only place where `dr` deletes and creates an object of the same name.
 */
export async function replace(mending: Mending, key: string, require: Require): Promise<Mended> {
  const { target, signal } = mending;
  if (await isGood(target, key, require, signal)) return { how: 'good already' };
  const { bytes, from } = await goodCopy(mending, key, require);
  const was = await target.stat(key, { signal });
  if (was) await target.delete([key], { signal });
  if ((await target.create(key, bytes, { signal })) === 'exists' && !(await isGood(target, key, require, signal))) {
    throw new DrError('conflict', `another object has appeared as ${key} meanwhile`, {
      where: `${target.location}/${key}`,
      next: 'Run `dr vault check` again, and find out who writes there.',
    });
  }
  return { how: was ? 'replaced' : 'copied', from };
}

export async function isGood(
  store: ObjectStore,
  key: string,
  require: Require,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  try {
    require(await store.read(key, undefined, { signal }), `${store.location}/${key}`);
    return true;
  } catch (error) {
    if (error instanceof DrError && (error.kind === 'corrupt' || error.kind === 'not-found')) return false;
    throw error;
  }
}

async function goodCopy(
  { sources, signal }: Mending,
  key: string,
  require: Require,
): Promise<{ bytes: Buffer; from: string }> {
  let failure: unknown;
  for (const source of sources) {
    try {
      const bytes = await source.read(key, undefined, { signal });
      require(bytes, `${source.location}/${key}`);
      return { bytes, from: source.name };
    } catch (error) {
      if (signal?.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
      // A damaged copy says more than one that is not there or could not be asked.
      if (!(failure instanceof DrError && failure.kind === 'corrupt')) failure = error;
    }
  }
  throw noCopy(key, failure);
}

export function noCopy(key: string, cause?: unknown): DrError {
  return new DrError('corrupt', `no other vault has a good copy of ${key}`, {
    where: key,
    next: 'Take a new backup of what it belongs to; a vault that does not answer now may have a copy later.',
    cause,
  });
}
