import { chmod, chown, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { codeOf, DrError, fileError } from '../base/errors.ts';
import { type Lsn, parseLsn } from './lsn.ts';
import { grantAccess, revokeAccess } from './recovery-settings.ts';
import type { Reached } from './recovery-target.ts';
import type { ServerProcess } from './server-process.ts';
import { queryOnce } from './server-process-sql.ts';
import type { ServerUser } from './server-process-user.ts';
import type { WalSpool } from './wal-spool.ts';

/** How long a server may take to read its access rules again, milliseconds. */
const reloadPatienceMs = 10_000;

/** A server after promotion. */
export interface Promoted {
  readonly timeline: number;
  /** Where the new timeline stood when this was asked. */
  readonly lsn: Lsn;
}

/** What stays of a recovery while its server runs. */
export interface ClusterFacts {
  readonly server: ServerProcess;
  readonly user: ServerUser | undefined;
  /** Names that may be a superuser's. */
  readonly roles: readonly string[];
  /** Undefined when the server had been promoted before. */
  readonly reached: Reached | undefined;
  readonly spool: WalSpool;
  /** The access rules that the cluster has by its own configuration; undefined for an isolated copy, which keeps dr's. */
  readonly hbaFile: string | undefined;
  readonly isolated: boolean;
}

/** A recovered server that runs: a hot standby stopped at the recovery target, or already promoted. */
export class RunningCluster {
  readonly dataDirectory: string;
  readonly server: ServerProcess;
  /** Last replayed position and newest commit; undefined when the server had been promoted before. */
  readonly reached: Reached | undefined;
  readonly isolated: boolean;
  readonly #facts: ClusterFacts;
  #role: string | undefined;
  #promoted: Promoted | undefined;

  constructor(facts: ClusterFacts) {
    this.dataDirectory = facts.server.dataDirectory;
    this.server = facts.server;
    this.reached = facts.reached;
    this.isolated = facts.isolated;
    this.#facts = facts;
  }

  /** URL over the private socket: works for dr, without password, until promotion; for an isolated copy always. */
  get url(): string {
    return this.urlFor('postgres');
  }

  urlFor(database: string): string {
    return this.server.url(this.role, database);
  }

  /** The role of those URLs: the first of the given names that exists. */
  get role(): string {
    return this.#role ?? this.#facts.roles[0] ?? 'postgres';
  }

  /** Connects once, so that `role` is a role that exists. False while the server lets nobody in. */
  async connect(signal?: AbortSignal): Promise<boolean> {
    this.#role ??= await this.server.waitReady(this.#facts.roles, { signal, until: () => true });
    return this.#role !== undefined;
  }

  /**
   * Ends recovery, waits until the server accepts writes, and takes away what the recovery needed: nothing is left that a
   * later start of this server would look at. Calling it again after a crash is harmless.
   * @param patienceMs how long the server may take; default 5 minutes.
   */
  async promote(options: { signal?: AbortSignal | undefined; patienceMs?: number } = {}): Promise<Promoted> {
    if (this.#promoted !== undefined) return this.#promoted;
    const { server, user, spool } = this.#facts;
    const until = Date.now() + (options.patienceMs ?? 300_000);
    if (await this.#inRecovery()) {
      // What pg_ctl promote does: needs no rights in the database, and ends a pause at the recovery target too.
      const order = join(this.dataDirectory, 'promote');
      try {
        await writeFile(order, '', { mode: 0o600 });
        if (user !== undefined) await chown(order, user.uid, user.gid);
      } catch (error) {
        throw fileError(error, order, 'order the promotion');
      }
      process.kill(server.pid, 'SIGUSR1');
      while (await this.#inRecovery()) {
        options.signal?.throwIfAborted();
        if (spool.failure !== undefined) throw spool.failure;
        if (!server.running()) throw await server.ended('being promoted');
        if (Date.now() > until) {
          throw new DrError('local', 'the recovered server was told to promote and is still in recovery', {
            where: this.dataDirectory,
            next: `Read ${server.log.path}; running the command again waits on.`,
          });
        }
        await delay(20, undefined, { signal: options.signal });
      }
    }
    const [row] = await queryOnce<{ file: string; lsn: string }>(
      this.url,
      'select pg_walfile_name(pg_current_wal_lsn()) as file, pg_current_wal_lsn()::text as lsn',
    );
    if (row === undefined) throw new DrError('internal', 'the promoted server did not tell its position');
    await this.#cleanUp();
    this.#promoted = { timeline: Number.parseInt(row.file.slice(0, 8), 16), lsn: parseLsn(row.lsn) ?? 0n };
    return this.#promoted;
  }

  async #inRecovery(): Promise<boolean> {
    if (!(await this.connect())) return true;
    const [row] = await queryOnce<{ yes: boolean }>(this.url, 'select pg_is_in_recovery() as yes');
    return row?.yes !== false;
  }

  /**
   * Runs `work` with URLs of the cluster's owner, who may do everything, over the private socket and without password. A promoted
   * server obeys the access rules of its site, which need not know dr at all: dr's rule is added for the time of the work only.
   * @throws DrError `denied` when the server does not take the rule within 10 s, and whatever `work` throws.
   */
  async withAccess<T>(work: (urlFor: (database: string) => string) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const { server, user, hbaFile, reached } = this.#facts;
    const asOwner = async () => {
      // 10 is the role that initdb made (src/include/catalog/pg_authid.dat). It may have been locked out since.
      const sql = 'select rolname from pg_roles where oid = 10 and rolcanlogin';
      const [owner] = await queryOnce<{ rolname: string }>(this.url, sql, [], { signal });
      return await work((database) => server.url(owner?.rolname ?? this.role, database));
    };
    const obeysDr = hbaFile === undefined || (reached !== undefined && this.#promoted === undefined);
    if (obeysDr) return await asOwner();
    await grantAccess(this.dataDirectory, user, await readFile(hbaFile, 'utf8'));
    try {
      server.reload();
      await this.#letIn(signal);
      return await asOwner();
    } finally {
      await revokeAccess(this.dataDirectory, hbaFile);
      server.reload();
    }
  }

  /** A reload takes effect a moment after its signal. */
  async #letIn(signal: AbortSignal | undefined): Promise<void> {
    const until = Date.now() + reloadPatienceMs;
    for (;;) {
      try {
        if (await this.connect(signal)) {
          await queryOnce(this.url, 'select 1', [], { signal });
          return;
        }
      } catch (error) {
        const refused = codeOf(error) === '28000' || (error instanceof DrError && error.kind === 'denied');
        if (!refused || Date.now() > until) throw error;
      }
      await delay(20, undefined, { signal });
    }
  }

  async #cleanUp(): Promise<void> {
    const { server, spool, hbaFile } = this.#facts;
    if (hbaFile !== undefined) {
      await revokeAccess(this.dataDirectory, hbaFile);
      server.reload();
    }
    await spool.close();
  }

  /** Stops the server and removes what only its run needed. A server that was not promoted can be recovered further later. */
  async stop(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    await this.server.stop(mode);
    await this.#facts.spool.close();
    await rm(this.server.socketDirectory, { recursive: true, force: true });
  }
}

/** Longest path of a Unix socket on all systems (`sun_path`, 104 bytes on macOS), less the socket's own name. */
const longestSocketDirectory = 80;

/** The private directory of the server's socket: inside the data directory, unless its path is too long for a socket. */
export async function makeSocketDirectory(dataDirectory: string, user: ServerUser | undefined): Promise<string> {
  let path = join(dataDirectory, 'dr_socket');
  try {
    if (Buffer.byteLength(path) > longestSocketDirectory) path = await mkdtemp(join(tmpdir(), 'dr-socket-'));
    else await mkdir(path, { recursive: true, mode: 0o700 });
    await chmod(path, 0o700);
    if (user !== undefined) await chown(path, user.uid, user.gid);
  } catch (error) {
    throw fileError(error, path, 'make the directory of the server socket');
  }
  return path;
}
