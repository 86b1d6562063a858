import { timingSafeEqual } from 'node:crypto';
import { forEachLimit } from '../../base/concurrency.ts';
import { DrError, isAbort } from '../../base/errors.ts';
import { decodeKeyObject, unwrapKey } from '../../vault/key-object.ts';
import { LockedError, type ObjectStore } from '../../vault/store.ts';
import { readHolds, whyHeld } from '../retention/holds.ts';
import type { RotateOptions, RotateResult, RotatingVault } from './rotate.ts';
import type { StoredGeneration } from './survey.ts';

const KEYS_IN_FLIGHT = 8;
/** Objects deleted between two looks at holds and leases. */
const BATCH = 200;

/** Old generations of one vault that may go. */
interface Removable {
  readonly vault: RotatingVault;
  readonly keys: string[];
}

/**
 * Removes what a newer generation has replaced, so that a recipient who shall not open the vaults any more finds nothing to open there.
 * An old generation goes only when an identity that was given opens the new one as that vault has it, and finds in it what it finds in
 * the old one where it opens that, too. While a hold stands nothing goes. Returns what stays, and why.
 */
export async function removeOldGenerations(
  vaults: readonly RotatingVault[],
  current: ReadonlyMap<string, { readonly key: string; readonly bytes: Buffer }>,
  options: Pick<RotateOptions, 'stores' | 'openers' | 'onProgress' | 'signal'>,
): Promise<Array<RotateResult['kept'][number]>> {
  const kept: Array<RotateResult['kept'][number]> = [];
  for (const vault of vaults) {
    const reasons = new Map<string, number>();
    const keep = (why: string, objects: number) => reasons.set(why, (reasons.get(why) ?? 0) + objects);
    const removable: Removable = { vault, keys: [] };
    await forEachLimit(vault.keys, KEYS_IN_FLIGHT, async ([id, generations]) => {
      options.signal?.throwIfAborted();
      const newest = current.get(id);
      const old = generations.filter(({ key }) => key !== newest?.key);
      if (old.length === 0) return;
      const why = newest ? await whyNot(vault, id, newest, old, options) : 'its data key could not be wrapped anew';
      if (why === undefined) removable.keys.push(...old.map(({ key }) => key));
      else keep(why, old.length);
    });
    await remove(removable, keep, options);
    for (const [why, objects] of reasons) kept.push({ vault: vault.store.name, objects, why });
  }
  return kept;
}

/** Why the old generations of one data key have to stay in this vault; undefined when they may go. */
async function whyNot(
  { store }: RotatingVault,
  id: string,
  newest: { readonly key: string; readonly bytes: Buffer },
  old: readonly StoredGeneration[],
  { openers, signal }: Pick<RotateOptions, 'openers' | 'signal'>,
): Promise<string | undefined> {
  const where = `${store.location}/${newest.key}`;
  // As it lies there now, not as it was sent.
  const stored = await store.read(newest.key, undefined, { signal });
  if (!stored.equals(newest.bytes)) return 'its newest generation is not what was written';
  const unwrap = async (bytes: Buffer, place: string) => {
    try {
      return await unwrapKey(decodeKeyObject(bytes, id, place), openers, place);
    } catch (error) {
      if (isAbort(error) || !(error instanceof DrError)) throw error;
      return undefined;
    }
  };
  const secret = await unwrap(stored, where);
  if (!secret)
    return 'nothing that was given opens the new wrap: add an identity of a configured recipient to the file';
  for (const { key, bytes, object } of old) {
    const before = object && (await unwrap(bytes, `${store.location}/${key}`));
    if (before && !(before.length === secret.length && timingSafeEqual(before, secret))) {
      return `its generations hold different keys (${key}): one of them is forged`;
    }
  }
  return undefined;
}

async function remove(
  { vault, keys }: Removable,
  keep: (why: string, objects: number) => void,
  { stores, onProgress, signal }: Pick<RotateOptions, 'stores' | 'onProgress' | 'signal'>,
): Promise<void> {
  for (let at = 0; at < keys.length; at += BATCH) {
    const held = whyHeld(await readHolds(stores, signal));
    if (held !== undefined) {
      keep(held, keys.length - at);
      return;
    }
    await vault.lease.stillHeld();
    const batch = keys.slice(at, at + BATCH);
    try {
      await removeForGood(vault.store, batch, signal);
      vault.removed += batch.length;
    } catch (error) {
      if (!(error instanceof LockedError)) throw error;
      vault.removed += batch.length - error.locked.size;
      keep('Object Lock keeps them until their locks have ended: repeat it then', error.locked.size);
    }
    onProgress?.({
      task: `remove old keys of ${vault.store.name}`,
      done: vault.removed,
      total: keys.length,
      unit: 'objects',
    });
  }
}

/** In a bucket with versions a plain delete would only hide them from people of good will. */
async function removeForGood(
  store: ObjectStore,
  keys: readonly string[],
  signal: AbortSignal | undefined,
): Promise<void> {
  if (store.versions && (await store.versions.areKept({ signal })) !== false)
    await store.versions.purge(keys, { signal });
  else await store.delete(keys, { signal });
}
