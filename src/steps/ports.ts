import { z } from 'zod';
import type { ObjectsResult } from '../backup/objects-restore/result.ts';
import type { OnProgress } from '../base/progress.ts';
import type { Cluster } from '../cluster/contract.ts';
import type { Config, SiteConfig, WorkloadConfig } from '../config/types.ts';
import type { TrafficDriver } from '../traffic/contract.ts';
import type { ObjectStore } from '../vault/store.ts';

/** What steps may touch. Built once by the command; tests put parts of their own in the same places. */
export interface World {
  readonly config: Config;
  /** The recovery site. */
  readonly site: SiteConfig;
  /** The site that was active when the run started. */
  readonly from: SiteConfig;
  /** All vaults that could be opened, the recovery site's first. */
  readonly vaults: readonly ObjectStore[];
  readonly recovery: RecoveryPort;
  readonly probes: ProbePort;
  readonly writers: WriterPort;
  /** The driver of a traffic entry. Throws `not-found` for a name that the configuration does not have. */
  traffic(name: string): TrafficDriver;
  /** The cluster of a site, opened with its first use. Throws `config` for a site that has none. */
  cluster(site: string): Promise<Cluster>;
}

/** Which moment to bring back. */
export const recoveryTargetSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('latest') }),
  /** Milliseconds since 1970. */
  z.object({ kind: z.literal('time'), atMs: z.number() }),
  /** Databases only; the other resources then take their newest backup. */
  z.object({ kind: z.literal('lsn'), lsn: z.string() }),
]);
export type RecoveryTarget = z.infer<typeof recoveryTargetSchema>;

export type ResourceKind = 'database' | 'data' | 'configuration';

/** The recovery point chosen for one resource: from here on the run sticks to this vault and backup. */
export const resourcePointSchema = z.object({
  resource: z.string(),
  kind: z.enum(['database', 'data', 'configuration']),
  vault: z.string(),
  backupId: z.string(),
  /** The moment that comes back, milliseconds since 1970 (for a database: as far as its archive reaches or the target). */
  recoveryPointMs: z.number(),
  /** Size as it will lie on disk. */
  bytes: z.number(),
  /** What each vault has to offer, for the report. */
  candidates: z.array(
    z.object({
      vault: z.string(),
      recoveryPointMs: z.number().optional(),
      /** Why this vault cannot be used for it. */
      problem: z.string().optional(),
    }),
  ),
});
export type ResourcePoint = z.infer<typeof resourcePointSchema>;

/** Where a database is brought up. Everything that a crash could forget is derived from the run and the configuration. */
export interface DatabasePlace {
  readonly name: string;
  readonly runId: string;
  readonly directory: string;
  /** True in a drill: reachable through a private socket only, never archived, never seen by anybody. */
  readonly isolated: boolean;
  /** The site whose `recover` entry gives port, address, user and settings when it is not isolated. */
  readonly site: string;
  /** The StatefulSet in whose volume the directory lies; undefined = on this machine. */
  readonly volume?: WorkloadConfig | undefined;
}

export const recoveredDatabaseSchema = z.object({
  where: z.string().describe('How it is reached, without password.'),
  replayedTo: z.string().describe('Last LSN that was replayed.'),
  timeline: z.number().describe('The timeline that it was recovered along.'),
  lastCommitAtMs: z
    .number()
    .optional()
    .describe('The newest commit that came back, milliseconds since 1970; missing when the WAL held none.'),
  recoveredToMs: z
    .number()
    .describe('Every commit up to this moment came back; an idle database is current although its last commit is old.'),
  bytes: z.number().describe('Base backup and WAL that were fetched.'),
});
export type RecoveredDatabase = z.infer<typeof recoveredDatabaseSchema>;

/** What lies at a database's place now. `foreign`: something that this run did not put there. */
export type DatabaseState =
  | { readonly state: 'empty' }
  | { readonly state: 'partial'; readonly runId: string | undefined }
  | { readonly state: 'recovered'; readonly runId: string; readonly recovered: RecoveredDatabase }
  | {
      readonly state: 'promoted';
      readonly runId: string;
      readonly recovered: RecoveredDatabase;
      readonly timeline: number;
    }
  | { readonly state: 'foreign'; readonly detail: string };

export interface DirectoryPlace {
  readonly name: string;
  readonly runId: string;
  readonly path: string;
}

/** Where a configuration of objects is brought up. */
export interface ObjectsPlace {
  readonly name: string;
  readonly site: string;
  readonly cluster: Cluster;
  /** Workloads that are new wait with 0 replicas. */
  readonly scaleToZero: boolean;
  /** The API server checks everything and stores nothing. */
  readonly dryRun: boolean;
}

export type DirectoryState =
  | { readonly state: 'empty' }
  | { readonly state: 'partial'; readonly runId: string | undefined }
  | { readonly state: 'complete'; readonly runId: string; readonly bytes: number; readonly entries: number }
  | { readonly state: 'foreign'; readonly detail: string };

export interface Finding {
  readonly ok: boolean;
  readonly what: string;
  readonly next?: string | undefined;
}

/** The archive's last sign of life, as one vault has it. */
export interface Heartbeat {
  readonly vault: string;
  readonly database: string;
  /** Site that wrote it. */
  readonly site: string;
  /** When it was written by the writer's clock, milliseconds since 1970. */
  readonly writtenAtMs: number;
  /** How often it is written while all is well, milliseconds. */
  readonly everyMs: number;
  /** Durable end of the archive. */
  readonly lsn: string;
}

/**
 * What runbooks need of `backup/`: find, restore, promote, check. Every method can be called again after a crash: what it finds at
 * a place is told apart by the run id that it leaves there. Errors are `DrError`.
 */
export interface RecoveryPort {
  /** The best recovery point over all vaults that is not after `at`; `not-found` (with the recoverable range) when there is none. */
  assess(
    resource: { name: string; kind: ResourceKind },
    at: RecoveryTarget,
    signal: AbortSignal,
  ): Promise<ResourcePoint>;
  /** The newest heartbeat of a database in each vault that has one and answers. */
  heartbeats(database: string, signal: AbortSignal): Promise<readonly Heartbeat[]>;
  /** Looks whether this machine can bring the database up: programs of the right major version, user, port. */
  preflight(place: DatabasePlace, point: ResourcePoint, signal: AbortSignal): Promise<readonly Finding[]>;

  databaseState(place: DatabasePlace, signal: AbortSignal): Promise<DatabaseState>;
  /** Restores and replays to the target, and leaves a running, consistent, read-only server. A partial one is begun anew. */
  restoreDatabase(
    place: DatabasePlace,
    point: ResourcePoint,
    at: RecoveryTarget,
    onProgress: OnProgress,
    signal: AbortSignal,
  ): Promise<RecoveredDatabase>;
  /** SQL checks and page checks; one entry per check. Works on a read-only server. */
  checkDatabase(
    place: DatabasePlace,
    sql: readonly string[],
    signal: AbortSignal,
  ): Promise<
    ReadonlyArray<{ readonly ok: boolean; readonly what: string; readonly detail: string; readonly ms: number }>
  >;
  /** The first row that each statement returns from a recovered database, as text. */
  askDatabase(place: DatabasePlace, sql: readonly string[], signal: AbortSignal): Promise<readonly string[]>;
  /** Makes it the writable primary of a new timeline. Promoting a promoted one is a success. */
  promoteDatabase(place: DatabasePlace, signal: AbortSignal): Promise<{ readonly timeline: number }>;
  /** How far the archive that a point is recovered from reaches now; undefined when it holds no WAL of that system. */
  archivedTo(
    point: ResourcePoint,
    signal: AbortSignal,
  ): Promise<{ readonly timeline: number; readonly lsn: string } | undefined>;
  /** Replays what has been archived since `restoreDatabase` or the last call; the server stays read-only. */
  catchUp(place: DatabasePlace, onProgress: OnProgress, signal: AbortSignal): Promise<RecoveredDatabase>;
  /** Lets the applications of a promoted database in again that a planned move locked out of the original. The roles. */
  openDatabase(place: DatabasePlace, signal: AbortSignal): Promise<readonly string[]>;
  /** Creates a physical replication slot at a promoted database, unless it is there; from where on the server keeps WAL. */
  reserveWal(
    place: DatabasePlace,
    slot: string,
    signal: AbortSignal,
  ): Promise<{ readonly created: boolean; readonly from: string }>;
  /**
   * Puts aside what a site held when it was active: stops a server there that this machine can stop, and renames the directory. The new
   * name; undefined when nothing was there. What this run put there stays.
   */
  vacate(place: { readonly path: string; readonly runId: string }, signal: AbortSignal): Promise<string | undefined>;
  /** Stops and removes an isolated database; refuses any other. */
  discardDatabase(place: DatabasePlace, signal: AbortSignal): Promise<void>;

  directoryState(place: DirectoryPlace, signal: AbortSignal): Promise<DirectoryState>;
  restoreDirectory(
    place: DirectoryPlace,
    point: ResourcePoint,
    onProgress: OnProgress,
    signal: AbortSignal,
  ): Promise<{ readonly bytes: number; readonly entries: number; readonly warnings: readonly string[] }>;
  /** Removes what this run restored in a drill; refuses what it did not put there. */
  discardDirectory(place: DirectoryPlace, signal: AbortSignal): Promise<void>;
  /** Applies the objects of a backup to a cluster; repeating it changes nothing that is as it should be. */
  restoreObjects(
    place: ObjectsPlace,
    point: ResourcePoint,
    onProgress: OnProgress,
    signal: AbortSignal,
  ): Promise<ObjectsResult & { readonly bytes: number }>;
}

/** How an address answered a connection. `refused`: the machine lives, nothing listens. `silent`: no answer in time. */
export interface ReachProbe {
  readonly reach: 'connected' | 'refused' | 'silent';
  readonly detail: string;
}

export interface HttpProbe {
  /** Undefined when there was no HTTP answer. */
  readonly status: number | undefined;
  /** The first 64 KiB. */
  readonly body: string;
  readonly ms: number;
  readonly detail: string;
}

/** What a database server says about itself, as seen from here. */
export interface DatabaseProbe extends ReachProbe {
  /** True when a session could be opened. */
  readonly session: boolean;
  /** A standby: nothing can write there. */
  readonly inRecovery?: boolean;
}

/** Eyes of the runbook: looks at things from outside, each look bounded to a few seconds. Never throws except when aborted. */
export interface ProbePort {
  tcp(host: string, port: number, signal: AbortSignal): Promise<ReachProbe>;
  http(url: string, signal: AbortSignal): Promise<HttpProbe>;
  database(url: string, signal: AbortSignal): Promise<DatabaseProbe>;
  /**
   * Tries a write that leaves nothing behind (a temporary table in a transaction that is rolled back).
   * `proof` only when the server itself says that it is read-only (SQLSTATE 25006).
   */
  refusesWrites(url: string, signal: AbortSignal): Promise<{ readonly proof: boolean; readonly detail: string }>;
  /** Statements that must return one row whose first column is true or a number other than 0; in a read-only transaction. */
  asks(
    url: string,
    sql: readonly string[],
    signal: AbortSignal,
  ): Promise<ReadonlyArray<{ readonly sql: string; readonly ok: boolean; readonly detail: string }>>;
  /** The first rows that statements return, as text, in a read-only transaction; undefined when nothing answers. */
  answers(url: string, sql: readonly string[], signal: AbortSignal): Promise<readonly string[] | undefined>;
}

/** What a planned move did to the old primary. */
export interface QuietServer {
  /** Everything that was ever committed lies before this LSN. */
  readonly flushedTo: string;
  /** As long as it stays, nothing has been written. */
  readonly nextXid: string;
}

/** Hands on a living primary, for planned moves. Errors are `DrError`. */
export interface WriterPort {
  /** What this role lacks for it; empty = nothing. */
  missingRights(url: string, signal: AbortSignal): Promise<readonly string[]>;
  /** Ends all writers and lets none in again; repeatable. */
  quiesce(
    url: string,
    runId: string,
    signal: AbortSignal,
  ): Promise<
    QuietServer & {
      readonly locked: readonly string[];
      readonly superusers: readonly string[];
      readonly workers: readonly string[];
      readonly endedSessions: number;
    }
  >;
  /** Looks whether it still is quiet; `loud` says in words why not. */
  look(
    url: string,
    signal: AbortSignal,
  ): Promise<QuietServer & { readonly loud: readonly string[]; readonly refusal: string }>;
  /** Takes it back; repeatable. The roles that may log in again. */
  reopen(url: string, signal: AbortSignal): Promise<readonly string[]>;
}
