import type { BackupContext } from '../backup/context.ts';
import type { WalPosition } from '../backup/wal/listing.ts';
import { DrError } from '../base/errors.ts';
import type { ObjectsPlace, SitePlaces } from '../config/sites.ts';
import type { Watching } from './metrics-shape.ts';
import { ObjectsWatcher } from './objects-watcher.ts';
import type { Service } from './service.ts';
import type { Supervisor } from './supervisor.ts';
import { WalService } from './wal-service.ts';
import { DirectoryWatcher } from './watcher.ts';

export interface SiteWorkOptions {
  readonly places: SitePlaces;
  readonly context: BackupContext;
  readonly supervisor: Supervisor;
  /** Where the oldest kept backup of a database needs WAL from. */
  oldestNeeded(database: string): Promise<WalPosition | undefined>;
  /** A base backup is needed now: the archive has a gap, or another history has begun. */
  needsBackup(database: string): void;
  /** Streaming has begun for this PostgreSQL system. */
  onLineage(database: string, systemId: string): void;
  /** A watched directory has changed. */
  onChange(resource: string): void;
}

/** How long a base backup waits for the archiver. */
const RECEIVING_MS = 60_000;

/** What only the active site does all the time: WAL archivers and watchers of configurations. */
export class SiteWork {
  readonly #options: SiteWorkOptions;
  #archivers: WalService[] = [];
  #watchers: Service[] = [];

  constructor(options: SiteWorkOptions) {
    this.#options = options;
  }

  get archivers(): readonly WalService[] {
    return this.#archivers;
  }

  /** What is watched of clusters; a cluster that could not be asked yet is not among them. */
  get watching(): readonly Watching[] {
    return this.#watchers.flatMap((watcher) => {
      if (!(watcher instanceof ObjectsWatcher) || !watcher.state) return [];
      return [{ resource: watcher.resource, ...watcher.state }];
    });
  }

  get watchers(): readonly Service[] {
    return this.#watchers;
  }

  /** The site has become active, or is active under another generation: everything begins anew. */
  async begin(): Promise<void> {
    await this.end(0);
    const { places, supervisor } = this.#options;
    this.#archivers = Object.values(places.databases)
      .filter(({ database }) => database.wal.enabled)
      .map(({ database, url }) => this.#archiver(database.name, database.wal, url));
    this.#watchers = [
      ...Object.values(places.directories).flatMap(({ directory, path }) =>
        directory.schedule.kind === 'on-change'
          ? [this.#watcher(directory.name, path, directory.exclude, directory.schedule.quietMs)]
          : [],
      ),
      ...Object.values(places.objects).flatMap((place) => this.#objectsWatcher(place)),
    ];
    for (const service of [...this.#archivers, ...this.#watchers]) supervisor.add(service);
  }

  /**
   * Resolves when the WAL of a database is being received, thus kept by the server. Throws `unreachable` when that takes too long: a
   * base backup whose WAL nobody receives could not be restored.
   */
  async untilReceiving(database: string, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options.context;
    const untilMs = clock.now() + RECEIVING_MS;
    for (;;) {
      const status = this.#archivers.find(({ resource }) => resource === database)?.status();
      if (status?.state === 'streaming') return;
      if (clock.now() >= untilMs) {
        throw new DrError(
          'unreachable',
          `the WAL of ${database} is not being received: ${status?.lastError ?? 'starting'}`,
          {
            next: 'Look at the log of the daemon and run `dr doctor`: the base backup waits for the archiver.',
          },
        );
      }
      await clock.sleep(200, signal);
    }
  }

  /** Ends all of it; with grace time, WAL that was received is stored and acknowledged first. */
  async end(graceMs: number): Promise<void> {
    const services: Service[] = [...this.#archivers, ...this.#watchers];
    await this.#options.supervisor.remove(services, graceMs);
    this.#archivers = [];
    this.#watchers = [];
  }

  #archiver(
    resource: string,
    wal: { readonly slot: string; readonly flushEveryMs: number; readonly durable: 'all' | 'any' },
    url: string,
  ): WalService {
    const { context, oldestNeeded, needsBackup, onLineage } = this.#options;
    const { stores, keyPolicy, pool, compressionLevel, site, clock, log } = context;
    return new WalService({
      resource,
      url,
      slot: wal.slot,
      flushEveryMs: wal.flushEveryMs,
      durable: wal.durable,
      stores,
      keyPolicy,
      pool,
      compressionLevel,
      site,
      clock,
      log,
      oldestNeeded: async () => await oldestNeeded(resource),
      onGap: () => needsBackup(resource),
      onLineage: (systemId) => onLineage(resource, systemId),
    });
  }

  #watcher(resource: string, path: string, exclude: readonly string[], quietMs: number): DirectoryWatcher {
    const { context, onChange } = this.#options;
    const { clock, log } = context;
    // At most a minute: a directory that never rests is backed up all the same.
    return new DirectoryWatcher({
      resource,
      path,
      exclude,
      quietMs: Math.min(quietMs, 60_000),
      clock,
      log,
      onChange: () => onChange(resource),
    });
  }

  #objectsWatcher({ objects, cluster }: ObjectsPlace): Service[] {
    const { context, onChange } = this.#options;
    const { clock, log, openCluster } = context;
    const { name, select, exclude, schedule } = objects;
    if (schedule.kind !== 'on-change' || !openCluster) return [];
    const quietMs = Math.min(schedule.quietMs, 60_000);
    return [
      new ObjectsWatcher({
        resource: name,
        select,
        exclude,
        quietMs,
        clock,
        log: log.child({ resource: name }),
        openCluster: async () => await openCluster(cluster),
        onChange: () => onChange(name),
      }),
    ];
  }
}
