import type { BackupContext } from '../../src/backup/context.ts';
import { decodeManifest, type Manifest } from '../../src/backup/manifest.ts';
import { GRACE_MS } from '../../src/backup/retention/collect-check.ts';
import { parseWalKey, rangeOfName } from '../../src/backup/wal/names.ts';
import { silentLog } from '../../src/base/log.ts';
import { parseLsn, segmentStart } from '../../src/postgres/lsn.ts';
import { layout, timeOfId } from '../../src/vault/layout.ts';
import { InlinePool } from './inline-pool.ts';
import { Objects } from './objects.ts';
import { type Actor, hour, type Scheduler } from './scheduler.ts';
import { SimStore, type SimVault, type Watch } from './sim-store.ts';

export const SYSTEM = '7301234567890123456';
export const SEGMENT = 1024 * 1024;
/** The public half of some identity: nothing is ever opened here. */
export const RECIPIENT = 'age1dympj9xknp5wnnpzyl29e7djsw8f0qww7e9yxx62s7m4mjss0eassrjjqk';

const pool = new InlinePool();

/** The vaults, and everything that must never be seen in them. */
export class World implements Watch {
  readonly scheduler: Scheduler;
  readonly vaults: readonly SimVault[];
  /** How long the window of the database is, milliseconds. */
  walRetentionMs = 0;
  /** What has gone wrong. */
  readonly faults: string[] = [];
  /** When each hold that stands was set: the number of the step. */
  readonly #holds = new Map<string, number>();
  readonly #cleared = new Set<string>();
  /** Of each process, the last request that is no look at holds and leases: the number of the step in which it was sent. */
  readonly #worked = new Map<Actor, number>();

  constructor(scheduler: Scheduler) {
    this.scheduler = scheduler;
    const { random } = scheduler;
    this.vaults = ['east', 'west'].map((name) => {
      const skewMs = (random.next() - 0.5) * hour;
      const now = () => scheduler.nowMs + skewMs;
      return { objects: new Objects(name, now), away: false };
    });
  }

  storesOf(actor: Actor): SimStore[] {
    return this.vaults.map((vault) => new SimStore(vault, actor, this.scheduler, this));
  }

  contextOf(actor: Actor): BackupContext {
    return {
      stores: this.storesOf(actor),
      keyPolicy: { recipients: [RECIPIENT] },
      pool,
      site: actor.name,
      tool: 'dr test',
      compressionLevel: 1,
      partBytes: 1000,
      clock: this.scheduler.clockOf(actor),
      log: silentLog,
      signal: actor.stop.signal,
    };
  }

  fault(text: string): void {
    this.scheduler.note(`FAULT: ${text}`);
    this.faults.push(text);
  }

  sent(actor: Actor, vault: string, kind: string, keys: readonly string[]): void {
    const [key = ''] = keys;
    if (key.startsWith('holds/') || key.startsWith('leases/')) return;
    const before = this.#worked.get(actor) ?? 0;
    this.#worked.set(actor, this.scheduler.step);
    if (kind !== 'delete' || !actor.name.startsWith('retention')) return;
    // Between the look at the holds and the request nothing else is asked for: so the hold was there when it looked.
    for (const [hold, since] of this.#holds) {
      if (before > since)
        this.fault(`${actor.name} deletes ${key} from ${vault} although hold ${hold} stood when it looked`);
    }
  }

  served(actor: Actor, { objects }: SimVault, kind: string, keys: readonly string[]): void {
    const [key = ''] = keys;
    const hold = /^holds\/(.+?)(\.cleared)?\.json$/.exec(key);
    if (kind === 'create' && hold?.[1] !== undefined) {
      const [, id, cleared] = hold;
      if (cleared !== undefined) this.#cleared.add(id);
      // One that arrives after it was cleared stands no more.
      if (this.#cleared.has(id)) this.#holds.delete(id);
      else if (!this.#holds.has(id)) this.#holds.set(id, this.scheduler.step);
    }
    if (kind === 'delete' && actor.name.startsWith('retention')) {
      for (const each of keys) {
        this.#requireOld(actor, objects, each);
        this.#requireUnneeded(actor, objects, each);
      }
    }
  }

  /** What retention deletes is older than the grace period by the clock of the vault, and never the newest backup. */
  #requireOld(actor: Actor, objects: Objects, key: string): void {
    if (key.startsWith('leases/') || key.startsWith('hints/')) return;
    const info = objects.get(key);
    if (!info) return;
    const [, resource, id] = /^manifests\/([^/]+)\/(.+)\.json$/.exec(key) ?? [];
    if (resource !== undefined && id !== undefined) {
      const others = keysOf(objects, `manifests/${resource}/`).filter((other) => other > key);
      if (others.length === 0)
        this.fault(`${actor.name} deletes the newest backup of ${resource} from ${objects.name}: ${id}`);
      return;
    }
    const nowMs = this.scheduler.nowMs;
    // Clocks may differ by an hour; the name is by the clock of whoever made it.
    const madeMs = Math.max(info.modifiedMs, timeOfId(key.split('/')[2] ?? '') ?? 0);
    if (nowMs - madeMs < GRACE_MS - 2 * hour) {
      this.fault(`${actor.name} deletes ${key} from ${objects.name}, which is ${(nowMs - madeMs) / hour} h old`);
    }
  }

  /** What retention deletes of WAL makes no base backup of that vault consistent, and no moment of the window is recovered with it. */
  #requireUnneeded(actor: Actor, objects: Objects, key: string): void {
    const name = parseWalKey(key);
    if (!name || name.kind === 'history') return;
    const { start } = rangeOfName(name, SEGMENT);
    const bases = manifestsOf(objects).flatMap((manifest) =>
      manifest.database ? [{ ...manifest.database, id: manifest.id, atMs: Date.parse(manifest.recoveryPoint) }] : [],
    );
    const from = ({ startLsn }: (typeof bases)[number]) => segmentStart(parseLsn(startLsn) ?? 0n, SEGMENT);
    // An hour and a half for clocks that differ.
    const windowMs = this.scheduler.nowMs - this.walRetentionMs + 1.5 * hour;
    const base = bases.filter(({ atMs }) => atMs <= windowMs).at(-1) ?? bases[0];
    if (base && start >= from(base))
      this.fault(`${actor.name} deletes ${key} from ${objects.name}: the window needs it`);
    for (const each of bases) {
      if (start < from(each) || start >= (parseLsn(each.endLsn) ?? 0n)) continue;
      this.fault(`${actor.name} deletes ${key} from ${objects.name}: base backup ${each.id} needs it`);
    }
  }

  /** Every backup that any vault shows is whole in that vault: content, index and keys. WAL comes by other ways. */
  requireWhole(when: string): void {
    for (const { objects } of this.vaults) {
      for (const manifest of manifestsOf(objects)) {
        const missing = this.missingOf(objects, manifest);
        if (missing.length > 0) {
          this.fault(
            `${when}: backup ${manifest.resource} ${manifest.id} in ${objects.name} lacks ${missing.join(', ')}`,
          );
        }
      }
    }
  }

  missingOf(objects: Objects, manifest: Manifest): string[] {
    const missing = [manifest.index, ...manifest.parts].flatMap(({ key, size }) =>
      objects.get(key)?.size === size ? [] : [key],
    );
    const keyIds = new Set([manifest.index, ...manifest.parts].flatMap(({ keyId }) => keyId ?? []));
    for (const keyId of keyIds) if (keysOf(objects, `keys/${keyId}/`).length === 0) missing.push(`key ${keyId}`);
    return missing;
  }

  /** After a quiet time and a retention of everything: nothing is left that no backup of any vault needs. */
  requireTidy(): void {
    const needed = new Set<string>();
    for (const { objects } of this.vaults) {
      for (const { index, parts } of manifestsOf(objects)) {
        for (const { key, keyId } of [index, ...parts]) needed.add(key).add(`keys/${keyId}/000001.json`);
      }
    }
    for (const { objects } of this.vaults) {
      for (const key of keysOf(objects, '')) {
        if (/^(parts|indexes|keys)\//.test(key) && !needed.has(key))
          this.fault(`${key} is never removed from ${objects.name}`);
      }
    }
  }
}

export function keysOf(objects: Objects, prefix: string): string[] {
  return objects.list(prefix).map(({ key }) => key);
}

export function manifestsOf(objects: Objects): Manifest[] {
  return objects.list('manifests/').map(({ key, bytes }) => decodeManifest(bytes, key));
}

export function walSegmentKey(number: number): string {
  const name = `00000001${'0'.repeat(8)}${number.toString(16).toUpperCase().padStart(8, '0')}`;
  return layout.walSegment(SYSTEM, 1, name);
}
