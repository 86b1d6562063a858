import type { Status } from '../backup/status/model.ts';
import type { WalArchiverStatus } from '../backup/wal/status.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { ClusterJobCounts } from './executor.ts';
import type { JobState } from './job.ts';
import type { LeaderState } from './leader.ts';
import type { RoleState } from './role.ts';
import type { ServiceState } from './service.ts';
import type { VaultState } from './vault-watch.ts';

/** What the metrics are made of, as it is at the moment of a scrape. */
export interface MetricsView {
  readonly nowMs: number;
  readonly role: RoleState;
  /** Undefined: there is only one replica. */
  readonly leader?: LeaderState | undefined;
  /** Jobs of the cluster that this replica has seen end since its start; undefined: work is done in this process. */
  readonly clusterJobs?: ClusterJobCounts | undefined;
  readonly rtoMs: number;
  readonly stores: readonly ObjectStore[];
  readonly vaults: readonly VaultState[];
  readonly status: Status | undefined;
  readonly jobs: readonly JobState[];
  readonly services: readonly ServiceState[];
  /** Clusters that are watched for changes of configuration. */
  readonly watching?: readonly Watching[];
  readonly archivers: ReadonlyArray<{ readonly resource: string; readonly status: WalArchiverStatus | undefined }>;
}

/** What is watched of the cluster of a configuration. */
export interface Watching {
  readonly resource: string;
  readonly kinds: number;
  readonly objects: number;
  /** Kinds that cannot be watched now, and why. */
  readonly troubles: readonly string[];
}

/** One line of a metric; without a value it is left out. */
export type Sample = readonly [labels: Record<string, string>, value: number | undefined];

/** Defines a metric by what it reads from the daemon. */
export type Define = (
  name: string,
  help: string,
  labelNames: readonly string[],
  read: (view: MetricsView) => Sample[],
) => unknown;

/** As Prometheus counts time. */
export function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / 1000;
}
