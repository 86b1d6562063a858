/** Objects of one Kubernetes cluster: what dr reads, watches and changes there, whoever serves them. */

/** What names a kind of objects: group and version together, as manifests write them (`apps/v1`, `v1`), and the kind. */
export interface TypeRef {
  readonly apiVersion: string;
  readonly kind: string;
}

/** One object. */
export interface ObjectRef extends TypeRef {
  /** Absent for kinds that live in no namespace. */
  readonly namespace?: string | undefined;
  readonly name: string;
}

/** A kind as the API server serves it. */
export interface ObjectType extends TypeRef {
  /** `apps`; empty for the core group. */
  readonly group: string;
  /** `v1`. */
  readonly version: string;
  /** Name in URLs and in RBAC rules: `deployments`. */
  readonly plural: string;
  readonly namespaced: boolean;
  /** What can be done with objects of it: `get`, `list`, `watch`, `patch` … */
  readonly verbs: readonly string[];
  /** `status`, `scale` … */
  readonly subresources: readonly string[];
}

/** Who set which fields (`metadata.managedFields`). */
export interface ManagedFields {
  readonly manager: string;
  readonly operation: 'Apply' | 'Update';
  /** `status` where the fields were written by a subresource. */
  readonly subresource?: string;
  /** ISO time of the last change of these fields. */
  readonly time?: string;
  /** `{"f:spec":{"f:replicas":{}}}`; absent where it was left out. */
  readonly fieldsV1?: unknown;
}

export interface OwnerReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  readonly controller?: boolean;
  readonly blockOwnerDeletion?: boolean;
}

export interface ObjectMeta {
  readonly name: string;
  readonly namespace?: string;
  readonly uid?: string;
  /** Changes with every change of the object; compared for equality only. */
  readonly resourceVersion?: string;
  /** Counts changes of what is wanted (`spec`), not of `status`. */
  readonly generation?: number;
  readonly creationTimestamp?: string;
  /** Set while the object waits for its finalizers. */
  readonly deletionTimestamp?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly finalizers?: readonly string[];
  readonly ownerReferences?: readonly OwnerReference[];
  readonly managedFields?: readonly ManagedFields[];
}

/** An object as JSON. Objects that drivers give out are shared: never change one. */
export interface ClusterObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: ObjectMeta;
  readonly [field: string]: unknown;
}

/** Which objects of a kind. */
export interface Selection {
  /** Only of this namespace; without it, of all. */
  readonly namespace?: string | undefined;
  /** Label selector: `app=orders,tier!=cache`. */
  readonly labels?: string | undefined;
  /** Field selector: `metadata.name=orders`. */
  readonly fields?: string | undefined;
}

export interface PageQuery extends Selection {
  /** Most objects in one page; default 500. */
  readonly limit?: number;
  /** Where the page before ended. */
  readonly continue?: string | undefined;
}

/** Part of a list; all pages of one list show the same moment. */
export interface ObjectPage {
  readonly objects: readonly ClusterObject[];
  /** The moment that the list shows: a watch goes on from here. */
  readonly resourceVersion: string;
  /** For the next page; absent in the last one. */
  readonly continue?: string;
}

export interface WatchQuery extends Selection {
  /** Changes after this moment. */
  readonly resourceVersion: string;
  /** When the server ends the watch by itself, seconds; default 120. */
  readonly timeoutSeconds?: number;
}

export type WatchEvent =
  | { readonly type: 'added' | 'modified' | 'deleted'; readonly object: ClusterObject }
  /** Nothing changed that matters; the watch has come as far as this moment. */
  | { readonly type: 'bookmark'; readonly resourceVersion: string };

export interface WriteOptions {
  /** Who writes, as `managedFields` shows it; default `dr`. */
  readonly manager?: string;
  /** The server checks everything and stores nothing. */
  readonly dryRun?: boolean;
}

export interface ApplyOptions extends WriteOptions {
  /** Take fields over from other managers instead of failing with their names. */
  readonly force?: boolean;
}

export interface DeleteOptions {
  /** What happens to objects that this one owns; default `Background`: they follow by themselves. */
  readonly propagation?: 'Background' | 'Foreground' | 'Orphan';
  readonly graceSeconds?: number;
  /** Delete only the object with this identity, not a later one of the same name. */
  readonly uid?: string | undefined;
  /** Delete only this version of the object. */
  readonly resourceVersion?: string | undefined;
  readonly dryRun?: boolean;
}

/** How many copies a workload wants and has. */
export interface Scale {
  /** Wanted. */
  readonly replicas: number;
  /** Running, ready or not. */
  readonly running: number;
  /** Changes with every change of the workload: what `setScale` can insist on. */
  readonly resourceVersion: string;
  /** Label selector of its pods. */
  readonly selector: string;
}

/** All kinds that the server has. */
export interface Discovery {
  /** Each kind once, in the version that its group prefers. */
  readonly types: readonly ObjectType[];
  /** Groups whose own server does not answer (`metrics.k8s.io/v1beta1`): their kinds are missing above. */
  readonly missing: readonly string[];
}

/** Which part of what a pod has written. */
export interface LogQuery {
  /** Default: its only container. */
  readonly container?: string;
  /** Only so many last lines. */
  readonly lines?: number;
  /** At most so many bytes. */
  readonly bytes?: number;
}

/** A question about rights. */
export interface Access extends TypeRef {
  readonly verb: 'get' | 'list' | 'watch' | 'create' | 'update' | 'patch' | 'delete';
  readonly subresource?: string;
  readonly namespace?: string | undefined;
  readonly name?: string | undefined;
}

export interface ClusterVersion {
  /** `v1.32.3`. */
  readonly git: string;
  readonly major: number;
  readonly minor: number;
}

/**
 * One cluster. Errors are `DrError`: `unreachable` (no answer, throttled, restarting; retryable), `denied` (a missing right, named with
 * the RBAC rule that gives it; a token that is not valid any more), `not-found` (the object, its namespace or its kind), `conflict` (the
 * object exists, is another version, or a field belongs to another manager: `fieldConflicts`), `refused` (the server calls the object
 * invalid, or dr will not send it), `interrupted`. A moment that the server no longer keeps is `isExpired`.
 */
export interface Cluster {
  readonly driver: 'kubernetes' | 'memory';
  /** For people: `cluster https://10.0.0.1:6443 (context east)`. */
  readonly target: string;
  version(signal?: AbortSignal): Promise<ClusterVersion>;
  discover(signal?: AbortSignal): Promise<Discovery>;
  /** How the server serves a kind, of any version that it has. Throws `not-found` where it has none. */
  type(type: TypeRef, signal?: AbortSignal): Promise<ObjectType>;
  list(type: TypeRef, query?: PageQuery, signal?: AbortSignal): Promise<ObjectPage>;
  /**
   * Changes as they happen, until the server ends the watch (it does, every few minutes), the signal aborts (`interrupted`) or the
   * connection is lost (`unreachable`). `follow` makes an endless one of it.
   */
  watch(type: TypeRef, query: WatchQuery, signal?: AbortSignal): AsyncIterable<WatchEvent>;
  get(ref: ObjectRef, signal?: AbortSignal): Promise<ClusterObject>;
  /** Makes a new object; `conflict` when there is one of this name. */
  create(object: ClusterObject, options?: WriteOptions, signal?: AbortSignal): Promise<ClusterObject>;
  /**
   * Makes the fields of `object` so, and takes away those that the same manager applied before and names no more
   * (server-side apply). With `metadata.resourceVersion`, only on that version.
   */
  apply(object: ClusterObject, options?: ApplyOptions, signal?: AbortSignal): Promise<ClusterObject>;
  /** Lays `change` over the object (JSON merge patch, RFC 7386: null removes). With `metadata.resourceVersion`, only on that version. */
  merge(
    ref: ObjectRef,
    change: Readonly<Record<string, unknown>>,
    options?: WriteOptions,
    signal?: AbortSignal,
  ): Promise<ClusterObject>;
  /** `gone` at once, or `leaving` while finalizers or running pods hold it. */
  delete(ref: ObjectRef, options?: DeleteOptions, signal?: AbortSignal): Promise<'gone' | 'leaving'>;
  scale(ref: ObjectRef, signal?: AbortSignal): Promise<Scale>;
  /** Sets how many copies a workload wants; with `replaces`, only while it wants what that says in that version. */
  setScale(
    ref: ObjectRef,
    replicas: number,
    options?: WriteOptions & { readonly replaces?: Scale },
    signal?: AbortSignal,
  ): Promise<Scale>;
  /** What a pod has written so far; `not-found` when the pod is gone, `refused` while its container has not begun. */
  log(
    pod: { readonly namespace: string; readonly name: string },
    query?: LogQuery,
    signal?: AbortSignal,
  ): Promise<string>;
  /** Whether the server would let dr do this, asked without doing it. */
  allows(access: Access, signal?: AbortSignal): Promise<boolean>;
  close(): void;
}

/** `dr` as `managedFields` shows it, unless a caller says otherwise. */
export const fieldManager = 'dr';

/** `apps/v1` in its parts; the core group is empty. */
export function splitApiVersion(apiVersion: string): { readonly group: string; readonly version: string } {
  const slash = apiVersion.indexOf('/');
  return slash < 0
    ? { group: '', version: apiVersion }
    : { group: apiVersion.slice(0, slash), version: apiVersion.slice(slash + 1) };
}

/** The object's own reference. */
export function refOf({ apiVersion, kind, metadata }: ClusterObject): ObjectRef {
  return { apiVersion, kind, name: metadata.name, ...(metadata.namespace && { namespace: metadata.namespace }) };
}

/** For people: `Deployment shop/orders`, `Namespace shop`. */
export function showRef({ kind, namespace, name }: ObjectRef): string {
  return `${kind} ${namespace === undefined ? '' : `${namespace}/`}${name}`;
}
