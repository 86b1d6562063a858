import { readFileSync } from 'node:fs';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import type { ClusterObject, ObjectMeta } from '../../../src/cluster/contract.ts';
import { type Status, StatusError } from '../../../src/cluster/errors.ts';
import { isJson, jsonText } from '../../../src/cluster/json.ts';
import { logOf } from '../../../src/cluster/memory/logs.ts';
import { MemoryObjects } from '../../../src/cluster/memory/objects.ts';
import { scaleOf } from '../../../src/cluster/memory/scaling.ts';
import { watchObjects } from '../../../src/cluster/memory/watching.ts';
import { aggregatedDiscovery, groupList, resourceList } from './discovery.ts';
import { Faults } from './faults.ts';
import { denial, everything, isAllowed, type Rule, rulesOf } from './rbac.ts';
import { bodyOf, type ObjectRequest, parseRequest } from './request.ts';

export interface Account {
  readonly name: string;
  readonly rules: readonly Rule[];
}

export interface KubernetesServerOptions {
  readonly objects?: MemoryObjects;
  /** HTTPS with the certificate of the test harness. */
  readonly tls?: boolean;
  /** Only the plain discovery of servers before 1.26. */
  readonly plainDiscovery?: boolean;
  /** Milliseconds between bookmarks; default a minute. */
  readonly bookmarkMs?: number;
}

/** What a server lists before it knows its other groups. */
const firstGroup = 'apiregistration.k8s.io';

/**
 * A small API server: lists with pages and watches over HTTP, resource versions, server-side apply, RBAC by bearer token, and
 * faults. What it stores follows the rules of `MemoryObjects`; nothing runs, and no controller acts.
 */
export class KubernetesServer implements AsyncDisposable {
  readonly objects: MemoryObjects;
  readonly faults = new Faults();
  /** By bearer token. */
  readonly accounts = new Map<string, Account>([['admin-token', { name: 'admin', rules: everything }]]);
  /** API groups (`metrics.k8s.io/v1beta1`) whose own server is down. */
  readonly missing = new Set<string>();
  /** True = it is not ready: it serves, and tells of the first of its groups as if there were no others. */
  isStarting = false;
  /** What was asked, in order: `list /api/v1/pods?limit=500`. */
  readonly calls: string[] = [];
  /** On 127.0.0.1; kept while the server is stopped. */
  port = 0;
  /** Connections that were opened. */
  connections = 0;
  readonly #options: KubernetesServerOptions;
  readonly #server: http.Server;
  readonly #watches = new Set<ServerResponse>();
  #bookmarks: NodeJS.Timeout | undefined;

  private constructor(options: KubernetesServerOptions) {
    this.#options = options;
    this.objects = options.objects ?? new MemoryObjects();
    const answer = (request: IncomingMessage, response: ServerResponse) => void this.#answer(request, response);
    const file = (name: string) => readFileSync(new URL(`../tls/${name}`, import.meta.url));
    this.#server = options.tls
      ? https.createServer({ cert: file('server.crt'), key: file('server.key') }, answer)
      : http.createServer(answer);
    this.#server.on('connection', () => this.connections++);
  }

  static async start(options: KubernetesServerOptions = {}): Promise<KubernetesServer> {
    const server = new KubernetesServer(options);
    await server.listen();
    server.#bookmarks = setInterval(() => server.objects.history.bookmark(), options.bookmarkMs ?? 60_000).unref();
    return server;
  }

  async listen(port = this.port): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, '127.0.0.1', resolve);
    });
    this.port = (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `${this.#options.tls ? 'https' : 'http'}://127.0.0.1:${this.port}`;
  }

  /** A kubeconfig for the account of this token. */
  kubeconfig(token = 'admin-token', user: Readonly<Record<string, unknown>> = { token }): string {
    const ca = readFileSync(new URL('../tls/server.crt', import.meta.url)).toString('base64');
    const cluster = { server: this.url, ...(this.#options.tls && { 'certificate-authority-data': ca }) };
    return JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'test', cluster }],
      users: [{ name: 'tester', user }],
      contexts: [{ name: 'test', context: { cluster: 'test', user: 'tester' } }],
      'current-context': 'test',
    });
  }

  /** Ends all watches in the orderly way, as a server does after some minutes. */
  endWatches(): void {
    for (const watch of this.#watches) watch.end();
  }

  get watchCount(): number {
    return this.#watches.size;
  }

  /** Breaks every connection and takes no more; `listen` on the same port brings it back. */
  async stop(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#bookmarks);
    if (this.#server.listening) await this.stop();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const method = request.method ?? 'GET';
    try {
      const account = this.#accountOf(request);
      const about = parseRequest(method, url, this.objects.types);
      const attempt = about ?? { verb: method.toLowerCase(), group: '', resource: url.pathname };
      this.calls.push(`${attempt.verb} ${url.pathname}${url.search}`);
      const body = await bodyOf(request);
      const fault = this.faults.take(attempt);
      switch (fault?.kind) {
        case 'before':
          await fault.act();
          break;
        case 'hang':
          return;
        case 'drop':
          response.destroy();
          return;
        case 'proxy':
          response.writeHead(fault.code, { 'content-type': 'text/html' }).end(fault.text);
          return;
        case 'status': {
          const { code, message = 'a fault of the test', retryAfter } = fault;
          if (retryAfter !== undefined) response.setHeader('retry-after', String(retryAfter));
          throw new StatusError({ code, message, details: { retryAfterSeconds: retryAfter } });
        }
      }
      if (about === undefined) return send(response, 200, this.#plain(url, account, body, request));
      if (!isAllowed(account.rules, about))
        throw new StatusError({ code: 403, reason: 'Forbidden', message: denial(account.name, about) });
      if (about.subresource === 'log' && about.verb === 'get') return this.#log(about, response);
      if (about.verb === 'watch') return this.#watch(about, request, response, fault?.kind === 'stall');
      const result = this.#object(about, body, request.headers['content-type'] ?? '');
      if (fault?.kind === 'lose-reply') response.destroy();
      else send(response, about.verb === 'create' ? 201 : 200, result);
    } catch (error) {
      if (!(error instanceof StatusError)) {
        response.destroy();
        throw error;
      }
      send(response, error.status.code, statusBody(error.status));
    }
  }

  #accountOf({ headers }: IncomingMessage): Account {
    const token = /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1] ?? '';
    const account = this.accounts.get(token);
    if (account === undefined) throw new StatusError({ code: 401, reason: 'Unauthorized', message: 'Unauthorized' });
    const other = headers['impersonate-user'];
    if (typeof other !== 'string') return account;
    const attempt = { verb: 'impersonate', group: '', resource: 'users', name: other };
    if (isAllowed(account.rules, attempt)) return { name: other, rules: rulesOf(this.objects, other) };
    throw new StatusError({ code: 403, reason: 'Forbidden', message: denial(account.name, attempt) });
  }

  /** What is not about objects: versions, discovery, rights. */
  #plain(url: URL, account: Account, body: Record<string, unknown>, request: IncomingMessage): object {
    const types = this.objects.types.filter(({ group }) => !this.isStarting || ['', firstGroup].includes(group));
    const wantsAggregated = !this.#options.plainDiscovery && String(request.headers.accept).includes('apidiscovery');
    switch (url.pathname) {
      case '/version':
        return { major: '1', minor: '32+', gitVersion: 'v1.32.3-test' };
      case '/readyz':
        if (!this.isStarting) return {};
        throw new StatusError({ code: 500, message: '[-]informer-sync failed: reason withheld' });
      case '/api':
        return wantsAggregated
          ? aggregatedDiscovery(types, this.missing, true)
          : { kind: 'APIVersions', versions: ['v1'] };
      case '/apis':
        return wantsAggregated ? aggregatedDiscovery(types, this.missing, false) : groupList(types, this.missing);
      case '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews': {
        const spec = isJson(body['spec']) ? body['spec'] : {};
        const { verb, group, resource, subresource, namespace, name } = (spec['resourceAttributes'] ?? {}) as Record<
          string,
          string
        >;
        const attempt = {
          verb: verb ?? '',
          group: group ?? '',
          resource: subresource ? `${resource}/${subresource}` : (resource ?? ''),
          namespace,
          name,
        };
        return { ...body, status: { allowed: isAllowed(account.rules, attempt) } };
      }
    }
    const apiVersion = url.pathname.replace(/^\/apis?\//, '');
    if (this.missing.has(apiVersion))
      throw new StatusError({ code: 503, reason: 'ServiceUnavailable', message: 'service unavailable' });
    const list = resourceList(types, apiVersion);
    if (list) return list;
    throw new StatusError({
      code: 404,
      reason: 'NotFound',
      message: 'the server could not find the requested resource',
    });
  }

  #object(about: ObjectRequest, body: Record<string, unknown>, contentType: string): object {
    const { type, verb, namespace, name = '', subresource, query } = about;
    const options = {
      manager: query.get('fieldManager') ?? contentType.split(';')[0] ?? '',
      dryRun: query.get('dryRun') === 'All',
    };
    switch (verb) {
      case 'list': {
        const { objects, resourceVersion, continue: next, remaining } = this.objects.list(type, selection(about));
        const metadata = { resourceVersion, ...(next && { continue: next, remainingItemCount: remaining }) };
        // Objects of a list do not say what they are.
        const items = objects.map(({ apiVersion: _apiVersion, kind: _kind, ...item }) => item);
        return { apiVersion: type.apiVersion, kind: `${type.kind}List`, metadata, items };
      }
      case 'get': {
        const object = this.objects.get(type, namespace, name);
        return subresource === 'scale' ? scaleOf(type, object) : object;
      }
      case 'create':
        return this.objects.create(asObject(body, type, body['metadata']), namespace, options);
      case 'patch': {
        if (contentType.startsWith('application/apply-patch')) {
          const object = asObject(body, type, body['metadata']);
          return this.objects.apply(object, namespace, { ...options, force: query.get('force') === 'true' });
        }
        if (!contentType.startsWith('application/merge-patch'))
          throw new StatusError({ code: 415, reason: 'UnsupportedMediaType', message: `no ${contentType} here` });
        if (subresource === 'scale') scaleOf(type, this.objects.get(type, namespace, name));
        const part = subresource === 'scale' || subresource === 'status' ? subresource : undefined;
        const after = this.objects.merge(type, namespace, name, body, {
          ...options,
          ...(part && { subresource: part }),
        });
        return subresource === 'scale' ? scaleOf(type, after) : after;
      }
      case 'delete': {
        const before = this.objects.get(type, namespace, name);
        const preconditions = isJson(body['preconditions']) ? body['preconditions'] : {};
        const left = this.objects.delete(type, namespace, name, {
          uid: preconditions['uid'] as string | undefined,
          resourceVersion: preconditions['resourceVersion'] as string | undefined,
          propagation: (body['propagationPolicy'] ?? 'Background') as 'Background',
          dryRun: Array.isArray(body['dryRun']),
        });
        return (
          left ?? { kind: 'Status', apiVersion: 'v1', status: 'Success', details: { name, uid: before.metadata.uid } }
        );
      }
    }
    throw new StatusError({ code: 405, reason: 'MethodNotAllowed', message: `${verb} is not supported` });
  }

  #log({ type, namespace, name = '', query }: ObjectRequest, response: ServerResponse): void {
    const { apiVersion, kind } = type;
    const number = (key: string) => (query.has(key) ? { [key]: Number(query.get(key)) } : {});
    const { tailLines: lines, limitBytes: bytes } = { ...number('tailLines'), ...number('limitBytes') } as Record<
      string,
      number
    >;
    const text = logOf(
      this.objects,
      { apiVersion, kind, namespace, name },
      { ...(lines !== undefined && { lines }), ...(bytes !== undefined && { bytes }) },
    );
    response.writeHead(200, { 'content-type': 'text/plain' }).end(text);
  }

  #watch(about: ObjectRequest, request: IncomingMessage, response: ServerResponse, isSilent: boolean): void {
    const { type, query } = about;
    const say = (event: object) => {
      if (!isSilent && !response.writableEnded) response.write(`${jsonText(event)}\n`);
    };
    const from = Number(query.get('resourceVersion') ?? 0);
    let stop = () => {};
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    try {
      const { apiVersion, kind } = type;
      stop = watchObjects(this.objects, type, { ...selection(about), from }, (event) => {
        if (event.type !== 'bookmark') say({ type: event.type.toUpperCase(), object: event.object });
        else if (query.get('allowWatchBookmarks') === 'true')
          say({ type: 'BOOKMARK', object: { apiVersion, kind, metadata: { resourceVersion: event.resourceVersion } } });
      });
    } catch (error) {
      if (!(error instanceof StatusError)) throw error;
      // A watch from too far back is answered with 200 and an event that says 410.
      say({ type: 'ERROR', object: statusBody(error.status) });
      response.end();
      return;
    }
    this.#watches.add(response);
    const endMs = Number(query.get('timeoutSeconds') ?? 300) * 1000;
    const end = isSilent ? undefined : setTimeout(() => response.end(), endMs).unref();
    response.on('close', () => {
      stop();
      clearTimeout(end);
      this.#watches.delete(response);
    });
    request.resume();
  }
}

function selection({ namespace, query }: ObjectRequest) {
  return {
    namespace,
    labels: query.get('labelSelector') ?? undefined,
    fields: query.get('fieldSelector') ?? undefined,
    limit: Number(query.get('limit') ?? 0),
    continue: query.get('continue') ?? undefined,
  };
}

function asObject(
  body: Record<string, unknown>,
  { apiVersion, kind }: ObjectRequest['type'],
  metadata: unknown,
): ClusterObject {
  const isRight = body['apiVersion'] === apiVersion && body['kind'] === kind && isJson(metadata);
  if (isRight) return { ...body, apiVersion, kind, metadata: { ...metadata } as unknown as ObjectMeta };
  const message = `the object provided is unrecognized: ${String(body['apiVersion'])} ${String(body['kind'])}`;
  throw new StatusError({ code: 400, reason: 'BadRequest', message });
}

function statusBody(status: Status): object {
  return { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', ...status };
}

function send(response: ServerResponse, code: number, body: object): void {
  response.writeHead(code, { 'content-type': 'application/json' }).end(jsonText(body));
}
