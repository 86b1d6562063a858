import { messageOf } from '../../base/errors.ts';
import { deleteFromVault } from './collect-apply.ts';
import { GRACE_MS, manifestRemoval, type Removal, removalOf } from './collect-check.ts';
import { findDead } from './collect-dead.ts';
import { lookAround, type RetainedBackup, type RetentionOptions, type VaultState } from './collect-look.ts';
import { keepLocks } from './keep-locks.ts';

export type { RetainedBackup, RetentionOptions } from './collect-look.ts';

/** What retention does, or would do, in one vault. */
export interface VaultRetention {
  readonly vault: string;
  readonly backups: readonly RetainedBackup[];
  readonly removals: readonly Removal[];
  /** Bytes of `removals`. */
  readonly freedBytes: number;
  /** Why nothing (more) was or would be deleted here. */
  readonly blocked?: string | undefined;
  readonly error?: unknown;
  /** What was left alone, and why. */
  readonly notes: readonly string[];
}

export interface RetentionReport {
  /** False: this is what `--apply` would do. */
  readonly applied: boolean;
  /** A hold, or a vault that does not answer: nothing is deleted in any vault. */
  readonly held: string | undefined;
  readonly vaults: readonly VaultRetention[];
}

/** What would go from each vault now, and why. Changes nothing. */
export async function planRetention(options: RetentionOptions): Promise<RetentionReport> {
  const world = await lookAround(options);
  const { stores, graceMs = GRACE_MS, clock, signal } = options;
  const plan = async (state: VaultState): Promise<VaultRetention> => {
    const notes = [...world.notes];
    const { store, blocked, needs } = state;
    if (!state.survey) return untouched(state, world.held, notes);
    try {
      // With a hold or an unreadable manifest nothing goes, hence nothing is looked for either.
      const silent = world.held !== undefined || blocked !== undefined;
      const check = { ...needs, store, stores, reports: world.reports, nowMs: clock.now(), graceMs, signal };
      const dead = silent ? [] : await findDead(check, notes);
      const expired = blocked === undefined ? [...needs.expired.values()].map(manifestRemoval) : [];
      const removals = [...expired, ...dead.map((group) => removalOf(group))];
      return { ...summary(state, removals), notes, blocked: world.held ?? blocked };
    } catch (error) {
      if (signal?.aborted) throw error;
      return { ...summary(state, []), notes, blocked: messageOf(error), error };
    }
  };
  return { applied: false, held: world.held, vaults: await Promise.all(world.vaults.map(plan)) };
}

/**
 * Deletes what the policies let go, vault by vault, each under its lease `retention`. Manifests go first; what they needed goes
 * when a second look at the vault shows that nothing else needs it. A vault that raises any doubt keeps everything else it has, with the
 * reason in `blocked` and `error`; the others are still done. Throws only when interrupted.
 */
export async function applyRetention(options: RetentionOptions): Promise<RetentionReport> {
  const world = await lookAround(options);
  const vaults: VaultRetention[] = [];
  for (const state of world.vaults) {
    const notes = [...world.notes];
    await keepLocks(state, options, notes);
    if (world.held !== undefined || !state.survey || state.blocked !== undefined) {
      vaults.push(untouched(state, world.held, notes));
      continue;
    }
    const removals: Removal[] = [];
    try {
      await deleteFromVault(options, world, state.store, { removals, notes });
      vaults.push({ ...summary(state, removals), notes });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      options.log.error({ vault: state.store.name, error }, 'retention stopped in this vault');
      vaults.push({ ...summary(state, removals), notes, blocked: messageOf(error), error });
    }
  }
  return { applied: true, held: world.held, vaults };
}

function summary(
  state: VaultState,
  removals: readonly Removal[],
): Pick<VaultRetention, 'vault' | 'backups' | 'removals' | 'freedBytes'> {
  const freedBytes = removals.reduce((sum, { bytes }) => sum + bytes, 0);
  return { vault: state.store.name, backups: state.backups, removals, freedBytes };
}

function untouched(state: VaultState, held: string | undefined, notes: readonly string[]): VaultRetention {
  return { ...summary(state, []), notes, blocked: state.blocked ?? held, error: state.error };
}
