import net from 'node:net';
import pg from 'pg';
import { DrError, messageOf } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import { connectError } from './server-errors.ts';
import { type ByteSource, serverClosed } from './wire.ts';

/**
 * One buffer for all reads of a plain connection: the kernel fills it, the consumer works on it, and only then is it filled
 * again. A buffer per read, as streams do it, cost twice the CPU and memory. More than 256 KiB was not faster.
 */
const readBufferBytes = 256 * 1024;
/** What is let in ahead of the consumer where the stream allocates by itself (TLS). */
const maxQueuedBytes = 512 * 1024;

export interface OpenOptions {
  readonly url: string;
  readonly applicationName: string;
  readonly connectTimeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** What `pg` has and its types do not tell: the connection below the client, whose socket is taken over after start-up. */
interface ClientInternals {
  readonly connection: {
    readonly stream: net.Socket;
    on(event: 'parameterStatus', listener: (message: { parameterName: string; parameterValue: string }) => void): void;
    removeAllListeners(event: 'parameterStatus'): void;
  };
}

/** The socket of a server that has authenticated us, with reading on demand: who does not read, stops the server. */
export class ServerSocket implements ByteSource {
  /** `host:port/database`, without credentials. */
  readonly where: string;
  readonly user: string;
  /** What the server reported at start-up: `server_version`, `integer_datetimes` … */
  readonly parameters: Map<string, string>;
  readonly #stream: net.Socket;
  readonly #queue: Buffer[] = [];
  #queued = 0;
  #maxQueued = maxQueuedBytes;
  #waiter: { resolve(chunk: Buffer | undefined): void; reject(error: unknown): void } | undefined;
  #failure: DrError | undefined;
  #ended = false;
  #silenceMs: number | undefined;
  #silenceTimer: NodeJS.Timeout | undefined;

  constructor(stream: net.Socket, where: string, user: string, parameters: Map<string, string>) {
    this.#stream = stream;
    this.where = where;
    this.user = user;
    this.parameters = parameters;
    stream.on('error', (error) =>
      this.destroy(connectError(error, { where, user, doing: 'go on talking to the server' })),
    );
    stream.on('end', () => this.#end());
    stream.on('close', () => this.#end());
  }

  /** Milliseconds without a byte, while one is waited for, after which the connection counts as dead; undefined = no limit. */
  setSilenceLimit(ms: number | undefined): void {
    clearTimeout(this.#silenceTimer);
    this.#silenceMs = ms;
    this.#silenceTimer = ms === undefined ? undefined : setTimeout(() => this.#silent(), ms);
  }

  /** What broke the connection, if anything did. */
  get failure(): DrError | undefined {
    return this.#failure;
  }

  get closed(): boolean {
    return this.#ended || this.#failure !== undefined;
  }

  read(): Promise<Buffer | undefined> {
    const chunk = this.#queue.shift();
    if (chunk !== undefined) {
      this.#queued -= chunk.length;
      return Promise.resolve(chunk);
    }
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#ended) return Promise.resolve(undefined);
    this.#silenceTimer?.refresh();
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
      this.#stream.resume();
    });
  }

  write(bytes: Uint8Array): void {
    if (!this.closed) this.#stream.write(bytes);
  }

  /** Writes and resolves when there is room for more; throws when the connection breaks, or nothing moves for `stallMs`. */
  async writeAll(bytes: Uint8Array, stallMs: number): Promise<void> {
    if (!this.closed && this.#stream.write(bytes)) return;
    const stream = this.#stream;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.destroy(
          new DrError('unreachable', `the server took nothing for ${formatDuration(stallMs)}`, {
            where: this.where,
            next: 'Check the network between dr and the server, and whether the server hangs (disk, stopped process).',
          }),
        );
      }, stallMs);
      const done = () => {
        clearTimeout(timer);
        stream.off('drain', done).off('close', done);
        resolve();
      };
      stream.once('drain', done).once('close', done);
      if (stream.destroyed) done();
    });
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#ended) throw serverClosed(this.where);
  }

  /** Ends the connection at once; who waits gets `error`. */
  destroy(error: DrError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    clearTimeout(this.#silenceTimer);
    this.#stream.destroy();
    this.#waiter?.reject(error);
    this.#waiter = undefined;
  }

  /** Sends the last bytes and closes; what the server still sends is thrown away. Waits at most `waitMs`. */
  async end(bytes: Uint8Array, waitMs = 2000): Promise<void> {
    clearTimeout(this.#silenceTimer);
    if (this.#stream.destroyed) return;
    const closed = new Promise<void>((resolve) => this.#stream.once('close', () => resolve()));
    const timer = setTimeout(() => this.#stream.destroy(), waitMs);
    this.#maxQueued = Number.POSITIVE_INFINITY;
    this.#ended = true;
    this.#stream.end(bytes);
    this.#stream.resume();
    await closed;
    clearTimeout(timer);
  }

  /** A chunk from the network; false when the network has to wait. `single`: the chunk is the one static buffer. */
  deliver(chunk: Buffer, single: boolean): boolean {
    if (this.#ended || this.#failure !== undefined) return true;
    const waiter = this.#waiter;
    if (waiter !== undefined) {
      this.#waiter = undefined;
      waiter.resolve(chunk);
      return !single;
    }
    this.#queue.push(chunk);
    this.#queued += chunk.length;
    return !single && this.#queued < this.#maxQueued;
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#silenceTimer);
    this.#waiter?.resolve(undefined);
    this.#waiter = undefined;
  }

  #silent(): void {
    if (this.#waiter === undefined) {
      this.#silenceTimer?.refresh();
      return;
    }
    this.destroy(
      new DrError('unreachable', `the server said nothing for ${formatDuration(this.#silenceMs ?? 0)}`, {
        where: this.where,
        next: 'Check the network between dr and the server, and whether the server hangs (disk, stopped process).',
      }),
    );
  }
}

/** Connects with replication rights; `pg` does TLS and authentication, after that its parser is taken off the socket. */
export async function openServer(options: OpenOptions): Promise<ServerSocket> {
  // Set once pg is done; until then it gets the bytes.
  let server: ServerSocket | undefined;
  let plain: net.Socket | undefined;
  const client = createClient(options.url, {
    application_name: options.applicationName,
    connectionTimeoutMillis: options.connectTimeoutMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: 30_000,
    ...{ replication: 'true' },
    stream: (config?: { ssl?: unknown }) => {
      // TLS reads the encrypted bytes below JavaScript: a buffer of ours would never see plain text.
      if (config?.ssl) return new net.Socket();
      const socket: net.Socket = new net.Socket({
        onread: {
          buffer: Buffer.allocUnsafeSlow(readBufferBytes),
          callback: (count, buffer) => {
            const chunk = Buffer.from(buffer.buffer, buffer.byteOffset, count);
            if (server !== undefined) return server.deliver(chunk, true);
            socket.emit('data', Buffer.from(chunk));
            return true;
          },
        },
      });
      plain = socket;
      return socket;
    },
  });
  const internals = client as unknown as ClientInternals;
  const first = internals.connection?.stream;
  const where = serverName(client);
  const context = { where, user: client.user ?? '', doing: 'connect to PostgreSQL for replication' };
  if (!(first instanceof net.Socket)) {
    throw new DrError('internal', 'this version of the package pg has no socket where dr expects it', {
      where,
      next: 'Install the version of package-lock.json: npm ci.',
    });
  }
  const parameters = new Map<string, string>();
  internals.connection.on('parameterStatus', (status) => parameters.set(status.parameterName, status.parameterValue));
  // Failures come as rejections of connect(), later through the socket itself: without this listener they would end the process.
  client.on('error', () => {});
  const abort = () => first.destroy(new DrError('interrupted', 'interrupted while connecting', { where }));
  options.signal?.addEventListener('abort', abort, { once: true });
  try {
    options.signal?.throwIfAborted();
    await client.connect();
  } catch (error) {
    first.destroy();
    if (options.signal?.aborted)
      throw new DrError('interrupted', 'interrupted while connecting', { where, cause: error });
    throw connectError(error, context);
  } finally {
    options.signal?.removeEventListener('abort', abort);
  }
  const stream = internals.connection.stream;
  stream.removeAllListeners('data');
  internals.connection.removeAllListeners('parameterStatus');
  const taken = new ServerSocket(stream, where, context.user, parameters);
  server = taken;
  if (stream !== plain) {
    stream.on('data', (chunk: Buffer) => {
      if (!taken.deliver(chunk, false)) stream.pause();
    });
  }
  return taken;
}

/**
 * What an unencoded `@` of a password leaves in the wrong part of a URL: everything up to the last `@` was meant as the
 * password, and would show up as part of a host or database name in messages.
 */
const misplacedPassword = /^[a-z]+:\/\/(?:[^/?#]*[/#][^?]*@|[^/?#@]*\?.*@)/i;

/** A client of `pg` for this URL; an URL that cannot be read is a `config` error that does not repeat it (it has a password). */
export function createClient(url: string, config: pg.ClientConfig): pg.Client {
  const unusable = (why: string) =>
    new DrError('config', `the URL of the database cannot be used: ${why}`, {
      next: 'Write it as postgresql://user:password@host:5432/database?sslmode=verify-full, with special characters of the password percent-encoded (@ as %40, / as %2F, ? as %3F, # as %23).',
    });
  if (misplacedPassword.test(url))
    throw unusable('there is an @ after the host name, as if the password were not encoded');
  try {
    return new pg.Client({ ...config, connectionString: url });
  } catch (error) {
    throw unusable(messageOf(error).replaceAll(url, '…'));
  }
}

/** `host:port/database` of a client, or the path of its socket. */
export function serverName(client: pg.Client): string {
  return `postgresql://${client.host}:${client.port}/${client.database ?? ''}`;
}
