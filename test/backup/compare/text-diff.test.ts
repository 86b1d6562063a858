import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Hunk, hunksOf, linesOf } from '../../../src/backup/compare/text-diff.ts';

/** What `patch` does: takes the hunks for what they say. */
function patched(before: readonly string[], hunks: readonly Hunk[]): string[] {
  const after: string[] = [];
  let at = 0;
  for (const { from, fromLines, to, toLines, lines } of hunks) {
    const start = fromLines === 0 ? from : from - 1;
    after.push(...before.slice(at, start));
    expect(toLines === 0 ? to : to - 1).toBe(after.length);
    const old = lines.filter((line) => !line.startsWith('+')).map((line) => line.slice(1));
    const now = lines.filter((line) => !line.startsWith('-')).map((line) => line.slice(1));
    expect(before.slice(start, start + fromLines)).toEqual(old);
    expect(now).toHaveLength(toLines);
    after.push(...now);
    at = start + fromLines;
  }
  return [...after, ...before.slice(at)];
}

const text = fc.array(fc.constantFrom('a', 'b', 'c', 'd: 1', ''), { maxLength: 40 });

describe('hunks', () => {
  test('made into a patch, they turn one text into the other', () => {
    const property = fc.property(text, text, (a, b) => {
      expect(patched(a, hunksOf(a, b))).toEqual(b);
    });
    fc.assert(property, { numRuns: 500 });
  });

  test('equal texts have none; one line that changed is one hunk with three lines around it', () => {
    const a = Array.from({ length: 20 }, (_, i) => `line ${i}`);
    expect(hunksOf(a, [...a])).toEqual([]);
    const b = a.with(10, 'other');
    expect(hunksOf(a, b)).toEqual([
      {
        from: 8,
        fromLines: 7,
        to: 8,
        toLines: 7,
        lines: [' line 7', ' line 8', ' line 9', '-line 10', '+other', ' line 11', ' line 12', ' line 13'],
      },
    ]);
  });

  test('the shortest way is found: what was moved in is not a rewrite', () => {
    const a = ['a', 'b', 'c', 'd', 'e'];
    const b = ['a', 'x', 'b', 'c', 'd', 'e'];
    expect(hunksOf(a, b).flatMap(({ lines }) => lines.filter((line) => !line.startsWith(' ')))).toEqual(['+x']);
  });

  test('texts of which everything differs are one replaced block, at once', () => {
    const a = Array.from({ length: 20_000 }, (_, i) => `a ${i}`);
    const b = Array.from({ length: 20_000 }, (_, i) => `b ${i}`);
    const hunks = hunksOf(a, b);
    expect(patched(a, hunks)).toEqual(b);
    expect(hunks).toHaveLength(1);
  });

  test('a missing newline at the end is shown as git shows it', () => {
    const lines = hunksOf(linesOf('a\nb\n'), linesOf('a\nb')).flatMap((hunk) => hunk.lines);
    expect(lines).toEqual([' a', '-b', '+b\n\\ No newline at end of file']);
  });
});
