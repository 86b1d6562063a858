import { DrError } from '../base/errors.ts';
import type { ByteRange, ObjectStore } from '../vault/store.ts';

/**
 * Reads an object that a manifest says is there: that it is missing is damage of the vault (`corrupt`), not an answer.
 * `what` is for the error: `the index of backup …`.
 */
export async function readReferenced(
  store: ObjectStore,
  key: string,
  what: string,
  options: { readonly range?: ByteRange; readonly signal?: AbortSignal | undefined } = {},
): Promise<Buffer> {
  try {
    return await store.read(key, options.range, { signal: options.signal });
  } catch (error) {
    if (!(error instanceof DrError) || error.kind !== 'not-found') throw error;
    throw new DrError('corrupt', `${what} is missing from vault ${store.name}`, {
      where: `${store.location}/${key}`,
      next: 'Restore from another vault (--vault NAME), then repair this one from it.',
      cause: error,
    });
  }
}
