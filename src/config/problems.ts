import { DrError } from '../base/errors.ts';
import { redact } from '../base/redact.ts';

/** Where something stands in the configuration: keys and list positions from the top. */
export type KeyPath = readonly (string | number)[];

/** One thing that is wrong (or, as a warning, doubtful) in the configuration. Line and column count from 1. */
export interface ConfigProblem {
  readonly path: KeyPath;
  readonly reason: string;
  readonly line: number | undefined;
  readonly column: number | undefined;
}

/** Takes what is wrong, and what is only doubtful, at a place of the file. */
export interface Findings {
  wrong(path: KeyPath, reason: string): void;
  doubtful(path: KeyPath, reason: string): void;
}

/** The configuration cannot be used: `problems` has everything that was found, in the order of the file. */
export class ConfigError extends DrError {
  readonly problems: readonly ConfigProblem[];

  constructor(file: string, problems: readonly ConfigProblem[]) {
    const count = problems.length === 1 ? 'one problem' : `${problems.length} problems`;
    super(
      'config',
      `the configuration has ${count}:\n${problems.map((problem) => `  - ${formatProblem(problem)}`).join('\n')}`,
      {
        where: file,
        next: `Correct ${problems.length === 1 ? 'it' : 'them'} and run "dr validate".`,
      },
    );
    this.problems = problems;
  }
}

/** `databases.orders.retension: unknown key; did you mean retention? (line 14, column 5)` */
export function formatProblem(problem: ConfigProblem): string {
  const place = problem.line === undefined ? '' : ` (line ${problem.line}, column ${problem.column ?? 1})`;
  const path = formatPath(problem.path);
  return redact(`${path === '' ? '' : `${path}: `}${problem.reason}${place}`);
}

/** `databases.orders.url`, `validation.http[0].site`; names that are not plain words are quoted. */
export function formatPath(path: KeyPath): string {
  return path
    .map((key, i) => {
      if (typeof key === 'number') return `[${key}]`;
      const name = /^[\w-]+$/.test(key) ? key : JSON.stringify(key);
      return i === 0 ? name : `.${name}`;
    })
    .join('');
}

/** `; did you mean retention?` when one of the known names is near enough, else what there is to choose from. */
export function suggestion(written: string, known: readonly string[]): string {
  const near = nearest(written, known);
  if (near !== undefined) return `; did you mean ${near}?`;
  return known.length > 0 && known.length <= 16 ? `; known are ${known.join(', ')}` : '';
}

/** The known name with the fewest edits from what was written, if few enough to be a slip. */
export function nearest(written: string, known: readonly string[]): string | undefined {
  const plain = (text: string) => text.toLowerCase().replace(/[-_]/g, '');
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(written.length / 3)) + 1;
  for (const candidate of known) {
    const distance = editDistance(plain(written), plain(candidate));
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let cost = Math.min((previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1, (previous[j - 1] ?? 0) + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        cost = Math.min(cost, (before[j - 2] ?? 0) + 1);
      current.push(cost);
    }
    before = previous;
    previous = current;
  }
  return previous[b.length] ?? 0;
}
