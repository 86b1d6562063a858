import { DrError } from '../base/errors.ts';
import { createDataKey } from '../vault/keys.ts';
import { FORMAT_VERSION, layout } from '../vault/layout.ts';
import { Mirror } from '../vault/mirror.ts';
import { sha256 } from '../vault/seal.ts';
import type { ObjectStore } from '../vault/store.ts';
import { newBackupId } from './backup-id.ts';
import type { BackupContext, TakenBackup } from './context.ts';
import { encodeManifest, type Manifest, type Note, type ResourceKind } from './manifest.ts';
import { type PackResult, PackWriter } from './pack-writer.ts';
import { type Baseline, chooseBaseline, requireBaseline } from './previous/baseline.ts';
import type { PreviousBackup } from './previous/previous-backup.ts';
import { removeOtherStates, stateFolder } from './previous/state-folder.ts';
import { StateWriter } from './previous/state-writer.ts';
import { requireInTime } from './retention/in-time.ts';

/** Large files are compared by blocks of this size: PostgreSQL's page, and for other files one that keeps what is known of them small. */
const DATABASE_BLOCK_BYTES = 8 * 1024;
const FILE_BLOCK_BYTES = 64 * 1024;

/** What a source of content (a directory, a database) contributes to its backup. */
export interface PackedContent {
  readonly notes: readonly Note[];
  /** Files, links and the like; a backup without any is a failure. */
  readonly files: number;
  /** The moment that this backup alone brings back, milliseconds since 1970. */
  readonly recoveryPointMs: number;
  readonly database?: Manifest['database'];
}

export interface TakeOptions {
  readonly resource: string;
  readonly kind: ResourceKind;
  /** For people: a path or a URL without credentials. */
  readonly source: string;
  readonly allowEmpty: boolean;
  /** Reads the content into the pack; what equals `previous`, the newest backup, need not be stored again. */
  readonly pack: (pack: PackWriter, previous: PreviousBackup | undefined) => Promise<PackedContent>;
  /** An existing backup that makes this one unnecessary when its content is the same. */
  readonly unlessEqualTo?: Manifest | undefined;
  /** Files whose change alone makes no new backup. */
  readonly besideContent?: (path: Buffer) => boolean;
  /**
   * Called when everything but the manifest is stored, with the vaults that hold it: what must be true before the backup may count
   * (its WAL is archived).
   */
  readonly beforeCommit?: (packed: PackedContent, vaults: readonly ObjectStore[]) => Promise<Note[]>;
}

/**
 * Takes one backup into all vaults at once, under the lease of its resource. Order: key, parts, index, manifest; the manifest,
 * create-only, is the commit point. A vault that fails is left out and named in the result; throws when none is left or when nothing was
 * captured.
 */
export async function takeBackup(context: BackupContext, options: TakeOptions): Promise<TakenBackup> {
  const startedMs = context.clock.now();
  const baseline = await chooseBaseline(context, options.resource);
  const folder = context.scratch === undefined ? undefined : stateFolder(context.scratch, options.resource);
  const state = folder === undefined ? undefined : new StateWriter(folder, context.log);
  try {
    const taken = await take(context, options, { startedMs, baseline, state });
    if (folder !== undefined) await removeOtherStates(folder, taken.manifest.id, context.clock.now());
    return taken;
  } catch (error) {
    await state?.abandon();
    throw error;
  } finally {
    baseline.close();
  }
}

interface Work {
  readonly startedMs: number;
  readonly baseline: Baseline;
  readonly state: StateWriter | undefined;
}

async function take(context: BackupContext, options: TakeOptions, work: Work): Promise<TakenBackup> {
  const { startedMs, baseline, state } = work;
  const { id: backupId, notes: idNotes } = await newBackupId(
    context.stores,
    options.resource,
    startedMs,
    context.signal,
  );
  const mirror = new Mirror(baseline.stores, context.log, baseline.lost);
  const created = await createDataKey(context.keyPolicy, startedMs, 'backup');
  if (created) await mirror.create(created.objectKey, created.object, context.signal);
  const pack = new PackWriter({
    resource: options.resource,
    backupId,
    mirror,
    pool: context.pool,
    key: created?.key,
    compressionLevel: context.compressionLevel,
    partBytes: context.partBytes,
    blockBytes: options.kind === 'database' ? DATABASE_BLOCK_BYTES : FILE_BLOCK_BYTES,
    previous: baseline.previous,
    besideContent: options.besideContent,
    sink: state,
    signal: context.signal,
  });
  let packed: PackedContent;
  let stored: PackResult;
  try {
    packed = await options.pack(pack, baseline.previous);
    if (packed.files === 0 && !options.allowEmpty) {
      throw new DrError('check-failed', `the backup of ${options.resource} captured nothing`, {
        where: options.source,
        next: 'Correct the path or mount; if it may be empty, say `allowEmpty: true` for this resource.',
      });
    }
    stored = await pack.finish();
  } catch (error) {
    await pack.abandon();
    throw error;
  }
  const known = options.unlessEqualTo;
  if (known && known.contentDigest === stored.contentDigest) {
    await state?.abandon();
    await discard(mirror, created?.objectKey, stored);
    return { manifest: known, vaults: mirror.complete.map(({ name }) => name), lost: mirror.lost, unchanged: true };
  }
  await mirror.protect(reusedObjects(stored, backupId), context.signal);
  const lateNotes = (await options.beforeCommit?.(packed, mirror.complete)) ?? [];
  const lostNotes = mirror.lost.map(({ vault, reason }) => ({
    kind: 'vault-lost' as const,
    subject: vault,
    detail: reason,
  }));
  const manifest: Manifest = {
    format: FORMAT_VERSION,
    id: backupId,
    resource: options.resource,
    kind: options.kind,
    tool: context.tool,
    site: context.site,
    source: options.source,
    startedAt: new Date(startedMs).toISOString(),
    finishedAt: new Date(context.clock.now()).toISOString(),
    recoveryPoint: new Date(packed.recoveryPointMs).toISOString(),
    encryption: created ? 'age' : 'none',
    entries: stored.entries,
    logicalBytes: stored.logicalBytes,
    storedBytes: stored.storedBytes,
    ...(baseline.previous ? { previous: { id: baseline.previous.manifest.id } } : {}),
    reusedBytes: stored.reusedBytes,
    contentDigest: stored.contentDigest,
    index: stored.index,
    parts: stored.parts,
    notes: [...idNotes, ...baseline.notes, ...packed.notes, ...baseline.lateNotes(), ...lateNotes, ...lostNotes],
    ...(packed.database ? { database: packed.database } : {}),
  };
  await commit(context, work, mirror, manifest, stored);
  return { manifest, vaults: mirror.complete.map(({ name }) => name), lost: mirror.lost, unchanged: false };
}

/** What this machine knows of the backup is complete before it counts: a kill in between leaves a state that nothing names. */
async function commit(
  { clock, signal }: BackupContext,
  { startedMs, baseline, state }: Work,
  mirror: Mirror,
  manifest: Manifest,
  stored: PackResult,
): Promise<void> {
  const { resource, id } = manifest;
  const bytes = encodeManifest(manifest);
  await state?.finish({
    resource,
    backupId: id,
    manifestSha256: sha256(bytes).toString('hex'),
    partBytes: stored.partBytes.map(({ raw, live }) => [raw, live] as const),
  });
  if (baseline.previous) await requireBaseline(mirror, baseline.previous, signal);
  signal?.throwIfAborted();
  requireInTime(resource, startedMs, clock.now());
  await mirror.create(layout.manifest(resource, id), bytes, signal);
}

/** Parts of earlier backups and what opens them: their locks were made for those. */
function reusedObjects({ parts }: PackResult, backupId: string): string[] {
  const reused = parts.filter(({ context }) => context !== backupId);
  const keyIds = new Set(reused.flatMap(({ keyId }) => (keyId === undefined ? [] : [keyId])));
  return [...reused.map(({ key }) => key), ...[...keyIds].map(layout.keyGenerations)];
}

/** Removes what an unnecessary backup has stored. No manifest names it, so a failure here costs space, not safety. */
async function discard(mirror: Mirror, keyObject: string | undefined, stored: PackResult): Promise<void> {
  const keys = [...stored.ownParts.map(({ key }) => key), stored.index.key, ...(keyObject ? [keyObject] : [])];
  await Promise.allSettled(mirror.complete.map((store) => store.delete(keys)));
}
