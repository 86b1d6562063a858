import type { ErrorKind } from '../base/errors.ts';

/** What the shell is told: one code for each class of failure, the same for every command. */
export const exitCodes: Readonly<Record<ErrorKind, { readonly code: number; readonly means: string }>> = {
  internal: { code: 1, means: 'a defect of dr; the log has the stack' },
  usage: { code: 2, means: 'wrong arguments' },
  config: { code: 3, means: 'the configuration cannot be used' },
  'objective-broken': { code: 4, means: 'done, but an objective is not met or a vault lacks its copy' },
  'lease-held': { code: 5, means: 'another dr is doing this already' },
  'not-found': { code: 6, means: 'no such resource, backup, recovery point, run or object' },
  corrupt: { code: 7, means: 'stored bytes are damaged or missing' },
  'wrong-key': { code: 8, means: 'the identity does not open this vault' },
  unreachable: { code: 9, means: 'a vault, database, DNS or HTTP endpoint does not answer' },
  denied: { code: 10, means: 'an endpoint refuses the credentials' },
  refused: { code: 11, means: 'dr refuses, because going on could do harm' },
  conflict: { code: 12, means: 'something else is there under the same name' },
  local: { code: 13, means: 'this machine: disk full, read-only, no permission, program missing' },
  'check-failed': { code: 14, means: 'a check of a verification, validation or doctor said no' },
  interrupted: { code: 130, means: 'stopped by a signal' },
};

/** 0 is success, and nothing else is. */
export function exitCodeOf(kind: ErrorKind | undefined): number {
  return kind === undefined ? 0 : exitCodes[kind].code;
}

/** The table for `--help`, in order of the codes; without `kinds` all of them. */
export function exitCodeHelp(kinds?: readonly ErrorKind[]): string {
  const all = Object.entries(exitCodes) as [ErrorKind, { code: number; means: string }][];
  const shown = all.filter(([kind]) => kinds === undefined || kinds.includes(kind)).map(([, exit]) => exit);
  return [
    'Exit codes:',
    ...[{ code: 0, means: 'success' }, ...shown].map(({ code, means }) => `  ${String(code).padStart(3)}  ${means}`),
  ].join('\n');
}
