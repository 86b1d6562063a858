import type { RouteConfig } from '../config/types.ts';

/** What the drivers for routes need of a cluster; the cluster adapter is one, and whoever opens the drivers hands it in. */
export interface RouteCluster {
  /** For people: `cluster https://10.0.0.1:6443 (context east)`. */
  readonly target: string;
  /** `not-found` when there is none. */
  get(ref: RouteRef, signal?: AbortSignal): Promise<RouteObject>;
  /**
   * Lays `change` over the object (JSON merge patch); with `metadata.resourceVersion` only on that version, else `conflict`.
   * With `dryRun` the server checks everything and stores nothing.
   */
  merge(
    ref: RouteRef,
    change: Readonly<Record<string, unknown>>,
    options?: { readonly dryRun?: boolean },
    signal?: AbortSignal,
  ): Promise<RouteObject>;
  close(): void;
}

/** Opens the cluster that a route's configuration names. */
export type OpenRouteCluster = (access: RouteConfig['cluster']) => Promise<RouteCluster>;

export interface RouteRef {
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

/** A route as the API server gives it. */
export interface RouteObject {
  readonly metadata: {
    readonly namespace?: string;
    readonly resourceVersion?: string;
    /** Counts changes of `spec`: what a status has seen. */
    readonly generation?: number;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly managedFields?: ReadonlyArray<{
      readonly manager: string;
      readonly operation: 'Apply' | 'Update';
      readonly subresource?: string;
      readonly time?: string;
      readonly fieldsV1?: unknown;
    }>;
  };
  readonly [field: string]: unknown;
}

/** As `managedFields` of a change by dr shows it. */
export const ownManager = 'dr';

/** JSON as an object; empty for anything else. */
export function part(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {};
}

export function list(value: unknown): Readonly<Record<string, unknown>>[] {
  return Array.isArray(value) ? value.map(part) : [];
}
