import { createHash } from 'node:crypto';
import { leaseSomewhere } from '../../src/backup/backup-resource.ts';
import { copyBackup } from '../../src/backup/care/repair-backup.ts';
import type { BackupContext } from '../../src/backup/context.ts';
import { encodeManifest, type Manifest, type ResourceKind } from '../../src/backup/manifest.ts';
import { requireBaseline } from '../../src/backup/previous/baseline.ts';
import { findNewest } from '../../src/backup/previous/newest-backup.ts';
import { findParts } from '../../src/backup/previous/usable-parts.ts';
import { requireInTime } from '../../src/backup/retention/in-time.ts';
import { DrError } from '../../src/base/errors.ts';
import { FORMAT_VERSION, layout, timedId } from '../../src/vault/layout.ts';
import { Mirror } from '../../src/vault/mirror.ts';
import { encodeRecord } from '../../src/vault/record.ts';
import { sha256 } from '../../src/vault/seal.ts';
import type { ObjectStore } from '../../src/vault/store.ts';
import type { Random } from './random.ts';
import { RECIPIENT } from './world.ts';

/** What a machine remembers of the backups that it took: of each resource the newest, as its manifest's digest. */
export type Memory = Map<string, { readonly id: string; readonly digest: string }>;

export interface HandmadeBackup {
  readonly resource: string;
  readonly kind: ResourceKind;
  readonly memory: Memory;
  readonly random: Random;
  /** A database: what it says of itself, once its WAL is archived. */
  readonly database?: (vaults: readonly ObjectStore[]) => Promise<Manifest['database']>;
  /** It turns out to be equal to the one before: its own objects are removed again. */
  readonly unchanged: boolean;
}

/**
 * Takes a backup of next to no content, with every request to the vaults in the order of `takeBackup` and by the same functions, but
 * without files, threads and seals: thousands of them a minute. That the order is the same is seen by the histories with real backups.
 */
export async function takeHandmade(context: BackupContext, options: HandmadeBackup): Promise<string> {
  const { resource } = options;
  const lease = await leaseSomewhere(context, `backup-${resource}`, `backup of ${resource}`);
  const signal = context.signal ? AbortSignal.any([context.signal, lease.signal]) : lease.signal;
  try {
    return await take({ ...context, signal }, options);
  } finally {
    await lease.release();
  }
}

interface Chosen {
  readonly manifest: Manifest | undefined;
  readonly usable: Manifest['parts'];
  readonly stores: readonly ObjectStore[];
}

async function take(context: BackupContext, options: HandmadeBackup): Promise<string> {
  const { clock, signal, log } = context;
  const { resource, kind, random, memory } = options;
  const startedMs = clock.now();
  const { manifest: previous, usable, stores } = await choose(context, options, startedMs);
  const id = timedId(startedMs, random.hex(3));
  const mirror = new Mirror(stores, log);
  const keyId = random.hex(16);
  const at = new Date(startedMs).toISOString();
  const recipients = [RECIPIENT];
  const key = encodeRecord({
    format: 1,
    id: keyId,
    wrap: 'age',
    recipients,
    wrapped: 'AAAA',
    createdAt: at,
    usedFor: 'backup',
  });
  await mirror.create(layout.key(keyId), key, signal);
  const own: Manifest['parts'] = [];
  for (let n = 0; n < 1 + random.below(2); n++) {
    const bytes = Buffer.from(`part ${n} of ${id}`);
    await mirror.create(layout.part(resource, id, n), bytes, signal);
    own.push({ key: layout.part(resource, id, n), ...facts(bytes), context: id, keyId });
  }
  // Some parts of earlier backups are still of use, in no order and without runs.
  const shared = usable.filter(() => random.chance(0.7));
  const index = Buffer.from(`index of ${id}`);
  await mirror.create(layout.index(resource, id), index, signal);
  if (options.unchanged && previous) {
    const keys = [...own.map((part) => part.key), layout.index(resource, id), layout.key(keyId)];
    await Promise.allSettled(mirror.complete.map((store) => store.delete(keys)));
    return `unchanged since ${previous.id}`;
  }
  const database = await options.database?.(mirror.complete);
  const manifest: Manifest = {
    format: FORMAT_VERSION,
    id,
    resource,
    kind,
    tool: 'dr test',
    site: context.site,
    source: 'test',
    startedAt: at,
    finishedAt: new Date(clock.now()).toISOString(),
    recoveryPoint: at,
    encryption: 'age',
    entries: 1,
    logicalBytes: 100,
    storedBytes: 100,
    ...(previous ? { previous: { id: previous.id } } : {}),
    contentDigest: createHash('sha256').update(id).digest('hex'),
    index: { key: layout.index(resource, id), ...facts(index), context: `${id}/index`, keyId },
    parts: random.chance(0.5) ? [...shared, ...own] : [...own, ...shared],
    notes: [],
    ...(database ? { database } : {}),
  };
  const bytes = encodeManifest(manifest);
  if (previous) await requireBaseline(mirror, { manifest: previous }, signal);
  signal?.throwIfAborted();
  requireInTime(resource, startedMs, clock.now());
  await mirror.create(layout.manifest(resource, id), bytes, signal);
  memory.set(resource, { id, digest: sha256(bytes).toString('hex') });
  return `${id} on ${previous?.id ?? 'nothing'} in ${mirror.complete.map(({ name }) => name).join(' and ')}`;
}

/** As `chooseBaseline` does. */
async function choose(context: BackupContext, options: HandmadeBackup, startedMs: number): Promise<Chosen> {
  const { stores, clock, keyPolicy, signal } = context;
  const { resource, memory } = options;
  const newest = await findNewest(stores, resource, signal);
  const known = memory.get(resource);
  const anew = { manifest: undefined, usable: [], stores };
  if (!newest?.manifest || newest.id !== known?.id || newest.manifestSha256 !== known.digest) return anew;
  const { manifest, holders } = newest;
  const candidates = [...holders];
  for (const store of newest.lacking) {
    try {
      const { there } = await findParts(store, manifest, keyPolicy, new Set(), signal);
      const beforeCommit = async () => requireInTime(resource, startedMs, clock.now());
      const copy = {
        sources: holders,
        target: store,
        resource,
        id: newest.id,
        onBytes: () => {},
        beforeCommit,
        signal,
      };
      await copyBackup({ ...copy, there: new Set(there) });
      candidates.push(store);
    } catch (error) {
      if (signal?.aborted || !(error instanceof DrError)) throw error;
      if (error.kind === 'corrupt') return anew;
    }
  }
  const unusable = new Set<number>();
  const there: ObjectStore[] = [];
  for (const store of candidates) {
    try {
      const found = await findParts(store, manifest, keyPolicy, new Set(), signal);
      for (const position of found.unusable.keys()) unusable.add(position);
      there.push(store);
    } catch (error) {
      if (signal?.aborted || !(error instanceof DrError)) throw error;
    }
  }
  if (there.length === 0) return anew;
  return {
    manifest,
    usable: manifest.parts.filter((_, position) => !unusable.has(position)),
    stores: stores.filter((store) => there.includes(store)),
  };
}

function facts(bytes: Uint8Array): { size: number; sha256: string } {
  return { size: bytes.length, sha256: sha256(bytes).toString('hex') };
}
