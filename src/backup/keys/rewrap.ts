import { timingSafeEqual } from 'node:crypto';
import { DrError, isAbort } from '../../base/errors.ts';
import {
  decodeKeyObject,
  encodeKeyObject,
  type KeyObject,
  type KeyOpeners,
  unwrapKey,
  wrapKey,
} from '../../vault/key-object.ts';
import { layout } from '../../vault/layout.ts';
import type { RotateOptions, RotatingVault } from './rotate.ts';
import { isCurrent, type StoredGeneration } from './survey.ts';

/** The newest generation of a data key, which every vault that has the key has now. */
export interface Rewrapped {
  readonly how: 'rewrapped' | 'already';
  /** Name of the object. */
  readonly key: string;
  readonly bytes: Buffer;
  /** True when an identity that was given has opened it. Only looked at for one that is new. */
  readonly proven: boolean;
}

interface Found extends StoredGeneration {
  readonly vault: RotatingVault;
}

/**
 * Makes sure that the newest generation of one data key is wrapped for the policy, and the same everywhere. `onAway` is told of a vault
 * that fails; the others go on. Throws when no identity opens the key, or the vaults contradict each other.
 */
export async function rewrap(
  id: string,
  vaults: readonly RotatingVault[],
  options: Pick<RotateOptions, 'policy' | 'openers' | 'clock' | 'signal'>,
  onAway: (vault: RotatingVault, error: DrError) => void,
): Promise<Rewrapped> {
  const holders = vaults.filter(({ keys }) => keys.has(id));
  const found = holders
    .flatMap((vault): Found[] => (vault.keys.get(id) ?? []).map((generation) => ({ ...generation, vault })))
    .sort((a, b) => b.number - a.number);
  const highest = found[0]?.number ?? 0;
  const newest = found.filter(({ number }) => number === highest);
  const [first] = newest;
  const isSame = newest.every(({ bytes }) => first?.bytes.equals(bytes));
  const isDone = isSame && first?.object !== undefined && isCurrent(first.object, options.policy);
  const outcome: Rewrapped =
    isDone && first
      ? { how: 'already', key: first.key, bytes: first.bytes, proven: false }
      : await wrapAnew(id, found, highest + 1, options);
  await Promise.all(
    holders.map(async (vault) => {
      if (isDone && vault.keys.get(id)?.some(({ key }) => key === outcome.key)) return;
      try {
        await store(vault, outcome, options.signal);
      } catch (error) {
        if (options.signal?.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
        if (error.kind !== 'unreachable' && error.kind !== 'denied') throw error;
        onAway(vault, error);
      }
    }),
  );
  return outcome;
}

async function store(vault: RotatingVault, { key, bytes }: Rewrapped, signal: AbortSignal | undefined): Promise<void> {
  if ((await vault.store.create(key, bytes, { signal })) === 'created') {
    vault.written++;
    return;
  }
  if ((await vault.store.read(key, undefined, { signal })).equals(bytes)) return;
  throw new DrError('conflict', 'somebody else has written this generation of a data key', {
    where: `${vault.store.location}/${key}`,
    next: 'Run `dr keys rotate` again; if it happens again, find out who writes there.',
  });
}

async function wrapAnew(
  id: string,
  found: readonly Found[],
  number: number,
  { policy, openers, clock }: Pick<RotateOptions, 'policy' | 'openers' | 'clock'>,
): Promise<Rewrapped> {
  const { secret, object } = await openOne(id, found, openers);
  // Without `log`: here a wrap that KMS did not make is no success.
  const { recipients, kms } = policy;
  const wrapped = await wrapKey(
    secret,
    {
      id,
      createdAt: object.createdAt,
      rewrappedAt: new Date(clock.now()).toISOString(),
      ...(object.usedFor === undefined ? {} : { usedFor: object.usedFor }),
    },
    { recipients, kms },
  );
  const key = layout.key(id, number);
  const bytes = encodeKeyObject(wrapped);
  return { how: 'rewrapped', key, bytes, proven: await prove(bytes, id, secret, openers) };
}

/** Opens the data key by the newest generation that can be opened, from whichever vault. */
async function openOne(
  id: string,
  found: readonly Found[],
  openers: KeyOpeners,
): Promise<{ secret: Uint8Array; object: KeyObject }> {
  let failure: DrError | undefined;
  const tried = new Set<string>();
  for (const { object, error, bytes, key, vault } of found) {
    if (!object) {
      failure ??= error;
      continue;
    }
    const same = bytes.toString('base64');
    if (tried.has(same)) continue;
    tried.add(same);
    try {
      return { secret: await unwrapKey(object, openers, `${vault.store.location}/${key}`), object };
    } catch (thrown) {
      if (isAbort(thrown) || !(thrown instanceof DrError)) throw thrown;
      // What is wrong with a key that can be read says more than that another one cannot.
      if (!failure || failure.kind === 'corrupt') failure = thrown;
    }
  }
  throw failure ?? new DrError('corrupt', `data key ${id} has no generation that can be read`, { where: id });
}

/**
 * Opens what was just made with what was given, and compares. False when nothing that was given opens it: it is then right by construction,
 * because the recipients are public keys whose checksums were tested.
 */
async function prove(bytes: Buffer, id: string, secret: Uint8Array, openers: KeyOpeners): Promise<boolean> {
  let opened: Uint8Array;
  try {
    opened = await unwrapKey(decodeKeyObject(bytes, id, id), openers, id);
  } catch (error) {
    if (error instanceof DrError && ['wrong-key', 'denied', 'unreachable'].includes(error.kind)) return false;
    throw error;
  }
  if (opened.length === secret.length && timingSafeEqual(opened, secret)) return true;
  throw new DrError('internal', 'a data key that was wrapped anew opens to another one', { where: id });
}
