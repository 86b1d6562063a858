import { copyMissing } from '../../src/backup/care/repair.ts';
import type { Manifest } from '../../src/backup/manifest.ts';
import { applyRetention } from '../../src/backup/retention/collect.ts';
import { clearHolds, readHolds, setHold } from '../../src/backup/retention/holds.ts';
import { markOutcome } from '../../src/backup/retention/outcome.ts';
import type { RetentionPolicy } from '../../src/backup/retention/retention.ts';
import { writeVerification } from '../../src/backup/verified.ts';
import { DrError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { formatLsn } from '../../src/postgres/lsn.ts';
import { timedId } from '../../src/vault/layout.ts';
import type { ObjectStore } from '../../src/vault/store.ts';
import { type Memory, takeHandmade } from './handmade.ts';
import { type Actor, day, hour, type Scheduler } from './scheduler.ts';
import { manifestsOf, SEGMENT, SYSTEM, type World, walSegmentKey } from './world.ts';

const kinds = { uploads: 'data', settings: 'configuration', orders: 'database' } as const;
export type Resource = keyof typeof kinds;
export const resources: readonly Resource[] = ['uploads', 'settings', 'orders'];

/** What a machine that takes backups does with real content, in place of `takeHandmade`. */
export type TakeReal = (
  context: Parameters<typeof takeHandmade>[0],
  options: Parameters<typeof takeHandmade>[1],
  machine: string,
) => Promise<string>;

/** A machine that takes backups, and what it remembers of them. */
interface Machine {
  readonly name: string;
  readonly memory: Memory;
}

/** What the processes of a history do: the code of `dr`, over the vaults of the world. Each says in a few words how it ended. */
export class Processes {
  readonly world: World;
  readonly scheduler: Scheduler;
  readonly policies: ReadonlyMap<string, RetentionPolicy>;
  readonly resources: readonly Resource[];
  readonly machines: readonly Machine[] = ['site-a', 'site-b'].map((name) => ({ name, memory: new Map() }));
  readonly #takeReal: TakeReal | undefined;
  #segment = 1;

  constructor(world: World, takeReal: TakeReal | undefined) {
    this.world = world;
    this.scheduler = world.scheduler;
    this.#takeReal = takeReal;
    const { random } = world.scheduler;
    // Few resources, so that processes meet.
    this.resources = random.chance(0.3) ? resources : [random.pick(resources)];
    const retentionMs = random.pick([hour, hour, day, 3 * day, 10 * day]);
    world.walRetentionMs = retentionMs;
    const keepAtLeast = random.pick([1, 1, 2]);
    const periods = random.chance(0.3) ? { daily: 2, weekly: 1, monthly: 1, timeZone: 'UTC' } : undefined;
    this.policies = new Map(resources.map((name) => [name, { kind: kinds[name], retentionMs, keepAtLeast, periods }]));
  }

  retentionOptions(actor: Actor) {
    return {
      stores: this.world.storesOf(actor),
      policies: this.policies,
      clock: this.scheduler.clockOf(actor),
      log: silentLog,
      signal: actor.stop.signal,
    };
  }

  async retention(actor: Actor): Promise<string> {
    const options = this.retentionOptions(actor);
    const report = await applyRetention(options);
    await markOutcome(
      options.stores,
      report,
      { nowMs: options.clock.now(), site: actor.name },
      silentLog,
      options.signal,
    );
    const said = report.vaults.map(({ vault, removals, blocked }) => {
      const objects = removals.reduce((sum, removal) => sum + removal.objects, 0);
      return `${vault} ${objects}${blocked === undefined ? '' : ` (${blocked})`}`;
    });
    return report.held ?? said.join(', ');
  }

  async backup(actor: Actor, machine = this.machines[0]): Promise<string> {
    const { random } = this.scheduler;
    const resource = random.pick(this.resources);
    const context = this.world.contextOf(actor);
    const take = this.#takeReal ?? takeHandmade;
    return await take(
      context,
      {
        resource,
        kind: kinds[resource],
        memory: machine?.memory ?? new Map(),
        random,
        unchanged: resource === 'settings' && random.chance(0.3),
        ...(resource === 'orders' ? { database: (vaults) => this.#archive(vaults) } : {}),
      },
      machine?.name ?? '',
    );
  }

  /** What the server writes while the base backup runs, archived in the vaults that take part. */
  async #archive(vaults: readonly ObjectStore[]): Promise<Manifest['database']> {
    const first = this.#segment;
    const last = first + this.scheduler.random.below(2);
    this.#segment = last + 1;
    for (const store of vaults) {
      for (let number = Math.max(1, first - 1); number <= last; number++) {
        await store.create(walSegmentKey(number), Buffer.from(`WAL ${number}`));
      }
    }
    return {
      systemId: SYSTEM,
      timeline: 1,
      startLsn: formatLsn(BigInt(first * SEGMENT) + 40n),
      endLsn: formatLsn(BigInt(last * SEGMENT) + 400n),
      version: '17.0',
      majorVersion: 17,
      segmentBytes: SEGMENT,
      dataChecksums: true,
      settings: {},
      tablespaces: [],
    };
  }

  async repair(actor: Actor, to = this.scheduler.random.below(2)): Promise<string> {
    const stores = this.world.storesOf(actor);
    const [target, source] = to === 0 ? [stores[0], stores[1]] : [stores[1], stores[0]];
    if (!target || !source) throw new Error('no vaults');
    const { clock, log, signal, policies } = this.retentionOptions(actor);
    const { copied, failed } = await copyMissing({ from: [source], to: target, policies, clock, log, signal });
    if (copied.some(({ resource }) => resource === 'orders')) await this.#copyWal(source, target);
    return `${copied.length} copied to ${target.name}, ${failed.length} failed`;
  }

  /** All WAL that the target lacks, before anyone relies upon it. */
  async #copyWal(source: ObjectStore, target: ObjectStore): Promise<void> {
    for await (const { key } of source.list(`wal/${SYSTEM}/`)) {
      const bytes = await source.read(key).catch(() => undefined);
      if (bytes) await target.create(key, bytes);
    }
  }

  /** Reads the newest backup of a vault to its end. Nothing of it may go meanwhile. */
  async restore(actor: Actor): Promise<string> {
    const { scheduler, world } = this;
    const place = scheduler.random.below(2);
    const store = world.storesOf(actor)[place];
    const vault = world.vaults[place];
    if (!store || !vault) throw new Error('no vaults');
    const manifest = manifestsOf(vault.objects).at(-1);
    if (!manifest) return 'nothing to restore';
    const beganMs = scheduler.nowMs;
    for (const { key } of [...manifest.parts, manifest.index]) {
      try {
        await store.read(key, undefined, { signal: actor.stop.signal });
      } catch (error) {
        const tookMs = scheduler.nowMs - beganMs;
        const gone = error instanceof DrError && error.kind === 'not-found';
        if (gone && tookMs < 40 * hour)
          world.fault(`${actor.name}: ${key} went away while it was restored, after ${tookMs / hour} h`);
        throw error;
      }
    }
    return `restored ${manifest.id} from ${store.name}`;
  }

  async hold(actor: Actor): Promise<string> {
    const stores = this.world.storesOf(actor);
    const nowMs = this.scheduler.nowMs;
    const { active } = await readHolds(stores, actor.stop.signal);
    if (active.length > 0) {
      await clearHolds(stores, { by: 'x', nowMs }, actor.stop.signal);
      return 'cleared';
    }
    const { hold } = await setHold(stores, { reason: 'x', by: 'x', nowMs }, actor.stop.signal);
    return `set ${hold.id}`;
  }

  async verify(actor: Actor): Promise<string> {
    const { random, nowMs } = this.scheduler;
    const manifests = manifestsOf(random.pick(this.world.vaults).objects);
    if (manifests.length === 0) return 'nothing to verify';
    const manifest = random.pick(manifests);
    const at = new Date(nowMs).toISOString();
    const ok = random.chance(0.5);
    const report = {
      format: 1 as const,
      id: timedId(nowMs, random.hex(3)),
      resource: manifest.resource,
      kind: manifest.kind,
    };
    const found = {
      backupId: manifest.id,
      vault: 'east',
      site: 'x',
      startedAt: at,
      finishedAt: at,
      recoveredTo: at,
      ok,
    };
    const rest = { checks: [], bytes: 1, restoreMs: 1 };
    await writeVerification(this.world.storesOf(actor), { ...report, ...found, ...rest }, silentLog, actor.stop.signal);
    return `${manifest.id} is ${ok ? 'good' : 'bad'}`;
  }
}
