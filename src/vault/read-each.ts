import { mapInOrder } from '../base/concurrency.ts';
import { isAbort } from '../base/errors.ts';
import type { CallOptions, ObjectStore, ReadOutcome } from './store.ts';

/** Requests at once for many small objects. */
const READS_IN_FLIGHT = 32;

/** `readEach` for a store that can do no better than to read one object after the other, several at once. */
export async function* readEachAlone(
  store: Pick<ObjectStore, 'read'>,
  keys: Iterable<string>,
  options: CallOptions = {},
): AsyncGenerator<ReadOutcome> {
  const left = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, left.signal]) : left.signal;
  const outcomes = mapInOrder(keys, READS_IN_FLIGHT, async (key): Promise<ReadOutcome> => {
    try {
      return { key, bytes: await store.read(key, undefined, { ...options, signal }) };
    } catch (error) {
      if (signal.aborted || isAbort(error)) throw error;
      return { key, error };
    }
  });
  try {
    // Not `for await`: leaving it would wait for the reads before they are told to stop.
    for (let next = await outcomes.next(); next.done !== true; next = await outcomes.next()) yield next.value;
  } finally {
    left.abort();
    await outcomes.return(undefined);
  }
}
