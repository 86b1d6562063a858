import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import { FORMAT_VERSION } from '../vault/layout.ts';
import { decodeRecord, encodeRecord } from '../vault/record.ts';

const digest = z.string().regex(/^[0-9a-f]{64}$/);
const time = z.iso.datetime();
const lsn = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/);

const partSchema = z.object({
  key: z.string(),
  size: z.int().nonnegative(),
  sha256: digest,
  /** What its frames are bound to: the id of the backup that wrote it. */
  context: z.string(),
  /** The data key of its frames; absent in a plain vault. */
  keyId: z.string().optional(),
});

const noteSchema = z.object({
  kind: z.enum(['vanished', 'changed', 'unreadable', 'skipped', 'vault-lost', 'other']),
  /** A path or a vault. */
  subject: z.string(),
  detail: z.string(),
});

const databaseSchema = z.object({
  systemId: z.string().regex(/^\d+$/),
  timeline: z.int().positive(),
  startLsn: lsn,
  /** Recovery is consistent from here on. */
  endLsn: lsn,
  version: z.string(),
  majorVersion: z.int(),
  segmentBytes: z.int().positive(),
  dataChecksums: z.boolean(),
  /** Server settings that a server needs to replay this database's WAL (`max_connections` and others), and some facts. */
  settings: z.record(z.string(), z.string()),
  tablespaces: z.array(z.object({ oid: z.int(), location: z.string() })),
});

const manifestSchema = z.object({
  format: z.int().positive(),
  id: z.string(),
  resource: z.string(),
  kind: z.enum(['database', 'data', 'configuration']),
  /** `dr` and its version. */
  tool: z.string(),
  site: z.string(),
  /** Where it was read, for people: a path or a URL without credentials. */
  source: z.string(),
  startedAt: time,
  finishedAt: time,
  /** The moment that a restore of this backup alone brings back. */
  recoveryPoint: time,
  /** What opens its data key: an age identity (perhaps KMS as well), or KMS alone. */
  encryption: z.enum(['none', 'age', 'kms']),
  entries: z.int().nonnegative(),
  logicalBytes: z.int().nonnegative(),
  /** Bytes that this backup added to each vault. */
  storedBytes: z.int().nonnegative(),
  /** The backup that it was compared with; absent where everything was stored anew. From format 2 on. */
  previous: z.object({ id: z.string() }).optional(),
  /** Of the logical bytes those that earlier backups had stored already. From format 2 on. */
  reusedBytes: z.int().nonnegative().optional(),
  /** Equal for equal content (names, kinds, modes, bytes; not times): how an unchanged configuration is recognised. */
  contentDigest: digest,
  index: z.object({
    key: z.string(),
    size: z.int(),
    sha256: digest,
    context: z.string(),
    keyId: z.string().optional(),
  }),
  /** Own parts and those of earlier backups that an extent names; extents name them by their position here. */
  parts: z.array(partSchema),
  notes: z.array(noteSchema),
  database: databaseSchema.optional(),
});

/** The small object that makes a backup one: written last, create-only. */
export type Manifest = z.infer<typeof manifestSchema>;
export type Part = z.infer<typeof partSchema>;
export type Note = z.infer<typeof noteSchema>;
export type DatabaseFacts = z.infer<typeof databaseSchema>;
export type ResourceKind = Manifest['kind'];

/** Share of the logical bytes that earlier backups had stored, 0 to 1. */
export function reuseRatio({ logicalBytes, reusedBytes }: Pick<Manifest, 'logicalBytes' | 'reusedBytes'>): number {
  return logicalBytes === 0 ? 0 : (reusedBytes ?? 0) / logicalBytes;
}

/** True for objects of a cluster: files that exist nowhere but in the backup, and belong to whoever restores them. */
export function isFromCluster({ kind, source }: Pick<Manifest, 'kind' | 'source'>): boolean {
  return kind === 'configuration' && source.startsWith('cluster ');
}

/** What should be in a backup and could not be read: a backup with any is degraded. What vanished meanwhile was deleted by its owner. */
export function lossesOf({ notes }: Pick<Manifest, 'notes'>): Note[] {
  return notes.filter(({ kind }) => kind === 'unreadable');
}

export function encodeManifest(manifest: Manifest): Buffer {
  return encodeRecord(manifest);
}

/** Reads a manifest. Throws `refused` for a newer format and `corrupt` for anything that is not a manifest. */
export function decodeManifest(bytes: Uint8Array, where: string): Manifest {
  const value = decodeRecord(bytes, 'the manifest', where);
  const format = value.format;
  if (typeof format === 'number' && format > FORMAT_VERSION) {
    throw new DrError('refused', `this backup has format ${format}; this dr knows formats up to ${FORMAT_VERSION}`, {
      where,
      next: 'Use the version of dr that wrote it, or a newer one.',
    });
  }
  const parsed = manifestSchema.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new DrError('corrupt', `the manifest is not one: ${issue?.path.join('.')}: ${issue?.message}`, {
      where,
      next: 'Restore from another vault (--vault NAME), then repair this one from it.',
      cause: parsed.error,
    });
  }
  return parsed.data;
}
