import type { Clock } from '../../src/base/clock.ts';
import { DrError } from '../../src/base/errors.ts';
import type {
  DatabasePlace,
  DatabaseState,
  DirectoryPlace,
  DirectoryState,
  Finding,
  Heartbeat,
  RecoveredDatabase,
  RecoveryPort,
  ResourcePoint,
} from '../../src/steps/ports.ts';
import type { Mortal } from './world.ts';

interface Place {
  state: 'partial' | 'recovered' | 'promoted' | 'complete' | 'foreign';
  runId: string;
  timeline: number;
  replayedTo?: string;
}

/** Backups and servers in memory. What it holds survives the deaths of the processes that work with it. */
export class MemoryRecovery {
  readonly effects: string[] = [];
  readonly startedMs: number;
  /** Heartbeats of the old site's archive; moved by tests. */
  heartbeat: Omit<Heartbeat, 'vault' | 'database'> | undefined;
  /** Failures to come, by what is being done; each is used once. */
  readonly failures = new Map<string, unknown>();
  /** End of the archive. */
  archivedTo = '0/4000000';
  /** Checks that say no. */
  failedChecks: string[] = [];
  onHeartbeatRead: () => void = () => {};
  /** The world goes on while dr works: called when something has been done. */
  onEffect: (what: string) => void = () => {};
  readonly #clock: Clock;
  readonly #places = new Map<string, Place>();

  constructor(clock: Clock) {
    this.#clock = clock;
    this.startedMs = clock.now();
    this.heartbeat = { site: 'east', writtenAtMs: clock.now() - 2000, everyMs: 5000, lsn: '0/3000148' };
  }

  places(): Record<string, string> {
    return Object.fromEntries(
      [...this.#places].map(([path, place]) => [path.replace(/drill-[^/]+/, 'drill'), place.state]),
    );
  }

  put(path: string, state: Place['state'], runId = ''): void {
    this.#places.set(path, { state, runId, timeline: 1 });
  }

  isPromoted(name: string): boolean {
    return [...this.#places].some(([path, { state }]) => path.endsWith(`/west/${name}`) && state === 'promoted');
  }

  seenBy(mortal: Mortal): RecoveryPort {
    const fail = (what: string) => {
      const failure = this.failures.get(what);
      this.failures.delete(what);
      if (failure !== undefined) throw failure;
    };
    const begin = (what: string) => {
      mortal.point(`before ${what}`);
      fail(what);
    };
    const end = (what: string) => {
      this.effects.push(what);
      this.onEffect(what);
      mortal.point(`after ${what}`);
    };
    return {
      assess: async ({ name, kind }) => {
        mortal.alive();
        fail(`assess ${name}`);
        return {
          resource: name,
          kind,
          vault: 'west',
          backupId: `b-${name}`,
          recoveryPointMs: this.startedMs - 3000,
          bytes: 1000,
          candidates: [],
        } satisfies ResourcePoint;
      },
      heartbeats: async (database) => {
        mortal.alive();
        this.onHeartbeatRead();
        return this.heartbeat ? [{ ...this.heartbeat, vault: 'west', database }] : [];
      },
      preflight: async () => [{ ok: true, what: 'PostgreSQL 17 is installed' }] satisfies Finding[],
      databaseState: async (place) => {
        mortal.alive();
        return this.#databaseState(place);
      },
      restoreDatabase: async (place, _point, _at, onProgress, signal) => {
        const what = `restore ${place.name}`;
        begin(what);
        this.#places.set(place.directory, { state: 'partial', runId: place.runId, timeline: 1 });
        mortal.point(`in the middle of ${what}`);
        signal.throwIfAborted();
        onProgress({ task: what, done: 500, total: 1000, unit: 'bytes' });
        this.#clock.now();
        const { runId } = place;
        this.#places.set(place.directory, { state: 'recovered', runId, timeline: 1, replayedTo: this.archivedTo });
        end(what);
        return this.#recovered(place);
      },
      checkDatabase: async (_place, sql) => {
        mortal.alive();
        fail('check');
        return ['it answers', ...sql].map((what) => ({
          ok: !this.failedChecks.includes(what),
          what,
          detail: '',
          ms: 1,
        }));
      },
      askDatabase: async (_place, sql) => {
        fail('ask');
        return sql.map(() => '5000');
      },
      promoteDatabase: async (place) => {
        const what = `promote ${place.name}`;
        begin(what);
        const there = this.#places.get(place.directory);
        if (there?.state !== 'promoted') {
          this.#places.set(place.directory, { state: 'promoted', runId: place.runId, timeline: 2 });
          end(what);
        }
        return { timeline: 2 };
      },
      archivedTo: async () => {
        mortal.alive();
        fail('look at the archive');
        return { timeline: 1, lsn: this.archivedTo };
      },
      catchUp: async (place) => {
        const what = `catch up ${place.name}`;
        begin(what);
        const there = this.#places.get(place.directory);
        if (there?.state !== 'recovered') throw new DrError('refused', 'nothing to catch up');
        there.replayedTo = this.archivedTo;
        end(what);
        return { ...this.#recovered(place), recoveredToMs: this.startedMs - 1000 };
      },
      openDatabase: async (place) => {
        const what = `open ${place.name}`;
        begin(what);
        if (this.effects.includes(what)) return [];
        end(what);
        return ['app'];
      },
      reserveWal: async (place) => {
        const what = `slot ${place.name}`;
        begin(what);
        if (this.effects.includes(what)) return { created: false, from: '0/4000000' };
        end(what);
        return { created: true, from: '0/4000000' };
      },
      vacate: async ({ path, runId }) => {
        const there = this.#places.get(path);
        if (there === undefined || there.runId === runId) return undefined;
        begin(`vacate ${path}`);
        this.#places.delete(path);
        this.#places.set(`${path}.before-${runId}`, there);
        end(`vacate ${path}`);
        return `${path}.before-${runId}`;
      },
      discardDatabase: async (place) => {
        if (!place.isolated) throw new DrError('refused', `${place.directory} is not isolated`);
        begin(`discard ${place.name}`);
        this.#places.delete(place.directory);
        mortal.point(`after discard ${place.name}`);
      },
      directoryState: async (place) => {
        mortal.alive();
        return this.#directoryState(place);
      },
      restoreDirectory: async (place) => {
        const what = `restore ${place.name}`;
        begin(what);
        this.#places.set(place.path, { state: 'partial', runId: place.runId, timeline: 1 });
        mortal.point(`in the middle of ${what}`);
        this.#places.set(place.path, { state: 'complete', runId: place.runId, timeline: 1 });
        end(what);
        return { bytes: 10, entries: 2, warnings: [] };
      },
      restoreObjects: async (place) => {
        const what = `restore ${place.name}`;
        begin(what);
        end(what);
        return { objects: [], findings: [], extras: [], images: [], bytes: 10 };
      },
      discardDirectory: async (place) => {
        begin(`discard ${place.name}`);
        this.#places.delete(place.path);
        mortal.point(`after discard ${place.name}`);
      },
    };
  }

  #databaseState(at: DatabasePlace): DatabaseState {
    const place = this.#places.get(at.directory);
    if (place === undefined) return { state: 'empty' };
    const { runId, timeline } = place;
    if (place.state === 'promoted') return { state: 'promoted', runId, timeline, recovered: this.#recovered(at) };
    if (place.state === 'recovered') return { state: 'recovered', runId, recovered: this.#recovered(at) };
    if (place.state === 'partial') return { state: 'partial', runId };
    return { state: 'foreign', detail: 'holds files that dr did not put there' };
  }

  #directoryState({ path }: DirectoryPlace): DirectoryState {
    const place = this.#places.get(path);
    if (place === undefined) return { state: 'empty' };
    if (place.state === 'complete') return { state: 'complete', runId: place.runId, bytes: 10, entries: 2 };
    if (place.state === 'partial') return { state: 'partial', runId: place.runId };
    return { state: 'foreign', detail: 'holds files that dr did not put there' };
  }

  #recovered(place: DatabasePlace): RecoveredDatabase {
    return {
      where: 'port 5433',
      replayedTo: this.#places.get(place.directory)?.replayedTo ?? '0/3000148',
      timeline: 1,
      lastCommitAtMs: this.startedMs - 4000,
      recoveredToMs: this.startedMs - 3000,
      bytes: 1000,
    };
  }
}
