import { DrError, isAbort } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { copyDataKey, generationOf } from '../../vault/copy-key.ts';
import type { ObjectStore } from '../../vault/store.ts';

/**
 * Gives a vault that was away the newer generations of the data keys that it has: who may open them was changed meanwhile (`dr keys
 * rotate`). No identity is needed. Returns how many it got; one that cannot be copied is left to `dr vault check`.
 */
export async function copyNewerKeys(options: {
  readonly from: readonly ObjectStore[];
  readonly to: ObjectStore;
  readonly log: Log;
  readonly signal?: AbortSignal | undefined;
}): Promise<number> {
  const { from, to, log, signal } = options;
  const newest = await newestGenerations(to, signal);
  const behind = new Map<string, ObjectStore[]>();
  for (const source of from) {
    for (const [id, generation] of await newestGenerations(source, signal)) {
      if (generation <= (newest.get(id) ?? Number.POSITIVE_INFINITY)) continue;
      behind.set(id, [...(behind.get(id) ?? []), source]);
    }
  }
  let copied = 0;
  for (const [id, sources] of behind) {
    try {
      if ((await copyDataKey(sources, to, id, signal)).how === 'copied') copied++;
    } catch (error) {
      if (signal?.aborted || isAbort(error) || !(error instanceof DrError && error.kind === 'conflict')) throw error;
      log.warn({ vault: to.name, dataKey: id, error }, 'a data key could not be brought up to date');
    }
  }
  return copied;
}

async function newestGenerations(store: ObjectStore, signal: AbortSignal | undefined): Promise<Map<string, number>> {
  const newest = new Map<string, number>();
  for await (const { key } of store.list('keys/', { signal })) {
    const generation = generationOf(key);
    if (generation !== undefined) newest.set(key.split('/')[1] ?? '', generation);
  }
  return newest;
}
