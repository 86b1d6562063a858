import { messageOf } from '../../base/errors.ts';
import { deleteFromVault } from './collect-apply.ts';
import { GRACE_MS, manifestRemoval, type Removal, removalOf } from './collect-check.ts';
import { findDead } from './collect-dead.ts';
import { lookAround, type RetainedBackup, type RetentionOptions, type VaultState } from './collect-look.ts';

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
  const vaults: VaultRetention[] = [];
  for (const state of world.vaults) {
    const notes = [...world.notes];
    const { store, blocked, needs } = state;
    if (!state.survey) {
      vaults.push(untouched(state, world.held, notes));
      continue;
    }
    try {
      // With a hold or an unreadable manifest nothing goes, hence nothing is looked for either.
      const silent = world.held !== undefined || blocked !== undefined;
      const check = { ...needs, store, stores, reports: world.reports, nowMs: clock.now(), graceMs, signal };
      const dead = silent ? [] : await findDead(check, notes);
      const expired = blocked === undefined ? [...needs.expired.values()].map(manifestRemoval) : [];
      vaults.push({ ...summary(state, [...expired, ...dead.map(removalOf)]), notes, blocked: world.held ?? blocked });
    } catch (error) {
      if (signal?.aborted) throw error;
      vaults.push({ ...summary(state, []), notes, blocked: messageOf(error), error });
    }
  }
  return { applied: false, held: world.held, vaults };
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

/** One vault as it was found, with the decision on each backup. */
interface VaultState {
  readonly store: ObjectStore;
  readonly survey: VaultSurvey | undefined;
  readonly blocked: string | undefined;
  readonly error: unknown;
  readonly backups: readonly RetainedBackup[];
  readonly check: Needs;
}

async function lookAround(
  options: RetentionOptions,
): Promise<{ held: string | undefined; vaults: VaultState[]; notes: string[] }> {
  const { stores, policies, clock, signal } = options;
  const held = whyHeld(await readHolds(stores, signal));
  const surveys = new Map<ObjectStore, VaultSurvey | { error: unknown }>();
  for (const store of stores) {
    const others = [...surveys.values()].filter((survey) => 'backups' in survey);
    surveys.set(
      store,
      await surveyVault(store, signal, undefined, others).catch((error: unknown) => {
        if (signal?.aborted) throw error;
        return { error };
      }),
    );
  }
  const whole = [...surveys.values()].filter((survey) => 'backups' in survey);
  // What one vault alone has may be what another lacks: with one unknown, what is needed is unknown.
  const missing = [...surveys].find(([, survey]) => 'error' in survey);
  const unknown =
    missing && 'error' in missing[1]
      ? `vault ${missing[0].name} could not be read: ${messageOf(missing[1].error)}`
      : undefined;
  const notes: string[] = [];
  const verified = await verifications(whole, notes, signal);
  const nowMs = clock.now();
  const decided = new Map<VaultSurvey, ReadonlyMap<string, RetainedBackup>>();
  for (const survey of whole) decided.set(survey, decide(survey, policies, verified, nowMs, held !== undefined));
  const kept = unionOf(
    ...whole.map((survey) =>
      everyBackup(survey).filter(({ resource, id }) => decided.get(survey)?.get(`${resource}/${id}`)?.keep === true),
    ),
  );
  const databases = [...policies.values()].filter(({ kind }) => kind === 'database');
  const walRetentionMs =
    databases.length === 0 ? undefined : Math.max(...databases.map(({ retentionMs }) => retentionMs));
  const vaults = [...surveys].map(([store, survey]): VaultState => {
    if (!('backups' in survey)) {
      const check = { needed: [], expired: new Map<string, SurveyedBackup>(), walRetentionMs };
      const blocked = messageOf(survey.error);
      return { store, survey: undefined, blocked, error: survey.error, backups: [], check };
    }
    const backups = [...(decided.get(survey)?.values() ?? [])];
    const going = new Set(backups.filter(({ keep }) => !keep).map(({ resource, id }) => `${resource}/${id}`));
    const gone = new Map(
      everyBackup(survey).flatMap((backup) => {
        const name = `${backup.resource}/${backup.id}`;
        return going.has(name) ? [[name, backup] as const] : [];
      }),
    );
    const [damaged] = survey.unreadable;
    return {
      store,
      survey,
      blocked: damaged && `nothing is deleted while ${damaged.key} cannot be read: ${messageOf(damaged.error)}`,
      error: damaged?.error,
      backups,
      check: {
        needed: kept.filter(({ resource, id }) => !gone.has(`${resource}/${id}`)),
        expired: gone,
        walRetentionMs,
      },
    };
  });
  return { held: held ?? unknown, vaults, notes };
}

/** The newest verification of every backup, by `resource/id`. */
async function verifications(
  surveys: readonly VaultSurvey[],
  notes: string[],
  signal: AbortSignal | undefined,
): Promise<ReadonlyMap<string, Verification>> {
  const stores = surveys.map(({ store }) => store);
  const found = new Map<string, Verification>();
  for (const resource of new Set(surveys.flatMap(({ backups }) => [...backups.keys()]))) {
    const { verifications, damaged } = await newestVerifications(stores, resource, VERIFICATIONS, signal);
    for (const verification of verifications.reverse()) found.set(`${resource}/${verification.backupId}`, verification);
    for (const key of damaged) notes.push(`${key} is damaged in every vault that has it: it counts for nothing`);
  }
  return found;
}

function decide(
  survey: VaultSurvey,
  policies: ReadonlyMap<string, RetentionPolicy>,
  verified: ReadonlyMap<string, Verification>,
  nowMs: number,
  held: boolean,
): ReadonlyMap<string, RetainedBackup> {
  const decided = new Map<string, RetainedBackup>();
  const resources = new Set([...survey.backups.keys(), ...survey.unreadable.map(({ resource }) => resource)]);
  for (const resource of resources) {
    const known = survey.backups.get(resource) ?? new Map<string, SurveyedBackup>();
    const facts: BackupFacts[] = [...known.values()].map((backup) => {
      const verification = verified.get(`${resource}/${backup.id}`);
      return {
        id: backup.id,
        readable: true,
        recoveryPointMs: backup.recoveryPointMs,
        finishedAtMs: backup.finishedAtMs,
        verifiedAtMs: verification?.ok === true ? Date.parse(verification.finishedAt) : undefined,
        failedVerification: verification?.ok === false,
      };
    });
    for (const { resource: of, id } of survey.unreadable) {
      if (of === resource) facts.push({ id, readable: false, recoveryPointMs: 0, finishedAtMs: 0 });
    }
    const policy = policies.get(resource);
    const decisions = policy
      ? decideRetention(policy, facts, nowMs, held)
      : facts.map(({ id }) => ({ id, keep: true, rule: 'no-policy' as const }));
    for (const { id, keep, rule } of decisions) {
      const backup = known.get(id);
      const { recoveryPointMs = 0, storedBytes = 0 } = backup ?? {};
      decided.set(`${resource}/${id}`, { resource, id, keep, rule, recoveryPointMs, storedBytes });
    }
    if (policy && known.size > 0 && ![...known.keys()].some((id) => decided.get(`${resource}/${id}`)?.keep)) {
      throw new DrError('internal', `retention would delete every backup of ${resource}`, {
        where: survey.store.location,
      });
    }
  }
  return decided;
}

function manifestRemovals(state: VaultState): Removal[] {
  return state.blocked === undefined ? [...state.check.expired.values()].map(manifestRemoval) : [];
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
