import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { DrError, messageOf } from '../base/errors.ts';
import { retry } from '../base/retry.ts';
import type { SwitchConfig } from '../config/types.ts';
import type { HealthSwitch, SwitchContent } from './switch.ts';

/** No object has it: with it a write is judged, and never made. */
const impossibleTag = '"00000000000000000000000000000000"';

/** An object that health checks read over HTTPS. Every write is conditional (If-Match, If-None-Match). */
export class S3Switch implements HealthSwitch {
  readonly where: string;
  readonly #place: { readonly Bucket: string; readonly Key: string };
  readonly #client: S3Client;

  constructor(config: SwitchConfig) {
    const url = new URL(config.url);
    this.where = config.url;
    this.#place = { Bucket: url.hostname, Key: url.pathname.slice(1) };
    this.#client = new S3Client({
      region: config.region ?? 'us-east-1',
      forcePathStyle: config.forcePathStyle,
      // One layer retries, ours: it follows the signal.
      maxAttempts: 1,
      requestHandler: new NodeHttpHandler({
        connectionTimeout: 3000,
        requestTimeout: 10_000,
        throwOnRequestTimeout: true,
      }),
      ...(config.endpoint === undefined ? {} : { endpoint: config.endpoint }),
      ...(config.credentials === undefined ? {} : { credentials: config.credentials }),
    });
  }

  async read(signal?: AbortSignal): Promise<SwitchContent | undefined> {
    return await this.#call('read', signal, async (options) => {
      try {
        const reply = await this.#client.send(new GetObjectCommand(this.#place), options);
        return { text: (await reply.Body?.transformToString()) ?? '', tag: reply.ETag ?? '' };
      } catch (error) {
        if (nameOf(error) === 'NoSuchKey') return undefined;
        throw error;
      }
    });
  }

  async write(text: string, replaces: string | undefined, signal?: AbortSignal): Promise<'written' | 'changed'> {
    const condition = replaces === undefined ? { IfNoneMatch: '*' } : { IfMatch: replaces };
    try {
      return await this.#put(text, condition, signal);
    } catch (error) {
      // An answer may be lost after the work was done: then our own text is what is there.
      if (!(error instanceof DrError) || !error.retryable) throw error;
      const now = await this.read(signal).catch(() => undefined);
      if (now?.text === text) return 'written';
      throw error;
    }
  }

  async checkWrite(signal?: AbortSignal): Promise<void> {
    const outcome = await this.#put('a write of dr doctor that cannot happen\n', { IfMatch: impossibleTag }, signal);
    if (outcome === 'changed') return;
    throw new DrError('refused', 'the store made a write whose condition cannot hold: it ignores If-Match', {
      where: this.where,
      next: 'Use a store with conditional writes: without them a switch is not safe against a rival.',
    });
  }

  close(): void {
    this.#client.destroy();
  }

  async #put(
    text: string,
    condition: { readonly IfMatch?: string; readonly IfNoneMatch?: string },
    signal: AbortSignal | undefined,
  ): Promise<'written' | 'changed'> {
    return await this.#call('write', signal, async (options) => {
      const object = {
        ...this.#place,
        Body: Buffer.from(text),
        ContentType: 'application/json',
        CacheControl: 'no-store',
      };
      try {
        await this.#client.send(new PutObjectCommand({ ...object, ...condition }), options);
        return 'written';
      } catch (error) {
        const name = nameOf(error);
        // The object went away, or is another, or is being written by somebody else at this moment.
        if (['PreconditionFailed', 'NoSuchKey', 'ConditionalRequestConflict'].includes(name)) {
          const now = await this.read(signal).catch(() => undefined);
          return now?.text === text ? 'written' : 'changed';
        }
        throw error;
      }
    });
  }

  #call<T>(
    doing: 'read' | 'write',
    signal: AbortSignal | undefined,
    send: (options: { abortSignal?: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    return retry(
      async () => {
        try {
          return await send(signal ? { abortSignal: signal } : {});
        } catch (error) {
          if (error instanceof DrError) throw error;
          throw this.#explain(error, doing, signal);
        }
      },
      { attempts: 4, baseMs: 200, maxMs: 2000, signal },
    );
  }

  #explain(error: unknown, doing: 'read' | 'write', signal: AbortSignal | undefined): DrError {
    const cause = new Error(`${nameOf(error)}: ${messageOf(error)}`);
    const where = this.where;
    const what = `cannot ${doing} the switch of the health checks`;
    if (signal?.aborted) {
      return new DrError('interrupted', `stopped before it could ${doing} the switch of the health checks`, {
        where,
        cause,
      });
    }
    const status = statusOf(error);
    if (nameOf(error) === 'NoSuchBucket') {
      return new DrError('not-found', `${what}: its bucket does not exist`, {
        where,
        next: 'Create the bucket, or correct health.switches of this traffic entry.',
        cause,
      });
    }
    if (status === 401 || status === 403 || nameOf(error) === 'CredentialsProviderError') {
      return new DrError('denied', `${what}: the store refuses these credentials (${messageOf(error)})`, {
        where,
        next: 'Allow s3:GetObject and s3:PutObject on the object, and s3:ListBucket on its bucket: without that a missing document looks like a refusal.',
        cause,
      });
    }
    const temporary = status === undefined || status >= 500 || status === 429 || status === 408;
    return new DrError(temporary ? 'unreachable' : 'refused', `${what}: ${messageOf(error)}`, {
      where,
      next: temporary
        ? 'Check the network from here to the store, then run the command again.'
        : 'Correct health.switches of this traffic entry: its region, endpoint or key.',
      cause,
      retryable: temporary,
    });
  }
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : '';
}

function statusOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('$metadata' in error)) return undefined;
  const metadata = error.$metadata;
  if (typeof metadata !== 'object' || metadata === null || !('httpStatusCode' in metadata)) return undefined;
  return typeof metadata.httpStatusCode === 'number' ? metadata.httpStatusCode : undefined;
}
