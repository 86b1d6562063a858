import { z } from 'zod';
import { DrError, messageOf } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { layout } from '../../vault/layout.ts';
import { decodeRecord, encodeRecord } from '../../vault/record.ts';
import type { ObjectStore } from '../../vault/store.ts';
import type { VaultCheck } from './check-vault.ts';
import type { VaultRepair } from './repair-vault.ts';

/** Objects named of those that are wrong or were mended; the log has all of them. */
const MOST_NAMED = 200;
/** Of what each of them touches. */
const MOST_TOUCHED = 3;

const time = z.iso.datetime();
const count = z.number().nonnegative();

const careSchema = z.object({
  format: z.literal(1),
  vault: z.string(),
  /** The newest check, whatever it looked at. */
  check: z.object({ finishedAt: time, site: z.string(), objects: count, bytes: count, foreign: count }),
  /** The newest one that read content as well: the share of it, and whose turn it was. */
  read: z.object({ finishedAt: time, share: z.number(), turn: count, bytes: count }).optional(),
  /** The newest repair that mended something or failed to. */
  repair: z
    .object({
      finishedAt: time,
      site: z.string(),
      mended: count,
      backups: count,
      walObjects: count,
      failed: count,
      /** Of what was mended. */
      keys: z.array(z.string()),
    })
    .optional(),
  /** What is wrong since then, and the first of it: what reading has found wrong is read again by every check, until it is mended. */
  problems: count,
  named: z.array(z.object({ state: z.string(), key: z.string(), why: z.string(), touches: z.array(z.string()) })),
  /** What no vault can bring back, in words. */
  losses: z.array(z.string()),
});

/** What is known of the state of a vault since it was last looked at. A hint in every vault: nothing is done or left because of it. */
export type VaultCare = z.infer<typeof careSchema>;

/** What a check and the repair after it add to what was known before. */
export function careOf(facts: {
  readonly check: VaultCheck;
  readonly repair?: VaultRepair | undefined;
  /** Where the check has read content: its share, and whose turn it was. */
  readonly read?: { readonly share: number; readonly turn: number } | undefined;
  readonly before: VaultCare | undefined;
  readonly site: string;
  readonly nowMs: number;
}): VaultCare {
  const { check, repair, read, before, site, nowMs } = facts;
  const finishedAt = new Date(nowMs).toISOString();
  const last = repair?.check ?? check;
  const isWorth = repair && repair.mended.length + repair.copied.length + repair.walCopied + repair.failed.length > 0;
  const mended = isWorth && {
    finishedAt,
    site,
    mended: repair.mended.length,
    backups: repair.copied.length,
    walObjects: repair.walCopied,
    failed: repair.failed.length,
    keys: repair.mended.slice(0, MOST_NAMED).map(({ key }) => key),
  };
  const done = read ? { finishedAt, ...read, bytes: repair?.readBytes ?? check.readBytes } : before?.read;
  const repaired = mended || before?.repair;
  return {
    format: 1,
    vault: check.vault,
    check: {
      finishedAt,
      site,
      objects: last.objects,
      bytes: last.bytes,
      foreign: last.foreign.length + last.moreForeign,
    },
    ...(done ? { read: done } : {}),
    ...(repaired ? { repair: repaired } : {}),
    problems: last.problems.length + last.moreProblems,
    named: last.problems
      .slice(0, MOST_NAMED)
      .map(({ state, key, why, touches }) => ({ state, key, why, touches: touches.slice(0, MOST_TOUCHED) })),
    losses: repair ? repair.losses.map(({ text }) => text) : [],
  };
}

/** Tells every vault; one that does not take it is passed over. */
export async function writeCare(
  stores: readonly ObjectStore[],
  care: VaultCare,
  log: Log,
  signal?: AbortSignal,
): Promise<void> {
  await Promise.all(
    stores.map(async (store) => {
      try {
        await store.overwrite(layout.vaultCare(care.vault), encodeRecord(care), { signal });
      } catch (error) {
        signal?.throwIfAborted();
        log.debug({ vault: store.name, reason: messageOf(error) }, 'the vault was not told what the check has found');
      }
    }),
  );
}

/** The newest word that any of the vaults has about this one; undefined if there is none. A vault that does not answer has no say. */
export async function readCare(
  stores: readonly ObjectStore[],
  vault: string,
  signal?: AbortSignal,
): Promise<VaultCare | undefined> {
  const found = await Promise.all(
    stores.map(async (store) => {
      const key = layout.vaultCare(vault);
      try {
        const bytes = await store.read(key, undefined, { signal });
        const care = careSchema.safeParse(
          decodeRecord(bytes, 'the report of the last check', `${store.location}/${key}`),
        );
        return care.success && care.data.vault === vault ? care.data : undefined;
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof DrError) return undefined;
        throw error;
      }
    }),
  );
  return found
    .filter((care) => care !== undefined)
    .sort((a, b) => (a.check.finishedAt < b.check.finishedAt ? -1 : 1))
    .at(-1);
}
