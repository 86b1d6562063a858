import { codeOf, DrError, type ErrorKind, fileError, isAbort, messageOf } from '../base/errors.ts';
import { redact } from '../base/redact.ts';
import { ConfigError, formatPath } from '../config/problems.ts';

/** An error as it is shown: in one block of text, or as the `error` of a JSON document. */
export interface ErrorReport {
  readonly kind: ErrorKind;
  readonly message: string;
  readonly where?: string;
  /** The causes from the nearest to the first, without repetition. */
  readonly causes: readonly string[];
  readonly next?: string;
  /** Only of a configuration: each problem with its place. */
  readonly problems?: ReadonlyArray<{
    path: string;
    reason: string;
    line: number | undefined;
    column: number | undefined;
  }>;
}

/** The facts of anything that was thrown; what is no `DrError` and no known file error is a defect of dr. */
export function reportError(thrown: unknown): ErrorReport {
  const error = asDrError(thrown);
  return {
    kind: error.kind,
    message: redact(error.message),
    ...(error.where === undefined ? {} : { where: redact(error.where) }),
    causes: causesOf(error),
    ...(error.next ? { next: redact(error.next) } : {}),
    ...(error instanceof ConfigError
      ? {
          problems: error.problems.map((problem) => ({
            path: formatPath(problem.path),
            reason: redact(problem.reason),
            line: problem.line,
            column: problem.column,
          })),
        }
      : {}),
  };
}

/** One block: what, where, why, what to do next. */
export function renderError(report: ErrorReport): string {
  const lines = [`dr: ${report.message}`];
  const fact = (name: string, value: string) => {
    lines.push(`  ${name.padEnd(6)} ${value.replace(/\n/g, '\n         ')}`);
  };
  if (report.where !== undefined) fact('where:', report.where);
  for (const [i, cause] of report.causes.entries()) fact(i === 0 ? 'why:' : '', cause);
  if (report.next !== undefined) fact('next:', report.next);
  return `${lines.join('\n')}\n`;
}

function asDrError(thrown: unknown): DrError {
  if (thrown instanceof DrError) return thrown;
  if (isAbort(thrown)) return new DrError('interrupted', 'stopped before it was finished', { cause: thrown });
  if (codeOf(thrown) !== undefined && thrown instanceof Error && 'path' in thrown && typeof thrown.path === 'string') {
    const known = fileError(thrown, thrown.path, 'go on');
    if (known instanceof DrError) return known;
  }
  return new DrError('internal', `unexpected error: ${messageOf(thrown)}`, {
    next: 'This is a defect of dr: run it again with --log-level debug and report what it logs.',
    cause: thrown instanceof Error ? thrown.cause : undefined,
  });
}

/** A cause that only repeats what was said before helps nobody. */
function causesOf(error: Error): string[] {
  const causes: string[] = [];
  let said = error.message;
  let cause = error.cause;
  for (let depth = 0; cause !== undefined && cause !== null && depth < 8; depth++) {
    const message = messageOf(cause).trim();
    if (message !== '' && !said.includes(message)) causes.push(redact(message));
    said += `\n${message}`;
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  return causes;
}
