import { forEachLimit } from '../base/concurrency.ts';
import { DrError, messageOf } from '../base/errors.ts';
import type { ObjectStore } from '../vault/store.ts';
import { listBackupIds, listResources, readManifest } from './catalog.ts';
import { type Note, type ResourceKind, reuseRatio } from './manifest.ts';
import { newestVerifications } from './verified.ts';

const READS_IN_FLIGHT = 32;
/** Verification reports looked at for each resource. */
const VERIFICATIONS = 500;

/** One backup over all vaults, without its list of parts. Moments in milliseconds since 1970. */
export interface ListedBackup {
  readonly resource: string;
  readonly id: string;
  /** Vaults that have its manifest. */
  readonly vaults: readonly string[];
  /** Vaults that answered and do not have it. */
  readonly missing: readonly string[];
  /** Absent when no vault has a manifest of it that can be read: see `problems`. */
  readonly facts?:
    | {
        readonly kind: ResourceKind;
        readonly recoveryPointMs: number;
        readonly startedAtMs: number;
        readonly finishedAtMs: number;
        readonly entries: number;
        readonly logicalBytes: number;
        /** Bytes that it added to each vault. */
        readonly storedBytes: number;
        /** The backup that it was compared with. */
        readonly previousId: string | undefined;
        /** Of the logical bytes, what earlier backups had stored; and its share of them, 0 to 1. */
        readonly reusedBytes: number;
        readonly reuseRatio: number;
        readonly site: string;
        readonly notes: readonly Note[];
      }
    | undefined;
  /** Its newest verification. */
  readonly verified?: { readonly atMs: number; readonly ok: boolean; readonly vault: string } | undefined;
  readonly problems: ReadonlyArray<{ readonly vault: string; readonly message: string }>;
}

export interface BackupListing {
  /** By resource, oldest first. */
  readonly backups: readonly ListedBackup[];
  /** Vaults that could not be read: what they hold is unknown. */
  readonly unread: ReadonlyArray<{ readonly vault: string; readonly message: string }>;
}

/** Lists the backups of one resource, or of all that the vaults know. Throws `unreachable` when no vault can be read. */
export async function listAllBackups(
  stores: readonly ObjectStore[],
  resource: string | undefined,
  signal?: AbortSignal,
): Promise<BackupListing> {
  const unread: Array<{ vault: string; message: string; error: unknown }> = [];
  const holders = new Map<string, Map<string, ObjectStore[]>>();
  const readable: ObjectStore[] = [];
  for (const store of stores) {
    try {
      for (const name of resource === undefined ? await listResources(store) : [resource]) {
        const ofResource = holders.get(name) ?? new Map<string, ObjectStore[]>();
        holders.set(name, ofResource);
        for (const id of await listBackupIds(store, name)) ofResource.set(id, [...(ofResource.get(id) ?? []), store]);
      }
      readable.push(store);
    } catch (error) {
      if (signal?.aborted) throw error;
      unread.push({ vault: store.name, message: messageOf(error), error });
    }
  }
  const [first] = unread;
  if (readable.length === 0 && first) {
    if (unread.length === 1) throw first.error;
    throw new DrError('unreachable', 'no vault could be read', {
      where: unread.map(({ vault, message }) => `${vault}: ${message}`).join('; '),
      next: 'Run `dr doctor` to see what each vault refuses.',
      cause: first.error,
    });
  }
  const backups: ListedBackup[] = [];
  for (const [name, ids] of [...holders].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const { verifications } = await newestVerifications(readable, name, VERIFICATIONS, signal);
    const verified = new Map(verifications.reverse().map((found) => [found.backupId, found]));
    const listed: ListedBackup[] = new Array(ids.size);
    const sorted = [...ids].sort(([a], [b]) => (a < b ? -1 : 1));
    await forEachLimit(sorted.entries(), READS_IN_FLIGHT, async ([place, [id, having]]) => {
      signal?.throwIfAborted();
      const verification = verified.get(id);
      listed[place] = {
        resource: name,
        id,
        vaults: having.map((store) => store.name),
        missing: readable.filter((store) => !having.includes(store)).map((store) => store.name),
        ...(await readFacts(having, name, id)),
        verified: verification && {
          atMs: Date.parse(verification.finishedAt),
          ok: verification.ok,
          vault: verification.vault,
        },
      };
    });
    backups.push(...listed);
  }
  return { backups, unread: unread.map(({ vault, message }) => ({ vault, message })) };
}

/** The same in every vault, so one good copy is enough. */
async function readFacts(
  stores: readonly ObjectStore[],
  resource: string,
  id: string,
): Promise<Pick<ListedBackup, 'facts' | 'problems'>> {
  const problems: Array<{ vault: string; message: string }> = [];
  for (const store of stores) {
    try {
      const manifest = await readManifest(store, resource, id);
      const { kind, entries, logicalBytes, storedBytes, site, notes } = manifest;
      const facts = {
        kind,
        recoveryPointMs: Date.parse(manifest.recoveryPoint),
        startedAtMs: Date.parse(manifest.startedAt),
        finishedAtMs: Date.parse(manifest.finishedAt),
        entries,
        logicalBytes,
        storedBytes,
        previousId: manifest.previous?.id,
        reusedBytes: manifest.reusedBytes ?? 0,
        reuseRatio: reuseRatio(manifest),
        site,
        notes,
      };
      return { facts, problems };
    } catch (error) {
      problems.push({ vault: store.name, message: messageOf(error) });
    }
  }
  return { problems };
}
