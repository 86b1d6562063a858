import type { Cadence, KeepRules } from './types.ts';

/** Configuration that lies in a Kubernetes cluster as objects. */
export interface ObjectsConfig {
  readonly name: string;
  readonly kind: 'configuration';
  readonly select: ObjectSelection;
  readonly schedule: Cadence;
  readonly retentionMs: number;
  readonly keep: KeepRules;
  /** Undefined = the cadence itself is the objective. */
  readonly rpoMs: number | undefined;
  /** Globs on the files of the backup: `namespaces/shop/core/ConfigMap/*-lock.yaml`. */
  readonly exclude: readonly string[];
  readonly allowEmpty: boolean;
  /** How each other site brings it up, by site. */
  readonly recover: Readonly<Record<string, ObjectsTarget>>;
}

/** Which objects of a cluster. */
export interface ObjectSelection {
  /** By name; undefined = by `selector`. */
  readonly namespaces: readonly string[] | undefined;
  /** Label selector of namespaces. */
  readonly selector: string | undefined;
  /** Objects that lie in no namespace too. */
  readonly clusterObjects: boolean;
  /** Kinds as kubectl names them: `deployments.apps`, `configmaps`, `*.cert-manager.io`; no `include` = all. */
  readonly kinds: { readonly include: readonly string[]; readonly exclude: readonly string[] };
  readonly secrets: boolean;
}

/** How objects are brought up in the cluster of another site. */
export interface ObjectsTarget {
  /** Name there of namespaces that are called otherwise. */
  readonly namespaces: Readonly<Record<string, string>>;
  /** Workloads begin with 0 replicas. */
  readonly scaleToZero: boolean;
}
