import { createHash } from 'node:crypto';
import { forEachLimit } from '../../base/concurrency.ts';
import { DrError } from '../../base/errors.ts';
import type { Cluster, ClusterObject, ObjectType } from '../../cluster/contract.ts';
import { pagesOf } from '../objects/pages.ts';
import { cleaned } from './clean.ts';
import { inner } from './draft.ts';
import type { LiveWorkload } from './park.ts';

/** Lists in flight at once. */
const LISTS_IN_FLIGHT = 6;
/** With more namespaces than this, a kind is listed in the whole cluster at once. */
const FEW_NAMESPACES = 4;

/** An object that is there now: enough to tell whether a restore changed it. */
export interface LiveObject extends LiveWorkload {
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace: string | undefined;
  readonly name: string;
  /** Of what it wants, as `digestOf` says. */
  readonly digest: string;
  /** A controller made it for another object, or a server for itself. */
  readonly isMade: boolean;
}

/** What could be listed. */
export interface Live {
  /** By `liveKey`. */
  readonly objects: ReadonlyMap<string, LiveObject>;
  /** Kinds (with their namespace) that could not be listed, and why. */
  readonly unknown: ReadonlyArray<{ readonly what: string; readonly error: DrError }>;
}

export function liveKey(type: Pick<ObjectType, 'group' | 'kind'>, namespace: string | undefined, name: string): string {
  return `${type.group}/${type.kind}/${namespace ?? ''}/${name}`;
}

/** What an object wants, as one word: equal for objects that differ only in what servers write into them. */
export function digestOf(object: ClusterObject): string {
  return createHash('sha256')
    .update(canonical(cleaned(object)))
    .digest('base64');
}

/** JSON with sorted keys. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (typeof value === 'bigint') return String(value);
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  const keys = Object.keys(value).sort();
  return `{${keys.map((key) => `${JSON.stringify(key)}:${canonical(Reflect.get(value, key))}`).join()}}`;
}

/** What of these kinds is in these namespaces (and in none) of the cluster. A kind that may not be listed is named, and the rest goes on. */
export async function listLive(
  cluster: Cluster,
  types: readonly ObjectType[],
  namespaces: ReadonlySet<string>,
  isMade: (object: ClusterObject) => boolean,
  signal: AbortSignal,
): Promise<Live> {
  const objects = new Map<string, LiveObject>();
  const unknown: Array<{ what: string; error: DrError }> = [];
  const list = async (type: ObjectType, namespace: string | undefined): Promise<DrError | undefined> => {
    try {
      for await (const page of pagesOf(cluster, type, { namespace }, signal)) {
        for (const object of page) {
          const home = object.metadata.namespace;
          if (type.namespaced && !namespaces.has(home ?? '')) continue;
          objects.set(liveKey(type, home, object.metadata.name), liveOf(object, isMade(object)));
        }
      }
      return undefined;
    } catch (error) {
      if (error instanceof DrError && ['denied', 'not-found', 'conflict', 'refused'].includes(error.kind)) return error;
      throw error;
    }
  };
  await forEachLimit(types, LISTS_IN_FLIGHT, async (type) => {
    if (!type.verbs.includes('list')) return;
    const isWide = !type.namespaced || namespaces.size > FEW_NAMESPACES;
    const error = isWide ? await list(type, undefined) : undefined;
    if (error && !type.namespaced) unknown.push({ what: type.plural, error });
    if (!type.namespaced || (isWide && !error)) return;
    for (const namespace of namespaces) {
      const refused = await list(type, namespace);
      if (refused) unknown.push({ what: `${type.plural} in ${namespace}`, error: refused });
    }
  });
  return { objects, unknown };
}

function liveOf(object: ClusterObject, isMade: boolean): LiveObject {
  const spec = inner(object, 'spec');
  const { apiVersion, kind, metadata } = object;
  const replicas = spec?.['replicas'];
  const suspended = spec?.['suspend'];
  return {
    apiVersion,
    kind,
    namespace: metadata.namespace,
    name: metadata.name,
    digest: digestOf(object),
    isMade,
    replicas: typeof replicas === 'number' ? replicas : undefined,
    suspended: typeof suspended === 'boolean' ? suspended : undefined,
  };
}
