import { applyRetention } from '../../src/backup/retention/collect.ts';
import { clearHolds } from '../../src/backup/retention/holds.ts';
import { DrError } from '../../src/base/errors.ts';
import { Processes, type TakeReal } from './processes.ts';
import { type Actor, day, hour, minute, Scheduler } from './scheduler.ts';
import { World } from './world.ts';

type Mischief = 'kill' | 'pause' | 'pass' | 'away' | 'yield' | 'stop';
const mischiefs: ReadonlyArray<readonly Mischief[]> = [
  ['pause', 'pause', 'yield'],
  ['pause', 'kill', 'away'],
  ['kill', 'yield', 'stop'],
  ['pass', 'pause', 'kill'],
  ['away', 'kill', 'pass', 'yield'],
  ['kill', 'pause', 'pass', 'away', 'yield', 'stop'],
];

export interface HistoryOptions {
  readonly tracing?: boolean;
  readonly takeReal?: TakeReal | undefined;
}

export interface HistoryResult {
  readonly seed: number;
  readonly faults: readonly string[];
  readonly steps: number;
  /** How each process ended. */
  readonly outcomes: readonly string[];
  readonly trace: readonly string[];
}

/**
 * One history: old backups, then one to three times of trouble, in which backups, retentions, copies between vaults, restores, holds
 * and verifications run at once, are paused and killed, vaults go away, and clocks differ; then quiet. Checked after every time of
 * trouble, and at the end.
 */
export async function runHistory(seed: number, options: HistoryOptions = {}): Promise<HistoryResult> {
  const history = new History(seed, options);
  try {
    await history.run();
  } catch (error) {
    history.world.fault(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
  const { scheduler, world } = history;
  return {
    seed,
    faults: world.faults,
    steps: scheduler.step,
    outcomes: scheduler.actors.map(({ name, outcome }) => `${name}: ${outcome}`),
    trace: scheduler.trace,
  };
}

class History {
  readonly scheduler: Scheduler;
  readonly world: World;
  readonly #processes: Processes;
  readonly #mischiefs: readonly Mischief[];
  readonly #holding: boolean;
  /** One process of this sort is paused or killed at some step of its own, and others begin while it stands still. */
  #fated: string | undefined;
  #names = 0;

  constructor(seed: number, options: HistoryOptions) {
    this.scheduler = new Scheduler(seed, {
      startMs: Date.UTC(2026, 10, 23),
      tracing: options.tracing === true,
      usesSystem: options.takeReal !== undefined,
    });
    this.world = new World(this.scheduler);
    const { random } = this.scheduler;
    this.#processes = new Processes(this.world, options.takeReal);
    this.#mischiefs = random.pick(mischiefs);
    this.#holding = random.chance(0.4);
  }

  async run(): Promise<void> {
    const { scheduler, world } = this;
    const { random } = scheduler;
    for (let i = 1 + random.below(4); i > 0; i--) {
      await this.#calmly(`old-backup`, (actor) => this.#processes.backup(actor, this.#processes.machines[0]));
      scheduler.nowMs += random.pick([hour, 20 * hour, 3 * day, 3 * day, 12 * day]);
    }
    for (let i = 1 + random.below(3); i > 0; i--) {
      await this.#trouble();
      world.requireWhole('after trouble');
      if (world.faults.length > 0) return;
      scheduler.nowMs += random.pick([0, hour, 40 * hour, 50 * hour, 5 * day]);
    }
    await this.#quiet();
  }

  async #trouble(): Promise<void> {
    const { scheduler } = this;
    const { random } = scheduler;
    scheduler.calm = false;
    const does = this.#processes;
    const processes: Array<() => void> = [
      () => this.#start('retention', (actor) => does.retention(actor)),
      () => this.#start('backup', (actor) => does.backup(actor, random.pick(does.machines))),
    ];
    const more = [
      ...processes,
      ...processes,
      () => this.#start('repair', (actor) => does.repair(actor)),
      () => this.#start('restore', (actor) => does.restore(actor)),
      ...(this.#holding ? [() => this.#start('hold', (actor) => does.hold(actor))] : []),
      () => this.#start('verify', (actor) => does.verify(actor)),
    ];
    for (let i = 2 + random.below(6); i > 0; i--) processes.push(random.pick(more));
    if (random.chance(0.6)) {
      this.#fated = random.pick(['backup', 'retention', 'repair']);
      for (const start of processes) scheduler.later(random.pick([0, 0, 3000]), start);
      // Past the grace period, and before who stands still goes on.
      for (let i = 1 + random.below(3); i > 0; i--)
        scheduler.later(random.pick([49, 50, 51]) * hour, random.pick(more));
    } else {
      const delays = random.pick([[0], [0, 0, 2000], [0, 5000, 20 * hour, 49 * hour, 65 * hour]]);
      for (const start of processes) scheduler.later(random.pick(delays), start);
    }
    const troublesome = this.#fated === undefined ? random.pick([0.003, 0.01, 0.03]) : 0.001;
    await scheduler.run(() => {
      scheduler.pass(random.below(200));
      const stirs = random.chance(troublesome);
      if (stirs) this.#mischief();
      return stirs;
    });
    for (const vault of this.world.vaults) vault.away = false;
    scheduler.calm = true;
  }

  /** Something that happens to processes and vaults, of the kinds that this history is about. */
  #mischief(): void {
    const { scheduler } = this;
    const { random } = scheduler;
    const living = scheduler.actors.filter(({ dead, done }) => !dead && !done);
    if (living.length === 0) return;
    const actor = random.pick(living);
    const long = random.pick([minute, 7 * hour, 20 * hour, 40 * hour, 60 * hour, 60 * hour, 5 * day]);
    switch (random.pick(this.#mischiefs)) {
      case 'kill':
        scheduler.kill(actor);
        return;
      case 'pause':
        scheduler.note(`${actor.name} stands still for ${long / hour} h`);
        actor.pausedUntilMs = scheduler.nowMs + long;
        return;
      case 'pass':
        scheduler.pass(long);
        return;
      case 'away': {
        const vault = random.pick(this.world.vaults);
        vault.away = !vault.away;
        scheduler.note(`vault ${vault.objects.name} ${vault.away ? 'goes away' : 'is back'}`);
        return;
      }
      case 'yield':
        actor.priority = random.next() - 1;
        return;
      case 'stop':
        scheduler.note(`${actor.name} is told to stop`);
        actor.stop.abort(new DrError('interrupted', 'told to stop'));
    }
  }

  /** Everything is mended and time passes; what nobody needs has to go. */
  async #quiet(): Promise<void> {
    const { scheduler, world } = this;
    scheduler.nowMs += 100 * day;
    const calmly = (name: string, work: (actor: Actor) => Promise<string>) => this.#calmly(name, work);
    await calmly('end-of-holds', async (actor) => {
      await clearHolds(world.storesOf(actor), { by: 'x', nowMs: scheduler.nowMs }).catch((error: unknown) => {
        if (!(error instanceof DrError && error.kind === 'not-found')) throw error;
      });
      return 'done';
    });
    for (let i = 0; i < 2; i++) {
      for (const to of [0, 1]) await calmly('last-repair', (actor) => this.#processes.repair(actor, to));
    }
    for (let i = 0; i < 2; i++) {
      // What was copied a moment ago is too young to go.
      scheduler.nowMs += 3 * day;
      await calmly('last-retention', async (actor) => {
        const report = await applyRetention(this.#processes.retentionOptions(actor));
        for (const { vault, error, blocked } of report.vaults) {
          if (error !== undefined || blocked !== undefined) world.fault(`the last retention of ${vault}: ${blocked}`);
        }
        return 'done';
      });
    }
    world.requireWhole('at the end');
    world.requireTidy();
  }

  async #calmly(name: string, work: (actor: Actor) => Promise<string>): Promise<void> {
    const actor = this.scheduler.actor(`${name}-${++this.#names}`);
    actor.outcome = await work(actor);
    actor.done = true;
    this.scheduler.note(`${actor.name}: ${actor.outcome}`);
  }

  #start(name: string, work: (actor: Actor) => Promise<string>): void {
    const actor = this.scheduler.actor(`${name}-${++this.#names}`, this.#skew());
    this.scheduler.note(`${actor.name} starts, its clock is off by ${Math.round(actor.skewMs / minute)} min`);
    const { random } = this.scheduler;
    if (name === this.#fated) {
      const pauseMs = random.pick([minute, 60 * hour, 60 * hour, 60 * hour, 'dies'] as const);
      const prefix = random.pick(['', 'holds/', 'leases/', 'manifests/', 'indexes/', 'parts/', 'keys/']);
      actor.fate = { prefix, left: 1 + random.below(prefix === '' ? 40 : random.pick([2, 6])), pauseMs };
      this.#fated = undefined;
    }
    this.scheduler.start(actor, () => work(actor));
  }

  #skew(): number {
    return Math.round((this.scheduler.random.next() - 0.5) * 2 * hour);
  }
}
