import { formatTime } from '../report/values.ts';

const levels: Record<number, string> = { 10: 'trace', 20: 'debug', 30: 'info', 40: 'warn', 50: 'error', 60: 'fatal' };

/** A line of the JSON log as a person reads it on a terminal: `05:01:02 warn  a sentence (vault=west)`. */
export function readableLogLine(line: string): string {
  let entry: Record<string, unknown>;
  try {
    const parsed: unknown = JSON.parse(line);
    if (typeof parsed !== 'object' || parsed === null) return line.trimEnd();
    entry = { ...parsed };
  } catch {
    return line.trimEnd();
  }
  const { level, time, msg, error, ...facts } = entry;
  const clock = typeof time === 'string' ? formatTime(Date.parse(time)).slice(11, 19) : '';
  const shown = Object.entries(facts).map(
    ([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  if (typeof error === 'object' && error !== null && 'stack' in error) shown.push(`\n${String(error.stack)}`);
  else if (error !== undefined) shown.push(`error=${typeof error === 'string' ? error : JSON.stringify(error)}`);
  const rest = shown.length === 0 ? '' : ` (${shown.join(' ')})`;
  return `${clock} ${(levels[Number(level)] ?? '').padEnd(5)} ${String(msg ?? '')}${rest}`;
}
