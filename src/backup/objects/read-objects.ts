import { DrError, isAbort, messageOf } from '../../base/errors.ts';
import { globMatcher } from '../../base/glob.ts';
import type { Cluster, ClusterObject, ObjectType } from '../../cluster/contract.ts';
import type { ObjectSelection } from '../../config/types.ts';
import { changedAtMs, managersOf } from './content.ts';
import { chooseKinds, compare, isNamespaceType, kindName, measuredGroups } from './kinds.ts';
import { type ClusterSummary, managersPath, type Omission, objectPath, summaryPath, toYaml } from './layout.ts';
import { ChosenNamespaces } from './namespaces.ts';
import { noiseOf, withoutNoise } from './noise.ts';
import { pagesOf } from './pages.ts';

export interface ReadObjectsOptions {
  readonly cluster: Cluster;
  readonly select: ObjectSelection;
  /** Globs on the paths of the files. */
  readonly exclude: readonly string[];
  readonly signal?: AbortSignal | undefined;
}

/** A file of the backup. */
export interface ObjectFile {
  readonly path: string;
  readonly text: string;
  /** Milliseconds since 1970. */
  readonly changedAtMs: number;
}

export interface ReadObjects {
  readonly objects: number;
  /** What should be here and could not be read. */
  readonly lost: readonly Omission[];
}

/**
 * Reads the chosen objects of a cluster, kind by kind, and gives each file to `emit` as it comes, `dr-cluster.yaml` last. What cannot be
 * read is named and the rest goes on: only a cluster that does not answer, or from which nothing at all could be read, is an error.
 */
export async function readObjects(
  options: ReadObjectsOptions,
  emit: (file: ObjectFile) => Promise<void>,
): Promise<ReadObjects> {
  return await new Reading(options, emit).all();
}

class Reading {
  readonly #options: ReadObjectsOptions;
  readonly #emit: (file: ObjectFile) => Promise<void>;
  readonly #excludes: (path: string) => string | undefined;
  readonly #lost: Omission[] = [];
  /** Paths of the kind at work: a list that had to begin anew gives some objects twice. */
  #told = new Set<string>();
  #objects = 0;
  #firstFailure: unknown;

  constructor(options: ReadObjectsOptions, emit: (file: ObjectFile) => Promise<void>) {
    this.#options = options;
    this.#emit = emit;
    this.#excludes = globMatcher(options.exclude);
  }

  async all(): Promise<ReadObjects> {
    const { cluster, select, signal } = this.#options;
    const version = await cluster.version(signal);
    const discovery = await cluster.discover(signal);
    const { taken, leftOut } = chooseKinds(discovery.types, select);
    for (const apiVersion of discovery.missing) {
      if (!measuredGroups.has(apiVersion.split('/')[0] ?? '')) {
        this.#lose(apiVersion, new Error('the server of this API does not answer'));
      }
    }
    const namespaces = new ChosenNamespaces(cluster, select, signal);
    for (const { namespace, error } of await namespaces.choose()) this.#lose(`namespace ${namespace}`, error);
    const namespaceType = taken.find(isNamespaceType);
    if (namespaceType) for (const object of namespaces.objects) await this.#one(namespaceType, object);
    for (const type of taken) if (!isNamespaceType(type)) await this.#kind(type, namespaces.names);
    for (const { namespace, error } of await namespaces.vanished()) this.#lose(`namespace ${namespace}`, error);
    if (this.#objects === 0 && this.#firstFailure !== undefined) throw this.#firstFailure;
    const summary: ClusterSummary = {
      format: 1,
      server: version.git,
      namespaces: namespaces.names.toSorted(compare),
      ...(select.selector !== undefined && { selector: select.selector }),
      clusterObjects: select.clusterObjects,
      secrets: select.secrets,
      types: taken.map(({ group, version, kind, plural, namespaced }) => ({
        group,
        version,
        kind,
        plural,
        namespaced,
      })),
      leftOut: [...leftOut, ...this.#options.exclude.map((what) => ({ what, why: 'exclude' }))],
      lost: this.#lost,
    };
    await this.#emit({ path: summaryPath, text: toYaml(summary), changedAtMs: 0 });
    return { objects: this.#objects, lost: this.#lost };
  }

  /** All objects of a kind: in the whole cluster, or only in the chosen namespaces where that is all that roles allow. */
  async #kind(type: ObjectType, namespaces: readonly string[]): Promise<void> {
    this.#told = new Set();
    if (!type.namespaced) {
      await this.#scope(type, undefined);
      return;
    }
    if (namespaces.length > 1 && (await this.#scope(type, undefined, new Set(namespaces)))) return;
    for (const namespace of namespaces) await this.#scope(type, namespace);
  }

  /** False where `among` namespaces are wanted and roles do not allow the whole cluster: they are then asked for one by one. */
  async #scope(type: ObjectType, namespace: string | undefined, among?: ReadonlySet<string>): Promise<boolean> {
    const { cluster, signal } = this.#options;
    try {
      for await (const objects of pagesOf(cluster, type, { namespace }, signal)) {
        for (const object of objects) {
          if (among === undefined || among.has(object.metadata.namespace ?? '')) await this.#one(type, object);
        }
      }
    } catch (error) {
      if (signal?.aborted || isAbort(error) || !(error instanceof DrError)) throw error;
      if (error.kind === 'denied' && among) return false;
      if (error.kind === 'unreachable') await this.#requireServer(type, error);
      this.#lose(namespace === undefined ? kindName(type) : `${kindName(type)} of namespace ${namespace}`, error);
    }
    return true;
  }

  /**
   * A kind of an API server of its own may be away, or its conversion fail. When Kubernetes' own kinds cannot be read, the whole
   * backup is tried again later instead of leaving them out.
   */
  async #requireServer(type: ObjectType, error: DrError): Promise<void> {
    const isBuiltIn = !type.group.includes('.') || builtInGroups.has(type.group);
    if (isBuiltIn) throw error;
    await this.#options.cluster.version(this.#options.signal);
  }

  async #one(type: ObjectType, object: ClusterObject): Promise<void> {
    if (noiseOf(object) !== undefined) return;
    const { name, namespace } = object.metadata;
    const path = objectPath({
      group: type.group,
      kind: type.kind,
      name,
      ...(type.namespaced && namespace !== undefined && { namespace }),
    });
    if (this.#told.has(path) || this.#excludes(path) !== undefined) return;
    this.#told.add(path);
    const at = changedAtMs(object);
    await this.#emit({ path, text: toYaml(withoutNoise(object)), changedAtMs: at });
    const managers = managersOf(object);
    if (managers.length > 0) await this.#emit({ path: managersPath(path), text: toYaml(managers), changedAtMs: at });
    this.#objects++;
  }

  #lose(what: string, error: unknown): void {
    this.#firstFailure ??= error;
    const next = error instanceof DrError && error.kind === 'denied' && error.next ? ` ${error.next}` : '';
    this.#lost.push({ what, why: `${messageOf(error)}${next && `.${next}`}` });
  }
}

/** Groups of Kubernetes itself whose names have a dot, as those of all others do. */
const builtInGroups = new Set([
  'rbac.authorization.k8s.io',
  'networking.k8s.io',
  'storage.k8s.io',
  'apiextensions.k8s.io',
  'admissionregistration.k8s.io',
  'apiregistration.k8s.io',
  'scheduling.k8s.io',
  'node.k8s.io',
  'flowcontrol.apiserver.k8s.io',
]);
