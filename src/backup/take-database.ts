import type { Log } from '../base/log.ts';
import { printableUrl } from '../base/redact.ts';
import type { BaseBackupConsumer, BaseBackupEntry, BaseBackupStart } from '../postgres/base-backup.ts';
import { connectReplication } from '../postgres/connection.ts';
import { formatLsn, type Lsn, parseLsn } from '../postgres/lsn.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { BackupContext, TakenBackup } from './context.ts';
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
      pack: async (pack, previous) => {
        const consumer = new ClusterPack(pack, context, source.name, previous?.rewriting(context.partBytes));
        const options = { label: `dr ${source.name}`, fastCheckpoint: true, manifest: true };
        const { startLsn, endLsn, timeline } = await connection.baseBackup(options, consumer);
        await consumer.end();
        const database: DatabaseFacts = {
          ...source.facts,
          timeline,
          startLsn: formatLsn(startLsn),
          endLsn: formatLsn(endLsn),
          tablespaces: consumer.tablespaces.map(({ oid, location }) => ({ oid, location })),
        };
        const content: PackedContent = {
          files: consumer.files,
          notes: [],
          recoveryPointMs: context.clock.now(),
          database,
        };
        return content;
      },
      beforeCommit: async ({ database }, vaults) => await waitForWal(database, vaults, ensureWal, context.log),
    });
  } finally {
    await connection.close();
  }
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

/** Puts the cluster's files into the pack as they come from the server. */
class ClusterPack implements BaseBackupConsumer {
  tablespaces: BaseBackupStart['tablespaces'] = [];
  files = 0;
  readonly #pack: PackWriter;
  readonly #context: BackupContext;
  readonly #resource: string;
  readonly #previous: PreviousBackup | undefined;
  #totalBytes = 0;
  #inFile = false;
  #reportedBytes = 0;
  #detail = '';
  #hasManifest = false;

  constructor(pack: PackWriter, context: BackupContext, resource: string, previous: PreviousBackup | undefined) {
    this.#pack = pack;
    this.#previous = previous;
    this.#context = context;
    this.#resource = resource;
  }

  begin(start: BaseBackupStart): void {
    this.tablespaces = start.tablespaces;
    this.#totalBytes = start.totalBytes;
  }

  async entry(entry: BaseBackupEntry): Promise<void> {
    const head = {
      path: entry.rawPath ?? Buffer.from(entry.path),
      type: entry.type,
      mode: entry.mode & 0o7777,
      uid: entry.uid,
      gid: entry.gid,
      mtimeNs: BigInt(Math.round(entry.mtimeMs)) * 1_000_000n,
    };
    this.#inFile = entry.type === 'file';
    this.#detail = entry.path;
    if (this.#inFile) {
      this.files++;
      await this.#pack.begin(head, entry.size, this.#previous?.lookup(head.path));
    } else {
      await this.#pack.add(entry.linkTarget === undefined ? head : { ...head, target: Buffer.from(entry.linkTarget) });
    }
  }

  async data(chunk: Uint8Array): Promise<void> {
    await this.#pack.write(chunk);
    if (this.#pack.logicalBytes - this.#reportedBytes < 1024 * 1024) return;
    this.#reportedBytes = this.#pack.logicalBytes;
    this.#context.onProgress?.({
      task: `backup ${this.#resource}`,
      done: this.#reportedBytes,
      // The server's estimate may be a little too low.
      total: Math.max(this.#totalBytes, this.#reportedBytes),
      unit: 'bytes',
      detail: this.#detail,
    });
  }

  async endEntry(): Promise<void> {
    if (this.#inFile) await this.#pack.end();
    this.#inFile = false;
  }

  async manifest(chunk: Uint8Array): Promise<void> {
    if (!this.#hasManifest) {
      this.#hasManifest = true;
      const mtimeNs = BigInt(this.#context.clock.now()) * 1_000_000n;
      const head = { type: 'file' as const, mode: 0o600, uid: 0, gid: 0, mtimeNs };
      await this.#pack.begin({ ...head, path: Buffer.from('backup_manifest') }, chunk.length);
    }
    await this.#pack.write(chunk);
  }

  /** Ends `backup_manifest`, the only file whose end the server does not mark. */
  async end(): Promise<void> {
    if (this.#hasManifest) await this.#pack.end();
  }
}
