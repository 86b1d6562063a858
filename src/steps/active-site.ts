import { z } from 'zod';
import { DrError, messageOf } from '../base/errors.ts';
import { layout } from '../vault/layout.ts';
import { decodeRecord, encodeRecord } from '../vault/record.ts';
import type { ObjectStore } from '../vault/store.ts';

const recordSchema = z.object({
  format: z.literal(1),
  generation: z.int().positive(),
  /** The site that is active from this generation on. */
  site: z.string(),
  /** The one before. */
  previous: z.string(),
  /** The run that decided it. */
  runId: z.string(),
  at: z.iso.datetime(),
});
export type ActiveSite = z.infer<typeof recordSchema>;

/** What the vaults say about who is active. */
export interface ActiveSiteView {
  /** The highest generation anywhere; undefined when there was never a failover: the configuration's `active` counts. */
  readonly newest: ActiveSite | undefined;
  /** The newest record of each vault that answers. */
  readonly byVault: ReadonlyMap<string, ActiveSite | undefined>;
  /** Vaults that do not answer: a newer record may lie there. */
  readonly silent: ReadonlyArray<{ readonly vault: string; readonly problem: string }>;
}

/** Reads the record of the active site from all vaults. A damaged record is `corrupt`, a newer format `refused`. */
export async function readActiveSite(stores: readonly ObjectStore[], signal?: AbortSignal): Promise<ActiveSiteView> {
  const byVault = new Map<string, ActiveSite | undefined>();
  const silent: Array<{ vault: string; problem: string }> = [];
  await Promise.all(
    stores.map(async (store) => {
      try {
        byVault.set(store.name, await newestRecord(store, signal));
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof DrError && (error.kind === 'corrupt' || error.kind === 'refused')) throw error;
        silent.push({ vault: store.name, problem: messageOf(error) });
      }
    }),
  );
  let newest: ActiveSite | undefined;
  for (const record of byVault.values()) if (record && record.generation > (newest?.generation ?? 0)) newest = record;
  return { newest, byVault, silent };
}

/**
 * Creates the record in every vault that answers; false for a vault that holds another record of that generation. Repeating it is
 * harmless.
 */
export async function writeActiveSite(store: ObjectStore, record: ActiveSite, signal?: AbortSignal): Promise<boolean> {
  const key = layout.activeSite(record.generation);
  if ((await store.create(key, encodeRecord(record), { signal })) === 'created') return true;
  const { runId, site } = decode(await store.read(key, undefined, { signal }), store, key);
  return runId === record.runId && site === record.site;
}

async function newestRecord(store: ObjectStore, signal: AbortSignal | undefined): Promise<ActiveSite | undefined> {
  let newest: string | undefined;
  for await (const { key } of store.list(layout.activeSites, { signal })) newest = key;
  return newest === undefined ? undefined : decode(await store.read(newest, undefined, { signal }), store, newest);
}

function decode(bytes: Uint8Array, store: ObjectStore, key: string): ActiveSite {
  const where = `${store.location}/${key}`;
  const record = decodeRecord(bytes, 'the record of the active site', where);
  if (typeof record.format === 'number' && record.format > 1)
    throw new DrError('refused', 'a newer dr wrote who is active', {
      where,
      next: 'Use that version of dr, or a newer one.',
    });
  const parsed = recordSchema.safeParse(record);
  if (parsed.success) return parsed.data;
  throw new DrError('corrupt', `this is no record of the active site: ${parsed.error.issues[0]?.message}`, {
    where,
    next: 'Compare it with the other vaults, and remove the damaged object if they have the same generation.',
    cause: parsed.error,
  });
}
