import type { Cadence } from './types.ts';

/** The daemon: which replica works, where its work is done, when it looks after the vaults. */

export interface DaemonConfig {
  readonly leader: LeaderConfig;
  readonly listen: { readonly host: string; readonly port: number };
  readonly retentionSchedule: Cadence;
  /** False: somebody else runs `dr retention --apply`. */
  readonly applyRetention: boolean;
  readonly vaultCheck: VaultCheckConfig;
}

/** The scheduled look at what the vaults hold. Undefined: only by command. */
export interface VaultCheckConfig {
  readonly schedule: Cadence | undefined;
  /** When content is read as well. */
  readonly readData: Cadence | undefined;
  /** The share of the content that is read each time, above 0 and up to 1. */
  readonly sample: number;
  /** What is found is mended from the other vaults at once. */
  readonly repair: boolean;
}

/** `automatic`: by a Lease in a pod whose site names its cluster. `never`: this daemon is the only one of its site. */
export type LeaderConfig =
  | 'automatic'
  | 'never'
  | {
      /** Undefined = that of the pod. */
      readonly namespace: string | undefined;
      /** Undefined = `dr-` and the name of the site. */
      readonly name: string | undefined;
      readonly durationMs: number;
    };

/** Jobs of Kubernetes that do the work of the daemon. */
export interface ExecutorConfig {
  /** Undefined = that of the pod. */
  readonly namespace: string | undefined;
  /** Undefined = that of the daemon's own pod; so the service account. */
  readonly image: string | undefined;
  readonly serviceAccount: string | undefined;
  readonly requests: Readonly<Record<string, string>> | undefined;
  readonly limits: Readonly<Record<string, string>> | undefined;
  /** Most at once, of backups and of verifications. */
  readonly parallel: number;
  readonly ttlMs: number;
  readonly patienceMs: number;
  readonly nodeSelector: Readonly<Record<string, string>> | undefined;
  /** As Kubernetes has them. */
  readonly tolerations: readonly object[];
  readonly env: Readonly<Record<string, { readonly secret: string; readonly key: string }>>;
  readonly scratch: { readonly claim: string | undefined; readonly sizeLimit: string | undefined };
  /** By resource. */
  readonly volumes: Readonly<Record<string, VolumeConfig>>;
  readonly mounts: ReadonlyArray<{ readonly claim: string; readonly path: string; readonly readOnly: boolean }>;
}

/** The volume of a resource; Jobs mount it read-only at the path of the resource. */
export interface VolumeConfig {
  readonly claim: string;
  readonly subPath: string | undefined;
  /** A snapshot is read instead of the volume itself. */
  readonly snapshot: { readonly class: string | undefined; readonly storageClass: string | undefined } | undefined;
  readonly runAsUser: number | undefined;
  readonly runAsGroup: number | undefined;
}
