import { formatBytes, formatDuration } from '../base/units.ts';
import type { RunReport } from '../runbook/run-report.ts';
import type { ReportedResource } from '../runbook/run-results.ts';
import { type Column, renderFacts, renderTable } from './table.ts';
import { count, formatTime, list } from './values.ts';

/** The report of a run for a person at a terminal: the answer first, then what it rests on. */
export function renderRunText(report: RunReport): string {
  const parts = [
    headline(report),
    renderFacts([
      ['Run', report.runId],
      ['Runbook', `${report.runbook} (${report.mode}), ${report.from} to ${report.site}`],
      ['Reason', report.reason],
      ['Started', `${formatTime(report.startedAtMs)} by ${report.by.join('; then ')}`],
      ['Time to recover', rtoText(report)],
      [
        'Writes refused',
        report.rto.downtimeMs === undefined ? undefined : `for ${formatDuration(report.rto.downtimeMs)}`,
      ],
      ['Old site', lastSign(report)],
      ['Accepted', report.acceptedSplitBrain && `${report.acceptedSplitBrain} accepted a possible split brain`],
    ]),
  ];
  if (report.stages.length > 0) parts.push(renderTable(stageColumns, report.stages));
  if (report.resources.length > 0) parts.push(renderTable(resourceColumns, report.resources));
  const failed = report.steps.filter(({ error }) => error !== undefined);
  for (const { id, error } of failed) {
    const where = error?.where === undefined ? '' : `\n  where: ${error.where}`;
    const next = error?.next === undefined ? '' : `\n  next:  ${error.next}`;
    parts.push(`${id}: ${error?.message}${where}${next}`);
  }
  if (failed.length === 0 && report.error) parts.push(`${report.error.message}\n  next:  ${report.error.next ?? '-'}`);
  parts.push(`Everything that was observed: dr runs ${report.runId} --json`);
  return parts.join('\n\n');
}

/** What the run means, in one sentence. */
export function headline(report: RunReport): string {
  const took = formatDuration(report.rto.achievedMs);
  const drill = report.mode === 'drill';
  switch (report.outcome) {
    case 'succeeded':
      return drill
        ? `The drill succeeded: ${rehearsedText(report)} in ${took}; production was not touched${restored(report) ? ', the copy is removed' : ''}.`
        : `${report.site} is serving: back after ${took}.`;
    case 'degraded':
      return drill
        ? `The drill came to its end after ${took}, but ${lostText(report)}.`
        : `${report.site} is serving after ${took}, but ${lostText(report)}.`;
    case 'failed':
      return drill
        ? 'The drill FAILED, and has cleaned up: it has ended, and the same command begins another one.'
        : 'The run FAILED, and has taken back what it had done: it has ended, and the same command begins another one.';
    case 'interrupted':
      return 'The drill was interrupted, and has cleaned up: it has ended, and the same command begins another one.';
    case 'abandoned':
      return 'The run was abandoned: another one was begun in its place.';
    default:
      return report.error
        ? `The run has STOPPED; the same command goes on from here. ${report.error.message}`
        : 'The run has not finished: it is running now, or its process has died; the same command goes on.';
  }
}

/** What a drill has done, of what there was to do: `recovered, checked and promoted`. */
function rehearsedText(report: RunReport): string {
  const done = [
    ...(restored(report) ? ['recovered'] : []),
    ...(succeededIn(report, (uses) => uses.startsWith('check.')) ? ['checked'] : []),
    ...(succeededIn(report, (uses) => uses === 'database.promote') ? ['promoted'] : []),
  ];
  return done.length === 0 ? 'every step came to its end' : list(done);
}

function restored(report: RunReport): boolean {
  return succeededIn(report, (uses) => uses.endsWith('.restore'));
}

/** Whether a step of some kind did its work; a drill has taken it back since. */
function succeededIn({ steps }: RunReport, kind: (uses: string) => boolean): boolean {
  return steps.some(
    ({ uses, status, error }) => kind(uses) && (status === 'done' || status === 'undone') && error === undefined,
  );
}

/** `4 min 10 s of 1 h: met`. */
export function rtoText({ rto, outcome }: RunReport): string {
  const verdict = outcome === 'succeeded' || outcome === 'degraded' ? (rto.met ? 'met' : 'MISSED') : 'so far';
  return `${formatDuration(rto.achievedMs)} of ${formatDuration(rto.objectiveMs)}: ${verdict}`;
}

function lastSign({ rto, disasterMs, mode, outcome }: RunReport): string | undefined {
  if (mode !== 'failover' || disasterMs === undefined) return undefined;
  const since = outcome === 'succeeded' || outcome === 'degraded' ? rto.sinceLastSignOfLifeMs : undefined;
  return `last sign of life ${formatTime(disasterMs)}${since === undefined ? '' : `, ${formatDuration(Math.max(0, since))} before service was back`}`;
}

function lostText({ resources, steps }: RunReport): string {
  const lost = resources.filter(({ status }) => status === 'lost').map(({ name }) => name);
  if (lost.length > 0) return `${lost.join(', ')} did not come back`;
  return `${count(steps.filter(({ status }) => status === 'failed').length, 'step')} failed on the way`;
}

/** How much of a resource is lost at most, against its objective. */
export function lossText({ status, lossMs, objectiveMs, met, problem }: ReportedResource): string {
  if (status === 'lost') return `NOT RECOVERED: ${problem ?? 'no reason known'}`;
  if (lossMs === undefined) return 'unknown';
  const verdict = met === undefined ? 'so far' : met ? 'met' : 'MISSED';
  const objective = objectiveMs === undefined ? '' : ` of ${formatDuration(objectiveMs)}: ${verdict}`;
  return `${formatDuration(lossMs)}${objective}`;
}

type Stage = RunReport['stages'][number];

function stageState({ status, ms, budgetMs }: Stage): string {
  if (status !== 'done') return status === 'failed' ? 'FAILED' : status;
  const over = ms !== undefined && budgetMs !== undefined && ms > budgetMs;
  return over ? `done, ${formatDuration(ms - budgetMs)} over its budget` : 'done';
}

export const stageColumns: readonly Column<Stage>[] = [
  { title: 'STAGE', value: ({ name }) => name },
  { title: 'STARTED', value: ({ startedAtMs }) => formatTime(startedAtMs).slice(11, 19) },
  { title: 'TOOK', value: ({ ms }) => (ms === undefined ? '-' : formatDuration(ms)), align: 'right' },
  {
    title: 'BUDGET',
    value: ({ budgetMs }) => (budgetMs === undefined ? '-' : formatDuration(budgetMs)),
    align: 'right',
  },
  { title: 'STATE', value: stageState },
];

export const resourceColumns: readonly Column<ReportedResource>[] = [
  { title: 'RESOURCE', value: ({ name }) => name },
  { title: 'KIND', value: ({ kind }) => kind },
  { title: 'SIZE', value: ({ bytes }) => (bytes === undefined ? '-' : formatBytes(bytes)), align: 'right' },
  { title: 'FROM', value: ({ vault }) => vault ?? '-' },
  {
    title: 'RECOVERED TO',
    value: ({ recoveredToMs }) => (recoveredToMs === undefined ? '-' : formatTime(recoveredToMs)),
  },
  { title: 'LOST AT MOST', value: lossText },
];
