import { createHash } from 'node:crypto';
import { CronExpressionParser } from 'cron-parser';
import { parseDuration } from '../base/units.ts';
import type { Cadence } from './types.ts';

const dayMs = 86_400_000;
const minuteMs = 60_000;
const words: Record<string, number> = { hourly: 3_600_000, daily: dayMs, nightly: dayMs, weekly: 7 * dayMs };
const weekdays = ['sunday', 'monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday'];
const defaultQuietMs = 2000;

/** What can be written where a cadence is asked for; shown when something else was. */
export const cadenceForms =
  'every 6 hours, hourly, daily, daily at 02:30, weekly on sunday at 03:00 Europe/Berlin, or a cron expression like "0 */6 * * * Europe/Berlin"';

/**
 * Reads a cadence as people write it. Clock times and cron expressions are UTC unless a time zone follows.
 * Returns a sentence that says what is wrong when it is none.
 */
export function parseCadence(text: string): Cadence | string {
  const plain = text.trim().replace(/\s+/g, ' ');
  const lower = plain.toLowerCase();

  const onChange = /^on[- ]change(?: after (.+))?$/.exec(lower);
  if (onChange) {
    const quietMs = onChange[1] === undefined ? defaultQuietMs : parseDuration(onChange[1]);
    if (quietMs === undefined)
      return `"${onChange[1]}" is not a length of time: write for example "on change after 10s"`;
    return { kind: 'on-change', quietMs, text: plain };
  }

  const everyMs = words[lower];
  if (everyMs !== undefined) return { kind: 'every', everyMs, text: plain };

  const clock = /^(daily|weekly on (\w+)|every (\w+)) at (\d{1,2}):(\d{2})(?: (\S+))?$/i.exec(plain);
  if (clock) {
    const day = (clock[2] ?? clock[3])?.toLowerCase();
    const weekday = day === undefined ? '*' : String(weekdays.indexOf(day));
    if (weekday === '-1') return `"${day}" is not a day of the week`;
    return cron(`${Number(clock[5])} ${Number(clock[4])} * * ${weekday}`, clock[6], plain);
  }

  const every = /^every (.+)$/.exec(lower);
  if (every) {
    const length = every[1] ?? '';
    const ms = parseDuration(/^\d/.test(length) ? length : `1 ${length}`);
    if (ms === undefined) return `"${length}" is not a length of time: write for example "every 6 hours"`;
    if (ms < minuteMs) return 'the shortest cadence is every minute (shorter losses are what the WAL is for)';
    return { kind: 'every', everyMs: ms, text: plain };
  }

  const fields = plain.split(' ');
  if (/^[\d*]/.test(plain) && (fields.length === 5 || fields.length === 6)) {
    return cron(fields.slice(0, 5).join(' '), fields[5], plain);
  }
  return `"${plain}" is not a cadence: write ${cadenceForms}`;
}

/** `on change` with another quiet time, unless one is written: `on change after 2s` stays. */
export function withQuiet(cadence: Cadence, quietMs: number): Cadence {
  return cadence.kind === 'on-change' && !/ after /i.test(cadence.text) ? { ...cadence, quietMs } : cadence;
}

function cron(expression: string, timeZone: string | undefined, text: string): Cadence | string {
  const zone = timeZone ?? 'UTC';
  try {
    new Intl.DateTimeFormat('en', { timeZone: zone });
  } catch {
    return `"${zone}" is not a time zone: write a name like Europe/Berlin, or leave it out for UTC`;
  }
  try {
    CronExpressionParser.parse(expression, { tz: zone, currentDate: new Date(0) }).next();
  } catch (error) {
    return `"${expression}" is not a cron expression: ${error instanceof Error ? error.message : String(error)}`;
  }
  return { kind: 'cron', expression, timeZone: zone, text };
}

/**
 * Milliseconds by which everything of this cadence is shifted for `seedName`, so that many resources do not start at the
 * same moment: the same name always gets the same shift (0 to a twentieth of the interval), hence intervals stay exact.
 * At most 5 minutes for "every …", at most 30 seconds where a clock time was asked for.
 */
export function jitterMs(cadence: Cadence, seedName: string): number {
  if (cadence.kind === 'on-change' || seedName === '') return 0;
  const bound = Math.min(worstIntervalMs(cadence) / 20, cadence.kind === 'every' ? 5 * minuteMs : minuteMs / 2);
  const fraction = createHash('sha256').update(seedName).digest().readUInt32BE(0) / 2 ** 32;
  return Math.floor(bound * fraction);
}

/** The first due moment after `fromMs`; undefined for `on-change`, which has none. Intervals count from 1970, in UTC. */
export function nextRunAfter(cadence: Cadence, fromMs: number, seedName = ''): number | undefined {
  if (cadence.kind === 'on-change') return undefined;
  const shift = jitterMs(cadence, seedName);
  const base = fromMs - shift;
  if (cadence.kind === 'every') return (Math.floor(base / cadence.everyMs) + 1) * cadence.everyMs + shift;
  return cronAround(cadence, base).nextMs + shift;
}

/** The last due moment at or before `nowMs`: older work than that has been missed. Undefined for `on-change`. */
export function previousDue(cadence: Cadence, nowMs: number, seedName = ''): number | undefined {
  if (cadence.kind === 'on-change') return undefined;
  const shift = jitterMs(cadence, seedName);
  const base = nowMs - shift;
  if (cadence.kind === 'every') return Math.floor(base / cadence.everyMs) * cadence.everyMs + shift;
  return cronAround(cadence, base).dueMs + shift;
}

/**
 * The occurrences at or before, and after, a moment. Around the hour that summer time takes away, the parser's answer
 * depends on where it starts and backwards it skips what forwards it finds: stepping forwards from the day before decides.
 */
function cronAround(cadence: Cadence & { kind: 'cron' }, ms: number): { dueMs: number; nextMs: number } {
  const from = (startMs: number) =>
    CronExpressionParser.parse(cadence.expression, { tz: cadence.timeZone, currentDate: new Date(startMs) });
  const earlier = from(ms + 1).prev();
  const forwards = from(earlier.getTime() - 1);
  let dueMs = forwards.next().getTime();
  let nextMs = forwards.next().getTime();
  while (nextMs <= ms) {
    dueMs = nextMs;
    nextMs = forwards.next().getTime();
  }
  return { dueMs, nextMs };
}

/**
 * The longest time between two due moments, milliseconds (changes of the clock to and from summer time left aside).
 * For `on-change` the quiet time: that is how long a change waits.
 */
export function worstIntervalMs(cadence: Cadence): number {
  if (cadence.kind === 'every') return cadence.everyMs;
  if (cadence.kind === 'on-change') return cadence.quietMs;
  const known = worstOfCron.get(cadence.expression);
  if (known !== undefined) return known;
  const worst = longestCronGap(cadence.expression);
  worstOfCron.set(cadence.expression, worst);
  return worst;
}

const worstOfCron = new Map<string, number>();

/** Days are stepped through by the parser; within a day the minutes and hours of the expression say all. */
function longestCronGap(expression: string): number {
  const { fields } = CronExpressionParser.parse(expression, { tz: 'UTC' });
  const minutes: number[] = [];
  for (const hour of fields.hour.values)
    for (const minute of fields.minute.values) minutes.push(Number(hour) * 60 + Number(minute));
  minutes.sort((a, b) => a - b);
  const first = minutes[0] ?? 0;
  const last = minutes.at(-1) ?? 0;
  let within = 0;
  minutes.forEach((minute, i) => {
    within = Math.max(within, minute - (minutes[i - 1] ?? minute));
  });

  const daysOnly = expression.split(' ').slice(2).join(' ');
  const between = daysOnly === '* * *' ? dayMs : longestDayGap(daysOnly);
  return Math.max(within * minuteMs, between - (last - first) * minuteMs);
}

/** 400 days hold every pattern but the leap day's, whose gap of years shows at its first pair. */
function longestDayGap(daysOnly: string): number {
  const start = Date.UTC(2026, 0, 1) - 1;
  const days = CronExpressionParser.parse(`0 0 ${daysOnly}`, { tz: 'UTC', currentDate: new Date(start) });
  let previous = days.next().getTime();
  let longest = 0;
  do {
    const day = days.next().getTime();
    longest = Math.max(longest, day - previous);
    previous = day;
  } while (previous < start + 400 * dayMs);
  return longest;
}
