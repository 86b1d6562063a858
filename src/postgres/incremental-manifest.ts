import { createHash } from 'node:crypto';
import { formatLsn, type Lsn } from './lsn.ts';
import { parseRelationFile } from './relation-file.ts';

/** The backup that an incremental one is laid over. */
export interface PreviousBackup {
  /** Decimal. */
  readonly systemId: string;
  readonly timeline: number;
  readonly startLsn: Lsn;
  readonly endLsn: Lsn;
  /**
   * Paths of its files, relative to the data directory, tablespaces as `pg_tblspc/<oid>/…`, in any order. A relation file that is
   * missing here is sent whole. Other files always are, and are passed over.
   */
  readonly files: Iterable<string> | AsyncIterable<string>;
}

const chunkBytes = 64 * 1024;
/**
 * The `backup_manifest` that tells the server of a previous backup, in pieces. The server reads of it the version, the system, the
 * ranges of WAL and the names of the files (`basebackup_incremental.c`; sizes and checksums are not looked at), so nothing else
 * needs to be remembered of a backup. Its last line is the SHA-256 of everything before (`parse_manifest.c`).
 */
export async function* previousManifest(previous: PreviousBackup): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  let text = `{ "PostgreSQL-Backup-Manifest-Version": 2,\n"System-Identifier": ${previous.systemId},\n"Files": [`;
  let first = true;
  for await (const path of previous.files) {
    // Other forks are small and come whole: the server misses changes of the visibility map, whose bits are cleared by
    // records that do not name its block (seen in 17.10 and 18.4; pgsql-hackers, "Why clearing the VM doesn't require
    // registering vm buffer in WAL record", March 2026).
    if (parseRelationFile(path)?.fork !== 'main') continue;
    text += `${first ? '' : ','}\n{ "Path": "${path}", "Size": 0 }`;
    first = false;
    if (text.length < chunkBytes) continue;
    const piece = Buffer.from(text);
    hash.update(piece);
    yield piece;
    text = '';
  }
  const { timeline, startLsn, endLsn } = previous;
  text += `\n],\n"WAL-Ranges": [\n{ "Timeline": ${timeline}, "Start-LSN": "${formatLsn(startLsn)}", "End-LSN": "${formatLsn(endLsn)}" }\n],\n`;
  hash.update(text);
  yield Buffer.from(`${text}"Manifest-Checksum": "${hash.digest('hex')}"}\n`);
}
