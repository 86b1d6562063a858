import { z } from 'zod';
import { forEachLimit } from '../base/concurrency.ts';
import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { layout } from '../vault/layout.ts';
import { type LostVault, Mirror } from '../vault/mirror.ts';
import { decodeRecord, encodeRecord } from '../vault/record.ts';
import type { ObjectStore } from '../vault/store.ts';
import { recentNames } from './catalog.ts';

const time = z.iso.datetime();
const count = z.number().nonnegative();

const verificationSchema = z.object({
  format: z.literal(1),
  /** Of `timedId`: listings are in order of time. */
  id: z.string(),
  resource: z.string(),
  kind: z.enum(['database', 'data', 'configuration']),
  backupId: z.string(),
  /** The vault that it was restored from. */
  vault: z.string(),
  /** The site that did it. */
  site: z.string(),
  startedAt: time,
  finishedAt: time,
  /** The moment that came back: for a database that of the last commit known to be in it. */
  recoveredTo: time,
  /** The LSN that a database was recovered to. */
  recoveredToLsn: z.string().optional(),
  /** True: everything was restored, every digest fits and every check said yes. */
  ok: z.boolean(),
  /** Why not, in one sentence. */
  failure: z.string().optional(),
  checks: z.array(z.object({ what: z.string(), ok: z.boolean(), detail: z.string(), ms: count })),
  /** Bytes restored. */
  bytes: count,
  /** Milliseconds until the data was there and, for a database, consistent: what a real recovery would take. */
  restoreMs: count,
  /** Milliseconds of `restoreMs` by phase: `restore`, `replay`, `start`. */
  phasesMs: z.record(z.string(), count).optional(),
  tool: z.string().optional(),
});

/** The report of one verification: a backup was restored to a scratch place, started and checked. */
export type Verification = z.infer<typeof verificationSchema>;

/** Keeps the report in all vaults. Throws when no vault takes it. */
export async function writeVerification(
  stores: readonly ObjectStore[],
  verification: Verification,
  log: Log,
  signal?: AbortSignal,
): Promise<readonly LostVault[]> {
  const mirror = new Mirror(stores, log);
  const key = layout.verification(verification.resource, verification.id);
  await mirror.create(key, encodeRecord(verificationSchema.parse(verification)), signal);
  return mirror.lost;
}

/** Ids of a resource's verifications in a vault, oldest first. */
export async function listVerificationIds(
  store: ObjectStore,
  resource: string,
  signal?: AbortSignal,
): Promise<string[]> {
  const prefix = layout.verifications(resource);
  const ids: string[] = [];
  for await (const key of store.names(prefix, { signal })) {
    if (key.endsWith('.json')) ids.push(key.slice(prefix.length, -'.json'.length));
  }
  return ids;
}

/** One report. Throws `corrupt`, `refused` (newer format) and what the store throws. */
export async function readVerification(
  store: ObjectStore,
  resource: string,
  id: string,
  signal?: AbortSignal,
): Promise<Verification> {
  const key = layout.verification(resource, id);
  const where = `${store.location}/${key}`;
  const record = decodeRecord(await store.read(key, undefined, { signal }), 'the verification report', where);
  if (typeof record.format === 'number' && record.format > 1) {
    throw new DrError('refused', `this verification report has format ${record.format}; this dr knows 1`, {
      where,
      next: 'Use the version of dr that wrote it, or a newer one.',
    });
  }
  const parsed = verificationSchema.safeParse(record);
  if (!parsed.success || parsed.data.id !== id || parsed.data.resource !== resource) {
    throw new DrError('corrupt', 'this is not the verification report that its name says', { where });
  }
  return parsed.data;
}

/** The newest report of a resource over several vaults, by a request or a few for each vault; undefined if there is none that can be read. */
export async function newestVerification(
  stores: readonly ObjectStore[],
  resource: string,
  nowMs: number,
  signal?: AbortSignal,
): Promise<Verification | undefined> {
  const ids = async (store: ObjectStore) => await recentNames(store, layout.verifications(resource), nowMs, signal);
  return (await readNewest(stores, resource, 1, ids, signal)).verifications[0];
}

/**
 * The newest `limit` reports of a resource over several vaults (each is in every vault that was there), newest first. One that is
 * damaged in one vault is read from another; damaged everywhere, it is left out and named in `damaged`.
 */
export async function newestVerifications(
  stores: readonly ObjectStore[],
  resource: string,
  limit: number,
  signal?: AbortSignal,
): Promise<{ readonly verifications: Verification[]; readonly damaged: string[] }> {
  const ids = async (store: ObjectStore) => await listVerificationIds(store, resource, signal);
  return await readNewest(stores, resource, limit, ids, signal);
}

async function readNewest(
  stores: readonly ObjectStore[],
  resource: string,
  limit: number,
  idsIn: (store: ObjectStore) => Promise<string[]>,
  signal: AbortSignal | undefined,
): Promise<{ readonly verifications: Verification[]; readonly damaged: string[] }> {
  const holders = new Map<string, ObjectStore[]>();
  for (const store of stores) {
    for (const id of await idsIn(store)) {
      const known = holders.get(id);
      if (known) known.push(store);
      else holders.set(id, [store]);
    }
  }
  const ids = [...holders.keys()].sort().reverse().slice(0, limit);
  const verifications: Array<Verification | undefined> = new Array(ids.length);
  const damaged: string[] = [];
  await forEachLimit(ids.entries(), 16, async ([place, id]) => {
    for (const store of holders.get(id) ?? []) {
      try {
        verifications[place] = await readVerification(store, resource, id, signal);
        return;
      } catch (error) {
        if (!(error instanceof DrError && ['corrupt', 'refused', 'not-found'].includes(error.kind))) throw error;
      }
    }
    damaged.push(layout.verification(resource, id));
  });
  return { verifications: verifications.filter((found) => found !== undefined), damaged };
}
