import type { z } from 'zod';
import type { Clock } from '../base/clock.ts';
import { DrError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { OnProgress } from '../base/progress.ts';
import type { Config } from '../config/types.ts';
import { describeIssues } from './issues.ts';
import type { RecoveryTarget, World } from './ports.ts';

/** What a run may do. `plan` is not among them: it touches nothing, so it leaves no run. */
export const runModes = ['failover', 'switchover', 'failback', 'drill'] as const;
export type RunMode = (typeof runModes)[number];

/** Kinds of configured things that a step can be repeated over. */
export const collections = ['databases', 'data', 'configuration', 'traffic', 'workloads', 'gitops'] as const;
export type Collection = (typeof collections)[number];

/** What is fixed when a run starts and what people decided on the way. */
export interface RunFacts {
  readonly id: string;
  readonly mode: RunMode;
  /** The recovery site: where the system is brought up. */
  readonly site: string;
  /** The site that was active. */
  readonly from: string;
  readonly at: RecoveryTarget;
  readonly startedAtMs: number;
  /** Name of the person who accepted that the old primary may still write; undefined = nobody did. */
  readonly acceptedSplitBrain: string | undefined;
}

/** What a step gets to work with. */
export interface StepContext {
  readonly run: RunFacts;
  /** The name of the resource, traffic, workload … of this repetition (`forEach`); undefined for a step that runs once. */
  readonly each: string | undefined;
  readonly world: World;
  readonly clock: Clock;
  readonly log: Log;
  /** Aborted on timeout, Ctrl-C and when the lease is lost: the step must then stop and throw, and be safe to repeat. */
  readonly signal: AbortSignal;
  readonly progress: OnProgress;
  /** Records what was observed, as one sentence for the journal and the report. No secrets. */
  note(sentence: string): void;
}

/** What a step would do, for a person who reads the plan. */
export interface StepPlan {
  /** The real thing it acts on: a path, a port, a record. */
  readonly target: string;
  /** How that is now. */
  readonly present: string;
  readonly will: readonly string[];
  /** What would make it fail, with what to do about it. */
  readonly problems: ReadonlyArray<{ readonly what: string; readonly next?: string | undefined }>;
}

/** How a kind of step is written: typed parameters and outputs. */
export interface StepDefinition<Params extends z.ZodObject, Outputs extends z.ZodObject> {
  /** As runbooks write it after `uses:`. */
  readonly name: string;
  /** One sentence. */
  readonly summary: string;
  /** `none`: it only looks, so a resume simply repeats it. `changes`: it leaves something behind. */
  readonly effect: 'none' | 'changes';
  /** A plan runs it, so that later steps of the plan know what it found. Only for steps that write nothing anywhere. */
  readonly runsInPlan?: boolean;
  readonly modes: readonly RunMode[];
  /** What it does differently in a drill, for the reference. */
  readonly inDrill?: string;
  /** It works on one member of this collection and needs `forEach` over it. */
  readonly over?: Collection;
  /** Kinds of which a step has to come before it in these modes: the loader refuses a runbook without. */
  readonly after?: ReadonlyArray<{ readonly uses: string; readonly modes: readonly RunMode[] }>;
  readonly params: Params;
  readonly outputs: Outputs;
  /** Milliseconds that one attempt may take unless the runbook says otherwise. */
  readonly timeoutMs: number;
  /** What is wrong with these parameters by the configuration alone, one sentence each; those with references are missing. */
  check?(config: Config, params: Partial<z.output<Params>>): readonly string[];
  /** Looks, and changes nothing. Parameters that only a run can know are missing. */
  plan(context: StepContext, params: Partial<z.output<Params>>): Promise<StepPlan>;
  /**
   * Whether the effect happened already, and with which outputs: asked before an attempt that follows an interrupted or
   * failed one. Without it the step is simply repeated, which must then be harmless.
   */
  done?(context: StepContext, params: z.output<Params>): Promise<z.output<Outputs> | undefined>;
  run(context: StepContext, params: z.output<Params>): Promise<z.output<Outputs>>;
  /** Takes the effect back; repeatable; `outputs` are missing when the step did not finish. Drills call it at their end. */
  undo?(context: StepContext, params: z.output<Params>, outputs: z.output<Outputs> | undefined): Promise<void>;
}

/** A kind of step as the engine sees it: values are checked against the schemas on the way in and out. */
export interface StepKind {
  readonly name: string;
  readonly summary: string;
  readonly effect: 'none' | 'changes';
  readonly runsInPlan: boolean;
  readonly modes: readonly RunMode[];
  readonly inDrill: string | undefined;
  readonly over: Collection | undefined;
  readonly after: ReadonlyArray<{ readonly uses: string; readonly modes: readonly RunMode[] }>;
  readonly params: z.ZodObject;
  readonly outputs: z.ZodObject;
  readonly timeoutMs: number;
  readonly undoable: boolean;
  /** `later`: parameters that only a run will know, because they hold references. */
  check(config: Config, params: Record<string, unknown>, later: readonly string[]): readonly string[];
  plan(context: StepContext, params: Record<string, unknown>): Promise<StepPlan>;
  done(context: StepContext, params: Record<string, unknown>): Promise<Record<string, unknown> | undefined>;
  run(context: StepContext, params: Record<string, unknown>): Promise<Record<string, unknown>>;
  undo(
    context: StepContext,
    params: Record<string, unknown>,
    outputs: Record<string, unknown> | undefined,
  ): Promise<void>;
}

/** Closes the types of a definition behind its schemas, so that all kinds fit into one registry. */
export function defineStep<Params extends z.ZodObject, Outputs extends z.ZodObject>(
  step: StepDefinition<Params, Outputs>,
): StepKind {
  const checked = <T extends z.ZodType>(schema: T, params: Record<string, unknown>): z.output<T> => {
    const parsed = schema.safeParse(params);
    if (parsed.success) return parsed.data;
    throw new DrError('config', `${step.name} cannot work with this: ${describeIssues(parsed.error, params)}`, {
      next: 'Correct the parameters in the runbook; docs/runbooks.md has those of every step.',
    });
  };
  const read = (params: Record<string, unknown>) => checked(step.params, params);
  return {
    name: step.name,
    summary: step.summary,
    effect: step.effect,
    runsInPlan: step.runsInPlan ?? false,
    modes: step.modes,
    inDrill: step.inDrill,
    over: step.over,
    after: step.after ?? [],
    params: step.params,
    outputs: step.outputs,
    timeoutMs: step.timeoutMs,
    undoable: step.undo !== undefined,
    check: (config, given, later) => {
      const known = step.params.partial().safeParse(given);
      // The loader says what does not fit the schema.
      if (!known.success || step.check === undefined) return [];
      // What only a run will know has no value here, not even that which it has when nothing is given.
      const params = Object.entries(known.data).filter(([name]) => !later.includes(name));
      return step.check(config, Object.fromEntries(params) as Partial<z.output<Params>>);
    },
    plan: async (context, params) => {
      // Only what a run will know can be missing, so a partial schema checks the rest as strictly.
      const known = checked(step.params.partial(), params) as Partial<z.output<Params>>;
      return await step.plan(context, known);
    },
    done: async (context, params) => {
      const outputs = await step.done?.(context, read(params));
      return outputs && step.outputs.parse(outputs);
    },
    run: async (context, params) => step.outputs.parse(await step.run(context, read(params))),
    undo: async (context, params, outputs) => {
      await step.undo?.(context, read(params), outputs && step.outputs.parse(outputs));
    },
  };
}
