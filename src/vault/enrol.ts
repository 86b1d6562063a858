import { randomBytes, randomUUID } from 'node:crypto';
import { z } from 'zod';
import { DrError, messageOf } from '../base/errors.ts';
import { storeDocuments, type VaultDocuments } from './documents.ts';
import { FORMAT_VERSION, layout } from './layout.ts';
import { encodeRecord } from './record.ts';
import type { CallOptions, ObjectStore } from './store.ts';

/** Where the probes of enrolment go; what is left there by a killed one is harmless. */
const probes = 'probes/';

/** What `dr-vault.json` says: that this place is a vault, of which format, and which one. */
export interface VaultMarker {
  readonly format: number;
  /** Differs for any two vaults: two names in a configuration with the same id are one place, thus one copy. */
  readonly id: string;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
  /** The system it was enrolled for, where one was named. */
  readonly system?: string | undefined;
}

/** Beside these fields a marker has its `sha256`, as a record; those of the first versions have none. */
export const markerSchema = z.object({
  format: z.number().int().positive(),
  id: z.string().min(1),
  createdAt: z.string(),
  system: z.string().optional(),
});

export interface EnrolOptions extends CallOptions {
  readonly systemName?: string;
  /** What is stored beside the marker, by key: the description of the format, the restore script. Never replaced. */
  readonly documents?: VaultDocuments | undefined;
  readonly now?: () => number;
}

export interface EnrolledVault extends VaultMarker {
  /** True when this call made it a vault. */
  readonly created: boolean;
  /** False when objects cannot be deleted there, so that retention cannot free space. */
  readonly deletable: boolean;
}

/**
 * Makes a place a vault, or finds that it is one, and proves that the store honours create-only writes, on which every
 * guarantee of `dr` rests. Throws `refused` where it does not, where other things are stored there, and where a newer `dr`
 * wrote; nothing is written in the two last cases.
 */
export async function enrolVault(store: ObjectStore, options: EnrolOptions = {}): Promise<EnrolledVault> {
  await store.prepare();
  const found = await findMarker(store, options);
  if (!found) await requireEmpty(store, options);
  const deletable = await probeCreateOnly(store, options);
  if (!found) await requireLocks(store, options);
  const marker = found ? { ...found, created: false } : await writeMarker(store, options);
  await storeDocuments(store, options.documents ?? {}, options);
  return { ...marker, deletable };
}

/** The marker of an existing vault; throws `not-found` where there is none. Writes nothing: what a restore may do. */
export async function checkVault(store: ObjectStore, options: CallOptions = {}): Promise<VaultMarker> {
  const marker = await findMarker(store, options);
  if (marker) return marker;
  throw new DrError('not-found', `there is no vault at ${store.location}: it has no ${layout.marker}`, {
    where: store.location,
    next: `Correct the url of vault ${store.name}; a new vault is made by the first backup into it.`,
  });
}

async function findMarker(store: ObjectStore, options: CallOptions): Promise<VaultMarker | undefined> {
  const where = `${store.location}/${layout.marker}`;
  let bytes: Buffer | undefined;
  try {
    bytes = await store.read(layout.marker, undefined, options);
  } catch (error) {
    if (!(error instanceof DrError && error.kind === 'not-found')) throw error;
    // Is it only the object that is missing? Asking a missing bucket for a listing says so.
    for await (const _ of store.list(layout.marker, options)) break;
  }
  if (bytes === undefined) return undefined;
  let marker: VaultMarker;
  try {
    marker = markerSchema.parse(JSON.parse(bytes.toString('utf8')));
  } catch (error) {
    throw new DrError('corrupt', `the marker of vault ${store.name} cannot be read: ${messageOf(error)}`, {
      where,
      next: 'Use another vault, and find out what wrote there.',
      cause: error,
    });
  }
  if (marker.format > FORMAT_VERSION) {
    const message = `vault ${store.name} was written by a newer dr (format ${marker.format}, this one reads up to ${FORMAT_VERSION})`;
    throw new DrError('refused', message, { where, next: 'Install the newer dr here too.' });
  }
  return marker;
}

async function requireEmpty(store: ObjectStore, options: CallOptions): Promise<void> {
  const key = await firstStranger(store, options);
  // Somebody else may have enrolled it since we looked.
  if (key === undefined || (await findMarker(store, options))) return;
  const message = `${store.location} holds other things (${key}) and no vault: nothing was written there`;
  const next = `Give vault ${store.name} an empty prefix of its own.`;
  throw new DrError('refused', message, { where: store.location, next });
}

/** The first object of a place that is no vault; undefined when there is nothing but what a killed enrolment has left. */
export async function firstStranger(store: ObjectStore, options: CallOptions = {}): Promise<string | undefined> {
  for await (const key of store.names('', options)) if (!key.startsWith(probes)) return key;
  return undefined;
}

/** Where locks are configured they have to hold before anything is entrusted to them. */
async function requireLocks(store: ObjectStore, options: CallOptions): Promise<void> {
  const proof = await store.locks?.prove(options);
  if (proof?.broken === undefined) return;
  throw new DrError('refused', `vault ${store.name} cannot be immutable: ${proof.broken}`, {
    where: store.location,
    next: `Use a bucket that was made with Object Lock (a store that has it), or remove vaults.${store.name}.objectLock.`,
  });
}

async function writeMarker(
  store: ObjectStore,
  options: EnrolOptions,
): Promise<VaultMarker & { readonly created: boolean }> {
  const marker: VaultMarker = {
    format: FORMAT_VERSION,
    id: randomUUID(),
    createdAt: new Date((options.now ?? Date.now)()).toISOString(),
    ...(options.systemName !== undefined && { system: options.systemName }),
  };
  const outcome = await store.create(layout.marker, encodeRecord(marker), options);
  if (outcome === 'created') return { ...marker, created: true };
  return { ...(await checkVault(store, options)), created: false };
}

/**
 * Shows on fresh keys that a second create is told `exists` and changes nothing, one after the other and at once.
 * Returns whether the store let the probes be deleted: one that does not (Object Lock, a policy) can hold a vault all the same.
 */
export async function probeCreateOnly(store: ObjectStore, options: CallOptions): Promise<boolean> {
  const id = `${probes}${randomBytes(12).toString('hex')}`;
  const [first, second] = [Buffer.from('first'), Buffer.from('second, longer')];
  const refuse = (property: string) =>
    new DrError('refused', `the store of vault ${store.name} cannot hold a vault: ${property}`, {
      where: store.location,
      next: 'Use a store with conditional writes (If-None-Match: *): AWS S3, Ceph RGW, MinIO, Cloudflare R2, or a directory.',
    });
  const judge = async (key: string, outcomes: ReadonlyArray<'created' | 'exists'>, when: string) => {
    const created = outcomes.filter((outcome) => outcome === 'created').length;
    if (created === 0) throw refuse('it says that a fresh key exists already');
    if (created > 1)
      throw refuse(`of two creates of the same key ${when} both succeed: create-only writes are ignored`);
    const expected = outcomes[0] === 'created' ? first : second;
    if ((await store.read(key, undefined, options)).equals(expected)) return;
    throw refuse(`of two creates of the same key ${when} the one that was told "exists" changed the object`);
  };
  const [inTurn, atOnce] = [`${id}.1`, `${id}.2`];
  let deletable = true;
  try {
    const one = await store.create(inTurn, first, options);
    const two = await store.create(inTurn, second, options);
    await judge(inTurn, [one, two], 'one after the other');
    const both = [store.create(atOnce, first, options), store.create(atOnce, second, options)];
    await judge(atOnce, await Promise.all(both), 'at once');
  } finally {
    await store.delete([inTurn, atOnce], options).catch(() => {
      deletable = false;
    });
  }
  return deletable;
}
