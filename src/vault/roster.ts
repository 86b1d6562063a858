import { DrError, isAbort } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { refreshDocuments, type VaultDocuments } from './documents.ts';
import { checkVault, enrolVault, type VaultMarker } from './enrol.ts';
import { GuardedStore } from './guarded-store.ts';
import { layout } from './layout.ts';
import { encodeRecord } from './record.ts';
import {
  findStrangers,
  type KnowingVault,
  mergeRosters,
  type Roster,
  type RosterEntry,
  rosterIn,
  strangerError,
} from './roster-record.ts';
import type { CallOptions, ObjectStore } from './store.ts';

export interface OpenedVault {
  readonly store: ObjectStore;
  /** Undefined when it does not answer; `reason` then says why. */
  readonly marker: VaultMarker | undefined;
  readonly reason?: DrError;
  readonly enrolled: boolean;
}

export interface OpenOptions extends CallOptions {
  readonly log: Log;
  /** A vault that was really lost and shall be enrolled anew. */
  readonly replace?: string;
  /** What each vault carries for whoever has nothing else. */
  readonly documents?: VaultDocuments;
}

/**
 * Makes all vaults ready for writing; the stores that come back take the place of those given. A new one is enrolled (and proved). One that
 * was enrolled before and is now empty, missing or another one is not: an unmounted volume or an emptied bucket would else silently become a
 * new vault without any backup. It counts as `unreachable`, with the reason, and the others go on. So does the vault of another system, as
 * `refused`. Two names for one place are refused, and so are two vaults of which neither knows the other.
 * `replace` names a vault that was really lost and shall be enrolled anew.
 */
export async function openVaults(stores: readonly ObjectStore[], options: OpenOptions): Promise<OpenedVault[]> {
  const found = await Promise.all(stores.map(async (store) => ({ store, marker: await findVault(store, options) })));
  const knowing = await readRosters(found, options);
  const strangers = new Map<ObjectStore, DrError>();
  for (const stranger of findStrangers(knowing)) {
    const { vault, kin, isMutual } = stranger;
    // A person has named the one that is to be taken over.
    if (options.replace === vault.store.name || options.replace === kin.store.name) continue;
    if (isMutual) throw strangerError(stranger);
    strangers.set(vault.store, strangerError(stranger));
  }
  const roster = mergeRosters(knowing.filter(({ store }) => !strangers.has(store)).map((vault) => vault.roster));
  const opened: OpenedVault[] = [];
  for (const { store, marker } of found) {
    const reason = strangers.get(store);
    const vault: OpenedVault = reason
      ? { store, marker: undefined, reason, enrolled: false }
      : await open(store, marker, roster.get(store.name), options);
    if (vault.marker && !vault.enrolled) await refreshDocuments(store, options.documents ?? {}, options);
    opened.push(vault);
  }
  requireDistinct(opened);
  await writeRoster(opened, roster, options);
  return opened.map((vault) => ({ ...vault, store: guarded(vault, roster.get(vault.store.name), options) }));
}

/**
 * The same vaults for reading. A place that holds other things and no vault is refused before it is asked; an empty one is a vault
 * without anything, as before the first backup. Of two that are of two systems the second one that is asked is refused.
 */
export function readableVaults(stores: readonly ObjectStore[], options: CallOptions): ObjectStore[] {
  const seen: KnowingVault[] = [];
  return stores.map((store) =>
    GuardedStore.lazily(store, async () => {
      try {
        const { id } = await checkVault(store, options);
        const vault = { store, id, roster: await rosterIn(store, options) };
        const stranger = findStrangers([...seen, vault]).find((pair) => pair.vault === vault || pair.kin === vault);
        if (stranger) return strangerError(stranger);
        seen.push(vault);
        return undefined;
      } catch (error) {
        if (!(error instanceof DrError)) throw error;
        if (error.kind !== 'not-found') return error;
        const first = await store.list('', options)[Symbol.asyncIterator]().next();
        return first.done ? undefined : error;
      }
    }),
  );
}

/**
 * Before anything is deleted from vaults that were opened for reading, or copied between them: throws `refused` when they do not belong together.
 * Those that do not answer are left to whoever asks them next.
 */
export async function requireOneSystem(stores: readonly ObjectStore[], options: CallOptions): Promise<void> {
  const found = await Promise.all(stores.map(async (store) => ({ store, marker: await findVault(store, options) })));
  const [stranger] = findStrangers(await readRosters(found, options));
  if (stranger) throw strangerError(stranger);
}

async function readRosters(
  found: ReadonlyArray<{ readonly store: ObjectStore; readonly marker: VaultMarker | DrError }>,
  options: CallOptions,
): Promise<KnowingVault[]> {
  const vaults = found.flatMap(({ store, marker }) => ('id' in marker ? [{ store, id: marker.id }] : []));
  return await Promise.all(vaults.map(async (vault) => ({ ...vault, roster: await rosterIn(vault.store, options) })));
}

/** A vault that is away now is looked at again later; one that was never enrolled waits for the next start. */
function guarded(vault: OpenedVault, known: RosterEntry | undefined, options: CallOptions): ObjectStore {
  const { store, reason } = vault;
  if (!reason) return store;
  return new GuardedStore(store, reason, async () => {
    const marker = await findVault(store, options).catch(() => undefined);
    return marker && 'id' in marker && (known === undefined || marker.id === known.id) ? undefined : reason;
  });
}

async function open(
  store: ObjectStore,
  marker: VaultMarker | DrError,
  known: RosterEntry | undefined,
  options: OpenOptions,
): Promise<OpenedVault> {
  const replace = options.replace === store.name;
  if ('id' in marker) {
    const foreign = known !== undefined && known.location === store.location && known.id !== marker.id && !replace;
    if (!foreign) return { store, marker, enrolled: false };
    return away(store, `the vault ${store.name} is not the one that was enrolled at this place`);
  }
  const absent = marker.kind === 'not-found' || marker.kind === 'unreachable';
  // Expired credentials or a damaged marker in one region must not end the backups to the others.
  if (!absent) return { store, marker: undefined, reason: marker, enrolled: false };
  if (known !== undefined && known.location === store.location && !replace) {
    return away(store, `the vault ${store.name} was enrolled at this place and is not there now`, marker);
  }
  // A directory that is missing can be made; a store that has just not answered need not be asked again.
  if (marker.kind === 'unreachable' && !store.location.startsWith('file:')) {
    return { store, marker: undefined, reason: marker, enrolled: false };
  }
  try {
    const enrolled = await enrolVault(store, options);
    options.log.info({ vault: store.name, location: store.location }, 'new vault enrolled');
    return { store, marker: enrolled, enrolled: true };
  } catch (error) {
    if (error instanceof DrError && !isAbort(error))
      return { store, marker: undefined, reason: error, enrolled: false };
    throw error;
  }
}

function away(store: ObjectStore, message: string, cause?: unknown): OpenedVault {
  const reason = new DrError('unreachable', message, {
    where: store.location,
    next: `Mount it or bring it back; if it is lost for good, run \`dr vault enrol ${store.name}\` to begin a new one there.`,
    cause,
  });
  return { store, marker: undefined, reason, enrolled: false };
}

/** The marker, or why it cannot be had. */
async function findVault(store: ObjectStore, options: CallOptions): Promise<VaultMarker | DrError> {
  try {
    return await checkVault(store, options);
  } catch (error) {
    if (isAbort(error) || !(error instanceof DrError)) throw error;
    return error;
  }
}

function requireDistinct(opened: readonly OpenedVault[]): void {
  const byId = new Map<string, string>();
  for (const { store, marker } of opened) {
    if (!marker) continue;
    const other = byId.get(marker.id);
    if (other !== undefined) {
      throw new DrError('config', `the vaults ${other} and ${store.name} are one and the same place`, {
        where: store.location,
        next: 'Give each vault a place of its own: one place is one copy.',
      });
    }
    byId.set(marker.id, store.name);
  }
}

/** Tells every vault that answers about all of them. */
async function writeRoster(opened: readonly OpenedVault[], roster: Roster, options: CallOptions): Promise<void> {
  for (const { store, marker } of opened) {
    if (!marker) continue;
    const known = roster.get(store.name);
    const same = known?.id === marker.id && known.location === store.location;
    const entry: RosterEntry = same
      ? known
      : {
          format: 1,
          generation: (known?.generation ?? 0) + 1,
          name: store.name,
          location: store.location,
          id: marker.id,
          enrolled: {
            format: marker.format,
            createdAt: marker.createdAt,
            ...(marker.system === undefined ? {} : { system: marker.system }),
          },
        };
    const key = layout.vaultRecord(entry.name, entry.generation);
    for (const other of opened) {
      // Who comes second finds the same entry, or a race that the next start settles: nothing is overwritten.
      if (other.marker && !(same && (await other.store.stat(key, options)))) {
        await other.store.create(key, encodeRecord(entry), options);
      }
    }
  }
}
