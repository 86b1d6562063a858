import { redact } from '../base/redact.ts';
import { formatBytes, formatDuration } from '../base/units.ts';

/** `2026-11-23 05:01:02 UTC`; with `fraction` to the millisecond. */
export function formatTime(ms: number, fraction = false): string {
  const iso = new Date(ms).toISOString();
  return `${iso.slice(0, 10)} ${iso.slice(11, fraction ? 23 : 19)} UTC`;
}

/** `3 min 2 s ago`, `in 4 h`, `now` (within a second). */
export function formatAge(ms: number, nowMs: number): string {
  const age = nowMs - ms;
  if (Math.abs(age) < 1000) return 'now';
  return age > 0 ? `${formatDuration(age)} ago` : `in ${formatDuration(-age)}`;
}

/** `53.1 MiB/s`; a dash when no time has passed. */
export function formatRate(bytes: number, ms: number): string {
  return ms > 0 ? `${formatBytes((bytes * 1000) / ms)}/s` : '-';
}

/** `one backup`, `3 backups`, `no backups`. */
export function count(number: number, one: string, many = `${one}s`): string {
  if (number === 0) return `no ${many}`;
  return number === 1 ? `one ${one}` : `${number} ${many}`;
}

/** `a`, `a and b`, `a, b and c`. */
export function list(words: readonly string[]): string {
  return words.length < 2 ? (words[0] ?? '') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`;
}

/**
 * One JSON document, indented, with a final newline. LSNs and other large integers become text, byte arrays their length,
 * and every string is redacted.
 */
export function renderJson(value: unknown): string {
  const replace = (_key: string, inner: unknown): unknown => {
    if (typeof inner === 'bigint') return inner.toString();
    if (typeof inner === 'string') return redact(inner);
    if (inner instanceof Map) return Object.fromEntries(inner);
    if (inner instanceof Set) return [...inner];
    if (inner instanceof Uint8Array) return { bytes: inner.length };
    return inner;
  };
  return `${JSON.stringify(value, replace, 2)}\n`;
}
