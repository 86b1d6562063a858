import type { OnProgress, Progress } from '../base/progress.ts';
import { formatDuration } from '../base/units.ts';
import { approvalCommand } from '../runbook/approval.ts';
import { stageBudgetMs } from '../runbook/budget.ts';
import type { JournalEntry } from '../runbook/events.ts';
import type { StageName } from '../runbook/model.ts';
import type { RunState } from '../runbook/state.ts';

/** What a person sees while a run goes on; every line makes sense without a terminal too. */
export interface RunView {
  readonly onEntry: (entry: JournalEntry, state: RunState) => void;
  onProgress(step: string, progress: Progress): void;
}

/** What earlier runs took, milliseconds by step. */
export type Forecast = ReadonlyMap<string, number>;

/** One line for everything that the journal takes, with the time since the start and how much of the objective is left. */
export function createRunView(
  say: (line: string) => void,
  onProgress: OnProgress,
  forecast: Forecast = new Map(),
): RunView {
  let stage: StageName | undefined;
  return {
    onEntry: (entry, state) => {
      const { event } = entry;
      const atMs = Date.parse(entry.at);
      const elapsed = formatDuration(atMs - state.startedAtMs);
      const write = (text: string) => say(`${elapsed.padStart(12)}  ${text}`);
      if ('step' in event) {
        const step = state.steps.find(({ plan }) => plan.id === event.step);
        if (step && event.type === 'step-started' && step.plan.stage !== stage) {
          stage = step.plan.stage;
          say(`${stage.toUpperCase().padEnd(12)}  ${budgetText(stage, atMs, state, forecast)}`);
        }
      }
      const text = describeEvent(entry, state, forecast);
      if (text !== undefined) write(text);
    },
    onProgress: (step, progress) => onProgress({ ...progress, task: progress.task === 'watch' ? step : progress.task }),
  };
}

/** What a stage may take, and how the whole run stands: `budget 35 min; 52 min left of the objective`. */
function budgetText(stage: StageName, atMs: number, state: RunState, forecast: Forecast): string {
  const rtoMs = state.started?.objectives.rtoMs ?? 0;
  const left = rtoMs - (atMs - state.startedAtMs);
  const whole =
    left >= 0 ? `${formatDuration(left)} left of the objective` : `${formatDuration(-left)} OVER the objective`;
  const budgetMs = stageBudgetMs(stage, rtoMs);
  const expected = expectedMs(stage, state, forecast);
  return [
    ...(budgetMs === undefined ? [] : [`budget ${formatDuration(budgetMs)}`]),
    ...(expected === undefined ? [] : [`about ${formatDuration(expected)} by earlier runs`]),
    whole,
  ].join('; ');
}

/** Side by side only the slowest counts; undefined when no step of the stage was ever measured. */
function expectedMs(stage: StageName, state: RunState, forecast: Forecast): number | undefined {
  const steps = state.steps.filter(({ plan }) => plan.stage === stage && forecast.has(plan.id));
  if (steps.length === 0) return undefined;
  const groups = Map.groupBy(steps, ({ plan }) => plan.group).values();
  return [...groups].reduce((sum, group) => sum + Math.max(...group.map(({ plan }) => forecast.get(plan.id) ?? 0)), 0);
}

/** Undefined for what would only make noise. */
function describeEvent({ event, runId }: JournalEntry, state: RunState, forecast: Forecast): string | undefined {
  const step = 'step' in event ? state.steps.find(({ plan }) => plan.id === event.step) : undefined;
  const took =
    step?.startedAtMs !== undefined && step.endedAtMs !== undefined
      ? ` in ${formatDuration(step.endedAtMs - step.startedAtMs)}`
      : '';
  switch (event.type) {
    case 'run-started':
      return `run ${runId}: ${event.mode} from ${event.from} to ${event.site}`;
    case 'run-resumed':
      return `run ${runId} goes on where it stopped`;
    case 'split-brain-accepted':
      return `${event.name} accepts that the old primary may still accept writes`;
    case 'step-started':
      return [
        `${event.step}: ${step?.plan.title ?? ''}`,
        ...(event.attempt > 1 ? [`(attempt ${event.attempt})`] : []),
        // What takes no time needs no forecast.
        ...((forecast.get(event.step) ?? 0) >= 1000
          ? [`(about ${formatDuration(forecast.get(event.step) ?? 0)})`]
          : []),
      ].join(' ');
    case 'step-skipped':
      return undefined;
    case 'step-finished':
      return [
        `${event.step}: ${event.found ? 'found done' : `done${took}`}`,
        ...event.evidence.map((sentence) => `${' '.repeat(16)}${sentence}`),
      ].join('\n');
    case 'step-failed': {
      const follows = { again: 'it is tried again', stop: 'the run stops', tolerated: 'the run goes on without it' };
      return `${event.step}: FAILED${took}, ${follows[event.follows]}: ${event.error.message}`;
    }
    case 'approval-requested':
      return `${event.step} waits for approval: ${event.prompt} Answer: ${approvalCommand(runId, event.step, event.from)}`;
    case 'approval-given':
      return `${event.step}: approved by ${event.name}`;
    case 'run-stopped':
      return event.because === 'interrupted'
        ? 'interrupted; the same command goes on from here'
        : 'stopped; the same command goes on from here';
    case 'undo-started':
      return event.error ? `cleaning up after: ${event.error.message}` : 'cleaning up';
    case 'step-undo-started':
      return undefined;
    case 'step-undo-finished':
      return `${event.step}: removed`;
    case 'step-undo-failed':
      return `${event.step}: could NOT be removed: ${event.error.message}`;
    case 'run-finished':
      return `the run ended: ${event.outcome}`;
  }
}
