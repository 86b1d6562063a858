import { randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { fileError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import type { IndexEntry } from '../index-format.ts';
import type { EntrySink, StatFacts } from './previous-backup.ts';
import { encodeFooter, encodeRecord, firstRow, MAGIC, pathHash, ROW_BYTES } from './state-format.ts';

/** Records are gathered to writes of this size. */
const WRITE_BYTES = 1024 * 1024;
/** Rows of the table gathered in one piece of memory while the backup runs. */
const ROWS_IN_PIECE = 16 * 1024;
/** Rows of the finished table for each record: the emptier, the fewer are looked at for a path. */
const ROOM = 1.5;

/** What a state says of the backup that it belongs to. */
export interface StateFacts {
  readonly resource: string;
  readonly backupId: string;
  /** SHA-256 of its manifest as stored, hexadecimal. */
  readonly manifestSha256: string;
  /** Raw bytes in each of its parts and those that it uses, by position in its manifest's list. */
  readonly partBytes: ReadonlyArray<readonly [raw: number, live: number]>;
}

/**
 * Writes the state of a backup while it is taken: beside the older ones, under its final name only when it is complete. It is a help,
 * never a need: when the disk fails, it is given up with a word in the log, and the backup goes on.
 */
export class StateWriter implements EntrySink {
  readonly #folder: string;
  readonly #temporary: string;
  readonly #log: Log;
  #file: FileHandle | undefined;
  #pending: Buffer[] = [MAGIC];
  #pendingBytes = MAGIC.length;
  /** Bytes up to the end of the last record. */
  #end = MAGIC.length;
  #records = 0;
  readonly #rows: Buffer[] = [];
  #writing: Promise<void> = Promise.resolve();
  #failed = false;

  /** `folder`: of this resource; made when something is written. */
  constructor(folder: string, log: Log) {
    this.#folder = folder;
    this.#temporary = path.join(folder, `${randomBytes(8).toString('hex')}.tmp`);
    this.#log = log;
  }

  async add(entry: IndexEntry, line: Buffer, digests: Buffer | undefined, stat: StatFacts | undefined): Promise<void> {
    if (this.#failed) return;
    const record = encodeRecord(line, stat, digests);
    this.#addRow(entry.path);
    this.#pending.push(record);
    this.#pendingBytes += record.length;
    this.#end += record.length;
    if (this.#pendingBytes >= WRITE_BYTES) await this.#flush();
  }

  /** Completes the state under the name of its backup. Resolves to false if there is none. */
  async finish(facts: StateFacts): Promise<boolean> {
    await this.#flush();
    const table = this.#table();
    const text = Buffer.from(JSON.stringify(facts));
    const rows = table.length / ROW_BYTES;
    const numbers = { tableOffset: this.#end, rows, factsBytes: text.length, records: this.#records };
    this.#pending.push(table, text, encodeFooter(numbers, table, text));
    await this.#flush();
    await this.#attempt(async () => {
      await this.#file?.sync();
      await this.#file?.close();
      this.#file = undefined;
      await rename(this.#temporary, path.join(this.#folder, facts.backupId));
      const folder = await open(this.#folder);
      try {
        await folder.sync();
      } finally {
        await folder.close();
      }
    });
    if (this.#failed) await this.abandon();
    return !this.#failed;
  }

  /** Removes what was written. */
  async abandon(): Promise<void> {
    this.#failed = true;
    await this.#writing;
    await this.#file?.close().catch(() => undefined);
    this.#file = undefined;
    await rm(this.#temporary, { force: true }).catch(() => undefined);
  }

  #addRow(name: Buffer): void {
    const place = this.#records++ % ROWS_IN_PIECE;
    if (place === 0) this.#rows.push(Buffer.allocUnsafeSlow(ROWS_IN_PIECE * ROW_BYTES));
    const rows = this.#rows.at(-1);
    rows?.set(pathHash(name), place * ROW_BYTES);
    rows?.writeDoubleLE(this.#end + 1, place * ROW_BYTES + 8);
  }

  #table(): Buffer {
    const rows = Math.ceil(this.#records * ROOM) + 1;
    const table = Buffer.alloc(this.#failed ? 0 : rows * ROW_BYTES);
    for (let n = 0; n < this.#records && !this.#failed; n++) {
      const piece = this.#rows[Math.floor(n / ROWS_IN_PIECE)] ?? table;
      const from = (n % ROWS_IN_PIECE) * ROW_BYTES;
      const row = piece.subarray(from, from + ROW_BYTES);
      let at = firstRow(row, rows);
      while (table.readDoubleLE(at * ROW_BYTES + 8) !== 0) at = (at + 1) % rows;
      table.set(row, at * ROW_BYTES);
    }
    this.#rows.length = 0;
    return table;
  }

  async #flush(): Promise<void> {
    const pieces = this.#pending;
    this.#pending = [];
    this.#pendingBytes = 0;
    // One after the other: records stand where the table says.
    this.#writing = this.#writing.then(
      async () =>
        await this.#attempt(async () => {
          if (!this.#file) {
            // What lies here is for nobody else; the scratch folder around it is shared with the servers of drills.
            await mkdir(path.dirname(path.dirname(this.#folder)), { recursive: true, mode: 0o711 });
            await mkdir(this.#folder, { recursive: true, mode: 0o700 });
            this.#file = await open(this.#temporary, 'wx', 0o600);
          }
          const bytes = pieces.length === 1 && pieces[0] ? pieces[0] : Buffer.concat(pieces);
          for (let at = 0; at < bytes.length; ) {
            const { bytesWritten } = await this.#file.write(bytes, at, bytes.length - at);
            at += bytesWritten;
          }
        }),
    );
    await this.#writing;
  }

  async #attempt(work: () => Promise<void>): Promise<void> {
    if (this.#failed) return;
    try {
      await work();
    } catch (error) {
      this.#failed = true;
      const why = fileError(error, this.#folder, 'keep what the next backup is compared with');
      this.#log.warn({ error: why }, 'the next backup of this resource will store everything anew');
    }
  }
}
