import { type ManifestFacts, type ManifestFile, manifestPieces } from './backup-manifest.ts';
import { parseRelationFile } from './relation-file.ts';

/** The backup that an incremental one is laid over. */
export interface PreviousBackup extends ManifestFacts {
  /**
   * Paths of its files, relative to the data directory, tablespaces as `pg_tblspc/<oid>/…`, in any order. A relation file that is
   * missing here is sent whole. Other files always are, and are passed over.
   */
  readonly files: Iterable<string> | AsyncIterable<string>;
}

/**
 * The `backup_manifest` that tells the server of a previous backup, in pieces. The server reads of it the version, the system, the
 * ranges of WAL and the names of the files (`basebackup_incremental.c`; sizes and checksums are not looked at), so nothing else
 * needs to be remembered of a backup.
 */
export async function* previousManifest(previous: PreviousBackup): AsyncGenerator<Buffer> {
  yield* manifestPieces(previous, mainForks(previous.files));
}

/**
 * Other forks are small and come whole: the server misses changes of the visibility map, whose bits are cleared by records that do not name
 * its block (seen in 17.10 and 18.4; pgsql-hackers, "Why clearing the VM doesn't require registering vm buffer in WAL record", March
 * 2026). See docs/decisions/0006-summaries-are-not-trusted-blindly.md.
 */
async function* mainForks(files: PreviousBackup['files']): AsyncGenerator<ManifestFile> {
  for await (const path of files) {
    if (parseRelationFile(path)?.fork === 'main') yield { path: Buffer.from(path), size: 0 };
  }
}
