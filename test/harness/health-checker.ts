import { get } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

/**
 * A health check as Route 53 has them: HTTP with string matching, inverted, one for each URL; a calculated one over them is
 * healthy while at least `threshold` of them are. What cannot be read counts as a failed check, which inverted is healthy.
 */
export class HealthChecker implements AsyncDisposable {
  /** While true nothing is looked at: the status stays. */
  held = false;
  #healthy = true;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  constructor(
    check: { readonly urls: () => readonly string[]; readonly search: string; readonly threshold: number },
    everyMs = 20,
  ) {
    this.#running = this.#run(check, everyMs);
  }

  get healthy(): boolean {
    return this.#healthy;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(
    { urls, search, threshold }: { urls: () => readonly string[]; search: string; threshold: number },
    everyMs: number,
  ): Promise<void> {
    while (!this.#stop.signal.aborted) {
      if (!this.held) {
        const children = await Promise.all(urls().map(async (url) => !(await bodyOf(url)).includes(search)));
        if (!this.held) this.#healthy = children.filter(Boolean).length >= threshold;
      }
      await delay(everyMs, undefined, { signal: this.#stop.signal }).catch(() => {});
    }
  }
}

/** The first 5,120 bytes of a 200 answer; nothing for any other. */
function bodyOf(url: string): Promise<string> {
  return new Promise((resolve) => {
    get(url, { agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => {
        body += text;
      });
      response.on('end', () => resolve(response.statusCode === 200 ? body.slice(0, 5120) : ''));
      response.on('error', () => resolve(''));
    }).on('error', () => resolve(''));
  });
}
