import { DrError, isAbort } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { ClusterAccess } from '../config/types.ts';
import { inspectServer, type ServerFacts } from '../postgres/inspect.ts';
import { acquireLease, type Lease } from '../vault/lease.ts';
import type { ObjectStore } from '../vault/store.ts';
import { newestBackup } from './catalog.ts';
import type { BackupContext, TakenBackup } from './context.ts';
import { databaseFacts } from './database-facts.ts';
import type { Manifest } from './manifest.ts';
import type { ObjectsSource } from './objects/take-objects.ts';
import { type EnsureWal, takeDatabaseBackup } from './take-database.ts';
import { type DirectorySource, takeDirectoryBackup } from './take-directory.ts';
import { takenSince } from './taken-since.ts';

/** One protected thing as it is at the active site. */
export type ResourceSource =
  | ({ readonly type: 'directory' } & DirectorySource)
  | ({ readonly type: 'objects'; readonly cluster: ClusterAccess } & ObjectsSource)
  | {
      readonly type: 'database';
      readonly name: string;
      readonly url: string;
      /** Makes sure that the WAL of the base backup is in the vaults. */
      readonly ensureWal: EnsureWal;
      /** A person says that the server was created anew: its backups begin a lineage of their own. */
      readonly acceptNewSystem?: boolean;
    };

/** Name of the lease under which a resource is backed up. */
export function backupLease(resource: string): string {
  return `backup-${resource}`;
}

/**
 * Backs up one resource under its lease, so that a daemon and a command, or two daemons, never do it twice at once.
 * Throws `lease-held` saying who does it until when.
 */
export async function backupResource(context: BackupContext, source: ResourceSource): Promise<TakenBackup> {
  const lease = await leaseSomewhere(context, backupLease(source.name), `backup of ${source.name}`);
  const taken = onlyIfTaken(lease, context.log);
  const signal = context.signal ? AbortSignal.any([context.signal, taken]) : taken;
  const leased: BackupContext = { ...context, signal };
  try {
    const { unlessTakenSinceMs: sinceMs } = context;
    const before = sinceMs === undefined ? undefined : await takenSince(leased, source.name, sinceMs);
    if (before) return before;
    if (source.type === 'directory') {
      const isConfiguration = source.kind === 'configuration' && !context.full;
      const known = isConfiguration ? await unchangedCandidate(context.stores, source) : undefined;
      return await takeDirectoryBackup(leased, source, known);
    }
    if (source.type === 'objects') {
      return await takeObjects(leased, source);
    }
    const facts = await inspectServer(source.url, { signal, log: context.log });
    if (!source.acceptNewSystem) await requireSameSystem(context, source.name, facts);
    return await takeDatabaseBackup(leased, { ...source, facts: databaseFacts(facts) }, source.ensureWal);
  } finally {
    await lease.release();
  }
}

async function takeObjects(
  context: BackupContext,
  source: ResourceSource & { readonly type: 'objects' },
): Promise<TakenBackup> {
  const known = context.full ? undefined : await unchangedCandidate(context.stores, source);
  // A dr without a cluster does not load what this needs.
  const { takeObjectsBackup } = await import('./objects/take-objects.ts');
  const cluster = await context.openCluster?.(source.cluster);
  if (!cluster) throw new DrError('internal', `the cluster of ${source.name} cannot be opened here`);
  try {
    return await takeObjectsBackup(context, source, cluster, known);
  } finally {
    cluster.close();
  }
}

/**
 * Aborts when somebody else has the lease. A vault that cannot be reached any more takes its lease along, and must not take the backup to the
 * other vaults along too: at worst a second one is begun, which is double work, under another id, and no harm.
 */
function onlyIfTaken(lease: Lease, log: Log): AbortSignal {
  const taken = new AbortController();
  const look = () => {
    const reason: unknown = lease.signal.reason;
    if (reason instanceof DrError && reason.kind === 'lease-held') taken.abort(reason);
    else log.warn({ lease: lease.name, error: reason }, 'the lease is lost with its vault; the backup goes on');
  };
  if (lease.signal.aborted) look();
  else lease.signal.addEventListener('abort', look, { once: true });
  return taken.signal;
}

/**
 * Behind a wrong URL stands another database: its backups must not pass as those of this one. After a failover the other site's server
 * is what it is, and being protected comes first: only backups of the same site are compared.
 */
async function requireSameSystem(
  { stores, site }: Pick<BackupContext, 'stores' | 'site'>,
  resource: string,
  facts: Pick<ServerFacts, 'systemId' | 'where'>,
): Promise<void> {
  const known = await Promise.all(stores.map(async (store) => await newestOrNone(store, resource)));
  const newest = known
    .flatMap((manifest) => (manifest?.database && manifest.site === site ? [manifest] : []))
    .sort((a, b) => a.id.localeCompare(b.id))
    .at(-1);
  if (newest?.database === undefined || newest.database.systemId === facts.systemId) return;
  throw new DrError(
    'refused',
    `another PostgreSQL system answers for ${resource}: ${facts.systemId}; its backups are of ${newest.database.systemId}`,
    {
      where: facts.where,
      next: `Correct the url. If the server was created anew (initdb, pg_upgrade, from a dump), run \`dr backup ${resource} --accept-new-system\` once: the old recovery points stay.`,
    },
  );
}

/** The newest backup in a vault; undefined when there is none or the vault cannot say (away, damaged). */
async function newestOrNone(store: ObjectStore, resource: string): Promise<Manifest | undefined> {
  try {
    return await newestBackup(store, resource);
  } catch (error) {
    if (error instanceof DrError) return undefined;
    throw error;
  }
}

/**
 * The lease lies in the first vault that takes it. Processes that see different vaults may then hold one each: they do double work,
 * under different backup ids, which harms nobody.
 */
export async function leaseSomewhere(
  context: Pick<BackupContext, 'stores' | 'clock' | 'log' | 'signal'>,
  name: string,
  purpose: string,
): Promise<Lease> {
  let failure: unknown;
  for (const store of context.stores) {
    try {
      return await acquireLease(store, name, {
        purpose,
        clock: context.clock,
        log: context.log,
        signal: context.signal,
      });
    } catch (error) {
      if (!(error instanceof DrError) || error.kind === 'lease-held' || isAbort(error)) throw error;
      failure ??= error;
    }
  }
  throw failure ?? new DrError('config', 'no vault is configured');
}

/**
 * A configuration that has not changed makes no new backup, provided every vault has the newest one: else the new one is how a vault
 * that was away gets it.
 */
async function unchangedCandidate(
  stores: readonly ObjectStore[],
  source: { readonly name: string },
): Promise<Manifest | undefined> {
  const newest: Array<Manifest | undefined> = await Promise.all(
    // A vault that cannot say what it has gets a new backup.
    stores.map(async (store) => await newestOrNone(store, source.name)),
  );
  const [first] = newest;
  return newest.every((manifest) => manifest !== undefined && manifest.id === first?.id) ? first : undefined;
}
