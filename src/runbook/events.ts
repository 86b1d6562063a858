import { z } from 'zod';
import { runModes } from '../steps/contract.ts';
import { recoveryTargetSchema } from '../steps/ports.ts';
import { stageNames } from './model.ts';

/** An error as the journal keeps it. */
export const storedErrorSchema = z.object({
  kind: z.string(),
  message: z.string(),
  where: z.string().optional(),
  next: z.string().optional(),
});
export type StoredError = z.infer<typeof storedErrorSchema>;

export const outcomes = ['succeeded', 'degraded', 'failed', 'interrupted', 'abandoned'] as const;
/**
 * How a run ended. `degraded`: it came to its end, but a step with `onFailure: continue` failed on the way.
 * `interrupted`: a drill that was stopped and has cleaned up. `abandoned`: somebody began a new run in its place.
 */
export type Outcome = (typeof outcomes)[number];

const step = z.string();
const plannedStep = z.object({
  id: step,
  stage: z.enum(stageNames),
  group: z.int().nonnegative(),
  uses: z.string(),
  title: z.string(),
  each: z.string().optional(),
  needsApproval: z.boolean(),
  undoable: z.boolean(),
});
export type PlannedStep = z.infer<typeof plannedStep>;

/** Everything that can happen to a run. The journal is a list of these. */
export const eventSchema = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('run-started'),
    mode: z.enum(runModes),
    site: z.string(),
    from: z.string(),
    at: recoveryTargetSchema,
    /** When the command was given, ISO 8601: the time to recover counts from here, not from the first entry. */
    askedAt: z.string().optional(),
    /** Why, in the words of who started it. */
    reason: z.string(),
    runbook: z.object({ name: z.string(), path: z.string(), text: z.string() }),
    objectives: z.object({ rtoMs: z.number(), rpoMs: z.number() }),
    /** Objective of each resource, milliseconds; missing = it has none of its own. */
    resourceObjectives: z.record(z.string(), z.number()),
    steps: z.array(plannedStep),
  }),
  z.object({ type: z.literal('run-resumed') }),
  z.object({ type: z.literal('split-brain-accepted'), name: z.string() }),
  z.object({ type: z.literal('step-skipped'), step, reason: z.string() }),
  z.object({ type: z.literal('approval-requested'), step, prompt: z.string(), from: z.array(z.string()) }),
  z.object({
    type: z.literal('approval-given'),
    step,
    name: z.string(),
    comment: z.string().optional(),
    givenAt: z.string(),
  }),
  /** Intent: durable before the step touches anything. */
  z.object({ type: z.literal('step-started'), step, attempt: z.int().positive() }),
  z.object({
    type: z.literal('step-finished'),
    step,
    /** The effect was found to be there already; this attempt changed nothing. */
    found: z.boolean(),
    outputs: z.record(z.string(), z.unknown()),
    evidence: z.array(z.string()),
  }),
  z.object({
    type: z.literal('step-failed'),
    step,
    error: storedErrorSchema,
    evidence: z.array(z.string()),
    /** `again`: another attempt follows. `stop`: the run stops here. `tolerated`: the run goes on without it. */
    follows: z.enum(['again', 'stop', 'tolerated']),
  }),
  z.object({
    type: z.literal('run-stopped'),
    because: z.enum(['failed', 'interrupted']),
    error: storedErrorSchema,
  }),
  /** From here on the run goes backwards, to this outcome. */
  z.object({ type: z.literal('undo-started'), outcome: z.enum(outcomes), error: storedErrorSchema.optional() }),
  z.object({ type: z.literal('step-undo-started'), step }),
  z.object({ type: z.literal('step-undo-finished'), step, evidence: z.array(z.string()) }),
  z.object({ type: z.literal('step-undo-failed'), step, error: storedErrorSchema }),
  z.object({ type: z.literal('run-finished'), outcome: z.enum(outcomes) }),
]);
export type RunEvent = z.infer<typeof eventSchema>;
export type EventOf<Type extends RunEvent['type']> = Extract<RunEvent, { type: Type }>;

/** One entry of a journal. */
export const entrySchema = z.object({
  format: z.literal(1),
  runId: z.string(),
  /** From 1, without holes. */
  number: z.int().positive(),
  /** SHA-256 (hex) of the stored bytes of the entry before; of nothing for the first. */
  previous: z.string(),
  at: z.iso.datetime(),
  /** `user@host pid 4711`. */
  by: z.string(),
  /** The process that executes the run, as a random word: only the newest one may append. */
  executor: z.string(),
  event: eventSchema,
});
export type JournalEntry = z.infer<typeof entrySchema>;
