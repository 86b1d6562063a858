import { everyBackup, surveyVault } from '../backup/retention/collect-survey.ts';
import { readWalHeartbeat } from '../backup/wal/heartbeat.ts';
import type { WalPosition } from '../backup/wal/listing.ts';
import { syncWal } from '../backup/wal/sync.ts';
import type { Clock } from '../base/clock.ts';
import { DrError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Lsn } from '../postgres/lsn.ts';
import type { ObjectStore } from '../vault/store.ts';

/** Heartbeats missed until an archiver counts as gone. */
const MISSED_BEATS = 3;

export interface RepairWalOptions {
  readonly from: readonly ObjectStore[];
  readonly to: ObjectStore;
  readonly databases: readonly string[];
  readonly clock: Clock;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/**
 * Copies to a vault the WAL that its backups need and it lacks, of PostgreSQL systems that nobody archives now (those of a site that is
 * gone): a running archiver mends its own. Resolves to the number of objects copied.
 */
export async function copyMissingWal(options: RepairWalOptions): Promise<number> {
  const { from, to, log, signal } = options;
  const survey = await surveyVault(to, signal);
  const oldest = new Map<string, { from: Lsn; segmentBytes: number }>();
  for (const { wal } of everyBackup(survey)) {
    const known = wal && oldest.get(wal.systemId);
    if (wal && (!known || wal.from < known.from)) oldest.set(wal.systemId, wal);
  }
  const archived = await systemsArchivedNow(options);
  let copied = 0;
  for (const [systemId, need] of oldest) {
    if (archived.has(systemId)) continue;
    const position: WalPosition = { timeline: 1, lsn: need.from };
    const result = await syncWal({
      sources: from,
      target: to,
      systemId,
      from: position,
      segmentBytes: need.segmentBytes,
      log,
      signal,
    });
    copied += result.copied;
    const [failed] = result.failed;
    if (failed) {
      throw new DrError(
        'corrupt',
        `vault ${to.name} still lacks WAL of system ${systemId}: ${messageOf(failed.error)}`,
        {
          where: `${failed.vault}: ${failed.key}`,
          next: 'Take a new base backup, so that recovery does not need this WAL.',
          cause: failed.error,
          retryable: false,
        },
      );
    }
  }
  return copied;
}

/** By the heartbeats in any vault. */
async function systemsArchivedNow(options: RepairWalOptions): Promise<ReadonlySet<string>> {
  const { from, to, databases, clock, log, signal } = options;
  const systems = new Set<string>();
  for (const store of [to, ...from]) {
    for (const database of databases) {
      try {
        const beat = await readWalHeartbeat(store, database, signal);
        const silentMs = beat ? clock.now() - Date.parse(beat.writtenAt) : 0;
        if (beat && silentMs < MISSED_BEATS * beat.everyMs) systems.add(beat.systemId);
      } catch (error) {
        signal.throwIfAborted();
        log.debug({ vault: store.name, database, reason: messageOf(error) }, 'no heartbeat could be read');
      }
    }
  }
  return systems;
}
