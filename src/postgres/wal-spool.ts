import { type FSWatcher, watch } from 'node:fs';
import { chown, mkdir, open, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Semaphore } from '../base/concurrency.ts';
import { DrError, fileError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { redact } from '../base/redact.ts';
import { parseSegmentName, segmentName } from './lsn.ts';
import type { ServerUser } from './server-process-user.ts';
import { processBorn, shellQuote, spoolScript } from './wal-spool-script.ts';

const diskBytes = 256 * 1024 * 1024;
const memoryBytes = 64 * 1024 * 1024;
const pollMs = 50;
const heartbeatMs = 10_000;
const segmentPattern = /^[0-9A-F]{24}$/;
const namePattern = /^(?:[0-9A-F]{8}\.history|[0-9A-F]{24}(?:\.partial|\.[0-9A-F]{8}\.backup)?)$/;

export interface WalSpoolOptions {
  /** A directory of its own, created here and removed by `close`; on the file system of the data directory, so that moving is a rename. */
  readonly directory: string;
  readonly segmentBytes: number;
  /**
   * Brings a WAL segment (`000000010000000000000003`, the whole or its beginning) or a timeline history
   * (`00000002.history`); undefined only when the archive certainly does not have it. Anything else throws.
   */
  readonly fetch: (fileName: string, signal: AbortSignal) => Promise<Uint8Array | undefined>;
  /** The files that PostgreSQL will probably want after this one, nearest first; default: the next segments of its timeline. */
  readonly following?: (fileName: string, count: number) => readonly string[];
  /** Files fetched ahead at most; less for large segments, so that disk stays below 256 MiB. */
  readonly prefetch?: number;
  /** The server's user: gets the files. */
  readonly user?: ServerUser | undefined;
  readonly log: Log;
}

/**
 * Feeds WAL to a recovering server. The server's restore_command leaves the name of what it wants in the file `asked` and
 * waits for `have/<name>` or `none/<name>`; this side fetches ahead in parallel, so that the file mostly lies there before.
 *
 * "The archive does not have it" ends a recovery and is therefore said only when `fetch` said so, and then for good. A
 * failure of `fetch`, a full disk or the death of this process ends the recovery with an error instead.
 */
export class WalSpool {
  readonly directory: string;
  readonly segmentBytes: number;
  readonly #options: WalSpoolOptions;
  readonly #ahead: number;
  readonly #fetching: Semaphore;
  readonly #abort = new AbortController();
  /** Files in `have`, and those on their way there: what the promise says is whether the archive has it. */
  readonly #files = new Map<string, Promise<boolean>>();
  readonly #missing = new Set<string>();
  /** How often each missing segment was asked for since the last delivery. */
  readonly #askedInVain = new Map<string, number>();
  #askedOffset = 0;
  #askedRest = '';
  #lastDelivered: string | undefined;
  #deliveredCount = 0;
  #failure: unknown;
  #watcher: FSWatcher | undefined;
  readonly #timers: NodeJS.Timeout[] = [];
  #pumping: Promise<void> | undefined;
  #pumpAgain = false;
  #closed = false;

  constructor(options: WalSpoolOptions) {
    this.#options = options;
    this.directory = options.directory;
    this.segmentBytes = options.segmentBytes;
    this.#ahead = Math.max(2, Math.min(options.prefetch ?? 16, Math.floor(diskBytes / options.segmentBytes)));
    this.#fetching = new Semaphore(Math.max(1, Math.min(4, Math.floor(memoryBytes / options.segmentBytes))));
  }

  /** Value for restore_command. */
  get command(): string {
    const script = shellQuote(join(this.directory, 'fetch.sh')).replaceAll('%', '%%');
    return `/bin/sh ${script} '%f' '%p'`;
  }

  /** Why feeding ended: the caller of recovery throws this, not what the server made of it. */
  get failure(): unknown {
    return this.#failure;
  }

  /** The newest segment that the server took; undefined before the first. */
  get lastDelivered(): string | undefined {
    return this.#lastDelivered;
  }

  get deliveredCount(): number {
    return this.#deliveredCount;
  }

  /**
   * The segment that the server has asked for in vain most often since its last delivery. Once it asks a third time it has
   * applied everything before: only the first request can come from reading ahead (`WaitForWALToBecomeAvailable`).
   */
  get idle(): { readonly name: string; readonly count: number } | undefined {
    let most: { name: string; count: number } | undefined;
    for (const [name, count] of this.#askedInVain) if (count >= (most?.count ?? 0)) most = { name, count };
    return most;
  }

  async start(): Promise<void> {
    try {
      await rm(this.directory, { recursive: true, force: true, maxRetries: 3 });
      for (const path of [this.directory, this.#path('have'), this.#path('none'), this.#path('draft')]) {
        await mkdir(path, { recursive: true, mode: 0o700 });
        await this.#own(path);
      }
      const script = spoolScript(this.directory, { pid: process.pid, born: await processBorn(process.pid) });
      for (const [name, content] of [
        ['asked', ''],
        ['alive', ''],
        ['fetch.sh', script],
      ] as const) {
        await writeFile(this.#path(name), content, { mode: 0o600 });
        await this.#own(this.#path(name));
      }
    } catch (error) {
      throw fileError(error, this.directory, 'prepare the WAL spool');
    }
    this.#watcher = watch(this.directory, () => this.#wake());
    this.#watcher.on('error', () => {
      // The poll below goes on without it.
    });
    this.#timers.push(setInterval(() => this.#wake(), pollMs));
    this.#timers.push(setInterval(() => void this.#beat(), heartbeatMs));
  }

  /** To be called before the server starts again: it may want files again that it had. */
  async serverStarts(): Promise<void> {
    this.#lastDelivered = undefined;
    this.#askedInVain.clear();
    await rm(this.#path('none'), { recursive: true, force: true });
    await mkdir(this.#path('none'), { mode: 0o700 });
    await this.#own(this.#path('none'));
  }

  /** Ends feeding and removes the directory: a server that asks from now on stops its recovery. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#abort.abort();
    this.#watcher?.close();
    for (const timer of this.#timers) clearInterval(timer);
    await this.#pumping;
    await Promise.allSettled(this.#files.values());
    await rm(this.directory, { recursive: true, force: true, maxRetries: 3 });
  }

  #path(...names: string[]): string {
    return join(this.directory, ...names);
  }

  async #own(path: string): Promise<void> {
    const { user } = this.#options;
    if (user !== undefined) await chown(path, user.uid, user.gid);
  }

  async #beat(): Promise<void> {
    const now = new Date();
    await utimes(this.#path('alive'), now, now).catch(() => {});
  }

  #wake(): void {
    if (this.#closed) return;
    if (this.#pumping !== undefined) {
      this.#pumpAgain = true;
      return;
    }
    this.#pumping = this.#pump()
      .catch((error: unknown) => this.#fail(error))
      .finally(() => {
        this.#pumping = undefined;
      });
  }

  /** Answers all requests in the order in which they were made. */
  async #pump(): Promise<void> {
    do {
      this.#pumpAgain = false;
      for (const name of await this.#newRequests()) {
        if (this.#closed || this.#failure !== undefined) return;
        await this.#answer(name);
      }
    } while (this.#pumpAgain);
  }

  async #newRequests(): Promise<string[]> {
    const file = await open(this.#path('asked'), 'r');
    try {
      const buffer = Buffer.alloc(4096);
      const names: string[] = [];
      for (;;) {
        const { bytesRead } = await file.read(buffer, 0, buffer.length, this.#askedOffset);
        if (bytesRead === 0) return names;
        this.#askedOffset += bytesRead;
        const lines = (this.#askedRest + buffer.toString('latin1', 0, bytesRead)).split('\n');
        this.#askedRest = lines.pop() ?? '';
        names.push(...lines);
      }
    } finally {
      await file.close();
    }
  }

  async #answer(name: string): Promise<void> {
    if (!namePattern.test(name))
      throw new DrError('internal', `PostgreSQL asks for a WAL file with the odd name "${name}"`);
    const isSegment = segmentPattern.test(name);
    // Asked again at once, the server has read to the end of this segment, found the WAL ending inside it, and still holds
    // the file in pg_wal: the archive has nothing newer.
    const again = isSegment && name === this.#lastDelivered;
    if (again || !(await this.#provide(name))) {
      if (isSegment) this.#askedInVain.set(name, (this.#askedInVain.get(name) ?? 0) + 1);
      await writeFile(this.#path('none', name), '');
      return;
    }
    this.#files.delete(name);
    if (!isSegment) return;
    this.#askedInVain.clear();
    this.#lastDelivered = name;
    this.#deliveredCount++;
    this.#fetchAhead(name);
  }

  /** True once the file lies in `have` (or was taken from there), false when the archive does not have it. */
  async #provide(name: string): Promise<boolean> {
    if (this.#missing.has(name)) return false;
    // What failed ahead of time is tried once more now that it is needed; then the failure counts.
    const early = await this.#files.get(name)?.catch(() => undefined);
    if (early === true) return true;
    this.#files.delete(name);
    const there = await this.#bring(name);
    if (!there) this.#missing.add(name);
    return there;
  }

  #fetchAhead(name: string): void {
    const following = this.#options.following?.(name, this.#ahead) ?? this.#nextSegments(name);
    for (const next of following) {
      if (this.#files.has(next) || this.#missing.has(next)) continue;
      const job = this.#bring(next);
      job.catch((error: unknown) => {
        this.#files.delete(next);
        this.#options.log.debug(
          { file: next, reason: messageOf(error) },
          'fetching WAL ahead failed; it is tried again when needed',
        );
      });
      this.#files.set(next, job);
    }
  }

  #nextSegments(name: string): string[] {
    const position = parseSegmentName(name, this.segmentBytes);
    if (position === undefined) return [];
    return Array.from({ length: this.#ahead }, (_, index) =>
      segmentName(position.timeline, position.start + BigInt((index + 1) * this.segmentBytes), this.segmentBytes),
    );
  }

  async #bring(name: string): Promise<boolean> {
    return await this.#fetching.use(async () => {
      const { signal } = this.#abort;
      signal.throwIfAborted();
      const content = await this.#options.fetch(name, signal);
      signal.throwIfAborted();
      if (content === undefined) return false;
      const isSegment = segmentPattern.test(name);
      if (content.length === 0 || (isSegment && content.length > this.segmentBytes)) {
        throw new DrError(
          'corrupt',
          `the WAL file ${name} has ${content.length} bytes, a segment has ${this.segmentBytes}`,
          {
            where: name,
            next: 'Recover from another vault.',
          },
        );
      }
      const draft = this.#path('draft', name);
      try {
        const file = await open(draft, 'w', 0o600);
        try {
          await file.writeFile(content);
          // PostgreSQL refuses short segments; zeros after the last record mean "the WAL ends here".
          if (isSegment) await file.truncate(this.segmentBytes);
        } finally {
          await file.close();
        }
        await this.#own(draft);
        await rename(draft, this.#path('have', name));
      } catch (error) {
        throw fileError(error, draft, 'write a WAL file for recovery');
      }
      return true;
    });
  }

  async #fail(error: unknown): Promise<void> {
    if (this.#closed || this.#failure !== undefined) return;
    this.#failure = error;
    const text = redact(messageOf(error)).replaceAll(/\s+/g, ' ');
    this.#options.log.error({ error: text }, 'feeding WAL to the recovery failed; the recovery stops');
    // Should even this fail, the server waits until this process ends or `recover`, which looks at `failure`, stops it.
    // Renamed into place: the waiting script must not read half of it.
    const draft = this.#path('draft', 'error');
    await writeFile(draft, text)
      .then(() => this.#own(draft))
      .then(() => rename(draft, this.#path('error')))
      .catch(() => {});
  }
}
