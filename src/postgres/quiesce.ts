import { setTimeout as delay } from 'node:timers/promises';
import { DrError } from '../base/errors.ts';
import { formatDuration } from '../base/units.ts';
import { type Lsn, parseLsn } from './lsn.ts';
import { type Query, withClient } from './query.ts';

/** How long sessions get to end after they were told to, milliseconds. */
const ENDING_MS = 20_000;
const POLL_MS = 50;
/**
 * `pg_current_wal_insert_lsn` stands behind the header of a page that has nothing on it yet, the flush position before it: at most
 * the long header of a segment's first page (src/include/access/xlog_internal.h: 40 bytes).
 */
const PAGE_HEADER_BYTES = 40n;

export interface Quiesced {
  /** Everything that was ever committed lies before this position. */
  readonly flushedTo: Lsn;
  /** The next transaction that writes gets this number: as long as it stays, nothing has been written. */
  readonly nextXid: string;
  /** Roles that may not log in any more. */
  readonly locked: readonly string[];
  /** Roles that nobody can lock out: only people keep them from writing. */
  readonly superusers: readonly string[];
  readonly endedSessions: number;
  /** Background workers that are no part of PostgreSQL itself or apply changes from elsewhere: they may write. */
  readonly workers: readonly string[];
}

/** How quiet a server is. */
export interface QuietState {
  /** Sessions other than those of dr, `user application`. */
  readonly sessions: readonly string[];
  /** Roles that may log in, other than superusers, replication and dr's own. */
  readonly open: readonly string[];
  /** What an ordinary write was answered; undefined when it was accepted (and rolled back). */
  readonly refusal: string | undefined;
  readonly flushedTo: Lsn;
  /** As in `Quiesced`. Autovacuum may move it too. */
  readonly nextXid: string;
}

/** Other people's sessions: not this one, not those of dr under the same role. */
const othersSessions = `backend_type = 'client backend' and pid <> pg_backend_pid()
  and not (usename = current_user and application_name ~ '^dr( |$)')`;
/** Roles of applications and people. Superusers and replication are left: dr, standbys and the archiver go on. */
const writerRoles = `rolcanlogin and not rolsuper and not rolreplication and rolname <> current_user`;
const lockSetting = 'dr.locked_by';

/**
 * Makes a living primary quiet for a planned move: every new transaction is read-only by default, no application can log in, all
 * sessions are ended, and all that was committed is on its disk. What was locked is marked in the server itself, so that it can be
 * undone by anybody (`reopenServer`), there or on a copy; doing it again changes nothing.
 * Throws `refused` when it cannot become quiet (prepared transactions, sessions that come back), `denied` without the rights.
 */
export async function quiesceServer(url: string, mark: string, signal?: AbortSignal): Promise<Quiesced> {
  return await withClient(url, { signal }, async (query, where) => {
    const [[prepared] = []] = await query('select count(*)::int from pg_prepared_xacts');
    if (Number(prepared) > 0) {
      throw new DrError('refused', `${prepared} prepared transactions wait for their second phase`, {
        where,
        next: 'Commit or roll them back (SELECT * FROM pg_prepared_xacts), then give the same command again.',
      });
    }
    await query('alter system set default_transaction_read_only = on');
    await query('select pg_reload_conf()');
    // This session was there before the reload may have reached it.
    await query('set default_transaction_read_only = off');
    const [[roles] = []] = await query(
      `select coalesce(array_agg(rolname::text order by rolname), '{}') from pg_roles where ${writerRoles}`,
    );
    // Together or not at all: a role is never locked without its mark.
    const locking = namesOf(roles).map(
      (role) =>
        `alter role ${quoteIdent(role)} set ${lockSetting} = ${quoteText(mark)}; alter role ${quoteIdent(role)} nologin`,
    );
    if (locking.length > 0) await query(`begin; ${locking.join('; ')}; commit`);
    const endedSessions = await endSessions(query, where, signal);
    return {
      // The number first: what it counts then lies before the position.
      nextXid: await nextXid(query),
      flushedTo: await flushed(query, where, signal),
      endedSessions,
      locked: await lockedRoles(query),
      superusers: (
        await query(
          'select rolname::text from pg_roles where rolsuper and rolcanlogin and rolname <> current_user order by 1',
        )
      ).map(([name]) => String(name)),
      workers: (
        await query(
          `select distinct backend_type from pg_stat_activity where backend_type not in ('client backend', 'walsender',
            'checkpointer', 'background writer', 'walwriter', 'archiver', 'autovacuum launcher', 'autovacuum worker', 'startup',
            'walreceiver', 'logical replication launcher', 'walsummarizer', 'slotsync worker', 'io worker', 'parallel worker') order by 1`,
        )
      ).map(([name]) => String(name)),
    };
  });
}

/**
 * Takes back what `quiesceServer` did, whoever asked for it: on the server itself when a move is given up, on its copy when the copy
 * has become the primary. Returns the roles that may log in again. Repeatable.
 */
export async function reopenServer(url: string, signal?: AbortSignal): Promise<string[]> {
  return await withClient(url, { signal }, async (query) => {
    await query('set default_transaction_read_only = off');
    const roles = await lockedRoles(query);
    const opening = roles.map(
      (role) => `alter role ${quoteIdent(role)} login; alter role ${quoteIdent(role)} reset ${lockSetting}`,
    );
    if (opening.length > 0) await query(`begin; ${opening.join('; ')}; commit`);
    const [[isSet] = []] = await query(
      `select count(*)::int from pg_file_settings
       where name = 'default_transaction_read_only' and sourcefile like '%postgresql.auto.conf'`,
    );
    if (Number(isSet) > 0) {
      await query('alter system reset default_transaction_read_only');
      await query('select pg_reload_conf()');
    }
    return roles;
  });
}

/** Looks whether a server that was made quiet still is. */
export async function lookAtQuiet(url: string, signal?: AbortSignal): Promise<QuietState> {
  const refusal = await withClient(url, { signal }, async (query) => {
    try {
      await query('begin');
      await query('create temporary table dr_quiet_probe (n integer) on commit drop');
      await query('rollback');
      return undefined;
    } catch (error) {
      const cause = error instanceof DrError ? error.cause : undefined;
      // SQLSTATE read_only_sql_transaction; anything else proves nothing.
      if (cause instanceof Error && 'code' in cause && cause.code === '25006') return cause.message;
      throw error;
    }
  });
  return await withClient(url, { signal }, async (query, where) => {
    const sessions = await query(
      `select coalesce(usename, '') || ' ' || application_name from pg_stat_activity where ${othersSessions} order by 1`,
    );
    const open = await query(`select rolname::text from pg_roles where ${writerRoles} order by 1`);
    return {
      sessions: sessions.map(([name]) => String(name)),
      open: open.map(([name]) => String(name)),
      refusal,
      nextXid: await nextXid(query),
      flushedTo: await flushed(query, where, signal),
    };
  });
}

/** What this role lacks for `quiesceServer`, in words; empty when nothing. */
export async function quiesceRights(url: string, signal?: AbortSignal): Promise<string[]> {
  return await withClient(url, { signal }, async (query) => {
    const [[superuser, terminate, roles, setting] = []] = await query(
      `select r.rolsuper, pg_has_role('pg_signal_backend', 'member'), r.rolcreaterole,
         has_parameter_privilege('default_transaction_read_only', 'alter system')
       from pg_roles r where r.rolname = current_user`,
    );
    if (superuser === true) return [];
    return [
      ...(setting === true ? [] : ['GRANT ALTER SYSTEM ON PARAMETER default_transaction_read_only']),
      ...(terminate === true ? [] : ['GRANT pg_signal_backend']),
      ...(roles === true ? [] : ['CREATEROLE, with ADMIN on the roles of the applications']),
    ];
  });
}

async function endSessions(query: Query, where: string, signal: AbortSignal | undefined): Promise<number> {
  const ended = new Set<number>();
  const untilMs = performance.now() + ENDING_MS;
  for (;;) {
    const left = await query(
      `select pid, coalesce(usename, '') || ' ' || application_name, pg_terminate_backend(pid)
       from pg_stat_activity where ${othersSessions}`,
    );
    for (const [pid] of left) ended.add(Number(pid));
    if (left.length === 0) return ended.size;
    if (performance.now() > untilMs) {
      throw new DrError(
        'refused',
        `sessions do not end, or come back, for ${formatDuration(ENDING_MS)}: ${[...new Set(left.map(([, who]) => String(who)))].join(', ')}`,
        {
          where,
          next: 'Stop these clients: a superuser or a replication role cannot be locked out. Then give the same command again.',
        },
      );
    }
    await delay(POLL_MS, undefined, signal ? { signal } : {});
  }
}

/** Waits until everything that was written is on disk; a commit that was not waited for (synchronous_commit = off) takes a moment. */
async function flushed(query: Query, where: string, signal: AbortSignal | undefined): Promise<Lsn> {
  const [[inserted] = []] = await query('select pg_current_wal_insert_lsn()::text');
  const wanted = parseLsn(String(inserted)) ?? 0n;
  const untilMs = performance.now() + ENDING_MS;
  for (;;) {
    const [[text] = []] = await query('select pg_current_wal_flush_lsn()::text');
    const position = parseLsn(String(text)) ?? 0n;
    if (position + PAGE_HEADER_BYTES >= wanted) return position;
    if (performance.now() > untilMs) {
      throw new DrError(
        'refused',
        `the server does not write its WAL to disk (${String(text)} of ${String(inserted)})`,
        {
          where,
          next: 'Look at its log and its disk.',
        },
      );
    }
    await delay(POLL_MS, undefined, signal ? { signal } : {});
  }
}

async function nextXid(query: Query): Promise<string> {
  const [[xid] = []] = await query('select pg_snapshot_xmax(pg_current_snapshot())::text');
  return String(xid);
}

async function lockedRoles(query: Query): Promise<string[]> {
  const rows = await query(
    `select r.rolname::text from pg_db_role_setting s join pg_roles r on r.oid = s.setrole
     where s.setdatabase = 0 and exists (select from unnest(s.setconfig) entry where entry like '${lockSetting}=%') order by 1`,
  );
  return rows.map(([name]) => String(name));
}

function namesOf(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}

function quoteIdent(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

function quoteText(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
