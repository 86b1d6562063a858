import type { DrError, ErrorKind } from '../../base/errors.ts';
import type { Finding } from '../../base/finding.ts';
import type { ObjectRef } from '../../cluster/contract.ts';
import { type FieldConflict, fieldConflicts } from '../../cluster/errors.ts';
import type { Hunk } from '../compare/text-diff.ts';

/**
 * What became of one object, or with `dryRun` would become of it. `applied`: done, and nobody knows whether it changed anything (it may
 * not be listed). `left`: not restored, on purpose. `not-tried`: the restore ended before it.
 */
export type Outcome = 'created' | 'changed' | 'unchanged' | 'applied' | 'left' | 'failed' | 'not-tried';

export interface ObjectFailure {
  readonly kind: ErrorKind;
  readonly message: string;
  readonly next: string | undefined;
  /** Whose fields it would have taken. */
  readonly conflicts: readonly FieldConflict[];
}

export interface ObjectResult {
  /** As it is called at the target. */
  readonly ref: ObjectRef;
  readonly outcome: Outcome;
  readonly note?: string | undefined;
  readonly error?: ObjectFailure | undefined;
  /** Of a dry run: why the server could not be asked about it. */
  readonly unasked?: string | undefined;
  /** Of a dry run: what would change, as YAML; of Secrets without their values. */
  readonly hunks?: readonly Hunk[] | undefined;
}

export interface ObjectsResult {
  /** In the order in which they were done. */
  readonly objects: readonly ObjectResult[];
  /** What a person should know before, or do after. */
  readonly findings: readonly Finding[];
  /** What is in the restored namespaces and not in the backup. It stays. */
  readonly extras: readonly ObjectRef[];
  /** Images that restored workloads name, sorted. */
  readonly images: readonly string[];
  /** Why it ended before all was tried. */
  readonly stopped?: DrError | undefined;
}

export function failureOf(error: DrError): ObjectFailure {
  return { kind: error.kind, message: error.message, next: error.next, conflicts: fieldConflicts(error) };
}

/** Of several failures, what decides: first what a person can mend with one hand and that hides others. */
const order: readonly ErrorKind[] = ['interrupted', 'unreachable', 'denied', 'not-found', 'conflict', 'refused'];

/** What the shell is told; undefined when everything is there. */
export function failureOfAll({ objects, stopped }: ObjectsResult): ErrorKind | undefined {
  const kinds = new Set(objects.flatMap(({ error }) => (error ? [error.kind] : [])));
  return stopped?.kind ?? order.find((kind) => kinds.has(kind)) ?? [...kinds][0];
}

export function countOutcomes(objects: readonly ObjectResult[]): Readonly<Record<Outcome, number>> {
  const counts = { created: 0, changed: 0, unchanged: 0, applied: 0, left: 0, failed: 0, 'not-tried': 0 };
  for (const { outcome } of objects) counts[outcome]++;
  return counts;
}
