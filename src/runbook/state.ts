import { DrError } from '../base/errors.ts';
import type { EventOf, JournalEntry, Outcome, PlannedStep, RunEvent, StoredError } from './events.ts';

export type StepStatus = 'pending' | 'running' | 'done' | 'failed' | 'skipped' | 'undoing' | 'undone' | 'undo-failed';

export interface StepState {
  readonly plan: PlannedStep;
  readonly status: StepStatus;
  readonly attempts: number;
  /** The executor whose attempt (or undo) is the last one. */
  readonly executor: string | undefined;
  /** `from`: who may answer; empty = everybody. */
  readonly approval:
    | { readonly status: 'requested' | 'given'; readonly from?: readonly string[]; readonly name?: string }
    | undefined;
  /** First start and last end, milliseconds since 1970. */
  readonly startedAtMs: number | undefined;
  readonly endedAtMs: number | undefined;
  readonly outputs: Readonly<Record<string, unknown>> | undefined;
  readonly error: StoredError | undefined;
  /** Failed, and the run goes on without it. */
  readonly tolerated: boolean;
  /** Tolerated beside or right before a step that the run stopped at: whoever takes the run up tries it once more. */
  readonly anotherChance: boolean;
  readonly evidence: readonly string[];
}

export type RunStatus = 'new' | 'running' | 'stopped' | 'undoing' | 'finished';

/** All that the journal says about a run, at one moment. */
export interface RunState {
  readonly status: RunStatus;
  readonly started: EventOf<'run-started'> | undefined;
  readonly startedAtMs: number;
  readonly executor: string;
  /** In the order of the runbook. */
  readonly steps: readonly StepState[];
  readonly acceptedSplitBrain: string | undefined;
  /** Why it stopped or goes backwards. */
  readonly error: StoredError | undefined;
  /** While undoing: where it is going. When finished: how it ended. */
  readonly outcome: Outcome | undefined;
}

export const newRun: RunState = {
  status: 'new',
  started: undefined,
  startedAtMs: 0,
  executor: '',
  steps: [],
  acceptedSplitBrain: undefined,
  error: undefined,
  outcome: undefined,
};

/**
 * The state after one more entry. Pure. Throws `corrupt` when the event cannot happen in this state: a journal that
 * contains it was not written by an executor that kept the rules, and an executor that tries to append it has a defect.
 */
export function apply(state: RunState, entry: JournalEntry): RunState {
  const { event } = entry;
  const atMs = Date.parse(entry.at);
  const refuse = (why: string) =>
    new DrError('corrupt', `entry ${entry.number} (${event.type}) cannot follow: ${why}`, {
      where: `journal of run ${entry.runId}`,
      next: 'Do not continue this run; start a new one with --new and report the journal as a defect.',
    });
  const need = (ok: boolean, why: string) => {
    if (!ok) throw refuse(why);
  };
  const inStatus = (...allowed: RunStatus[]) => need(allowed.includes(state.status), `the run is ${state.status}`);

  need(state.status !== 'finished', 'the run has finished, and a finished run never changes');
  if (event.type === 'run-started') {
    inStatus('new');
    need(new Set(event.steps.map(({ id }) => id)).size === event.steps.length, 'a step is listed twice');
    return {
      ...newRun,
      status: 'running',
      started: event,
      startedAtMs: Math.min(atMs, event.askedAt === undefined ? atMs : Date.parse(event.askedAt)),
      executor: entry.executor,
      steps: event.steps.map(pendingStep),
    };
  }
  need(state.status !== 'new', 'the run has not started');
  if (event.type === 'run-resumed') {
    need(entry.executor !== state.executor, 'an executor does not resume its own run');
    const status = state.status === 'stopped' ? 'running' : state.status;
    const steps = status === 'running' ? withAnotherChance(state.steps) : state.steps;
    return { ...state, status, steps, executor: entry.executor, ...(status === 'running' ? { error: undefined } : {}) };
  }
  need(entry.executor === state.executor, `executor ${state.executor} has the run, not ${entry.executor}`);
  if ('step' in event) return applyToStep(state, event, entry.executor, atMs, need, inStatus);
  switch (event.type) {
    case 'split-brain-accepted':
      inStatus('running');
      return { ...state, acceptedSplitBrain: event.name };
    case 'run-stopped':
      inStatus('running');
      return { ...state, status: 'stopped', error: event.error };
    case 'undo-started':
      inStatus('running');
      return { ...state, status: 'undoing', outcome: event.outcome, error: event.error };
    case 'run-finished':
      inStatus('running', 'undoing');
      checkFinish(state, event.outcome, need);
      return { ...state, status: 'finished', outcome: event.outcome };
  }
}

function checkFinish(state: RunState, outcome: Outcome, need: (ok: boolean, why: string) => void): void {
  if (outcome === 'abandoned') return;
  if (state.status === 'undoing') {
    need(outcome === state.outcome, `it was going to be ${state.outcome}`);
    const left = state.steps.find((step) => needsUndo(step));
    need(left === undefined, `step ${left?.plan.id} has not been undone`);
    return;
  }
  const open = state.steps.find((step) => !isSettled(step));
  need(open === undefined, `step ${open?.plan.id} is ${open?.status}`);
  const tolerated = state.steps.some((step) => step.tolerated);
  need(outcome === (tolerated ? 'degraded' : 'succeeded'), `all steps say ${tolerated ? 'degraded' : 'succeeded'}`);
}

function applyToStep(
  state: RunState,
  event: Extract<RunEvent, { step: string }>,
  executor: string,
  atMs: number,
  need: (ok: boolean, why: string) => void,
  inStatus: (...allowed: RunStatus[]) => void,
): RunState {
  const index = state.steps.findIndex(({ plan }) => plan.id === event.step);
  const step = state.steps[index];
  if (step === undefined) {
    need(false, `the run has no step ${event.step}`);
    return state;
  }
  const was = (...allowed: StepStatus[]) => need(allowed.includes(step.status), `step ${event.step} is ${step.status}`);
  const change = (changes: Partial<StepState>): RunState => ({
    ...state,
    steps: state.steps.with(index, { ...step, ...changes }),
  });
  const mine = () => need(step.executor === executor, `step ${event.step} was begun by another executor`);
  inStatus(event.type.startsWith('step-undo') ? 'undoing' : 'running');

  switch (event.type) {
    case 'step-skipped':
      was('pending');
      return change({ status: 'skipped', evidence: [event.reason] });
    case 'approval-requested':
      was('pending');
      need(step.plan.needsApproval, `step ${event.step} needs no approval`);
      need(step.approval?.status !== 'given', `step ${event.step} is approved already`);
      return change({ approval: { status: 'requested', from: event.from } });
    case 'approval-given':
      need(step.approval?.status === 'requested', `nobody asked for an approval of step ${event.step}`);
      return change({ approval: { status: 'given', name: event.name } });
    case 'step-started': {
      was('pending', 'failed', 'running');
      need(step.status !== 'running' || step.executor !== executor, `step ${event.step} is running`);
      need(!step.tolerated || step.anotherChance, `step ${event.step} was given up`);
      need(event.attempt === step.attempts + 1, `attempt ${step.attempts + 1} of step ${event.step} is next`);
      need(!step.plan.needsApproval || step.approval?.status === 'given', `step ${event.step} is not approved`);
      const before = state.steps.find((other) => other.plan.group < step.plan.group && !isSettled(other));
      need(before === undefined, `step ${before?.plan.id} comes first and is ${before?.status}`);
      return change({
        status: 'running',
        attempts: event.attempt,
        executor,
        startedAtMs: step.startedAtMs ?? atMs,
        endedAtMs: undefined,
        error: undefined,
        tolerated: false,
        anotherChance: false,
      });
    }
    case 'step-finished':
      was('running');
      mine();
      return change({ status: 'done', outputs: event.outputs, evidence: event.evidence, endedAtMs: atMs });
    case 'step-failed':
      was('running');
      mine();
      return change({
        status: 'failed',
        error: event.error,
        evidence: event.evidence,
        endedAtMs: atMs,
        tolerated: event.follows === 'tolerated',
      });
    case 'step-undo-started':
      need(needsUndo(step), `there is nothing to undo in step ${event.step}`);
      need(step.status !== 'undoing' || step.executor !== executor, `step ${event.step} is being undone`);
      return change({ status: 'undoing', executor });
    case 'step-undo-finished':
      was('undoing');
      mine();
      return change({ status: 'undone', evidence: [...step.evidence, ...event.evidence] });
    case 'step-undo-failed':
      was('undoing');
      mine();
      return change({ status: 'undo-failed', error: event.error });
  }
}

/** A step that lets the next group begin. */
export function isSettled(step: StepState): boolean {
  return step.status === 'done' || step.status === 'skipped' || (step.status === 'failed' && step.tolerated);
}

/** A step that may have left something behind which an undo would remove. */
export function needsUndo(step: StepState): boolean {
  return step.plan.undoable && ['running', 'done', 'failed', 'undoing', 'undo-failed'].includes(step.status);
}

function pendingStep(plan: PlannedStep): StepState {
  return {
    plan,
    status: 'pending',
    attempts: 0,
    executor: undefined,
    approval: undefined,
    startedAtMs: undefined,
    endedAtMs: undefined,
    outputs: undefined,
    error: undefined,
    tolerated: false,
    anotherChance: false,
    evidence: [],
  };
}

/**
 * The run went on without a step that failed, and then stopped at another of the same group, or of the next one that does something: what was
 * in the way of one may have been in the way of both (a full disk, a vault that was away), or the first was to clear the way for the second
 * (a fence finds writers that nobody could stop). Before the last step that is done all stays as it is: others have built on it.
 */
function withAnotherChance(steps: readonly StepState[]): readonly StepState[] {
  const open = steps.find((step) => !isSettled(step))?.plan.group;
  if (open === undefined) return steps;
  const last = steps.findLast(({ plan, status }) => plan.group < open && status === 'done')?.plan.group ?? 0;
  return steps.map((step) =>
    step.tolerated && step.plan.group >= last && step.plan.group <= open ? { ...step, anotherChance: true } : step,
  );
}
