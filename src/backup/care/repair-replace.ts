import { DrError, isAbort } from '../../base/errors.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { splice } from './repair-splice.ts';

export interface Mending {
  readonly target: ObjectStore;
  /** Vaults that may have a good copy, best first. */
  readonly sources: readonly ObjectStore[];
  readonly nowMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** What was done about one object. `from`: the vault of the good copy, or several that hold it together. */
export type Mended =
  | { readonly how: 'copied' | 'replaced'; readonly from: string }
  /** It is as it should be: it was mended meanwhile, or could not be read for a moment only. */
  | { readonly how: 'good already' }
  /** `revealed`: a delete marker was taken away. */
  | { readonly how: 'removed' | 'written anew' | 'revealed' };

/** Throws `corrupt` unless the bytes are what should stand under the key. */
export type Require = (bytes: Buffer, where: string) => void;

/**
 * Puts a good copy in the place of one that is missing or damaged. The good one is read and checked before the bad one is touched, and
 * the bad one is looked at again before that: this is the only place where `dr` replaces an object.
 */
export async function replace(mending: Mending, key: string, require: Require): Promise<Mended> {
  const { target, signal } = mending;
  if (await isGood(target, key, require, signal)) return { how: 'good already' };
  const { bytes, from } = await goodCopy(mending, key, require);
  const was = (await target.stat(key, { signal })) !== undefined;
  if (was) await putInPlace(mending, key, bytes);
  else if (
    (await target.create(key, bytes, { signal })) === 'exists' &&
    !(await isGood(target, key, require, signal))
  ) {
    throw new DrError('conflict', `another object has appeared as ${key} meanwhile`, {
      where: `${target.location}/${key}`,
      next: 'Run `dr vault check` again, and find out who writes there.',
    });
  }
  // A store may say yes and keep the old one: its cache, or a disk that fails.
  if (!(await isGood(target, key, require, signal))) {
    throw new DrError('corrupt', `vault ${target.name} took the good copy and gives back another`, {
      where: `${target.location}/${key}`,
      next: 'Its disk or service is failing: have it looked at, then run `dr vault repair` again.',
    });
  }
  return { how: was ? 'replaced' : 'copied', from };
}

/**
 * Writes over the bad object in one step, so that there is no moment without either. In a bucket with versions that adds a version and
 * the bad one stays behind it: with Object Lock nothing else is possible, and more is not needed. Where writing over is forbidden (a
 * policy that wants create-only writes), the bad one is deleted first; a bucket with versions hides it then.
 */
export async function putInPlace(
  { target, signal }: Pick<Mending, 'target' | 'signal'>,
  key: string,
  bytes: Buffer,
): Promise<void> {
  try {
    await target.overwrite(key, bytes, { signal });
    return;
  } catch (error) {
    if (!(error instanceof DrError && (error.kind === 'denied' || error.kind === 'refused'))) throw error;
  }
  try {
    await target.delete([key], { signal });
  } catch (error) {
    if (!(error instanceof DrError && (error.kind === 'denied' || error.kind === 'refused'))) throw error;
    throw new DrError('denied', `${key} is damaged, and these credentials may neither write over it nor delete it`, {
      where: `${target.location}/${key}`,
      next: `Run \`dr vault repair ${target.name}\` with credentials that may (s3:PutObject without condition, or s3:DeleteObject). A good copy is in another vault.`,
      cause: error,
    });
  }
  await target.create(key, bytes, { signal });
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

/** A copy that any vault has whole, or that two damaged ones give together. */
async function goodCopy(
  { sources, target, signal }: Mending,
  key: string,
  require: Require,
): Promise<{ bytes: Buffer; from: string }> {
  const damaged: Array<{ name: string; bytes: Buffer }> = [];
  let failure: unknown;
  for (const source of [...sources, target]) {
    let bytes: Buffer | undefined;
    try {
      bytes = await source.read(key, undefined, { signal });
      require(bytes, `${source.location}/${key}`);
      return { bytes, from: source.name };
    } catch (error) {
      if (signal?.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
      if (bytes && error.kind === 'corrupt') damaged.push({ name: source.name, bytes });
      // A damaged copy says more than one that is not there or could not be asked; of the vault itself all is known already.
      if (source !== target && !(failure instanceof DrError && failure.kind === 'corrupt')) failure = error;
    }
  }
  const isWhole = (bytes: Buffer) => {
    try {
      require(bytes, key);
      return true;
    } catch {
      return false;
    }
  };
  for (const [i, one] of damaged.entries()) {
    for (const other of damaged.slice(i + 1)) {
      const bytes = splice(one.bytes, other.bytes, isWhole);
      if (bytes) return { bytes, from: `${one.name} and ${other.name}, each damaged elsewhere` };
    }
  }
  throw noCopy(key, failure);
}

export function noCopy(key: string, cause?: unknown): DrError {
  return new DrError('corrupt', `no other vault has a good copy of ${key}`, {
    where: cause instanceof DrError && cause.kind === 'corrupt' && cause.where !== undefined ? cause.where : key,
    next: 'Take a new backup of what it belongs to; a vault that does not answer now may have a copy later.',
    cause,
  });
}
