import type { Clock } from '../../base/clock.ts';
import type { DrError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import type { KeyPolicy } from '../../vault/keys.ts';
import type { SealPool } from '../../vault/seal-pool.ts';
import type { ObjectStore } from '../../vault/store.ts';
import type { WalPosition } from './listing.ts';
import type { WalGap } from './session.ts';

export interface WalArchiverOptions {
  /** The database's name in the configuration. */
  readonly resource: string;
  readonly url: string;
  readonly slot: string;
  readonly flushEveryMs: number;
  /** When WAL is acknowledged to the server: durable in all vaults, or in any one. */
  readonly durable: 'all' | 'any';
  readonly stores: readonly ObjectStore[];
  readonly keyPolicy: KeyPolicy;
  readonly pool: SealPool;
  readonly compressionLevel: number;
  readonly site: string;
  readonly log: Log;
  readonly clock?: Clock;
  /** Bytes of WAL kept for vaults that lag behind; default 64 MiB, at least three blocks (48 MiB at 16 MiB). */
  readonly memoryBytes?: number;
  /** Bounds of the pause between tries, for vaults and server; default 0.5 s and 30 s. */
  readonly retryBaseMs?: number;
  readonly retryMaxMs?: number;
  /** How long the start waits for the other vaults after the first one has answered; default 3 s. */
  readonly startGraceMs?: number;
  /** How often missing WAL is looked for in other vaults; default 5 s. */
  readonly repairEveryMs?: number;
  /** How often the slot is looked at; default 15 s. */
  readonly slotEveryMs?: number;
  /** How long the only vault that answers waits for another to fill its hole before WAL is asked for again; default 60 s. */
  readonly rewindAfterMs?: number;
  /** Where the oldest kept backup needs WAL from, so that older WAL is not copied between vaults. */
  readonly oldestNeeded?: () => Promise<WalPosition | undefined>;
  /** The server lost WAL that was not archived: recovery cannot cross this gap, so a new base backup is needed at once. */
  readonly onGap?: (gap: WalGap) => void;
  /** The archiver has stopped for good (another history, another system): a person has to act. */
  readonly onFatal?: (error: DrError) => void;
}
