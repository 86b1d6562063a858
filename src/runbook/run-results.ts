import { z } from 'zod';
import { resourcesOutputs } from '../steps/assess-resources.ts';
import { witnessesOutputs } from '../steps/assess-witnesses.ts';
import { fenceOutputs } from '../steps/database-fence.ts';
import { restoredDatabaseOutputs } from '../steps/database-restore.ts';
import { restoredDirectoryOutputs } from '../steps/directory-restore.ts';
import { healthOutputs } from '../steps/monitor-health.ts';
import type { RunState, StepState } from './state.ts';

/** What became of one resource in a run. Times are milliseconds since 1970. */
export const resourceResultSchema = z.object({
  name: z.string(),
  kind: z.enum(['database', 'data', 'configuration']),
  status: z.enum(['recovered', 'lost']),
  vault: z.string().optional(),
  backupId: z.string().optional(),
  bytes: z.number().optional(),
  /** Everything up to this moment came back. */
  recoveredToMs: z.number().optional(),
  lastCommitAtMs: z.number().optional(),
  /** At most this much is lost, measured against the moment of the disaster. */
  lossMs: z.number().optional(),
  objectiveMs: z.number().optional(),
  /** Missing while the run has not come to a good end. */
  met: z.boolean().optional(),
  problem: z.string().optional(),
});
export type ReportedResource = z.infer<typeof resourceResultSchema>;

// What the outputs of the step library say about the result of a run, whatever the runbook calls its steps.

function outputsOf(state: RunState, uses: string): StepState[] {
  return state.steps.filter(({ plan, outputs }) => plan.uses === uses && outputs !== undefined);
}

/** The newest sign of life of the old site that the run has seen, milliseconds since 1970. */
export function signsOfLife(state: RunState): number | undefined {
  const signs: number[] = [];
  for (const { outputs } of outputsOf(state, 'assess.witnesses')) {
    const found = witnessesOutputs.parse(outputs).lastSignOfLifeMs;
    if (found !== undefined) signs.push(found);
  }
  // What came back was alive when it was written.
  for (const { outputs } of outputsOf(state, 'database.restore')) {
    const { recoveredToMs, targeted } = restoredDatabaseOutputs.parse(outputs);
    if (!targeted) signs.push(recoveredToMs);
  }
  // It may have lived, and written, until it was fenced.
  for (const { outputs } of outputsOf(state, 'database.fence')) {
    const found = fenceOutputs.parse(outputs).lastSignOfLifeMs;
    if (found !== undefined) signs.push(found);
  }
  return signs.length > 0 ? Math.max(...signs) : undefined;
}

/**
 * The latest moment at which the old site may have taken writes: it would have beaten once more soon after its last sign of life, and
 * when the command came it was dead. Undefined when no sign was seen.
 */
export function latestDisaster(state: RunState): number | undefined {
  const last = signsOfLife(state);
  if (last === undefined) return undefined;
  const beats = outputsOf(state, 'assess.witnesses').flatMap(
    ({ outputs }) => witnessesOutputs.parse(outputs).heartbeats,
  );
  const everyMs = Math.max(0, ...beats.map((beat) => beat.everyMs));
  return Math.max(last, Math.min(last + everyMs, state.startedAtMs));
}

/** When a planned move locked the old primary: from then on nobody could write. Undefined in any other run. */
export function plannedQuiet(state: RunState): number | undefined {
  const starts = state.steps.flatMap(({ plan, startedAtMs }) =>
    plan.uses === 'database.quiesce' && startedAtMs !== undefined ? [startedAtMs] : [],
  );
  return starts.length > 0 ? Math.min(...starts) : undefined;
}

/** What became of each resource, with its loss against the moment of the disaster. */
export function recoveredResources(state: RunState, disasterMs: number | undefined): ReportedResource[] {
  const objectives = state.started?.resourceObjectives ?? {};
  // Until it is fenced the old primary may write, and what it writes may be lost.
  const isOver = state.outcome === 'succeeded' || state.outcome === 'degraded';
  const resources = new Map<string, ReportedResource>();
  for (const { outputs } of outputsOf(state, 'assess.resources')) {
    const { points, missing } = resourcesOutputs.parse(outputs);
    for (const point of Object.values(points)) {
      const { resource: name, kind, vault, backupId } = point;
      resources.set(name, { name, kind, status: 'lost', vault, backupId, problem: 'it was not restored in this run' });
    }
    for (const { name, kind, problem } of missing) resources.set(name, { name, kind, status: 'lost', problem });
  }
  for (const step of state.steps) {
    const name = step.plan.each;
    const known = name === undefined ? undefined : resources.get(name);
    if (known && step.error && /^(database|data|configuration)\.restore$/.test(step.plan.uses))
      resources.set(known.name, { ...known, problem: step.error.message });
  }
  const set = (name: string, came: Partial<ReportedResource> & { recoveredToMs: number }) => {
    const known = resources.get(name);
    if (known === undefined) return;
    const { problem: _, ...rest } = known;
    const objectiveMs = objectives[name];
    const lossMs = disasterMs === undefined ? undefined : Math.max(0, disasterMs - came.recoveredToMs);
    resources.set(name, {
      ...rest,
      ...came,
      status: 'recovered',
      ...(lossMs === undefined ? {} : { lossMs }),
      ...(objectiveMs === undefined ? {} : { objectiveMs }),
      ...(lossMs === undefined || objectiveMs === undefined || !isOver ? {} : { met: lossMs <= objectiveMs }),
    });
  };
  for (const uses of ['database.restore', 'database.replay']) {
    for (const { plan, outputs } of outputsOf(state, uses)) {
      const { bytes, recoveredToMs, lastCommitAtMs } = restoredDatabaseOutputs.parse(outputs);
      if (plan.each !== undefined)
        set(plan.each, { bytes, recoveredToMs, ...(lastCommitAtMs === undefined ? {} : { lastCommitAtMs }) });
    }
  }
  // Replayed to the last byte of a primary that nobody could write to any more.
  for (const { plan } of outputsOf(state, 'database.catch-up')) {
    if (plan.each !== undefined && disasterMs !== undefined) set(plan.each, { recoveredToMs: disasterMs });
  }
  for (const uses of ['data.restore', 'configuration.restore']) {
    for (const { plan, outputs } of outputsOf(state, uses)) {
      const { bytes, recoveredToMs } = restoredDirectoryOutputs.parse(outputs);
      if (plan.each !== undefined) set(plan.each, { bytes, recoveredToMs });
    }
  }
  return [...resources.values()];
}

/** Since when the recovery site was seen healthy without a break; undefined when the run has not watched it. */
export function healthySince(state: RunState): number | undefined {
  const seen = outputsOf(state, 'monitor.health').map(({ outputs }) => healthOutputs.parse(outputs).healthySinceMs);
  return seen.length > 0 ? Math.max(...seen) : undefined;
}
