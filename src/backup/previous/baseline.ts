import path from 'node:path';
import { DrError, messageOf } from '../../base/errors.ts';
import { formatBytes } from '../../base/units.ts';
import { KeyRing } from '../../vault/keys.ts';
import { layout } from '../../vault/layout.ts';
import type { LostVault, Mirror } from '../../vault/mirror.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { readCare } from '../care/care-record.ts';
import { copyBackup } from '../care/repair-backup.ts';
import type { BackupContext } from '../context.ts';
import type { Manifest, Note } from '../manifest.ts';
import { requireInTime } from '../retention/in-time.ts';
import { eachVault, findNewest, lost, type NewestBackup } from './newest-backup.ts';
import type { PreviousBackup } from './previous-backup.ts';
import { rebuildState } from './rebuild-state.ts';
import { SavedBackup } from './saved-backup.ts';
import { stateFolder } from './state-folder.ts';
import { StateReader } from './state-reader.ts';
import { findParts, type PartsFound } from './usable-parts.ts';

/** What a new backup is compared with, and the vaults that can hold it. */
export interface Baseline {
  /** Undefined: everything is stored anew. */
  readonly previous: PreviousBackup | undefined;
  /** Vaults that take part. */
  readonly stores: readonly ObjectStore[];
  /** Vaults left out because they lack what the new backup would name. */
  readonly lost: readonly LostVault[];
  readonly notes: readonly Note[];
  /** What turned out about the baseline while it was used. */
  lateNotes(): Note[];
  close(): void;
}

type Needs = Pick<
  BackupContext,
  'stores' | 'keyPolicy' | 'scratch' | 'full' | 'keyRing' | 'clock' | 'log' | 'onProgress' | 'signal'
>;

/**
 * Chooses what a backup of a resource is compared with: its newest backup, where what is known of it here can be used. A vault that lacks
 * that backup gets it first, or is left out: every vault that takes part can restore the new one alone.
 */
export async function chooseBaseline(context: Needs, resource: string): Promise<Baseline> {
  const { stores, scratch, log, signal } = context;
  const anew = (notes: readonly Note[]): Baseline => ({
    previous: undefined,
    stores,
    lost: [],
    notes,
    lateNotes: () => [],
    close: () => {},
  });
  if (scratch === undefined) return anew([]);
  if (context.full) return anew([{ kind: 'other', subject: resource, detail: 'everything was stored anew, as asked' }]);
  const newest = await findNewest(stores, resource, signal);
  if (!newest) return anew([]);
  const anewBecause = (reason: string): Baseline => {
    log.info(
      { resource, backup: newest.id, reason },
      'everything is stored anew: the newest backup cannot be built on',
    );
    const detail = `everything was stored anew: backup ${newest.id} could not be built on (${reason})`;
    return anew([{ kind: 'other', subject: resource, detail }]);
  };
  const { manifest } = newest;
  if (!manifest) return anewBecause(newest.differing[0]?.reason ?? newest.away[0]?.reason ?? 'no vault has it');
  if ((manifest.encryption === 'none') !== (context.keyPolicy === 'none')) {
    return anewBecause(`its encryption is ${manifest.encryption}`);
  }
  const folder = stateFolder(scratch, resource);
  const reader = openState(folder, newest, manifest) ?? (await readState(context, folder, newest, manifest));
  if (typeof reader === 'string') return anewBecause(reader);
  try {
    return await buildOn(context, newest, manifest, reader);
  } catch (error) {
    reader.close();
    if (error instanceof Unusable) return anewBecause(error.message);
    throw error;
  }
}

/** Why the newest backup cannot be built on. */
class Unusable extends Error {}

/** What this machine knows of the newest backup; undefined when that is nothing, or nothing that could be used. */
function openState(folder: string, newest: NewestBackup, manifest: Manifest): StateReader | undefined {
  const reader = StateReader.open(path.join(folder, newest.id));
  if (typeof reader === 'string') return undefined;
  if (isOf(reader, newest, manifest)) return reader;
  reader.close();
  return undefined;
}

/** The same from its index in a vault, where that can be read; else why everything is stored anew. */
async function readState(
  context: Needs,
  folder: string,
  newest: NewestBackup,
  manifest: Manifest,
): Promise<StateReader | string> {
  const { keyRing, log, signal } = context;
  const ring = manifest.encryption === 'none' ? new KeyRing([]) : keyRing;
  const unknown = 'this machine has not taken it or has forgotten it';
  if (!ring) return unknown;
  for (const store of newest.holders) {
    try {
      const found = { manifest, manifestSha256: newest.manifestSha256 };
      const reader = await rebuildState(context, folder, store, found, ring);
      if (!reader) return unknown;
      log.info({ vault: store.name, backup: newest.id }, `${unknown}: its index was read from the vault`);
      return reader;
    } catch (error) {
      if (signal?.aborted || !(error instanceof DrError)) throw error;
      log.debug({ vault: store.name, error }, 'the index of the newest backup could not be read');
    }
  }
  return unknown;
}

function isOf(reader: StateReader, newest: NewestBackup, manifest: Manifest): boolean {
  const { facts } = reader;
  return (
    facts.resource === manifest.resource &&
    facts.backupId === newest.id &&
    facts.manifestSha256 === newest.manifestSha256 &&
    facts.partBytes.length === manifest.parts.length
  );
}

async function buildOn(
  context: Needs,
  newest: NewestBackup,
  manifest: Manifest,
  reader: StateReader,
): Promise<Baseline> {
  const { keyPolicy, log, signal } = context;
  const left: LostVault[] = [...newest.away, ...newest.differing];
  const brought: ObjectStore[] = [];
  for (const store of newest.lacking) {
    const failure = await bring(context, newest, manifest, store);
    if (failure) left.push(failure);
    else brought.push(store);
  }
  const candidates = [...newest.holders, ...brought];
  const found = new Map<ObjectStore, PartsFound>();
  await eachVault(candidates, left, signal, async (store) => {
    const care = await readCare(candidates, store.name, signal);
    const bad = new Set(care?.named.map(({ key }) => key));
    found.set(store, await findParts(store, manifest, keyPolicy, bad, signal));
  });
  // None is left that could be written to: the backup itself will say so.
  if (found.size === 0) throw new Unusable(left[0]?.reason ?? 'no vault answers');
  const notes: Note[] = [];
  const unusable = new Set<number>();
  for (const [store, { unusable: bad }] of found) {
    for (const position of bad.keys()) unusable.add(position);
    if (bad.size > 0) notes.push(missingNote(store, manifest, bad));
  }
  for (const { vault, reason } of left) {
    log.warn({ vault, reason }, 'this vault is left out: it does not have what the backup is built on');
  }
  const stores = context.stores.filter((store) => found.has(store));
  return {
    previous: new SavedBackup(reader, manifest, unusable),
    stores,
    lost: left,
    notes,
    lateNotes: () => damageNote(reader, manifest),
    close: () => reader.close(),
  };
}

/** Copies the newest backup to a vault that lacks it. Returns why that vault cannot take part. */
async function bring(
  { keyPolicy, clock, log, onProgress, signal }: Needs,
  { id, holders }: NewestBackup,
  manifest: Manifest,
  target: ObjectStore,
): Promise<LostVault | undefined> {
  const { resource, parts } = manifest;
  const startedMs = clock.now();
  log.info({ vault: target.name, backup: id }, 'the vault lacks the newest backup: copying it first');
  try {
    // Parts of earlier backups that are there already are not read to be copied: `dr vault check` is what reads.
    const { there } = await findParts(target, manifest, keyPolicy, new Set(), signal);
    const total = parts.reduce((sum, { key, size }) => sum + (there.has(key) ? 0 : size), manifest.index.size);
    let done = 0;
    const onBytes = (bytes: number) => {
      done += bytes;
      onProgress?.({ task: `backup ${resource}`, done, total, unit: 'bytes', detail: `${id} to ${target.name}` });
    };
    // No lease keeps retention off: parts that were there already are safe for as long as this backup is the newest, and two days more.
    const beforeCommit = () => requireInTime(resource, startedMs, clock.now());
    await copyBackup({ sources: holders, target, resource, id, there: new Set(there), onBytes, beforeCommit, signal });
    return undefined;
  } catch (error) {
    if (signal?.aborted || !(error instanceof DrError)) throw error;
    // No vault gives a good copy of it: what is stored anew is good everywhere.
    if (error.kind === 'corrupt') throw new Unusable(`vault ${target.name} lacks it, and ${error.message}`);
    const reason = `it lacks backup ${id}, which this one builds on, and it could not be copied there: ${messageOf(error)}; \`dr vault repair ${target.name}\` brings both`;
    return lost(target, error, reason);
  }
}

function missingNote(store: ObjectStore, { parts }: Manifest, unusable: PartsFound['unusable']): Note {
  const bytes = [...unusable.keys()].reduce((sum, position) => sum + (parts[position]?.size ?? 0), 0);
  const [why] = unusable.values();
  const count = `${unusable.size} ${unusable.size === 1 ? 'part' : 'parts'} of earlier backups (${formatBytes(bytes)})`;
  return { kind: 'other', subject: store.name, detail: `${count}: ${why}; what they hold was stored again` };
}

function damageNote(reader: StateReader, { id, resource }: Manifest): Note[] {
  if (reader.damaged === 0) return [];
  const detail = `what this machine knew of backup ${id} was damaged in ${reader.damaged} places: their files were stored anew`;
  return [{ kind: 'other', subject: resource, detail }];
}

/**
 * Throws unless each of the vaults still has the backup that a new one builds on: a retention elsewhere may have removed it, and with it
 * what the new one names. A vault that cannot say is left out.
 */
export async function requireBaseline(
  mirror: Mirror,
  { manifest: { resource, id } }: Pick<PreviousBackup, 'manifest'>,
  signal?: AbortSignal,
): Promise<void> {
  const key = layout.manifest(resource, id);
  await mirror.check(async (store) => {
    if (await store.stat(key, { signal })) return undefined;
    return new DrError('conflict', `backup ${id} was removed while a new one was built on it: nothing was committed`, {
      where: `${store.location}/${key}`,
      next: 'Take the backup again; find out what removes the newest backup of a resource (dr never does).',
      retryable: true,
    });
  }, signal);
}
