import { type Clock, systemClock } from '../../base/clock.ts';
import { DrError } from '../../base/errors.ts';
import type {
  Access,
  ApplyOptions,
  Cluster,
  ClusterObject,
  ClusterVersion,
  DeleteOptions,
  Discovery,
  LogQuery,
  ObjectPage,
  ObjectRef,
  ObjectType,
  PageQuery,
  Scale,
  TypeRef,
  WatchEvent,
  WatchQuery,
  WriteOptions,
} from '../contract.ts';
import { showRef } from '../contract.ts';
import { refusal, StatusError, unknownKind } from '../errors.ts';
import { readScale } from '../scale.ts';
import { EventQueue } from './event-queue.ts';
import { logOf } from './logs.ts';
import { MemoryObjects } from './objects.ts';
import { scaleOf } from './scaling.ts';
import { watchObjects } from './watching.ts';

export interface MemoryClusterOptions {
  /** Several drivers on one are several clients of one cluster. */
  readonly objects?: MemoryObjects;
  /** Rights; default: everything is allowed. */
  readonly allows?: (access: Access, type: ObjectType) => boolean;
  readonly clock?: Clock;
}

/** The contract in memory: for tests and simulations of what uses a cluster. */
export class MemoryCluster implements Cluster {
  readonly driver = 'memory';
  readonly target = 'cluster in memory';
  readonly objects: MemoryObjects;
  readonly #allows: (access: Access, type: ObjectType) => boolean;
  readonly #clock: Clock;
  readonly #closed = new AbortController();

  constructor({ objects, allows = () => true, clock = systemClock }: MemoryClusterOptions = {}) {
    this.objects = objects ?? new MemoryObjects(clock);
    this.#allows = allows;
    this.#clock = clock;
  }

  async version(signal?: AbortSignal): Promise<ClusterVersion> {
    this.#stopIfAborted(signal);
    return { git: 'v1.32.0', major: 1, minor: 32 };
  }

  async discover(signal?: AbortSignal): Promise<Discovery> {
    this.#stopIfAborted(signal);
    const seen = new Set<string>();
    const types = this.objects.types.filter(({ group, plural }) => {
      const isNew = !seen.has(`${group}/${plural}`);
      seen.add(`${group}/${plural}`);
      return isNew;
    });
    return { types, missing: [] };
  }

  async type(type: TypeRef, signal?: AbortSignal): Promise<ObjectType> {
    this.#stopIfAborted(signal);
    return this.#translate('get', type, `kind ${type.kind} of ${type.apiVersion}`, () => this.objects.typeOf(type));
  }

  async list(ref: TypeRef, query: PageQuery = {}, signal?: AbortSignal): Promise<ObjectPage> {
    return this.#ask('list', { ...ref, namespace: query.namespace }, `list of ${ref.kind}`, signal, (type) => {
      const { objects, resourceVersion, continue: next } = this.objects.list(type, { limit: 500, ...query });
      return { objects, resourceVersion, ...(next && { continue: next }) };
    });
  }

  async *watch(ref: TypeRef, query: WatchQuery, signal?: AbortSignal): AsyncGenerator<WatchEvent> {
    const queue = new EventQueue<WatchEvent>();
    const stop = this.#ask('watch', { ...ref, namespace: query.namespace }, `watch of ${ref.kind}`, signal, (type) =>
      watchObjects(this.objects, type, { ...query, from: Number(query.resourceVersion) }, (event) => queue.add(event)),
    );
    const over = new AbortController();
    const ends = AbortSignal.any([over.signal, this.#closed.signal, ...(signal ? [signal] : [])]);
    const end = () => queue.end();
    ends.addEventListener('abort', end, { once: true });
    const seconds = query.timeoutSeconds ?? 120;
    void this.#clock.sleep(seconds * 1000, ends, { unref: true }).then(end, end);
    try {
      for await (const event of queue) {
        this.#stopIfAborted(signal);
        yield event;
      }
      this.#stopIfAborted(signal);
    } finally {
      stop();
      over.abort();
    }
  }

  async get(ref: ObjectRef, signal?: AbortSignal): Promise<ClusterObject> {
    return this.#ask('get', ref, showRef(ref), signal, (type) => this.objects.get(type, ref.namespace, ref.name));
  }

  async create(object: ClusterObject, options: WriteOptions = {}, signal?: AbortSignal): Promise<ClusterObject> {
    const ref = this.#refOf(object);
    return this.#ask('create', ref, showRef(ref), signal, () =>
      this.objects.create(structuredClone(object), undefined, options),
    );
  }

  async apply(object: ClusterObject, options: ApplyOptions = {}, signal?: AbortSignal): Promise<ClusterObject> {
    const ref = this.#refOf(object);
    return this.#ask('patch', ref, showRef(ref), signal, () =>
      this.objects.apply(structuredClone(object), undefined, options),
    );
  }

  async merge(
    ref: ObjectRef,
    change: Readonly<Record<string, unknown>>,
    options: WriteOptions = {},
    signal?: AbortSignal,
  ): Promise<ClusterObject> {
    return this.#ask('patch', ref, showRef(ref), signal, (type) =>
      this.objects.merge(type, ref.namespace, ref.name, structuredClone(change), options),
    );
  }

  async delete(ref: ObjectRef, options: DeleteOptions = {}, signal?: AbortSignal): Promise<'gone' | 'leaving'> {
    return this.#ask('delete', ref, showRef(ref), signal, (type) =>
      this.objects.delete(type, ref.namespace, ref.name, options) === undefined ? 'gone' : 'leaving',
    );
  }

  async scale(ref: ObjectRef, signal?: AbortSignal): Promise<Scale> {
    return this.#ask('get', { ...ref, subresource: 'scale' }, `scale of ${showRef(ref)}`, signal, (type) =>
      readScale(scaleOf(type, this.objects.get(type, ref.namespace, ref.name))),
    );
  }

  async setScale(
    ref: ObjectRef,
    replicas: number,
    options: WriteOptions & { readonly replaces?: Scale } = {},
    signal?: AbortSignal,
  ): Promise<Scale> {
    const { replaces } = options;
    const change = { spec: { replicas }, ...(replaces && { metadata: { resourceVersion: replaces.resourceVersion } }) };
    return this.#ask('patch', { ...ref, subresource: 'scale' }, `scale of ${showRef(ref)}`, signal, (type) => {
      scaleOf(type, this.objects.get(type, ref.namespace, ref.name));
      const after = this.objects.merge(type, ref.namespace, ref.name, change, { ...options, subresource: 'scale' });
      return readScale(scaleOf(type, after));
    });
  }

  async log(
    { namespace, name }: { readonly namespace: string; readonly name: string },
    query: LogQuery = {},
    signal?: AbortSignal,
  ): Promise<string> {
    this.#stopIfAborted(signal);
    const ref = { apiVersion: 'v1', kind: 'Pod', namespace, name };
    return this.#translate('get', ref, `log of pod ${namespace}/${name}`, () => logOf(this.objects, ref, query));
  }

  async allows(access: Access, signal?: AbortSignal): Promise<boolean> {
    this.#stopIfAborted(signal);
    return this.#translate('get', access, access.kind, () => this.#allows(access, this.objects.typeOf(access)));
  }

  /** What a controller does: writes the status, past all other fields. */
  setStatus(ref: ObjectRef, status: Readonly<Record<string, unknown>>): ClusterObject {
    const options = { subresource: 'status', manager: 'controller' } as const;
    return this.objects.merge(this.objects.typeOf(ref), ref.namespace, ref.name, { status }, options);
  }

  close(): void {
    this.#closed.abort();
  }

  #refOf({ apiVersion, kind, metadata: { namespace, name } }: ClusterObject): ObjectRef {
    return { apiVersion, kind, namespace, name };
  }

  /** Does one request: rights first, as a server does. */
  #ask<T>(
    verb: Access['verb'],
    about: Omit<Access, 'verb'>,
    what: string,
    signal: AbortSignal | undefined,
    work: (type: ObjectType) => T,
  ): T {
    this.#stopIfAborted(signal);
    return this.#translate(verb, about, what, () => {
      const type = this.objects.typeOf(about);
      if (this.#allows({ ...about, verb }, type)) return work(type);
      const { namespace, subresource } = about;
      const resource = subresource === undefined ? type.plural : `${type.plural}/${subresource}`;
      const scope = namespace === undefined ? 'at the cluster scope' : `in the namespace "${namespace}"`;
      const message = `User "dr" cannot ${verb} resource "${resource}" in API group "${type.group}" ${scope}`;
      throw new StatusError({ code: 403, reason: 'Forbidden', message });
    });
  }

  #translate<T>(verb: Access['verb'], about: Omit<Access, 'verb'>, what: string, work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof StatusError)) throw error;
      const { namespace, name, subresource } = about;
      const type = this.objects.types.find((each) => each.apiVersion === about.apiVersion && each.kind === about.kind);
      if (type === undefined) throw unknownKind(about.kind, about.apiVersion, this.target);
      const resource = subresource === undefined ? type.plural : `${type.plural}/${subresource}`;
      const { group } = type;
      throw refusal(error.status, { verb, group, resource, namespace, name, what }, this.target);
    }
  }

  #stopIfAborted(signal: AbortSignal | undefined): void {
    if (signal?.aborted) {
      const cause = signal.reason;
      throw new DrError('interrupted', 'the work on the cluster was stopped', { where: this.target, cause });
    }
  }
}
