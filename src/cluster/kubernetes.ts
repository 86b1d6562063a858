import { DrError } from '../base/errors.ts';
import { type Call, Connection, type ConnectionOptions, defaultWatchIdleMs } from './connection.ts';
import type {
  Access,
  ApplyOptions,
  Cluster,
  ClusterObject,
  ClusterVersion,
  DeleteOptions,
  Discovery,
  LogQuery,
  ObjectMeta,
  ObjectPage,
  ObjectRef,
  ObjectType,
  PageQuery,
  Scale,
  Selection,
  TypeRef,
  WatchEvent,
  WatchQuery,
  WriteOptions,
} from './contract.ts';
import { fieldManager, refOf, showRef } from './contract.ts';
import { noAnswer, type Request } from './errors.ts';
import { isJson, type Json } from './json.ts';
import { Kinds } from './kinds.ts';
import { readScale } from './scale.ts';
import type { ClusterSettings } from './settings.ts';
import { readEvent } from './watch-event.ts';

const mergeType = 'application/merge-patch+json';
const applyType = 'application/apply-patch+yaml';

/** A cluster by its API server. */
export class KubernetesCluster implements Cluster {
  readonly driver = 'kubernetes';
  readonly target: string;
  readonly #connection: Connection;
  readonly #kinds: Kinds;
  readonly #watchSeconds: number;

  constructor(settings: ClusterSettings, options: ConnectionOptions) {
    // Bookmarks prove nothing: a server sends none for a kind in which nothing has happened since it started. It does end a watch in time.
    this.#watchSeconds = ((options.watchIdleMs ?? defaultWatchIdleMs) * 0.8) / 1000;
    this.#connection = new Connection(settings, options);
    this.target = this.#connection.target;
    this.#kinds = new Kinds(this.#connection);
  }

  async version(signal?: AbortSignal): Promise<ClusterVersion> {
    const request = { verb: 'get', group: '', resource: '', what: 'version of the server' };
    const answer = await this.#connection.json({ method: 'GET', path: '/version', request }, signal);
    const { gitVersion, major, minor } = isJson(answer) ? answer : {};
    // Some providers write `32+`.
    return {
      git: String(gitVersion),
      major: Number.parseInt(String(major), 10),
      minor: Number.parseInt(String(minor), 10),
    };
  }

  async discover(signal?: AbortSignal): Promise<Discovery> {
    return await this.#kinds.discover(signal);
  }

  async type(ref: TypeRef, signal?: AbortSignal): Promise<ObjectType> {
    return await this.#kinds.type(ref, signal);
  }

  async list(ref: TypeRef, query: PageQuery = {}, signal?: AbortSignal): Promise<ObjectPage> {
    const type = await this.#kinds.type(ref, signal);
    const answer = await this.#connection.json(
      {
        method: 'GET',
        path: collectionOf(type, query.namespace),
        query: { ...selection(query), limit: query.limit ?? 500, continue: query.continue },
        request: this.#request('list', type, { namespace: query.namespace }, `list of ${type.kind}`),
      },
      signal,
    );
    const { items, metadata } = isJson(answer) ? answer : {};
    const { resourceVersion, continue: next } = isJson(metadata) ? metadata : {};
    const objects = (Array.isArray(items) ? items : []).map((item) => this.#object(item, type));
    return { objects, resourceVersion: String(resourceVersion), ...(next ? { continue: String(next) } : {}) };
  }

  async *watch(ref: TypeRef, query: WatchQuery, signal?: AbortSignal): AsyncGenerator<WatchEvent> {
    const type = await this.#kinds.type(ref, signal);
    const { resourceVersion, timeoutSeconds = this.#watchSeconds } = query;
    const request = this.#request('watch', type, { namespace: query.namespace }, `watch of ${type.kind}`);
    const call: Call = {
      method: 'GET',
      path: collectionOf(type, query.namespace),
      query: { ...selection(query), watch: true, allowWatchBookmarks: true, resourceVersion, timeoutSeconds },
      request,
    };
    for await (const line of this.#connection.lines(call, signal)) {
      const event = readEvent(line, request, this.target);
      if (event !== undefined) yield event;
    }
  }

  async get(ref: ObjectRef, signal?: AbortSignal): Promise<ClusterObject> {
    return await this.#one('get', ref, { method: 'GET' }, signal);
  }

  async create(object: ClusterObject, options: WriteOptions = {}, signal?: AbortSignal): Promise<ClusterObject> {
    const ref = refOf(object);
    const type = await this.#kinds.type(ref, signal);
    const answer = await this.#connection.json(
      {
        method: 'POST',
        path: collectionOf(type, needed(type, ref).namespace),
        query: writing(options),
        body: object,
        request: this.#request('create', type, ref, showRef(ref)),
      },
      signal,
    );
    return this.#object(answer, type);
  }

  async apply(object: ClusterObject, options: ApplyOptions = {}, signal?: AbortSignal): Promise<ClusterObject> {
    const query = { ...writing(options), force: options.force === true };
    const call = { method: 'PATCH', query, body: object, contentType: applyType, repeatable: true } as const;
    return await this.#one('patch', refOf(object), call, signal);
  }

  async merge(
    ref: ObjectRef,
    change: Readonly<Record<string, unknown>>,
    options: WriteOptions = {},
    signal?: AbortSignal,
  ): Promise<ClusterObject> {
    // A change that insists on a version may not be sent twice: the second would find the first.
    const repeatable = !(isJson(change['metadata']) && change['metadata']['resourceVersion'] !== undefined);
    const call = {
      method: 'PATCH',
      query: writing(options),
      body: change,
      contentType: mergeType,
      repeatable,
    } as const;
    return await this.#one('patch', ref, call, signal);
  }

  async delete(ref: ObjectRef, options: DeleteOptions = {}, signal?: AbortSignal): Promise<'gone' | 'leaving'> {
    const { propagation = 'Background', graceSeconds, uid, resourceVersion, dryRun } = options;
    const type = await this.#kinds.type(ref, signal);
    const body = {
      apiVersion: 'v1',
      kind: 'DeleteOptions',
      propagationPolicy: propagation,
      gracePeriodSeconds: graceSeconds,
      preconditions: uid === undefined && resourceVersion === undefined ? undefined : { uid, resourceVersion },
      dryRun: dryRun ? ['All'] : undefined,
    };
    const request = this.#request('delete', type, ref, showRef(ref));
    const answer = await this.#connection.json({ method: 'DELETE', path: pathOf(type, ref), body, request }, signal);
    if (!isJson(answer) || answer['kind'] === 'Status') return 'gone';
    // Some kinds are answered as they were: only what is held back is still there.
    const metadata = isJson(answer['metadata']) ? answer['metadata'] : {};
    const { finalizers, deletionTimestamp, deletionGracePeriodSeconds: grace } = metadata;
    const isHeld = (Array.isArray(finalizers) && finalizers.length > 0) || Number(grace ?? 0) > 0;
    return deletionTimestamp !== undefined && (isHeld || type.kind === 'Namespace') ? 'leaving' : 'gone';
  }

  async scale(ref: ObjectRef, signal?: AbortSignal): Promise<Scale> {
    return await this.#scale('get', ref, { method: 'GET' }, signal);
  }

  async setScale(
    ref: ObjectRef,
    replicas: number,
    options: WriteOptions & { readonly replaces?: Scale } = {},
    signal?: AbortSignal,
  ): Promise<Scale> {
    const { replaces } = options;
    const body = { spec: { replicas }, ...(replaces && { metadata: { resourceVersion: replaces.resourceVersion } }) };
    const call = { method: 'PATCH', query: writing(options), body, contentType: mergeType } as const;
    return await this.#scale('patch', ref, { ...call, repeatable: replaces === undefined }, signal);
  }

  async log(
    { namespace, name }: { readonly namespace: string; readonly name: string },
    { container, lines, bytes }: LogQuery = {},
    signal?: AbortSignal,
  ): Promise<string> {
    const pod = { apiVersion: 'v1', kind: 'Pod' };
    const type = await this.#kinds.type(pod, signal);
    const request = this.#request('get', type, { namespace, name }, `log of pod ${namespace}/${name}`);
    return await this.#connection.text(
      {
        method: 'GET',
        path: `${pathOf(type, { ...pod, namespace, name })}/log`,
        query: { container, tailLines: lines, limitBytes: bytes },
        accept: 'text/plain, application/json',
        request: { ...request, resource: `${type.plural}/log` },
      },
      signal,
    );
  }

  async allows(access: Access, signal?: AbortSignal): Promise<boolean> {
    const { group, version, plural: resource } = await this.#kinds.type(access, signal);
    const { verb, namespace, name, subresource } = access;
    const resourceAttributes = { verb, group, version, resource, subresource, namespace, name };
    const answer = await this.#connection.json(
      {
        method: 'POST',
        path: '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews',
        body: {
          apiVersion: 'authorization.k8s.io/v1',
          kind: 'SelfSubjectAccessReview',
          spec: { resourceAttributes },
        },
        repeatable: true,
        request: {
          verb: 'create',
          group: 'authorization.k8s.io',
          resource: 'selfsubjectaccessreviews',
          what: 'question about rights',
        },
      },
      signal,
    );
    return isJson(answer) && isJson(answer['status']) && answer['status']['allowed'] === true;
  }

  close(): void {
    this.#connection.close();
  }

  /** One request about one object. */
  async #one(
    verb: string,
    ref: ObjectRef,
    call: Omit<Call, 'path' | 'request'>,
    signal: AbortSignal | undefined,
  ): Promise<ClusterObject> {
    const type = await this.#kinds.type(ref, signal);
    const request = this.#request(verb, type, ref, showRef(ref));
    return this.#object(await this.#connection.json({ ...call, path: pathOf(type, ref), request }, signal), type);
  }

  async #scale(
    verb: string,
    ref: ObjectRef,
    call: Omit<Call, 'path' | 'request'>,
    signal: AbortSignal | undefined,
  ): Promise<Scale> {
    const type = await this.#kinds.type(ref, signal);
    const of = this.#request(verb, type, ref, `scale of ${showRef(ref)}`);
    const request = { ...of, resource: `${type.plural}/scale` };
    return readScale(await this.#connection.json({ ...call, path: `${pathOf(type, ref)}/scale`, request }, signal));
  }

  #request(verb: string, type: ObjectType, { namespace, name }: Partial<ObjectRef>, what: string): Request {
    return { verb, group: type.group, resource: type.plural, namespace, name, what };
  }

  /** An object of an answer; those of lists do not say what they are. */
  #object(answer: unknown, { apiVersion, kind }: ObjectType): ClusterObject {
    if (!isJson(answer) || !isMeta(answer['metadata']))
      throw noAnswer(new Error('its answer is no object'), kind, this.target);
    return { ...answer, apiVersion, kind, metadata: answer['metadata'] };
  }
}

function isMeta(value: unknown): value is ObjectMeta {
  return isJson(value) && typeof value['name'] === 'string';
}

function selection({ labels, fields }: Selection): Json & Record<string, string | undefined> {
  return { labelSelector: labels, fieldSelector: fields };
}

function writing({ manager = fieldManager, dryRun }: WriteOptions): Record<string, string | undefined> {
  return { fieldManager: manager, dryRun: dryRun ? 'All' : undefined };
}

function collectionOf({ group, version, plural }: ObjectType, namespace: string | undefined): string {
  const root = group === '' ? `/api/${version}` : `/apis/${group}/${version}`;
  return namespace === undefined
    ? `${root}/${plural}`
    : `${root}/namespaces/${encodeURIComponent(namespace)}/${plural}`;
}

function pathOf(type: ObjectType, ref: ObjectRef): string {
  return `${collectionOf(type, needed(type, ref).namespace)}/${encodeURIComponent(ref.name)}`;
}

/** The reference, with its namespace where the kind has one, and without where not. */
function needed({ namespaced }: ObjectType, ref: ObjectRef): ObjectRef {
  if (!namespaced) return { ...ref, namespace: undefined };
  if (ref.namespace !== undefined && ref.namespace !== '') return ref;
  throw new DrError('refused', `${showRef(ref)} needs a namespace`, { next: 'Say in which namespace it lives.' });
}
