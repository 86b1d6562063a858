import { formatDuration } from '../base/units.ts';
import type { RunSummary } from '../runbook/history.ts';
import { type Column, renderTable } from './table.ts';
import { formatTime } from './values.ts';

/** The runs that the vaults know, newest first. */
export function renderRunList(runs: readonly RunSummary[]): string {
  if (runs.length === 0) return 'There has been no run yet: "dr failover --drill" proves that a recovery works.';
  return renderTable(columns, runs);
}

const columns: readonly Column<RunSummary>[] = [
  { title: 'RUN', value: ({ id }) => id },
  { title: 'MODE', value: ({ state }) => state?.started?.mode ?? '-' },
  { title: 'FROM', value: ({ state }) => state?.started?.from ?? '-' },
  { title: 'TO', value: ({ state }) => state?.started?.site ?? '-' },
  { title: 'STARTED', value: ({ state }) => (state ? formatTime(state.startedAtMs) : '-') },
  { title: 'TOOK', value: tookOf, align: 'right' },
  { title: 'STATE', value: stateText },
];

function tookOf({ state }: RunSummary): string {
  const ends = (state?.steps ?? []).flatMap(({ endedAtMs }) => endedAtMs ?? []);
  return state && ends.length > 0 ? formatDuration(Math.max(...ends) - state.startedAtMs) : '-';
}

function stateText({ state, error }: RunSummary): string {
  if (state === undefined) return `cannot be read: ${error ?? 'no reason known'}`;
  if (state.status === 'finished') return state.outcome ?? 'finished';
  const at = state.steps.find(({ status }) => ['running', 'failed', 'undoing', 'undo-failed'].includes(status));
  const where = at ? ` at ${at.plan.id}` : '';
  if (state.status === 'stopped') return `stopped${where}; the same command goes on`;
  return `${state.status === 'undoing' ? 'cleaning up' : 'running or killed'}${where}`;
}
