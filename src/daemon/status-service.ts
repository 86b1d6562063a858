import type { Alert, Status } from '../backup/status/model.ts';
import { measureStatus, type StatusOptions } from '../backup/status/status.ts';
import type { Clock } from '../base/clock.ts';
import { isAbort } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { Service } from './service.ts';

export interface StatusServiceOptions {
  readonly measure: Omit<StatusOptions, 'clock' | 'signal'>;
  readonly clock: Clock;
  readonly log: Log;
  /** How often it is measured, milliseconds. */
  readonly everyMs: number;
  /** A vault lacked backups that another one has, and still does: it is no backup that is being committed just now. */
  onLacking(vault: string): void;
}

/** At least this long between two measurements, whatever happens. */
const LEAST_MS = 1000;

/** Service: measures from the vaults how safe everything is, as it would be found after the loss of the active site. */
export class StatusService implements Service {
  readonly name = 'status';
  readonly #options: StatusServiceOptions;
  #status: Status | undefined;
  #error: unknown;
  #stop = new AbortController();
  #ended: Promise<void> | undefined;
  #woken = new AbortController();
  #alerts = new Set<string>();
  #lacking: ReadonlySet<string> = new Set();

  constructor(options: StatusServiceOptions) {
    this.#options = options;
  }

  /** The last measurement; undefined before the first. */
  get status(): Status | undefined {
    return this.#status;
  }

  /** Measures again soon: something has changed. */
  wake(): void {
    this.#woken.abort();
  }

  /** Why the last measurement failed. */
  get error(): unknown {
    return this.#error;
  }

  run(): Promise<void> {
    this.#stop = new AbortController();
    this.#ended = this.#keepMeasuring();
    return this.#ended;
  }

  async stop(_graceMs: number): Promise<void> {
    this.#stop.abort();
    await this.#ended?.catch(() => {});
  }

  async #keepMeasuring(): Promise<void> {
    const { measure, clock, log, everyMs, onLacking } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      this.#woken = new AbortController();
      try {
        this.#status = await measureStatus({ ...measure, clock, signal });
        this.#error = undefined;
        this.#tell(this.#status.alerts);
        const lacking = new Set(
          this.#status.vaults.flatMap(({ vault, lacks, problem }) =>
            lacks > 0 && problem === undefined ? [vault] : [],
          ),
        );
        for (const vault of lacking) if (this.#lacking.has(vault)) onLacking(vault);
        this.#lacking = lacking;
      } catch (error) {
        if (signal.aborted || isAbort(error)) continue;
        if (this.#error === undefined) log.error({ error }, 'the status cannot be measured');
        this.#error = error;
      }
      await clock.sleep(LEAST_MS, signal).catch(() => {});
      await clock.sleep(everyMs, AbortSignal.any([signal, this.#woken.signal])).catch(() => {});
    }
  }

  /** One line when an alert begins and one when it ends; what only its numbers change is the same alert. */
  #tell(alerts: readonly Alert[]): void {
    const { log } = this.#options;
    const now = new Set<string>();
    for (const alert of alerts) {
      const { level, resource, vault, message, next } = alert;
      const key = `${level}: ${message.replace(/\d[\d.,]*( (ms|s|min|h|d|B|[KMGT]iB))?/g, '#')}`;
      now.add(key);
      if (this.#alerts.has(key)) continue;
      const facts = {
        ...(resource === undefined ? {} : { resource }),
        ...(vault === undefined ? {} : { vault }),
        ...(next === undefined ? {} : { next }),
      };
      if (level === 'broken') log.error(facts, `alert: ${message}`);
      else log.warn(facts, `alert: ${message}`);
    }
    for (const key of this.#alerts) if (!now.has(key)) log.info({ alert: key }, 'alert is over');
    this.#alerts = now;
  }
}
