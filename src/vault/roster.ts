import { z } from 'zod';
import { DrError, isAbort } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { refreshDocuments, type VaultDocuments } from './documents.ts';
import { checkVault, enrolVault, markerSchema, type VaultMarker } from './enrol.ts';
import { GuardedStore } from './guarded-store.ts';
import { layout } from './layout.ts';
import { decodeRecord, encodeRecord } from './record.ts';
import type { CallOptions, ObjectStore } from './store.ts';

const rosterSchema = z.object({
  format: z.literal(1),
  generation: z.int().positive(),
  name: z.string(),
  location: z.string(),
  /** Id in the vault's marker. */
  id: z.string(),
  /** What else its marker said when it was enrolled, so that a lost one can be written again as it was; absent in older records. */
  enrolled: markerSchema.omit({ id: true }).optional(),
});

/** What the vaults know of each other: that the place behind a name was enrolled once, and which one it was. */
export type RosterEntry = z.infer<typeof rosterSchema>;

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
 * Makes all vaults ready for writing; the stores that come back take the place of those given. A new one is enrolled (and proved). One that was enrolled before and is now empty, missing or
 * another one is not: an unmounted volume or an emptied bucket would else silently become a new vault without any backup. It
 * counts as `unreachable`, with the reason, and the others go on. Two names for one place are refused.
 * `replace` names a vault that was really lost and shall be enrolled anew.
 */
export async function openVaults(stores: readonly ObjectStore[], options: OpenOptions): Promise<OpenedVault[]> {
  const found = await Promise.all(stores.map(async (store) => ({ store, marker: await findVault(store, options) })));
  const roster = await readRoster(
    found.flatMap(({ store, marker }) => ('id' in marker ? [store] : [])),
    stores,
    options,
  );
  const opened: OpenedVault[] = [];
  for (const { store, marker } of found) {
    const vault = await open(store, marker, roster.get(store.name), options);
    if (vault.marker && !vault.enrolled) await refreshDocuments(store, options.documents ?? {}, options);
    opened.push(vault);
  }
  requireDistinct(opened);
  await writeRoster(opened, roster, options);
  return opened.map((vault) => ({ ...vault, store: guarded(vault, roster.get(vault.store.name), options) }));
}

/**
 * The same vaults for reading. A place that holds other things and no vault is refused before it is asked; an empty one is a vault
 * without anything, as before the first backup.
 */
export function readableVaults(stores: readonly ObjectStore[], options: CallOptions): ObjectStore[] {
  return stores.map((store) =>
    GuardedStore.lazily(store, async () => {
      try {
        await checkVault(store, options);
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

export async function readRoster(
  present: readonly ObjectStore[],
  all: readonly ObjectStore[],
  options: CallOptions,
): Promise<Map<string, RosterEntry>> {
  const roster = new Map<string, RosterEntry>();
  for (const store of present) {
    for (const { name } of all) {
      let newest: string | undefined;
      for await (const { key } of store.list(layout.vaultRecords(name), options)) newest = key;
      if (newest === undefined) continue;
      const entry = parse(await store.read(newest, undefined, options), `${store.location}/${newest}`);
      if (entry.generation > (roster.get(name)?.generation ?? 0)) roster.set(name, entry);
    }
  }
  return roster;
}

/** Tells every vault that answers about all of them. */
async function writeRoster(
  opened: readonly OpenedVault[],
  roster: ReadonlyMap<string, RosterEntry>,
  options: CallOptions,
): Promise<void> {
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

function parse(bytes: Uint8Array, where: string): RosterEntry {
  const parsed = rosterSchema.safeParse(decodeRecord(bytes, 'the record of the vaults', where));
  if (parsed.success) return parsed.data;
  throw new DrError('corrupt', `the record of the vaults is not one: ${parsed.error.issues[0]?.message}`, {
    where,
    next: 'If a newer dr wrote it, install that one here too.',
  });
}
