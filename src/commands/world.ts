import { readActiveSite } from '../backup/active-site.ts';
import type { BackupContext } from '../backup/context.ts';
import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { openCluster } from '../cluster/open.ts';
import { forSite, type SitePlaces } from '../config/sites.ts';
import type { Config } from '../config/types.ts';
import { vaultDocuments } from '../vault/documents.ts';
import { KeyRing } from '../vault/keys.ts';
import { openVault } from '../vault/open.ts';
import { openVaults, readableVaults } from '../vault/roster.ts';
import { SealPool } from '../vault/seal-pool.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { CommandContext } from './context.ts';

/** The adapters, built once for a command or the daemon from the configuration. */
export interface World extends AsyncDisposable {
  readonly config: Config;
  /** The site where this dr runs. */
  readonly site: string;
  /** All vaults of the configuration, in its order. */
  readonly stores: readonly ObjectStore[];
  /** The same, not guarded: for the check of a vault whose marker may be what is damaged. */
  readonly bare: readonly ObjectStore[];
  /** Opens what the identities that were given can open. */
  readonly keyRing: KeyRing;
  readonly pool: SealPool;
  /** For backups of what runs at `site`. */
  backupContext(site: string): BackupContext;
  /** Where everything is at the site that is active now: by the record in the vaults, else by the configuration. */
  activePlaces(): Promise<SitePlaces>;
  store(name: string): ObjectStore;
}

export interface WorldOptions {
  /** `write`: vaults are enrolled (proved, and made where they are new). `read`: nothing is written. */
  readonly vaults: 'write' | 'read';
  /** A vault that was lost for good and begins anew. */
  readonly replaceVault?: string;
}

/** Opens data keys with the identities that were given, and by KMS where the configuration names a key. */
export function keyRingOf(config: Config, identities: readonly string[] | undefined, log: Log): KeyRing {
  return new KeyRing(identities ?? [], { log, kms: config.encryption === 'none' ? undefined : config.encryption.kms });
}

export async function openWorld(context: CommandContext, options: WorldOptions): Promise<World> {
  const { config, site } = await context.loadConfig();
  const { clock, log, signal, onProgress, version } = context;
  const found = Object.values(config.vaults).map((vault) => openVault(vault, log));
  const stores =
    options.vaults === 'write'
      ? await openForWriting(context, found, options.replaceVault)
      : readableVaults(found, { signal });
  const identities = await context.loadIdentities();
  const pool = new SealPool(config.backup.workers);
  const keyRing = keyRingOf(config, identities, log);
  return {
    config,
    site,
    stores,
    bare: found,
    keyRing,
    pool,
    backupContext: (site) => ({
      stores,
      keyPolicy: config.encryption === 'none' ? 'none' : { ...config.encryption, log },
      pool,
      site,
      tool: `dr ${version}`,
      compressionLevel: config.backup.compressionLevel,
      partBytes: config.backup.partBytes,
      scratch: config.scratch,
      keyRing,
      openCluster: async (access) => await openCluster({ ...access, env: context.env }, log),
      clock,
      log,
      onProgress,
      signal,
    }),
    activePlaces: async () => {
      const { active } = await readActiveSite(stores, signal);
      return forSite(config, active?.site ?? config.active);
    },
    store: (name) => {
      const store = stores.find((candidate) => candidate.name === name);
      if (store) return store;
      throw new DrError('not-found', `there is no vault "${name}"`, {
        where: config.source.path,
        next: `Name one of: ${stores.map((each) => each.name).join(', ')}.`,
      });
    },
    [Symbol.asyncDispose]: async () => {
      await pool.close();
      await Promise.all(stores.map((store) => store.close()));
    },
  };
}

/**
 * Makes the vaults ready. One that does not answer stays in the list and is left out by each operation, so that a dead region never
 * stops backups to the others; one that answers and cannot be trusted stops the command.
 */
async function openForWriting(
  context: CommandContext,
  stores: readonly ObjectStore[],
  replace?: string,
): Promise<ObjectStore[]> {
  const { log, signal } = context;
  const documents = await vaultDocuments();
  const opened = await openVaults(stores, { log, signal, documents, ...(replace === undefined ? {} : { replace }) });
  const reasons = opened.flatMap(({ reason }) => (reason ? [reason] : []));
  for (const reason of reasons) log.warn({ error: reason }, 'a vault cannot be used now; going on without it');
  const [first] = reasons;
  if (!first || reasons.length < stores.length) return opened.map(({ store }) => store);
  if (reasons.length === 1) throw first;
  throw new DrError('unreachable', 'no vault answers', {
    where: reasons.map((reason) => `${reason.message} (${reason.where})`).join('; '),
    next: 'Run `dr doctor` to see what each vault refuses.',
    cause: new AggregateError(reasons),
  });
}
