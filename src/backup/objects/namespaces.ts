import { DrError } from '../../base/errors.ts';
import type { Cluster, ClusterObject } from '../../cluster/contract.ts';
import type { ObjectSelection } from '../../config/types.ts';
import { isNamespaceType } from './kinds.ts';
import { pagesOf } from './pages.ts';

export const namespaceRef = { apiVersion: 'v1', kind: 'Namespace' } as const;

/** A namespace that is not there, or cannot be looked at. */
export interface NamespaceTrouble {
  readonly namespace: string;
  readonly error: DrError;
}

/** The namespaces that a configuration names or selects, as they are when a backup begins. */
export class ChosenNamespaces {
  readonly #cluster: Cluster;
  readonly #select: ObjectSelection;
  readonly #signal: AbortSignal | undefined;
  readonly #objects = new Map<string, ClusterObject | undefined>();

  constructor(cluster: Cluster, select: ObjectSelection, signal?: AbortSignal) {
    this.#cluster = cluster;
    this.#select = select;
    this.#signal = signal;
  }

  get names(): readonly string[] {
    return [...this.#objects.keys()];
  }

  /** Without those that roles do not let dr look at. */
  get objects(): readonly ClusterObject[] {
    return [...this.#objects.values()].filter((object) => object !== undefined);
  }

  /** Finds them; tells what is wrong with those that are named. */
  async choose(): Promise<NamespaceTrouble[]> {
    const { namespaces, selector } = this.#select;
    if (namespaces === undefined) {
      for (const object of await this.#selected(selector)) this.#objects.set(object.metadata.name, object);
      return [];
    }
    const troubles: NamespaceTrouble[] = [];
    for (const namespace of namespaces) {
      try {
        const object = await this.#cluster.get({ ...namespaceRef, name: namespace }, this.#signal);
        if (object.metadata.deletionTimestamp === undefined) this.#objects.set(namespace, object);
        else troubles.push({ namespace, error: gone('it is being deleted') });
      } catch (error) {
        if (!(error instanceof DrError) || (error.kind !== 'not-found' && error.kind !== 'denied')) throw error;
        troubles.push({ namespace, error: error.kind === 'not-found' ? gone('there is no such namespace') : error });
        // What is in it may be allowed all the same.
        if (error.kind === 'denied') this.#objects.set(namespace, undefined);
      }
    }
    return troubles;
  }

  /** Those that were deleted since they were chosen: their objects may be read in part. */
  async vanished(): Promise<NamespaceTrouble[]> {
    const { namespaces, selector } = this.#select;
    // Hundreds may be selected: they are asked for together, and only those that are missing one by one.
    const listed = namespaces === undefined ? await this.#selected(selector) : [];
    const present = new Set(listed.map(({ metadata }) => metadata.uid));
    const troubles: NamespaceTrouble[] = [];
    for (const [namespace, before] of this.#objects) {
      if (before === undefined || present.has(before.metadata.uid) || (await this.#isThere(before))) continue;
      const why = 'it was deleted while it was read: what had been read until then is kept';
      troubles.push({ namespace, error: gone(why) });
    }
    return troubles;
  }

  async #isThere({ metadata: { name, uid } }: ClusterObject): Promise<boolean> {
    try {
      const { metadata } = await this.#cluster.get({ ...namespaceRef, name }, this.#signal);
      return metadata.uid === uid && metadata.deletionTimestamp === undefined;
    } catch (error) {
      if (error instanceof DrError && error.kind === 'not-found') return false;
      // Listing namespaces may be allowed where looking at one is not: then nothing is known.
      if (error instanceof DrError && error.kind === 'denied') return true;
      throw error;
    }
  }

  async #selected(selector: string | undefined): Promise<ClusterObject[]> {
    const type = await this.#cluster.type(namespaceRef, this.#signal);
    if (!isNamespaceType(type)) throw new DrError('internal', 'namespaces are another kind than expected');
    const found: ClusterObject[] = [];
    for await (const page of pagesOf(this.#cluster, type, { labels: selector }, this.#signal)) {
      found.push(...page.filter(({ metadata }) => metadata.deletionTimestamp === undefined));
    }
    return found;
  }
}

function gone(why: string): DrError {
  return new DrError('not-found', why, { next: 'Correct the namespaces of this configuration, or make it again.' });
}
