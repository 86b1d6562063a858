import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { readBody } from './body.ts';
import { type BucketSettings, Buckets } from './buckets.ts';
import { type Fault, Faults, type S3Request } from './faults.ts';
import { type Answer, operationOf, perform } from './operations.ts';
import { checkSignature } from './signature.ts';
import { objectsOf } from './versions.ts';
import { S3Error } from './xml.ts';

export interface S3ServerOptions {
  readonly port?: number;
  /** Names, or names with what they can; default: `vault`. */
  readonly buckets?: readonly string[] | Readonly<Record<string, BucketSettings>>;
  readonly accessKeyId?: string;
  readonly secretAccessKey?: string;
  /** Keeps objects in files of this directory; default: in memory. */
  readonly directory?: string;
  /** What the server thinks the time is, for signatures. */
  readonly now?: () => number;
  /** The same for the times and locks of objects. */
  readonly objectsNow?: () => number;
}

/** A small S3 server on 127.0.0.1 for tests and the demo: path style, one key pair, and faults on demand. */
export class S3Server {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly buckets: Buckets;
  readonly faults = new Faults();
  /** Everything asked so far, in order. */
  readonly requests: S3Request[] = [];
  /** Who may do what: false = 403. */
  authorize: (request: S3Request) => boolean = () => true;
  /** What was refused by that. */
  readonly refused: S3Request[] = [];
  /** While true, every connection is reset: the region is gone. */
  unavailable = false;
  readonly #http: Server;
  readonly #now: () => number;
  readonly #objectsNow: () => number;

  private constructor(options: S3ServerOptions) {
    this.accessKeyId = options.accessKeyId ?? 'test-access-key';
    this.secretAccessKey = options.secretAccessKey ?? 'test-secret-access-key';
    this.#now = options.now ?? Date.now;
    this.#objectsNow = options.objectsNow ?? this.#now;
    this.buckets = new Buckets(options.directory, options.objectsNow);
    const { buckets = ['vault'] } = options;
    if (Array.isArray(buckets)) for (const bucket of buckets) this.buckets.make(bucket);
    else for (const [bucket, settings] of Object.entries(buckets)) this.buckets.make(bucket, settings);
    this.#http = createServer((request, response) => void this.#answer(request, response));
    this.#http.keepAliveTimeout = 30_000;
  }

  static async start(options: S3ServerOptions = {}): Promise<S3Server> {
    const server = new S3Server(options);
    await new Promise<void>((resolve, reject) => {
      server.#http.once('error', reject);
      server.#http.listen(options.port ?? 0, '127.0.0.1', resolve);
    });
    return server;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}`;
  }

  /** Closes the server and every connection. */
  async stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#http.close(() => resolve()));
    this.#http.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (this.unavailable) return void request.socket.resetAndDestroy();
    response.setHeader('date', new Date(this.#now()).toUTCString());
    const url = new URL(request.url ?? '/', this.endpoint);
    const [bucket = '', ...rest] = url.pathname.slice(1).split('/').map(decodeURIComponent);
    const method = request.method ?? 'GET';
    const key = rest.join('/');
    const operation = operationOf(method, key, url.searchParams);
    const versionId = url.searchParams.get('versionId') ?? undefined;
    const asked: S3Request = { operation, bucket, key, versionId, headers: request.headers };
    this.requests.push(asked);
    const fault = this.faults.take(asked);
    if (fault?.kind === 'reset') return void request.socket.resetAndDestroy();
    let answer: Answer;
    try {
      const body = await readBody(request);
      if (operation === 'DeleteObjects') asked.deleted = objectsOf(body);
      if (fault?.kind === 'status') throw new S3Error(fault.status, fault.code, `injected fault ${fault.code}`);
      checkSignature(request, this.accessKeyId, this.secretAccessKey, this.#now());
      if (!this.authorize(asked)) {
        this.refused.push(asked);
        throw new S3Error(403, 'AccessDenied', 'User is not authorized to perform this operation');
      }
      answer = perform(this.buckets, asked, url.searchParams, body, this.#objectsNow(), fault);
      if (fault?.kind === 'lie') throw new S3Error(fault.status, fault.code, `injected fault ${fault.code}`);
    } catch (error) {
      if (request.destroyed && !request.complete) return; // The client is gone.
      const refusal = error instanceof S3Error ? error : new S3Error(500, 'InternalError', String(error));
      const headers = { 'content-type': 'application/xml' };
      answer = { status: refusal.status, headers, body: method === 'HEAD' ? '' : refusal.toXml() };
    }
    if (fault?.kind === 'lose-answer') return void request.socket.resetAndDestroy();
    if (fault?.kind === 'slow') await fault.until;
    send(response, answer, fault);
  }
}

function send(response: ServerResponse, answer: Answer, fault: Fault | undefined): void {
  const body = Buffer.from(answer.body ?? '');
  response.writeHead(answer.status, { 'content-length': String(body.length), ...answer.headers });
  if (fault?.kind !== 'truncate') return void response.end(body);
  response.write(body.subarray(0, fault.bytes), () => response.socket?.end());
}
