import { z } from 'zod';
import { DrError } from '../base/errors.ts';
import { layout, RUN_FORMAT_VERSION } from '../vault/layout.ts';
import { decodeRecord, encodeRecord } from '../vault/record.ts';
import { sha256 } from '../vault/seal.ts';
import type { ObjectStore } from '../vault/store.ts';
import { stageBudgetMs } from './budget.ts';
import { type JournalEntry, outcomes, storedErrorSchema } from './events.ts';
import { type StageName, stageNames } from './model.ts';
import {
  healthySince,
  latestDisaster,
  plannedQuiet,
  recoveredResources,
  resourceResultSchema,
  signsOfLife,
} from './run-results.ts';
import type { RunState } from './state.ts';

/** Milliseconds since 1970, or lengths in milliseconds, throughout. */
const reportSchema = z.object({
  format: z.literal(1),
  runId: z.string(),
  runbook: z.string(),
  mode: z.string(),
  site: z.string(),
  from: z.string(),
  reason: z.string(),
  /** Undefined while the run is stopped and can be resumed. */
  outcome: z.enum(outcomes).optional(),
  error: storedErrorSchema.optional(),
  startedAtMs: z.number(),
  /** The newest entry of the journal. */
  endedAtMs: z.number(),
  by: z.array(z.string()),
  rto: z.object({
    objectiveMs: z.number(),
    /** From the first command to the moment the system served again, pauses included; so far, while it does not. */
    achievedMs: z.number(),
    met: z.boolean(),
    /** From the last sign of life of the old site to that moment; missing when none was ever seen. */
    sinceLastSignOfLifeMs: z.number().optional(),
    /** In a planned move: how long nobody could write, from locking the old primary to the moment the system served. */
    downtimeMs: z.number().optional(),
  }),
  stages: z.array(
    z.object({
      name: z.enum(stageNames),
      startedAtMs: z.number(),
      endedAtMs: z.number().optional(),
      ms: z.number().optional(),
      /** Its part of the objective; missing where the stage does not count, and in reports of older versions. */
      budgetMs: z.number().optional(),
      status: z.enum(['done', 'failed', 'open']),
    }),
  ),
  steps: z.array(
    z.object({
      id: z.string(),
      stage: z.enum(stageNames),
      uses: z.string(),
      title: z.string(),
      status: z.string(),
      attempts: z.number(),
      startedAtMs: z.number().optional(),
      ms: z.number().optional(),
      approvedBy: z.string().optional(),
      error: storedErrorSchema.optional(),
      evidence: z.array(z.string()),
    }),
  ),
  resources: z.array(resourceResultSchema),
  /** The latest moment at which the old site may have taken writes; in a drill the moment the drill began. */
  disasterMs: z.number().optional(),
  acceptedSplitBrain: z.string().optional(),
  approvals: z.array(z.object({ step: z.string(), name: z.string(), at: z.string(), comment: z.string().optional() })),
  timeline: z.array(z.object({ at: z.string(), by: z.string(), text: z.string() })),
  journal: z.object({ entries: z.number(), sha256: z.string() }),
  /** SHA-256 (hexadecimal) of the documents stored beside it, by extension: a change of one shows. */
  documents: z.record(z.string(), z.string()).optional(),
});

/** What is left of a run for people and auditors: made from its journal, and only from it. */
export type RunReport = z.infer<typeof reportSchema>;

/** Builds the report. Pure: the same journal gives the same report. */
export function buildReport(
  runId: string,
  entries: readonly JournalEntry[],
  state: RunState,
  sha256: string,
): RunReport {
  const { started } = state;
  if (started === undefined) throw new DrError('internal', `run ${runId} has not started`);
  const lastAt = entries.at(-1)?.at;
  const endedAtMs = lastAt === undefined ? state.startedAtMs : Date.parse(lastAt);
  const servingAtMs = servedAgain(entries, state) ?? endedAtMs;
  const achievedMs = servingAtMs - state.startedAtMs;
  const signs = signsOfLife(state);
  const quietMs = plannedQuiet(state);
  const disasterMs = started.mode === 'drill' ? state.startedAtMs : (quietMs ?? latestDisaster(state));
  const cameUp = ['succeeded', 'degraded'].includes(state.outcome ?? '');
  return {
    format: 1,
    runId,
    runbook: started.runbook.name,
    mode: started.mode,
    site: started.site,
    from: started.from,
    reason: started.reason,
    ...(state.status === 'finished' && state.outcome ? { outcome: state.outcome } : {}),
    ...(state.error ? { error: state.error } : {}),
    startedAtMs: state.startedAtMs,
    endedAtMs,
    by: [...new Set(entries.map(({ by }) => by))],
    rto: {
      objectiveMs: started.objectives.rtoMs,
      achievedMs,
      met: cameUp && achievedMs <= started.objectives.rtoMs,
      ...(signs === undefined || started.mode !== 'failover' ? {} : { sinceLastSignOfLifeMs: servingAtMs - signs }),
      ...(quietMs === undefined ? {} : { downtimeMs: Math.max(0, servingAtMs - quietMs) }),
    },
    stages: stageNames.flatMap((name) => stageReport(state, name, started.objectives.rtoMs)),
    steps: state.steps.map((step) => ({
      id: step.plan.id,
      stage: step.plan.stage,
      uses: step.plan.uses,
      title: step.plan.title,
      status: step.status,
      attempts: step.attempts,
      ...(step.startedAtMs === undefined ? {} : { startedAtMs: step.startedAtMs }),
      ...(step.startedAtMs === undefined || step.endedAtMs === undefined
        ? {}
        : { ms: step.endedAtMs - step.startedAtMs }),
      ...(step.approval?.name === undefined ? {} : { approvedBy: step.approval.name }),
      ...(step.error ? { error: step.error } : {}),
      evidence: [...step.evidence],
    })),
    resources: recoveredResources(state, disasterMs),
    ...(disasterMs === undefined ? {} : { disasterMs }),
    ...(state.acceptedSplitBrain === undefined ? {} : { acceptedSplitBrain: state.acceptedSplitBrain }),
    approvals: entries.flatMap(({ event }) =>
      event.type === 'approval-given'
        ? [
            {
              step: event.step,
              name: event.name,
              at: event.givenAt,
              ...(event.comment ? { comment: event.comment } : {}),
            },
          ]
        : [],
    ),
    timeline: entries.map((entry) => ({ at: entry.at, by: entry.by, text: describe(entry) })),
    journal: { entries: entries.length, sha256 },
  };
}

/**
 * The system serves again when the stages before "stabilize" are through, and, where it was watched after that, from the moment
 * on since which it was healthy without a break. Neither watching nor cleaning up after a drill counts as time to recover.
 */
function servedAgain(entries: readonly JournalEntry[], state: RunState): number | undefined {
  if (!['succeeded', 'degraded'].includes(state.outcome ?? '')) {
    const end = entries.find(({ event }) => event.type === 'undo-started');
    return end && Date.parse(end.at);
  }
  const ends = state.steps.flatMap(({ plan, endedAtMs }) => (plan.stage === 'stabilize' ? [] : (endedAtMs ?? [])));
  return ends.length === 0 ? undefined : Math.max(...ends, healthySince(state) ?? 0);
}

function stageReport(state: RunState, name: StageName, rtoMs: number): RunReport['stages'] {
  const steps = state.steps.filter(({ plan, status }) => plan.stage === name && status !== 'skipped');
  const starts = steps.flatMap(({ startedAtMs }) => startedAtMs ?? []);
  if (starts.length === 0) return [];
  const startedAtMs = Math.min(...starts);
  const ends = steps.flatMap(({ endedAtMs }) => endedAtMs ?? []);
  const failed = steps.some(
    ({ status, tolerated, error }) => (status === 'failed' && !tolerated) || (status === 'undone' && error),
  );
  const ended = ends.length === steps.length;
  const endedAtMs = Math.max(...ends);
  const budgetMs = stageBudgetMs(name, rtoMs);
  return [
    {
      name,
      startedAtMs,
      ...(ended ? { endedAtMs, ms: endedAtMs - startedAtMs } : {}),
      ...(budgetMs === undefined ? {} : { budgetMs }),
      status: failed ? 'failed' : ended ? 'done' : 'open',
    },
  ];
}

/** One journal entry in words. */
export function describe({ event }: JournalEntry): string {
  switch (event.type) {
    case 'run-started':
      return `${event.mode} from ${event.from} to ${event.site} started: ${event.reason}`;
    case 'run-resumed':
      return 'the run was taken up again';
    case 'split-brain-accepted':
      return `${event.name} accepted that the old primary may still accept writes`;
    case 'step-skipped':
      return `${event.step}: ${event.reason}`;
    case 'approval-requested':
      return `${event.step} waits for approval: ${event.prompt}`;
    case 'approval-given':
      return `${event.step} approved by ${event.name}`;
    case 'step-started':
      return `${event.step} started${event.attempt > 1 ? ` (attempt ${event.attempt})` : ''}`;
    case 'step-finished':
      return `${event.step} ${event.found ? 'was found done' : 'done'}`;
    case 'step-failed':
      return `${event.step} failed: ${event.error.message}`;
    case 'run-stopped':
      return event.because === 'interrupted' ? 'the run was interrupted' : `the run stopped: ${event.error.message}`;
    case 'undo-started':
      return event.error ? `cleaning up after: ${event.error.message}` : 'cleaning up';
    case 'step-undo-started':
      return `${event.step}: taking it back`;
    case 'step-undo-finished':
      return `${event.step} taken back`;
    case 'step-undo-failed':
      return `${event.step} could not be taken back: ${event.error.message}`;
    case 'run-finished':
      return `the run ended: ${event.outcome}`;
  }
}

/** Renders of a report that are kept beside it, for people. */
export interface RenderedReport {
  readonly markdown: string;
  readonly html: string;
}

/** Stores a report beside its journal, the record last. A later one of the same run replaces it. */
export async function storeReport(store: ObjectStore, report: RunReport, rendered: RenderedReport): Promise<void> {
  const documents = { md: Buffer.from(rendered.markdown), html: Buffer.from(rendered.html) };
  await store.overwrite(layout.runReport(report.runId, 'md'), documents.md);
  await store.overwrite(layout.runReport(report.runId, 'html'), documents.html);
  const digests = { md: sha256(documents.md).toString('hex'), html: sha256(documents.html).toString('hex') };
  await store.overwrite(layout.runReport(report.runId, 'json'), encodeRecord({ ...report, documents: digests }));
}

/** Reads a stored report. Throws `not-found`, `corrupt`, `refused` (newer format). */
export async function readReport(store: ObjectStore, runId: string, signal?: AbortSignal): Promise<RunReport> {
  const key = layout.runReport(runId, 'json');
  const where = `${store.location}/${key}`;
  const record = decodeRecord(await store.read(key, undefined, { signal }), 'the report', where);
  if (typeof record.format === 'number' && record.format > RUN_FORMAT_VERSION)
    throw new DrError('refused', 'this report was written by a newer dr', {
      where,
      next: 'Use that version or a newer one.',
    });
  const parsed = reportSchema.safeParse(record);
  if (parsed.success) return parsed.data;
  throw new DrError('corrupt', `this is no report: ${parsed.error.issues[0]?.message}`, { where, cause: parsed.error });
}
