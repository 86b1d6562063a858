/** One column of a table for people. */
export interface Column<Row> {
  readonly title: string;
  readonly value: (row: Row) => string;
  /** Numbers stand better to the right. */
  readonly align?: 'left' | 'right';
}

const gap = '  ';
/** Text of which each character is printable ASCII: nearly all of it, and a table may have tens of thousands of rows. */
const plain = /^[\x20-\x7e]*$/;

/** Rows as aligned text, with a line of titles; the empty string when there are no rows (callers say so in words). */
export function renderTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  if (rows.length === 0) return '';
  const cells = rows.map((row) => columns.map((column) => printable(column.value(row))));
  const widths = columns.map((column, i) =>
    Math.max(width(column.title), ...cells.map((line) => width(line[i] ?? ''))),
  );
  const line = (texts: readonly string[]) =>
    columns
      .map((column, i) => pad(texts[i] ?? '', widths[i] ?? 0, column.align ?? 'left'))
      .join(gap)
      .trimEnd();
  return [line(columns.map((column) => column.title)), ...cells.map(line)].join('\n');
}

/** Rows as a Markdown table; cell text is escaped. */
export function renderMarkdownTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const line = (texts: readonly string[]) => `| ${texts.join(' | ')} |`;
  const rule = columns.map((column) => (column.align === 'right' ? '---:' : '---'));
  const body = rows.map((row) => line(columns.map((column) => escapeMarkdown(printable(column.value(row))))));
  return [line(columns.map((column) => escapeMarkdown(column.title))), line(rule), ...body].join('\n');
}

/** Names and their values, one a line, the values aligned; pairs whose value is undefined are left out. */
export function renderFacts(
  facts: ReadonlyArray<readonly [name: string, value: string | undefined]>,
  indent = '',
): string {
  const known = facts.filter((fact): fact is readonly [string, string] => fact[1] !== undefined);
  const widest = Math.max(0, ...known.map(([name]) => width(name)));
  return known.map(([name, value]) => `${indent}${pad(`${name}:`, widest + 1, 'left')} ${printable(value)}`).join('\n');
}

/** Text with control characters shown as escapes (`\n`, `\x1b`): a file name must not move the cursor. */
export function printable(text: string): string {
  if (plain.test(text)) return text;
  return text.replace(/[\p{Cc}\u2028\u2029]/gu, (character) => {
    const short: Record<string, string> = { '\n': '\\n', '\t': '\\t', '\r': '\\r' };
    return short[character] ?? `\\x${(character.codePointAt(0) ?? 0).toString(16).padStart(2, '0')}`;
  });
}

/** Text that Markdown shows as it is. */
export function escapeMarkdown(text: string): string {
  return text.replace(/[\\`*_{}[\]<>|#]/g, (character) => `\\${character}`);
}

/** Columns of a terminal that the text takes: marks that combine take none, wide East Asian characters and emoji two. */
export function width(text: string): number {
  if (plain.test(text)) return text.length;
  let columns = 0;
  for (const character of text) {
    if (/\p{Mn}|\p{Me}|\p{Cf}/u.test(character)) continue;
    columns +=
      /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u.test(
        character,
      )
        ? 2
        : 1;
  }
  return columns;
}

function pad(text: string, columns: number, align: 'left' | 'right'): string {
  const blank = ' '.repeat(Math.max(0, columns - width(text)));
  return align === 'right' ? blank + text : text + blank;
}
