import type { Clock } from '../../base/clock.ts';
import type { DrError } from '../../base/errors.ts';
import type { Cluster, ClusterObject, ObjectType, Selection } from '../../cluster/contract.ts';
import { follow } from '../../cluster/follow.ts';
import { contentDigest } from './content.ts';
import { noiseOf } from './noise.ts';

/** Objects of one page of a list: a watch starts with little memory, however large the objects are. */
const PAGE = 100;

export interface KindWatchOptions {
  readonly cluster: Cluster;
  readonly type: ObjectType;
  readonly selection: Selection;
  readonly clock: Clock;
  /** False for objects that are not backed up. */
  isChosen(object: ClusterObject): boolean;
  /** What a backup would store has changed. */
  onChange(): void;
  /** An object is not there any more, or is noise now; by its name. */
  readonly onGone?: ((name: string) => void) | undefined;
  /** Anything was told of this kind, noise included. */
  onEvent?: (() => void) | undefined;
  /** The server cannot be read now; it is tried again. True = give up. */
  onTrouble(error: DrError): boolean;
}

/**
 * Watches the objects of one kind. Of each only a digest of what a backup stores is kept, so that changes of noise tell nothing and
 * ten thousand objects need little memory.
 */
export class KindWatch {
  readonly #options: KindWatchOptions;
  /** Digests by `namespace/name`. */
  readonly #known = new Map<string, string>();
  readonly #synced = Promise.withResolvers<void>();
  #trouble: DrError | undefined;

  constructor(options: KindWatchOptions) {
    this.#options = options;
  }

  get type(): ObjectType {
    return this.#options.type;
  }

  /** Objects that it knows. */
  get size(): number {
    return this.#known.size;
  }

  /** Why nothing is heard now. */
  get trouble(): DrError | undefined {
    return this.#trouble;
  }

  /** Resolves when everything was read once, or cannot be. */
  get synced(): Promise<void> {
    return this.#synced.promise;
  }

  /** Until the signal aborts, the kind is gone, or `onTrouble` gives up. */
  async run(signal: AbortSignal): Promise<void> {
    try {
      await this.#follow(signal);
    } finally {
      this.#synced.resolve();
    }
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { cluster, type, selection, clock } = this.#options;
    let fresh = new Set<string>();
    for await (const event of follow(cluster, type, { ...selection, limit: PAGE, clock }, signal)) {
      if (event.type !== 'trouble' && event.type !== 'relist') this.#trouble = undefined;
      if (event.type === 'relist') fresh = new Set();
      else if (event.type === 'present') {
        for (const object of event.objects) {
          fresh.add(keyOf(object));
          this.#note(object);
        }
      } else if (event.type === 'synced') {
        for (const key of this.#known.keys()) if (!fresh.has(key)) this.#gone(key);
        fresh = new Set();
        this.#synced.resolve();
      } else if (event.type === 'changed') {
        this.#options.onEvent?.();
        this.#note(event.object);
      } else if (event.type === 'gone') {
        this.#options.onEvent?.();
        this.#gone(keyOf(event.object));
      } else if (event.type === 'trouble') {
        this.#trouble = event.error;
        this.#synced.resolve();
        if (this.#options.onTrouble(event.error)) return;
      }
    }
  }

  #note(object: ClusterObject): void {
    const key = keyOf(object);
    if (noiseOf(object) !== undefined || !this.#options.isChosen(object)) {
      this.#gone(key);
      return;
    }
    const digest = contentDigest(object);
    if (this.#known.get(key) === digest) return;
    this.#known.set(key, digest);
    this.#options.onChange();
  }

  #gone(key: string): void {
    this.#options.onGone?.(key.slice(key.indexOf('/') + 1));
    if (this.#known.delete(key)) this.#options.onChange();
  }
}

function keyOf({ metadata: { namespace, name } }: ClusterObject): string {
  return `${namespace ?? ''}/${name}`;
}
