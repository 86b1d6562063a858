import { forEachLimit } from '../../base/concurrency.ts';
import { DrError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { type Lsn, segmentName } from '../../postgres/lsn.ts';
import { copyDataKey } from '../../vault/copy-key.ts';
import { layout } from '../../vault/layout.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { createWal } from './create.ts';
import { type ListedWal, listWal, type WalPosition } from './listing.ts';
import { coveringPieces, joinRanges } from './names.ts';
import { decodeWalObject, splitWalObject } from './object.ts';

export interface WalSyncOptions {
  /** Vaults to copy from; each is asked for what the target still lacks after the one before. */
  readonly sources: readonly ObjectStore[];
  readonly target: ObjectStore;
  readonly systemId: string;
  /** From this segment on; everything where absent. Needs `segmentBytes`. */
  readonly from?: WalPosition | undefined;
  /** Segments that begin here or later are not looked at. Needs `segmentBytes`. */
  readonly until?: Lsn | undefined;
  readonly segmentBytes?: number | undefined;
  /** Objects copied at once (each up to a segment in memory); default 2. */
  readonly inFlight?: number;
  readonly log: Log;
  readonly signal?: AbortSignal | undefined;
}

export interface WalSyncResult {
  readonly copied: number;
  readonly bytes: number;
  /** Superfluous pieces removed from the target. */
  readonly swept: number;
  /** Objects that could not be copied: damaged in their source, or gone since they were listed. */
  readonly failed: ReadonlyArray<{ readonly vault: string; readonly key: string; readonly error: unknown }>;
  /** Sources that could not be read to the end. */
  readonly unread: ReadonlyArray<{ readonly vault: string; readonly error: unknown }>;
}

/**
 * Copies the WAL objects that the target lacks, as they are: no key is needed, every checksum that needs none is checked. Can be
 * interrupted and repeated at any time. Throws when the target cannot be read or written, and `conflict` when it holds other WAL.
 */
export async function syncWal(options: WalSyncOptions): Promise<WalSyncResult> {
  const { sources, target, log, signal } = options;
  const result = { copied: 0, bytes: 0, swept: 0, failed: [] as Failed[], unread: [] as Unread[] };
  const keysThere = new Set<string>();
  for (const source of sources) {
    const missing = missingIn(source, options, async (keys) => {
      await target.delete(keys, { signal });
      result.swept += keys.length;
    });
    await forEachLimit(missing, options.inFlight ?? 2, async (step) => {
      if ('error' in step) {
        result.unread.push({ vault: source.name, error: step.error });
        return;
      }
      const { key } = step;
      const bytes = await readVerified(source, key, signal).catch((error: unknown) => {
        if (!(error instanceof DrError) || (error.kind !== 'corrupt' && error.kind !== 'not-found'))
          throw source_(error);
        log.warn({ vault: source.name, key, error }, 'a WAL object cannot be copied from this vault');
        result.failed.push({ vault: source.name, key, error });
        return undefined;
      });
      if (!bytes) return;
      const { header } = splitWalObject(bytes, key, source.location);
      if (header.keyId !== undefined && !keysThere.has(header.keyId)) {
        // Before anything that is sealed with it. Where no vault has it, the check says so.
        await copyDataKey([source], target, header.keyId, signal);
        keysThere.add(header.keyId);
      }
      if ((await createWal(target, { key, header, body: bytes }, signal)) === 'created') {
        result.copied++;
        result.bytes += bytes.length;
      }
    }).catch((error: unknown) => {
      if (!(error instanceof SourceFailure)) throw error;
      result.unread.push({ vault: source.name, error: error.cause });
    });
  }
  return result;
}

type Failed = WalSyncResult['failed'][number];
type Unread = WalSyncResult['unread'][number];

/** Tells a source that failed from a target that failed. */
class SourceFailure extends Error {}

function source_(error: unknown): SourceFailure {
  return new SourceFailure('the source failed', { cause: error });
}

async function readVerified(source: ObjectStore, key: string, signal?: AbortSignal): Promise<Buffer> {
  const bytes = await source.read(key, undefined, { signal });
  const { header } = splitWalObject(bytes, key, source.location);
  // A plain object can be checked to the last byte here and now.
  if (header.keyId === undefined) {
    await decodeWalObject(bytes, key, source.location, () =>
      Promise.reject(new DrError('internal', 'a plain object has no key')),
    );
  }
  return bytes;
}

/** All objects of one segment, or one history. */
interface Group {
  /** The key of the segment or history: groups come in its order. */
  readonly key: string;
  readonly objects: ListedWal[];
}

async function* groups(store: ObjectStore, options: WalSyncOptions): AsyncGenerator<Group, void, undefined> {
  const { systemId, from, until, segmentBytes, signal } = options;
  const order = (lsn: Lsn | undefined) =>
    lsn === undefined || segmentBytes === undefined ? undefined : segmentName(0, lsn, segmentBytes).slice(8);
  const [first, limit] = [order(from?.lsn), order(until)];
  let group: Group | undefined;
  for await (const object of listWal(store, systemId, { from, segmentBytes, signal })) {
    const { name } = object;
    if (name.kind !== 'history') {
      const place = name.segment.slice(8);
      if ((first !== undefined && place < first) || (limit !== undefined && place >= limit)) continue;
    }
    const key = name.kind === 'piece' ? layout.walSegment(systemId, name.timeline, name.segment) : object.key;
    if (group && group.key !== key) yield group;
    if (group?.key !== key) group = { key, objects: [] };
    group.objects.push(object);
  }
  if (group) yield group;
}

/** Walks both listings side by side, so that memory does not grow with the archive. */
async function* missingIn(
  source: ObjectStore,
  options: WalSyncOptions,
  sweep: (keys: string[]) => Promise<void>,
): AsyncGenerator<{ key: string } | { error: unknown }, void, undefined> {
  const wanted = groups(source, options);
  const there = groups(options.target, options);
  let have = await there.next();
  for (;;) {
    let next: IteratorResult<Group, void>;
    try {
      next = await wanted.next();
    } catch (error) {
      yield { error };
      return;
    }
    while (!have.done && (next.done || have.value.key < next.value.key)) {
      const whole = have.value.objects.some(({ name }) => name.kind === 'segment');
      const pieces = have.value.objects.filter(({ name }) => name.kind === 'piece');
      if (whole && pieces.length > 0) await sweep(pieces.map(({ key }) => key));
      have = await there.next();
    }
    if (next.done) return;
    const same = !have.done && have.value.key === next.value.key ? have.value.objects : [];
    for (const key of lacking(next.value.objects, same)) yield { key };
  }
}

/** Which objects of a segment to copy to a vault that has `there` of it. */
function lacking(objects: readonly ListedWal[], there: readonly ListedWal[]): string[] {
  if (there.some(({ name }) => name.kind !== 'piece')) return [];
  const whole = objects.find(({ name }) => name.kind !== 'piece');
  if (whole) return [whole.key];
  const pieces = objects.flatMap(({ key, name }) =>
    name.kind === 'piece' ? [{ key, from: name.from, to: name.to }] : [],
  );
  const covered = joinRanges(
    there.flatMap(({ name }) => (name.kind === 'piece' ? [{ start: BigInt(name.from), end: BigInt(name.to) }] : [])),
  );
  const within = (piece: { from: number; to: number }) =>
    covered.some(({ start, end }) => start <= BigInt(piece.from) && end >= BigInt(piece.to));
  // The fewest that cover the segment from its beginning, and whatever lies beyond a hole.
  const { chosen, end } = coveringPieces(pieces, 0, Number.MAX_SAFE_INTEGER);
  const beyond = pieces.filter((piece) => piece.to > end);
  return [...chosen, ...beyond].filter((piece) => !within(piece)).map(({ key }) => key);
}
