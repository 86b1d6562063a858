import http from 'node:http';
import https from 'node:https';
import { createConnection } from 'node:net';
import pg from 'pg';
import { codeOf, messageOf } from '../base/errors.ts';
import { redact } from '../base/redact.ts';
import type { DatabaseProbe, HttpProbe, ProbePort, ReachProbe } from './ports.ts';

/** One look takes at most this long, milliseconds. */
const LOOK_MS = 5000;
const BODY_LIMIT = 64 * 1024;
/** SQLSTATE read_only_sql_transaction: a standby, or a session that was told to be read-only. */
const READ_ONLY = '25006';

/** Real eyes: sockets, HTTP and database sessions from this machine. */
export const networkProbes: ProbePort = {
  async tcp(host, port, signal) {
    const limited = AbortSignal.any([signal, AbortSignal.timeout(LOOK_MS)]);
    const result = await new Promise<ReachProbe>((resolve) => {
      const socket = createConnection({ host, port, signal: limited });
      const end = (probe: ReachProbe) => {
        socket.destroy();
        resolve(probe);
      };
      socket.once('connect', () => end({ reach: 'connected', detail: 'it accepts connections' }));
      socket.once('error', (error) => end(unreached(error)));
    });
    signal.throwIfAborted();
    return result;
  },

  async http(url, signal) {
    const begun = performance.now();
    const ms = () => Math.round(performance.now() - begun);
    try {
      const { status, body } = await get(url, AbortSignal.any([signal, AbortSignal.timeout(LOOK_MS)]));
      return { status, body, ms: ms(), detail: `answers ${status} in ${ms()} ms` };
    } catch (error) {
      signal.throwIfAborted();
      return { status: undefined, body: '', ms: ms(), detail: unreached(error).detail } satisfies HttpProbe;
    }
  },

  async database(url, signal) {
    const result = await inSession<DatabaseProbe>(url, signal, async (client) => {
      const { rows } = await client.query<{ recovery: boolean; version: string }>(
        "select pg_is_in_recovery() as recovery, current_setting('server_version') as version",
      );
      const inRecovery = rows[0]?.recovery === true;
      const detail = `PostgreSQL ${rows[0]?.version} answers, ${inRecovery ? 'a read-only standby' : 'not a standby'}`;
      return { reach: 'connected', session: true, inRecovery, detail };
    });
    if ('answer' in result) return result.answer;
    return { ...reachOf(result.error), session: false };
  },

  async refusesWrites(url, signal) {
    const result = await inSession(url, signal, async (client) => {
      const { rows } = await client.query<{ recovery: boolean }>('select pg_is_in_recovery() as recovery');
      // "read write" overrides a default, because read-only by default is a courtesy and no fence; a standby knows no such mode.
      await client.query(rows[0]?.recovery ? 'begin' : 'begin read write');
      await client.query('create temporary table dr_fence_probe (n integer) on commit drop');
      await client.query('rollback');
      return { proof: false, detail: 'it accepted a write, which was rolled back' };
    });
    if ('answer' in result) return result.answer;
    const code = codeOf(result.error);
    if (code === READ_ONLY) return { proof: true, detail: `refused: ${redact(messageOf(result.error))}` };
    return { proof: false, detail: `no answer that proves anything: ${redact(messageOf(result.error))}` };
  },

  async asks(url, sql, signal) {
    const found: Array<{ sql: string; ok: boolean; detail: string }> = [];
    for (const statement of sql) {
      const result = await inSession(url, signal, async (client) => await firstRow(client, statement));
      // A question that could not be asked says nothing about the data.
      if ('error' in result) continue;
      const [value] = result.answer;
      const ok = value === true || (typeof value !== 'boolean' && Number(value) !== 0 && !Number.isNaN(Number(value)));
      found.push({ sql: statement, ok, detail: `it answers ${String(value)}` });
    }
    return found;
  },

  async answers(url, sql, signal) {
    const result = await inSession(url, signal, async (client) => {
      const answers: string[] = [];
      for (const statement of sql) answers.push((await firstRow(client, statement)).map(String).join(' '));
      return answers;
    });
    return 'answer' in result ? result.answer : undefined;
  },
};

/** The first row of a statement in a transaction that can change nothing; empty when there is none. */
async function firstRow(client: pg.Client, statement: string): Promise<unknown[]> {
  await client.query('begin read only');
  try {
    const { rows } = await client.query<unknown[]>({ text: statement, rowMode: 'array' });
    return rows[0] ?? [];
  } finally {
    await client.query('rollback').catch(() => {});
  }
}

async function inSession<T>(
  url: string,
  signal: AbortSignal,
  work: (client: pg.Client) => Promise<T>,
): Promise<{ answer: T } | { error: unknown }> {
  let client: pg.Client | undefined;
  const stop = () => void client?.end().catch(() => {});
  try {
    client = new pg.Client({
      connectionString: url,
      connectionTimeoutMillis: LOOK_MS,
      query_timeout: LOOK_MS,
      statement_timeout: LOOK_MS,
      application_name: 'dr probe',
    });
    // An idle connection that breaks says so by an event that must not end the process.
    client.on('error', () => {});
    signal.addEventListener('abort', stop, { once: true });
    await client.connect();
    return { answer: await work(client) };
  } catch (error) {
    signal.throwIfAborted();
    return { error };
  } finally {
    signal.removeEventListener('abort', stop);
    await client?.end().catch(() => {});
  }
}

/** An error that a server sent itself shows that one is there. */
function reachOf(error: unknown): ReachProbe {
  if (error instanceof pg.DatabaseError) {
    return { reach: 'connected', detail: `a server answers and refuses the session: ${redact(messageOf(error))}` };
  }
  return unreached(error);
}

function unreached(error: unknown): ReachProbe {
  const refused = codeOf(error) === 'ECONNREFUSED' || codeOf(error) === 'ENOENT';
  if (refused) return { reach: 'refused', detail: 'nothing listens there' };
  return { reach: 'silent', detail: `no answer: ${redact(messageOf(error))}` };
}

/** Not `fetch`: it refuses some ports, and a health check may listen on any. Redirects are answers, and not followed. */
async function get(url: string, signal: AbortSignal): Promise<{ status: number; body: string }> {
  const { request } = url.startsWith('https:') ? https : http;
  return await new Promise((resolve, reject) => {
    const sent = request(url, { signal, agent: false, headers: { 'cache-control': 'no-cache' } }, (response) => {
      const pieces: Buffer[] = [];
      let length = 0;
      const end = () => {
        const body = Buffer.concat(pieces).subarray(0, BODY_LIMIT).toString('utf8');
        resolve({ status: response.statusCode ?? 0, body });
        response.destroy();
      };
      response.on('data', (piece: Buffer) => {
        pieces.push(piece);
        length += piece.length;
        if (length >= BODY_LIMIT) end();
      });
      response.on('end', end);
      response.on('error', reject);
    });
    sent.on('error', reject);
    sent.end();
  });
}
