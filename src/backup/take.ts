import { randomBytes } from 'node:crypto';
import { DrError } from '../base/errors.ts';
import { createDataKey } from '../vault/keys.ts';
import { FORMAT_VERSION, layout, timedId } from '../vault/layout.ts';
import { Mirror } from '../vault/mirror.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { BackupContext, TakenBackup } from './context.ts';
import { encodeManifest, type Manifest, type Note, type ResourceKind } from './manifest.ts';
import { type PackResult, PackWriter } from './pack-writer.ts';
import type { PreviousBackup } from './previous/previous-backup.ts';

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
  /** Reads the content into the pack; what equals `previous` is not stored again. */
  readonly pack: (pack: PackWriter, previous: PreviousBackup | undefined) => Promise<PackedContent>;
  /** The newest backup of this resource, as far as it can be used. */
  readonly previous?: PreviousBackup | undefined;
  /** An existing backup that makes this one unnecessary when its content is the same. */
  readonly unlessEqualTo?: Manifest | undefined;
  /**
   * Called when everything but the manifest is stored, with the vaults that hold it: what must be true before the backup may count
   * (its WAL is archived).
   */
  readonly beforeCommit?: (packed: PackedContent, vaults: readonly ObjectStore[]) => Promise<Note[]>;
}

/**
 * Takes one backup into all vaults at once. Order: key, parts, index, manifest; the manifest, create-only, is the commit point.
 * A vault that fails is left out and named in the result; throws when none is left or when nothing was captured.
 */
export async function takeBackup(context: BackupContext, options: TakeOptions): Promise<TakenBackup> {
  const startedMs = context.clock.now();
  const backupId = timedId(startedMs, randomBytes(3).toString('hex'));
  const mirror = new Mirror(context.stores, context.log);
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
    previous: options.previous,
    signal: context.signal,
  });
  let packed: PackedContent;
  let stored: PackResult;
  try {
    packed = await options.pack(pack, options.previous);
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
    await discard(mirror, created?.objectKey, stored);
    return { manifest: known, vaults: mirror.complete.map(({ name }) => name), lost: mirror.lost, unchanged: true };
  }
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
    encryption: created?.wrap ?? 'none',
    entries: stored.entries,
    logicalBytes: stored.logicalBytes,
    storedBytes: stored.storedBytes,
    ...(options.previous ? { previous: { id: options.previous.manifest.id } } : {}),
    reusedBytes: stored.reusedBytes,
    contentDigest: stored.contentDigest,
    index: stored.index,
    parts: stored.parts,
    notes: [...packed.notes, ...lateNotes, ...lostNotes],
    ...(packed.database ? { database: packed.database } : {}),
  };
  await mirror.create(layout.manifest(options.resource, backupId), encodeManifest(manifest), context.signal);
  return { manifest, vaults: mirror.complete.map(({ name }) => name), lost: mirror.lost, unchanged: false };
}

/** Removes what an unnecessary backup has stored. No manifest names it, so a failure here costs space, not safety. */
async function discard(mirror: Mirror, keyObject: string | undefined, stored: PackResult): Promise<void> {
  const keys = [...stored.ownParts.map(({ key }) => key), stored.index.key, ...(keyObject ? [keyObject] : [])];
  await Promise.allSettled(mirror.complete.map((store) => store.delete(keys)));
}
