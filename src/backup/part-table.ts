import { DrError } from '../base/errors.ts';
import type { Manifest, Part } from './manifest.ts';

/**
 * The parts that a backup names, in the order in which they were first used: its own and those of earlier backups. An index names a
 * part by its position here.
 */
export class PartTable {
  readonly #previous: Manifest['parts'];
  readonly #parts: Array<Part | undefined> = [];
  readonly #own: number[] = [];
  readonly #earlier = new Map<number, number>();
  readonly #isOwn: boolean[] = [];
  readonly #raw: number[] = [];
  readonly #live = new Map<number, number>();

  /** `previous`: parts of the backup that this one is compared with, and the raw bytes that each of them holds. */
  constructor(previous?: { readonly parts: Manifest['parts']; readonly raw: readonly number[] }) {
    this.#previous = previous?.parts ?? [];
    this.#previousRaw = previous?.raw ?? [];
  }

  readonly #previousRaw: readonly number[];

  /** A place for a part of this backup, which `fill` fills when it is stored; returns its number among the own ones. */
  open(): number {
    this.#own.push(this.#parts.push(undefined) - 1);
    this.#isOwn.push(true);
    this.#raw.push(0);
    return this.#own.length - 1;
  }

  fill(number: number, part: Part): void {
    this.#parts[this.position(number)] = part;
  }

  /** Counts raw bytes that were put into an own part. */
  addRaw(number: number, bytes: number): void {
    const position = this.position(number);
    this.#raw[position] = (this.#raw[position] ?? 0) + bytes;
  }

  /** Position of an own part. */
  position(number: number): number {
    const position = this.#own[number];
    if (position === undefined) throw new DrError('internal', `the backup has no part ${number}`);
    return position;
  }

  /** Position of the part that stands at `previous` in the list of the previous backup. */
  earlier(previous: number): number {
    const known = this.#earlier.get(previous);
    if (known !== undefined) return known;
    const part = this.#previous[previous];
    if (!part) throw new DrError('internal', `the previous backup has no part ${previous}`);
    const position = this.#parts.push(part) - 1;
    this.#isOwn.push(false);
    this.#raw.push(this.#previousRaw[previous] ?? 0);
    this.#earlier.set(previous, position);
    return position;
  }

  isOwn(position: number): boolean {
    return this.#isOwn[position] === true;
  }

  /** Counts bytes of the index that lie in the part at `position`. */
  addLive(position: number, bytes: number): void {
    this.#live.set(position, (this.#live.get(position) ?? 0) + bytes);
  }

  /** Raw bytes in each part, and those that the index names; by position. */
  get usage(): Array<{ raw: number; live: number }> {
    return this.#raw.map((raw, position) => ({ raw, live: this.#live.get(position) ?? 0 }));
  }

  /** All of them, once everything is stored. */
  get parts(): Part[] {
    return this.#parts.map((part) => {
      if (!part) throw new DrError('internal', 'a part of the backup was not stored');
      return part;
    });
  }

  get own(): Part[] {
    return this.parts.filter((_, position) => this.isOwn(position));
  }
}
