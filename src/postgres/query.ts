import type pg from 'pg';
import { DrError, type ErrorKind } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import { connectError, sqlstateOf } from './server-errors.ts';
import { createClient, serverName } from './socket.ts';

export interface QueryOptions {
  readonly signal?: AbortSignal | undefined;
  /** For connecting, and again for each statement; default 30 s. The server stops the statement too. */
  readonly timeoutMs?: number | undefined;
  /** Kind of the error when the statement itself is wrong; default `check-failed`. */
  readonly statementErrorKind?: ErrorKind;
}

/** Runs one statement on a connection of its own and returns its rows as arrays (of the last statement where there are several). */
export async function queryRows(url: string, sql: string, options: QueryOptions = {}): Promise<unknown[][]> {
  return await withClient(url, options, async (query) => await query(sql));
}

export type Query = (sql: string, values?: readonly unknown[]) => Promise<unknown[][]>;

/** Connects for ordinary SQL, runs `work`, and closes whatever happens. Errors are `DrError`s that say what to do. */
export async function withClient<T>(
  url: string,
  options: QueryOptions,
  work: (query: Query, where: string) => Promise<T>,
): Promise<T> {
  const timeoutMs = options.timeoutMs ?? 30_000;
  const client = createClient(url, {
    application_name: 'dr',
    connectionTimeoutMillis: timeoutMs,
    // Only if the server does not keep its own limit, which comes first.
    query_timeout: timeoutMs + 2000,
    keepAlive: true,
  });
  const where = serverName(client);
  const unknownKind = options.statementErrorKind ?? 'check-failed';
  const context = (doing: string) => ({ where, user: client.user ?? '', doing, unknownKind });
  let cut: DrError | undefined;
  const abort = () => {
    cut = new DrError('interrupted', 'the query was interrupted', { where, cause: options.signal?.reason });
    destroy(client);
  };
  const run = async <R>(doing: string, call: () => Promise<R>): Promise<R> => {
    if (options.signal?.aborted && cut === undefined) abort();
    try {
      if (cut !== undefined) throw cut;
      return await call();
    } catch (error) {
      if (cut !== undefined) throw cut;
      throw statementError(error, context(doing), timeoutMs);
    }
  };
  return await whileOpen(client, options.signal, abort, async () => {
    await run('connect to PostgreSQL', () => client.connect());
    await run('set up the session', () => client.query(`SET statement_timeout TO ${Math.ceil(timeoutMs)}`));
    return await work(async (sql, values) => {
      const answer: unknown = await run('run the query', () =>
        client.query({ text: sql, values: [...(values ?? [])], rowMode: 'array' }),
      );
      const last: unknown = Array.isArray(answer) ? answer.at(-1) : answer;
      return (last as pg.QueryArrayResult<unknown[]>).rows;
    }, where);
  });
}

/** Runs `work`, which connects the client, and closes it whatever happens; `abort` is called when the signal aborts meanwhile. */
export async function whileOpen<T>(
  client: pg.Client,
  signal: AbortSignal | undefined,
  abort: () => void,
  work: () => Promise<T>,
): Promise<T> {
  // Failures come as rejections; without this listener a broken connection would end the process.
  client.on('error', () => {});
  signal?.addEventListener('abort', abort, { once: true });
  try {
    return await work();
  } finally {
    signal?.removeEventListener('abort', abort);
    await close(client);
  }
}

function statementError(error: unknown, context: Parameters<typeof connectError>[1], timeoutMs: number): DrError {
  const { where } = context;
  if (sqlstateOf(error) === '57014' || (error instanceof Error && error.message === 'Query read timeout')) {
    return new DrError('unreachable', `cannot ${context.doing}: no answer within ${formatDuration(timeoutMs)}`, {
      where,
      next: "See what it waits for: SELECT pid, wait_event_type, wait_event, query FROM pg_stat_activity WHERE state <> 'idle';",
      cause: error,
    });
  }
  return connectError(error, context);
}

/** Ends the connection at once; the server stops the statement when it notices. */
export function destroy(client: pg.Client): void {
  const internals = client as unknown as { connection?: { stream?: { destroy(): void } } };
  internals.connection?.stream?.destroy();
}

/** `end()` waits for the server: one that hangs does not get more than a second. */
async function close(client: pg.Client): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(() => {
      destroy(client);
      resolve();
    }, 1000);
  });
  await Promise.race([client.end().catch(() => {}), late]);
  clearTimeout(timer);
}
