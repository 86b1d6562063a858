import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import { markerSchema } from './enrol.ts';
import { decodeRecord } from './record.ts';
import type { CallOptions, ObjectStore } from './store.ts';

const FOLDER = 'records/vaults/';

const rosterSchema = z.object({
  format: z.literal(1),
  generation: z.int().positive(),
  name: z.string(),
  location: z.string(),
  /** Id in the vault's marker. */
  id: z.string(),
  /** What else its marker said when it was enrolled, so that a lost one can be written again as it was; absent in older records. */
  enrolled: markerSchema.omit({ id: true }).optional(),
});

/** What the vaults know of each other: that the place behind a name was enrolled once, and which one it was. */
export type RosterEntry = z.infer<typeof rosterSchema>;

/** The newest entry of each name. */
export type Roster = ReadonlyMap<string, RosterEntry>;

/** What one vault knows. Throws `corrupt`, `refused` (a newer format) and what the store throws. */
export async function rosterIn(store: ObjectStore, options: CallOptions): Promise<Roster> {
  const newest = new Map<string, string>();
  for await (const key of store.names(FOLDER, options)) {
    const [name = '', record] = key.slice(FOLDER.length).split('/');
    if (record !== undefined) newest.set(name, key);
  }
  const roster = new Map<string, RosterEntry>();
  for (const [name, key] of newest) {
    roster.set(name, parse(await store.read(key, undefined, options), `${store.location}/${key}`));
  }
  return roster;
}

/** What several vaults know together: of each name the entry of the highest generation. */
export function mergeRosters(rosters: Iterable<Roster>): Roster {
  const merged = new Map<string, RosterEntry>();
  for (const roster of rosters) {
    for (const [name, entry] of roster) {
      if (entry.generation > (merged.get(name)?.generation ?? 0)) merged.set(name, entry);
    }
  }
  return merged;
}

/** A vault that answers, its id, and what it knows. */
export interface KnowingVault {
  readonly store: ObjectStore;
  readonly id: string;
  readonly roster: Roster;
}

/** A vault that belongs together with others than `kin`, which it is configured with. */
export interface Stranger {
  readonly vault: KnowingVault;
  readonly kin: KnowingVault;
  /** True when neither of them knows the other: which of the two is the wrong one, nobody but a person can say. */
  readonly isMutual: boolean;
}

/**
 * Vaults of another system: another vault had its name, as a vault beside it remembers, and it remembers others than that one. A backup
 * there would mix two systems, and retention would delete by the wrong rules. What was never beside another vault is no stranger.
 */
export function findStrangers(vaults: readonly KnowingVault[]): Stranger[] {
  const strangers: Stranger[] = [];
  for (const vault of vaults) {
    const kin = vaults.find((other) => other !== vault && isStrange(vault, other));
    if (kin) strangers.push({ vault, kin, isMutual: isStrange(kin, vault) });
  }
  return strangers;
}

function isStrange(vault: KnowingVault, beside: KnowingVault): boolean {
  const expected = beside.roster.get(vault.store.name);
  if (expected === undefined || expected.id === vault.id) return false;
  return !knows(beside, vault) && !knows(vault, beside) && [...vault.roster.values()].some(({ id }) => id !== vault.id);
}

function knows({ roster }: KnowingVault, other: KnowingVault): boolean {
  return [...roster.values()].some(({ id }) => id === other.id);
}

/** Why nothing is written to a stranger. */
export function strangerError({ vault, kin, isMutual }: Stranger): DrError {
  const others = [...vault.roster.values()].filter(({ id }) => id !== vault.id).map(({ location }) => location);
  const belongs = `it belongs together with ${others.join(' and ')}`;
  if (isMutual) {
    const theirs = [...kin.roster.values()].filter(({ id }) => id !== kin.id).map(({ location }) => location);
    const names = `${kin.store.name} and ${vault.store.name}`;
    const message = `the vaults ${names} are of two systems: ${kin.store.location} belongs together with ${theirs.join(' and ')}, ${vault.store.location} with ${others.join(' and ')}`;
    return new DrError('refused', message, {
      where: `${kin.store.location}; ${vault.store.location}`,
      next: 'Correct the url of the one that is not yours. Nothing was written to either.',
    });
  }
  return new DrError('refused', `vault ${vault.store.name} is the vault of another system: ${belongs}`, {
    where: vault.store.location,
    next: `Correct the url of vault ${vault.store.name}; nothing was written there. If it is to be yours from now on: \`dr vault enrol ${vault.store.name}\`.`,
  });
}

function parse(bytes: Uint8Array, where: string): RosterEntry {
  const record = decodeRecord(bytes, 'the record of the vaults', where);
  const parsed = rosterSchema.safeParse(record);
  if (parsed.success) return parsed.data;
  if (typeof record['format'] === 'number' && record['format'] > 1) {
    throw new DrError('refused', `the record of the vaults has format ${record['format']}; this dr knows 1`, {
      where,
      next: 'Install the newer dr here too.',
    });
  }
  throw new DrError('corrupt', `the record of the vaults is not one: ${parsed.error.issues[0]?.message}`, {
    where,
    next: 'Look with `dr vault check` for what else is damaged.',
  });
}
