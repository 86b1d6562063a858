import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import type { OnProgress } from '../base/progress.ts';
import type { Cluster } from '../cluster/contract.ts';
import type { ClusterAccess } from '../config/types.ts';
import type { KeyPolicy, KeyRing } from '../vault/keys.ts';
import type { LostVault } from '../vault/mirror.ts';
import type { SealPool } from '../vault/seal-pool.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { Manifest } from './manifest.ts';

/** What every backup needs, whatever its resource. */
export interface BackupContext {
  /** All vaults, reachable or not. */
  readonly stores: readonly ObjectStore[];
  readonly keyPolicy: KeyPolicy;
  readonly pool: SealPool;
  /** The site whose system is backed up. */
  readonly site: string;
  /** `dr 0.1.0`. */
  readonly tool: string;
  readonly compressionLevel: number;
  readonly partBytes: number;
  /**
   * Folder for what is known of the newest backups on this machine, with which new ones are compared. Undefined: nothing is kept, and every
   * backup stores everything.
   */
  readonly scratch?: string | undefined;
  /** Everything is stored anew, whatever is known of earlier backups. */
  readonly full?: boolean;
  /** Nothing is done where a backup that was begun since then is there already; milliseconds since 1970. */
  readonly unlessTakenSinceMs?: number | undefined;
  /** Opens earlier backups, where an identity is at hand: their indexes then stand in for what is not known on this machine. */
  readonly keyRing?: KeyRing | undefined;
  /** Opens the cluster that objects are taken from; whoever opens it closes it. Undefined: there is none. */
  readonly openCluster?: ((access: ClusterAccess) => Promise<Cluster>) | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly onProgress?: OnProgress | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The outcome of one backup. */
export interface TakenBackup {
  readonly manifest: Manifest;
  /** Vaults that hold the whole backup. */
  readonly vaults: readonly string[];
  /** Vaults that lack it, and why. */
  readonly lost: readonly LostVault[];
  /** The newest backup already has this content, so none was made; `manifest` is that one. */
  readonly unchanged: boolean;
  /** It is not of this run: another one had taken it (`unlessTakenSinceMs`). */
  readonly takenBefore?: boolean;
}
