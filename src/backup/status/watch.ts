import { z } from 'zod';
import { layout } from '../../vault/layout.ts';
import { decodeRecord, encodeRecord } from '../../vault/record.ts';
import type { ObjectStore } from '../../vault/store.ts';

const watchSchema = z.object({
  format: z.literal(1),
  resource: z.string(),
  /** The newest backup, which had the same content as the directory ... */
  backupId: z.string(),
  /** ... at this moment. */
  unchangedAt: z.iso.datetime(),
  site: z.string(),
});

/** Says that a directory which makes no new backup is unchanged, and that somebody watches. A hint: nothing depends on it. */
export type WatchHeartbeat = z.infer<typeof watchSchema>;

/** Tells one vault. Throws what the store throws. */
export async function writeWatchHeartbeat(
  store: ObjectStore,
  facts: {
    readonly resource: string;
    readonly backupId: string;
    readonly unchangedAtMs: number;
    readonly site: string;
  },
  signal?: AbortSignal,
): Promise<void> {
  const { unchangedAtMs, ...known } = facts;
  const heartbeat: WatchHeartbeat = { format: 1, ...known, unchangedAt: new Date(unchangedAtMs).toISOString() };
  await store.overwrite(layout.walHeartbeat(facts.resource), encodeRecord(heartbeat), { signal });
}

/** The newest word about a directory in this vault; undefined if there is none. Throws `corrupt` and what the store throws. */
export async function readWatchHeartbeat(
  store: ObjectStore,
  resource: string,
  signal?: AbortSignal,
): Promise<WatchHeartbeat | undefined> {
  const key = layout.walHeartbeat(resource);
  if (!(await store.stat(key, { signal }))) return undefined;
  const bytes = await store.read(key, undefined, { signal });
  const parsed = watchSchema.safeParse(decodeRecord(bytes, 'the heartbeat', `${store.location}/${key}`));
  return parsed.success ? parsed.data : undefined;
}
