import { DrError } from '../../base/errors.ts';
import { formatLsn, type Lsn, parseLsn, segmentStart } from '../../postgres/lsn.ts';
import type { RecoveryTarget } from '../../postgres/recovery-target.ts';
import type { Manifest } from '../manifest.ts';
import type { CoveredRange, CoveredTimeline, WalCoverage } from './coverage.ts';
import { minLsn } from './names.ts';

/** What somebody asks for. */
export type WantedTarget =
  | { readonly kind: 'latest' }
  | { readonly kind: 'lsn'; readonly lsn: Lsn }
  | { readonly kind: 'time'; readonly atMs: number };

/** How a backup and the archive together bring a database to the target. */
export interface RecoveryPlan {
  /** What to tell PostgreSQL. A time after everything archived, but covered by it, has become `latest`. */
  readonly target: RecoveryTarget;
  /** Timeline to recover along. */
  readonly timeline: number;
  /** The timelines from the backup's to that one, each with where it was left for the next; undefined for the last. */
  readonly line: ReadonlyArray<{ readonly timeline: number; readonly end: Lsn | undefined }>;
  readonly startLsn: Lsn;
  /** End of the WAL that can be replayed without a hole. */
  readonly endLsn: Lsn;
  /** By the server's clock: every commit before this moment can be recovered; 0 = not known. */
  readonly coveredUntilMs: number;
  /** WAL to fetch and replay at most, bytes. */
  readonly walBytes: number;
}

/**
 * Checks before anything is fetched that the archive leads from the backup to the target without a hole and along one line of timelines.
 * Throws `not-found` with what can be reached instead.
 *
 * A time target may lie between the last commit and the last WAL written (a checkpoint, say): recovery then replays everything and meets
 * no later commit. Only the server can tell, so the plan keeps the time and says that the archive covers it.
 */
export function planRecovery(options: {
  readonly manifest: Manifest;
  readonly coverage: WalCoverage;
  readonly target: WantedTarget;
}): RecoveryPlan {
  const { manifest, coverage, target } = options;
  const { database } = manifest;
  if (!database) throw new DrError('internal', `backup ${manifest.id} is not one of a database`);
  const startLsn = lsnOf(database.startLsn);
  const consistentLsn = lsnOf(database.endLsn);
  const chain = chainFrom(coverage, database.timeline, consistentLsn);
  const reach = reachOf(coverage, chain, segmentStart(startLsn, database.segmentBytes));
  const where = `${coverage.location} (backup ${manifest.id})`;
  if (reach.end < consistentLsn) {
    throw new DrError(
      'not-found',
      `backup ${manifest.id} cannot be made consistent: it needs WAL from ${database.startLsn} to ${database.endLsn}, and the archive ${reach.end > startLsn ? `reaches only ${formatLsn(reach.end)}` : 'has none of it'}`,
      { where, next: 'Use an older backup (`dr backups`) or another vault (--vault NAME).' },
    );
  }
  const range = describe(manifest, consistentLsn, reach);
  const plan = {
    timeline: reach.timeline,
    line: chain.slice(0, chain.findIndex(({ timeline }) => timeline === reach.timeline) + 1),
    startLsn,
    endLsn: reach.end,
    coveredUntilMs: reach.coveredUntilMs,
  };
  const latest = {
    ...plan,
    target: { kind: 'latest', endLsn: reach.end } as const,
    walBytes: Number(reach.end - startLsn),
  };
  if (target.kind === 'latest') return latest;
  if (target.kind === 'lsn') {
    if (target.lsn < consistentLsn) throw tooEarly(`LSN ${formatLsn(target.lsn)}`, range, where);
    if (target.lsn > reach.end) throw tooLate(`LSN ${formatLsn(target.lsn)}`, range, where);
    return { ...plan, target: { ...target, endLsn: reach.end }, walBytes: Number(target.lsn - startLsn) };
  }
  const at = new Date(target.atMs).toISOString();
  if (target.atMs < Date.parse(manifest.recoveryPoint)) throw tooEarly(at, range, where);
  if (target.atMs > reach.coveredUntilMs) throw tooLate(at, range, where);
  if (reach.newestMs > 0 && target.atMs >= reach.newestMs) return latest;
  const covered = { ...target, endLsn: reach.end, covered: true };
  return { ...plan, target: covered, walBytes: Number(reach.end - startLsn) };
}

interface Link {
  readonly timeline: number;
  /** Where it was left for the next one; undefined for the last. */
  readonly end: Lsn | undefined;
}

/** The line of timelines from the backup's to the newest one that descends from the backup. */
function chainFrom(coverage: WalCoverage, timeline: number, consistentLsn: Lsn): Link[] {
  for (const candidate of [...coverage.timelines].reverse()) {
    if (candidate.timeline <= timeline || candidate.ranges.length === 0) continue;
    const ancestors = candidate.ancestors ?? [];
    const at = ancestors.findIndex((ancestor) => ancestor.timeline === timeline);
    const left = ancestors[at]?.end;
    if (left === undefined || left < consistentLsn) continue;
    return [...ancestors.slice(at), { timeline: candidate.timeline, end: undefined }];
  }
  return [{ timeline, end: undefined }];
}

interface Reach {
  readonly end: Lsn;
  readonly timeline: number;
  readonly coveredUntilMs: number;
  readonly newestMs: number;
}

/** Follows the chain from `from` as far as there is no hole. A new timeline begins with a copy of the segment that it was forked in. */
function reachOf(coverage: WalCoverage, chain: readonly Link[], from: Lsn): Reach {
  const last = chain.at(-1)?.timeline ?? 0;
  let at: Reach = { end: from, timeline: chain[0]?.timeline ?? last, coveredUntilMs: 0, newestMs: 0 };
  let next = from;
  for (const link of chain) {
    const range = rangeAt(
      coverage.timelines.find(({ timeline }) => timeline === link.timeline),
      next,
    );
    if (!range) return at;
    const end = link.end === undefined ? range.end : minLsn(range.end, link.end);
    const isEnd = coverage.end?.timeline === link.timeline && coverage.end.lsn === range.end;
    at = {
      end,
      timeline: link.timeline,
      coveredUntilMs: isEnd ? coverage.coveredUntilMs : range.coveredUntilMs,
      newestMs: range.newestMs,
    };
    if (link.end === undefined) return at;
    const forkSegment = segmentStart(link.end, coverage.segmentBytes);
    if (end < forkSegment) return at;
    next = forkSegment;
  }
  return at;
}

function rangeAt(timeline: CoveredTimeline | undefined, lsn: Lsn): CoveredRange | undefined {
  return timeline?.ranges.find(({ start, end }) => start <= lsn && lsn < end);
}

function lsnOf(text: string): Lsn {
  const lsn = parseLsn(text);
  if (lsn === undefined) throw new DrError('corrupt', `not an LSN in the manifest: ${text}`);
  return lsn;
}

function describe(manifest: Manifest, consistentLsn: Lsn, reach: Reach): string {
  const until = reach.coveredUntilMs > 0 ? `, ${new Date(reach.coveredUntilMs).toISOString()}` : '';
  return `${formatLsn(consistentLsn)} (${manifest.recoveryPoint}) to ${formatLsn(reach.end)} on timeline ${reach.timeline}${until}`;
}

function tooEarly(what: string, range: string, where: string): DrError {
  return new DrError('not-found', `${what} is before this backup is consistent; it can be recovered to ${range}`, {
    where,
    next: 'Choose a backup that ended before that (`dr backups`): --at picks one by itself when there is one.',
  });
}

function tooLate(what: string, range: string, where: string): DrError {
  return new DrError('not-found', `${what} is beyond the archive; it can be recovered to ${range}`, {
    where,
    next: 'Choose an earlier target, or another vault that reaches further (--vault NAME).',
  });
}
