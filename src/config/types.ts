import type { DaemonConfig, ExecutorConfig } from './daemon-types.ts';
import type { ObjectsConfig } from './objects-types.ts';
import type { GitopsConfig, WorkloadConfig } from './workload-types.ts';

export type { DaemonConfig, VaultCheckConfig } from './daemon-types.ts';
export type { ObjectSelection, ObjectsConfig, ObjectsTarget } from './objects-types.ts';
export type { GitopsConfig, SiteObjectConfig, VolumeRestoreConfig, WorkloadConfig } from './workload-types.ts';

/** The validated configuration: every default filled in, every duration in milliseconds, every reference expanded. */
export interface Config {
  readonly version: 1;
  /** The file it came from (absolute), and its text before references were expanded (what the vaults keep). */
  readonly source: { readonly path: string; readonly text: string };
  readonly objectives: { readonly rtoMs: number; readonly rpoMs: number };
  readonly vaults: Readonly<Record<string, VaultConfig>>;
  readonly sites: Readonly<Record<string, SiteConfig>>;
  /** True = the file accepts in writing that all copies lie in one region. */
  readonly allowSingleRegion: boolean;
  /** The first active site; afterwards the record in the vaults says who is active. */
  readonly active: string;
  readonly encryption: 'none' | { readonly recipients: readonly string[]; readonly kms?: KmsConfig | undefined };
  readonly databases: Readonly<Record<string, DatabaseConfig>>;
  readonly data: Readonly<Record<string, DirectoryConfig>>;
  /** Folders of configuration. */
  readonly configuration: Readonly<Record<string, DirectoryConfig>>;
  /** Configuration that is taken from a cluster (`configuration.NAME.kubernetes`). Its names are none of `configuration`. */
  readonly objects: Readonly<Record<string, ObjectsConfig>>;
  readonly traffic: Readonly<Record<string, TrafficConfig>>;
  /** What runbooks stop and start in the clusters of the sites. */
  readonly workloads: Readonly<Record<string, WorkloadConfig>>;
  /** What would undo that, and is paused first. */
  readonly gitops: Readonly<Record<string, GitopsConfig>>;
  readonly verification: VerificationConfig;
  readonly validation: ValidationConfig;
  readonly daemon: DaemonConfig;
  /** Jobs of Kubernetes do backups and verifications; undefined = the daemon does them itself. */
  readonly executor: ExecutorConfig | undefined;
  readonly backup: BackupTuning;
  readonly postgresql: { readonly binaries: readonly string[] };
  /** Programs that runbooks may start, by name. */
  readonly commands: Readonly<Record<string, CommandConfig>>;
  /** Where runbooks send messages, by name. */
  readonly notifications: Readonly<Record<string, NotificationConfig>>;
  /** Directory for scratch restores and caches. */
  readonly scratch: string;
  /** Directory of one's own runbooks, beside those shipped with dr; undefined = there are none. */
  readonly runbooks: string | undefined;
}

export type VaultConfig = {
  readonly name: string;
  readonly region: string;
  readonly url: string;
  readonly endpoint: string | undefined;
  readonly forcePathStyle: boolean;
  /** Only for stores that need their own: otherwise the AWS credential chain. */
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
  readonly objectLock?: ObjectLockConfig | undefined;
};

/** S3 Object Lock: how long what is stored cannot be removed. */
export interface ObjectLockConfig {
  readonly mode: 'governance' | 'compliance';
  /** What belongs to a resource, milliseconds, by resource. */
  readonly byResource: Readonly<Record<string, number>>;
  /** Everything else. */
  readonly otherwiseMs: number;
}

/** A key of AWS KMS that wraps data keys. */
export interface KmsConfig {
  /** ARN. */
  readonly key: string;
  /** The region of the key first, then those of its replicas. */
  readonly regions: readonly string[];
  readonly endpoint: string | undefined;
  /** Undefined: the AWS credential chain. */
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
}

export interface SiteConfig {
  readonly name: string;
  readonly region: string;
  readonly vault: string;
  /** Its Kubernetes cluster; undefined = it has none that dr knows. */
  readonly cluster: ClusterAccess | undefined;
}

/** When something is done. `on-change` only for configuration. */
export type Cadence =
  | { readonly kind: 'every'; readonly everyMs: number; readonly text: string }
  | { readonly kind: 'cron'; readonly expression: string; readonly timeZone: string; readonly text: string }
  | { readonly kind: 'on-change'; readonly quietMs: number; readonly text: string };

export interface DatabaseConfig {
  readonly name: string;
  readonly url: string;
  readonly schedule: Cadence;
  readonly retentionMs: number;
  readonly keep: KeepRules;
  readonly rpoMs: number;
  readonly wal: {
    readonly enabled: boolean;
    readonly flushEveryMs: number;
    readonly slot: string;
    /** When WAL is acknowledged to the server: durable in all vaults (default) or in any one. */
    readonly durable: 'all' | 'any';
  };
  /** Where each other site brings it up. */
  readonly recover: Readonly<Record<string, DatabaseTarget>>;
}

/** What is kept beside everything that is younger than the retention. */
export interface KeepRules {
  /** Newest good backups. */
  readonly last: number;
  /** The newest good backup of each of so many of the last days, weeks, months, years that have one; undefined = none. */
  readonly daily: number | undefined;
  readonly weekly: number | undefined;
  readonly monthly: number | undefined;
  readonly yearly: number | undefined;
  /** Where a day begins at midnight. */
  readonly timeZone: string;
}

export interface DatabaseTarget {
  readonly dataDirectory: string;
  readonly port: number;
  readonly listen: string;
  /** How clients of that site connect; default: `url` with the target's host and port. */
  readonly url: string;
  /** Operating system user for the server when dr runs as root. */
  readonly user: string | undefined;
  readonly parameters: Readonly<Record<string, string>>;
}

export interface DirectoryConfig {
  readonly name: string;
  readonly kind: 'data' | 'configuration';
  readonly path: string;
  readonly schedule: Cadence;
  readonly retentionMs: number;
  readonly keep: KeepRules;
  /** Undefined = the cadence itself is the objective. */
  readonly rpoMs: number | undefined;
  readonly exclude: readonly string[];
  readonly allowEmpty: boolean;
  readonly recover: Readonly<Record<string, { readonly path: string }>>;
}

/** A name that clients use, and where it leads when a site is active. */
export interface TrafficConfig {
  readonly name: string;
  readonly driver: Route53Config | Rfc2136Config | HealthConfig | RouteConfig;
  /** By site. */
  readonly endpoints: Readonly<Record<string, string>>;
  /** Recursive resolvers to watch (`host` or `host:port`); default: those of this machine. */
  readonly resolvers: readonly string[] | undefined;
}

/** The record types that a redirect may change. */
export type RecordType = 'A' | 'AAAA' | 'CNAME';

export interface Route53Config {
  readonly kind: 'route53';
  readonly zone: string;
  readonly record: string;
  readonly type: RecordType;
  readonly ttlSeconds: number;
  /** `simple`: one record. `weighted`: one record a site, shifted by weight. `failover`: PRIMARY and SECONDARY, which change places. */
  readonly routing: 'simple' | 'weighted' | 'failover';
  /** Set identifier of the record of a site, by site, where it is not the site's name. */
  readonly setIdentifiers: Readonly<Record<string, string>>;
  readonly endpoint: string | undefined;
  /** Authoritative servers to ask (`host` or `host:port`); default: the zone's own. */
  readonly nameservers: readonly string[] | undefined;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
}

export interface Rfc2136Config {
  readonly kind: 'rfc2136';
  /** The primary server that takes updates: `host` or `host:port`. */
  readonly server: string;
  readonly zone: string;
  readonly record: string;
  readonly type: RecordType;
  readonly ttlSeconds: number;
  readonly key: {
    readonly name: string;
    readonly algorithm: 'hmac-sha256' | 'hmac-sha512';
    /** Base64, as `tsig-keygen` prints it. */
    readonly secret: string;
  };
  /** Authoritative servers to watch (`host` or `host:port`); default: those that the zone names (NS). */
  readonly nameservers: readonly string[] | undefined;
}

/** A document that pre-made health checks read: flipping it needs no DNS control plane. */
export interface HealthConfig {
  readonly kind: 'health';
  readonly record: string;
  readonly type: RecordType;
  /** The site of the PRIMARY record: it is answered while the switches say nothing else. */
  readonly primary: string;
  readonly switches: readonly SwitchConfig[];
  /** Authoritative servers to ask (`host` or `host:port`); default: found by the resolvers. */
  readonly nameservers: readonly string[] | undefined;
}

/** A route inside a cluster whose weights divide the traffic between backends. */
export interface RouteConfig {
  readonly kind: 'httpRoute' | 'virtualService';
  readonly cluster: ClusterAccess;
  readonly namespace: string;
  readonly name: string;
  /** Name of a rule, or its number in the list from 0 on; undefined = the only one. */
  readonly rule: string | undefined;
}

/** How to reach the API server of a cluster. */
export interface ClusterAccess {
  /** Path of the kubeconfig; undefined = KUBECONFIG, `~/.kube/config`, or the service account of the pod. */
  readonly kubeconfig: string | undefined;
  /** Undefined = the current context of the kubeconfig. */
  readonly context: string | undefined;
}

export interface SwitchConfig {
  /** `s3://bucket/key` or `file:///path`. */
  readonly url: string;
  readonly region: string | undefined;
  readonly endpoint: string | undefined;
  readonly forcePathStyle: boolean;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
}

export interface VerificationConfig {
  readonly schedule: Cadence | undefined;
  /** SQL by database: every statement must return one row whose first column is true (or a non-zero number). */
  readonly checks: Readonly<Record<string, readonly string[]>>;
}

/** What a runbook asks of the recovered system, by site. */
export interface ValidationConfig {
  readonly http: ReadonlyArray<{
    readonly site: string;
    readonly url: string;
    readonly status: number;
    readonly contains: string | undefined;
  }>;
  /** How long the stabilize stage wants healthy answers, milliseconds. */
  readonly stabilizeMs: number;
  readonly triggers: TriggerConfig;
}

/** What takes a gradual shift back by itself. */
export interface TriggerConfig {
  /** More than this share of bad answers within the window; a share is 0 to 1. */
  readonly errors: { readonly above: number; readonly overMs: number };
  /** 95 of 100 answers have to come within this time. */
  readonly p95: { readonly aboveMs: number; readonly overMs: number };
  readonly health: { readonly failures: number; readonly withinMs: number };
  /** Queries that measure real traffic instead of probes; each answers one number. */
  readonly prometheus:
    | { readonly url: string; readonly errors: string | undefined; readonly p95: string | undefined }
    | undefined;
}

/** A program that runbooks may start. */
export interface CommandConfig {
  readonly name: string;
  /** Absolute path of the program, and its arguments with `{name}` places. */
  readonly run: readonly [string, ...string[]];
  /** Says by exit code 0 that the effect is there already. */
  readonly check: readonly [string, ...string[]] | undefined;
  readonly repeatable: boolean;
  /** True = started in drills too. */
  readonly drill: boolean;
  readonly timeoutMs: number;
  readonly workingDirectory: string | undefined;
  readonly environment: Readonly<Record<string, string>>;
}

/** A service that takes messages. Its address or key is a secret. */
export type NotificationConfig =
  | { readonly kind: 'slack'; readonly url: string }
  | { readonly kind: 'pagerduty'; readonly url: string; readonly routingKey: string }
  | { readonly kind: 'webhook'; readonly url: string; readonly headers: Readonly<Record<string, string>> };

export interface BackupTuning {
  /** zstd level. */
  readonly compressionLevel: number;
  /** Bytes per stored part. */
  readonly partBytes: number;
  /** Frames worked on at once; default: the number of cores. */
  readonly workers: number;
  /** Newest good backups that are never deleted. */
  readonly keepAtLeast: number;
}
