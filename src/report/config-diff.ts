import type { ChangedBy, Comparison, FileChange } from '../backup/compare/compare.ts';
import type { Hunk } from '../backup/compare/text-diff.ts';
import { redact } from '../base/redact.ts';
import { formatBytes } from '../base/units.ts';
import { type Column, printable, renderTable } from './table.ts';
import { count, formatTime } from './values.ts';

/** Two states of a configuration as git would show them; with `stat` only which files, how much, and who. */
export function renderConfigDiff(name: string, comparison: Comparison, stat: boolean): string {
  const { before, after, changes, unchanged } = comparison;
  const side = ({ name: id, atMs, where }: Comparison['before']) => `${id} (${where}, ${formatTime(atMs)})`;
  const head = [`${name}: ${side(before)}`, `${' '.repeat(name.length)}→ ${side(after)}`].map(printable).join('\n');
  if (changes.length === 0) return `${head}\nNothing differs: ${count(unchanged, 'file')} the same.`;
  const body = stat ? renderTable(columns, changes) : changes.map(renderChange).join('\n');
  return `${head}\n\n${body}\n\n${total(comparison)}`;
}

const signs: Readonly<Record<FileChange['status'], string>> = { added: 'A', removed: 'D', changed: 'M' };

const columns: readonly Column<FileChange>[] = [
  { title: '', value: ({ status }) => signs[status] },
  { title: 'file', value: ({ path }) => path },
  {
    title: 'lines',
    align: 'right',
    value: ({ content, added, removed }) => (content === 'text' ? `+${added} -${removed}` : content),
  },
  { title: 'by', value: ({ by }) => by.map(({ manager }) => manager).join(', ') },
  {
    title: 'when',
    value: ({ by }) =>
      by
        .map(({ time }) => time ?? '')
        .sort()
        .at(-1) ?? '',
  },
];

function total({ changes, unchanged }: Comparison): string {
  const of = (status: FileChange['status']) => changes.filter((change) => change.status === status).length;
  const lines = (key: 'added' | 'removed') => changes.reduce((sum, change) => sum + change[key], 0);
  return `${count(changes.length, 'file')} of ${changes.length + unchanged} differ: ${of('changed')} changed, ${of('added')} added, ${of('removed')} removed; ${lines('added')} lines more, ${lines('removed')} fewer.`;
}

function renderChange(change: FileChange): string {
  const { path, status, mode, content, size, hunks } = change;
  const [a, b] = [`a/${printable(path)}`, `b/${printable(path)}`];
  const lines = [`diff ${a} ${b}`];
  if (status !== 'changed') lines.push(status === 'added' ? 'new file' : 'deleted file');
  if (mode) lines.push(`old mode ${mode.before.toString(8)}`, `new mode ${mode.after.toString(8)}`);
  lines.push(...change.by.map((by) => renderBy(by, change)));
  if (content === 'binary')
    lines.push(`Binary files ${a} and ${b} differ (${formatBytes(size.before)}, ${formatBytes(size.after)})`);
  if (content === 'large')
    lines.push(`Large files ${a} and ${b} differ (${formatBytes(size.before)}, ${formatBytes(size.after)})`);
  if (hunks.length > 0) {
    lines.push(`--- ${status === 'added' ? '/dev/null' : a}`, `+++ ${status === 'removed' ? '/dev/null' : b}`);
    lines.push(...renderHunks(hunks));
  }
  return lines.join('\n');
}

function renderBy({ manager, operation, time, fields }: ChangedBy, { status }: FileChange): string {
  const when = time === undefined ? '' : ` ${formatTime(Date.parse(time))}`;
  const what = status === 'removed' ? 'last written by' : status === 'added' ? 'written by' : 'changed by';
  const which = fields.length > 0 ? `: ${fields.join(', ')}` : '';
  return printable(`${what} ${manager} (${operation})${when}${which}`);
}

/** Hunks as `diff -u` writes them. */
export function renderHunks(hunks: readonly Hunk[]): string[] {
  const range = (start: number, lines: number) => (lines === 1 ? String(start) : `${start},${lines}`);
  return hunks.flatMap(({ from, fromLines, to, toLines, lines }) => [
    `@@ -${range(from, fromLines)} +${range(to, toLines)} @@`,
    ...lines.flatMap((line) => line.split('\n')).map((line) => redact(line).split('\t').map(printable).join('\t')),
  ]);
}
