import { DrError } from '../base/errors.ts';
import type { BaseBackupConsumer, BaseBackupEntry, BaseBackupStart } from './base-backup.ts';
import { type BlockChanges, type BlockGeometry, IncrementalHeader, resultingBytes } from './incremental-file.ts';
import { type PreviousBackup, previousManifest } from './incremental-manifest.ts';
import { formatLsn } from './lsn.ts';
import { parseRelationFile, type RelationFile } from './relation-file.ts';
import { PostgresError } from './server-errors.ts';
import { type Session, settingBytes, textOf } from './session.ts';
import type { Truncations, WalRange } from './wal-summaries.ts';
import { backend, encodeCopyData, encodedCopyDone, encodeQuery } from './wire.ts';

/** Milliseconds that a piece of the manifest may wait for the network. */
const stallMs = 60_000;
/** `backup_label` has some 300 bytes. */
const maxLabelBytes = 64 * 1024;

/** The server will not send changed blocks only; it can be asked for everything instead. */
class IncrementalRefusal extends Error {
  override readonly name = 'IncrementalRefusal';
}

/**
 * Why the server refused an incremental backup before it sent anything (summaries are missing or stuck, the previous backup is not in
 * its history, summaries are off, it does not accept the manifest); the connection is as good as before, and a full backup is what
 * helps. Undefined for every other failure.
 */
export function incrementalRefusal(error: unknown): string | undefined {
  return error instanceof DrError && error.cause instanceof IncrementalRefusal ? error.cause.message : undefined;
}

/** The error of a server that cannot send only what changed. */
export function refuseIncremental(where: string, why: string, cause?: unknown): DrError {
  return new DrError('refused', `the server cannot send only what changed: ${why}`, {
    where,
    next: 'Take a full backup.',
    cause: new IncrementalRefusal(why, { cause }),
  });
}

/**
 * Runs what comes before the first byte of an incremental backup. What the server says there about the incremental part becomes a refusal;
 * what a full backup would meet as well (no rights, no connections left, a full disk, a shutdown) stays what it is.
 */
export async function refusable<T>(session: Session, began: () => boolean, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (began() || session.socket.closed || !(error instanceof DrError)) throw error;
    const said = error.cause;
    if (!(said instanceof PostgresError) || /^(?:08|28|42501|53|57)/.test(said.code)) throw error;
    const detail = said.detail === undefined ? '' : ` (${said.detail})`;
    throw refuseIncremental(session.where, `${said.message}${detail}`, error);
  }
}

/** Tells the server of the previous backup (`UPLOAD_MANIFEST`); `BASE_BACKUP` with INCREMENTAL refers to it. */
export async function uploadManifest(session: Session, previous: PreviousBackup): Promise<void> {
  await session.exclusive('tell the server of the previous backup', undefined, async () => {
    session.socket.write(encodeQuery('UPLOAD_MANIFEST'));
    const { ended } = await session.results();
    if (ended !== backend.copyInResponse) throw session.unexpected(ended);
    // A server that refuses a piece reads the rest and throws it away; its word is waiting after the end.
    for await (const piece of previousManifest(previous)) {
      await session.socket.writeAll(encodeCopyData(piece), stallMs);
    }
    await session.socket.writeAll(encodedCopyDone, stallMs);
    const after = await session.results();
    if (after.ended !== backend.readyForQuery) throw session.unexpected(after.ended);
  });
}

/** How long the server's blocks and files are. */
export async function readGeometry(session: Session): Promise<BlockGeometry> {
  const show = async (setting: string) => {
    const set = await session.query(`SHOW ${setting}`, `read the setting ${setting}`);
    return settingBytes(textOf(set, 0, setting));
  };
  const blockBytes = await show('block_size');
  const segmentBlocks = (await show('segment_size')) / blockBytes;
  if (!Number.isInteger(blockBytes) || !Number.isInteger(segmentBlocks)) {
    throw new DrError('internal', 'the server does not say how long its blocks and files are', {
      where: session.where,
    });
  }
  return { blockBytes, segmentBlocks };
}

export interface IncrementalSinkOptions {
  readonly geometry: BlockGeometry;
  readonly previous: PreviousBackup;
  /** Asks the server over another connection; `readTruncations`. */
  readonly readTruncations: (range: WalRange) => Promise<Truncations>;
  readonly where: string;
}

/**
 * Stands between the stream of an incremental backup and a consumer of the cluster as it really is: files come under their own names with
 * `changes`, their size is that of the result, and their data are the changed blocks alone; `backup_label` comes without the two
 * lines that make it the label of an increment, which no server would start from.
 */
export class IncrementalSink implements BaseBackupConsumer {
  readonly #consumer: BaseBackupConsumer;
  readonly #geometry: BlockGeometry;
  readonly #previous: PreviousBackup;
  readonly #where: string;
  readonly #readTruncations: (range: WalRange) => Promise<Truncations>;
  #truncations: Truncations = new Map();
  #waiting:
    | { readonly entry: BaseBackupEntry; readonly file: RelationFile; readonly header: IncrementalHeader }
    | undefined;
  #label: { readonly entry: BaseBackupEntry; readonly pieces: Buffer[]; bytes: number } | undefined;

  constructor(consumer: BaseBackupConsumer, options: IncrementalSinkOptions) {
    const { geometry, previous, where, readTruncations } = options;
    this.#consumer = consumer;
    this.#geometry = geometry;
    this.#previous = previous;
    this.#where = where;
    this.#readTruncations = readTruncations;
  }

  async begin(start: BaseBackupStart): Promise<void> {
    const { startLsn: to, timeline } = start;
    // The server waits: its summaries reach just to here now. What is truncated later is truncated again by replay.
    this.#truncations = await this.#readTruncations({ timeline, from: this.#previous.startLsn, to });
    await this.#consumer.begin(start);
  }

  entry(entry: BaseBackupEntry): void | Promise<void> {
    if (entry.type === 'file') {
      if (entry.path === 'backup_label') {
        this.#label = { entry, pieces: [], bytes: 0 };
        return undefined;
      }
      const relation = relationOf(entry.path);
      if (relation !== undefined) {
        const header = new IncrementalHeader(entry.path, entry.size, this.#geometry);
        this.#waiting = { entry: { ...entry, path: relation.name }, file: relation.file, header };
        return undefined;
      }
    }
    return this.#consumer.entry(entry);
  }

  data(chunk: Uint8Array): void | Promise<void> {
    if (this.#label !== undefined) {
      this.#label.pieces.push(Buffer.from(chunk));
      this.#label.bytes += chunk.length;
      if (this.#label.bytes > maxLabelBytes) throw this.#badLabel('it is too long');
      return undefined;
    }
    if (this.#waiting === undefined) return this.#consumer.data(chunk);
    const { entry, file, header } = this.#waiting;
    const rest = header.write(chunk);
    if (rest === undefined) return undefined;
    this.#waiting = undefined;
    const changes = this.#cut(header.changes, file);
    const begun = this.#consumer.entry({ ...entry, size: resultingBytes(header.changes), changes });
    if (rest.length === 0) return begun;
    return begun === undefined ? this.#consumer.data(rest) : begun.then(() => this.#consumer.data(rest));
  }

  endEntry(): void | Promise<void> {
    if (this.#waiting !== undefined) throw this.#waiting.header.incomplete();
    return this.#label === undefined ? this.#consumer.endEntry() : this.#endLabel();
  }

  async #endLabel(): Promise<void> {
    const label = this.#label;
    if (label === undefined) return;
    this.#label = undefined;
    const content = this.#fullLabel(Buffer.concat(label.pieces).toString('utf8'));
    await this.#consumer.entry({ ...label.entry, size: content.length });
    await this.#consumer.data(content);
    await this.#consumer.endEntry();
  }

  manifest(chunk: Uint8Array): void | Promise<void> {
    return this.#consumer.manifest(chunk);
  }

  /** What was truncated away is not taken from the previous backup. */
  #cut(changes: BlockChanges, { relation, segment }: RelationFile): BlockChanges {
    const limit = this.#truncations.get(relation);
    if (limit === undefined) return changes;
    const within = Math.max(0, limit - segment * this.#geometry.segmentBlocks);
    return { ...changes, keptBlocks: Math.min(changes.keptBlocks, within) };
  }

  #fullLabel(text: string): Buffer {
    const { startLsn, timeline } = this.#previous;
    const lines = text.split('\n');
    const from = (name: string) => lines.find((line) => line.startsWith(`INCREMENTAL FROM ${name}: `))?.split(': ')[1];
    if (from('LSN') !== formatLsn(startLsn) || from('TLI') !== String(timeline)) {
      throw this.#badLabel(
        `it follows ${from('LSN') ?? 'none'} on timeline ${from('TLI') ?? 'none'}, not the previous backup`,
      );
    }
    return Buffer.from(lines.filter((line) => !/^INCREMENTAL FROM (?:LSN|TLI): /.test(line)).join('\n'));
  }

  #badLabel(why: string): DrError {
    return new DrError('corrupt', `the backup_label of the server is not that of an incremental backup: ${why}`, {
      where: this.#where,
      next: 'Take the backup again; if it repeats, switch summarize_wal off and report it with the version of the server.',
    });
  }
}

/** The relation file that `INCREMENTAL.<name>` stands for; undefined for any other path. */
function relationOf(path: string): { readonly name: string; readonly file: RelationFile } | undefined {
  const slash = path.lastIndexOf('/') + 1;
  if (!path.startsWith('INCREMENTAL.', slash)) return undefined;
  const name = path.slice(0, slash) + path.slice(slash + 'INCREMENTAL.'.length);
  const file = parseRelationFile(name);
  return file && { name, file };
}
