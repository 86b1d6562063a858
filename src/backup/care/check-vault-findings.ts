import { DrError, isAbort, messageOf } from '../../base/errors.ts';
import type { OnProgress } from '../../base/progress.ts';
import type { Lsn } from '../../postgres/lsn.ts';
import type { ObjectStore } from '../../vault/store.ts';
import type { Opener } from './check-vault-open.ts';
import type { Content } from './expected-parts.ts';

/** What an object is to a vault; repair mends each in its own way. A hint is written anew by itself. */
export type ObjectClass = 'marker' | 'document' | 'manifest' | 'content' | 'key' | 'wal' | 'record' | 'lease' | 'hint';

/** One object of a vault that is not as it should be. */
export interface VaultProblem {
  /** `unlisted`: it is there, and the store's listings do not show it; only whoever runs the store can mend that. */
  readonly state: 'missing' | 'damaged' | 'unlisted';
  readonly kind: ObjectClass;
  /** Of WAL that is missing: the first segment of the hole. */
  readonly key: string;
  readonly why: string;
  /** Backups, recovery windows and records that need it, for people; at most `MOST_TOUCHED`, then how many more. */
  readonly touches: readonly string[];
  /** Of content: what its manifest says. */
  readonly content?: Content | undefined;
  /** Of a document beside a report: its digest, hexadecimal, as the report has it. */
  readonly sha256?: string | undefined;
  /** Of missing WAL: its lineage, and where the oldest base backup of it begins to need WAL. */
  readonly lineage?: { readonly systemId: string; readonly from: Lsn; readonly segmentBytes: number } | undefined;
}

/** Details kept of each sort; beyond that they are counted, so that an emptied vault of a million objects fits into memory. */
const MOST_PROBLEMS = 10_000;
const MOST_FOREIGN = 1000;
const MOST_TOUCHED = 20;

/** What is common to all parts of a check. */
export interface CheckContext {
  readonly store: ObjectStore;
  /** The other vaults, which may know of things that this one should have. */
  readonly others: readonly ObjectStore[];
  readonly nowMs: number;
  /** Objects of another vault that are younger may still be on their way here, milliseconds. */
  readonly settledMs: number;
  /** Whether the content of this object is read as well. */
  readonly reads: (key: string) => boolean;
  /** Opens what was read, where the keys are at hand; throws `corrupt`. */
  readonly opener?: Opener | undefined;
  readonly findings: Findings;
  readonly signal?: AbortSignal | undefined;
}

/** What there is to do, as far as it was counted before. */
export interface Extent {
  readonly objects: number;
  /** Bytes of content that will be read; 0 when only names and records are looked at. */
  readonly bytes: number;
}

/** Collects what a check finds, in bounded memory. */
export class Findings {
  readonly problems: VaultProblem[] = [];
  readonly foreign: string[] = [];
  readonly notes: string[] = [];
  /** Other vaults that did not answer. */
  readonly uncompared = new Set<string>();
  moreProblems = 0;
  moreForeign = 0;
  objects = 0;
  bytes = 0;
  readBytes = 0;
  orphans = { objects: 0, bytes: 0 };
  readonly #reported = new Set<string>();
  readonly #task: string;
  readonly #onProgress: OnProgress | undefined;
  readonly #extent: Extent;

  constructor(task: string, onProgress: OnProgress | undefined, extent: Extent = { objects: 0, bytes: 0 }) {
    this.#task = task;
    this.#onProgress = onProgress;
    this.#extent = extent;
  }

  /** An object was found in a listing. */
  listed(key: string, size: number): void {
    this.objects++;
    this.bytes += size;
    this.#tell(key);
  }

  /** Content was read and compared. */
  read(key: string, bytes: number): void {
    this.readBytes += bytes;
    this.#tell(key);
  }

  /** What is read takes the time; where nothing is, the objects do. */
  #tell(detail: string): void {
    if (!this.#onProgress) return;
    const { objects, bytes } = this.#extent;
    const what =
      bytes > 0
        ? ({ done: this.readBytes, total: Math.max(bytes, this.readBytes), unit: 'bytes' } as const)
        : ({
            done: this.objects,
            total: objects === 0 ? 0 : Math.max(objects, this.objects),
            unit: 'objects',
          } as const);
    this.#onProgress({ task: this.#task, ...what, detail });
  }

  /** True when further problems are only counted. */
  get isFull(): boolean {
    return this.problems.length >= MOST_PROBLEMS;
  }

  isReported(key: string): boolean {
    return this.#reported.has(key);
  }

  problem(problem: VaultProblem): void {
    if (this.isFull) {
      this.moreProblems++;
      return;
    }
    this.#reported.add(problem.key);
    this.problems.push({ ...problem, touches: shortened(problem.touches) });
  }

  /** Notes damage that an error tells about; anything but damage is thrown on. Newer formats are no damage. */
  damaged(kind: ObjectClass, key: string, error: unknown, touches: readonly string[]): void {
    if (!(error instanceof DrError) || isAbort(error)) throw error;
    if (error.kind === 'refused') this.notes.push(`${key} was not checked: ${messageOf(error)}`);
    else if (error.kind === 'corrupt') this.problem({ state: 'damaged', kind, key, why: messageOf(error), touches });
    else throw error;
  }

  stranger(key: string): void {
    if (this.foreign.length >= MOST_FOREIGN) this.moreForeign++;
    else this.foreign.push(key);
  }

  orphan(size: number): void {
    this.orphans.objects++;
    this.orphans.bytes += size;
  }
}

/** True for an object that retention, the archiver or another `dr` has removed since it was listed. */
export async function isGone(store: ObjectStore, key: string, error: unknown, signal?: AbortSignal): Promise<boolean> {
  if (!(error instanceof DrError)) return false;
  return error.kind === 'not-found' && (await store.stat(key, { signal })) === undefined;
}

/** Asks another vault; one that does not answer or holds something strange is left out, with a note. */
export async function compare(context: CheckContext, other: ObjectStore, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (context.signal?.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
    context.findings.uncompared.add(other.name);
    const note = `vault ${other.name} could not be compared: ${messageOf(error)}`;
    if (!context.findings.notes.includes(note)) context.findings.notes.push(note);
  }
}

function shortened(names: readonly string[]): readonly string[] {
  if (names.length <= MOST_TOUCHED) return names;
  return [...names.slice(0, MOST_TOUCHED), `${names.length - MOST_TOUCHED} more`];
}
