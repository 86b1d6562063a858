import { formatDuration } from '../base/units.ts';
import type { RunReport } from '../runbook/run-report.ts';
import { headline, resourceColumns, rtoText, stageColumns } from './run-text.ts';
import { type Column, escapeMarkdown, renderMarkdownTable } from './table.ts';
import { formatTime } from './values.ts';

/** The report of a run as a document to keep: for management, auditors and the review afterwards. */
export function renderRunMarkdown(report: RunReport): string {
  const text = escapeMarkdown;
  const lines = [
    `# ${text(`${report.mode} from ${report.from} to ${report.site}, ${formatTime(report.startedAtMs)}`)}`,
    '',
    `**${text(headline(report))}**`,
    '',
    `- Run: \`${report.runId}\`, runbook ${text(report.runbook)}`,
    `- Reason: ${text(report.reason)}`,
    `- Executed by: ${report.by.map(text).join('; then ')}`,
    `- Time to recover: ${rtoText(report)}`,
    ...(report.rto.downtimeMs === undefined
      ? []
      : [`- Nobody could write for ${formatDuration(report.rto.downtimeMs)}`]),
    ...(report.disasterMs !== undefined && report.mode === 'failover'
      ? [`- Last sign of life of ${text(report.from)}: ${formatTime(report.disasterMs, true)}`]
      : []),
    ...(report.rto.sinceLastSignOfLifeMs === undefined
      ? []
      : [`- From that sign of life to service: ${formatDuration(Math.max(0, report.rto.sinceLastSignOfLifeMs))}`]),
    ...(report.acceptedSplitBrain === undefined
      ? []
      : [`- **${text(report.acceptedSplitBrain)} accepted that the old primary may still accept writes.**`]),
  ];
  const section = (title: string, body: string) => {
    if (body !== '') lines.push('', `## ${title}`, '', body);
  };
  section('Time by stage', table(stageColumns, report.stages));
  section('What came back', table(resourceColumns, report.resources));
  section(
    'Approvals',
    report.approvals
      .map(
        ({ step, name, at, comment }) => `- ${text(step)}: ${text(name)}, ${at}${comment ? `: ${text(comment)}` : ''}`,
      )
      .join('\n'),
  );
  section('Steps and evidence', report.steps.map(stepText).join('\n'));
  section('Timeline', table(timelineColumns, report.timeline));
  lines.push(
    '',
    `Journal: ${report.journal.entries} entries; SHA-256 of the last, which holds those of all before: \`${report.journal.sha256}\``,
    '',
  );
  return lines.join('\n');
}

function table<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  return rows.length === 0 ? '' : renderMarkdownTable(columns, rows);
}

function stepText(step: RunReport['steps'][number]): string {
  const took = step.ms === undefined ? '' : `, ${formatDuration(step.ms)}`;
  const tries = step.attempts > 1 ? `, ${step.attempts} attempts` : '';
  const approved = step.approvedBy === undefined ? '' : `, approved by ${escapeMarkdown(step.approvedBy)}`;
  const evidence = step.evidence.map((sentence) => `\n  - ${escapeMarkdown(sentence)}`).join('');
  const error = step.error ? `\n  - **${escapeMarkdown(step.error.message)}**` : '';
  return `- **${escapeMarkdown(step.id)}** (${escapeMarkdown(step.uses)}): ${step.status}${took}${tries}${approved}${evidence}${error}`;
}

const timelineColumns: readonly Column<RunReport['timeline'][number]>[] = [
  { title: 'TIME', value: ({ at }) => formatTime(Date.parse(at), true) },
  { title: 'WHAT', value: ({ text }) => text },
];
