import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { DrError } from '../base/errors.ts';
import type { OnProgress } from '../base/progress.ts';
import type { ControlFile } from './control-file.ts';
import { formatLsn, type Lsn, parseLsn, parseSegmentName } from './lsn.ts';
import {
  describeTarget,
  lastRecordEnd,
  type Reached,
  type RecoveryTarget,
  readWord,
  recordEnd,
  unreached,
} from './recovery-target.ts';
import type { ServerProcess } from './server-process.ts';
import { queryOnce } from './server-process-sql.ts';
import type { WalSpool } from './wal-spool.ts';

const tickMs = 100;
/** Requests in vain after which the server has certainly applied everything that it got; see `WalSpool.idle`. */
const provenIdle = 3;

export interface Watched {
  readonly server: ServerProcess;
  readonly spool: WalSpool;
  readonly control: ControlFile;
  readonly target: RecoveryTarget;
  /** Names of roles that may exist, superusers first. */
  readonly roles: readonly string[];
  readonly task: string;
  readonly onProgress: OnProgress | undefined;
  readonly signal: AbortSignal | undefined;
}

/** How one run of the server ended: at the target, or it needs to be started again with other settings. */
export type Watching =
  | { readonly kind: 'reached'; readonly reached: Reached }
  | { readonly kind: 'restart'; readonly settings: Readonly<Record<string, string>>; readonly why: string }
  | { readonly kind: 'missing-library'; readonly library: string }
  /** At the LSN or time that was asked for, but the WAL ends there, so that the server does not know it. */
  | { readonly kind: 'at-end'; readonly endLsn: Lsn };

/** What a hot standby says about itself. */
interface ReplayState {
  readonly replayed: string | null;
  readonly paused: boolean;
  readonly commit_ms: number | null;
}

const stateQuery = `select pg_last_wal_replay_lsn()::text as replayed,
  case when pg_is_in_recovery() then pg_get_wal_replay_pause_state() = 'paused' else true end as paused,
  (extract(epoch from pg_last_xact_replay_timestamp()) * 1000)::float8 as commit_ms`;

/** Watches a replaying server until it has proven that it stands at the target. Throws when it cannot get there. */
export async function watchReplay(watched: Watched): Promise<Watching> {
  const { server, spool, target, signal } = watched;
  const seen = { stopped: false, consistent: false };
  for (;;) {
    signal?.throwIfAborted();
    if (spool.failure !== undefined) throw spool.failure;
    const running = server.running();
    const verdict = await readLog(server, seen);
    if (verdict !== undefined) return verdict;
    if (!running) throw await whyEnded(watched);
    // Taken before the server is asked: its answer is then at least as new.
    const { idle } = spool;
    const role = await server.waitReady(watched.roles, { signal, until: () => true }).catch(async (error: unknown) => {
      if (server.running()) throw error;
      return undefined;
    });
    if (role === undefined) {
      if (idle !== undefined && idle.count > provenIdle * 10) {
        if (!seen.consistent) throw neverConsistent(watched, idle.name);
        return { kind: 'reached', reached: await unreadable(watched, idle.name) };
      }
    } else {
      const [state] = await queryOnce<ReplayState & object>(server.url(role), stateQuery, [], { signal });
      const reached: Reached = {
        replayedTo: parseLsn(state?.replayed ?? '') ?? 0n,
        lastCommitAtMs: state?.commit_ms ?? undefined,
      };
      report(watched, reached.replayedTo);
      // A pause can also mean a changed setting: the log says which of the two, and is written before the pause.
      const late = await readLog(server, seen);
      if (late !== undefined) return late;
      if (seen.stopped && state?.paused === true) return { kind: 'reached', reached };
      if (!seen.stopped && idle !== undefined && idle.count >= provenIdle) {
        if (target.kind === 'latest') {
          await proveEnd(watched, reached.replayedTo, target.endLsn, idle.name);
          return { kind: 'reached', reached };
        }
        if (target.kind === 'lsn' && reached.replayedTo >= target.lsn) return { kind: 'at-end', endLsn: target.lsn };
        if (target.endLsn !== undefined) await proveEnd(watched, reached.replayedTo, target.endLsn, idle.name);
        if (target.kind === 'time' && target.covered === true && target.endLsn !== undefined) {
          return { kind: 'at-end', endLsn: target.endLsn };
        }
        throw unreached(target, reached, idle.name);
      }
    }
    if (role === undefined) report(watched, undefined);
    await delay(tickMs, undefined, { signal });
  }
}

/** Looks through the new log lines for what decides the next step. */
async function readLog(
  server: ServerProcess,
  seen: { stopped: boolean; consistent: boolean },
): Promise<Watching | undefined> {
  for (const line of await server.log.poll()) {
    if (/LOG:\s+recovery stopping (before|after)/.test(line)) seen.stopped = true;
    if (/LOG:\s+consistent recovery state reached/.test(line)) seen.consistent = true;
    // `RecoveryRequiresIntParameter`: before hot standby it ends recovery, later it only pauses; both mean the same here.
    const low = /(\w+) = \d+ is a lower setting than on the primary server, where its value was (\d+)/.exec(line);
    if (low?.[1] !== undefined && low[2] !== undefined) {
      return { kind: 'restart', settings: { [low[1]]: low[2] }, why: `${low[1]} is ${low[2]} on the source server` };
    }
    const library = /FATAL:\s+could not (?:access file|load library) "([^"]+)"/.exec(line)?.[1];
    if (library !== undefined) return { kind: 'missing-library', library };
  }
  return undefined;
}

function report(watched: Watched, replayed: Lsn | undefined): void {
  const { spool, control, target, onProgress } = watched;
  if (onProgress === undefined) return;
  const start = control.checkpoint.redo;
  const delivered =
    spool.lastDelivered === undefined ? undefined : parseSegmentName(spool.lastDelivered, spool.segmentBytes)?.start;
  const at = replayed ?? delivered ?? start;
  const end = target.kind === 'latest' ? target.endLsn : target.kind === 'lsn' ? target.lsn : undefined;
  onProgress({
    task: watched.task,
    done: Math.max(0, Number(at - start)),
    total: end === undefined ? 0 : Math.max(0, Number(end - start)),
    unit: 'bytes',
    detail: formatLsn(at),
  });
}

/** The error for a server that ended itself while it replayed. */
async function whyEnded(watched: Watched): Promise<unknown> {
  const { server, spool, target } = watched;
  await server.log.poll();
  if (spool.failure !== undefined) return spool.failure;
  const reason = server.log.reason();
  if (/requested recovery stop point is before consistent recovery point/.test(reason)) {
    return new DrError(
      'not-found',
      `the recovery target ${describeTarget(target)} lies before the end of the base backup`,
      {
        where: server.dataDirectory,
        next: 'Restore an older backup for this target, or choose a later target.',
      },
    );
  }
  if (/could not map anonymous shared memory/.test(reason)) {
    return new DrError('local', `this machine has too little memory for the recovered server: ${reason}`, {
      where: server.dataDirectory,
      next: 'Set shared_buffers (and huge_pages: off) under `parameters` of this recovery target in the configuration.',
    });
  }
  return await server.ended('replaying WAL');
}

function neverConsistent(watched: Watched, segment: string): DrError {
  const needed =
    watched.control.minRecoveryPoint > watched.control.backupStart ? watched.control.minRecoveryPoint : undefined;
  return new DrError(
    'not-found',
    `the WAL ends in or before segment ${segment}, before the base backup is consistent${needed === undefined ? '' : ` (${formatLsn(needed)} is needed)`}`,
    {
      where: segment,
      next: 'Recover from a vault whose archive reaches further, or restore an older backup.',
    },
  );
}

/** Shows that the server stopped because the archive ends, and not at a hole in it or at a record that it cannot read. */
async function proveEnd(watched: Watched, replayedTo: Lsn, endLsn: Lsn, wanted: string): Promise<void> {
  const { server, spool, control } = watched;
  if (replayedTo >= endLsn) return;
  const held = await readdir(join(server.dataDirectory, 'pg_wal'));
  const position = parseSegmentName(wanted, spool.segmentBytes);
  // The same segment of an older timeline does as well.
  if (position !== undefined && position.start < endLsn && !held.some((name) => name.endsWith(wanted.slice(8)))) {
    throw missingSegment(wanted, replayedTo, endLsn);
  }
  const sizes = { pageBytes: control.walBlockSize, segmentBytes: spool.segmentBytes };
  const read = segmentReader(watched, wanted, replayedTo, endLsn);
  const end = await recordEnd(replayedTo, sizes, read);
  if (end !== undefined && end > endLsn) return;
  throw new DrError(
    'corrupt',
    `PostgreSQL cannot read the WAL at ${formatLsn(replayedTo)}, although the archive reaches ${formatLsn(endLsn)}: ${lastComplaint(server)}`,
    { where: wanted, next: 'Recover from another vault, or to a target before this position.' },
  );
}

/** Gives 4 bytes of WAL at a position of the segments that the server holds at the end of its replay. */
function segmentReader(watched: Watched, wanted: string, replayedTo: Lsn, endLsn: Lsn) {
  const { server, spool } = watched;
  return async (at: Lsn): Promise<number> => {
    for (const name of [wanted, spool.lastDelivered ?? wanted]) {
      const start = parseSegmentName(name, spool.segmentBytes)?.start;
      if (start === undefined || at < start || at >= start + BigInt(spool.segmentBytes)) continue;
      const word = await readWord(join(server.dataDirectory, 'pg_wal', name), Number(at - start));
      if (word !== undefined) return word;
    }
    throw missingSegment(wanted, replayedTo, endLsn);
  };
}

function missingSegment(wanted: string, replayedTo: Lsn, endLsn: Lsn): DrError {
  return new DrError(
    'not-found',
    `the WAL segment ${wanted} is missing in the middle: replay stopped at ${formatLsn(replayedTo)}, the archive reaches ${formatLsn(endLsn)}`,
    { where: wanted, next: 'Recover from another vault, or to a target before this position.' },
  );
}

/**
 * A server that was saved while transactions with more than 64 subtransactions ran lets nobody in until they end
 * ("recovery snapshot is not yet ready"), and they end only with its promotion. All its WAL is applied: where that ends
 * is then read from the WAL itself.
 */
async function unreadable(watched: Watched, wanted: string): Promise<Reached> {
  const { server, spool, control, target } = watched;
  if (target.kind !== 'latest') {
    throw new DrError('refused', `PostgreSQL lets nobody in to say whether it stands at ${describeTarget(target)}`, {
      where: server.dataDirectory,
      next: 'Transactions with very many savepoints were open: recover to latest, or to a later or earlier target.',
    });
  }
  const segment = parseSegmentName(spool.lastDelivered ?? wanted, spool.segmentBytes)?.start ?? 0n;
  const sizes = { pageBytes: control.walBlockSize, segmentBytes: spool.segmentBytes };
  const read = segmentReader(watched, wanted, segment, target.endLsn);
  const replayedTo = await lastRecordEnd(segment, target.endLsn, sizes, read);
  await proveEnd(watched, replayedTo, target.endLsn, wanted);
  return { replayedTo, lastCommitAtMs: undefined };
}

function lastComplaint(server: ServerProcess): string {
  const line = server.log.lines().findLast((text) => /LOG:.*(record|page|checksum|magic|contrecord|xlog)/i.test(text));
  return line?.replace(/^.*LOG:\s+/, '') ?? 'it gives no reason';
}
