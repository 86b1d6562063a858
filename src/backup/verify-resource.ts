import { randomBytes } from 'node:crypto';
import { chmod, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { codeOf, DrError, fileError, isAbort, messageOf } from '../base/errors.ts';
import type { OnProgress } from '../base/progress.ts';
import { checkCluster } from '../postgres/checks.ts';
import { formatLsn } from '../postgres/lsn.ts';
import { queryRows } from '../postgres/query.ts';
import { adoptServer } from '../postgres/server-process.ts';
import type { KeyRing } from '../vault/keys.ts';
import { timedId } from '../vault/layout.ts';
import type { ObjectStore } from '../vault/store.ts';
import { newestBackup } from './catalog.ts';
import type { BackupContext } from './context.ts';
import type { ResourceKind } from './manifest.ts';
import { chooseDatabaseBackup, recoverDatabase } from './recover-database.ts';
import { restoreBackup } from './restore.ts';
import { type Verification, writeVerification } from './verified.ts';

/** What is verified, and how. */
export interface VerifyOptions {
  readonly resource: string;
  readonly kind: ResourceKind;
  /** The vault to restore from. */
  readonly store: ObjectStore;
  readonly keyRing: KeyRing;
  /** Directory for the scratch copy; removed afterwards. */
  readonly scratch: string;
  /** Databases: statements that must be true in the recovered copy. */
  readonly checks: readonly string[];
  readonly amcheck: 'none' | 'sample' | 'all';
  /** Databases: name of the database in which the statements run. */
  readonly database: string;
  /** Databases: role of the URL, tried before `postgres`. */
  readonly roles: readonly string[];
  readonly binaries: readonly string[];
  readonly searchPath: readonly string[];
}

type Measured = Pick<Verification, 'backupId' | 'recoveredTo' | 'bytes' | 'restoreMs'> & {
  readonly recoveredToLsn?: string;
  readonly phasesMs: Record<string, number>;
  readonly checks: Verification['checks'];
};

const PREFIX = 'verify-';

/**
 * Restores the newest recovery point of a resource to a scratch place, isolated from everything, starts a database there and checks
 * it, keeps the report in the vaults, and cleans up. A failed check is a report with `ok: false`; so is a failed restore.
 */
export async function verifyResource(context: BackupContext, options: VerifyOptions): Promise<Verification> {
  const startedMs = context.clock.now();
  const id = timedId(startedMs, randomBytes(3).toString('hex'));
  const scratch = await makeScratch(options.scratch, `${PREFIX}${options.resource}-${id}`);
  let measured: Measured | undefined;
  let failure: string | undefined;
  try {
    measured =
      options.kind === 'database'
        ? await verifyDatabase(context, options, scratch)
        : await verifyDirectory(context, options, scratch);
    const bad = measured.checks.find(({ ok }) => !ok);
    if (bad) failure = `${bad.what}: ${bad.detail}`;
  } catch (error) {
    if (context.signal?.aborted || isAbort(error)) throw error;
    // These say nothing about the backup: this machine, the network or the identity stood in the way.
    const unproven = ['local', 'unreachable', 'denied', 'wrong-key', 'config'];
    if (error instanceof DrError && unproven.includes(error.kind)) throw error;
    context.log.error({ resource: options.resource, vault: options.store.name, error }, 'verification failed');
    failure = error instanceof DrError && error.where ? `${error.message} (${error.where})` : messageOf(error);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
  const verification: Verification = {
    format: 1,
    id,
    resource: options.resource,
    kind: options.kind,
    backupId: measured?.backupId ?? 'none',
    vault: options.store.name,
    site: context.site,
    startedAt: new Date(startedMs).toISOString(),
    finishedAt: new Date(context.clock.now()).toISOString(),
    recoveredTo: measured?.recoveredTo ?? new Date(startedMs).toISOString(),
    ...(measured?.recoveredToLsn === undefined ? {} : { recoveredToLsn: measured.recoveredToLsn }),
    ok: failure === undefined,
    ...(failure === undefined ? {} : { failure }),
    checks: measured?.checks ?? [],
    bytes: measured?.bytes ?? 0,
    restoreMs: measured?.restoreMs ?? 0,
    ...(measured ? { phasesMs: measured.phasesMs } : {}),
    tool: context.tool,
  };
  await writeVerification(context.stores, verification, context.log, context.signal);
  return verification;
}

async function verifyDirectory(context: BackupContext, options: VerifyOptions, scratch: string): Promise<Measured> {
  const { store, resource, keyRing } = options;
  const manifest = await newestBackup(store, resource);
  if (!manifest) throw noBackup(store, resource);
  const begunMs = context.clock.now();
  const { bytes, entries, warnings } = await restoreBackup({
    store,
    manifest,
    keyRing,
    pool: context.pool,
    target: path.join(scratch, 'content'),
    onProgress: verifying(context, resource),
    signal: context.signal,
  });
  const restoreMs = context.clock.now() - begunMs;
  // The scratch place may lie on a file system of another kind than the one that a recovery will restore to.
  const unset = warnings.length === 0 ? '' : `; could not be set in the scratch directory: ${warnings.join('; ')}`;
  const detail = `${entries} entries, every byte equal to its digest${unset}`;
  return {
    backupId: manifest.id,
    recoveredTo: manifest.recoveryPoint,
    bytes,
    restoreMs,
    phasesMs: { restore: restoreMs },
    checks: [{ what: 'restored completely', ok: true, detail, ms: restoreMs }],
  };
}

async function verifyDatabase(context: BackupContext, options: VerifyOptions, scratch: string): Promise<Measured> {
  const { store, resource, keyRing } = options;
  const point = await chooseDatabaseBackup(store, resource, { kind: 'latest' }, context.signal);
  const begunMs = context.clock.now();
  let restoredMs = begunMs;
  const cluster = await recoverDatabase({
    store,
    point,
    keyRing,
    pool: context.pool,
    dataDirectory: path.join(scratch, 'data'),
    binaries: options.binaries,
    searchPath: options.searchPath,
    address: undefined,
    roles: options.roles,
    onProgress: (progress) => {
      if (progress.task.startsWith('restore')) restoredMs = context.clock.now();
      verifying(context, resource)(progress);
    },
    signal: context.signal,
    log: context.log,
  });
  try {
    const reached = cluster.reached;
    await cluster.promote({ signal: context.signal });
    const readyMs = context.clock.now();
    // The role of the URL may see too little; in this isolated copy the owner of the cluster may be used, who sees all.
    const [row] = await queryRows(cluster.url, 'select rolname::text from pg_roles where oid = 10', {
      signal: context.signal,
    });
    const owner = typeof row?.[0] === 'string' ? row[0] : cluster.role;
    const checks = await checkCluster({
      urlFor: (database) => cluster.server.url(owner, database),
      database: options.database,
      amcheck: options.amcheck,
      mayCreateExtension: true,
      sql: options.checks,
      onProgress: verifying(context, resource),
      signal: context.signal,
    });
    // A quiet database is current to the archive's end although its last commit is old.
    const recoveredMs = Math.max(
      point.plan.coveredUntilMs,
      reached?.lastCommitAtMs ?? 0,
      Date.parse(point.manifest.recoveryPoint),
    );
    return {
      backupId: point.manifest.id,
      recoveredTo: new Date(recoveredMs).toISOString(),
      ...(reached ? { recoveredToLsn: formatLsn(reached.replayedTo) } : {}),
      bytes: point.manifest.logicalBytes,
      restoreMs: readyMs - begunMs,
      phasesMs: { restore: restoredMs - begunMs, replay: readyMs - restoredMs },
      checks: checks.map(({ what, ok, detail, ms }) => ({ what, ok, detail, ms })),
    };
  } finally {
    await cluster.stop('immediate');
  }
}

function verifying(context: BackupContext, resource: string): OnProgress {
  return (progress) => context.onProgress?.({ ...progress, task: `verify ${resource}` });
}

function noBackup(store: ObjectStore, resource: string): DrError {
  return new DrError('not-found', `there is no backup of ${resource} in vault ${store.name}`, {
    where: `${store.location}/manifests/${resource}/`,
    next: `Take one with \`dr backup ${resource}\`.`,
  });
}

/** Makes a scratch place with this process's number in it, and removes those of processes that are dead, servers included. */
async function makeScratch(root: string, name: string): Promise<string> {
  try {
    await mkdir(root, { recursive: true });
    for (const old of await readdir(root)) {
      if (old.startsWith(PREFIX)) await removeIfAbandoned(path.join(root, old));
    }
    const scratch = path.join(root, name);
    await mkdir(scratch, { mode: 0o711 });
    // The server's user passes through; what is restored inside is for its owner alone.
    await chmod(scratch, 0o711);
    await writeFile(path.join(scratch, 'pid'), String(process.pid), { mode: 0o600 });
    return scratch;
  } catch (error) {
    throw fileError(error, root, 'make a scratch directory');
  }
}

async function removeIfAbandoned(scratch: string): Promise<void> {
  const pid = Number(await readFile(path.join(scratch, 'pid'), 'utf8').catch(() => '0'));
  if (pid > 0 && isAlive(pid)) return;
  const data = path.join(scratch, 'data');
  const server = await adoptServer(data, path.join(data, 'log', 'dr-recovery.log')).catch(() => undefined);
  await server?.stop('immediate');
  await rm(scratch, { recursive: true, force: true });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === 'EPERM';
  }
}
