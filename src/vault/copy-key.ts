import { DrError, isAbort } from '../base/errors.ts';
import { decodeKeyObject } from './key-object.ts';
import { layout } from './layout.ts';
import type { ObjectStore } from './store.ts';

/** What became of one data key: `missing` when no source has a readable one. */
export type CopiedKey =
  | { readonly how: 'copied'; readonly from: string }
  | { readonly how: 'there' }
  | { readonly how: 'missing'; readonly cause?: unknown };

/** The generation in the name of a key object (`…/000002.json`); undefined for anything else. */
export function generationOf(key: string): number | undefined {
  const digits = /^keys\/[0-9a-f]{32}\/(\d{6,})\.json$/.exec(key)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/**
 * Gives the target the newest generation of a wrapped data key, and only that one: an older one may open it to somebody who shall not
 * any more. Nothing happens where the target has it, or a newer one. A source that fails is passed over. Throws `conflict` when two
 * vaults hold different wraps under one name, and what the target throws.
 */
export async function copyDataKey(
  sources: readonly ObjectStore[],
  target: ObjectStore,
  id: string,
  signal?: AbortSignal,
): Promise<CopiedKey> {
  const newestHere = (await generations(target, id, signal)).at(-1) ?? 0;
  const found: Array<{ source: ObjectStore; number: number }> = [];
  let failure: unknown;
  const failed = (error: unknown) => {
    if (signal?.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
    // A damaged copy says more than one that is not there or could not be asked.
    if (!(failure instanceof DrError && failure.kind === 'corrupt')) failure = error;
  };
  for (const source of sources) {
    try {
      for (const number of await generations(source, id, signal)) found.push({ source, number });
    } catch (error) {
      failed(error);
    }
  }
  found.sort((a, b) => b.number - a.number);
  for (const { source, number } of found) {
    if (number < newestHere) break;
    const key = layout.key(id, number);
    let bytes: Buffer;
    try {
      bytes = await source.read(key, undefined, { signal });
      decodeKeyObject(bytes, id, `${source.location}/${key}`);
    } catch (error) {
      failed(error);
      continue;
    }
    if (number > newestHere && (await target.create(key, bytes, { signal })) === 'created') {
      return { how: 'copied', from: source.name };
    }
    if ((await target.read(key, undefined, { signal })).equals(bytes)) return { how: 'there' };
    throw new DrError('conflict', 'two vaults hold different data keys under one name', {
      where: `${target.location}/${key}`,
      next: `Compare it with the one of vault ${source.name}: one of them was damaged or tampered with. \`dr vault repair ${target.name}\` mends a damaged one.`,
    });
  }
  return newestHere > 0 ? { how: 'there' } : { how: 'missing', cause: failure };
}

async function generations(store: ObjectStore, id: string, signal: AbortSignal | undefined): Promise<number[]> {
  const numbers: number[] = [];
  for await (const { key } of store.list(layout.keyGenerations(id), { signal })) {
    const number = generationOf(key);
    if (number !== undefined) numbers.push(number);
  }
  return numbers.sort((a, b) => a - b);
}
