import { readManifest } from '../backup/catalog.ts';
import type { DatabaseRecoveryPoint } from '../backup/recover-database.ts';
import { walCoverage } from '../backup/wal/coverage.ts';
import { planRecovery } from '../backup/wal/plan.ts';
import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Config } from '../config/types.ts';
import type { KeyRing } from '../vault/keys.ts';
import type { SealPool } from '../vault/seal-pool.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { RecoveryTarget } from './ports.ts';
import { wanted } from './recovery-assess.ts';

export interface RecoveryParts {
  readonly config: Config;
  readonly stores: readonly ObjectStore[];
  readonly keyRing: KeyRing;
  readonly pool: SealPool;
  /** Directories of PATH, where PostgreSQL is looked for after the configured ones. */
  readonly searchPath: readonly string[];
  readonly log: Log;
}

/** The backup and the way from it to the target, as a run has chosen them before. */
export async function recoveryPointOf(
  stores: readonly ObjectStore[],
  chosen: {
    readonly resource: string;
    readonly vault: string;
    readonly backupId: string;
    readonly at: RecoveryTarget;
  },
  signal: AbortSignal,
): Promise<DatabaseRecoveryPoint> {
  const { resource, vault, backupId, at } = chosen;
  const store = stores.find(({ name }) => name === vault);
  if (store === undefined) {
    throw new DrError('unreachable', `vault ${vault}, from which ${resource} is recovered, cannot be opened`, {
      next: 'Make it reachable, or begin anew from another vault with --new.',
    });
  }
  const manifest = await readManifest(store, resource, backupId);
  const { database } = manifest;
  if (!database) throw new DrError('refused', `backup ${backupId} is not one of a database`, { where: store.location });
  const coverage = await walCoverage(store, database.systemId, { resource, signal });
  return { manifest, database, plan: planRecovery({ manifest, coverage, target: wanted(at) }) };
}
