import type { DrError } from '../../base/errors.ts';
import type { KeyPolicy } from '../../vault/key-object.ts';
import { isCurrent, openersOf, type VaultKeys, wantedOpeners } from './survey.ts';

/** Who can open data keys of the vaults, and how many. */
export interface OpenerCount {
  /** An age public key, or `kms:<ARN>`. */
  readonly opener: string;
  readonly configured: boolean;
  /** Data keys whose newest generation is wrapped for it. */
  readonly opens: number;
  /** Data keys that only an older generation, still there in some vault, is wrapped for. */
  readonly opensOld: number;
}

/** What `dr keys list` shows. */
export interface KeyList {
  readonly vaults: ReadonlyArray<{ readonly vault: string; readonly keys: number; readonly generations: number }>;
  /** Data keys in all vaults together. */
  readonly keys: number;
  readonly openers: readonly OpenerCount[];
  /** Ids of data keys whose newest generation nobody of the configuration opens. */
  readonly unopened: readonly string[];
  /** Data keys that are not wrapped for exactly those of the configuration: `dr keys rotate` does it. */
  readonly outdated: number;
  /** Data keys of which some vault lacks the newest generation that another has. */
  readonly behind: ReadonlyArray<{ readonly vault: string; readonly keys: number }>;
  readonly damaged: ReadonlyArray<{ readonly vault: string; readonly key: string; readonly error: DrError }>;
}

/** Counts who can open what. Pure. */
export function listKeys(vaults: readonly VaultKeys[], policy: KeyPolicy): KeyList {
  const wanted = policy === 'none' ? [] : wantedOpeners(policy);
  const opens = new Map<string, number>(wanted.map((opener) => [opener, 0]));
  const opensOld = new Map<string, number>();
  const ids = [...new Set(vaults.flatMap(({ keys }) => [...keys.keys()]))].sort();
  const unopened: string[] = [];
  const behind = new Map<string, number>();
  let outdated = 0;
  for (const id of ids) {
    const generations = vaults.flatMap(({ store, keys }) => (keys.get(id) ?? []).map((each) => ({ ...each, store })));
    const readable = generations.filter(({ object }) => object !== undefined);
    const newest = readable.reduce((highest, { number }) => Math.max(highest, number), 0);
    const current = new Set<string>();
    const old = new Set<string>();
    for (const { object, number } of readable) {
      for (const opener of object ? openersOf(object) : []) (number === newest ? current : old).add(opener);
    }
    for (const opener of current) opens.set(opener, (opens.get(opener) ?? 0) + 1);
    for (const opener of old) if (!current.has(opener)) opensOld.set(opener, (opensOld.get(opener) ?? 0) + 1);
    if (!wanted.some((opener) => current.has(opener))) unopened.push(id);
    const object = readable.find(({ number }) => number === newest)?.object;
    if (policy !== 'none' && object && !isCurrent(object, policy)) outdated++;
    for (const { store, keys } of vaults) {
      const own = keys.get(id);
      if (!own || own.some(({ number, object }) => number === newest && object)) continue;
      behind.set(store.name, (behind.get(store.name) ?? 0) + 1);
    }
  }
  const openers = [...new Set([...opens.keys(), ...opensOld.keys()])].map((opener) => ({
    opener,
    configured: wanted.includes(opener),
    opens: opens.get(opener) ?? 0,
    opensOld: opensOld.get(opener) ?? 0,
  }));
  return {
    vaults: vaults.map(({ store, keys }) => ({
      vault: store.name,
      keys: keys.size,
      generations: [...keys.values()].reduce((sum, { length }) => sum + length, 0),
    })),
    keys: ids.length,
    openers,
    unopened,
    outdated,
    behind: [...behind].map(([vault, keys]) => ({ vault, keys })),
    damaged: vaults.flatMap(({ store, keys }) =>
      [...keys.values()].flatMap((generations) =>
        generations.flatMap(({ key, error }) => (error ? [{ vault: store.name, key, error }] : [])),
      ),
    ),
  };
}
