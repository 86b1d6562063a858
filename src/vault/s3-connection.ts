import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { S3Client } from '@aws-sdk/client-s3';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { Semaphore } from '../base/concurrency.ts';
import { DrError, messageOf } from '../base/errors.ts';
import { type Log, silentLog } from '../base/log.ts';
import { retry } from '../base/retry.ts';
import type { LockPolicy } from './lock-policy.ts';
import { newStats } from './object-key.ts';
import { explainS3Error } from './s3-errors.ts';
import type { CallOptions, RequestKind } from './store.ts';

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
}

const defaults: S3Limits = {
  connections: 32,
  connectMs: 5_000,
  idleMs: 30_000,
  requestMs: 300_000,
  attempts: 7,
  retryBaseMs: 250,
  retryMaxMs: 8_000,
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
  readonly stats = newStats();
  readonly #options: S3StoreOptions;
  readonly #limits: S3Limits;
  readonly #log: Log;
  readonly #permits: Semaphore;

  constructor(options: S3StoreOptions) {
    this.location = options.prefix === '' ? `s3://${options.bucket}` : `s3://${options.bucket}/${options.prefix}`;
    this.#options = options;
    this.#limits = { ...defaults, ...options.limits };
    this.#log = options.log ?? silentLog;
    // The SDK starts its connection timeout while a request still waits for a free socket: so none ever waits there.
    this.#permits = new Semaphore(this.#limits.connections);
    const agent = { keepAlive: true, maxSockets: this.#limits.connections };
    this.client = new S3Client({
      region: options.region,
      forcePathStyle: options.forcePathStyle,
      ...(options.endpoint !== undefined && { endpoint: options.endpoint }),
      ...(options.credentials && { credentials: { ...options.credentials } }),
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
    const attempt = async () => {
      if (options.signal?.aborted) throw stopped();
      this.stats.requests[kind]++;
      try {
        return await work(
          { Bucket: bucket, Key: this.fullKey(key) },
          options.signal ? { abortSignal: options.signal } : {},
        );
      } catch (error) {
        throw options.signal?.aborted ? stopped() : explainS3Error(error, call);
      }
    };
    try {
      return await retry(() => this.#permits.use(attempt), {
        attempts: this.#limits.attempts,
        baseMs: this.#limits.retryBaseMs,
        maxMs: this.#limits.retryMaxMs,
        signal: options.signal,
        onRetry: (error, number, pauseMs) => {
          this.stats.retries++;
          const facts = {
            vault: name,
            where,
            attempt: number,
            pauseMs: Math.round(pauseMs),
            reason: messageOf(error),
          };
          this.#log.debug(facts, 'a request to the vault failed and is repeated');
        },
      });
    } catch (error) {
      throw error instanceof DrError ? error : stopped(); // Only an aborted pause throws anything else.
    }
  }
}
