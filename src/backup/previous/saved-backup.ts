import type { Extent } from '../index-format.ts';
import type { Manifest } from '../manifest.ts';
import type { PreviousBackup, PreviousEntry } from './previous-backup.ts';
import { condemnedParts, wasteOf } from './rewrite-policy.ts';
import { hideUnusable, type SavedEntry, type StateReader } from './state-reader.ts';

/** The newest backup as the vaults and the local disk know it together. */
export class SavedBackup implements PreviousBackup {
  readonly manifest: Manifest;
  readonly isWhole: boolean;
  readonly #reader: StateReader;
  readonly #unusable: ReadonlySet<number>;

  /** `unusable`: positions of parts that some vault lacks. */
  constructor(reader: StateReader, manifest: Manifest, unusable: ReadonlySet<number>) {
    this.#reader = reader;
    this.manifest = manifest;
    this.#unusable = unusable;
    this.isWhole = unusable.size === 0;
  }

  get partBytes(): PreviousBackup['partBytes'] {
    return this.#reader.facts.partBytes.map(([raw, live]) => ({ raw, live }));
  }

  get waste(): number {
    return wasteOf(this.partBytes);
  }

  rewriting(partBytes: number): PreviousBackup {
    const usage = this.partBytes.map((part, i) => ({ ...part, size: this.manifest.parts[i]?.size ?? 0 }));
    const condemned = condemnedParts(usage, this.manifest.logicalBytes, partBytes);
    if (condemned.size === 0) return this;
    return new SavedBackup(this.#reader, this.manifest, new Set([...this.#unusable, ...condemned]));
  }

  lookup(path: Buffer): PreviousEntry | undefined {
    const saved = this.#reader.find(path);
    return saved && this.#entryOf(saved);
  }

  *files(): Generator<PreviousEntry> {
    for (const saved of this.#reader.all()) {
      const entry = this.#entryOf(saved);
      if (entry) yield entry;
    }
  }

  #entryOf(saved: SavedEntry): PreviousEntry | undefined {
    if (saved.entry.extents.some(({ part }) => part >= this.manifest.parts.length)) return undefined;
    const isUsable = ({ part }: Extent) => !this.#unusable.has(part);
    return {
      entry: saved.entry,
      stat: saved.stat,
      isWhole: this.isWhole || saved.entry.extents.every(isUsable),
      hasBlockDigests: saved.blocks > 0,
      blockDigests: (first, count) => this.#blockDigests(saved, first, count, isUsable),
    };
  }

  #blockDigests(saved: SavedEntry, first: number, count: number, isUsable: (extent: Extent) => boolean): Buffer {
    const digests = this.#reader.digests(saved, first, count);
    const { blockBytes } = saved.entry;
    if (blockBytes !== undefined) hideUnusable(digests, saved.entry, blockBytes, first, isUsable);
    return digests;
  }
}
