import { type FileHandle, open } from 'node:fs/promises';
import { StringDecoder } from 'node:string_decoder';

const keptLines = 200;
const chunkBytes = 64 * 1024;

/** Follows the log file of a server from where it was opened; keeps the last lines for error messages. */
export class LogTail {
  readonly path: string;
  readonly #lines: string[] = [];
  readonly #decoder = new StringDecoder('utf8');
  #offset: number;
  #rest = '';
  #reading: Promise<string[]> = Promise.resolve([]);

  /** `offset`: bytes of the file that belong to an earlier start. */
  constructor(path: string, offset: number) {
    this.path = path;
    this.#offset = offset;
  }

  /** The complete lines written since the last call. */
  poll(): Promise<string[]> {
    this.#reading = this.#reading.catch(() => []).then(() => this.#read());
    return this.#reading;
  }

  async #read(): Promise<string[]> {
    let file: FileHandle;
    try {
      file = await open(this.path, 'r');
    } catch {
      return [];
    }
    const fresh: string[] = [];
    try {
      const buffer = Buffer.alloc(chunkBytes);
      for (;;) {
        const { bytesRead } = await file.read(buffer, 0, chunkBytes, this.#offset);
        if (bytesRead === 0) break;
        this.#offset += bytesRead;
        const pieces = (this.#rest + this.#decoder.write(buffer.subarray(0, bytesRead))).split('\n');
        this.#rest = pieces.pop() ?? '';
        fresh.push(...pieces);
        this.#lines.push(...pieces);
        this.#lines.splice(0, this.#lines.length - keptLines);
      }
    } finally {
      await file.close();
    }
    return fresh;
  }

  /** The newest lines that were read, oldest first. */
  lines(): readonly string[] {
    return this.#lines;
  }

  /**
   * What the server gave as the reason for its end, on one line: FATAL and PANIC messages with detail and hint. Messages
   * about refused connections (ours, while it starts) are no reason. The last three lines where there is none.
   */
  reason(): string {
    const found: string[] = [];
    let following = false;
    for (const line of this.#lines) {
      const match = /\b(FATAL|PANIC|ERROR|DETAIL|HINT|CONTEXT|LOG|WARNING|STATEMENT):\s+(.*)$/.exec(line);
      const level = match?.[1];
      const text = match?.[2] ?? '';
      if (level === 'FATAL' || level === 'PANIC') {
        following = !/the database system is |terminating connection|role ".*" does not exist/.test(text);
        if (following && !found.includes(text)) found.push(text);
      } else if (following && (level === 'DETAIL' || level === 'HINT')) {
        found.push(text);
      } else if (level !== 'CONTEXT') {
        following = false;
      }
    }
    if (found.length > 0) return found.slice(0, 8).join('; ');
    return this.#lines.slice(-3).join('; ') || 'it wrote nothing';
  }
}
