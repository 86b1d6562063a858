import type { z } from 'zod';
import { messageOf } from '../base/errors.ts';
import type { RunFacts, StepContext, StepPlan } from '../steps/contract.ts';
import { timedId } from '../vault/layout.ts';
import { scopeOf } from './execute.ts';
import { median, stepHistory } from './history.ts';
import { membersAt } from './members.ts';
import { instancesOf, type StageName, type StepInstance } from './model.ts';
import { resolveParams, resolveText, type Scope, unknownIn } from './reference.ts';
import { type Engine, journalStore, type RunRequest } from './run.ts';
import { storeError } from './stored-error.ts';

export interface PlannedStepView extends StepPlan {
  readonly id: string;
  readonly stage: StageName;
  readonly uses: string;
  readonly title: string;
  /** It takes no part in this mode, and why. */
  readonly skip: string | undefined;
  /** What was observed while planning. */
  readonly evidence: readonly string[];
  readonly approval: string | undefined;
  /** Median of earlier runs, milliseconds; undefined = never measured. */
  readonly forecastMs: number | undefined;
}

export interface RunPlan {
  readonly runbook: string;
  readonly mode: string;
  readonly site: string;
  readonly from: string;
  readonly at: RunRequest['at'];
  readonly objectives: { readonly rtoMs: number; readonly rpoMs: number };
  readonly steps: readonly PlannedStepView[];
  /** Sum over the groups of their slowest measured step; undefined = no step was ever measured. */
  readonly forecastMs: number | undefined;
  /** Steps without a measurement, which the forecast leaves out. */
  readonly unmeasured: number;
  /** True when no step has a problem. */
  readonly ready: boolean;
}

/**
 * Says what a run would do. Takes no lease and writes nothing: steps that only look are run, all others describe themselves
 * against what was found. A problem of one step does not hide those of the others.
 */
export async function planRun(engine: Engine, request: RunRequest): Promise<RunPlan> {
  const { world, clock } = engine;
  const { runbook, mode, at } = request;
  const instances = instancesOf(runbook, mode, membersAt(world.config, world.site.name));
  const run: RunFacts = {
    id: timedId(clock.now(), 'plan'),
    mode,
    site: world.site.name,
    from: world.from.name,
    at,
    startedAtMs: clock.now(),
    acceptedSplitBrain: request.acceptSplitBrain,
  };
  const history = await stepHistory(journalStore(world), runbook.name, engine.signal).catch(
    () => new Map<string, number[]>(),
  );
  const found: Found = { outputs: new Map(), troubles: new Map() };
  const steps: PlannedStepView[] = [];
  for (const group of Map.groupBy(instances, (instance) => instance.group).values()) {
    steps.push(
      ...(await Promise.all(group.map((instance) => planStep(engine, run, instance, instances, found, history)))),
    );
  }
  const measured = [
    ...Map.groupBy(
      steps.map((step, i) => ({ step, group: instances[i]?.group })),
      ({ group }) => group,
    ).values(),
  ];
  const active = steps.filter(({ skip }) => skip === undefined);
  const unmeasured = active.filter(({ forecastMs }) => forecastMs === undefined).length;
  return {
    runbook: runbook.name,
    mode,
    site: run.site,
    from: run.from,
    at,
    objectives: world.config.objectives,
    steps,
    forecastMs:
      unmeasured === active.length
        ? undefined
        : measured.reduce((sum, members) => sum + Math.max(...members.map(({ step }) => step.forecastMs ?? 0)), 0),
    unmeasured,
    ready: steps.every(({ problems }) => problems.length === 0),
  };
}

/** What the steps before have found, and why some have found nothing; by instance and by step. */
interface Found {
  readonly outputs: Map<string, Record<string, unknown>>;
  readonly troubles: Map<string, string>;
}

async function planStep(
  engine: Engine,
  run: RunFacts,
  instance: StepInstance,
  instances: readonly StepInstance[],
  found: Found,
  history: ReadonlyMap<string, readonly number[]>,
): Promise<PlannedStepView> {
  const { spec, id, skip } = instance;
  const evidence: string[] = [];
  const scope = scopeOf(run, instance, instances, (other) => found.outputs.get(other));
  const head = {
    id,
    stage: spec.stage,
    uses: spec.kind.name,
    title: spec.title,
    skip,
    evidence,
    approval: spec.approval && resolveText(spec.approval.prompt, scope, { partial: true }),
    forecastMs: skip === undefined ? median(history.get(id) ?? []) : undefined,
  };
  if (skip !== undefined) return { ...head, target: '', present: '', will: [], problems: [] };
  const context: StepContext = {
    run,
    each: instance.each,
    world: engine.world,
    clock: engine.clock,
    log: engine.log,
    signal: engine.signal,
    progress: () => {},
    note: (sentence) => evidence.push(sentence),
  };
  const problems: Array<StepPlan['problems'][number]> = [];
  const trouble = (error: unknown) => {
    if (engine.signal.aborted) throw error;
    const { message, next } = storeError(error);
    problems.push({ what: message, next });
  };
  const params = resolveParams(spec.with, scope, { partial: true });
  let view: StepPlan = { target: '', present: '', will: [], problems: [] };
  try {
    view = await spec.kind.plan(context, params);
  } catch (error) {
    trouble(error);
  }
  const blind = spec.kind.runsInPlan ? blindness(instance, instances, scope, found) : undefined;
  if (blind?.expected) evidence.push(blind.what);
  else if (blind) problems.push({ what: blind.what, next: undefined });
  else if (spec.kind.runsInPlan) {
    try {
      found.outputs.set(id, await spec.kind.run(context, params));
    } catch (error) {
      trouble(error);
      engine.log.debug({ step: id, reason: messageOf(error) }, 'A step that looks found trouble while planning.');
    }
  }
  const all = [...view.problems, ...problems];
  if (all[0] !== undefined && spec.kind.runsInPlan) found.troubles.set(spec.id, all[0].what);
  return { ...head, ...view, problems: all };
}

/**
 * Why a step that looks cannot look yet: what it cannot do without, and why the step that should have found it has not. Without a value that
 * is optional it looks all the same. `expected`: nothing is wrong, a plan does not run what it waits for.
 */
function blindness(
  { spec }: StepInstance,
  instances: readonly StepInstance[],
  scope: Scope,
  { troubles }: Found,
): { readonly what: string; readonly expected: boolean } | undefined {
  const shape = spec.kind.params.shape as Record<string, z.ZodType>;
  const needed = Object.entries(spec.with).filter(([param]) => shape[param]?.safeParse(undefined).success === false);
  const sources = Map.groupBy(unknownIn(Object.fromEntries(needed), scope), ({ step }) => step);
  if (sources.size === 0) return undefined;
  const looks = (step: string) => instances.some((other) => other.spec.id === step && other.spec.kind.runsInPlan);
  const texts = [...sources].map(([step, needs]) => {
    const params = [...new Set(needs.map(({ param }) => `"${param}"`))];
    const why = looks(step) ? (troubles.get(step) ?? 'it found nothing') : 'a plan does not run it';
    return `${params.join(' and ')} from step "${step}" ${params.length === 1 ? 'has' : 'have'} no value yet, because ${shortened(why)}`;
  });
  return {
    what: `it could not look: ${texts.join('; ')}`,
    expected: [...sources.keys()].every((step) => !looks(step)),
  };
}

/** The beginning of a reason that stands in full at its own step. */
function shortened(reason: string): string {
  const [line = ''] = reason.split('\n');
  return line.length <= 100 ? line : `${line.slice(0, line.lastIndexOf(' ', 100)).replace(/[:;,]$/, '')} … (see there)`;
}
