import { formatDuration } from '../base/units.ts';
import type { RunReport } from '../runbook/run-report.ts';
import { escapeHtml, htmlDocument, renderHtmlTable } from './html.ts';
import { headline, resourceColumns, rtoText, stageColumns } from './run-text.ts';
import { renderTimeline } from './run-timeline.ts';
import type { Column } from './table.ts';
import { formatTime } from './values.ts';

/** The report of a run as one HTML file with the timeline drawn, for people who were not there. */
export function renderRunHtml(report: RunReport): string {
  const title = `${report.mode} from ${report.from} to ${report.site}, ${formatTime(report.startedAtMs)}`;
  const accepted = report.acceptedSplitBrain;
  const parts = [
    `<h1>${escapeHtml(title)}</h1>`,
    `<p class="soft">Run <code>${escapeHtml(report.runId)}</code>, runbook ${escapeHtml(report.runbook)}</p>`,
    `<p class="verdict ${look(report)}">${escapeHtml(headline(report))}</p>`,
    accepted === undefined
      ? ''
      : `<p class="verdict bad">${escapeHtml(accepted)} accepted that the old primary may still accept writes.</p>`,
    facts([
      ['Time to recover', rtoText(report)],
      ['Reason', report.reason],
      ['Executed by', report.by.join('; then ')],
      ...(report.rto.downtimeMs === undefined
        ? []
        : ([['Nobody could write for', formatDuration(report.rto.downtimeMs)]] as const)),
      ...(report.disasterMs === undefined || report.mode !== 'failover'
        ? []
        : ([[`Last sign of life of ${report.from}`, formatTime(report.disasterMs, true)]] as const)),
      ...(report.rto.sinceLastSignOfLifeMs === undefined
        ? []
        : ([['From there to service', formatDuration(Math.max(0, report.rto.sinceLastSignOfLifeMs))]] as const)),
    ]),
    section('Timeline', renderTimeline(report)),
    section('Time by stage', renderHtmlTable(stageColumns, report.stages)),
    section('What came back', renderHtmlTable(resourceColumns, report.resources)),
    section('Approvals', renderHtmlTable(approvalColumns, report.approvals)),
    section('Steps and evidence', report.steps.map(stepItem).join('\n')),
    section('Journal', renderHtmlTable(journalColumns, report.timeline)),
    `<p class="soft">${report.journal.entries} journal entries, each holding the SHA-256 of the one before; that of the last: <code>${escapeHtml(report.journal.sha256)}</code>.
<code>dr runs ${escapeHtml(report.runId)}</code> reads the journal again and checks the chain.</p>`,
  ];
  return htmlDocument(title, parts.filter((part) => part !== '').join('\n'));
}

function look({ outcome, rto, resources }: RunReport): 'good' | 'warn' | 'bad' {
  if (outcome === undefined) return 'warn';
  if (outcome !== 'succeeded' && outcome !== 'degraded') return 'bad';
  const short =
    outcome === 'degraded' || !rto.met || resources.some(({ status, met }) => status === 'lost' || met === false);
  return short ? 'warn' : 'good';
}

function facts(pairs: ReadonlyArray<readonly [name: string, value: string]>): string {
  return `<dl>${pairs.map(([name, value]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`).join('\n')}</dl>`;
}

function section(title: string, body: string): string {
  return body === '' ? '' : `<h2>${escapeHtml(title)}</h2>\n${body}`;
}

function stepItem(step: RunReport['steps'][number]): string {
  const took = step.ms === undefined ? '' : `, ${formatDuration(step.ms)}`;
  const tries = step.attempts > 1 ? `, ${step.attempts} attempts` : '';
  const approved = step.approvedBy === undefined ? '' : `, approved by ${step.approvedBy}`;
  const error = step.error;
  const lines = [
    ...step.evidence.map((sentence) => `<li>${escapeHtml(sentence)}</li>`),
    ...(error === undefined ? [] : [`<li class="bad">${escapeHtml(error.message)}</li>`]),
    ...(error?.where === undefined ? [] : [`<li class="bad">where: ${escapeHtml(error.where)}</li>`]),
  ];
  const list = lines.length === 0 ? '' : `<ul>${lines.join('')}</ul>`;
  return `<div><strong>${escapeHtml(step.id)}</strong> <span class="soft">${escapeHtml(step.uses)}: ${escapeHtml(`${step.status}${took}${tries}${approved}`)}</span>${list}</div>`;
}

const approvalColumns: readonly Column<RunReport['approvals'][number]>[] = [
  { title: 'STEP', value: ({ step }) => step },
  { title: 'WHO', value: ({ name }) => name },
  { title: 'WHEN', value: ({ at }) => formatTime(Date.parse(at)) },
  { title: 'COMMENT', value: ({ comment }) => comment ?? '' },
];

const journalColumns: readonly Column<RunReport['timeline'][number]>[] = [
  { title: 'TIME', value: ({ at }) => formatTime(Date.parse(at), true) },
  { title: 'WHAT', value: ({ text }) => text },
  { title: 'BY', value: ({ by }) => by },
];
