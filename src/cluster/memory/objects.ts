import { randomUUID } from 'node:crypto';
import { type Clock, systemClock } from '../../base/clock.ts';
import type {
  ClusterObject,
  DeleteOptions,
  ObjectMeta,
  ObjectType,
  Selection,
  TypeRef,
  WriteOptions,
} from '../contract.ts';
import { fieldManager } from '../contract.ts';
import { StatusError } from '../errors.ts';
import { isJson, isSame, type Json, jsonText } from '../json.ts';
import { applied, conflictsOf, managedFields, mergePatch, type Owner, updated } from './fields.ts';
import { History } from './history.ts';
import { badRequest, checkedName, checkVersion, resource, stale, terminating } from './refusals.ts';
import { matcher } from './selectors.ts';
import { builtInTypes, typesOf } from './types.ts';

const definitions = 'apiextensions.k8s.io/customresourcedefinitions';

/** etcd takes no request above 1.5 MiB. */
const largestObject = 1.5 * 1024 * 1024;

interface Stored {
  readonly object: ClusterObject;
  readonly owners: readonly Owner[];
}

/** One write, checked and not yet stored. */
interface Draft {
  readonly type: ObjectType;
  readonly namespace: string | undefined;
  readonly name: string;
  readonly before: Stored | undefined;
  readonly after: Json;
  readonly owners: readonly Owner[];
}

/**
 * The objects of one cluster in memory, with the rules of an API server: versions, generations, owners of fields, finalizers,
 * namespaces, definitions. Refusals are `StatusError`s, as the server words them. Lists are owned as a whole, and kinds have no
 * schema: nothing is called invalid but names and sizes.
 */
export class MemoryObjects {
  readonly history = new History();
  /** What pods have written, by `namespace/name`; none for a pod whose container has not begun. */
  readonly logs = new Map<string, string>();
  readonly #clock: Clock;
  readonly #tables = new Map<string, Map<string, Stored>>();
  #defined: readonly ObjectType[] = [];

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
    for (const name of ['default', 'kube-system'])
      this.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } }, undefined, {
        manager: 'kube-apiserver',
      });
  }

  /** Every kind in every version, the preferred one of each group first. */
  get types(): readonly ObjectType[] {
    return [...builtInTypes, ...this.#defined];
  }

  typeOf({ apiVersion, kind }: TypeRef): ObjectType {
    const type = this.types.find((each) => each.apiVersion === apiVersion && each.kind === kind);
    if (type) return type;
    const message = `the server could not find the requested resource (${kind} of ${apiVersion})`;
    throw new StatusError({ code: 404, reason: 'NotFound', message });
  }

  list(type: ObjectType, query: Selection & { limit?: number | undefined; continue?: string | undefined }) {
    const matches = matcher(query);
    const all = query.continue
      ? this.history.rest(query.continue)
      : {
          revision: this.history.revision,
          rest: [...this.#table(type).entries()]
            .sort(([a], [b]) => (a < b ? -1 : 1))
            .map(([, { object }]) => object)
            .filter(matches),
        };
    const limit = query.limit || all.rest.length;
    const rest = all.rest.slice(limit);
    return {
      objects: all.rest.slice(0, limit).map((object) => inVersion(object, type)),
      resourceVersion: String(all.revision),
      ...(rest.length > 0 && { continue: this.history.keepRest(all.revision, rest), remaining: rest.length }),
    };
  }

  get(type: ObjectType, namespace: string | undefined, name: string): ClusterObject {
    return inVersion(this.#stored(type, namespace, name).object, type);
  }

  create(object: ClusterObject, namespace: string | undefined, options: WriteOptions = {}): ClusterObject {
    const type = this.typeOf(object);
    const name = checkedName(object.metadata.name, type);
    const place = this.#place(type, namespace ?? object.metadata.namespace, name);
    if (this.#table(type).has(place.key))
      throw new StatusError({
        code: 409,
        reason: 'AlreadyExists',
        message: `${resource(type)} "${name}" already exists`,
      });
    if (object.metadata.resourceVersion) throw badRequest('resourceVersion should not be set on objects to be created');
    const after = withoutStatus(object, undefined, type);
    const owners = updated(undefined, after, [], this.#by(options, 'Update'));
    return this.#write({ type, ...place, name, before: undefined, after, owners }, options);
  }

  apply(
    object: ClusterObject,
    namespace: string | undefined,
    options: WriteOptions & { force?: boolean } = {},
  ): ClusterObject {
    const type = this.typeOf(object);
    const name = checkedName(object.metadata.name, type);
    const place = this.#place(type, namespace ?? object.metadata.namespace, name);
    if (object.metadata.managedFields) throw badRequest('metadata.managedFields must be nil');
    const before = this.#table(type).get(place.key);
    const { resourceVersion } = object.metadata;
    if (before === undefined && resourceVersion) throw stale(type, name);
    checkVersion(before, resourceVersion, type, name);
    const live: Json = before?.object ?? { apiVersion: object.apiVersion, kind: object.kind, metadata: { name } };
    const wanted = withoutStatus(object, undefined, type);
    const by = this.#by(options, 'Apply');
    const conflicts = conflictsOf(live, wanted, before?.owners ?? [], by.manager);
    if (conflicts.length > 0 && !options.force) {
      const causes = conflicts.map(({ manager, field }) => ({
        reason: 'FieldManagerConflict',
        message: `conflict with "${manager}" using ${type.apiVersion}`,
        field,
      }));
      const message = `Apply failed with ${causes.length} conflict${causes.length > 1 ? 's' : ''}: ${causes.map((cause) => `${cause.message}: ${cause.field}`).join(', ')}`;
      throw new StatusError({ code: 409, reason: 'Conflict', message, details: { causes } });
    }
    const result = applied(live, wanted, before?.owners ?? [], by);
    return this.#write({ type, ...place, name, before, after: result.object, owners: result.owners }, options);
  }

  /** A merge patch; of the subresource `status`, only what it says about the status. */
  merge(
    type: ObjectType,
    namespace: string | undefined,
    name: string,
    change: Json,
    options: WriteOptions & { subresource?: 'status' | 'scale' } = {},
  ): ClusterObject {
    const before = this.#stored(type, namespace, name);
    const place = this.#place(type, namespace, name);
    const meta = isJson(change['metadata']) ? change['metadata'] : {};
    checkVersion(before, meta['resourceVersion'], type, name);
    if (meta['uid'] !== undefined && meta['uid'] !== before.object.metadata.uid) throw stale(type, name);
    if (meta['name'] !== undefined && meta['name'] !== name)
      throw badRequest('the name of the object does not match the name on the URL');
    const merged = mergePatch(before.object, change);
    const full = isJson(merged) ? merged : {};
    const isStatus = options.subresource === 'status';
    const after = isStatus ? { ...before.object, status: full['status'] } : withoutStatus(full, before.object, type);
    const by = { ...this.#by(options, 'Update'), ...(options.subresource && { subresource: options.subresource }) };
    return this.#write(
      { type, ...place, name, before, after, owners: updated(before.object, after, before.owners, by) },
      options,
    );
  }

  delete(
    type: ObjectType,
    namespace: string | undefined,
    name: string,
    options: DeleteOptions = {},
  ): ClusterObject | undefined {
    const before = this.#stored(type, namespace, name);
    const { metadata } = before.object;
    if (options.uid !== undefined && options.uid !== metadata.uid) throw stale(type, name);
    checkVersion(before, options.resourceVersion, type, name);
    const place = this.#place(type, namespace, name);
    const hasFinalizers = (metadata.finalizers ?? []).length > 0;
    if (options.dryRun) return hasFinalizers ? before.object : undefined;
    // What lies in a namespace, or is of a defined kind, goes first; what a finalizer holds there holds it too.
    const isContent = contentOf(before.object);
    if (isContent) this.#removeWhere(isContent);
    if (hasFinalizers || this.#isFull(before.object)) {
      if (metadata.deletionTimestamp) return before.object;
      const after = { ...before.object, metadata: { ...metadata, deletionTimestamp: this.#now() } };
      return this.#write({ type, ...place, name, before, after, owners: before.owners }, {});
    }
    this.history.revision++;
    this.#remove(type, place.key, before.object);
    if (options.propagation !== 'Orphan') this.#removeChildren(metadata.uid);
    return undefined;
  }

  /** Every object of the cluster. */
  all(): ClusterObject[] {
    return [...this.#tables.values()].flatMap((table) => [...table.values()].map(({ object }) => object));
  }

  tableOf({ group, plural }: ObjectType): string {
    return `${group}/${plural}`;
  }

  #write(draft: Draft, options: WriteOptions): ClusterObject {
    const { type, namespace, name, before, owners } = draft;
    const metadata = isJson(draft.after['metadata']) ? draft.after['metadata'] : {};
    const old = before?.object.metadata;
    const hasNewSpec = before !== undefined && !isSame(wantedOf(before.object), wantedOf(draft.after));
    const facts = {
      ...metadata,
      name,
      ...(namespace && { namespace }),
      uid: old?.uid ?? randomUUID(),
      creationTimestamp: old?.creationTimestamp ?? this.#now(),
      generation: (old?.generation ?? 1) + (hasNewSpec ? 1 : 0),
      resourceVersion: old?.resourceVersion ?? '',
      managedFields: managedFields(owners, type.apiVersion),
    };
    const after = { ...draft.after, apiVersion: before?.object.apiVersion ?? type.apiVersion, kind: type.kind };
    if (Buffer.byteLength(jsonText(after)) > largestObject)
      throw new StatusError({ code: 500, reason: 'InternalError', message: 'etcdserver: request is too large' });
    const whole = (meta: ObjectMeta): ClusterObject => ({ ...after, metadata: meta });
    // A write that changes nothing but the times of its owners is none.
    if (before && isSame(whole(unowned(facts)), { ...before.object, metadata: unowned(before.object.metadata) })) {
      const told = (list: readonly Owner[]) =>
        list.map(({ time: _time, ...owner }) => ({ ...owner, fields: [...owner.fields].sort() }));
      if (isSame(told(owners), told(before.owners))) return inVersion(before.object, type);
    }
    if (options.dryRun) return inVersion(whole(facts), type);
    const table = this.#table(type);
    const key = this.#place(type, namespace, name).key;
    this.history.revision++;
    const object = whole({ ...facts, resourceVersion: String(this.history.revision) });
    const finalizers = object.metadata.finalizers ?? [];
    if (object.metadata.deletionTimestamp && finalizers.length === 0 && !this.#isFull(object)) {
      this.#remove(type, key, object);
      return inVersion(object, type);
    }
    table.set(key, { object, owners });
    this.history.add({ table: this.tableOf(type), before: before?.object, after: object });
    if (type.kind === 'CustomResourceDefinition') this.#redefine();
    return inVersion(object, type);
  }

  #remove(type: ObjectType, key: string, object: ClusterObject): void {
    this.#table(type).delete(key);
    const last = { ...object, metadata: { ...object.metadata, resourceVersion: String(this.history.revision) } };
    this.history.add({ table: this.tableOf(type), before: last });
    if (type.kind === 'CustomResourceDefinition') this.#redefine();
    // The last one that was held lets go what waited for it.
    const containers = [...this.#tableNamed('/namespaces').values(), ...this.#tableNamed(definitions).values()];
    for (const { object: container } of containers) {
      const { deletionTimestamp, finalizers = [], namespace, name } = container.metadata;
      if (deletionTimestamp && finalizers.length === 0 && contentOf(container)?.(object))
        this.delete(this.typeOf(container), namespace, name);
    }
  }

  #isFull(object: ClusterObject): boolean {
    const isContent = contentOf(object);
    return isContent !== undefined && this.all().some(isContent);
  }

  #removeChildren(uid: string | undefined): void {
    this.#removeWhere(({ metadata }) => metadata.ownerReferences?.some((owner) => owner.uid === uid) === true);
  }

  #removeWhere(isGone: (object: ClusterObject) => boolean): void {
    for (const object of this.all().filter(isGone)) {
      const type = this.typeOf(object);
      const { namespace, name } = object.metadata;
      if (this.#table(type).has(this.#place(type, namespace, name, true).key)) this.delete(type, namespace, name);
    }
  }

  #redefine(): void {
    this.#defined = [...this.#tableNamed(definitions).values()].flatMap(({ object }) => typesOf(object));
  }

  #stored(type: ObjectType, namespace: string | undefined, name: string): Stored {
    const stored = this.#table(type).get(this.#place(type, namespace, name, true).key);
    if (stored) return stored;
    throw new StatusError({ code: 404, reason: 'NotFound', message: `${resource(type)} "${name}" not found` });
  }

  #place(type: ObjectType, namespace: string | undefined, name: string, forReading = false) {
    if (!type.namespaced) return { namespace: undefined, key: name };
    if (namespace === undefined) throw badRequest(`an empty namespace may not be set: ${type.kind} ${name}`);
    const home = this.#tableNamed('/namespaces').get(namespace)?.object;
    if (!forReading && home === undefined)
      throw new StatusError({ code: 404, reason: 'NotFound', message: `namespaces "${namespace}" not found` });
    const isNew = !this.#table(type).has(`${namespace}/${name}`);
    if (!forReading && isNew && home?.metadata.deletionTimestamp) throw terminating(namespace);
    return { namespace, key: `${namespace}/${name}` };
  }

  #table(type: ObjectType): Map<string, Stored> {
    return this.#tableNamed(this.tableOf(type));
  }

  #tableNamed(name: string): Map<string, Stored> {
    const table = this.#tables.get(name) ?? new Map<string, Stored>();
    this.#tables.set(name, table);
    return table;
  }

  #by({ manager = fieldManager }: WriteOptions, operation: Owner['operation']): Omit<Owner, 'fields'> {
    return { manager, operation, time: this.#now() };
  }

  #now(): string {
    return new Date(this.#clock.now()).toISOString().replace(/\.\d+Z$/, 'Z');
  }
}

/** Tells what goes with an object: with a namespace what lies in it, with a definition its objects. */
function contentOf(object: ClusterObject): ((other: ClusterObject) => boolean) | undefined {
  if (object.kind === 'Namespace') return ({ metadata }) => metadata.namespace === object.metadata.name;
  if (object.kind !== 'CustomResourceDefinition') return undefined;
  const types = typesOf(object);
  return (other) => types.some(({ apiVersion, kind }) => other.apiVersion === apiVersion && other.kind === kind);
}

/** What a change of which counts as a new generation: all but metadata and status. */
function wantedOf({ metadata: _metadata, status: _status, ...wanted }: Json): Json {
  return wanted;
}

function unowned({ managedFields: _fields, ...metadata }: ObjectMeta): ObjectMeta {
  return metadata;
}

/** Of kinds whose status is written apart, a write of the object keeps the status that is there. */
function withoutStatus(object: Json, before: Json | undefined, type: ObjectType): Json {
  if (!type.subresources.includes('status')) return object;
  const { status: _status, ...rest } = object;
  return before?.['status'] === undefined ? rest : { ...rest, status: before['status'] };
}

function inVersion(object: ClusterObject, { apiVersion }: ObjectType): ClusterObject {
  return object.apiVersion === apiVersion ? object : { ...object, apiVersion };
}
