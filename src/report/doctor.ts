import type { Finding, Verdict } from '../base/finding.ts';
import { printable } from './table.ts';
import { count } from './values.ts';

/** What was found in one place, in the order in which it matters. */
export interface Area {
  /** `vault east`, `database orders at east`. */
  readonly name: string;
  readonly findings: readonly Finding[];
}

const marks: Readonly<Record<Verdict, string>> = { ok: 'ok  ', warn: 'warn', fail: 'FAIL' };

export interface DoctorCounts {
  readonly ok: number;
  readonly warn: number;
  readonly fail: number;
}

export function countVerdicts(areas: readonly Area[]): DoctorCounts {
  const counts = { ok: 0, warn: 0, fail: 0 };
  for (const { findings } of areas) for (const { verdict } of findings) counts[verdict]++;
  return counts;
}

/** The areas with their findings; under each that is not well, how to mend it. The last line says what it comes to. */
export function renderDoctor(areas: readonly Area[]): string {
  const lines: string[] = [];
  for (const { name, findings } of areas) {
    lines.push(name);
    for (const { verdict, what, next } of findings) {
      lines.push(`  ${marks[verdict]}  ${indented(what)}`);
      if (next) lines.push(`        next: ${indented(next, '              ')}`);
    }
    lines.push('');
  }
  lines.push(conclusion(countVerdicts(areas)));
  return lines.join('\n');
}

function conclusion({ ok, warn, fail }: DoctorCounts): string {
  const well = `${count(ok, 'check')} ok`;
  if (fail > 0) return `${count(fail, 'failure')}, ${count(warn, 'warning')}, ${well}: mend what is marked FAIL.`;
  if (warn > 0) return `Nothing fails; ${count(warn, 'warning')}, ${well}.`;
  return `All is well: ${well}.`;
}

/** Lines of the text stay lines (problems of a runbook); nothing else may move the cursor. */
function indented(text: string, blank = '        '): string {
  return text
    .split('\n')
    .map((line) => printable(line))
    .join(`\n${blank}`);
}
