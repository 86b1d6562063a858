import { DrError, messageOf } from '../base/errors.ts';
import { layout } from '../vault/layout.ts';
import type { ObjectStore, ReadOutcome } from '../vault/store.ts';
import { listBackupIds, listResources, manifestOf, readManifest } from './catalog.ts';
import { type Manifest, type Note, type ResourceKind, reuseRatio } from './manifest.ts';
import { newestVerifications } from './verified.ts';

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
  const facts = await readAllFacts(holders, signal);
  const backups: ListedBackup[] = [];
  for (const [name, ids] of [...holders].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const { verifications } = await newestVerifications(readable, name, VERIFICATIONS, signal);
    const verified = new Map(verifications.reverse().map((found) => [found.backupId, found]));
    for (const [id, having] of [...ids].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const verification = verified.get(id);
      backups.push({
        resource: name,
        id,
        vaults: having.map((store) => store.name),
        missing: readable.filter((store) => !having.includes(store)).map((store) => store.name),
        ...(facts.get(layout.manifest(name, id)) ?? { problems: [] }),
        verified: verification && {
          atMs: Date.parse(verification.finishedAt),
          ok: verification.ok,
          vault: verification.vault,
        },
      });
    }
  }
  return { backups, unread: unread.map(({ vault, message }) => ({ vault, message })) };
}

type FoundFacts = Pick<ListedBackup, 'facts' | 'problems'>;

/** By the key of the manifest. Manifests are the same in every vault, so one good copy of each is enough. */
async function readAllFacts(
  holders: ReadonlyMap<string, ReadonlyMap<string, readonly ObjectStore[]>>,
  signal: AbortSignal | undefined,
): Promise<ReadonlyMap<string, FoundFacts>> {
  const byFirst = new Map<ObjectStore, Map<string, Held>>();
  for (const [resource, ids] of holders) {
    for (const [id, stores] of ids) {
      const [first] = stores;
      if (!first) continue;
      const held = byFirst.get(first) ?? new Map<string, Held>();
      byFirst.set(first, held.set(layout.manifest(resource, id), { resource, id, stores }));
    }
  }
  const found = new Map<string, FoundFacts>();
  for (const [store, held] of byFirst) {
    for await (const outcome of store.readEach(held.keys(), { signal })) {
      const backup = held.get(outcome.key);
      if (backup) found.set(outcome.key, await factsIn(outcome, backup));
    }
  }
  return found;
}

interface Held {
  readonly resource: string;
  readonly id: string;
  readonly stores: readonly ObjectStore[];
}

/** The facts in what the first vault has given; in that of the next one when that is damaged. */
async function factsIn(outcome: ReadOutcome, { resource, id, stores }: Held): Promise<FoundFacts> {
  const problems: Array<{ vault: string; message: string }> = [];
  for (const [place, store] of stores.entries()) {
    try {
      if (place === 0 && 'error' in outcome) throw outcome.error;
      const manifest =
        place === 0 && 'bytes' in outcome
          ? manifestOf(outcome.bytes, store, resource, id)
          : await readManifest(store, resource, id);
      return { facts: factsOf(manifest), problems };
    } catch (error) {
      problems.push({ vault: store.name, message: messageOf(error) });
    }
  }
  return { problems };
}

function factsOf(manifest: Manifest): NonNullable<ListedBackup['facts']> {
  const { kind, entries, logicalBytes, storedBytes, site, notes } = manifest;
  return {
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
}
