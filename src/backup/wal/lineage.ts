import { DrError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import type { ReplicationConnection, ServerIdentity } from '../../postgres/connection.ts';
import { formatLsn } from '../../postgres/lsn.ts';
import { parseHistory } from './names.ts';
import type { WalGap, WalSession } from './session.ts';
import type { SlotState } from './start.ts';

/** Throws `conflict` when another system answers than the one that this archive began with. */
export function requireSystem(server: ServerIdentity, systemId: string): void {
  if (systemId === server.systemId) return;
  throw new DrError(
    'conflict',
    `another PostgreSQL system answers: ${server.systemId}; this archive belongs to ${systemId}`,
    {
      next: 'If the URL leads to the wrong server, correct it. If the server was created anew (initdb, pg_upgrade), restart dr and take a base backup: the new system gets its own archive, and the old recovery points stay.',
    },
  );
}

/** Makes sure that there is a slot which reserves WAL. One that was invalidated is made anew: what it had reserved is gone. */
export async function ensureSlot(
  connection: ReplicationConnection,
  name: string,
  server: ServerIdentity,
  log: Log,
): Promise<SlotState> {
  let found = await connection.slot(name);
  if (found && found.restartLsn === undefined) {
    // max_slot_wal_keep_size, idle_replication_slot_timeout, or made by hand without reserving WAL.
    log.warn({ slot: name }, 'the slot holds no WAL any more; it is made anew');
    await connection.dropSlot(name);
    found = undefined;
  }
  const isNew = found === undefined;
  if (isNew) {
    await connection.createPhysicalSlot(name);
    found = await connection.slot(name);
    log.info({ slot: name }, 'replication slot created');
  }
  if (found?.restartLsn === undefined) {
    throw new DrError('unreachable', `the replication slot ${name} reserves no WAL`, {
      where: connection.where,
      next: `Drop it (SELECT pg_drop_replication_slot('${name}');): dr makes it anew.`,
    });
  }
  return { restart: { timeline: found.restartTimeline ?? server.timeline, lsn: found.restartLsn }, isNew };
}

/**
 * Compares the timelines of server and archive before streaming. Where the server left the archive's timeline before the archive's end
 * (a standby was promoted that had not received everything), the session jumps to the fork and true is returned. Throws `conflict` when
 * the server is no descendant of what is archived.
 */
export async function followFork(
  connection: ReplicationConnection,
  session: WalSession,
  server: ServerIdentity,
  log: Log,
): Promise<boolean> {
  const { timeline, lsn } = session.position;
  if (server.timeline === timeline) return false;
  if (server.timeline < timeline) {
    throw new DrError(
      'conflict',
      `the server went back from timeline ${timeline} to ${server.timeline}: it is an old primary`,
      {
        where: connection.where,
        next: 'Point the URL to the server that was promoted; rebuild this one as its standby, or restore it from a backup.',
      },
    );
  }
  const history = await connection.timelineHistory(server.timeline);
  const ancestors = parseHistory(history.content, `${connection.where} ${history.fileName}`);
  const at = ancestors.findIndex((ancestor) => ancestor.timeline === timeline);
  const fork = ancestors[at];
  if (!fork) {
    throw new DrError(
      'conflict',
      `timeline ${server.timeline} of the server does not descend from timeline ${timeline} of the archive`,
      {
        where: connection.where,
        next: 'Find out which server holds the right data. If it is this one, use a new vault prefix for it, then take a base backup.',
      },
    );
  }
  if (fork.end >= lsn) return false;
  const next = ancestors[at + 1]?.timeline ?? server.timeline;
  const content = next === server.timeline ? history.content : (await connection.timelineHistory(next)).content;
  log.warn(
    { timeline: next, fork: formatLsn(fork.end), archived: formatLsn(lsn) },
    'the server was promoted before the end of the archive: the rest of the old timeline stays in the vaults, unused',
  );
  session.switchTimeline(next, fork.end, content);
  return true;
}

/** What to say when the server no longer had WAL that was not archived yet. */
export function gapError(gap: WalGap, resource: string, cause: unknown): DrError {
  const [from, to] = [formatLsn(gap.from), formatLsn(gap.to)];
  return new DrError('not-found', `WAL is lost: a gap from ${from} to ${to}; a new base backup is needed`, {
    where: resource,
    next: `Run \`dr backup ${resource}\` now: nothing after ${from} can be recovered from an older backup. Then raise max_slot_wal_keep_size.`,
    cause,
  });
}
