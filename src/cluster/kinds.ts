import { DrError } from '../base/errors.ts';
import type { Connection } from './connection.ts';
import type { Discovery, ObjectType, TypeRef } from './contract.ts';
import { aggregated, onePerKind, readAggregated, readGroups, readResources } from './discovery.ts';
import { type Request, statusOf, unknownKind } from './errors.ts';

/** Which kinds an API server has; what was asked once is kept, and asked again for a kind that is not in it. */
export class Kinds {
  readonly #connection: Connection;
  readonly #known = new Map<string, readonly ObjectType[]>();

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** All kinds, from a server that has them all: one that starts tells of a few groups as if there were no others. */
  async discover(signal?: AbortSignal): Promise<Discovery> {
    await this.#requireReady(false, signal);
    const found = await this.#discover(signal);
    // Not another one by now, which has only begun.
    await this.#requireReady(true, signal);
    return found;
  }

  async #requireReady(once: boolean, signal: AbortSignal | undefined): Promise<void> {
    const request: Request = { verb: 'get', group: '', resource: '', what: 'question whether the server is ready' };
    try {
      await this.#connection.text({ method: 'GET', path: '/readyz', once, request }, signal);
    } catch (error) {
      if (!(error instanceof DrError)) throw error;
      // Some providers let nobody ask.
      if (error.kind === 'denied' || error.kind === 'not-found') return;
      if (statusOf(error)?.code !== 500) throw error;
      throw new DrError('unreachable', 'the API server is starting or stopping: it says that it is not ready', {
        where: this.#connection.target,
        next: 'Wait and run the command again; if it lasts: kubectl get --raw "/readyz?verbose".',
        cause: error,
      });
    }
  }

  async #discover(signal: AbortSignal | undefined): Promise<Discovery> {
    const core = await this.#ask('/api', aggregated, signal);
    const groups = await this.#ask('/apis', aggregated, signal);
    const [a, b] = [readAggregated(core), readAggregated(groups)];
    if (a && b) return { types: onePerKind([...a.types, ...b.types]), missing: [...a.missing, ...b.missing] };
    return await this.#oneByOne(['v1', ...readGroups(groups).flatMap(({ apiVersions }) => apiVersions)], signal);
  }

  async type({ apiVersion, kind }: TypeRef, signal?: AbortSignal): Promise<ObjectType> {
    const isIt = (type: ObjectType) => type.kind === kind;
    const kept = this.#known.get(apiVersion)?.find(isIt);
    if (kept) return kept;
    const types = await this.#typesOf(apiVersion, signal).catch((error: unknown) => {
      if (error instanceof DrError && error.kind === 'not-found') return [];
      throw error;
    });
    const found = types.find(isIt);
    if (found) return found;
    throw unknownKind(kind, apiVersion, this.#connection.target);
  }

  async #oneByOne(apiVersions: readonly string[], signal: AbortSignal | undefined): Promise<Discovery> {
    const missing: string[] = [];
    const types: ObjectType[] = [];
    for (const apiVersion of apiVersions) {
      try {
        types.push(...(await this.#typesOf(apiVersion, signal)));
      } catch (error) {
        // One aggregated API that is down does not hide all others; a server that is gone would.
        if (!(error instanceof DrError) || error.kind === 'interrupted' || error.kind === 'denied') throw error;
        missing.push(apiVersion);
      }
    }
    if (missing.length === apiVersions.length) await this.#typesOf('v1', signal);
    return { types: onePerKind(types), missing };
  }

  async #typesOf(apiVersion: string, signal: AbortSignal | undefined): Promise<readonly ObjectType[]> {
    const path = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
    const types = readResources(await this.#ask(path, 'application/json', signal), apiVersion);
    this.#known.set(apiVersion, types);
    return types;
  }

  async #ask(path: string, accept: string, signal: AbortSignal | undefined): Promise<unknown> {
    const request: Request = { verb: 'get', group: '', resource: '', what: `list of kinds ${path}` };
    return await this.#connection.json({ method: 'GET', path, accept, request }, signal);
  }
}
