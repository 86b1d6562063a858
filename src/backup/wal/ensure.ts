import { randomBytes } from 'node:crypto';
import { DrError, isAbort, messageOf } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { formatDuration } from '../../base/units.ts';
import { connectReplication } from '../../postgres/connection.ts';
import { formatLsn, segmentStart } from '../../postgres/lsn.ts';
import { queryRows } from '../../postgres/query.ts';
import type { ObjectStore } from '../../vault/store.ts';
import type { BackupContext } from '../context.ts';
import type { Note } from '../manifest.ts';
import type { EnsureWal, NeededWal } from '../take-database.ts';
import { WalArchiver } from './archiver.ts';
import { VaultWal } from './listing.ts';
import { contiguousEnd } from './names.ts';

/** Name of the slots of single backups: followed by the second in which they were made. */
const ONCE = 'dr_once_';
const FORGOTTEN_SECONDS = 600;
/** Between two looks whether the WAL has arrived: soon at first, because it mostly comes at once. */
const LOOK_EVERY_MS = 500;
const FIRST_LOOK_MS = 50;
/** How long vaults that lag behind the first one are waited for before the backup goes on without them. */
const LAGGING_VAULT_MS = 60_000;
/** How long the server may take to start streaming. */
const STREAMING_MS = 60_000;
/** How long the first vault may take: longer than any archiver that works. */
const FIRST_VAULT_MS = 5 * 60_000;

/**
 * Waits until the WAL of a base backup is in the vaults, put there by the archiver that runs for this database (in this process or
 * another one). A vault that lags is noted in the backup.
 */
export function waitForArchive(context: BackupContext, database: { readonly name: string }): EnsureWal {
  return async (needed, vaults) => {
    const startedMs = context.clock.now();
    let firstMs: number | undefined;
    for (let looks = 0; ; looks++) {
      const lacking: Note[] = [];
      for (const store of vaults) {
        const reason = await whyLacking(store, needed, context.signal);
        if (reason !== undefined) lacking.push({ kind: 'vault-lost', subject: store.name, detail: reason });
      }
      if (lacking.length === 0) return [];
      const nowMs = context.clock.now();
      if (lacking.length < vaults.length) firstMs ??= nowMs;
      if (firstMs !== undefined && nowMs - firstMs >= LAGGING_VAULT_MS) return lacking;
      if (firstMs === undefined && nowMs - startedMs >= FIRST_VAULT_MS)
        throw notArchived(database.name, needed, lacking);
      context.onProgress?.({
        task: `backup ${database.name}`,
        done: Math.round((nowMs - startedMs) / 1000),
        total: 0,
        unit: 'seconds',
        detail: `waiting until its WAL is archived in ${lacking.map(({ subject }) => subject).join(', ')}`,
      });
      await context.clock.sleep(Math.min(LOOK_EVERY_MS, FIRST_LOOK_MS * 2 ** looks), context.signal);
    }
  };
}

/**
 * For a backup without a running archiver: archives just the WAL that the base backup needs, through a slot of its own that is
 * removed afterwards, so that nothing stays behind that could fill the server's disk.
 */
export async function withPassingArchiver<T>(
  context: BackupContext,
  database: { readonly name: string; readonly url: string },
  work: (ensureWal: EnsureWal) => Promise<T>,
): Promise<T> {
  await dropForgottenSlots(context, database.url);
  const slot = `${ONCE}${Math.floor(context.clock.now() / 1000)}_${randomBytes(3).toString('hex')}`;
  const archiver = new WalArchiver({
    resource: database.name,
    url: database.url,
    slot,
    flushEveryMs: 1000,
    durable: 'any',
    stores: context.stores,
    keyPolicy: context.keyPolicy,
    pool: context.pool,
    compressionLevel: context.compressionLevel,
    site: context.site,
    log: forPassing(context.log),
    clock: context.clock,
  });
  try {
    archiver.start();
    // The slot must be there before the base backup begins, or the server might remove WAL that the backup needs.
    await untilStreaming(context, archiver, database.name);
    return await work(waitForArchive(context, database));
  } finally {
    await archiver.stop({ drain: true });
    await dropSlot(context, database.url, slot);
  }
}

/** That WAL is missing since the last time is no news without a daemon; what stops the backup is thrown. */
function forPassing(log: Log): Log {
  return {
    debug: (facts, sentence) => log.debug(facts, sentence),
    info: (facts, sentence) => log.debug(facts, sentence),
    warn: (facts, sentence) => log.info(facts, sentence),
    error: (facts, sentence) => log.info(facts, sentence),
    child: (facts) => forPassing(log.child(facts)),
  };
}

async function untilStreaming(context: BackupContext, archiver: WalArchiver, resource: string): Promise<void> {
  const startedMs = context.clock.now();
  for (;;) {
    const { state, lastError } = archiver.status();
    if (state === 'streaming') return;
    if (state === 'failed' || context.clock.now() - startedMs > STREAMING_MS) {
      throw new DrError(
        'unreachable',
        `the WAL of ${resource} cannot be received: ${lastError ?? 'the server does not send it'}`,
        {
          next: 'Run `dr doctor` to see what the server lacks for replication.',
        },
      );
    }
    await context.clock.sleep(50, context.signal);
  }
}

/** Removes what killed backups left on the server, where it would keep WAL for ever. One that was just made may be another's. */
async function dropForgottenSlots(context: BackupContext, url: string): Promise<void> {
  const { signal, log } = context;
  const before = Math.floor(context.clock.now() / 1000) - FORGOTTEN_SECONDS;
  const found = await queryRows(
    url,
    `select slot_name::text from pg_replication_slots where not active and slot_name ~ '^${ONCE}[0-9]+_'
     and split_part(slot_name, '_', 3)::bigint < ${before}`,
    { signal },
  );
  for (const [name] of found) {
    log.info({ slot: name }, 'removing the replication slot of a backup that was killed');
    await dropSlot(context, url, String(name));
  }
}

async function dropSlot(context: BackupContext, url: string, slot: string): Promise<void> {
  try {
    const connection = await connectReplication({ url, applicationName: 'dr', log: context.log });
    try {
      await connection.dropSlot(slot);
    } finally {
      await connection.close();
    }
  } catch (error) {
    context.log.error(
      { slot, error },
      `the replication slot could not be removed and keeps WAL: run SELECT pg_drop_replication_slot('${slot}')`,
    );
  }
}

/** Why a vault does not hold the WAL; undefined when it does. */
async function whyLacking(store: ObjectStore, needed: NeededWal, signal?: AbortSignal): Promise<string | undefined> {
  try {
    const { systemId, timeline, startLsn, endLsn, segmentBytes } = needed;
    const start = segmentStart(startLsn, segmentBytes);
    // Only from there on: an archive of a month is long.
    const wal = await VaultWal.read(store, systemId, { timeline, lsn: start }, segmentBytes, signal);
    const holds = contiguousEnd(wal.ranges(timeline), start) >= endLsn;
    return holds ? undefined : `its WAL from ${formatLsn(start)} to ${formatLsn(needed.endLsn)} is not archived`;
  } catch (error) {
    if (signal?.aborted || isAbort(error)) throw error;
    return messageOf(error);
  }
}

function notArchived(resource: string, needed: NeededWal, lacking: readonly Note[]): DrError {
  return new DrError(
    'unreachable',
    `the base backup of ${resource} is not committed: after ${formatDuration(FIRST_VAULT_MS)} no vault holds its WAL up to ${formatLsn(needed.endLsn)}`,
    {
      where: lacking.map(({ subject, detail }) => `${subject}: ${detail}`).join('; '),
      next: 'Look at the WAL archiver in `dr status` and the log of the daemon; without a daemon, stop what else uses its slot.',
    },
  );
}
