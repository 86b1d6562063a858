import { DrError } from '../base/errors.ts';
import { formatLsn, type Lsn, parseLsn } from './lsn.ts';
import { type Query, type QueryOptions, withClient } from './query.ts';

/** WAL of one timeline. */
export interface WalRange {
  readonly timeline: number;
  readonly from: Lsn;
  readonly to: Lsn;
}

/** Blocks that a relation had been cut to at its shortest, by relation: `<tablespace oid>/<database oid>/<file number>`. */
export type Truncations = ReadonlyMap<string, number>;

/** Reading the summaries of some hundred GB of WAL takes minutes. */
const readTimeoutMs = 15 * 60_000;

/**
 * Why a server (17 or newer) cannot tell from its WAL summaries what changed since `from`; undefined when nothing speaks against it. It is
 * asked before the checkpoint of a backup; the server itself checks again, and waits for summaries that are being made.
 */
export async function whyNoSummaries(
  url: string,
  from: Omit<WalRange, 'to'>,
  options: QueryOptions,
): Promise<string | undefined> {
  return await withClient(url, options, async (query) => {
    const [row] = await query(
      `SELECT current_setting('summarize_wal'),
              has_function_privilege('pg_available_wal_summaries()', 'EXECUTE')
              AND has_function_privilege('pg_wal_summary_contents(int8, pg_lsn, pg_lsn)', 'EXECUTE')`,
    );
    if (row?.[0] !== 'on') return 'summarize_wal is off';
    if (row[1] !== true) return 'the role may not execute pg_available_wal_summaries and pg_wal_summary_contents';
    const summaries = await summariesSince(query, from);
    const [first] = summaries;
    if (first !== undefined && first.from > from.from) {
      return `its WAL summaries begin only at ${formatLsn(first.from)}, after the previous backup`;
    }
    const covered = coveredTo(summaries, from.from);
    return covered === (summaries.at(-1)?.to ?? from.from)
      ? undefined
      : `its WAL summaries have a gap at ${formatLsn(covered)}`;
  });
}

/**
 * The relations that were truncated in a range of WAL that is summarized. The server's own incremental stream does not tell: it counts
 * every block below the present size of a file as unchanged when no record of WAL names it, also blocks that were cut off and came back as
 * zeros when the file was extended (`GetFileBackupMethod`, seen in 17.10 and 18.4). Taken from the previous backup they would bring
 * deleted rows back. See docs/decisions/0006-summaries-are-not-trusted-blindly.md.
 */
export async function readTruncations(url: string, range: WalRange, options: QueryOptions): Promise<Truncations> {
  return await withClient(url, { ...options, timeoutMs: readTimeoutMs }, async (query, where) => {
    const summaries = (await summariesSince(query, range)).filter(({ from }) => from < range.to);
    if (coveredTo(summaries, range.from) < range.to) {
      throw new DrError('refused', `WAL summaries up to ${formatLsn(range.to)} are no longer there`, {
        where,
        next: 'Take the backup again.',
        retryable: true,
      });
    }
    const rows = await query(
      `SELECT c.reltablespace::int8 || '/' || c.reldatabase::int8 || '/' || c.relfilenode::int8, min(c.relblocknumber)::int8::text
       FROM unnest($1::pg_lsn[], $2::pg_lsn[]) AS s (start_lsn, end_lsn),
            LATERAL pg_wal_summary_contents($3, s.start_lsn, s.end_lsn) AS c
       WHERE c.is_limit_block AND c.relforknumber = 0 AND c.relfilenode <> 0 AND c.relblocknumber > 0
       GROUP BY 1`,
      [summaries.map(({ from }) => formatLsn(from)), summaries.map(({ to }) => formatLsn(to)), range.timeline],
    );
    return new Map(rows.map(([relation, blocks]) => [String(relation), Number(blocks)]));
  });
}

/** By their begin; those that end before `from` are left out. */
async function summariesSince(
  query: Query,
  { timeline, from }: Omit<WalRange, 'to'>,
): Promise<Array<{ from: Lsn; to: Lsn }>> {
  const rows = await query(
    // Unqualified, start_lsn would be the text of the result: 0/F000028 after 0/10000028.
    `SELECT s.start_lsn::text, s.end_lsn::text FROM pg_available_wal_summaries() AS s
     WHERE s.tli = $1 AND s.end_lsn > $2::pg_lsn ORDER BY s.start_lsn`,
    [timeline, formatLsn(from)],
  );
  return rows.map(([start, end]) => ({ from: parseLsn(String(start)) ?? 0n, to: parseLsn(String(end)) ?? 0n }));
}

/** Where the first gap after `from` begins. */
function coveredTo(summaries: ReadonlyArray<{ from: Lsn; to: Lsn }>, from: Lsn): Lsn {
  let covered = from;
  for (const summary of summaries) {
    if (summary.from > covered) break;
    if (summary.to > covered) covered = summary.to;
  }
  return covered;
}
