import { z } from 'zod';
import { DrError, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { layout } from '../vault/layout.ts';
import { decodeRecord, encodeRecord } from '../vault/record.ts';
import type { ObjectStore } from '../vault/store.ts';

const markSchema = z.object({
  format: z.literal(1),
  finishedAt: z.iso.datetime(),
  /** The site that did it. */
  site: z.string(),
  /** Bytes freed in all vaults together. */
  freedBytes: z.number().nonnegative(),
});

/** When retention was last done in all vaults, by whichever site. A hint: nothing is deleted because of it. */
export type RetentionMark = z.infer<typeof markSchema>;

/** Tells every vault; one that does not take it is passed over. */
export async function writeRetentionMark(
  stores: readonly ObjectStore[],
  facts: { readonly finishedAtMs: number; readonly site: string; readonly freedBytes: number },
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  const { finishedAtMs, ...known } = facts;
  const mark: RetentionMark = { format: 1, ...known, finishedAt: new Date(finishedAtMs).toISOString() };
  for (const store of stores) {
    try {
      await store.overwrite(layout.retentionDone, encodeRecord(mark), { signal });
    } catch (error) {
      log.debug({ vault: store.name, reason: messageOf(error) }, 'the vault was not told that retention is done');
    }
  }
}

/** The newest mark of all vaults that answer; undefined if there is none. Throws when no vault answers. */
export async function readRetentionMark(
  stores: readonly ObjectStore[],
  signal: AbortSignal,
): Promise<RetentionMark | undefined> {
  let newest: RetentionMark | undefined;
  const failures: unknown[] = [];
  for (const store of stores) {
    try {
      const mark = await read(store, signal);
      if (mark && (!newest || mark.finishedAt > newest.finishedAt)) newest = mark;
    } catch (error) {
      signal.throwIfAborted();
      failures.push(error);
    }
  }
  if (stores.length > 0 && failures.length === stores.length) throw failures[0];
  return newest;
}

async function read(store: ObjectStore, signal: AbortSignal): Promise<RetentionMark | undefined> {
  const key = layout.retentionDone;
  try {
    const bytes = await store.read(key, undefined, { signal });
    return markSchema.safeParse(decodeRecord(bytes, 'the mark of retention', `${store.location}/${key}`)).data;
  } catch (error) {
    // A hint that is not there or damaged is no hint.
    if (error instanceof DrError && (error.kind === 'not-found' || error.kind === 'corrupt')) return undefined;
    throw error;
  }
}
