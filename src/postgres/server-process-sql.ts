import pg from 'pg';
import { destroy, whileOpen } from './query.ts';

export interface SqlOptions {
  readonly signal?: AbortSignal | undefined;
  /** The server ends a statement after this many milliseconds; default 60 s, 0 = never. */
  readonly statementTimeoutMs?: number;
  readonly connectTimeoutMs?: number;
}

/**
 * For servers that `dr` has started itself: what they answer is wanted as it is, rows with names and errors of PostgreSQL. Everything else
 * goes through `query.ts`, which explains. Runs `work` with one connection and closes it; an abort closes it
 * at once, so that the work fails.
 */
export async function withClient<T>(
  url: string,
  work: (client: pg.Client) => Promise<T>,
  options: SqlOptions = {},
): Promise<T> {
  options.signal?.throwIfAborted();
  const client = new pg.Client({
    connectionString: url,
    application_name: 'dr',
    connectionTimeoutMillis: options.connectTimeoutMs ?? 15_000,
    statement_timeout: options.statementTimeoutMs ?? 60_000,
  });
  const abort = () => destroy(client);
  return await whileOpen(client, options.signal, abort, async () => {
    try {
      await client.connect();
      return await work(client);
    } catch (error) {
      options.signal?.throwIfAborted();
      throw error;
    }
  });
}

/** The rows of one statement. */
export async function queryOnce<Row extends pg.QueryResultRow>(
  url: string,
  text: string,
  values: readonly unknown[] = [],
  options: SqlOptions = {},
): Promise<Row[]> {
  return await withClient(url, async (client) => (await client.query<Row>(text, [...values])).rows, options);
}

/** A URL of one role and database behind a Unix socket, with which `pg` and libpq connect. */
export function socketUrl(directory: string, port: number, user: string, database: string): string {
  const query = new URLSearchParams({ host: directory, port: String(port), user });
  return `postgresql:///${encodeURIComponent(database)}?${query.toString()}`;
}
