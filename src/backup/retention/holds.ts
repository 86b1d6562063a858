import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { DrError, messageOf } from '../../base/errors.ts';
import { layout, timedId } from '../../vault/layout.ts';
import { decodeRecord, encodeRecord } from '../../vault/record.ts';
import type { ObjectStore } from '../../vault/store.ts';

const holdSchema = z.object({
  format: z.literal(1),
  id: z.string(),
  reason: z.string(),
  /** Who set it: `user@host`, or a daemon. */
  by: z.string(),
  at: z.iso.datetime(),
  /** The run that set it. */
  runId: z.string().optional(),
});

/** A declared incident: while it stands, nothing is deleted in any vault. */
export type Hold = z.infer<typeof holdSchema>;

export interface HoldInVaults extends Hold {
  /** Vaults that have its record. */
  readonly vaults: readonly string[];
}

/** What all vaults together say about holds. */
export interface HoldState {
  /** Holds that stand, oldest first. */
  readonly active: readonly HoldInVaults[];
  /** Vaults that could not be asked: a hold may stand there. */
  readonly unknown: ReadonlyArray<{ readonly vault: string; readonly reason: string; readonly error: unknown }>;
}

/** A record written to several vaults: who has it and who could not be reached. */
export interface HoldWritten {
  readonly ids: readonly string[];
  readonly vaults: readonly string[];
  readonly lost: ReadonlyArray<{ readonly vault: string; readonly reason: string }>;
}

/**
 * Asks every vault. A hold in any vault stands until any vault has the record that clears it: an id is never used twice, so the
 * clearing is the later word. A hold whose record is damaged stands; a clearing that is damaged clears nothing.
 */
export async function readHolds(stores: readonly ObjectStore[], signal?: AbortSignal): Promise<HoldState> {
  const found = new Map<string, { hold: Hold; vaults: string[] }>();
  const cleared = new Set<string>();
  const unknown: Array<{ vault: string; reason: string; error: unknown }> = [];
  await Promise.all(
    stores.map(async (store) => {
      try {
        for await (const { key } of store.list(layout.holds, { signal })) {
          const id = key.slice(layout.holds.length).replace(/(\.cleared)?\.json$/, '');
          if (key === layout.holdCleared(id)) {
            if (await clears(store, key, id, signal)) cleared.add(id);
            continue;
          }
          const hold = await readHold(store, key, id, signal);
          const known = found.get(id);
          if (known) known.vaults.push(store.name);
          else found.set(id, { hold, vaults: [store.name] });
        }
      } catch (error) {
        if (signal?.aborted) throw error;
        unknown.push({ vault: store.name, reason: messageOf(error), error });
      }
    }),
  );
  const active = [...found.values()]
    .filter(({ hold }) => !cleared.has(hold.id))
    .map(({ hold, vaults }) => ({ ...hold, vaults: vaults.sort() }))
    .sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
  return { active, unknown };
}

/** Why nothing may be deleted now, in one sentence; undefined when deletion is allowed. What is not known counts as a hold. */
export function whyHeld(state: HoldState): string | undefined {
  const [hold] = state.active;
  if (hold) {
    const others = state.active.length > 1 ? ` (and ${state.active.length - 1} more)` : '';
    return `hold ${hold.id} by ${hold.by}: ${hold.reason}${others}`;
  }
  const [vault] = state.unknown;
  if (vault) return `vault ${vault.vault} cannot be asked whether a hold stands there: ${vault.reason}`;
  return undefined;
}

/**
 * Sets a hold in all vaults that can be reached; a run's hold is set once however often it is asked for. Throws when no vault takes
 * it; a vault in `lost` gets it by repair, and counts as held for as long as it cannot be reached.
 */
export async function setHold(
  stores: readonly ObjectStore[],
  facts: { readonly reason: string; readonly by: string; readonly nowMs: number; readonly runId?: string | undefined },
  signal?: AbortSignal,
): Promise<HoldWritten & { readonly hold: Hold }> {
  const { reason, by, nowMs, runId } = facts;
  const hold: Hold = {
    format: 1,
    id: runId === undefined ? timedId(nowMs, randomBytes(3).toString('hex')) : `run-${runId}`,
    reason,
    by,
    at: new Date(nowMs).toISOString(),
    ...(runId === undefined ? {} : { runId }),
  };
  const written = await writeAll(stores, layout.hold(hold.id), encodeRecord(hold), 'set the hold', signal);
  return { hold, ids: [hold.id], ...written };
}

/** Clears one hold, or all that stand. Throws `not-found` for an unknown id and when no hold stands. */
export async function clearHolds(
  stores: readonly ObjectStore[],
  facts: { readonly id?: string | undefined; readonly by: string; readonly nowMs: number },
  signal?: AbortSignal,
): Promise<HoldWritten> {
  const { active, unknown } = await readHolds(stores, signal);
  const chosen = active.filter(({ id }) => facts.id === undefined || id === facts.id);
  if (chosen.length === 0) {
    const what = facts.id === undefined ? 'no hold stands' : `no hold ${facts.id} stands`;
    const silent =
      unknown.length > 0 ? ` in the vaults that answer (not: ${unknown.map((u) => u.vault).join(', ')})` : '';
    throw new DrError('not-found', `${what}${silent}`, { next: 'See `dr hold list`.' });
  }
  const vaults = new Set(stores.map(({ name }) => name));
  const lost = new Map<string, string>();
  for (const { id } of chosen) {
    const body = encodeRecord({ format: 1, id, by: facts.by, at: new Date(facts.nowMs).toISOString() });
    const written = await writeAll(stores, layout.holdCleared(id), body, `clear hold ${id}`, signal);
    for (const { vault, reason } of written.lost) {
      vaults.delete(vault);
      lost.set(vault, reason);
    }
  }
  return {
    ids: chosen.map(({ id }) => id),
    vaults: [...vaults],
    lost: [...lost].map(([vault, reason]) => ({ vault, reason })),
  };
}

async function writeAll(
  stores: readonly ObjectStore[],
  key: string,
  body: Buffer,
  doing: string,
  signal: AbortSignal | undefined,
): Promise<{ vaults: string[]; lost: Array<{ vault: string; reason: string }> }> {
  const vaults: string[] = [];
  const failures: Array<{ vault: string; reason: string; error: unknown }> = [];
  await Promise.all(
    stores.map(async (store) => {
      try {
        // Whoever was first with this id said the same.
        await store.create(key, body, { signal });
        vaults.push(store.name);
      } catch (error) {
        if (signal?.aborted) throw error;
        failures.push({ vault: store.name, reason: messageOf(error), error });
      }
    }),
  );
  if (vaults.length === 0) {
    throw new DrError('unreachable', `cannot ${doing}: no vault takes its record`, {
      where: failures.map(({ vault, reason }) => `${vault}: ${reason}`).join('; '),
      next: 'Run `dr doctor` to see what each vault refuses.',
      cause: new AggregateError(failures.map(({ error }) => error)),
    });
  }
  return { vaults: vaults.sort(), lost: failures.map(({ vault, reason }) => ({ vault, reason })) };
}

async function readHold(store: ObjectStore, key: string, id: string, signal: AbortSignal | undefined): Promise<Hold> {
  try {
    const record = decodeRecord(await store.read(key, undefined, { signal }), 'the hold', `${store.location}/${key}`);
    const hold = holdSchema.parse(record);
    if (hold.id === id) return hold;
  } catch (error) {
    if (error instanceof DrError && error.kind !== 'corrupt') throw error;
  }
  const reason = `its record in vault ${store.name} is damaged; what it said is unknown`;
  return { format: 1, id, reason, by: 'unknown', at: new Date(0).toISOString() };
}

async function clears(store: ObjectStore, key: string, id: string, signal: AbortSignal | undefined): Promise<boolean> {
  try {
    const where = `${store.location}/${key}`;
    return decodeRecord(await store.read(key, undefined, { signal }), 'the clearing of a hold', where).id === id;
  } catch (error) {
    if (error instanceof DrError && error.kind === 'corrupt') return false;
    throw error;
  }
}
