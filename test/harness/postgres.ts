import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { type PostgresMajor, serverUser, usableNpmPostgres } from './npm-postgres.ts';
import { forgetProcess, registerProcess } from './process.ts';
import { tempDir } from './temp.ts';

export type { PostgresMajor } from './npm-postgres.ts';
export { postgresMajors } from './npm-postgres.ts';

const run = promisify(execFile);

export interface TestPostgresOptions {
  /** Default 17. */
  readonly version?: PostgresMajor;
  /** Settings of postgresql.conf on top of the harness's own. */
  readonly settings?: Readonly<Record<string, string | number>>;
  /** Password of the superuser and the replicator over TCP (scram-sha-256); without it everybody is trusted. */
  readonly password?: string;
  /** The server offers TLS with the self-signed certificate of `tls/`. */
  readonly tls?: boolean;
  /** Lines of pg_hba.conf instead of the default, which allows everything incl. replication from this machine. */
  readonly hba?: readonly string[];
  /** More arguments for initdb, for example `--wal-segsize=1`. */
  readonly initdb?: readonly string[];
  /** Durable writes. Off by default: killing a process loses nothing that the kernel has, only a crash of the machine does. */
  readonly fsync?: boolean;
  /** Start an existing data directory as it is, instead of a new one. */
  readonly dataDirectory?: string;
  /** Directory of other executables of this `version` than those from npm (a distribution's). */
  readonly bin?: string;
}

/** A real PostgreSQL server on 127.0.0.1, in a directory of its own, with data checksums and locale C. */
export interface TestPostgres extends AsyncDisposable {
  readonly version: PostgresMajor;
  /** Directory of the executables. */
  readonly bin: string;
  readonly dataDirectory: string;
  readonly socketDirectory: string;
  readonly port: number;
  /** Superuser `postgres`, database `postgres`. */
  readonly url: string;
  /** Role `replicator`: LOGIN and REPLICATION, nothing else. */
  readonly replicationUrl: string;
  readonly logFile: string;
  /** Process number of the running postmaster; undefined when stopped. */
  pid(): number | undefined;
  /** Rows of the last statement. */
  sql<Row extends object = Record<string, unknown>>(
    text: string,
    values?: readonly unknown[],
    database?: string,
  ): Promise<Row[]>;
  /** Stops it: `fast` ends sessions with a shutdown checkpoint, `immediate` is a crash that the server itself makes. */
  stop(mode?: 'fast' | 'immediate'): Promise<void>;
  /** SIGKILL to the postmaster and all its children at once. */
  kill9(): Promise<void>;
  start(): Promise<void>;
  restart(): Promise<void>;
  /** Promotes a standby and waits until it accepts writes. */
  promote(): Promise<void>;
  log(): string;
}

/** Access rules of a server that lets nobody in by its socket. */
export const networkOnly = ['host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust'];

/** Starts a server; `await using` or `stop()` ends it, and the end of the test run does at the latest. */
export async function startPostgres(options: TestPostgresOptions = {}): Promise<TestPostgres> {
  const version = options.version ?? 17;
  const bin = options.bin ?? usableNpmPostgres(version);
  const base = await tempDir(`pg${version}`);
  const dataDirectory = options.dataDirectory ?? join(base, 'data');
  own(base);
  if (options.dataDirectory === undefined) await createCluster(bin, dataDirectory, base, options);
  const server = new Server(version, bin, base, dataDirectory, options);
  await server.start();
  if (options.dataDirectory === undefined) {
    const password = options.password === undefined ? '' : ` password '${options.password}'`;
    await server.sql(`create role replicator login replication${password}`);
  }
  return server;
}

/** Gives a file or directory to the user that servers run as. */
export function own(path: string): void {
  if (serverUser !== undefined) chownSync(path, serverUser.uid, serverUser.gid);
}

/** A TCP port of 127.0.0.1 that was free a moment ago. */
export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  await once(probe, 'close');
  if (address === null || typeof address === 'string') throw new Error('no TCP address');
  return address.port;
}

async function createCluster(bin: string, dataDirectory: string, base: string, options: TestPostgresOptions) {
  const passwordFile = join(base, 'password');
  const auth = options.password === undefined ? ['--auth=trust'] : ['--auth=scram-sha-256', `--pwfile=${passwordFile}`];
  if (options.password !== undefined) writeFileSync(passwordFile, `${options.password}\n`, { mode: 0o600 });
  if (options.password !== undefined) own(passwordFile);
  const args = [
    '-D',
    dataDirectory,
    '-U',
    'postgres',
    '-E',
    'UTF8',
    '--locale=C',
    '--data-checksums',
    '--no-sync',
    ...auth,
  ];
  await run(join(bin, 'initdb'), [...args, ...(options.initdb ?? [])], { ...serverUser, cwd: '/' });
  const method = options.password === undefined ? 'trust' : 'scram-sha-256';
  const hba = options.hba ?? [
    'local all all trust',
    'local replication all trust',
    `host all all 127.0.0.1/32 ${method}`,
    `host replication all 127.0.0.1/32 ${method}`,
  ];
  writeFileSync(join(dataDirectory, 'pg_hba.conf'), `${hba.join('\n')}\n`);
  const settings: Record<string, string | number> = {
    fsync: options.fsync === true ? 'on' : 'off',
    wal_level: 'replica',
    max_wal_senders: 10,
    max_replication_slots: 10,
    shared_buffers: '32MB',
    log_min_messages: 'info',
    ...(options.tls === true ? { ssl: 'on', ssl_cert_file: 'server.crt', ssl_key_file: 'server.key' } : {}),
    ...options.settings,
  };
  const lines = Object.entries(settings).map(([name, value]) => `${name} = '${String(value).replaceAll("'", "''")}'`);
  writeFileSync(join(dataDirectory, 'postgresql.conf'), `${lines.join('\n')}\n`);
  if (options.tls !== true) return;
  for (const name of ['server.crt', 'server.key']) {
    const path = join(dataDirectory, name);
    copyFileSync(join(import.meta.dirname, 'tls', name), path);
    own(path);
    chmodSync(path, 0o600);
  }
}

class Server implements TestPostgres {
  readonly version: PostgresMajor;
  readonly bin: string;
  readonly dataDirectory: string;
  readonly socketDirectory: string;
  readonly logFile: string;
  port = 0;
  readonly #password: string | undefined;
  #process: ChildProcess | undefined;

  constructor(version: PostgresMajor, bin: string, base: string, dataDirectory: string, options: TestPostgresOptions) {
    this.version = version;
    this.bin = bin;
    this.dataDirectory = dataDirectory;
    this.socketDirectory = base;
    this.logFile = join(base, 'server.log');
    this.#password = options.password;
  }

  get url(): string {
    return this.#url('postgres', 'postgres');
  }

  get replicationUrl(): string {
    return this.#url('replicator', 'postgres');
  }

  #url(user: string, database: string): string {
    const password = this.#password === undefined ? '' : `:${encodeURIComponent(this.#password)}`;
    return `postgresql://${user}${password}@127.0.0.1:${this.port}/${database}`;
  }

  pid(): number | undefined {
    return this.#process?.pid;
  }

  log(): string {
    return readFileSync(this.logFile, 'utf8');
  }

  async start(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      if (this.port === 0) this.port = await freePort();
      const from = this.#launch();
      const failure = await this.#ready(from);
      if (failure === undefined) return;
      // Another process took the port, or children of a killed server still hold its shared memory: both pass.
      const passing = /address already in use|shared memory block .* still in use|lock file .* already exists/i.test(
        failure,
      );
      if (!passing || attempt === 20) throw new Error(`PostgreSQL ${this.version} did not start:\n${failure}`);
      if (/address already in use/i.test(failure)) this.port = 0;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Starts the postmaster; returns the length of the log before. */
  #launch(): number {
    mkdirSync(this.socketDirectory, { recursive: true });
    const log = openSync(this.logFile, 'a');
    const from = readFileSync(this.logFile).length;
    const args = ['-D', this.dataDirectory, '-p', String(this.port), '-h', '127.0.0.1', '-k', this.socketDirectory];
    const child = spawn(join(this.bin, 'postgres'), args, { ...serverUser, cwd: '/', stdio: ['ignore', log, log] });
    closeSync(log);
    this.#process = child;
    if (child.pid === undefined) throw new Error(`cannot start ${this.bin}/postgres`);
    const { pid } = child;
    registerProcess(pid);
    child.once('exit', () => {
      forgetProcess(pid);
      if (this.#process === child) this.#process = undefined;
    });
    return from;
  }

  /** Undefined when it answers; what it logged when it ended instead. */
  async #ready(from: number): Promise<string | undefined> {
    for (;;) {
      if (this.#process === undefined) return readFileSync(this.logFile).subarray(from).toString();
      try {
        await this.sql('select 1');
        return undefined;
      } catch (error) {
        const code = error instanceof Error && 'code' in error ? error.code : undefined;
        // 57P03: starting up; anything else than a refused connection is a defect of the test.
        if (code !== '57P03' && code !== 'ECONNREFUSED' && code !== 'ECONNRESET') throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  async sql<Row extends object>(text: string, values: readonly unknown[] = [], database = 'postgres'): Promise<Row[]> {
    const client = new pg.Client({ connectionString: this.#url('postgres', database) });
    client.on('error', () => {});
    await client.connect();
    try {
      const result: pg.QueryResult<Row> | Array<pg.QueryResult<Row>> = await client.query<Row>(text, [...values]);
      return (Array.isArray(result) ? result.at(-1)?.rows : result.rows) ?? [];
    } finally {
      await client.end();
    }
  }

  async stop(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    await this.#end((child) => child.kill(mode === 'fast' ? 'SIGINT' : 'SIGQUIT'));
  }

  async kill9(): Promise<void> {
    await this.#end((child) => {
      const children = childrenOf(child.pid ?? 0);
      child.kill('SIGKILL');
      for (const pid of children) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // It noticed the end of the postmaster first.
        }
      }
    });
  }

  async #end(send: (child: ChildProcess) => void): Promise<void> {
    const child = this.#process;
    if (child === undefined) return;
    const exited = once(child, 'exit');
    send(child);
    await exited;
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  async promote(): Promise<void> {
    const rows = await this.sql<{ done: boolean }>('select pg_promote(true, 60) as done');
    if (rows[0]?.done !== true) throw new Error('the standby was not promoted within 60 s');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop('immediate');
  }
}

/** Process numbers of a process's children; empty where the system does not tell (they end with the postmaster anyway). */
function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}
