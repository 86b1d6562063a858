import type { Log } from '../base/log.ts';
import { printableUrl } from '../base/redact.ts';
import { connectReplication, type ReplicationConnection } from '../postgres/connection.ts';
import type { PreviousBackup as ServerPrevious } from '../postgres/incremental-manifest.ts';
import { formatLsn, type Lsn, parseLsn } from '../postgres/lsn.ts';
import type { ObjectStore } from '../vault/store.ts';
import { ClusterPack } from './cluster-pack.ts';
import type { BackupContext, TakenBackup } from './context.ts';
import { planIncrement, refusalOf, wholeStreamNote } from './database-increment.ts';
import type { DatabaseFacts, Note } from './manifest.ts';
import type { PackWriter } from './pack-writer.ts';
import type { PreviousBackup } from './previous/previous-backup.ts';
import { type PackedContent, takeBackup } from './take.ts';

export interface DatabaseSource {
  readonly name: string;
  readonly url: string;
  /** What a server elsewhere must know to replay this database; from `inspectServer`. */
  readonly facts: Omit<DatabaseFacts, 'timeline' | 'startLsn' | 'endLsn' | 'tablespaces'>;
}

/** The WAL without which a base backup cannot be restored. */
export interface NeededWal {
  readonly systemId: string;
  readonly timeline: number;
  readonly startLsn: Lsn;
  readonly endLsn: Lsn;
  readonly segmentBytes: number;
}

/** Resolves when these vaults hold the WAL, with a note for each vault that does not (yet); throws when none does. */
export type EnsureWal = (needed: NeededWal, vaults: readonly ObjectStore[]) => Promise<Note[]>;

/**
 * Takes a base backup straight from the server into all vaults, without temporary disk. It is committed only when the server has
 * said that it is good and the WAL that makes it consistent is archived: a backup that counts can be restored.
 */
export async function takeDatabaseBackup(
  context: BackupContext,
  source: DatabaseSource,
  ensureWal: EnsureWal,
): Promise<TakenBackup> {
  const connection = await connectReplication({
    url: source.url,
    applicationName: 'dr base backup',
    signal: context.signal,
    log: context.log,
  });
  try {
    await connection.identify(source.facts.systemId);
    return await takeBackup(context, {
      resource: source.name,
      kind: 'database',
      source: printableUrl(source.url),
      allowEmpty: false,
      pack: async (pack, previous) => await packCluster({ context, source, connection, pack, previous }),
      beforeCommit: async ({ database }, vaults) => await waitForWal(database, vaults, ensureWal, context.log),
    });
  } finally {
    await connection.close();
  }
}

interface ClusterWork {
  readonly context: BackupContext;
  readonly source: DatabaseSource;
  readonly connection: ReplicationConnection;
  readonly pack: PackWriter;
  readonly previous: PreviousBackup | undefined;
}

/** Asks the server for what changed since the previous backup, where it can say, and for everything else, or where it refuses, for everything. */
async function packCluster(work: ClusterWork): Promise<PackedContent> {
  const { context, source, connection, previous } = work;
  const { log, partBytes } = context;
  const plan = await planIncrement(connection, previous, source.facts, partBytes);
  let why: string | undefined;
  if ('from' in plan) {
    try {
      return await stream(work, previous, plan.from);
    } catch (error) {
      why = refusalOf(error);
    }
  } else why = plan.why;
  if (why !== undefined)
    log.warn({ resource: source.name, reason: why }, 'the server is asked for everything, not only for what changed');
  const packed = await stream(work, previous?.rewriting(partBytes), undefined);
  return why === undefined ? packed : { ...packed, notes: [...packed.notes, wholeStreamNote(source.name, why)] };
}

async function stream(
  { context, source, connection, pack }: ClusterWork,
  previous: PreviousBackup | undefined,
  incremental: ServerPrevious | undefined,
): Promise<PackedContent> {
  const isIncremental = incremental !== undefined;
  const consumer = new ClusterPack({ pack, context, resource: source.name, previous, isIncremental });
  const options = { label: `dr ${source.name}`, fastCheckpoint: true, manifest: !isIncremental, incremental };
  const result = await connection.baseBackup(options, consumer);
  await consumer.end(source.facts.systemId, result);
  const database: DatabaseFacts = {
    ...source.facts,
    timeline: result.timeline,
    startLsn: formatLsn(result.startLsn),
    endLsn: formatLsn(result.endLsn),
    tablespaces: consumer.tablespaces.map(({ oid, location }) => ({ oid, location })),
  };
  return { files: consumer.files, notes: [], recoveryPointMs: context.clock.now(), database };
}

async function waitForWal(
  database: DatabaseFacts | undefined,
  vaults: readonly ObjectStore[],
  ensureWal: EnsureWal,
  log: Log,
): Promise<Note[]> {
  if (!database) return [];
  const { systemId, timeline, startLsn, endLsn, segmentBytes } = database;
  log.debug({ startLsn, endLsn }, 'waiting until the WAL of the base backup is archived');
  return await ensureWal(
    {
      systemId,
      timeline,
      startLsn: parseLsn(startLsn) ?? 0n,
      endLsn: parseLsn(endLsn) ?? 0n,
      segmentBytes,
    },
    vaults,
  );
}
