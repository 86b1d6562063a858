import type { BackupContext } from '../backup/context.ts';
import type { ResourceKind } from '../backup/manifest.ts';
import type { Verification } from '../backup/verified.ts';
import type { Clock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { ClusterLease } from '../cluster/lease.ts';
import { worstIntervalMs } from '../config/cadence.ts';
import { forSite, type SitePlaces } from '../config/sites.ts';
import type { Config } from '../config/types.ts';
import { shippedRunbooks } from '../runbook/load.ts';
import { vaultDocuments } from '../vault/documents.ts';
import type { KeyRing } from '../vault/keys.ts';
import type { ObjectStore } from '../vault/store.ts';
import { backupJobName, backupJobs } from './backup-jobs.ts';
import { careJobs, OWN_CONFIGURATION_JOB, repairJobName } from './care-jobs.ts';
import { describeState } from './describe-state.ts';
import { type Executor, localExecutor } from './executor.ts';
import { alwaysLeads, LeaderKeeper, type Leadership, ledBy } from './leader.ts';
import { newestSystem, oldestNeededWal } from './lineage.ts';
import type { MetricsView } from './metrics-shape.ts';
import { type Readiness, readinessOf } from './readiness.ts';
import { RoleKeeper } from './role.ts';
import { Scheduler } from './scheduler.ts';
import { SiteWork } from './site-work.ts';
import { StatusService } from './status-service.ts';
import { VaultSuccession } from './succession.ts';
import { Supervisor } from './supervisor.ts';
import type { Ticker } from './ticker.ts';
import { vaultCheckJobs } from './vault-check-jobs.ts';
import { VaultWatch } from './vault-watch.ts';
import { canVerify, verifyJobs } from './verify-jobs.ts';
import { checkIntervals, retentionPolicies, watchedResources } from './watched.ts';

/** What the daemon works with: the adapters, built from one state of the configuration. */
export interface DaemonWorld {
  readonly config: Config;
  /** The site that it runs at. */
  readonly site: string;
  readonly stores: readonly ObjectStore[];
  /** The vaults themselves, not guarded: only their check works on one whose marker is damaged. */
  readonly bare: readonly ObjectStore[];
  readonly keyRing: KeyRing;
  /** For backups of what runs at this site. */
  readonly backups: BackupContext;
  /** By which of several replicas one is chosen; undefined: this daemon is the only one of its site. */
  readonly replicas?: { readonly lease: ClusterLease; elapsed(): number } | undefined;
  /** Where backups and verifications are done; default: in this process. */
  executor?(leadership: Leadership): Executor;
  /** Restores the newest recovery point from the vault, checks it, keeps the report in the vaults. */
  verify(
    resource: { readonly name: string; readonly kind: ResourceKind },
    store: ObjectStore,
    signal: AbortSignal,
  ): Promise<Verification>;
}

export interface DaemonOptions {
  readonly world: DaemonWorld;
  readonly ticker: Ticker;
  readonly clock: Clock;
  readonly log: Log;
  /** How often the vaults are asked whether they are there and which site is active, milliseconds; default 10 s. */
  readonly askEveryMs?: number | undefined;
}

/** The daemon asks again whether a vault needs repair after this long at the earliest. */
const REPAIR_AGAIN_MS = 30 * 60_000;
/** A scheduler that has not looked at the time for this long hangs. */
const STUCK_MS = 60_000;
/** One base backup or data set at a time, one verification, one check of a vault, so that memory stays bounded. */
/** What a replica that leads no more gets to store and acknowledge the WAL that it has received. */
const DRAIN_MS = 10_000;
const LANES = { backup: 1, configuration: 2, verify: 1, care: 1, check: 1 };

/** All that one daemon does at its site, from one state of the configuration. */
export class Daemon {
  readonly #options: DaemonOptions;
  readonly #supervisor: Supervisor;
  readonly #leader: LeaderKeeper | undefined;
  readonly #leadership: Leadership;
  readonly #executor: Executor;
  readonly #vaults: VaultWatch;
  readonly #role: RoleKeeper;
  readonly #scheduler: Scheduler;
  readonly #site: SiteWork;
  readonly #status: StatusService;
  readonly #repairAskedMs = new Map<string, number>();
  #stopping = false;
  /** What only the active site does all the time is begun. */
  #atWork = false;
  #arranging: Promise<void> = Promise.resolve();

  constructor(options: DaemonOptions) {
    const { world, clock, log, askEveryMs: everyMs = 10_000 } = options;
    const { config, site, stores, backups } = world;
    this.#options = options;
    const places = forSite(config, site);
    this.#supervisor = new Supervisor({ clock, log });
    const { replicas } = world;
    this.#leader =
      replicas &&
      new LeaderKeeper({
        ...replicas,
        succession: new VaultSuccession(site, stores, log, clock),
        clock,
        log,
        onChange: () => void this.#takeTurn(),
      });
    this.#leadership = this.#leader ?? alwaysLeads;
    this.#executor = world.executor?.(this.#leadership) ?? localExecutor;
    this.#vaults = new VaultWatch({ stores, clock, log, everyMs, onReturn: (vault) => this.#returned(vault) });
    this.#role = new RoleKeeper({
      site,
      firstActive: config.active,
      stores,
      clock,
      log,
      everyMs,
      onChange: () => this.#takeRole(),
    });
    this.#site = new SiteWork({
      places,
      context: backups,
      supervisor: this.#supervisor,
      oldestNeeded: async (database) => await oldestNeededWal(stores, database),
      needsBackup: (database) => this.#scheduler.runNow(backupJobName(database)),
      onLineage: (database, systemId) => void this.#checkLineage(database, systemId),
      onChange: (resource) => this.#scheduler.runNow(backupJobName(resource)),
    });
    this.#scheduler = new Scheduler({
      jobs: ledBy(this.#leadership, this.#jobs(places)),
      lanes: { ...LANES, backup: this.#executor.parallel, verify: this.#executor.parallel },
      ticker: options.ticker,
      onEnded: () => this.#status.wake(),
      clock,
      log,
    });
    this.#status = new StatusService({
      measure: {
        stores,
        resources: watchedResources(config),
        siteRegions: Object.fromEntries(Object.values(config.sites).map(({ name, region }) => [name, region])),
        firstActive: config.active,
        rtoMs: config.objectives.rtoMs,
        vaultCheck: checkIntervals(config),
        retentionEveryMs: worstIntervalMs(config.daemon.retentionSchedule),
      },
      everyMs: Math.min(60_000, Math.max(10_000, config.objectives.rpoMs / 10)),
      clock,
      log,
      onLacking: (vault) => {
        const askedMs = this.#repairAskedMs.get(vault);
        if (askedMs === undefined || clock.now() - askedMs >= REPAIR_AGAIN_MS) this.#askRepair(vault);
      },
    });
  }

  /** Begins; returns at once. */
  start(): void {
    const { world, log } = this.#options;
    const { config, site, keyRing } = world;
    log.info({ site, config: config.source.path }, 'the daemon begins its work');
    if (config.verification.schedule !== undefined && !canVerify(config, keyRing)) {
      log.warn(
        { next: 'Give --identity or $DR_IDENTITY_FILE to the daemon of at least one site.' },
        'this site cannot verify backups: it has no identity that opens them',
      );
    }
    // The first one ends last: the Lease is given back when nothing is left that it guards.
    if (this.#leader) this.#supervisor.add(this.#leader);
    for (const service of [this.#vaults, this.#role, this.#scheduler, this.#status]) this.#supervisor.add(service);
  }

  /**
   * Ends. Jobs under way get `graceMs` to finish, then WAL that was received is stored and acknowledged, so that nothing is half
   * done; with 0 everything is dropped cleanly at once. A second call with less grace shortens the first.
   */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    const supervisor = this.#supervisor;
    // In this order: a base backup that is finishing needs the archiver, and nothing may change the role any more.
    await supervisor.remove([this.#role], 0);
    this.#executor.letGo(new DrError('interrupted', 'the daemon was told to stop'));
    await supervisor.remove([this.#scheduler], graceMs);
    await this.#arranging;
    await this.#site.end(graceMs);
    await supervisor.stop(0);
  }

  /** Shortens a stop under way: jobs are dropped now; WAL is still stored. */
  async hurry(): Promise<void> {
    await this.#scheduler.stop(0);
  }

  /** True once every vault was asked and the question who is active was answered or failed. */
  started(): boolean {
    const { role, error } = this.#role.state;
    return this.#vaults.states().every(({ up }) => up !== undefined) && (role !== 'unknown' || error !== undefined);
  }

  health(): { readonly ok: boolean; readonly detail: string } {
    const silentMs = this.#options.clock.now() - this.#scheduler.tickedMs;
    if (silentMs < STUCK_MS || this.#stopping) return { ok: true, detail: 'working' };
    return { ok: false, detail: `the scheduler has not looked at the time for ${Math.round(silentMs / 1000)} s` };
  }

  /** What it does, for people and tests: role, jobs, services, WAL. */
  state(): object {
    return describeState(this.#options.world.site, this.metrics(), this.#executor.running());
  }

  readiness(): Readiness {
    return readinessOf({
      vaults: this.#vaults.states(),
      role: this.#role.state,
      leader: this.#leadership.state,
      archivers: this.#site.archivers,
      services: this.#supervisor.states(),
      stopping: this.#stopping,
    });
  }

  metrics(): MetricsView {
    const { world, clock } = this.#options;
    return {
      nowMs: clock.now(),
      role: this.#role.state,
      leader: this.#leadership.state,
      clusterJobs: this.#executor.counts(),
      rtoMs: world.config.objectives.rtoMs,
      stores: world.stores,
      vaults: this.#vaults.states(),
      status: this.#status.status,
      jobs: this.#scheduler.states(),
      services: this.#supervisor.states(),
      watching: this.#site.watching,
      archivers: this.#site.archivers.map((archiver) => ({ resource: archiver.resource, status: archiver.status() })),
    };
  }

  #jobs(places: SitePlaces) {
    const { world } = this.#options;
    const { config, stores, keyRing, backups } = world;
    const role = this.#role;
    // What a recovery would use first: the site's own vault where it stands by, another one where it is active.
    const inOrder = () => {
      const own = stores.filter(({ name }) => name === places.vault.name);
      const others = stores.filter(({ name }) => name !== places.vault.name);
      return role.state.role === 'active' ? [...others, ...own] : [...own, ...others];
    };
    return [
      ...backupJobs({
        places,
        role,
        executor: this.#executor,
        replicated: this.#leadership.state !== undefined,
        context: backups,
        untilReceiving: async (database, signal) => await this.#site.untilReceiving(database, signal),
        onLost: (vaults) => {
          for (const vault of vaults) this.#askRepair(vault);
        },
      }),
      ...verifyJobs({
        config,
        role,
        executor: this.#executor,
        context: backups,
        keyRing,
        stores: inOrder,
        verify: world.verify,
      }),
      ...careJobs({
        role,
        context: backups,
        policies: retentionPolicies(config),
        schedule: config.daemon.applyRetention ? config.daemon.retentionSchedule : undefined,
        databases: Object.keys(config.databases),
        own: { ...config.source, runbooks: config.runbooks ?? shippedRunbooks },
      }),
      ...vaultCheckJobs({
        role,
        context: backups,
        config: config.daemon.vaultCheck,
        policies: retentionPolicies(config),
        bare: world.bare,
        ownVault: places.vault.name,
        documents: vaultDocuments,
      }),
    ];
  }

  async #takeRole(): Promise<void> {
    // Jobs that are not this site's any more are stopped at once, before anything is waited for.
    this.#scheduler.tick();
    await this.#arrange(true);
    if (this.#role.state.role === 'standby') this.#executor.endBackups();
    this.#executor.adopt();
    this.#status.wake();
  }

  /** This replica leads, or leads no more. */
  async #takeTurn(): Promise<void> {
    this.#scheduler.tick();
    await this.#arrange(false);
    this.#executor.adopt();
    this.#status.wake();
  }

  /** Begins or ends what only the leader at the active site does all the time, one change after the other; `anew`: even if it runs. */
  #arrange(anew: boolean): Promise<void> {
    this.#arranging = this.#arranging.then(async () => {
      // `stop` ends it in its own order.
      if (this.#stopping) return;
      const isActive = this.#role.state.role === 'active';
      const wanted = isActive && this.#leadership.keeps();
      if (wanted === this.#atWork && !anew) return;
      this.#atWork = wanted;
      if (wanted) await this.#site.begin();
      else await this.#site.end(isActive ? DRAIN_MS : 0);
    });
    return this.#arranging;
  }

  /** Another PostgreSQL system under the same name (recovered elsewhere, set up anew) needs its first base backup at once. */
  async #checkLineage(database: string, systemId: string): Promise<void> {
    const { world, log } = this.#options;
    const known = await newestSystem(world.stores, database).catch(() => undefined);
    const job = backupJobName(database);
    if (known === undefined || known === systemId || this.#stopping || this.#scheduler.isRunning(job)) return;
    log.warn({ resource: database, known, systemId }, 'this is another PostgreSQL system than the one backed up last');
    this.#scheduler.runNow(job);
  }

  #returned(vault: string): void {
    this.#askRepair(vault);
    if (!this.#stopping) this.#scheduler.runNow(OWN_CONFIGURATION_JOB);
  }

  #askRepair(vault: string): void {
    if (this.#stopping) return;
    this.#repairAskedMs.set(vault, this.#options.clock.now());
    this.#scheduler.runNow(repairJobName(vault));
  }
}
