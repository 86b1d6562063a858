import type { Registry } from 'prom-client';
import type { Clock } from '../base/clock.ts';
import { DrError, isAbort, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { backoffMs } from '../base/retry.ts';
import { Daemon, type DaemonWorld } from './daemon.ts';
import { type HttpServer, serveHttp } from './http.ts';
import { createMetrics } from './metrics.ts';
import type { Readiness } from './readiness.ts';
import type { Ticker } from './ticker.ts';

export interface HostOptions {
  readonly version: string;
  /** Where HTTP is served; fixed for the life of the process. */
  readonly listen: { readonly host: string; readonly port: number };
  /** Aborts when the process is to end. */
  readonly stop: AbortSignal;
  /** Calls back whenever the configuration is to be read anew. */
  onReload(listener: () => void): void;
  /** Checks the configuration as it is now; throws `config` when it cannot be used. Called before a reload. */
  check(): Promise<void>;
  /** Opens the adapters from the configuration as it is now. `signal` is for all that they do later. */
  open(signal: AbortSignal): Promise<DaemonWorld & AsyncDisposable>;
  readonly ticker: () => Ticker;
  readonly clock: Clock;
  readonly log: Log;
  /** What jobs under way get to finish when the process is to end, milliseconds; default 15 s. */
  readonly graceMs?: number;
  /** How often the vaults are asked whether they are there and which site is active; default 10 s. */
  readonly askEveryMs?: number | undefined;
}

const OPEN_BASE_MS = 1000;
const OPEN_MAX_MS = 30_000;
/** Together with the 10 s in which WAL is stored, below the 30 s that Kubernetes waits. */
const GRACE_MS = 15_000;

/**
 * Runs the daemon until the process is to end: serves HTTP all the time, waits for the first vault, and begins anew when the
 * configuration is read again. Throws what makes a start impossible.
 */
export async function hostDaemon(options: HostOptions): Promise<void> {
  const host = new Host(options);
  const http = await host.serve();
  try {
    await host.run();
  } finally {
    await http.close();
  }
}

class Host {
  readonly #options: HostOptions;
  readonly #metrics: Registry;
  #daemon: Daemon | undefined;
  /** Why the vaults could not be opened yet. */
  #waitingFor: unknown;
  #reload: (() => void) | undefined;

  constructor(options: HostOptions) {
    this.#options = options;
    this.#metrics = createMetrics(options.version, () => this.#daemon?.metrics());
    options.onReload(() => this.#reload?.());
  }

  async serve(): Promise<HttpServer> {
    const { listen, log } = this.#options;
    return await serveHttp({
      listen,
      log,
      health: () => this.#daemon?.health() ?? { ok: true, detail: 'waiting for a vault' },
      started: () => this.#daemon?.started() ?? this.#waitingFor !== undefined,
      ready: () => this.#daemon?.readiness() ?? this.#notReady(),
      state: () => this.#daemon?.state() ?? { readiness: this.#notReady() },
      metrics: async () => ({ contentType: this.#metrics.contentType, text: await this.#metrics.metrics() }),
    });
  }

  async run(): Promise<void> {
    const { stop, clock, log, ticker, askEveryMs, graceMs = GRACE_MS } = this.#options;
    while (!stop.aborted) {
      const life = new AbortController();
      const opened = await this.#open(life);
      if (!opened) return;
      await using world = opened;
      const daemon = new Daemon({ world, ticker: ticker(), clock, log, askEveryMs });
      this.#daemon = daemon;
      daemon.start();
      await this.#untilStopOrReload();
      log.info({ graceMs: stop.aborted ? graceMs : undefined }, 'the daemon finishes what is under way');
      // For a reload everything may be finished in peace, unless the process is to end meanwhile.
      const hurry = () => void this.#hurryAfter(daemon, graceMs);
      if (!stop.aborted) stop.addEventListener('abort', hurry, { once: true });
      await daemon.stop(stop.aborted ? graceMs : 24 * 3_600_000);
      stop.removeEventListener('abort', hurry);
      this.#daemon = undefined;
      life.abort(new DrError('interrupted', 'the daemon was told to stop'));
      log.info({}, 'the daemon has stopped; everything that was acknowledged is stored');
    }
  }

  async #hurryAfter(daemon: Daemon, graceMs: number): Promise<void> {
    await this.#options.clock.sleep(graceMs, undefined, { unref: true });
    await daemon.hurry();
  }

  /** Opens the vaults; while none answers it is tried again. Undefined when the process is to end. */
  async #open(life: AbortController): Promise<(DaemonWorld & AsyncDisposable) | undefined> {
    const { open, clock, log, stop } = this.#options;
    const giveUp = () => life.abort(stop.reason);
    for (let attempt = 1; ; attempt++) {
      try {
        stop.addEventListener('abort', giveUp, { once: true });
        const world = await open(life.signal);
        this.#waitingFor = undefined;
        return world;
      } catch (error) {
        if (stop.aborted) return undefined;
        const waits = error instanceof DrError && (error.kind === 'unreachable' || error.kind === 'lease-held');
        if (isAbort(error) || !waits) throw error;
        if (messageOf(error) !== messageOf(this.#waitingFor)) {
          log.error({ error }, 'no vault answers: nothing is done until one does');
        }
        this.#waitingFor = error;
        const bound = Math.min(OPEN_MAX_MS, OPEN_BASE_MS * 2 ** Math.min(attempt - 1, 10));
        await clock.sleep(bound / 2 + backoffMs(1, bound / 2, bound / 2), stop).catch(() => {});
        if (stop.aborted) return undefined;
      } finally {
        stop.removeEventListener('abort', giveUp);
      }
    }
  }

  /** Resolves when the process is to end, or when there is a new configuration that can be used. */
  async #untilStopOrReload(): Promise<void> {
    const { stop, check, log } = this.#options;
    if (stop.aborted) return;
    await new Promise<void>((resolve) => {
      const stopped = () => resolve();
      stop.addEventListener('abort', stopped, { once: true });
      this.#reload = () => {
        log.info({}, 'the configuration is read again');
        check().then(
          () => {
            stop.removeEventListener('abort', stopped);
            resolve();
          },
          (error: unknown) => {
            log.error({ error }, 'the new configuration cannot be used; the daemon goes on with the one it has');
          },
        );
      };
    });
    this.#reload = undefined;
  }

  #notReady(): Readiness {
    const detail = this.#waitingFor === undefined ? 'not asked yet' : messageOf(this.#waitingFor);
    return { ready: false, role: 'unknown', dependencies: [{ name: 'vaults', ok: false, needed: true, detail }] };
  }
}
