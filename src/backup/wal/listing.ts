import { type Lsn, segmentName, segmentStart } from '../../postgres/lsn.ts';
import { layout } from '../../vault/layout.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { parseWalKey, rangeOfName, type WalName, type WalRange } from './names.ts';

/** An archived object as a listing shows it. */
export interface ListedWal {
  readonly key: string;
  /** Bytes as stored. */
  readonly size: number;
  readonly name: WalName;
}

export interface WalPosition {
  readonly timeline: number;
  readonly lsn: Lsn;
}

/** Lists the WAL of a system, from the segment of `from` on where given (later timelines whole). Objects of other names are passed over. */
export async function* listWal(
  store: ObjectStore,
  systemId: string,
  options: { from?: WalPosition | undefined; segmentBytes?: number | undefined; signal?: AbortSignal | undefined } = {},
): AsyncGenerator<ListedWal, void, undefined> {
  const { from, segmentBytes, signal } = options;
  let startAfter: string | undefined;
  if (from && segmentBytes !== undefined) {
    const before = segmentStart(from.lsn, segmentBytes) - BigInt(segmentBytes);
    // Pieces of the segment before come along: the order of names has no key between them and the next segment.
    if (before >= 0n) {
      startAfter = layout.walSegment(systemId, from.timeline, segmentName(from.timeline, before, segmentBytes));
    }
  }
  const options_ = startAfter === undefined ? { signal } : { signal, startAfter };
  for await (const { key, size } of store.list(layout.walSystem(systemId), options_)) {
    const name = parseWalKey(key);
    if (name && (!from || name.timeline >= from.timeline)) yield { key, size, name };
  }
}

/** What one vault holds from a position on. */
export class VaultWal {
  readonly #objects: readonly ListedWal[];
  readonly #segmentBytes: number;

  private constructor(objects: readonly ListedWal[], segmentBytes: number) {
    this.#objects = objects;
    this.#segmentBytes = segmentBytes;
  }

  static async read(
    store: ObjectStore,
    systemId: string,
    from: WalPosition | undefined,
    segmentBytes: number,
    signal?: AbortSignal,
  ): Promise<VaultWal> {
    const objects: ListedWal[] = [];
    for await (const object of listWal(store, systemId, { from, segmentBytes, signal })) objects.push(object);
    return new VaultWal(objects, segmentBytes);
  }

  get objects(): readonly ListedWal[] {
    return this.#objects;
  }

  /** Stretches of WAL, of one timeline or of all. */
  ranges(timeline?: number): WalRange[] {
    const ranges: WalRange[] = [];
    for (const { name } of this.#objects) {
      if (name.kind === 'history' || (timeline !== undefined && name.timeline !== timeline)) continue;
      ranges.push(rangeOfName(name, this.#segmentBytes));
    }
    return ranges;
  }

  /** Pieces inside [start, start + bytes) of a timeline, with offsets relative to `start`. */
  piecesIn(timeline: number, start: Lsn, bytes: number): Array<ListedWal & { from: number; to: number }> {
    const pieces = [];
    for (const object of this.#objects) {
      if (object.name.kind !== 'piece' || object.name.timeline !== timeline) continue;
      const range = rangeOfName(object.name, this.#segmentBytes);
      if (range.start < start || range.end > start + BigInt(bytes)) continue;
      pieces.push({ ...object, from: Number(range.start - start), to: Number(range.end - start) });
    }
    return pieces;
  }

  /** Pieces whose whole segment is there too: left over when a deletion failed or the archiver was killed before it. */
  superseded(): string[] {
    const whole = new Set<string>();
    for (const { name } of this.#objects) if (name.kind === 'segment') whole.add(name.segment);
    return this.#objects.filter(({ name }) => name.kind === 'piece' && whole.has(name.segment)).map(({ key }) => key);
  }
}
