import type { Clock } from '../../base/clock.ts';
import { Semaphore } from '../../base/concurrency.ts';
import { DrError, messageOf } from '../../base/errors.ts';
import { globMatcher } from '../../base/glob.ts';
import type { Log } from '../../base/log.ts';
import type { Cluster, ClusterObject, ObjectType } from '../../cluster/contract.ts';
import type { ObjectSelection } from '../../config/types.ts';
import { chooseKinds, isNamespaceType, kindName } from './kinds.ts';
import { objectPath } from './layout.ts';
import { KindWatch } from './watch-kind.ts';

export interface WatchObjectsOptions {
  readonly select: ObjectSelection;
  /** Globs on the paths of the files. */
  readonly exclude: readonly string[];
  readonly clock: Clock;
  readonly log: Log;
  /** What a backup would store has changed, or may have. */
  onChange(): void;
  /** How often the kinds are asked for anew; default 10 min. Definitions that change are noticed at once. */
  readonly refreshMs?: number | undefined;
}

/** Kinds that are read for the first time at once: each holds a page in memory. */
const READING_AT_ONCE = 4;
/** Kinds of a new definition are served a moment after it was made. */
const DEFINED_MS = 2000;
/** A cluster that is away is told of once in this time, however many watches notice it. */
const TELL_EVERY_MS = 60_000;

interface Watching {
  readonly watch: KindWatch;
  readonly stop: AbortController;
  /** One of several namespaces of a kind that cannot be watched in the whole cluster. */
  readonly isPart: boolean;
}

/** Watches all chosen objects of a cluster for changes that a backup would store. */
export class ObjectsWatch {
  readonly #cluster: Cluster;
  readonly #options: WatchObjectsOptions;
  readonly #excludes: (path: string) => string | undefined;
  readonly #watches = new Map<string, Watching>();
  /** Kinds that the server has and does not let anybody watch, and why: tried again when the kinds are asked for anew. */
  readonly #refused = new Map<string, string>();
  /** Kinds that roles allow only namespace by namespace. */
  readonly #divided = new Set<string>();
  readonly #running = new Set<Promise<void>>();
  readonly #reading = new Semaphore(READING_AT_ONCE);
  /** Chosen by the selector, as far as is known. */
  readonly #selected = new Set<string>();
  #refresh = new AbortController();
  #toldMs = Number.NEGATIVE_INFINITY;

  constructor(cluster: Cluster, options: WatchObjectsOptions) {
    this.#cluster = cluster;
    this.#options = options;
    this.#excludes = globMatcher(options.exclude);
  }

  /** How many kinds and objects are watched, and what cannot be. */
  get state(): { readonly kinds: number; readonly objects: number; readonly troubles: readonly string[] } {
    const watches = [...this.#watches].map(([name, { watch }]) => ({ name, size: watch.size, trouble: watch.trouble }));
    return {
      kinds: watches.length,
      objects: watches.reduce((sum, { size }) => sum + size, 0),
      troubles: [
        ...watches.flatMap(({ name, trouble }) => (trouble ? [`${name}: ${messageOf(trouble)}`] : [])),
        ...[...this.#refused].map(([name, why]) => `${name}: ${why}`),
      ],
    };
  }

  /** Resolves when everything was read once. */
  async synced(): Promise<void> {
    await Promise.all([...this.#watches.values()].map(({ watch }) => watch.synced));
  }

  /** Until the signal aborts. Throws when the cluster cannot be asked for its kinds at the start. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log, refreshMs = 600_000 } = this.#options;
    try {
      await this.#begin(signal);
      while (!signal.aborted) {
        const asked = this.#refresh.signal;
        await clock.sleep(refreshMs, AbortSignal.any([signal, asked]), { unref: true }).catch(() => {});
        this.#refused.clear();
        if (asked.aborted) await clock.sleep(DEFINED_MS, signal, { unref: true }).catch(() => {});
        this.#refresh = new AbortController();
        if (signal.aborted) return;
        await this.#begin(signal).catch((error: unknown) => {
          if (signal.aborted) return;
          log.warn({ error, cluster: this.#cluster.target }, 'the kinds of the cluster could not be asked for');
        });
      }
    } finally {
      for (const { stop } of this.#watches.values()) stop.abort();
      await Promise.all(this.#running);
    }
  }

  /** Starts watches of kinds that are new, and ends those of kinds that are gone. */
  async #begin(signal: AbortSignal): Promise<void> {
    const { select } = this.#options;
    const { types, missing } = await this.#cluster.discover(signal);
    const taken = chooseKinds(types, select).taken.filter(({ verbs }) => verbs.includes('watch'));
    // Whether they are backed up themselves or not, they decide what else is.
    const namespaceType = types.find(isNamespaceType);
    if (select.selector !== undefined && namespaceType && !taken.includes(namespaceType)) taken.unshift(namespaceType);
    const wanted = new Set<string>();
    for (const type of taken) {
      for (const namespace of this.#scopesOf(type)) {
        const name = namespace === undefined ? kindName(type) : `${kindName(type)} of namespace ${namespace}`;
        wanted.add(name);
        const known = this.#watches.get(name);
        if (known?.watch.type.apiVersion === type.apiVersion || this.#divided.has(name)) continue;
        if (this.#refused.has(name)) continue;
        known?.stop.abort();
        const watch = this.#start(name, type, namespace, signal);
        // Which objects count is known only when the namespaces are.
        if (isNamespaceType(type)) await watch.synced;
      }
    }
    for (const [name, { watch, stop, isPart }] of this.#watches) {
      // A kind whose server is away comes back: its watch tries on. Parts of a kind that is gone end by themselves.
      if (wanted.has(name) || missing.includes(watch.type.apiVersion) || isPart) continue;
      stop.abort();
      this.#watches.delete(name);
      this.#options.onChange();
    }
  }

  #scopesOf(type: ObjectType): readonly (string | undefined)[] {
    const { namespaces } = this.#options.select;
    return type.namespaced && namespaces?.length === 1 ? namespaces : [undefined];
  }

  #start(
    name: string,
    type: ObjectType,
    namespace: string | undefined,
    signal: AbortSignal,
    isPart = false,
  ): KindWatch {
    const { select, clock, onChange } = this.#options;
    const stop = new AbortController();
    const watch = new KindWatch({
      cluster: this.#cluster,
      type,
      selection: isNamespaceType(type) ? this.#namespaceSelection() : { namespace },
      clock,
      isChosen: (object) => this.#isChosen(type, object),
      onGone: isNamespaceType(type) ? (gone) => this.#selected.delete(gone) : undefined,
      onChange,
      onEvent: type.kind === 'CustomResourceDefinition' ? () => this.#refresh.abort() : undefined,
      onTrouble: (error) => {
        const { namespaces } = select;
        const canDivide = type.namespaced && namespace === undefined && namespaces !== undefined;
        if (error.kind !== 'denied' || !canDivide) {
          this.#tell(name, error);
          return false;
        }
        // Roles may allow each namespace by itself.
        this.#divided.add(name);
        this.#watches.delete(name);
        for (const each of namespaces) this.#start(`${name} of namespace ${each}`, type, each, signal, true);
        return true;
      },
    });
    this.#watches.set(name, { watch, stop, isPart });
    const work = this.#run(name, watch, AbortSignal.any([signal, stop.signal])).finally(() =>
      this.#running.delete(work),
    );
    this.#running.add(work);
    return watch;
  }

  async #run(name: string, watch: KindWatch, signal: AbortSignal): Promise<void> {
    await this.#reading.acquire();
    void watch.synced.then(() => this.#reading.release());
    try {
      await watch.run(signal);
    } catch (error) {
      if (signal.aborted) return;
      this.#watches.delete(name);
      this.#divided.delete(kindName(watch.type));
      this.#options.onChange();
      // A kind that is gone is no trouble; a definition that brings it back is noticed.
      if (error instanceof DrError && error.kind === 'not-found') return;
      this.#refused.set(name, messageOf(error));
      this.#options.log.warn(
        { kind: name, error },
        'a kind of the cluster cannot be watched: it is looked at every hour',
      );
    }
  }

  #namespaceSelection(): { labels?: string; fields?: string } {
    const { namespaces, selector } = this.#options.select;
    if (namespaces?.length === 1) return { fields: `metadata.name=${namespaces[0]}` };
    return selector === undefined ? {} : { labels: selector };
  }

  #isChosen(type: ObjectType, object: ClusterObject): boolean {
    const { namespaces } = this.#options.select;
    const { name, namespace } = object.metadata;
    if (isNamespaceType(type)) {
      if (namespaces === undefined) this.#selected.add(name);
      else if (!namespaces.includes(name)) return false;
    } else if (type.namespaced) {
      const isIn = namespaces?.includes(namespace ?? '') ?? this.#selected.has(namespace ?? '');
      if (!isIn) return false;
    }
    if (this.#options.exclude.length === 0) return true;
    const { group, kind } = type;
    const place = type.namespaced ? { namespace } : {};
    return this.#excludes(objectPath({ group, kind, name, ...place })) === undefined;
  }

  #tell(name: string, error: DrError): void {
    const { clock, log } = this.#options;
    const cluster = this.#cluster.target;
    const nowMs = clock.now();
    // A missing right is tried again once a minute: that tells it often enough for those who look at the log.
    const isNews = nowMs - this.#toldMs >= TELL_EVERY_MS;
    if (isNews) this.#toldMs = nowMs;
    const tell = isNews ? log.warn : log.debug;
    tell.call(log, { kind: name, error, cluster }, 'a kind of the cluster cannot be watched now; it is tried again');
  }
}
