import { mapInOrder } from '../base/concurrency.ts';
import { isAbort } from '../base/errors.ts';
import type { CallOptions, ObjectStore, ReadOutcome } from './store.ts';

/** Requests at once for many small objects. */
const READS_IN_FLIGHT = 32;

/** `readEach` for a store that can do no better than to read one object after the other, several at once. */
export function readEachAlone(
  store: Pick<ObjectStore, 'read'>,
  keys: Iterable<string>,
  options: CallOptions = {},
): AsyncGenerator<ReadOutcome> {
  return mapInOrder(keys, READS_IN_FLIGHT, async (key): Promise<ReadOutcome> => {
    try {
      return { key, bytes: await store.read(key, undefined, options) };
    } catch (error) {
      if (options.signal?.aborted || isAbort(error)) throw error;
      return { key, error };
    }
  });
}
