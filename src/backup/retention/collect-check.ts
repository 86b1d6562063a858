import { messageOf } from '../../base/errors.ts';
import type { ObjectStore } from '../../vault/store.ts';
import type { Verification } from '../verified.ts';
import type { SurveyedBackup } from './collect-survey.ts';

/** Longer than any backup or copy may run: nothing younger is ever taken for a leftover. */
export const GRACE_MS = 48 * 3_600_000;

/** Held by whoever deletes from a vault or copies old backups into it. */
export const RETENTION_LEASE = 'retention';

/** What decides whether an object of one vault is still needed there. */
export interface DeadCheck extends Needs {
  readonly store: ObjectStore;
  /** Every configured vault: what one has of WAL, another may get by copying. */
  readonly stores: readonly ObjectStore[];
  /** Verification reports that were read, by `resource/report`. */
  readonly reports: ReadonlyMap<string, Verification>;
  readonly nowMs: number;
  readonly graceMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** What retention has decided for one vault. */
export interface Needs {
  /** Backups whose needs are kept: those that the vault has and keeps, and those of other vaults that repair will bring. */
  readonly needed: readonly SurveyedBackup[];
  /** The backups that retention removes, by `resource/id`: their content is told from leftovers. */
  readonly expired: ReadonlyMap<string, SurveyedBackup>;
  /** Those of `needed`, by `resource/id`, that need only the WAL that makes them consistent: they lie beyond the window. */
  readonly alone: ReadonlySet<string>;
  /** How long WAL of a lineage without base backup is kept; undefined = for ever. */
  readonly walRetentionMs: number | undefined;
}

/** Objects that go together, for one reason. */
export interface DeadObjects {
  readonly what: 'content' | 'wal' | 'keys' | 'records';
  /** A resource and a backup (`orders 20261123T…`), a PostgreSQL system (`system 7301…`), a run, or a number of keys or reports. */
  readonly subject: string;
  readonly why: string;
  readonly keys: readonly string[];
  readonly bytes: number;
}

/** Objects that go (or have gone) for one reason. */
export interface Removal {
  readonly what: DeadObjects['what'] | 'manifest';
  readonly subject: string;
  readonly why: string;
  readonly objects: number;
  readonly bytes: number;
}

/** The removal of one manifest; its size, a few KiB, is not counted. */
export function manifestRemoval({ resource, id }: { readonly resource: string; readonly id: string }): Removal {
  return { what: 'manifest', subject: `${resource} ${id}`, why: 'it is beyond retention', objects: 1, bytes: 0 };
}

/** `locked`: objects that could not be removed; of the bytes as much is left out as of the objects. */
export function removalOf({ what, subject, why, keys, bytes }: DeadObjects, locked?: ReadonlySet<string>): Removal {
  const objects = locked ? keys.filter((key) => !locked.has(key)).length : keys.length;
  return {
    what,
    subject,
    why,
    objects,
    bytes: objects === keys.length ? bytes : Math.round((bytes * objects) / keys.length),
  };
}

/** True when an object and what it belongs to are both older than the grace period, each by its own clock. */
export function isPastGrace(check: DeadCheck, modifiedMs: number, madeMs: number | undefined): boolean {
  const limit = check.nowMs - check.graceMs;
  // A store that does not say when an object was written (0, NaN) has said nothing about its age.
  return modifiedMs > 0 && modifiedMs < limit && madeMs !== undefined && madeMs < limit;
}

/** For a note about something that could not be judged. */
export function notJudged(key: string, error: unknown): string {
  return `${key} is left alone: ${messageOf(error)}`;
}
