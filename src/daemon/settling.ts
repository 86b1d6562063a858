import type { Clock } from '../base/clock.ts';

export interface SettlingOptions {
  /** A change counts when nothing has followed it for this long, milliseconds ... */
  readonly quietMs: number;
  /** ... or when it has waited for this long; default 60 s. */
  readonly atMostMs?: number | undefined;
  readonly clock: Clock;
  onSettled(): void;
}

/** Turns many changes in a row into one. */
export class Settling {
  readonly #options: SettlingOptions;
  #settling: Promise<void> | undefined;
  #firstMs = 0;
  #lastMs = 0;

  constructor(options: SettlingOptions) {
    this.#options = options;
  }

  /** Something has changed; the first change of a row says until when it is waited for. */
  changed(signal: AbortSignal): void {
    const nowMs = this.#options.clock.now();
    this.#lastMs = nowMs;
    if (this.#settling) return;
    this.#firstMs = nowMs;
    this.#settling = this.#settle(signal).finally(() => {
      this.#settling = undefined;
    });
  }

  /** Resolves when no change is waiting any more. */
  async done(): Promise<void> {
    await this.#settling;
  }

  async #settle(signal: AbortSignal): Promise<void> {
    const { clock, quietMs, atMostMs = 60_000, onSettled } = this.#options;
    for (;;) {
      const waitMs = Math.min(this.#lastMs + quietMs, this.#firstMs + atMostMs) - clock.now();
      if (waitMs <= 0) break;
      await clock.sleep(waitMs, signal, { unref: true }).catch(() => {});
      if (signal.aborted) return;
    }
    onSettled();
  }
}
