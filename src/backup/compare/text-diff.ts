/** Some lines of one text that became some lines of another. Line numbers count from 0. */
export interface Edit {
  readonly from: number;
  readonly removed: number;
  readonly to: number;
  readonly added: number;
}

/** Edits with the lines around them, as `diff -u` shows them; lines begin with ` `, `-` or `+`. */
export interface Hunk {
  /** Numbers of the first lines, from 1 (0 where there is none). */
  readonly from: number;
  readonly fromLines: number;
  readonly to: number;
  readonly toLines: number;
  readonly lines: readonly string[];
}

/** Most single-line edits that are looked for; two texts that are further apart are shown as one replaced block. */
const mostEdits = 1500;

/** The shortest way from one list of lines to the other (Myers), within `mostEdits`; a longer one is one edit of all that differs. */
export function editsBetween(a: readonly string[], b: readonly string[]): Edit[] {
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const [left, right] = [a.slice(head, a.length - tail), b.slice(head, b.length - tail)];
  if (left.length === 0 && right.length === 0) return [];
  const moves = shortest(left, right);
  if (moves === undefined) return [{ from: head, removed: left.length, to: head, added: right.length }];
  const edits: Edit[] = [];
  for (const { x, y, isRemoval } of moves) {
    const last = edits.at(-1);
    const [from, to] = [x + head, y + head];
    if (last && last.from + last.removed === from && last.to + last.added === to) {
      edits.pop();
      edits.push({ ...last, removed: last.removed + (isRemoval ? 1 : 0), added: last.added + (isRemoval ? 0 : 1) });
    } else edits.push({ from, removed: isRemoval ? 1 : 0, to, added: isRemoval ? 0 : 1 });
  }
  return edits;
}

interface Move {
  readonly x: number;
  readonly y: number;
  readonly isRemoval: boolean;
}

function shortest(a: readonly string[], b: readonly string[]): Move[] | undefined {
  const most = Math.min(a.length + b.length, mostEdits);
  const offset = most + 1;
  const furthest = new Int32Array(2 * most + 3);
  const trace: Int32Array[] = [];
  for (let d = 0; d <= most; d++) {
    trace.push(furthest.slice(offset - d - 1, offset + d + 2));
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && at(furthest, offset + k - 1) < at(furthest, offset + k + 1));
      let x = down ? at(furthest, offset + k + 1) : at(furthest, offset + k - 1) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      furthest[offset + k] = x;
      if (x >= a.length && x - k >= b.length) return walkBack(trace, a.length, b.length);
    }
  }
  return undefined;
}

/** `trace[d]` holds the furthest points before round d, for the diagonals -d-1 … d+1. */
function walkBack(trace: readonly Int32Array[], endX: number, endY: number): Move[] {
  const moves: Move[] = [];
  let [x, y] = [endX, endY];
  for (let d = trace.length - 1; d > 0; d--) {
    const before = trace[d] ?? new Int32Array(0);
    const k = x - y;
    const value = (diagonal: number) => at(before, diagonal + d + 1);
    const down = k === -d || (k !== d && value(k - 1) < value(k + 1));
    const fromX = down ? value(k + 1) : value(k - 1);
    const fromY = fromX - (down ? k + 1 : k - 1);
    moves.push({ x: fromX, y: fromY, isRemoval: !down });
    [x, y] = [fromX, fromY];
  }
  return moves.reverse();
}

function at(list: Int32Array, index: number): number {
  return list[index] ?? 0;
}

/** The edits as hunks with `context` lines around each. */
export function hunksOf(a: readonly string[], b: readonly string[], context = 3): Hunk[] {
  const groups: Edit[][] = [];
  for (const edit of editsBetween(a, b)) {
    const last = groups.at(-1)?.at(-1);
    if (last && edit.from - (last.from + last.removed) <= 2 * context) groups.at(-1)?.push(edit);
    else groups.push([edit]);
  }
  return groups.map((edits) => {
    const [first, last] = [edits[0], edits.at(-1)];
    if (!first || !last) throw new RangeError('a hunk without edits');
    const before = Math.min(context, first.from);
    const start = first.from - before;
    const end = Math.min(a.length, last.from + last.removed + context);
    const lines: string[] = [];
    let shown = start;
    for (const { from, removed, to, added } of edits) {
      lines.push(...a.slice(shown, from).map((line) => ` ${line}`));
      lines.push(...a.slice(from, from + removed).map((line) => `-${line}`));
      lines.push(...b.slice(to, to + added).map((line) => `+${line}`));
      shown = from + removed;
    }
    lines.push(...a.slice(shown, end).map((line) => ` ${line}`));
    const fromLines = end - start;
    const toLines = fromLines + edits.reduce((sum, { added, removed }) => sum + added - removed, 0);
    const toStart = first.to - before;
    const numbered = (index: number, count: number) => (count === 0 ? index : index + 1);
    return { from: numbered(start, fromLines), fromLines, to: numbered(toStart, toLines), toLines, lines };
  });
}

/** Lines of a text; a last line without newline carries git's mark. */
export function linesOf(text: string): string[] {
  if (text === '') return [];
  const lines = text.split('\n');
  if (lines.at(-1) === '') return lines.slice(0, -1);
  const last = lines.pop() ?? '';
  return [...lines, `${last}\n\\ No newline at end of file`];
}
