import { DrError } from '../base/errors.ts';
import { ManifestFiles, manifestPieces } from '../postgres/backup-manifest.ts';
import type {
  BaseBackupConsumer,
  BaseBackupEntry,
  BaseBackupResult,
  BaseBackupStart,
} from '../postgres/base-backup.ts';
import type { BlockChanges } from '../postgres/incremental-file.ts';
import type { BackupContext } from './context.ts';
import { cutPrevious } from './cut-previous.ts';
import type { EntryHead, PackWriter } from './pack-writer.ts';
import type { PreviousBackup } from './previous/previous-backup.ts';

export interface ClusterPackOptions {
  readonly pack: PackWriter;
  readonly context: Pick<BackupContext, 'clock' | 'onProgress'>;
  readonly resource: string;
  /** What files are compared with and changed blocks are laid over. */
  readonly previous: PreviousBackup | undefined;
  /** The manifest of the server would describe what it sent, not what comes of it: `backup_manifest` is made here. */
  readonly isIncremental: boolean;
}

/** Puts the cluster's files into the pack as they come from the server. */
export class ClusterPack implements BaseBackupConsumer {
  tablespaces: BaseBackupStart['tablespaces'] = [];
  files = 0;
  readonly #options: ClusterPackOptions;
  readonly #manifestFiles: ManifestFiles | undefined;
  #totalBytes = 0;
  #inFile = false;
  #reportedBytes = 0;
  #detail = '';
  #hasManifest = false;

  constructor(options: ClusterPackOptions) {
    this.#options = options;
    this.#manifestFiles = options.isIncremental ? new ManifestFiles() : undefined;
  }

  begin(start: BaseBackupStart): void {
    this.tablespaces = start.tablespaces;
    this.#totalBytes = start.totalBytes;
  }

  async entry(entry: BaseBackupEntry): Promise<void> {
    const { pack, previous } = this.#options;
    const head = {
      path: entry.rawPath ?? Buffer.from(entry.path),
      type: entry.type,
      mode: entry.mode & 0o7777,
      uid: entry.uid,
      gid: entry.gid,
      mtimeNs: BigInt(Math.round(entry.mtimeMs)) * 1_000_000n,
    };
    this.#inFile = false;
    this.#detail = entry.path;
    if (entry.type !== 'file') {
      await pack.add(entry.linkTarget === undefined ? head : { ...head, target: Buffer.from(entry.linkTarget) });
      return;
    }
    this.files++;
    this.#manifestFiles?.add({ path: head.path, size: entry.size, mtimeMs: entry.mtimeMs });
    if (entry.changes) await this.#layOver(head, entry.size, entry.changes);
    else {
      this.#inFile = true;
      await pack.begin(head, entry.size, previous?.lookup(head.path));
    }
  }

  async data(chunk: Uint8Array): Promise<void> {
    await this.#options.pack.write(chunk);
    this.#report();
  }

  async endEntry(): Promise<void> {
    if (this.#inFile) await this.#options.pack.end();
    this.#inFile = false;
    this.#report();
  }

  async manifest(chunk: Uint8Array): Promise<void> {
    if (!this.#hasManifest) {
      this.#hasManifest = true;
      await this.#beginManifest(chunk.length);
    }
    await this.#options.pack.write(chunk);
  }

  /** Ends `backup_manifest`, the only file whose end the server does not mark; of an incremental backup, writes it. */
  async end(systemId: string, result: BaseBackupResult): Promise<void> {
    if (this.#manifestFiles) {
      for await (const piece of manifestPieces({ systemId, ...result }, this.#manifestFiles))
        await this.manifest(piece);
    }
    if (this.#hasManifest) await this.#options.pack.end();
  }

  async #layOver(head: EntryHead, size: number, { blocks, blockBytes, keptBlocks }: BlockChanges): Promise<void> {
    const { pack, previous } = this.#options;
    const known = previous?.lookup(head.path);
    if (!known?.isWhole || known.entry.blockBytes !== blockBytes) {
      throw new DrError('local', `what was known here of ${head.path.toString()} in the previous backup is lost`, {
        next: 'Take the backup again: this file is then read whole. If it repeats, check the disk that holds `scratch`.',
        retryable: true,
      });
    }
    const kept = cutPrevious(known, keptBlocks * blockBytes);
    if (blocks.length === 0 && kept === known && known.entry.size === size) {
      await pack.reuse(head, known);
      return;
    }
    this.#inFile = true;
    await pack.overlay(head, kept, size, [...blocks]);
  }

  async #beginManifest(expectedBytes: number): Promise<void> {
    const { pack, context } = this.#options;
    const mtimeNs = BigInt(context.clock.now()) * 1_000_000n;
    const head = { type: 'file' as const, mode: 0o600, uid: 0, gid: 0, mtimeNs };
    await pack.begin({ ...head, path: Buffer.from('backup_manifest') }, expectedBytes);
  }

  #report(): void {
    const { pack, context, resource } = this.#options;
    if (pack.logicalBytes - this.#reportedBytes < 1024 * 1024) return;
    this.#reportedBytes = pack.logicalBytes;
    context.onProgress?.({
      task: `backup ${resource}`,
      done: this.#reportedBytes,
      // The server's estimate may be a little too low.
      total: Math.max(this.#totalBytes, this.#reportedBytes),
      unit: 'bytes',
      detail: this.#detail,
    });
  }
}
