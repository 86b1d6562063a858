import { z } from 'zod';
import { DrError, messageOf } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { layout } from '../../vault/layout.ts';
import { decodeRecord, encodeRecord } from '../../vault/record.ts';
import type { ObjectStore } from '../../vault/store.ts';

const doneSchema = z.object({
  at: z.iso.datetime(),
  /** The site that did it. */
  site: z.string(),
  /** Bytes freed in all vaults together. */
  freedBytes: z.number().nonnegative(),
});

const blockedSchema = z.object({
  at: z.iso.datetime(),
  site: z.string(),
  /** Why it did not get through, in one sentence. */
  why: z.string(),
});

const markSchema = z.object({
  format: z.literal(1),
  done: doneSchema.optional(),
  blocked: blockedSchema.optional(),
});

/** What became of retention, by whichever site. A hint: nothing is deleted because of it. */
export interface RetentionMark {
  /** When it was last done in all vaults; undefined = never. */
  readonly done?: z.infer<typeof doneSchema> | undefined;
  /** The last time that it did not get through, in some vault or in all; undefined = never. */
  readonly blocked?: z.infer<typeof blockedSchema> | undefined;
}

/** Tells every vault what has become of it now, beside what was known; one that does not take it is passed over. */
export async function writeRetentionMark(
  stores: readonly ObjectStore[],
  news: RetentionMark,
  log: Log,
  signal?: AbortSignal,
): Promise<void> {
  const known = await readRetentionMark(stores, signal).catch((error: unknown) => {
    signal?.throwIfAborted();
    log.debug({ reason: messageOf(error) }, 'no vault says when retention was last done');
    return undefined;
  });
  const bytes = encodeRecord({ format: 1, ...joined(known ?? {}, news) });
  for (const store of stores) {
    try {
      await store.overwrite(layout.retentionDone, bytes, { signal });
    } catch (error) {
      signal?.throwIfAborted();
      log.debug({ vault: store.name, reason: messageOf(error) }, 'the vault was not told what became of retention');
    }
  }
}

/** The newest word of all vaults that answer; undefined if there is none. Throws when no vault answers. */
export async function readRetentionMark(
  stores: readonly ObjectStore[],
  signal?: AbortSignal,
): Promise<RetentionMark | undefined> {
  let newest: RetentionMark | undefined;
  const failures: unknown[] = [];
  for (const store of stores) {
    try {
      const mark = await read(store, signal);
      if (mark) newest = joined(newest ?? {}, mark);
    } catch (error) {
      signal?.throwIfAborted();
      failures.push(error);
    }
  }
  if (stores.length > 0 && failures.length === stores.length) throw failures[0];
  return newest;
}

/** Of each what came later. */
function joined(a: RetentionMark, b: RetentionMark): RetentionMark {
  const later = <T extends { readonly at: string }>(x: T | undefined, y: T | undefined) =>
    x && (!y || x.at > y.at) ? x : y;
  const done = later(a.done, b.done);
  const blocked = later(a.blocked, b.blocked);
  return { ...(done ? { done } : {}), ...(blocked ? { blocked } : {}) };
}

async function read(store: ObjectStore, signal: AbortSignal | undefined): Promise<RetentionMark | undefined> {
  const key = layout.retentionDone;
  try {
    const bytes = await store.read(key, undefined, { signal });
    const record = decodeRecord(bytes, 'the mark of retention', `${store.location}/${key}`);
    // Version 0.1 knew only when it was done.
    const { finishedAt: at, site, freedBytes } = record;
    const parsed = markSchema.safeParse(at === undefined ? record : { format: 1, done: { at, site, freedBytes } });
    return parsed.data;
  } catch (error) {
    // A hint that is not there or damaged is no hint.
    if (error instanceof DrError && (error.kind === 'not-found' || error.kind === 'corrupt')) return undefined;
    throw error;
  }
}
