import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import {
  type BaseBackupConsumer,
  type BaseBackupOptions,
  type BaseBackupResult,
  baseBackup,
  type SummaryReader,
} from './base-backup.ts';
import { type Lsn, parseLsn } from './lsn.ts';
import { sqlstateOf } from './server-errors.ts';
import { Session, settingBytes, textOf } from './session.ts';
import { openServer } from './socket.ts';
import { WalStream, type WalStreamEnd, type WalStreamOptions } from './wal-stream.ts';
import { readTruncations, whyNoSummaries } from './wal-summaries.ts';

export interface ConnectReplicationOptions {
  /** As `pg` reads it: `postgresql://user:password@host:port/database?sslmode=…` or `postgresql:///database?host=/directory`. */
  readonly url: string;
  /** Shown in pg_stat_replication; what synchronous_standby_names has to name. */
  readonly applicationName: string;
  /** Ends the connection, and with it whatever runs on it (`interrupted`). */
  readonly signal?: AbortSignal | undefined;
  readonly log: Log;
  /** Default 15 s. */
  readonly connectTimeoutMs?: number | undefined;
}

/** Who the server is and how far it is (`IDENTIFY_SYSTEM`). */
export interface ServerIdentity {
  readonly systemId: string;
  readonly timeline: number;
  /** Primary: end of flushed WAL; standby: of replayed or received WAL. */
  readonly lsn: Lsn;
}

/** Position of a slot; `restartLsn` is undefined while it reserves no WAL. */
export interface SlotPosition {
  readonly restartLsn: Lsn | undefined;
  readonly restartTimeline: number | undefined;
}

/**
 * A connection to a PostgreSQL server of version 15 or newer that may replicate. One command at a time: a second one at the same
 * time is a defect (`internal`). Errors name the cause and what to do; `sqlstateOf` and `isWalGone` tell them apart.
 */
export interface ReplicationConnection {
  /** `postgresql://host:port/database`, without credentials. */
  readonly where: string;
  /** As in 170004. */
  readonly versionNumber: number;
  /** With `expectedSystemId`: another system behind the same URL is refused. */
  identify(expectedSystemId?: string): Promise<ServerIdentity>;
  /** The value of a setting as `SHOW` prints it. */
  show(setting: string): Promise<string>;
  /** Bytes of one WAL segment. */
  walSegmentBytes(): Promise<number>;
  /** Creates a slot that reserves WAL from now on; one that exists is good, and false is returned. */
  createPhysicalSlot(name: string): Promise<boolean>;
  /** Removes a slot that nobody uses; none there is good. */
  dropSlot(name: string): Promise<void>;
  slot(name: string): Promise<SlotPosition | undefined>;
  /** The history file of a timeline > 1, byte for byte. */
  timelineHistory(timeline: number): Promise<{ fileName: string; content: Buffer }>;
  baseBackup(options: BaseBackupOptions, consumer: BaseBackupConsumer): Promise<BaseBackupResult>;
  streamWal(options: WalStreamOptions): Promise<WalStreamEnd>;
  /** While WAL streams: tells the server at once what `durable()` says now. Otherwise nothing. */
  acknowledge(): void;
  close(): Promise<void>;
}

const oldestVersion = 15;
const firstWithSummaries = 17;

/** Connects with `replication=true`. Throws `unreachable`, `denied` or `config` with what to do. */
export async function connectReplication(options: ConnectReplicationOptions): Promise<ReplicationConnection> {
  const { signal } = options;
  const socket = await openServer({ ...options, connectTimeoutMs: options.connectTimeoutMs ?? 15_000 });
  const abort = () =>
    socket.destroy(new DrError('interrupted', 'the connection was interrupted', { where: socket.where }));
  signal?.addEventListener('abort', abort, { once: true });
  if (signal?.aborted) abort();
  const release = () => signal?.removeEventListener('abort', abort);
  const connection = new Connection(new Session(socket, options.log), options, release);
  if (connection.versionNumber < oldestVersion * 10_000) {
    await connection.close();
    throw new DrError(
      'config',
      `the server is PostgreSQL ${socket.parameters.get('server_version') ?? 'of an unknown version'}; dr needs ${oldestVersion} or newer`,
      {
        where: socket.where,
        next: `Upgrade the server to PostgreSQL ${oldestVersion} or newer.`,
      },
    );
  }
  return connection;
}

class Connection implements ReplicationConnection {
  readonly #session: Session;
  readonly #options: Pick<ConnectReplicationOptions, 'url' | 'signal'>;
  readonly #release: () => void;
  #stream: WalStream | undefined;

  constructor(session: Session, options: Pick<ConnectReplicationOptions, 'url' | 'signal'>, release: () => void) {
    this.#session = session;
    this.#options = options;
    this.#release = release;
  }

  get where(): string {
    return this.#session.where;
  }

  get versionNumber(): number {
    return parseVersion(this.#session.socket.parameters.get('server_version') ?? '');
  }

  async identify(expectedSystemId?: string): Promise<ServerIdentity> {
    const set = await this.#session.query('IDENTIFY_SYSTEM', 'identify the server');
    const systemId = textOf(set, 0, 'systemid');
    const timeline = Number(textOf(set, 0, 'timeline'));
    const lsn = parseLsn(textOf(set, 0, 'xlogpos') ?? '');
    if (systemId === undefined || lsn === undefined || !Number.isInteger(timeline)) throw this.#odd('IDENTIFY_SYSTEM');
    if (expectedSystemId !== undefined && expectedSystemId !== systemId) {
      throw new DrError(
        'refused',
        `another PostgreSQL system answers: ${systemId}, but the archive belongs to ${expectedSystemId}`,
        {
          where: this.where,
          next: 'If the URL is wrong, correct it. If the server was created anew (initdb, pg_upgrade, restored from a dump), take a new base backup of it: the old recovery points stay.',
        },
      );
    }
    return { systemId, timeline, lsn };
  }

  async show(setting: string): Promise<string> {
    if (!/^[A-Za-z_][A-Za-z0-9_.]*$/.test(setting))
      throw new DrError('internal', `not the name of a setting: ${setting}`);
    const set = await this.#session.query(`SHOW ${setting}`, `read the setting ${setting}`);
    const value = set.rows[0]?.[0];
    if (!value) throw this.#odd('SHOW');
    return value.toString('utf8');
  }

  async walSegmentBytes(): Promise<number> {
    const bytes = settingBytes(await this.show('wal_segment_size'));
    if (!Number.isInteger(bytes)) throw this.#odd('SHOW wal_segment_size');
    return bytes;
  }

  async createPhysicalSlot(name: string): Promise<boolean> {
    assertSlotName(name);
    try {
      await this.#session.query(
        `CREATE_REPLICATION_SLOT "${name}" PHYSICAL (RESERVE_WAL)`,
        `create the replication slot ${name}`,
        name,
      );
      return true;
    } catch (error) {
      if (sqlstateOf(error) !== '42710') throw error;
    }
    // The name is taken: reading it fails with a clear error where it is a logical slot.
    await this.slot(name);
    return false;
  }

  async dropSlot(name: string): Promise<void> {
    assertSlotName(name);
    try {
      await this.#session.query(`DROP_REPLICATION_SLOT "${name}"`, `drop the replication slot ${name}`, name);
    } catch (error) {
      if (sqlstateOf(error) !== '42704') throw error;
    }
  }

  async slot(name: string): Promise<SlotPosition | undefined> {
    assertSlotName(name);
    const set = await this.#session.query(`READ_REPLICATION_SLOT "${name}"`, `read the replication slot ${name}`, name);
    if (textOf(set, 0, 'slot_type') === undefined) return undefined;
    const timeline = textOf(set, 0, 'restart_tli');
    return {
      restartLsn: parseLsn(textOf(set, 0, 'restart_lsn') ?? ''),
      restartTimeline: timeline === undefined ? undefined : Number(timeline),
    };
  }

  async timelineHistory(timeline: number): Promise<{ fileName: string; content: Buffer }> {
    const set = await this.#session.query(`TIMELINE_HISTORY ${timeline}`, `read the history of timeline ${timeline}`);
    const fileName = textOf(set, 0, 'filename');
    const content = set.rows[0]?.[set.columns.indexOf('content')];
    if (fileName === undefined || !content) throw this.#odd('TIMELINE_HISTORY');
    return { fileName, content };
  }

  async baseBackup(options: BaseBackupOptions, consumer: BaseBackupConsumer): Promise<BaseBackupResult> {
    return await baseBackup(this.#session, options, consumer, this.#summaries());
  }

  async streamWal(options: WalStreamOptions): Promise<WalStreamEnd> {
    if (options.slot !== undefined) assertSlotName(options.slot);
    const stream = new WalStream(this.#session, options);
    this.#stream = stream;
    try {
      return await stream.run();
    } finally {
      this.#stream = undefined;
    }
  }

  acknowledge(): void {
    this.#stream?.acknowledge();
  }

  #summaries(): SummaryReader | undefined {
    if (this.versionNumber < firstWithSummaries * 10_000) return undefined;
    const { url, signal } = this.#options;
    return {
      whyNone: async (since) => {
        const { timeline } = await this.identify();
        if (timeline === since.timeline) return await whyNoSummaries(url, since, { signal });
        return `it is on timeline ${timeline}, the previous backup on ${since.timeline}`;
      },
      truncations: (range) => readTruncations(url, range, { signal }),
    };
  }

  async close(): Promise<void> {
    this.#release();
    await this.#session.close();
  }

  #odd(command: string): DrError {
    return new DrError('internal', `the server gave no usable answer to ${command}`, {
      where: this.where,
      next: 'Check that the URL leads to PostgreSQL itself and not to a pooler; if it does, report this with the version of the server.',
    });
  }
}

/** `17.4`, `18beta2` → 170004, 180000; 0 when it is none. */
export function parseVersion(text: string): number {
  const match = /^(\d+)(?:\.(\d+))?/.exec(text);
  return match ? Number(match[1]) * 10_000 + Number(match[2] ?? 0) : 0;
}

function assertSlotName(name: string): void {
  if (/^[a-z0-9_]{1,63}$/.test(name)) return;
  throw new DrError('config', `not the name of a replication slot: ${JSON.stringify(name)}`, {
    next: 'Use at most 63 lower-case letters, digits and underscores.',
  });
}
