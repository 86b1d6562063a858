import { createServer } from 'node:net';
import type { Clock } from '../../src/base/clock.ts';
import { DrError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { parseConfig } from '../../src/config/load.ts';
import type { Config } from '../../src/config/types.ts';
import { loadRunbook, type Registry, shippedRunbooks } from '../../src/runbook/load.ts';
import type { Runbook } from '../../src/runbook/model.ts';
import { type Engine, executeRun, type RunRequest, type RunResult } from '../../src/runbook/run.ts';
import type { ProbePort, World, WriterPort } from '../../src/steps/ports.ts';
import { stepRegistry } from '../../src/steps/registry.ts';
import { MemoryTraffic, MemoryZone } from '../../src/traffic/memory.ts';
import { enrolVault } from '../../src/vault/enrol.ts';
import { layout } from '../../src/vault/layout.ts';
import { acquireLease } from '../../src/vault/lease.ts';
import { MemoryStore } from '../../src/vault/memory-store.ts';
import type { Body, CreateOptions, ObjectStore } from '../../src/vault/store.ts';
import { testRoot } from '../harness/temp.ts';
import { MemoryClusters } from './memory-clusters.ts';
import { MemoryRecovery } from './memory-recovery.ts';

const SLICE_MS = 2000;

/** Time that passes when somebody waits for it; waits that keep no process alive only end when time has passed by others. */
export class FastClock implements Clock {
  #now: number;
  #background = new Set<{ readonly at: number; readonly wake: () => void }>();

  constructor(startMs = Date.UTC(2026, 0, 1)) {
    this.#now = startMs;
  }

  now(): number {
    return this.#now;
  }

  async sleep(ms: number, signal?: AbortSignal, options?: { readonly unref?: boolean }): Promise<void> {
    signal?.throwIfAborted();
    if (!options?.unref) {
      // In small pieces, so that what runs beside (the renewal of a lease) gets its turns.
      for (let left = ms; left > 0; left -= SLICE_MS) {
        this.pass(Math.min(left, SLICE_MS));
        for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
        signal?.throwIfAborted();
      }
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const sleeper = { at: this.#now + ms, wake: resolve };
      this.#background.add(sleeper);
      const abort = () => {
        this.#background.delete(sleeper);
        reject(signal?.reason);
      };
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  pass(ms: number): void {
    this.#now += ms;
    for (const sleeper of this.#background) {
      if (sleeper.at > this.#now) continue;
      this.#background.delete(sleeper);
      sleeper.wake();
    }
  }
}

/** The process is killed here: nothing that it does afterwards has any effect. */
export class Crash extends Error {}

/** Counts the moments at which a process can die, and kills it at one of them. */
export class Mortal {
  /** The moment of death; undefined = it lives. */
  readonly diesAt: number | undefined;
  readonly passed: string[] = [];
  dead = false;

  constructor(diesAt?: number) {
    this.diesAt = diesAt;
  }

  /** Called before and after everything that leaves something behind. */
  point(what: string): void {
    this.alive();
    this.passed.push(what);
    if (this.passed.length === this.diesAt) {
      this.dead = true;
      throw new Crash(`killed at ${what}`);
    }
  }

  alive(): void {
    if (this.dead) throw new Crash('a dead process does nothing');
  }
}

/** A vault as one mortal process sees it. Writes are counted by kind. */
export function mortalStore(store: ObjectStore, mortal: Mortal, writes: string[]): ObjectStore {
  const write = async <T>(key: string, work: () => Promise<T>): Promise<T> => {
    // Copies and hints decide nothing: only what the run depends on is worth a death.
    const counts = key.includes('/journal/') || key.startsWith('records/');
    if (counts) mortal.point(`before writing ${store.name} ${key}`);
    else mortal.alive();
    const result = await work();
    writes.push(`${store.name} ${key}`);
    if (counts) mortal.point(`after writing ${store.name} ${key}`);
    return result;
  };
  return new Proxy(store, {
    get(target, name) {
      if (name === 'create' || name === 'overwrite') {
        return (key: string, body: Body, options?: CreateOptions) =>
          write(key, () => target[name](key, body, options) as Promise<unknown>);
      }
      const member: unknown = Reflect.get(target, name);
      if (typeof member !== 'function') return member;
      return (...parameters: unknown[]) => {
        if (name === 'delete') writes.push(`${store.name} delete`);
        if (name !== 'close') mortal.alive();
        return member.apply(target, parameters);
      };
    },
  });
}

/** Everything outside the processes of dr: it survives their deaths. */
export class TestWorld {
  readonly clock = new FastClock();
  readonly config: Config;
  readonly runbook: Runbook;
  readonly east = new MemoryStore({ name: 'east', region: 'eu-west-1' });
  readonly west = new MemoryStore({ name: 'west', region: 'eu-central-1' });
  readonly zone = new MemoryZone();
  readonly recovery: MemoryRecovery;
  readonly clusters = new MemoryClusters(this.clock);
  /** Every write to a vault that any process made. */
  readonly writes: string[] = [];
  /** Every change of the record. */
  readonly redirects: string[] = [];
  registry: Registry = stepRegistry;
  /** The old site is gone; set false to bring it back to life. */
  oldSiteDead = true;
  /** What the old primary says to a write, while it lives. */
  oldPrimaryReadOnly = false;
  /** The checks of the living database say no. */
  dataDamaged = false;
  /** Whether a planned move has made the old primary quiet, and how it moves then. */
  quiet = false;
  nextXid = 700;
  flushedTo = '0/3FFFF00';
  #processes = 0;

  private constructor(config: Config, runbook: Runbook) {
    this.config = config;
    this.runbook = runbook;
    this.recovery = new MemoryRecovery(this.clock);
  }

  /** `more`: further sections of the configuration. */
  static async create(runbook?: Runbook | string, more = ''): Promise<TestWorld> {
    const config = parseConfig(configText(await freePort(), more), '/etc/dr/dr.yaml', {}).config;
    const world = new TestWorld(
      config,
      typeof runbook === 'object' ? runbook : await loadRunbook(shippedRunbooks, runbook ?? 'failover', stepRegistry),
    );
    await enrolVault(world.east);
    await enrolVault(world.west);
    const seed = new MemoryTraffic(trafficOptions, world.zone);
    await seed.point(['192.0.2.10'], await seed.current());
    return world;
  }

  /** One process of dr, with its own view of the world. */
  engine(mortal = new Mortal(), changes: Partial<Engine> = {}): Engine {
    const number = ++this.#processes;
    // A process that died held its lease until its time was up.
    this.clock.pass(60_000);
    const stores = [this.west, this.east].map((store) => mortalStore(store, mortal, this.writes));
    const holder = { host: `host-${number}`, user: 'ops', pid: number, bootId: '', started: '' };
    const { west, east } = this.config.sites;
    if (!west || !east) throw new Error('the test configuration has two sites');
    const world: World = {
      config: this.config,
      site: west,
      from: east,
      vaults: stores,
      recovery: this.recovery.seenBy(mortal),
      probes: this.#probes(),
      writers: this.#writers(mortal),
      traffic: () => this.#traffic(mortal),
      cluster: async (site) => this.clusters.seenBy(mortal, site),
    };
    let random = 0;
    return {
      world,
      registry: this.registry,
      clock: this.clock,
      log: silentLog,
      signal: new AbortController().signal,
      by: `ops@host-${number}, process ${number}`,
      random: () => `p${number}r${++random}`,
      acquireLease: (store, name, purpose) => acquireLease(store, name, { purpose, holder, clock: this.clock }),
      onEntry: () => {},
      onProgress: () => {},
      renderReport: (report) => ({ markdown: `# ${report.runId}\n`, html: `<h1>${report.runId}</h1>\n` }),
      ...changes,
    };
  }

  request(changes: Partial<RunRequest> = {}): RunRequest {
    const { runbook } = this;
    return {
      runbook,
      mode: 'failover',
      at: { kind: 'latest' },
      reason: 'a test',
      acceptSplitBrain: undefined,
      fresh: false,
      ...changes,
    };
  }

  async run(changes: Partial<RunRequest> = {}, mortal = new Mortal()): Promise<RunResult> {
    return await executeRun(this.engine(mortal), this.request(changes));
  }

  /** What is left at the end, in a form that two worlds can be compared by. */
  async outcome(): Promise<object> {
    const active: string[] = [];
    for (const store of [this.east, this.west]) {
      for await (const { key } of store.list(layout.activeSites)) active.push(`${store.name} ${key}`);
    }
    return {
      values: this.zone.values,
      redirects: this.redirects,
      active,
      places: this.recovery.places(),
      effects: this.recovery.effects,
    };
  }

  #traffic(mortal: Mortal): MemoryTraffic {
    const { redirects } = this;
    class Watched extends MemoryTraffic {
      override async point(...parameters: Parameters<MemoryTraffic['point']>) {
        mortal.point('before the record changes');
        const before = this.zone.values.join();
        const change = await super.point(...parameters);
        if (this.zone.values.join() !== before) redirects.push(`${before} -> ${this.zone.values.join()}`);
        mortal.point('after the record changed');
        return change;
      }
    }
    return new Watched(trafficOptions, this.zone);
  }

  #writers(mortal: Mortal): WriterPort {
    const state = () => ({ flushedTo: this.flushedTo, nextXid: String(this.nextXid) });
    return {
      missingRights: async () => [],
      quiesce: async () => {
        mortal.point('before the old primary is made quiet');
        this.quiet = true;
        mortal.point('after the old primary was made quiet');
        return { ...state(), locked: ['app'], superusers: ['postgres'], workers: [], endedSessions: 3 };
      },
      look: async () => {
        mortal.alive();
        return { ...state(), loud: this.quiet ? [] : ['roles may log in: app'], refusal: 'read-only transaction' };
      },
      reopen: async () => {
        mortal.point('before the old primary is opened');
        this.quiet = false;
        mortal.point('after the old primary was opened');
        return ['app'];
      },
    };
  }

  #probes(): ProbePort {
    const dead = { reach: 'silent' as const, detail: 'no answer: timed out' };
    const recovered = () => this.recovery.isPromoted('orders');
    return {
      tcp: async () => (this.oldSiteDead ? dead : { reach: 'connected', detail: 'it accepts connections' }),
      http: async (url) => {
        const lives = url.includes('west') ? recovered() : !this.oldSiteDead;
        return lives
          ? { status: 200, body: 'ok', ms: 1, detail: 'answers 200' }
          : { status: undefined, body: '', ms: 1, detail: 'no answer' };
      },
      database: async (url) => {
        const old = url.includes('east');
        if (old ? this.oldSiteDead : !recovered()) return { ...dead, session: false };
        return {
          reach: 'connected',
          session: true,
          inRecovery: old && this.oldPrimaryReadOnly,
          detail: 'PostgreSQL 17 answers',
        };
      },
      asks: async (_url, sql) =>
        sql.map((statement) => ({ sql: statement, ok: !this.dataDamaged, detail: 'it answers' })),
      answers: async (_url, sql) => (this.oldSiteDead ? undefined : sql.map(() => '4200')),
      refusesWrites: async () =>
        this.oldPrimaryReadOnly
          ? { proof: true, detail: 'refused: cannot execute CREATE TABLE in a read-only transaction' }
          : { proof: false, detail: 'it accepted a write, which was rolled back' },
    };
  }
}

const trafficOptions = { record: 'orders.example.com', type: 'A', ttlSeconds: 30 } as const;

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  server.close();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

function configText(port: number, more: string): string {
  const root = testRoot();
  return `version: 1
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: { region: eu-west-1, url: "file://${root}/vault-east" }
  west: { region: eu-central-1, url: "file://${root}/vault-west" }
sites:
  east: { region: eu-west-1, vault: east, cluster: { context: east } }
  west: { region: eu-central-1, vault: west, cluster: { context: west } }
active: east
encryption: none
databases:
  orders:
    url: "postgresql://app@east.example.com/orders"
    schedule: every 6 hours
    retention: 30 days
    recover: { west: { dataDirectory: ${root}/west/orders, port: ${port}, url: "postgresql://app@west.example.com/orders" } }
data:
  uploads: { path: ${root}/uploads, schedule: daily, retention: 90 days, recover: { west: { path: ${root}/west/uploads } } }
configuration:
  settings: { path: ${root}/etc, schedule: on change, retention: 1 year, recover: { west: { path: ${root}/west/etc } } }
traffic:
  orders: { route53: { zone: Z123, record: orders.example.com, type: A, ttl: 30 }, endpoints: { east: 192.0.2.10, west: 198.51.100.10 } }
verification: { checks: { orders: ["select count(*) > 0 from orders"] } }
validation:
  http: [{ site: west, url: "http://west.example.com/health", status: 200 }]
  stabilize: 30s
scratch: ${root}/scratch
${more}`;
}

/** The error that a promise rejects with. */
export async function failureOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
  } catch (error) {
    return error;
  }
  throw new Error('it was expected to fail');
}

export function errorOfKind(error: unknown, kind: DrError['kind']): DrError {
  if (error instanceof DrError && error.kind === kind) return error;
  throw error;
}
