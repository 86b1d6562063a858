import { DrError, isAbort } from '../../base/errors.ts';
import { copyDataKey } from '../../vault/copy-key.ts';
import { layout } from '../../vault/layout.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { createWal, lineageConflict } from '../wal/create.ts';
import { joinRanges, parseWalKey, rangeOfName, type WalName, type WalRange } from '../wal/names.ts';
import { readWalHeader, splitWalObject, type WalHeader } from '../wal/object.ts';
import { isGood, type Mended, type Mending, noCopy, type Require, replace } from './repair-replace.ts';

/** A whole WAL object that was read and checked. */
interface GoodWal {
  readonly key: string;
  readonly bytes: Buffer;
  readonly header: WalHeader;
  readonly from: ObjectStore;
}

/**
 * Mends a damaged WAL object: by the same object of another vault, or by others that hold the same WAL (a segment instead of its pieces,
 * pieces cut elsewhere), after which the damaged one is removed. Throws `conflict` where its header, still readable, says that it is other
 * WAL than that of the other vaults: that is no damage but a second history.
 */
export async function mendWal(mending: Mending, key: string): Promise<Mended> {
  const { target, signal } = mending;
  const name = parseWalKey(key);
  if (!name) throw new DrError('internal', `${key} is no WAL object`);
  const require: Require = (bytes, where) => void splitWalObject(bytes, key, where.slice(0, -key.length - 1));
  if (await isGood(target, key, require, signal)) return { how: 'good already' };
  const good = await goodWal(mending, key, name);
  // Two copies that are damaged in different places may give the whole together.
  if (good instanceof DrError) return await replace(mending, key, require);
  const known = await readWalHeader(target, key, undefined, signal).catch(() => undefined);
  for (const { header, bytes, key: goodKey } of good) {
    if (goodKey === key && known && known.rawSha256 !== header.rawSha256) throw lineageConflict(target, key);
    await copyKeyOf(mending, header);
    if (goodKey !== key) await createWal(target, { key: goodKey, header, body: bytes }, signal);
  }
  const [first] = good;
  if (first && first.key === key) return await replace(mending, key, require);
  await target.delete([key], { signal });
  return { how: 'replaced', from: first?.from.name ?? target.name };
}

/** Good objects that together hold what the damaged one held: the one of its name alone, or others of its segment. Gives back why there are none. */
async function goodWal(mending: Mending, key: string, name: WalName): Promise<GoodWal[] | DrError> {
  const { sources, target, signal } = mending;
  const found: GoodWal[] = [];
  let failure: unknown;
  // A segment that stands beside its damaged piece in the vault itself is good enough, too.
  for (const source of [...sources, target]) {
    try {
      for (const candidate of await candidates(source, key, name, signal)) {
        if (source === target && candidate === key) continue;
        const bytes = await source.read(candidate, undefined, { signal });
        const { header } = splitWalObject(bytes, candidate, source.location);
        if (candidate === key) return [{ key, bytes, header, from: source }];
        found.push({ key: candidate, bytes, header, from: source });
        if (covers(found, name)) return found;
      }
    } catch (error) {
      if (signal?.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
      if (!(failure instanceof DrError && failure.kind === 'corrupt')) failure = error;
    }
  }
  return noCopy(key, failure);
}

/** Objects of the same segment, the one of the same name first, then the whole segment, then pieces. */
async function candidates(
  store: ObjectStore,
  key: string,
  name: WalName,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const keys: string[] = [];
  const prefix = name.kind === 'history' ? key : layout.walSegment(name.systemId, name.timeline, name.segment);
  for await (const found of store.list(prefix, { signal })) if (parseWalKey(found.key)) keys.push(found.key);
  return keys.sort((a, b) => Number(b === key) - Number(a === key) || a.length - b.length || (a < b ? -1 : 1));
}

function covers(found: readonly GoodWal[], name: WalName): boolean {
  const segmentBytes = found[0]?.header.segmentBytes;
  if (name.kind === 'history' || segmentBytes === undefined) return false;
  const wanted = rangeOfName(name, segmentBytes);
  const ranges = found.flatMap(({ key }): WalRange[] => {
    const other = parseWalKey(key);
    return other && other.kind !== 'history' ? [rangeOfName(other, segmentBytes)] : [];
  });
  return joinRanges(ranges).some(({ start, end }) => start <= wanted.start && end >= wanted.end);
}

/** WAL of another session has another data key, which has to be there first. */
async function copyKeyOf({ sources, target, signal }: Mending, { keyId }: WalHeader): Promise<void> {
  if (keyId === undefined) return;
  const copied = await copyDataKey(sources, target, keyId, signal);
  if (copied.how === 'missing') throw noCopy(layout.keyGenerations(keyId), copied.cause);
}
