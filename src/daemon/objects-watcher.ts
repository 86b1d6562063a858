import type { ObjectsWatch, WatchObjectsOptions } from '../backup/objects/watch-objects.ts';
import { DrError } from '../base/errors.ts';
import type { Cluster } from '../cluster/contract.ts';
import type { Service } from './service.ts';
import { Settling } from './settling.ts';

export interface ObjectsWatcherOptions extends WatchObjectsOptions {
  readonly resource: string;
  /** A change counts when nothing has followed it for this long, milliseconds; at most a minute after the first. */
  readonly quietMs: number;
  readonly atMostMs?: number | undefined;
  openCluster(): Promise<Cluster>;
}

/** Service: tells of changes of the objects of a cluster, once they have settled. */
export class ObjectsWatcher implements Service {
  readonly name: string;
  readonly resource: string;
  readonly #options: ObjectsWatcherOptions;
  readonly #settling: Settling;
  #stop = new AbortController();
  #ended: Promise<void> | undefined;
  #watch: ObjectsWatch | undefined;

  constructor(options: ObjectsWatcherOptions) {
    this.name = `watch ${options.resource}`;
    this.resource = options.resource;
    this.#options = options;
    this.#settling = new Settling({ ...options, onSettled: options.onChange });
  }

  /** Undefined: the cluster has not been opened yet. */
  get state(): ObjectsWatch['state'] | undefined {
    return this.#watch?.state;
  }

  run(): Promise<void> {
    this.#stop = new AbortController();
    this.#ended = this.#run(this.#stop.signal);
    return this.#ended;
  }

  async stop(_graceMs: number): Promise<void> {
    this.#stop.abort();
    await this.#ended?.catch(() => {});
    await this.#settling.done();
  }

  async #run(signal: AbortSignal): Promise<void> {
    // A daemon without a cluster does not load what this needs.
    const { ObjectsWatch } = await import('../backup/objects/watch-objects.ts');
    const cluster = await this.#options.openCluster();
    try {
      // Whatever is read first counts as changed: it may have changed while nobody watched.
      const onChange = () => this.#settling.changed(signal);
      this.#watch = new ObjectsWatch(cluster, { ...this.#options, onChange });
      await this.#watch.run(signal);
    } catch (error) {
      if (signal.aborted) return;
      throw error instanceof DrError
        ? error
        : new DrError('internal', `the watch of ${this.resource} failed`, { where: cluster.target, cause: error });
    } finally {
      cluster.close();
    }
  }
}
