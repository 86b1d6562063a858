import { redact } from '../base/redact.ts';
import { type Column, printable } from './table.ts';

/** Text that HTML shows as it is, without secrets. */
export function escapeHtml(text: string): string {
  const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
  return printable(redact(text)).replace(/[&<>"']/g, (character) => entities[character] ?? character);
}

/** Rows as an HTML table; the empty string when there are none. */
export function renderHtmlTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  if (rows.length === 0) return '';
  const classOf = ({ align }: Column<Row>) => (align === 'right' ? ' class="number"' : '');
  const head = columns.map((column) => `<th${classOf(column)}>${escapeHtml(column.title.toLowerCase())}</th>`);
  const body = rows.map(
    (row) =>
      `<tr>${columns.map((column) => `<td${classOf(column)}>${escapeHtml(column.value(row))}</td>`).join('')}</tr>`,
  );
  return `<table><thead><tr>${head.join('')}</tr></thead><tbody>\n${body.join('\n')}\n</tbody></table>`;
}

/** One file that needs nothing else: no script, no font, no picture from elsewhere; readable dark, light and on paper. */
export function htmlDocument(title: string, body: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escapeHtml(title)}</title>
<style>
${style}
</style>
</head>
<body>
<main>
${body}
</main>
</body>
</html>
`;
}

const style = `:root { color-scheme: light dark; --text: #1c2330; --soft: #5b6677; --line: #d9dee6; --page: #fff; --band: #f4f6f9;
  --good: #1a7f4b; --warn: #a15c00; --bad: #b3261e; --bar: #2f6fb5; }
@media (prefers-color-scheme: dark) { :root { --text: #e6eaf0; --soft: #9aa6b6; --line: #343c48; --page: #14181f; --band: #1c222b;
  --good: #4cc38a; --warn: #e0a458; --bad: #f2827a; --bar: #6aa5e3; } }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2.25rem 0 .5rem; }
.verdict { font-size: 1.1rem; font-weight: 600; border-left: .3rem solid var(--soft); padding: .25rem .75rem; margin: 1rem 0; }
.verdict.good { border-color: var(--good); } .verdict.warn { border-color: var(--warn); } .verdict.bad { border-color: var(--bad); }
.soft { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--line); }
th, td { padding: .3rem .75rem .3rem 0; vertical-align: top; overflow-wrap: anywhere; }
tbody tr:nth-child(even) { background: var(--band); }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
code { font: .85em ui-monospace, monospace; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--text); } svg .soft { fill: var(--soft); } svg .grid { stroke: var(--line); }
svg .done { fill: var(--bar); } svg .failed { fill: var(--bad); } svg .open { fill: var(--warn); }
svg .budget { fill: none; stroke: var(--soft); stroke-dasharray: 3 2; } svg .stage { fill: var(--band); }
svg .objective { stroke: var(--bad); stroke-dasharray: 5 3; }
ul { margin: .2rem 0; padding-left: 1.2rem; } .bad { color: var(--bad); }
@media print { body { font-size: 11px; } main { max-width: none; padding: 0; } h2 { break-after: avoid; } tr { break-inside: avoid; } }`;
