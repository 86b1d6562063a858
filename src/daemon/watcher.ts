import { stat } from 'node:fs/promises';
import path from 'node:path';
import { type ChokidarOptions, FSWatcher } from 'chokidar';
import type { Clock } from '../base/clock.ts';
import { codeOf, DrError, fileError, messageOf } from '../base/errors.ts';
import { globMatcher } from '../base/glob.ts';
import type { Log } from '../base/log.ts';
import type { Service } from './service.ts';
import { Settling } from './settling.ts';

export interface WatcherOptions {
  readonly resource: string;
  /** The directory that is watched. */
  readonly path: string;
  /** Globs on the path relative to it, as for the backup. */
  readonly exclude: readonly string[];
  /** A change counts when nothing has followed it for this long, milliseconds ... */
  readonly quietMs: number;
  /** ... or when it has waited for this long; default 60 s. */
  readonly atMostMs?: number;
  /** How often files are looked at where the system cannot tell of changes; default 5 s. */
  readonly pollMs?: number;
  /** How often it is looked whether the directory is still the same one; default 15 s. */
  readonly checkMs?: number;
  readonly clock: Clock;
  readonly log: Log;
  /** Default: chokidar's. */
  readonly createWatcher?: (options: ChokidarOptions) => FSWatcher;
  onChange(): void;
}

/** The system has no watches left, or the file system has none. */
const NO_WATCHES = new Set(['ENOSPC', 'EMFILE', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP']);

/**
 * Service: tells of changes below a directory, once they have settled. Where the system runs out of watches, files are looked at
 * every few seconds instead. Watches can be lost all the same: the backup's own cadence looks at everything from time to time.
 */
export class DirectoryWatcher implements Service {
  readonly name: string;
  readonly #options: WatcherOptions;
  readonly #excludes: (path: string) => string | undefined;
  #polling = false;
  /** Changes may have been missed. */
  #blind = false;
  #stop = new AbortController();
  readonly #settling: Settling;
  #ended: Promise<void> | undefined;

  constructor(options: WatcherOptions) {
    this.#excludes = globMatcher(options.exclude);
    this.name = `watch ${options.resource}`;
    this.#options = options;
    this.#settling = new Settling({ ...options, onSettled: options.onChange });
  }

  /** True when files are looked at every few seconds because the system has no watches left. */
  get polling(): boolean {
    return this.#polling;
  }

  run(): Promise<void> {
    this.#stop = new AbortController();
    this.#ended = this.#watch();
    return this.#ended;
  }

  async stop(_graceMs: number): Promise<void> {
    this.#stop.abort();
    await this.#ended?.catch(() => {});
    await this.#settling.done();
  }

  async #watch(): Promise<void> {
    const { resource, log } = this.#options;
    const identity = await this.#identity();
    // What changed while there was no watch is found by a full look.
    if (this.#blind) this.#changed();
    while (!this.#stop.signal.aborted) {
      const failure = await this.#watchOnce(identity);
      if (failure === undefined) return;
      this.#blind = true;
      const code = codeOf(failure) ?? '';
      if (this.#polling || !NO_WATCHES.has(code)) throw fileError(failure, this.#options.path, 'watch the directory');
      this.#polling = true;
      log.warn(
        { resource, path: this.#options.path, reason: messageOf(failure) },
        'the system has no watches left: files are looked at every few seconds instead (raise fs.inotify.max_user_watches)',
      );
      this.#changed();
    }
  }

  /** Watches until stopped (undefined) or until the watcher fails. */
  async #watchOnce(identity: string): Promise<unknown> {
    const { path: root, pollMs = 5000, createWatcher = (options) => new FSWatcher(options) } = this.#options;
    const { signal } = this.#stop;
    const ended = new AbortController();
    const watcher = createWatcher({
      ignoreInitial: true,
      followSymlinks: false,
      ignorePermissionErrors: true,
      usePolling: this.#polling,
      interval: pollMs,
      binaryInterval: pollMs,
      ignored: (file) => this.#isExcluded(file),
    });
    try {
      return await new Promise<unknown>((resolve) => {
        signal.addEventListener('abort', () => resolve(undefined), { once: true });
        watcher.on('error', resolve);
        watcher.on('all', () => this.#changed());
        watcher.add(root);
        this.#untilReplaced(identity, ended.signal).then(resolve, resolve);
      });
    } finally {
      ended.abort();
      await watcher.close();
    }
  }

  /** A watch on a directory that has gone, or was replaced by another one (mounted over), waits for ever in silence. */
  async #untilReplaced(identity: string, signal: AbortSignal): Promise<unknown> {
    const { clock, path: root, checkMs = 15_000 } = this.#options;
    while ((await this.#identity()) === identity) {
      await clock.sleep(checkMs, signal, { unref: true }).catch(() => {});
      if (signal.aborted) return undefined;
    }
    return new DrError('not-found', 'the directory that was watched has been replaced by another one', { where: root });
  }

  /** Throws what is wrong when the directory is not there. */
  async #identity(): Promise<string> {
    try {
      const { dev, ino } = await stat(this.#options.path);
      return `${dev}:${ino}`;
    } catch (error) {
      this.#blind = true;
      throw fileError(error, this.#options.path, 'watch the directory');
    }
  }

  #isExcluded(file: string): boolean {
    const relative = path.relative(this.#options.path, file);
    return relative !== '' && this.#excludes(relative) !== undefined;
  }

  #changed(): void {
    this.#settling.changed(this.#stop.signal);
  }
}
