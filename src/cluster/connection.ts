import http, { type IncomingMessage, type RequestOptions } from 'node:http';
import https from 'node:https';
import { type Clock, systemClock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { backoffMs } from '../base/retry.ts';
import { formatDuration } from '../base/units.ts';
import { type Credentials, Identity } from './credentials.ts';
import { noAnswer, type Request, refusal, retryAfterOf, type Status, statusOf } from './errors.ts';
import { isJson, jsonText, parseJson } from './json.ts';
import type { ClusterSettings } from './settings.ts';

export interface ConnectionOptions {
  readonly log: Log;
  readonly clock?: Clock;
  /** Longest silence of the server within a request, milliseconds; default 30 s. */
  readonly idleMs?: number;
  /** The same for a watch; default `defaultWatchIdleMs`. */
  readonly watchIdleMs?: number;
  /** Tries of a request that was throttled or lost, the first included; default 5. */
  readonly attempts?: number;
}

/** One HTTP request to the API server. */
export interface Call {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  readonly body?: unknown;
  /** Default `application/json`. */
  readonly contentType?: string;
  readonly accept?: string;
  /** For errors. */
  readonly request: Request;
  /** True when doing it twice is as doing it once: then it is sent again after a lost connection. */
  readonly repeatable?: boolean;
  /** True = asked once, and the first answer counts. */
  readonly once?: boolean;
}

/** A watch is asked to end before this, so one that is silent for longer has stalled. */
export const defaultWatchIdleMs = 150_000;
/** Longest pause that a server may ask for before the caller hears of it, seconds. */
const longestPause = 30;

/**
 * Requests to one API server over kept connections. Asks again when the server throttles (429) or is not ready (503 and the like),
 * and after a lost connection where that does no harm; renews the credentials once on 401.
 */
export class Connection {
  readonly target: string;
  readonly #settings: ClusterSettings;
  readonly #identity: Identity;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #options: ConnectionOptions;
  #agent: http.Agent | undefined;
  #agentFor: readonly unknown[] = [];

  constructor(settings: ClusterSettings, options: ConnectionOptions) {
    this.#settings = settings;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#identity = new Identity(settings, this.#clock);
    this.target = `cluster ${settings.server} (${settings.origin})`;
    this.#log = options.log.child({ cluster: settings.server });
  }

  /** The JSON that the server answers. */
  async json(call: Call, signal?: AbortSignal): Promise<unknown> {
    return await this.#send(call, signal, async (response, idle) => {
      const text = await textOf(response, idle);
      try {
        return text === '' ? {} : parseJson(text);
      } catch (cause) {
        throw noAnswer(new Error('its answer is no JSON', { cause }), call.request.what, this.target);
      }
    });
  }

  /** The text that the server answers. */
  async text(call: Call, signal?: AbortSignal): Promise<string> {
    return await this.#send(call, signal, textOf);
  }

  /** Lines of an answer that goes on, as they come. */
  async *lines(call: Call, signal?: AbortSignal): AsyncGenerator<string> {
    const stop = new AbortController();
    const both = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
    try {
      const { response, idle } = await this.#send(call, both, async (response, idle) => ({ response, idle }));
      let rest = '';
      response.setEncoding('utf8');
      for await (const chunk of response) {
        idle();
        const parts = (rest + String(chunk)).split('\n');
        rest = parts.pop() ?? '';
        for (const part of parts) if (part.trim() !== '') yield part;
      }
    } catch (error) {
      throw this.#failure(error, call, signal);
    } finally {
      stop.abort();
    }
  }

  close(): void {
    this.#agent?.destroy();
  }

  async #send<T>(
    call: Call,
    signal: AbortSignal | undefined,
    read: (response: IncomingMessage, idle: () => void) => Promise<T>,
  ): Promise<T> {
    const attempts = call.once ? 1 : (this.#options.attempts ?? 5);
    let isRenewed = false;
    for (let attempt = 1; ; attempt++) {
      try {
        const credentials = await this.#identity.credentials();
        const { response, idle } = await this.#open(call, credentials, signal);
        const { statusCode = 0 } = response;
        if (statusCode < 300) return await read(response, idle);
        throw refusal(statusIn(await textOf(response, idle), response), call.request, this.target);
      } catch (caught) {
        const error = this.#failure(caught, call, signal);
        if (error.kind === 'denied' && !isRenewed && statusOf(error)?.code === 401) {
          isRenewed = true;
          this.#identity.renew();
          continue;
        }
        const pauseMs = this.#pauseBefore(error, call, attempt);
        if (attempt >= attempts || pauseMs === undefined) throw error;
        this.#log.debug({ error, attempt, pauseMs }, 'the API server is asked again');
        await this.#clock.sleep(pauseMs, signal).catch((cause: unknown) => {
          throw this.#failure(cause, call, signal);
        });
      }
    }
  }

  /** Milliseconds until the request may be sent again; undefined when it may not. */
  #pauseBefore(error: DrError, call: Call, attempt: number): number | undefined {
    if (!error.retryable) return undefined;
    const usual = backoffMs(attempt, 200, 5000);
    const code = statusOf(error)?.code;
    if (code === undefined) return call.repeatable || call.method === 'GET' ? usual : undefined;
    const asked = retryAfterOf(error);
    // Without Retry-After a server that failed may have done the work.
    if (asked === undefined && code !== 429 && !call.repeatable && call.method !== 'GET') return undefined;
    if (asked !== undefined && asked > longestPause) return undefined;
    return Math.max(usual, (asked ?? 0) * 1000);
  }

  async #open(
    call: Call,
    credentials: Credentials,
    signal: AbortSignal | undefined,
  ): Promise<{ response: IncomingMessage; idle: () => void }> {
    const body = call.body === undefined ? undefined : Buffer.from(jsonText(call.body));
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(call.query ?? {})) if (value !== undefined) query.set(key, String(value));
    const url = new URL(`${this.#settings.server}${call.path}${query.size > 0 ? `?${query}` : ''}`);
    const isWatch = call.query?.['watch'] === true;
    const idleMs = isWatch ? (this.#options.watchIdleMs ?? defaultWatchIdleMs) : (this.#options.idleMs ?? 30_000);
    const options: RequestOptions = {
      method: call.method,
      agent: credentials.agent ?? this.#agentWith(credentials),
      headers: {
        ...credentials.headers,
        accept: call.accept ?? 'application/json',
        'user-agent': 'dr',
        ...(body && { 'content-type': call.contentType ?? 'application/json', 'content-length': body.length }),
      },
      ...(signal && { signal }),
    };
    return await new Promise((resolve, reject) => {
      const request = (url.protocol === 'https:' ? https : http).request(url, options);
      let open: { destroy(error: Error): unknown } = request;
      const silent = () => open.destroy(new Error(`it has been silent for ${formatDuration(idleMs)}`));
      const timer = setTimeout(silent, idleMs).unref();
      request.on('close', () => clearTimeout(timer));
      request.on('error', reject);
      request.on('response', (response) => {
        open = response;
        timer.refresh();
        resolve({ response, idle: () => timer.refresh() });
      });
      request.end(body);
    });
  }

  /** One agent as long as the certificates stay the same. */
  #agentWith({ cert, key }: Credentials): http.Agent {
    const { server, serverName, insecure } = this.#settings;
    const ca = this.#identity.authority();
    const facts = [ca, cert, key];
    if (this.#agent && facts.every((fact, i) => fact === this.#agentFor[i])) return this.#agent;
    const shared = { keepAlive: true, maxFreeSockets: 8, scheduling: 'lifo' } as const;
    const tls = { ca, cert, key, servername: serverName, rejectUnauthorized: !insecure };
    // Requests on the old connections end by themselves.
    this.#agent = server.startsWith('https:') ? new https.Agent({ ...shared, ...tls }) : new http.Agent(shared);
    this.#agentFor = facts;
    return this.#agent;
  }

  #failure(error: unknown, call: Call, signal: AbortSignal | undefined): DrError {
    const isTimeout = signal?.reason instanceof Error && signal.reason.name === 'TimeoutError';
    if (signal?.aborted && !isTimeout)
      return new DrError('interrupted', `the work on ${call.request.what} was stopped`, {
        where: this.target,
        cause: error,
      });
    if (error instanceof DrError) return error;
    return noAnswer(error, call.request.what, this.target);
  }
}

async function textOf(response: IncomingMessage, idle: () => void): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) {
    idle();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** The server's Status, or what a proxy before it said in its own way. */
function statusIn(text: string, { statusCode = 0, headers }: IncomingMessage): Status {
  const seconds = Number(headers['retry-after']);
  const retryAfterSeconds = Number.isFinite(seconds) && headers['retry-after'] !== undefined ? seconds : undefined;
  try {
    const said: unknown = JSON.parse(text);
    if (isJson(said) && said['kind'] === 'Status') {
      const details = isJson(said['details']) ? said['details'] : {};
      return {
        ...said,
        code: statusCode,
        details: { ...details, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) },
      };
    }
  } catch {
    // Not JSON: told below.
  }
  const message = text
    .replace(/<[^>]*>/g, ' ')
    .replace(/\s+/g, ' ')
    .trim()
    .slice(0, 200);
  return { code: statusCode, message: message || `HTTP ${statusCode}`, details: { retryAfterSeconds } };
}
