import { createHash } from 'node:crypto';
import { DrError, isAbort, messageOf } from '../../base/errors.ts';
import type { OnProgress } from '../../base/progress.ts';
import type { Lsn } from '../../postgres/lsn.ts';
import type { ObjectStore } from '../../vault/store.ts';

/** What an object is to a vault; repair mends each in its own way. A hint is written anew by itself. */
export type ObjectClass = 'marker' | 'document' | 'manifest' | 'content' | 'key' | 'wal' | 'record' | 'lease' | 'hint';

/** One object of a vault that is not as it should be. */
export interface VaultProblem {
  readonly state: 'missing' | 'damaged';
  readonly kind: ObjectClass;
  /** Of WAL that is missing: the first segment of the hole. */
  readonly key: string;
  readonly why: string;
  /** Backups, recovery windows and records that need it, for people; at most `MOST_TOUCHED`, then how many more. */
  readonly touches: readonly string[];
  /** Of content: what its manifest says. */
  readonly content?: { readonly size: number; readonly sha256: string } | undefined;
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
  readonly findings: Findings;
  readonly signal?: AbortSignal | undefined;
}

/** Collects what a check finds, in bounded memory. */
export class Findings {
  readonly problems: VaultProblem[] = [];
  readonly foreign: string[] = [];
  readonly notes: string[] = [];
  moreProblems = 0;
  moreForeign = 0;
  objects = 0;
  bytes = 0;
  readBytes = 0;
  orphans = { objects: 0, bytes: 0 };
  readonly #task: string;
  readonly #onProgress: OnProgress | undefined;

  constructor(task: string, onProgress: OnProgress | undefined) {
    this.#task = task;
    this.#onProgress = onProgress;
  }

  /** An object was found in a listing. */
  listed(key: string, size: number): void {
    this.objects++;
    this.bytes += size;
    this.#onProgress?.({ task: this.#task, done: this.objects, total: 0, unit: 'objects', detail: key });
  }

  problem(problem: VaultProblem): void {
    if (this.problems.length >= MOST_PROBLEMS) this.moreProblems++;
    else this.problems.push({ ...problem, touches: shortened(problem.touches) });
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
    const note = `vault ${other.name} could not be compared: ${messageOf(error)}`;
    if (!context.findings.notes.includes(note)) context.findings.notes.push(note);
  }
}

/** Chooses a share of all keys, always the same ones for one seed. */
export function sampler(share: number, seed: string): (key: string) => boolean {
  if (share >= 1) return () => true;
  return (key) => createHash('sha256').update(`${seed}\0${key}`).digest().readUInt32BE(0) < share * 2 ** 32;
}

function shortened(names: readonly string[]): readonly string[] {
  if (names.length <= MOST_TOUCHED) return names;
  return [...names.slice(0, MOST_TOUCHED), `${names.length - MOST_TOUCHED} more`];
}
