import type { VaultCare } from '../care/care-record.ts';
import type { Manifest, ResourceKind } from '../manifest.ts';
import type { HoldInVaults } from '../retention/holds.ts';
import type { Verification } from '../verified.ts';

/** A configured resource and what is promised for it. Lengths of time in milliseconds. */
export interface WatchedResource {
  readonly name: string;
  readonly kind: ResourceKind;
  /** As it is written in the configuration: `every 6 hours`. */
  readonly schedule: string;
  /** The longest time between two scheduled backups; undefined for `on change`. */
  readonly intervalMs: number | undefined;
  /** Most that may be lost; undefined = the schedule itself is the promise. */
  readonly rpoMs: number | undefined;
  readonly retentionMs: number;
  /** A database whose WAL is archived. */
  readonly wal: boolean;
  /** The longest time between two verifications; undefined = not verified on schedule. */
  readonly verifyEveryMs: number | undefined;
  /** When the next backup is due; undefined for `on change`. */
  readonly nextRun: (nowMs: number) => number | undefined;
}

/** The longest times between two checks of a vault, milliseconds; undefined = not on schedule. */
export interface CheckIntervals {
  readonly checkEveryMs: number | undefined;
  /** Between two that read content. */
  readonly readEveryMs: number | undefined;
}

/** What has become of retention. */
export interface RetentionStatus {
  /** When it was last done in all vaults, milliseconds since 1970; undefined = never, as far as any vault knows. */
  readonly doneMs: number | undefined;
  /** It was not done for twice its interval. */
  readonly overdue: boolean;
  /** Why it did not get through the last time it was tried; undefined when it did. */
  readonly blocked: string | undefined;
}

/** `broken`: an objective is not met. `warning`: it is met, and something should be mended. */
export interface Alert {
  readonly level: 'broken' | 'warning';
  readonly resource?: string;
  readonly vault?: string;
  readonly message: string;
  readonly next?: string;
}

export interface VaultStatus {
  readonly vault: string;
  readonly region: string;
  readonly location: string;
  /** Why it could not be read; undefined = it answers. */
  readonly problem: string | undefined;
  /** True when it would be left if the region of the active site were lost. */
  readonly survives: boolean;
  /** Backups of the last 35 days (or of the retention, where that is shorter) that other vaults have and this one lacks. */
  readonly lacks: number;
  /** What its last check has found; undefined = no word of one. */
  readonly care: VaultCare | undefined;
}

/** The measured state of one resource. Moments in milliseconds since 1970. */
export interface ResourceStatus {
  readonly name: string;
  readonly kind: ResourceKind;
  readonly schedule: string;
  readonly ok: boolean;
  /** The newest moment that can be recovered from the vaults outside the region of the active site. */
  readonly recoveryPointMs: number | undefined;
  /** What would be lost if that region died now, milliseconds. */
  readonly rpoNowMs: number | undefined;
  /** Most that may be lost, milliseconds; undefined = no objective (a configuration that is backed up on change). */
  readonly objectiveMs: number | undefined;
  /** The newest backup over all vaults. */
  readonly newest:
    | {
        readonly id: string;
        readonly finishedAtMs: number;
        readonly logicalBytes: number;
        readonly storedBytes: number;
        /** What could not be read, and why: with any, it is degraded. */
        readonly losses: readonly string[];
      }
    | undefined;
  /** The newest backup, and WAL within the objective, lie in two regions. */
  readonly crossRegion: boolean;
  readonly verified: Verification | undefined;
  /** How old the newest backup may become before one was missed, milliseconds; undefined for `on change`. */
  readonly maxAgeMs: number | undefined;
  readonly nextRunMs: number | undefined;
  readonly vaults: readonly VaultPoint[];
}

export interface Status {
  /** False when an objective is broken. */
  readonly ok: boolean;
  readonly at: number;
  readonly active: {
    readonly site: string;
    readonly region: string | undefined;
    /** By a record in the vaults, not only by the configuration. */
    readonly recorded: boolean;
    readonly since?: string;
    readonly by?: string;
  };
  readonly vaults: readonly VaultStatus[];
  readonly resources: readonly ResourceStatus[];
  readonly holds: readonly HoldInVaults[];
  readonly retention: RetentionStatus;
  readonly alerts: readonly Alert[];
}

/** What one vault can bring back of one resource. Moments in milliseconds since 1970. */
export interface VaultPoint {
  readonly vault: string;
  /** Ids of its backups of the resource of the last 35 days (`RECENT_MS`), oldest first; of the time before, where there is none. */
  readonly recentIds: readonly string[];
  /** The newest backup that can be used. */
  readonly backup: Manifest | undefined;
  /** The newest moment that can be recovered from this vault alone. */
  readonly recoveryPointMs: number | undefined;
  /** Of a database: where its WAL ends without a hole. */
  readonly walEnd?: string;
  /** What is wrong: with the vault (nothing of it is known), or with something in it. */
  readonly problem?: { readonly kind: 'vault' | 'content'; readonly message: string };
}
