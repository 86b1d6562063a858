import { z } from 'zod';
import { parseDuration } from '../base/units.ts';
import { collections, runModes } from '../steps/contract.ts';
import { stageNames } from './model.ts';

const duration = z.string().transform((text, context) => {
  const ms = parseDuration(text);
  if (ms !== undefined && ms > 0) return ms;
  context.addIssue({ code: 'custom', message: `"${text}" is not a length of time; write for example 30s, 15m, 1h` });
  return z.NEVER;
});

const step = z.strictObject({
  id: z
    .string()
    .regex(
      /^[a-z][a-z0-9-]{0,40}$/,
      'an id is of small letters, digits and hyphens, begins with a letter, and is at most 41 long',
    )
    .describe('Name of the step, once in the whole runbook. References and the journal use it.'),
  uses: z.string().describe('Kind of step: see the step reference.'),
  title: z.string().min(1).optional().describe('For people; default: what the kind of step says about itself.'),
  with: z.record(z.string(), z.unknown()).default({}).describe('Parameters of the step; may hold references.'),
  forEach: z
    .enum(collections)
    .optional()
    .describe('Runs the step once for each member of the collection, side by side.'),
  when: z
    .array(z.enum(runModes))
    .min(1)
    .optional()
    .describe('Modes in which the step takes part; default: all of the runbook that the kind of step knows.'),
  timeout: duration.optional().describe('Limit for one attempt: 30s, 15m. Default: that of the kind of step.'),
  retries: z.int().min(0).max(100).default(0).describe('Further attempts after a failure that may pass by itself.'),
  onFailure: z
    .enum(['stop', 'continue', 'undo'])
    .default('stop')
    .describe(
      'stop: the run stops and can be resumed. continue: it goes on and ends as degraded. undo: it takes back what it did.',
    ),
  approval: z
    .strictObject({
      prompt: z.string().min(1).describe('What the person is asked.'),
      by: z
        .array(z.string().min(1))
        .default([])
        .describe('Names that may answer; empty: anybody with access to the vault.'),
      timeout: duration.default(3_600_000).describe('How long the run waits for the answer. Default 1h.'),
    })
    .optional()
    .describe('A person has to agree before the step starts.'),
});

const parallel = z.strictObject({ parallel: z.array(step).min(1).describe('Steps that run side by side.') });

/** An entry of a stage. Told apart by hand, because a union would answer every slip with "invalid input". */
export const stageEntry = { step, parallel };

/** The file around the steps. */
export const runbookShape = z.strictObject({
  version: z.literal(1, { error: 'must be 1: this dr knows version 1 of the runbook format' }),
  name: z.string().regex(/^[a-z][a-z0-9-]{0,40}$/, 'a name is of small letters, digits and hyphens'),
  summary: z.string().min(1),
  modes: z.array(z.enum(runModes)).min(1),
  stages: z.strictObject(Object.fromEntries(stageNames.map((name) => [name, z.array(z.unknown()).optional()]))),
});

export type StepShape = z.output<typeof step>;
