import { formatDuration } from '../base/units.ts';
import type { RunReport } from '../runbook/run-report.ts';
import { escapeHtml } from './html.ts';

const WIDTH = 1000;
/** Room for the names on the left. */
const NAMES = 260;
const ROW = 22;
const TOP = 30;

type Step = RunReport['steps'][number];
type Stage = RunReport['stages'][number];

interface Row {
  readonly label: string;
  readonly startedAtMs: number;
  readonly ms: number;
  readonly look: 'done' | 'failed' | 'open';
  /** Set for a stage: its part of the objective. */
  readonly stage?: Stage;
}

/**
 * The run as a picture: one band for each stage with its budget, one bar for each step, time from left to right from the first
 * command on, and the objective as a line. An SVG element; the empty string when nothing has begun.
 */
export function renderTimeline(report: RunReport): string {
  const rows = rowsOf(report);
  if (rows.length === 0) return '';
  const lastMs = Math.max(...rows.map(({ startedAtMs, ms }) => startedAtMs + ms), report.endedAtMs);
  const spanMs = Math.max(1000, lastMs - report.startedAtMs);
  // An objective far beyond the end would press the run into a corner.
  const showObjective = report.rto.objectiveMs <= 3 * spanMs;
  const scaleMs = showObjective ? Math.max(spanMs, report.rto.objectiveMs) : spanMs;
  const x = (ms: number) => NAMES + ((WIDTH - NAMES - 70) * Math.min(Math.max(0, ms), scaleMs)) / scaleMs;
  const height = TOP + rows.length * ROW + 8;
  const parts = [
    `<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="Timeline of the run">`,
    ...ticks(scaleMs).map(
      (ms) =>
        `<line class="grid" x1="${round(x(ms))}" x2="${round(x(ms))}" y1="${TOP - 6}" y2="${height - 4}"/>` +
        `<text class="soft" x="${round(x(ms))}" y="${TOP - 12}" text-anchor="middle">${escapeHtml(formatDuration(ms))}</text>`,
    ),
    ...rows.map((row, i) => drawRow(row, TOP + i * ROW, x, report.startedAtMs)),
  ];
  if (showObjective) {
    const at = round(x(report.rto.objectiveMs));
    parts.push(
      `<line class="objective" x1="${at}" x2="${at}" y1="${TOP - 6}" y2="${height - 4}"><title>objective: ${escapeHtml(formatDuration(report.rto.objectiveMs))}</title></line>`,
    );
  }
  parts.push('</svg>');
  return parts.join('\n');
}

function rowsOf(report: RunReport): Row[] {
  const rows: Row[] = [];
  for (const stage of report.stages) {
    const stageMs = stage.ms ?? Math.max(0, report.endedAtMs - stage.startedAtMs);
    rows.push({ label: stage.name, startedAtMs: stage.startedAtMs, ms: stageMs, look: stage.status, stage });
    for (const step of report.steps) {
      const { startedAtMs } = step;
      if (step.stage !== stage.name || startedAtMs === undefined) continue;
      const ms = step.ms ?? Math.max(0, report.endedAtMs - startedAtMs);
      rows.push({ label: step.id, startedAtMs, ms, look: lookOf(step) });
    }
  }
  return rows;
}

function lookOf({ status }: Step): Row['look'] {
  if (status === 'failed' || status === 'undo-failed') return 'failed';
  return status === 'done' || status === 'undone' ? 'done' : 'open';
}

function drawRow(row: Row, y: number, x: (ms: number) => number, zeroMs: number): string {
  const { stage } = row;
  const left = x(row.startedAtMs - zeroMs);
  const right = Math.max(left + 2, x(row.startedAtMs + row.ms - zeroMs));
  const title = `<title>${escapeHtml(`${row.label}: ${formatDuration(row.ms)}`)}</title>`;
  const took = `<text class="soft" x="${round(right + 5)}" y="${y + 14}">${escapeHtml(formatDuration(row.ms))}</text>`;
  const bar = (top: number, height: number) =>
    `<rect class="${row.look}" x="${round(left)}" y="${top}" width="${round(right - left)}" height="${height}" rx="2">${title}</rect>`;
  if (stage === undefined) {
    return `<text x="12" y="${y + 14}">${escapeHtml(cut(row.label))}</text>${bar(y + 4, ROW - 9)}${took}`;
  }
  const band = `<rect class="stage" x="0" y="${y}" width="${WIDTH}" height="${ROW}"/>`;
  const name = `<text x="2" y="${y + 15}" font-weight="600">${escapeHtml(stage.name)}</text>`;
  const end = stage.budgetMs === undefined ? undefined : x(stage.startedAtMs - zeroMs + stage.budgetMs);
  const budget =
    end === undefined || stage.budgetMs === undefined
      ? ''
      : `<rect class="budget" x="${round(left)}" y="${y + 3}" width="${round(Math.max(1, end - left))}" height="${ROW - 6}"><title>${escapeHtml(`budget: ${formatDuration(stage.budgetMs)}`)}</title></rect>`;
  return `${band}${name}${bar(y + 7, ROW - 14)}${budget}${took}`;
}

/** Five or so round moments. */
function ticks(scaleMs: number): number[] {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400];
  const every = 1000 * (steps.find((seconds) => (seconds * 1000 * 6) / scaleMs >= 1) ?? 86_400);
  const found: number[] = [];
  for (let ms = 0; ms <= scaleMs && found.length < 50; ms += every) found.push(ms);
  return found;
}

function cut(label: string): string {
  const most = 36;
  return label.length <= most ? label : `${label.slice(0, most - 1)}…`;
}

function round(value: number): string {
  return value.toFixed(1);
}
