import { newestBackup } from '../backup/catalog.ts';
import type { Manifest } from '../backup/manifest.ts';
import { chooseDatabaseBackup, type DatabaseRecoveryPoint } from '../backup/recover-database.ts';
import { readWalHeartbeat } from '../backup/wal/heartbeat.ts';
import type { WantedTarget } from '../backup/wal/plan.ts';
import { DrError, isAbort, messageOf } from '../base/errors.ts';
import { parseLsn } from '../postgres/lsn.ts';
import type { KeyRing } from '../vault/keys.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { Heartbeat, RecoveryTarget, ResourceKind, ResourcePoint } from './ports.ts';

/** What one vault offers for a resource; `reach` orders offers of different vaults. */
interface Offer {
  readonly store: ObjectStore;
  readonly manifest: Manifest;
  readonly recoveryPointMs: number;
  readonly bytes: number;
  readonly reach: bigint;
}

/**
 * The best recovery point over all vaults: the one that reaches furthest; of equal ones the first in the order of the stores (the
 * recovery site's own vault). A vault that cannot be used says why among the candidates.
 */
export async function assessResource(
  stores: readonly ObjectStore[],
  keyRing: KeyRing,
  resource: { readonly name: string; readonly kind: ResourceKind },
  at: RecoveryTarget,
  signal: AbortSignal,
): Promise<ResourcePoint> {
  const candidates: Array<{ vault: string; recoveryPointMs?: number; problem?: string }> = [];
  const failures: unknown[] = [];
  const offers = await Promise.all(
    stores.map(async (store) => {
      try {
        const offer =
          resource.kind === 'database'
            ? await databaseOffer(store, resource.name, at, signal)
            : await directoryOffer(store, resource.name, at);
        // A backup that the identity does not open is none: better known now than in the middle of the night's work.
        if (offer.manifest.index.keyId !== undefined) await keyRing.open(store, offer.manifest.index.keyId);
        return offer;
      } catch (error) {
        if (signal.aborted || isAbort(error)) throw error;
        failures.push(error);
        candidates.push({ vault: store.name, problem: messageOf(error) });
        return undefined;
      }
    }),
  );
  let best: Offer | undefined;
  for (const offer of offers) {
    if (offer === undefined) continue;
    candidates.push({ vault: offer.store.name, recoveryPointMs: offer.recoveryPointMs });
    if (best === undefined || offer.reach > best.reach) best = offer;
  }
  if (best === undefined) {
    if (failures.length === 1) throw failures[0];
    throw new DrError(
      'not-found',
      `no vault can bring ${resource.name} back: ${candidates.map(({ vault, problem }) => `${vault}: ${problem}`).join('; ')}`,
      {
        next: 'Make a vault with its backups reachable, or choose another --at.',
        cause: failures[0],
      },
    );
  }
  const { store, manifest, recoveryPointMs, bytes } = best;
  return {
    resource: resource.name,
    kind: resource.kind,
    vault: store.name,
    backupId: manifest.id,
    recoveryPointMs,
    bytes,
    candidates,
  };
}

/** The target in the terms of the backup layer. */
export function wanted(at: RecoveryTarget): WantedTarget {
  if (at.kind !== 'lsn') return at;
  const lsn = parseLsn(at.lsn);
  if (lsn === undefined)
    throw new DrError('usage', `"${at.lsn}" is not an LSN`, { next: 'Write it as PostgreSQL does: 0/16B3748.' });
  return { kind: 'lsn', lsn };
}

/** The moment that a point brings back, milliseconds since 1970. */
export function momentOf({ manifest, plan }: DatabaseRecoveryPoint, at: RecoveryTarget): number {
  if (at.kind === 'time') return at.atMs;
  return plan.coveredUntilMs > 0 ? plan.coveredUntilMs : Date.parse(manifest.recoveryPoint);
}

async function databaseOffer(
  store: ObjectStore,
  name: string,
  at: RecoveryTarget,
  signal: AbortSignal,
): Promise<Offer> {
  const point = await chooseDatabaseBackup(store, name, wanted(at), signal);
  const { manifest, plan } = point;
  return {
    store,
    manifest,
    recoveryPointMs: momentOf(point, at),
    bytes: manifest.logicalBytes + plan.walBytes,
    // A later timeline beats any position on an earlier one; for a given target all that reach it are equal.
    reach: at.kind === 'latest' ? (BigInt(plan.timeline) << 64n) + plan.endLsn : 0n,
  };
}

async function directoryOffer(store: ObjectStore, name: string, at: RecoveryTarget): Promise<Offer> {
  const manifest = await newestBackup(store, name, at.kind === 'time' ? at.atMs : undefined);
  if (manifest === undefined) {
    const until = at.kind === 'time' ? ` up to ${new Date(at.atMs).toISOString()}` : '';
    throw new DrError('not-found', `vault ${store.name} has no backup of ${name}${until}`, {
      where: store.location,
      next: 'Look at "dr backups".',
    });
  }
  const recoveryPointMs = Date.parse(manifest.recoveryPoint);
  return { store, manifest, recoveryPointMs, bytes: manifest.logicalBytes, reach: BigInt(recoveryPointMs) };
}

/** The newest heartbeat of each vault that has one and answers. */
export async function heartbeatsIn(
  stores: readonly ObjectStore[],
  database: string,
  signal: AbortSignal,
): Promise<Heartbeat[]> {
  const found = await Promise.all(
    stores.map(async (store) => {
      try {
        const beat = await readWalHeartbeat(store, database, signal);
        return (
          beat && {
            vault: store.name,
            database,
            site: beat.site,
            writtenAtMs: Date.parse(beat.writtenAt),
            everyMs: beat.everyMs,
            lsn: beat.lsn,
          }
        );
      } catch (error) {
        if (signal.aborted || isAbort(error)) throw error;
        return undefined;
      }
    }),
  );
  return found.filter((beat) => beat !== undefined);
}
