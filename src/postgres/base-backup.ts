import { DrError } from '../base/errors.ts';
import { IncrementalSink, readGeometry, refusable, refuseIncremental, uploadManifest } from './incremental-backup.ts';
import type { BlockChanges } from './incremental-file.ts';
import type { PreviousBackup } from './incremental-manifest.ts';
import { type Lsn, parseLsn } from './lsn.ts';
import { type ResultSet, type Session, textOf } from './session.ts';
import { type TarEntry, TarReader } from './tar.ts';
import type { Truncations, WalRange } from './wal-summaries.ts';
import { backend, copyKind, encodeQuery } from './wire.ts';

export interface BaseBackupOptions {
  /** Shown by the server in `backup_label`. */
  readonly label: string;
  /** True: the server checkpoints at once; false: spread over checkpoint_completion_target, up to many minutes. */
  readonly fastCheckpoint: boolean;
  /** Limit in KiB/s, 32 to 1048576; undefined = none. */
  readonly maxRateKiBs?: number | undefined;
  /** Whether `backup_manifest` (with CRC32C of every file, computed by the server) is sent. */
  readonly manifest: boolean;
  /**
   * Of relation files only what changed since this backup is sent (17 and newer, summarize_wal on). `incrementalRefusal` tells the failure
   * of a server that cannot from all others.
   */
  readonly incremental?: PreviousBackup | undefined;
  /** Milliseconds without a byte, once files are coming, after which the server counts as dead; default 5 minutes. */
  readonly silenceMs?: number | undefined;
}

export interface BaseBackupStart {
  /** Recovery of this backup begins here. */
  readonly startLsn: Lsn;
  readonly timeline: number;
  readonly tablespaces: ReadonlyArray<{ readonly oid: number; readonly location: string; readonly sizeBytes: number }>;
  /** The server's estimate of all content, tablespaces included. */
  readonly totalBytes: number;
}

/** One file, directory or link of the cluster. */
export interface BaseBackupEntry extends TarEntry {
  /** Null = the data directory itself. */
  readonly tablespaceOid: number | null;
  /** Only in an incremental backup: the data are these blocks alone, to be laid over the file of the previous backup; `size` is that of the result. */
  readonly changes?: BlockChanges | undefined;
}

/**
 * Gets the cluster as it arrives: `begin`, then per entry `entry`, `data`…, `endEntry`, then `manifest`….
 * A returned promise stops the server until it resolves; a rejection ends the backup (and the connection).
 * Paths are relative to the data directory; those of tablespaces are `pg_tblspc/<oid>/…`. Tablespaces come first,
 * `global/pg_control` last. The links `pg_tblspc/<oid>` themselves are no entries: where they point is in `begin` and in
 * the file `tablespace_map`, from which a starting server makes them anew (it fails where a full folder is in the way).
 */
export interface BaseBackupConsumer {
  begin(start: BaseBackupStart): void | Promise<void>;
  entry(entry: BaseBackupEntry): void | Promise<void>;
  /** A view, valid only until the call returns, or its promise resolves. */
  data(chunk: Uint8Array): void | Promise<void>;
  endEntry(): void | Promise<void>;
  /** Bytes of `backup_manifest`; the same rule as for `data`. */
  manifest(chunk: Uint8Array): void | Promise<void>;
}

export interface BaseBackupResult {
  readonly startLsn: Lsn;
  /** The backup is consistent once WAL up to here is replayed. */
  readonly endLsn: Lsn;
  readonly timeline: number;
}

/** Reads the server's WAL summaries over another connection. */
export interface SummaryReader {
  /** Why they do not reach back to there; undefined when nothing speaks against it. */
  whyNone(since: Omit<WalRange, 'to'>): Promise<string | undefined>;
  truncations(range: WalRange): Promise<Truncations>;
}

const defaultSilenceMs = 5 * 60_000;

/**
 * Runs `BASE_BACKUP` (syntax of 15 and newer, no WAL included). Resolves only after the server's last word: it reports
 * wrong page checksums after everything else was sent (kind `corrupt`), so nothing may be committed before.
 */
export async function baseBackup(
  session: Session,
  options: BaseBackupOptions,
  consumer: BaseBackupConsumer,
  summaries?: SummaryReader,
): Promise<BaseBackupResult> {
  const { incremental } = options;
  if (incremental === undefined) return await run(session, options, consumer);
  if (summaries === undefined) throw refuseIncremental(session.where, 'it has no WAL summaries before PostgreSQL 17');
  const unavailable = await summaries.whyNone({ timeline: incremental.timeline, from: incremental.startLsn });
  if (unavailable !== undefined) throw refuseIncremental(session.where, unavailable);
  let began = false;
  return await refusable(
    session,
    () => began,
    async () => {
      const sink = new IncrementalSink(consumer, {
        geometry: await readGeometry(session),
        previous: incremental,
        readTruncations: (range) => summaries.truncations(range),
        where: session.where,
      });
      await uploadManifest(session, incremental);
      return await run(session, options, sink, () => {
        began = true;
      });
    },
  );
}

async function run(
  session: Session,
  options: BaseBackupOptions,
  consumer: BaseBackupConsumer,
  onBegin?: () => void,
): Promise<BaseBackupResult> {
  return await session.exclusive('take a base backup', undefined, async () => {
    // The checkpoint before the first byte may take as long as it likes: only a dead connection ends this wait.
    session.socket.setSilenceLimit(undefined);
    session.socket.write(encodeQuery(command(options)));
    const before = await session.results();
    if (before.ended !== backend.copyOutResponse) throw session.unexpected(before.ended);
    onBegin?.();
    const start = parseStart(session, before.sets);
    await consumer.begin(start);
    session.socket.setSilenceLimit(options.silenceMs ?? defaultSilenceMs);
    await receiveArchives(session, start, consumer);
    // The server now verifies and cleans up: as long as the checkpoint, this may be silent.
    session.socket.setSilenceLimit(undefined);
    const after = await session.results();
    if (after.ended !== backend.readyForQuery) throw session.unexpected(after.ended);
    const [end] = after.sets;
    const endLsn = parseLsn((end && textOf(end, 0, 'recptr')) ?? '');
    if (endLsn === undefined) throw incomplete(session, 'the server did not say where the backup ends');
    return { startLsn: start.startLsn, endLsn, timeline: start.timeline };
  });
}

function command(options: BaseBackupOptions): string {
  const parts = [
    `LABEL '${options.label.replaceAll("'", "''")}'`,
    'PROGRESS true',
    `CHECKPOINT '${options.fastCheckpoint ? 'fast' : 'spread'}'`,
    // WAL comes from our own archive, which is also what waits for it.
    'WAL false',
    'WAIT false',
    'TABLESPACE_MAP true',
    ...(options.incremental ? ['INCREMENTAL true'] : []),
    ...(options.manifest ? ["MANIFEST 'yes'", "MANIFEST_CHECKSUMS 'CRC32C'"] : []),
    ...(options.maxRateKiBs === undefined ? [] : [`MAX_RATE ${Math.round(options.maxRateKiBs)}`]),
  ];
  return `BASE_BACKUP (${parts.join(', ')})`;
}

function parseStart(session: Session, sets: readonly ResultSet[]): BaseBackupStart {
  const [position, spaces] = sets;
  const startLsn = parseLsn((position && textOf(position, 0, 'recptr')) ?? '');
  const timeline = Number((position && textOf(position, 0, 'tli')) ?? Number.NaN);
  if (startLsn === undefined || !Number.isInteger(timeline) || spaces === undefined) {
    throw incomplete(session, 'the server did not say where the backup starts');
  }
  let totalBytes = 0;
  const tablespaces: Array<{ oid: number; location: string; sizeBytes: number }> = [];
  for (let row = 0; row < spaces.rows.length; row++) {
    const sizeBytes = Number(textOf(spaces, row, 'size') ?? 0) * 1024;
    totalBytes += sizeBytes;
    const oid = textOf(spaces, row, 'spcoid');
    if (oid !== undefined)
      tablespaces.push({ oid: Number(oid), location: textOf(spaces, row, 'spclocation') ?? '', sizeBytes });
  }
  return { startLsn, timeline, tablespaces, totalBytes };
}

/** The one CopyOut of 15+: archives one after the other, each begun by `n`, and the manifest, begun by `m`. */
async function receiveArchives(session: Session, start: BaseBackupStart, consumer: BaseBackupConsumer): Promise<void> {
  const { reader } = session;
  let archive: TarReader | undefined;
  let inManifest = false;
  let mainSeen = false;
  for (;;) {
    const type = await session.receive();
    if (type === backend.copyDone) break;
    if (type !== backend.copyData) throw session.unexpected(type);
    const kind = (await reader.take(1))[0];
    if (kind === copyKind.data) {
      while (reader.left > 0) {
        const view = await reader.view();
        const waiting = inManifest ? consumer.manifest(view) : archive?.write(view);
        if (waiting !== undefined) await waiting;
      }
    } else if (kind === copyKind.newArchive) {
      archive?.end();
      const body = await reader.rest();
      const tablespaceOid = archiveTablespace(session, body, start);
      mainSeen ||= tablespaceOid === null;
      archive = new TarReader(entrySink(tablespaceOid, consumer), session.where);
    } else if (kind === copyKind.manifest) {
      archive?.end();
      archive = undefined;
      inManifest = true;
    } else if (kind !== copyKind.progress) throw session.unexpected(kind ?? 0);
  }
  archive?.end();
  if (!mainSeen) throw incomplete(session, 'the data directory itself did not arrive');
}

/** `<oid>.tar` with the tablespace's location, or `base.tar` with an empty one: null. */
function archiveTablespace(session: Session, body: Buffer, start: BaseBackupStart): number | null {
  const end = body.indexOf(0);
  const name = body.toString('utf8', 0, end);
  const location = body.toString('utf8', end + 1, body.indexOf(0, end + 1));
  if (location === '') return null;
  const oid = Number(/^(\d+)\.tar$/.exec(name)?.[1] ?? Number.NaN);
  if (!start.tablespaces.some((space) => space.oid === oid)) {
    throw incomplete(session, `an archive ${name} arrived that belongs to no known tablespace`);
  }
  return oid;
}

function entrySink(tablespaceOid: number | null, consumer: BaseBackupConsumer) {
  if (tablespaceOid === null) {
    return {
      entry: (entry: TarEntry) => {
        const local = entry.path.startsWith('./') ? entry.path.slice(2) : entry.path;
        return consumer.entry({ ...entry, path: local, tablespaceOid });
      },
      data: (chunk: Uint8Array) => consumer.data(chunk),
      endEntry: () => consumer.endEntry(),
    };
  }
  const prefix = `pg_tblspc/${tablespaceOid}/`;
  return {
    entry: (entry: TarEntry) =>
      consumer.entry({
        ...entry,
        path: prefix + entry.path,
        rawPath: entry.rawPath && Buffer.concat([Buffer.from(prefix), entry.rawPath]),
        tablespaceOid,
      }),
    data: (chunk: Uint8Array) => consumer.data(chunk),
    endEntry: () => consumer.endEntry(),
  };
}

function incomplete(session: Session, why: string): DrError {
  return new DrError('corrupt', `the base backup is not complete: ${why}`, {
    where: session.where,
    next: 'Take it again; if it repeats, report it with the version of the server.',
  });
}
