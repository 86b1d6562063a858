import type { Clock } from '../../base/clock.ts';
import { forEachLimit } from '../../base/concurrency.ts';
import { DrError, messageOf } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { layout } from '../../vault/layout.ts';
import type { ObjectStore } from '../../vault/store.ts';
import { listVerificationIds, readVerification, type Verification } from '../verified.ts';
import type { Needs } from './collect-check.ts';
import {
  doubt,
  everyBackup,
  type SeenManifests,
  type SurveyedBackup,
  surveyVault,
  unionOf,
  type VaultSurvey,
} from './collect-survey.ts';
import { readHolds, whyHeld } from './holds.ts';
import {
  BASELINE_MS,
  type BackupFacts,
  decideRetention,
  type RetentionPolicy,
  type RetentionRule,
} from './retention.ts';

/** Verification reports looked at for each resource: more than a year of daily ones. */
const VERIFICATIONS = 500;
const REPORTS_IN_FLIGHT = 16;

export interface RetentionOptions {
  /** Every configured vault, reachable or not. */
  readonly stores: readonly ObjectStore[];
  /** By resource. Backups of a resource without policy (not in the configuration any more) stay. */
  readonly policies: ReadonlyMap<string, RetentionPolicy>;
  readonly clock: Clock;
  readonly log: Log;
  /** How old an unreferenced object must be, milliseconds; default 48 hours. */
  readonly graceMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/** One backup in one vault and what becomes of it. */
export interface RetainedBackup {
  readonly resource: string;
  readonly id: string;
  readonly keep: boolean;
  /** All that keep it, strongest first; `expired` for one that goes. */
  readonly rules: ReadonlyArray<RetentionRule | 'no-policy'>;
  /** Milliseconds since 1970; 0 for one that cannot be read. */
  readonly recoveryPointMs: number;
  readonly storedBytes: number;
}

/** One vault as it was found, with the decision on each backup. */
export interface VaultState {
  readonly store: ObjectStore;
  readonly survey: VaultSurvey | undefined;
  /** Why nothing may be deleted here. */
  readonly blocked: string | undefined;
  readonly error: unknown;
  readonly backups: readonly RetainedBackup[];
  readonly needs: Needs;
}

/** All vaults at one time, and what the policies say. */
export interface Look {
  /** Why nothing may be deleted anywhere. */
  readonly held: string | undefined;
  readonly vaults: readonly VaultState[];
  readonly notes: readonly string[];
  /** By `resource/report`: reports never change. */
  readonly reports: ReadonlyMap<string, Verification>;
}

/** Looks at holds, manifests and verifications of every vault and decides on every backup. `known` spares reading again what never changes. */
export async function lookAround(options: RetentionOptions, known?: Look): Promise<Look> {
  const { stores, policies, clock, signal } = options;
  const held = whyHeld(await readHolds(stores, signal));
  const surveys = new Map<ObjectStore, VaultSurvey | { error: unknown }>();
  const arrivals = new Map<ObjectStore, Arrivals>();
  const seen: SeenManifests = new Map();
  const look = async (store: ObjectStore): Promise<VaultSurvey | { error: unknown }> => {
    const before = known?.vaults.find((state) => state.store === store)?.survey;
    try {
      const survey = await surveyVault(store, signal, before, seen);
      arrivals.set(store, await arrivalsOf(survey, clock.now(), signal));
      return survey;
    } catch (error) {
      if (signal?.aborted) throw error;
      return { error };
    }
  };
  // All at once: they share what they have taken apart.
  const looks = await Promise.all(stores.map(async (store) => [store, await look(store)] as const));
  for (const [store, survey] of looks) surveys.set(store, survey);
  const whole = [...surveys.values()].filter((survey) => 'backups' in survey);
  const notes: string[] = [];
  const reports = await readReports(whole, known?.reports, notes, signal);
  const verified = newestOfBackups(reports);
  const nowMs = clock.now();
  const decided = new Map<VaultSurvey, Decisions>();
  for (const survey of whole) {
    const arrived = arrivals.get(survey.store) ?? new Map();
    decided.set(survey, decide(survey, { policies, verified, arrived, nowMs, held: held !== undefined }));
  }
  const vaults = [...surveys].map(([store, survey]): VaultState => {
    if (!('backups' in survey)) {
      const needs = { needed: [], expired: new Map(), alone: new Set<string>(), walRetentionMs: undefined };
      return { store, survey: undefined, blocked: messageOf(survey.error), error: survey.error, backups: [], needs };
    }
    const [damaged] = survey.unreadable;
    return {
      store,
      survey,
      blocked: damaged && `nothing is deleted while ${damaged.key} cannot be read: ${messageOf(damaged.error)}`,
      error: damaged?.error,
      backups: [...(decided.get(survey)?.values() ?? [])].map(({ backup }) => backup),
      needs: needsOf(survey, whole, decided, policies),
    };
  });
  return { held: held ?? unknownVault(vaults), vaults, notes, reports };
}

/** What one vault alone has may be what another lacks: with one unknown, what is needed is unknown. */
function unknownVault(vaults: readonly VaultState[]): string | undefined {
  const missing = vaults.find(({ survey }) => survey === undefined);
  return missing && `vault ${missing.store.name} could not be read: ${missing.blocked}`;
}

interface Decided {
  readonly backup: RetainedBackup;
  readonly alone: boolean;
}

/** By `resource/id`. */
type Decisions = ReadonlyMap<string, Decided>;

/** Throws when a manifest is not there any more that an earlier look has not let go: manifests only ever go by retention. */
export function requireNoneLost(store: ObjectStore, before: VaultState, now: VaultSurvey): void {
  for (const { resource, id } of before.survey ? everyBackup(before.survey) : []) {
    if (before.needs.expired.has(`${resource}/${id}`) || now.backups.get(resource)?.has(id)) continue;
    throw doubt(store, layout.manifest(resource, id), 'a manifest that was there is not listed any more');
  }
}

/** What one vault has to keep: for its own backups, and for those of the others that repair will bring here. */
function needsOf(
  survey: VaultSurvey,
  all: readonly VaultSurvey[],
  decided: ReadonlyMap<VaultSurvey, Decisions>,
  policies: ReadonlyMap<string, RetentionPolicy>,
): Needs {
  const own = decided.get(survey);
  const expired = new Map<string, SurveyedBackup>();
  for (const backup of everyBackup(survey)) {
    const name = nameOf(backup);
    if (own?.get(name)?.backup.keep === false) expired.set(name, backup);
  }
  const kept = all.map((each) => everyBackup(each).filter((b) => decided.get(each)?.get(nameOf(b))?.backup.keep));
  // What another vault keeps is needed here too although it has expired here: a new backup may be built on it there, and be copied here.
  const needed = unionOf(...kept);
  const alone = new Set<string>();
  for (const backup of needed) {
    const name = nameOf(backup);
    // The others are asked only about what this vault does not keep.
    const opinions = own?.get(name)?.backup.keep ? [own] : all.flatMap((each) => decided.get(each) ?? []);
    if (opinions.every((of) => of.get(name)?.alone !== false)) alone.add(name);
  }
  const databases = [...policies.values()].filter(({ kind }) => kind === 'database');
  const walRetentionMs =
    databases.length === 0 ? undefined : Math.max(...databases.map(({ retentionMs }) => retentionMs));
  return { needed, expired, alone, walRetentionMs };
}

function nameOf({ resource, id }: { readonly resource: string; readonly id: string }): string {
  return `${resource}/${id}`;
}

/** The newest verification reports of each resource, by `resource/report`; one that is damaged in one vault is read from another. */
async function readReports(
  surveys: readonly VaultSurvey[],
  known: ReadonlyMap<string, Verification> | undefined,
  notes: string[],
  signal: AbortSignal | undefined,
): Promise<ReadonlyMap<string, Verification>> {
  const found = new Map<string, Verification>();
  for (const resource of new Set(surveys.flatMap(({ backups }) => [...backups.keys()]))) {
    const holders = new Map<string, ObjectStore[]>();
    for (const { store } of surveys) {
      for (const id of await listVerificationIds(store, resource, signal)) {
        holders.set(id, [...(holders.get(id) ?? []), store]);
      }
    }
    const ids = [...holders.keys()].sort().slice(-VERIFICATIONS);
    await forEachLimit(ids, REPORTS_IN_FLIGHT, async (id) => {
      const name = `${resource}/${id}`;
      const report = known?.get(name) ?? (await readReport(holders.get(id) ?? [], resource, id, signal));
      if (report) found.set(name, report);
      else
        notes.push(`${layout.verification(resource, id)} is damaged in every vault that has it: it counts for nothing`);
    });
  }
  return found;
}

async function readReport(
  stores: readonly ObjectStore[],
  resource: string,
  id: string,
  signal: AbortSignal | undefined,
): Promise<Verification | undefined> {
  for (const store of stores) {
    try {
      return await readVerification(store, resource, id, signal);
    } catch (error) {
      if (!(error instanceof DrError && ['corrupt', 'refused', 'not-found'].includes(error.kind))) throw error;
    }
  }
  return undefined;
}

/** The newest report of every backup, by `resource/backup`. */
function newestOfBackups(reports: ReadonlyMap<string, Verification>): ReadonlyMap<string, Verification> {
  const newest = new Map<string, Verification>();
  for (const report of reports.values()) {
    const name = `${report.resource}/${report.backupId}`;
    const other = newest.get(name);
    if (!other || other.id < report.id) newest.set(name, report);
  }
  return newest;
}

/** By `resource/id`: when the vault got it, milliseconds since 1970. */
type Arrivals = ReadonlyMap<string, number>;

/** When the newest backups of each resource came to this vault, back to one that has been there for as long as a backup may run. */
async function arrivalsOf(survey: VaultSurvey, nowMs: number, signal: AbortSignal | undefined): Promise<Arrivals> {
  const arrivals = new Map<string, number>();
  for (const [resource, backups] of survey.backups) {
    for (const id of [...backups.keys()].sort().reverse()) {
      const info = await survey.store.stat(layout.manifest(resource, id), { signal });
      if (!info) continue;
      arrivals.set(`${resource}/${id}`, info.modifiedMs);
      if (info.modifiedMs <= nowMs - BASELINE_MS) break;
    }
  }
  return arrivals;
}

function decide(
  survey: VaultSurvey,
  by: {
    readonly policies: ReadonlyMap<string, RetentionPolicy>;
    readonly verified: ReadonlyMap<string, Verification>;
    readonly arrived: Arrivals;
    readonly nowMs: number;
    readonly held: boolean;
  },
): Decisions {
  const { policies, verified, arrived, nowMs, held } = by;
  const decided = new Map<string, Decided>();
  const resources = new Set([...survey.backups.keys(), ...survey.unreadable.map(({ resource }) => resource)]);
  for (const resource of resources) {
    const known = survey.backups.get(resource) ?? new Map<string, SurveyedBackup>();
    const facts: BackupFacts[] = [...known.values()].map((backup) => {
      const verification = verified.get(nameOf(backup));
      return {
        id: backup.id,
        readable: true,
        recoveryPointMs: backup.recoveryPointMs,
        finishedAtMs: backup.finishedAtMs,
        arrivedMs: arrived.get(nameOf(backup)),
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
      : facts.map(({ id }) => ({ id, keep: true, rules: ['no-policy' as const], alone: false }));
    for (const { id, keep, rules, alone } of decisions) {
      const { recoveryPointMs = 0, storedBytes = 0 } = known.get(id) ?? {};
      decided.set(`${resource}/${id}`, {
        backup: { resource, id, keep, rules, recoveryPointMs, storedBytes },
        alone,
      });
    }
    if (policy && known.size > 0 && !decisions.some(({ id, keep }) => keep && known.has(id))) {
      throw new DrError('internal', `retention would delete every backup of ${resource}`, {
        where: survey.store.location,
      });
    }
  }
  return decided;
}
