import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { serverError } from './server-errors.ts';
import type { ServerSocket } from './socket.ts';
import {
  backend,
  encodedTerminate,
  encodeQuery,
  MessageReader,
  parseDataRow,
  parseParameterStatus,
  parseRowDescription,
  parseServerMessage,
} from './wire.ts';

/** One result set; values are raw bytes in text format. */
export interface ResultSet {
  readonly columns: readonly string[];
  readonly rows: ReadonlyArray<ReadonlyArray<Buffer | null>>;
}

/** Commands are answered within this time, or the server counts as dead. Streams have their own limits. */
const commandSilenceMs = 60_000;
/** Warnings of one command that are repeated in its error. */
const maxWarnings = 5;

/** One replication session: sends simple queries and hands out messages in order; one command at a time. */
export class Session {
  readonly socket: ServerSocket;
  readonly reader: MessageReader;
  readonly log: Log;
  #doing: string | undefined;
  #slot: string | undefined;
  #warnings: string[] = [];

  constructor(socket: ServerSocket, log: Log) {
    this.socket = socket;
    this.reader = new MessageReader(socket, socket.where);
    this.log = log;
  }

  get where(): string {
    return this.socket.where;
  }

  /**
   * Runs one command with its whole conversation. `doing` completes "cannot …". After a failure that leaves the
   * conversation unfinished (a consumer's error, a broken stream) the connection is destroyed.
   */
  async exclusive<T>(doing: string, slot: string | undefined, work: () => Promise<T>): Promise<T> {
    if (this.#doing !== undefined) {
      throw new DrError('internal', `cannot ${doing} while the same connection is used to ${this.#doing}`, {
        where: this.where,
        next: 'Open a second connection.',
      });
    }
    if (this.socket.failure !== undefined) throw this.socket.failure;
    this.#doing = doing;
    this.#slot = slot;
    this.#warnings = [];
    this.socket.setSilenceLimit(commandSilenceMs);
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof FinishedError)) {
        this.socket.destroy(
          error instanceof DrError
            ? error
            : new DrError('interrupted', `stopped in the middle of the attempt to ${doing}`, {
                where: this.where,
                cause: error,
              }),
        );
        throw error;
      }
      throw error.failure;
    } finally {
      this.#doing = undefined;
      this.socket.setSilenceLimit(undefined);
    }
  }

  /** A command that answers with rows only: its first result set. */
  async query(sql: string, doing: string, slot?: string): Promise<ResultSet> {
    return await this.exclusive(doing, slot, async () => {
      this.socket.write(encodeQuery(sql));
      const { sets } = await this.results();
      return sets[0] ?? { columns: [], rows: [] };
    });
  }

  /** Type of the next message that concerns the command. Notices are logged; an error is thrown once the server is ready again. */
  async receive(): Promise<number> {
    for (;;) {
      const type = await this.reader.next();
      if (type === backend.notice) this.#notice(await this.reader.rest());
      else if (type === backend.parameterStatus) {
        const { name, value } = parseParameterStatus(await this.reader.rest());
        this.socket.parameters.set(name, value);
      } else if (type === backend.error) await this.#fail(await this.reader.rest());
      else if (type !== backend.notification) return type;
    }
  }

  /** Collects result sets up to the end of the command or the begin of a copy; says which message ended it. */
  async results(): Promise<{ sets: ResultSet[]; ended: number }> {
    const sets: Array<{ columns: string[]; rows: Array<Array<Buffer | null>> }> = [];
    for (;;) {
      const type = await this.receive();
      if (type === backend.rowDescription)
        sets.push({ columns: parseRowDescription(await this.reader.rest()), rows: [] });
      else if (type === backend.dataRow) sets.at(-1)?.rows.push(parseDataRow(await this.reader.rest()));
      else if (
        type === backend.readyForQuery ||
        type === backend.copyOutResponse ||
        type === backend.copyInResponse ||
        type === backend.copyBothResponse
      ) {
        await this.reader.rest();
        return { sets, ended: type };
      } else if (type !== backend.commandComplete && type !== backend.emptyQuery) throw this.unexpected(type);
    }
  }

  /** The error for a message that the protocol does not allow here. */
  unexpected(type: number): DrError {
    return new DrError(
      'internal',
      `the server sent an unexpected message (${String.fromCharCode(type)}) to the attempt to ${this.#doing ?? 'talk'}`,
      {
        where: this.where,
        next: 'Run it again; if it repeats, report it with the version of the server.',
      },
    );
  }

  /** Says goodbye and closes. */
  async close(): Promise<void> {
    await this.socket.end(encodedTerminate);
  }

  #notice(body: Buffer): void {
    const { severity, message, detail, sqlstate } = parseServerMessage(body);
    const facts = { server: this.where, sqlstate, ...(detail === undefined ? {} : { detail }) };
    if (severity !== 'WARNING') {
      this.log.debug(facts, message);
      return;
    }
    this.log.warn(facts, message);
    if (this.#warnings.length < maxWarnings) this.#warnings.push(message);
  }

  async #fail(body: Buffer): Promise<never> {
    const raw = parseServerMessage(body);
    const detail = [raw.detail, ...this.#warnings].filter((part) => part !== undefined).join('; ');
    const failure = serverError(
      { ...raw, detail: detail === '' ? undefined : detail },
      { where: this.where, user: this.socket.user, doing: this.#doing ?? 'talk to the server', slot: this.#slot },
    );
    if (raw.severity === 'FATAL' || raw.severity === 'PANIC') throw failure;
    try {
      // Whatever the command had still under way.
      while ((await this.reader.next()) !== backend.readyForQuery);
      await this.reader.rest();
    } catch {
      // The server closed without another word: what it said before is the reason.
      throw failure;
    }
    throw new FinishedError(failure);
  }
}

/** An error after which the session can go on: the server has said that it is ready. Never leaves `exclusive`. */
class FinishedError extends Error {
  readonly failure: DrError;

  constructor(failure: DrError) {
    super(failure.message);
    this.failure = failure;
  }
}

/** Bytes of a setting as `SHOW` prints it (`16MB`, `8192`); NaN for anything else. */
export function settingBytes(text: string | undefined): number {
  const match = /^(\d+)(B|kB|MB|GB)?$/.exec(text ?? '');
  const factor = { B: 1, kB: 1024, MB: 1024 ** 2, GB: 1024 ** 3 }[match?.[2] ?? 'B'];
  return Number(match?.[1]) * (factor ?? Number.NaN);
}

/** The text of column `name` in a row; undefined for NULL or a missing column. */
export function textOf(set: ResultSet, row: number, name: string): string | undefined {
  return set.rows[row]?.[set.columns.indexOf(name)]?.toString('utf8');
}
