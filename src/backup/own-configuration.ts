import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { codeOf, DrError, fileError, messageOf } from '../base/errors.ts';
import { createDataKey, type KeyRing } from '../vault/keys.ts';
import { layout, timedId } from '../vault/layout.ts';
import { type LostVault, Mirror } from '../vault/mirror.ts';
import { decodeRecord, encodeRecord } from '../vault/record.ts';
import { FRAME_RAW_BYTES, openFrame, readFrameHeader, sealFrame, sha256 } from '../vault/seal.ts';
import type { ObjectStore } from '../vault/store.ts';
import type { BackupContext } from './context.ts';

/** A file of text with its name relative to where it belongs. */
export interface TextFile {
  readonly name: string;
  readonly text: string;
}

/** What `dr` itself needs to work: kept in every vault, so that a vault and an identity are enough to begin anew. */
export interface OwnConfiguration {
  /** The configuration file, references (`${…}`) as written: no secret of the environment is in it. */
  readonly text: string;
  /** The runbooks in use. */
  readonly runbooks: readonly TextFile[];
}

const contentSchema = z.object({
  text: z.string(),
  runbooks: z.array(z.object({ name: z.string().regex(/^[^/\\]+\.yaml$/), text: z.string() })),
});

const recordSchema = z.object({
  format: z.literal(1),
  id: z.string(),
  storedAt: z.string(),
  site: z.string(),
  tool: z.string(),
  /** Where the configuration file lay. */
  source: z.string(),
  /** Data key of the frames; absent in a plain vault. */
  keyId: z.string().optional(),
  /** Frames with the counters 0, 1, …, base64. */
  frames: z.array(z.string()).min(1),
});

/** A stored configuration, opened. */
export interface StoredConfiguration extends OwnConfiguration {
  readonly id: string;
  /** ISO 8601. */
  readonly storedAt: string;
  readonly site: string;
  readonly source: string;
}

/** The configuration as it is to be kept: the text that was read, and every `*.yaml` of the folder of runbooks. */
export async function gatherOwnConfiguration(text: string, runbookDirectory: string): Promise<OwnConfiguration> {
  try {
    const names = (await readdir(runbookDirectory)).filter((name) => name.endsWith('.yaml')).sort();
    const runbooks: TextFile[] = [];
    for (const name of names) runbooks.push({ name, text: await readFile(join(runbookDirectory, name), 'utf8') });
    return { text, runbooks };
  } catch (error) {
    // Without a folder of its own dr runs all the same: only a failover needs one, and `dr doctor` says that it is missing.
    if (codeOf(error) === 'ENOENT') return { text, runbooks: [] };
    throw fileError(error, runbookDirectory, 'read the runbooks');
  }
}

/** What became of it. */
export interface KeptConfiguration {
  /** Vaults that got it now. */
  readonly stored: readonly string[];
  /** Vaults that could not be asked or written, and why. */
  readonly lost: readonly LostVault[];
}

/**
 * Gives the configuration to every vault whose newest one is another. The name tells by its digest, so no identity is needed. A vault
 * that fails is left out; the next call makes up for it.
 */
export async function keepOwnConfiguration(
  context: Pick<
    BackupContext,
    'stores' | 'keyPolicy' | 'site' | 'tool' | 'compressionLevel' | 'clock' | 'log' | 'signal'
  >,
  own: OwnConfiguration & { readonly source: string },
): Promise<KeptConfiguration> {
  const { stores, clock, log, signal, compressionLevel: level } = context;
  const content = Buffer.from(JSON.stringify({ text: own.text, runbooks: own.runbooks }));
  const digest = sha256(content).toString('hex').slice(0, 16);
  const lost: LostVault[] = [];
  const behind: ObjectStore[] = [];
  for (const store of stores) {
    try {
      const newest = (await storedIds(store, signal)).at(-1);
      if (!newest?.endsWith(`-${digest}`)) behind.push(store);
    } catch (error) {
      signal?.throwIfAborted();
      lost.push({ vault: store.name, reason: messageOf(error), error });
    }
  }
  if (behind.length === 0) return { stored: [], lost };
  const nowMs = clock.now();
  const id = timedId(nowMs, digest);
  const mirror = new Mirror(behind, log);
  // Retention never removes a key that does not say what it is for: these few stay as long as the vault.
  const created = await createDataKey(context.keyPolicy, nowMs);
  const seal = { secret: created?.key.secret, context: layout.ownConfiguration(id) };
  const frames: string[] = [];
  for (let at = 0; at < content.length; at += FRAME_RAW_BYTES) {
    const raw = content.subarray(at, at + FRAME_RAW_BYTES);
    frames.push(sealFrame(raw, frames.length, seal, level).toString('base64'));
  }
  const record: z.infer<typeof recordSchema> = {
    format: 1,
    id,
    storedAt: new Date(nowMs).toISOString(),
    site: context.site,
    tool: context.tool,
    source: own.source,
    ...(created ? { keyId: created.key.id } : {}),
    frames,
  };
  if (created) await mirror.create(created.objectKey, created.object, signal);
  await mirror.create(layout.ownConfiguration(id), encodeRecord(record), signal);
  return { stored: mirror.complete.map(({ name }) => name), lost: [...lost, ...mirror.lost] };
}

/** The newest configuration of a vault. Throws `not-found` where there is none, `wrong-key`, `corrupt`, `refused` for a newer format. */
export async function readOwnConfiguration(
  store: ObjectStore,
  keyRing: KeyRing,
  signal?: AbortSignal,
): Promise<StoredConfiguration> {
  const id = (await storedIds(store, signal)).at(-1);
  if (id === undefined) {
    throw new DrError('not-found', 'this vault holds no configuration of dr', {
      where: `${store.location}/${layout.ownConfiguration('')}`,
      next: 'Name another vault; without any, begin from config/dr.yaml and name the vaults in it: the backups are there all the same.',
    });
  }
  const key = layout.ownConfiguration(id);
  const where = `${store.location}/${key}`;
  const value = decodeRecord(await store.read(key, undefined, { signal }), 'the stored configuration', where);
  if (typeof value.format === 'number' && value.format > 1) {
    throw new DrError('refused', 'the configuration was stored by a newer dr', { where, next: 'Install that one.' });
  }
  const parsed = recordSchema.safeParse(value);
  if (!parsed.success || parsed.data.id !== id) throw notOne(where, parsed.error);
  const { keyId, frames, storedAt, site, source } = parsed.data;
  const secret = keyId === undefined ? undefined : (await keyRing.open(store, keyId)).secret;
  const raw = frames.map((frame, counter) => {
    const bytes = Buffer.from(frame, 'base64');
    readFrameHeader(bytes, where);
    return openFrame(bytes, counter, { secret, context: key }, where);
  });
  let content: z.infer<typeof contentSchema>;
  try {
    content = contentSchema.parse(JSON.parse(Buffer.concat(raw).toString('utf8')));
  } catch (error) {
    throw notOne(where, error);
  }
  return { id, storedAt, site, source, ...content };
}

function notOne(where: string, cause: unknown): DrError {
  return new DrError('corrupt', 'the stored configuration is not one', {
    where,
    next: 'Use another vault (--from URL).',
    cause,
  });
}

/** Ids of the stored configurations, oldest first. */
async function storedIds(store: ObjectStore, signal: AbortSignal | undefined): Promise<string[]> {
  const prefix = layout.ownConfiguration('');
  const ids: string[] = [];
  for await (const { key } of store.list(prefix, { signal })) ids.push(key.slice(prefix.length));
  return ids;
}
