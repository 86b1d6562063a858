import type pg from 'pg';
import { isAbort, messageOf } from '../base/errors.ts';
import type { OnProgress } from '../base/progress.ts';
import { formatBytes } from '../base/units.ts';
import { withClient } from './server-process-sql.ts';

/** One thing that was looked at in a recovered cluster. */
export interface ClusterCheck {
  readonly ok: boolean;
  /** `database orders`, `amcheck orders`, the SQL of a check. */
  readonly what: string;
  /** How long it took, milliseconds. */
  readonly ms: number;
  /** The result in words; for a failure what is wrong. */
  readonly detail: string;
}

export interface CheckOptions {
  /** URL of a superuser for each database: `RunningCluster.urlFor`. */
  readonly urlFor: (database: string) => string;
  /** The database in which `sql` runs. */
  readonly database: string;
  /**
   * Structure of tables and B-tree indexes by PostgreSQL's amcheck: none, a random part of at most `sampleBytes` in each
   * database, or all (every index entry compared with its table as well: reads everything, twice).
   */
  readonly amcheck: 'none' | 'sample' | 'all';
  /** Default 256 MiB. */
  readonly sampleBytes?: number;
  /** The extension may be created where it is missing: only for a promoted copy that is thrown away. */
  readonly mayCreateExtension: boolean;
  /** Statements that return one row whose first column is true or a number other than zero; run read-only. */
  readonly sql: readonly string[];
  /** Longest run of one statement of `sql`, milliseconds; default 5 minutes. */
  readonly sqlTimeoutMs?: number;
  readonly onProgress?: OnProgress | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Looks whether a recovered cluster is sound: every database can be entered and its catalog read, no data checksum failed,
 * tables and indexes are well formed, the user's own statements are true. What fails is in the list, not thrown: a list
 * without `ok: false` is the proof. Only an abort is thrown.
 */
export async function checkCluster(options: CheckOptions): Promise<ClusterCheck[]> {
  const results: ClusterCheck[] = [];
  const check = async (what: string, url: string, timeoutMs: number, work: (client: pg.Client) => Promise<string>) => {
    const started = performance.now();
    const done = (ok: boolean, detail: string) => {
      results.push({ ok, what, ms: Math.round(performance.now() - started), detail });
    };
    try {
      const sqlOptions = { signal: options.signal, statementTimeoutMs: timeoutMs };
      done(true, await withClient(url, work, sqlOptions));
    } catch (error) {
      if (options.signal?.aborted === true || isAbort(error)) throw error;
      done(false, messageOf(error));
    }
  };
  let databases: string[] = [];
  await check('list of databases', options.urlFor('postgres'), 60_000, async (client) => {
    const { rows } = await client.query<{ name: string }>(
      'select datname as name from pg_database where datallowconn order by datname = $1 desc, datname',
      [options.database],
    );
    databases = rows.map((row) => row.name);
    if (!databases.includes(options.database)) throw new Error(`there is no database "${options.database}"`);
    return databases.join(', ');
  });
  for (const name of databases) {
    await check(`database ${name}`, options.urlFor(name), 300_000, describeDatabase);
    if (options.amcheck === 'none') continue;
    await check(`amcheck ${name}`, options.urlFor(name), 0, (client) => checkStructure(client, name, options));
  }
  for (const statement of options.sql) {
    await check(statement, options.urlFor(options.database), options.sqlTimeoutMs ?? 300_000, (client) =>
      checkStatement(client, statement),
    );
  }
  // Last, because the checks above have read the pages.
  await check('data checksums', options.urlFor('postgres'), 60_000, checksumFailures);
  return results;
}

/** Reads the catalog and says how much there is. */
async function describeDatabase(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ tables: string; rows: string; bytes: string }>(
    `select count(*) as tables, coalesce(sum(greatest(reltuples, 0)), 0)::bigint as rows,
            pg_database_size(current_database()) as bytes
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where relkind in ('r', 'm') and nspname not in ('pg_catalog', 'information_schema')`,
  );
  const [row] = rows;
  return `${row?.tables ?? 0} tables, about ${row?.rows ?? 0} rows, ${formatBytes(Number(row?.bytes ?? 0))}`;
}

async function checksumFailures(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ database: string; failures: string; enabled: boolean }>(
    `select coalesce(datname, 'shared relations') as database, coalesce(checksum_failures, 0)::text as failures,
            current_setting('data_checksums') = 'on' as enabled
       from pg_stat_database`,
  );
  const bad = rows.filter((row) => row.failures !== '0');
  if (bad.length > 0) throw new Error(bad.map((row) => `${row.failures} failures in ${row.database}`).join(', '));
  return rows[0]?.enabled === true ? 'no failure' : 'the cluster has no data checksums';
}

interface Relation {
  readonly oid: number;
  readonly name: string;
  readonly index: boolean;
  readonly bytes: string;
}

async function checkStructure(client: pg.Client, database: string, options: CheckOptions): Promise<string> {
  const absent = await provideAmcheck(client, options.mayCreateExtension);
  if (absent !== undefined) return `not done: ${absent}`;
  const { rows } = await client.query<{ schema: string }>(
    "select quote_ident(nspname) as schema from pg_extension e join pg_namespace n on n.oid = extnamespace where extname = 'amcheck'",
  );
  const schema = rows[0]?.schema ?? 'public';
  const relations = await chooseRelations(client, options);
  const totalBytes = relations.reduce((sum, relation) => sum + Number(relation.bytes), 0);
  const problems: string[] = [];
  let bytes = 0;
  for (const relation of relations) {
    options.signal?.throwIfAborted();
    const problem = relation.index
      ? await checkIndex(client, schema, relation, options.amcheck === 'all')
      : await checkTable(client, schema, relation);
    if (problem !== undefined) problems.push(`${relation.name}: ${problem}`);
    bytes += Number(relation.bytes);
    const task = `check ${database}`;
    options.onProgress?.({ task, done: bytes, total: totalBytes, unit: 'bytes', detail: relation.name });
  }
  if (problems.length > 0) {
    const more = problems.length > 5 ? ` and ${problems.length - 5} more` : '';
    throw new Error(`${problems.slice(0, 5).join('; ')}${more}`);
  }
  const indexes = relations.filter((relation) => relation.index).length;
  const part = options.amcheck === 'sample' ? ' (sample)' : '';
  return `${relations.length - indexes} tables and ${indexes} indexes are sound, ${formatBytes(totalBytes)}${part}`;
}

/** Makes the functions available; the reason when that is impossible. */
async function provideAmcheck(client: pg.Client, mayCreate: boolean): Promise<string | undefined> {
  const { rows } = await client.query<{ installed: string | null; recovering: boolean }>(
    "select installed_version as installed, pg_is_in_recovery() as recovering from pg_available_extensions where name = 'amcheck'",
  );
  const [row] = rows;
  if (row === undefined) return 'the extension amcheck is not installed on this machine (package postgresql-contrib)';
  if (row.installed !== null) return undefined;
  if (row.recovering) return 'the extension amcheck is not in this database, and a standby cannot create it';
  if (!mayCreate) return 'the extension amcheck is not in this database (create extension amcheck)';
  await client.query('create extension amcheck');
  return undefined;
}

/** Tables with their TOAST tables, and B-tree indexes, of which amcheck knows the structure. */
async function chooseRelations(client: pg.Client, options: CheckOptions): Promise<Relation[]> {
  const { rows } = await client.query<Relation>(
    `select c.oid, c.oid::regclass::text as name, c.relkind = 'i' as index, pg_relation_size(c.oid)::text as bytes
       from pg_class c
       join pg_am a on a.oid = c.relam
       left join pg_index i on i.indexrelid = c.oid
      where c.relpersistence = 'p'
        and (c.relkind in ('r', 'm', 't') and a.amname = 'heap' or c.relkind = 'i' and a.amname = 'btree' and i.indisvalid and i.indisready)
      order by random()`,
  );
  if (options.amcheck === 'all') return rows;
  let left = options.sampleBytes ?? 256 * 1024 * 1024;
  return rows.filter((relation) => {
    const fits = Number(relation.bytes) <= left;
    if (fits) left -= Number(relation.bytes);
    return fits;
  });
}

async function checkIndex(
  client: pg.Client,
  schema: string,
  relation: Relation,
  entries: boolean,
): Promise<string | undefined> {
  try {
    await client.query(`select ${schema}.bt_index_check($1::oid::regclass, $2)`, [relation.oid, entries]);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

async function checkTable(client: pg.Client, schema: string, relation: Relation): Promise<string | undefined> {
  try {
    const { rows } = await client.query<{ block: string; message: string }>(
      `select blkno::text as block, msg as message from ${schema}.verify_heapam($1::oid::regclass, on_error_stop => true) limit 1`,
      [relation.oid],
    );
    return rows[0] === undefined ? undefined : `block ${rows[0].block}: ${rows[0].message}`;
  } catch (error) {
    return messageOf(error);
  }
}

async function checkStatement(client: pg.Client, statement: string): Promise<string> {
  await client.query('set default_transaction_read_only = on');
  const answer: pg.QueryArrayResult | pg.QueryArrayResult[] = await client.query({ text: statement, rowMode: 'array' });
  const rows = Array.isArray(answer) ? (answer.at(-1)?.rows ?? []) : answer.rows;
  const value: unknown = rows[0]?.[0];
  if (rows.length === 0) throw new Error('it returned no row');
  if (!isTrue(value)) throw new Error(`it returned ${value === null ? 'null' : String(value)}`);
  return String(value);
}

/** True, or a number other than zero (`pg` gives bigint and numeric as text). */
function isTrue(value: unknown): boolean {
  if (typeof value === 'boolean') return value;
  if (typeof value !== 'number' && typeof value !== 'string') return false;
  if (value === 't' || value === 'true') return true;
  const number = Number(value);
  return value !== '' && !Number.isNaN(number) && number !== 0;
}
