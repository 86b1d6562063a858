import type { ReplicationConnection } from '../postgres/connection.ts';
import { incrementalRefusal } from '../postgres/incremental-backup.ts';
import type { PreviousBackup as ServerPrevious } from '../postgres/incremental-manifest.ts';
import { parseLsn } from '../postgres/lsn.ts';
import type { DatabaseFacts, Note } from './manifest.ts';
import type { PreviousBackup } from './previous/previous-backup.ts';

/** PostgreSQL's page; what databases are compared by. */
const PAGE_BYTES = 8192;
/** From this share of dead bytes on everything is read again, so that it can be stored more tightly. */
const MOST_WASTE = 0.5;
/** Parts below a quarter of the usual size: each increment adds one. */
const MOST_SMALL_PARTS = 256;

/** The server may be asked for what changed since `from`; or why it must not (`why`: worth a note in the backup). */
export type IncrementPlan = { readonly from: ServerPrevious } | { readonly why: string | undefined };

/**
 * Decides whether only what changed is asked for: the server summarizes its WAL, and what its summaries do not tell (`pg_checksums` writes
 * every page anew, without WAL) has not happened. That the summaries reach back is the server's to say.
 */
export async function planIncrement(
  connection: Pick<ReplicationConnection, 'versionNumber' | 'show'>,
  previous: PreviousBackup | undefined,
  facts: Pick<DatabaseFacts, 'systemId' | 'dataChecksums'>,
  partBytes: number,
): Promise<IncrementPlan> {
  const database = previous?.manifest.database;
  if (!previous || database?.systemId !== facts.systemId || connection.versionNumber < 170_000)
    return { why: undefined };
  if ((await connection.show('summarize_wal')) !== 'on') return { why: undefined };
  // A server built with other pages: nothing could be laid over what is compared by 8 KiB.
  if (Number(await connection.show('block_size')) !== PAGE_BYTES) return { why: undefined };
  if (database.dataChecksums !== facts.dataChecksums) {
    return { why: `data checksums were switched ${facts.dataChecksums ? 'on' : 'off'} since the last backup` };
  }
  const rewrite = previous.rewriting(partBytes) === previous ? undefined : worthRewriting(previous, partBytes);
  if (rewrite !== undefined) return { why: rewrite };
  const startLsn = parseLsn(database.startLsn);
  const endLsn = parseLsn(database.endLsn);
  if (startLsn === undefined || endLsn === undefined) return { why: undefined };
  const { systemId, timeline } = database;
  return { from: { systemId, timeline, startLsn, endLsn, files: filesToLayOver(previous) } };
}

/** What makes room in the vaults; undefined while that would bring too little. */
function worthRewriting({ waste, manifest }: PreviousBackup, partBytes: number): string | undefined {
  if (waste > MOST_WASTE)
    return `${Math.round(waste * 100)} % of the stored bytes that it names are dead, so it is packed more tightly`;
  const small = manifest.parts.filter(({ size }) => size < partBytes / 4).length;
  if (small > MOST_SMALL_PARTS) return `the last backup names ${small} small parts, so it is packed more tightly`;
  return undefined;
}

/** Files that can be used by pages, all of them: others are sent whole. */
function* filesToLayOver(previous: PreviousBackup): Generator<string> {
  for (const { entry, isWhole } of previous.files()) {
    if (isWhole && entry.blockBytes === PAGE_BYTES) yield entry.path.toString();
  }
}

/** What the manifest of a backup says of a server that sent everything although only what changed was asked for. */
export function wholeStreamNote(resource: string, why: string): Note {
  return {
    kind: 'other',
    subject: resource,
    detail: `the server was asked for everything instead of what changed: ${why}`,
  };
}

/** The reason of a server that refused; rethrows every other failure. */
export function refusalOf(error: unknown): string {
  const why = incrementalRefusal(error);
  if (why === undefined) throw error;
  return why;
}
