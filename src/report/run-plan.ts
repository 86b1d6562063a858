import { formatDuration } from '../base/units.ts';
import type { PlannedStepView, RunPlan } from '../runbook/plan.ts';
import { count, formatTime } from './values.ts';

/** The plan of a run for a person: what it would do to which real thing, and what stands in its way. */
export function renderRunPlan(plan: RunPlan): string {
  const lines = [
    `${plan.mode} from ${plan.from} to ${plan.site}, ${atText(plan.at)}. This is a plan: nothing has been touched.`,
    plan.ready ? 'Nothing stands in its way.' : `${count(problemsOf(plan), 'problem')} in its way, marked with "!".`,
    forecastText(plan),
  ];
  let stage = '';
  for (const step of plan.steps) {
    if (step.stage !== stage) lines.push('', step.stage.toUpperCase());
    stage = step.stage;
    lines.push(...stepLines(step));
  }
  return lines.join('\n');
}

/** `to the latest moment`, `to 2026-11-23 05:00:00 UTC`. */
export function atText(at: RunPlan['at']): string {
  if (at.kind === 'latest') return 'to the latest moment that the vaults hold';
  return at.kind === 'time' ? `to ${formatTime(at.atMs, true)}` : `to LSN ${at.lsn}`;
}

function stepLines(step: PlannedStepView): string[] {
  if (step.skip !== undefined) return [`  ${step.id}: ${step.skip}`];
  const forecast = step.forecastMs === undefined ? '' : ` (about ${formatDuration(step.forecastMs)})`;
  return [
    `  ${step.id}: ${step.title}${forecast}`,
    ...(step.target === '' ? [] : [`      at    ${step.target}`]),
    ...(step.present === '' ? [] : [`      now   ${step.present}`]),
    ...step.will.map((what, i) => `      ${i === 0 ? 'will ' : '     '} ${what}`),
    ...(step.approval === undefined ? [] : [`      asks  ${step.approval}`]),
    ...step.evidence.map((sentence) => `      seen  ${sentence}`),
    ...step.problems.flatMap(({ what, next }) => [
      `    ! ${what}`,
      ...(next === undefined ? [] : [`      next  ${next}`]),
    ]),
  ];
}

function forecastText({ forecastMs, unmeasured, objectives }: RunPlan): string {
  const objective = `the objective is ${formatDuration(objectives.rtoMs)}`;
  if (forecastMs === undefined)
    return `No run or drill has been measured yet, so there is no forecast (${objective}): run a drill.`;
  const without = unmeasured === 0 ? '' : `, without ${count(unmeasured, 'step')} that no run has measured`;
  const verdict = forecastMs > objectives.rtoMs ? ', which it would MISS' : '';
  return `Forecast from earlier runs: ${formatDuration(forecastMs)}${without} (${objective}${verdict}).`;
}

function problemsOf({ steps }: RunPlan): number {
  return steps.reduce((sum, { problems }) => sum + problems.length, 0);
}
