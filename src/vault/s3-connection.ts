import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { S3Client } from '@aws-sdk/client-s3';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { type Clock, systemClock } from '../base/clock.ts';
import { Semaphore } from '../base/concurrency.ts';
import { DrError } from '../base/errors.ts';
import { type Log, silentLog } from '../base/log.ts';
import { backoffMs } from '../base/retry.ts';
import { formatDuration } from '../base/units.ts';
import type { LockPolicy } from './lock-policy.ts';
import { credentialChain, currentCredentials, foundNewCredentials, mayBeOutdated } from './s3-credentials.ts';
import { answerOf, explainS3Error, isThrottling } from './s3-errors.ts';
import type { CallOptions, RequestKind } from './store.ts';
import { UsageMeter } from './usage.ts';

/** How patient the driver is. Times in milliseconds. */
export interface S3Limits {
  /** Requests at once, each on its own connection. */
  readonly connections: number;
  readonly connectMs: number;
  /** Longest silence on a connection that is in use. */
  readonly idleMs: number;
  /** Until the answer begins, sending included: 16 MiB at 64 KiB/s must fit. */
  readonly requestMs: number;
  /** Tries per request, and the bounds of the pauses between them: about 10 s in all with the defaults. */
  readonly attempts: number;
  readonly retryBaseMs: number;
  readonly retryMaxMs: number;
  /** How long a store that asks to slow down is waited for before the request counts as failed, and the longest pause meanwhile. */
  readonly throttledMs: number;
  readonly throttledPauseMs: number;
}

const defaults: S3Limits = {
  connections: 32,
  connectMs: 5_000,
  idleMs: 30_000,
  requestMs: 300_000,
  attempts: 7,
  retryBaseMs: 250,
  retryMaxMs: 8_000,
  throttledMs: 180_000,
  throttledPauseMs: 15_000,
};

export interface S3StoreOptions {
  readonly name: string;
  readonly region: string;
  readonly bucket: string;
  /** Beginning of every key, without slash at either end; empty = the whole bucket. */
  readonly prefix: string;
  readonly endpoint: string | undefined;
  readonly forcePathStyle: boolean;
  /** Undefined = the AWS credential chain. */
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
  /** Locks what is stored. */
  readonly lock?: LockPolicy | undefined;
  /** Milliseconds since 1970; for the end of locks. */
  readonly now?: () => number;
  readonly limits?: Partial<S3Limits>;
  readonly clock?: Clock;
  readonly log?: Log;
}

const doing: Readonly<Record<RequestKind, string>> = {
  create: 'store an object in',
  overwrite: 'store an object in',
  read: 'read an object of',
  stat: 'look for an object in',
  list: 'list the objects of',
  delete: 'delete objects of',
  lock: 'lock an object of',
};

export interface Abort {
  readonly abortSignal?: AbortSignal;
}

/** Where one request goes: the bucket and the full key (or prefix). */
export interface Address {
  readonly Bucket: string;
  readonly Key: string;
}

/**
 * The client of one bucket: connections, time limits, retries and counters.
 * Retries are the driver's own, not the SDK's: a repeated conditional write must know that it is one.
 */
export class S3Connection {
  readonly client: S3Client;
  readonly location: string;
  readonly stats = new UsageMeter();
  readonly #options: S3StoreOptions;
  readonly #limits: S3Limits;
  readonly #log: Log;
  readonly #permits: Semaphore;
  readonly #clock: Clock;
  /** The store has asked to slow down: nothing is sent before this moment. */
  #heldUntilMs = 0;
  #toldOfSkew = false;

  constructor(options: S3StoreOptions) {
    this.location = options.prefix === '' ? `s3://${options.bucket}` : `s3://${options.bucket}/${options.prefix}`;
    this.#options = options;
    this.#limits = { ...defaults, ...options.limits };
    this.#log = options.log ?? silentLog;
    this.#clock = options.clock ?? systemClock;
    // The SDK starts its connection timeout while a request still waits for a free socket: so none ever waits there.
    this.#permits = new Semaphore(this.#limits.connections);
    const agent = { keepAlive: true, maxSockets: this.#limits.connections };
    this.client = new S3Client({
      region: options.region,
      forcePathStyle: options.forcePathStyle,
      ...(options.endpoint !== undefined && { endpoint: options.endpoint }),
      ...(options.credentials
        ? { credentials: { ...options.credentials } }
        : { credentialDefaultProvider: credentialChain }),
      maxAttempts: 1,
      // Without one the SDK prints some warnings itself.
      logger: silentLog,
      // Ours is sent with every body; some stores do not know the SDK's default (CRC32).
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      // Waiting for "100 Continue" costs a round trip per part, and seconds where a proxy swallows it.
      expectContinueHeader: false,
      requestHandler: new NodeHttpHandler({
        connectionTimeout: this.#limits.connectMs,
        socketTimeout: this.#limits.idleMs,
        requestTimeout: this.#limits.requestMs,
        throwOnRequestTimeout: true,
        httpAgent: new HttpAgent(agent),
        httpsAgent: new HttpsAgent(agent),
      }),
    });
  }

  /** The key as the bucket knows it. */
  fullKey(key: string): string {
    return this.#options.prefix === '' ? key : `${this.#options.prefix}/${key}`;
  }

  /** Sends one request, again where that may help; what it throws is explained. */
  async request<T>(
    kind: RequestKind,
    key: string,
    options: CallOptions,
    work: (address: Address, abort: Abort) => Promise<T>,
  ): Promise<T> {
    const { name, bucket, region, endpoint } = this.#options;
    const where = key === '' ? this.location : `${this.location}/${key}`;
    const call = { vault: name, where, doing: doing[kind], bucket, region, endpoint };
    const stopped = () =>
      new DrError('interrupted', `stopped while using vault ${name}`, { where, cause: options.signal?.reason });
    const abort = options.signal ? { abortSignal: options.signal } : {};
    const patience = new Patience(this.#limits, this.#clock);
    for (;;) {
      try {
        await this.#holdBack(options.signal);
        return await this.#permits.use(async () => {
          if (options.signal?.aborted) throw stopped();
          this.stats.asked(kind);
          if (!this.#options.credentials) patience.credentials = await currentCredentials(this.client);
          return await work({ Bucket: bucket, Key: this.fullKey(key) }, abort);
        });
      } catch (error) {
        if (options.signal?.aborted) throw stopped();
        const explained = explainS3Error(error, call);
        const throttled = isThrottling(error);
        const pauseMs = (await this.#canDoBetter(error, kind, patience))
          ? 0
          : patience.pauseAfter(explained, throttled);
        if (pauseMs === undefined) throw patience.told(explained);
        if (throttled) this.#heldUntilMs = Math.max(this.#heldUntilMs, this.#clock.now() + pauseMs / 2);
        this.stats.retries++;
        const facts = { vault: name, where, pauseMs: Math.round(pauseMs), reason: explained.message };
        this.#log.debug(facts, 'a request to the vault failed and is repeated');
        await this.#clock.sleep(pauseMs, options.signal).catch(() => {
          throw stopped();
        });
      }
    }
  }

  /** Every request waits while one of them was asked to slow down, each a little longer than the other. */
  async #holdBack(signal: AbortSignal | undefined): Promise<void> {
    const heldMs = this.#heldUntilMs - this.#clock.now();
    if (heldMs > 0) await this.#clock.sleep(heldMs * (1 + Math.random()), signal);
  }

  /** True when the same request is worth sending at once: with other credentials, or with the store's time instead of ours. */
  async #canDoBetter(error: unknown, kind: RequestKind, patience: Patience): Promise<boolean> {
    const { code } = answerOf(error);
    if (code === 'RequestTimeTooSkewed' && !patience.skewSeen) {
      patience.skewSeen = true;
      const offsetMs = this.client.config.systemClockOffset;
      if (Math.abs(offsetMs) < 1000) return false;
      if (!this.#toldOfSkew) {
        // The store tells whole seconds, and its answer travelled: nobody needs the seconds of an hour.
        const grainMs = Math.abs(offsetMs) < 600_000 ? 1000 : 60_000;
        const differs = formatDuration(Math.round(Math.abs(offsetMs) / grainMs) * grainMs);
        const facts = { vault: this.#options.name, clock: `${differs} ${offsetMs > 0 ? 'behind' : 'ahead'}` };
        this.#log.warn(facts, 'the clock of this machine differs from that of the vault: correct it (NTP)');
        this.#toldOfSkew = true;
      }
      return true;
    }
    if (this.#options.credentials || patience.credentialsTried || !mayBeOutdated(error, kind === 'stat')) return false;
    patience.credentialsTried = true;
    return await foundNewCredentials(this.client, patience.credentials);
  }
}

/** How often, and for how long, one request is repeated. */
class Patience {
  skewSeen = false;
  /** The credentials of the last try. */
  credentials: string | undefined;
  credentialsTried = false;
  readonly #limits: S3Limits;
  readonly #clock: Clock;
  #attempts = 1;
  #throttled = 0;
  #throttledSinceMs: number | undefined;

  constructor(limits: S3Limits, clock: Clock) {
    this.#limits = limits;
    this.#clock = clock;
  }

  /** How long to wait before the next try, milliseconds; undefined when there is none. */
  pauseAfter(error: DrError, throttled: boolean): number | undefined {
    if (!error.retryable) return undefined;
    const { attempts, retryBaseMs, retryMaxMs, throttledMs, throttledPauseMs } = this.#limits;
    if (!throttled) {
      if (this.#attempts >= attempts) return undefined;
      return backoffMs(this.#attempts++, retryBaseMs, retryMaxMs);
    }
    this.#throttledSinceMs ??= this.#clock.now();
    if (this.#clock.now() - this.#throttledSinceMs >= throttledMs) return undefined;
    return backoffMs(++this.#throttled, retryBaseMs, throttledPauseMs);
  }

  /** The error with how long was tried. */
  told(error: DrError): DrError {
    if (this.#throttledSinceMs === undefined) return error;
    const forMs = this.#clock.now() - this.#throttledSinceMs;
    const { kind, message, where, cause, retryable } = error;
    return new DrError(kind, `${message} (for ${formatDuration(forMs)}, ${this.#throttled + 1} tries)`, {
      ...(where === undefined ? {} : { where }),
      next: 'Something else may use up the rate of this bucket: find it, or ask the provider for more. Then try again.',
      cause,
      retryable,
    });
  }
}
