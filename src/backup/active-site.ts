import { z } from 'zod';
import { DrError, isAbort, messageOf } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { layout } from '../vault/layout.ts';
import { decodeRecord, encodeRecord } from '../vault/record.ts';
import type { ObjectStore } from '../vault/store.ts';

const activeSiteSchema = z.object({
  format: z.literal(1),
  generation: z.int().positive(),
  site: z.string(),
  /** ISO 8601. */
  since: z.string(),
  /** Who or what decided: a run, `first enrolment`. */
  by: z.string(),
  runId: z.string().optional(),
});

/** Says which site is active. Records are numbered and never change; the highest generation over all vaults counts. */
export type ActiveSite = z.infer<typeof activeSiteSchema>;

export interface ActiveSiteView {
  /** Undefined while no vault that answered has a record. */
  readonly active: ActiveSite | undefined;
  readonly unanswered: ReadonlyArray<{ readonly vault: string; readonly reason: string }>;
}

/**
 * Asks all vaults. One that does not answer, refuses these credentials or cannot be used by this dr is left out: what it says is not known, and
 * the others go on. Throws when none answers, `conflict` when two vaults name different sites for one generation, and `corrupt` or `refused` for
 * a record that cannot be understood: it may name another site.
 *
 * With `known`, a record that was read before, a vault is only asked for the generation after it, which is cheaper than a listing and found as
 * surely, unless that vault was away when it was written and has a later one only: who asks again and again lists now and then.
 */
export async function readActiveSite(
  stores: readonly ObjectStore[],
  signal?: AbortSignal,
  known?: ActiveSite,
): Promise<ActiveSiteView> {
  const unanswered: Array<{ vault: string; reason: string }> = [];
  let active = known;
  await Promise.all(
    stores.map(async (store) => {
      let newest: Awaited<ReturnType<typeof newestIn>>;
      try {
        if (known && !(await store.stat(layout.activeSite(known.generation + 1), { signal }))) return;
        newest = await newestIn(store, signal);
      } catch (error) {
        if (!(error instanceof DrError) || isAbort(error) || error.kind === 'corrupt') throw error;
        unanswered.push({ vault: store.name, reason: messageOf(error) });
        return;
      }
      const found = newest && parse(newest.bytes, newest.where);
      if (found && active && found.generation === active.generation && found.site !== active.site) {
        throw new DrError(
          'conflict',
          `the vaults disagree: generation ${found.generation} names both ${found.site} and ${active.site}`,
          {
            where: `${store.location}/${layout.activeSite(found.generation)}`,
            next: 'Two failovers ran apart from each other: decide which site is right, and stop dr and the database at the other one.',
          },
        );
      }
      if (found && found.generation > (active?.generation ?? 0)) active = found;
    }),
  );
  if (unanswered.length === stores.length) {
    throw new DrError('unreachable', 'no vault answers, so nobody knows which site is active', {
      where: unanswered.map(({ vault, reason }) => `${vault}: ${reason}`).join('; '),
      next: 'Run `dr doctor` to see what each vault refuses.',
    });
  }
  return { active, unanswered };
}

/**
 * Records that `site` is active, one generation above what the vaults say, in every vault that answers. Of two that do this at once
 * one fails with `conflict`. Doing it again for the same run is a success.
 */
export async function recordActiveSite(
  stores: readonly ObjectStore[],
  next: Omit<ActiveSite, 'format' | 'generation'>,
  log: Log,
  signal?: AbortSignal,
): Promise<ActiveSite> {
  const { active, unanswered } = await readActiveSite(stores, signal);
  if (active && active.site === next.site && active.runId === next.runId) {
    await spread(stores, active, unanswered, log, signal);
    return active;
  }
  const record: ActiveSite = { format: 1, generation: (active?.generation ?? 0) + 1, ...next };
  await spread(stores, record, unanswered, log, signal);
  return record;
}

async function spread(
  stores: readonly ObjectStore[],
  record: ActiveSite,
  unanswered: ActiveSiteView['unanswered'],
  log: Log,
  signal: AbortSignal | undefined,
): Promise<void> {
  const silent = new Set(unanswered.map(({ vault }) => vault));
  const body = encodeRecord(record);
  const key = layout.activeSite(record.generation);
  const notYet = 'this vault does not know yet which site is active';
  let written = 0;
  let failure: unknown;
  for (const store of stores) {
    if (silent.has(store.name)) {
      log.warn({ vault: store.name, site: record.site }, notYet);
      continue;
    }
    let outcome: 'created' | 'exists';
    try {
      outcome = await store.create(key, body, { signal });
    } catch (error) {
      if (!(error instanceof DrError) || isAbort(error)) throw error;
      // A disaster may take the right to write, too. The vault of the site that comes up is enough.
      log.warn({ vault: store.name, site: record.site, error }, notYet);
      failure ??= error;
      continue;
    }
    written++;
    if (outcome === 'created') continue;
    const there = parse(await store.read(key, undefined, { signal }), `${store.location}/${key}`);
    if (there.site === record.site && there.runId === record.runId) continue;
    throw new DrError('conflict', `somebody else has just made ${there.site} the active site (${there.by})`, {
      where: `${store.location}/${key}`,
      next: 'Look at the other run with `dr runs`; only one failover may go on.',
    });
  }
  if (written === 0) throw failure;
}

async function newestIn(
  store: ObjectStore,
  signal: AbortSignal | undefined,
): Promise<{ readonly bytes: Buffer; readonly where: string } | undefined> {
  let newest: string | undefined;
  for await (const key of store.names(layout.activeSites, { signal })) newest = key;
  if (newest === undefined) return undefined;
  return { bytes: await store.read(newest, undefined, { signal }), where: `${store.location}/${newest}` };
}

function parse(bytes: Uint8Array, where: string): ActiveSite {
  const record = decodeRecord(bytes, 'the record of the active site', where);
  const parsed = activeSiteSchema.safeParse(record);
  if (parsed.success) return parsed.data;
  if (typeof record['format'] === 'number' && record['format'] > 1) {
    throw new DrError('refused', `the record of the active site has format ${record['format']}; this dr knows 1`, {
      where,
      next: 'Install the newer dr here too: which site is active is not known without it.',
    });
  }
  throw new DrError('corrupt', `the record of the active site is not one: ${parsed.error.issues[0]?.message}`, {
    where,
    next: 'Look with `dr vault check` for what else is damaged, and mend it from another vault.',
  });
}
