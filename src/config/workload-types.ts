/** An object that is at several sites under one name. */
export interface SiteObjectConfig {
  /** Of the entry. */
  readonly entry: string;
  readonly namespace: string;
  readonly name: string;
  /** All of them have a cluster. */
  readonly sites: readonly string[];
}

/** A workload that runbooks stop and start. */
export interface WorkloadConfig extends SiteObjectConfig {
  readonly kind: 'Deployment' | 'StatefulSet' | 'DaemonSet' | 'CronJob';
  /** Copies where nothing else says how many. */
  readonly replicas: number | undefined;
  /** It is the server of this database; undefined = an application. */
  readonly database: string | undefined;
  /** The database is restored into its volume by a Job. */
  readonly restore: VolumeRestoreConfig | undefined;
}

/** The Job of dr that fills a volume; its objects lie in the namespace of the workload. */
export interface VolumeRestoreConfig {
  readonly image: string;
  /** ConfigMap with `dr.yaml`. */
  readonly config: string;
  /** Secret with `identity.txt`. */
  readonly identity: string | undefined;
  /** Secret of environment variables. */
  readonly environment: string | undefined;
  readonly serviceAccount: string | undefined;
}

/** A reconciler of Argo CD or Flux. */
export interface GitopsConfig extends SiteObjectConfig {
  readonly kind: 'Application' | 'Kustomization' | 'HelmRelease';
}
