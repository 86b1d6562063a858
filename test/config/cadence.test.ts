import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { jitterMs, nextRunAfter, parseCadence, previousDue, worstIntervalMs } from '../../src/config/cadence.ts';
import type { Cadence } from '../../src/config/types.ts';

const hour = 3_600_000;
const day = 24 * hour;

function cadence(text: string): Cadence {
  const parsed = parseCadence(text);
  if (typeof parsed === 'string') throw new Error(parsed);
  return parsed;
}

const at = (text: string) => Date.parse(text);
const iso = (ms: number | undefined) => (ms === undefined ? undefined : new Date(ms).toISOString());

describe('what people write', () => {
  test.each([
    ['every 6 hours', { kind: 'every', everyMs: 6 * hour }],
    ['Every 90  minutes', { kind: 'every', everyMs: 90 * 60_000 }],
    ['every hour', { kind: 'every', everyMs: hour }],
    ['hourly', { kind: 'every', everyMs: hour }],
    ['daily', { kind: 'every', everyMs: day }],
    ['weekly', { kind: 'every', everyMs: 7 * day }],
    ['daily at 02:30', { kind: 'cron', expression: '30 2 * * *', timeZone: 'UTC' }],
    ['daily at 2:05 Europe/Berlin', { kind: 'cron', expression: '5 2 * * *', timeZone: 'Europe/Berlin' }],
    ['weekly on Sunday at 03:00', { kind: 'cron', expression: '0 3 * * 0', timeZone: 'UTC' }],
    ['every monday at 04:00', { kind: 'cron', expression: '0 4 * * 1', timeZone: 'UTC' }],
    ['0 */6 * * *', { kind: 'cron', expression: '0 */6 * * *', timeZone: 'UTC' }],
    [
      '*/10 8-18 * * 1-5 America/New_York',
      { kind: 'cron', expression: '*/10 8-18 * * 1-5', timeZone: 'America/New_York' },
    ],
    ['on change', { kind: 'on-change', quietMs: 2000 }],
    ['on change after 10s', { kind: 'on-change', quietMs: 10_000 }],
  ])('%s', (text, wanted) => {
    expect(parseCadence(text)).toMatchObject(wanted);
  });

  test.each([
    ['', 'is not a cadence'],
    ['sometimes', 'is not a cadence'],
    ['every 6 hourz', 'not a length of time'],
    ['every 5 seconds', 'every minute'],
    ['daily at 25:00', 'not a cron expression'],
    ['weekly on funday at 03:00', 'not a day of the week'],
    ['61 * * * *', 'not a cron expression'],
    ['0 0 31 2 *', 'not a cron expression'],
    ['* * *', 'is not a cadence'],
    ['0 0 * * * Mars/Olympus', 'not a time zone'],
    ['on change after lunch', 'not a length of time'],
  ])('%s is refused with a reason', (text, reason) => {
    expect(parseCadence(text)).toContain(reason);
  });
});

describe('due moments', () => {
  test('intervals count from midnight UTC', () => {
    const six = cadence('every 6 hours');
    expect(iso(nextRunAfter(six, at('2026-11-23T05:10:00Z')))).toBe('2026-11-23T06:00:00.000Z');
    expect(iso(nextRunAfter(six, at('2026-11-23T06:00:00Z')))).toBe('2026-11-23T12:00:00.000Z');
    expect(iso(previousDue(six, at('2026-11-23T06:00:00Z')))).toBe('2026-11-23T06:00:00.000Z');
    expect(iso(previousDue(six, at('2026-11-23T05:59:59Z')))).toBe('2026-11-23T00:00:00.000Z');
  });

  test('clock times follow their time zone through the change of the clock', () => {
    const berlin = cadence('daily at 06:00 Europe/Berlin');
    expect(iso(nextRunAfter(berlin, at('2026-10-24T12:00:00Z')))).toBe('2026-10-25T05:00:00.000Z');
    expect(iso(nextRunAfter(berlin, at('2026-10-23T12:00:00Z')))).toBe('2026-10-24T04:00:00.000Z');
  });

  test.each(['2027-03-27T12:00:00Z', '2027-03-28T00:59:00Z', '2027-03-28T01:10:00Z'])(
    'an hour that summer time takes away is neither skipped nor doubled (seen from %s)',
    (now) => {
      const berlin = cadence('daily at 02:30 Europe/Berlin');
      expect(iso(nextRunAfter(berlin, at(now)))).toBe('2027-03-28T01:30:00.000Z');
      expect(iso(previousDue(berlin, at(now)))).toBe('2027-03-27T01:30:00.000Z');
      expect(iso(previousDue(berlin, at('2027-03-28T12:00:00Z')))).toBe('2027-03-28T01:30:00.000Z');
    },
  );

  test('a change has no due moment', () => {
    expect(nextRunAfter(cadence('on change'), 0)).toBeUndefined();
    expect(previousDue(cadence('on change'), 0)).toBeUndefined();
  });

  test('jitter is the same for a name, differs between names, and is bounded', () => {
    const daily = cadence('daily');
    const shifts = Array.from({ length: 50 }, (_, i) => jitterMs(daily, `resource-${i}`));
    expect(shifts).toEqual(Array.from({ length: 50 }, (_, i) => jitterMs(daily, `resource-${i}`)));
    expect(new Set(shifts).size).toBeGreaterThan(45);
    expect(Math.max(...shifts)).toBeLessThan(5 * 60_000);
    expect(jitterMs(cadence('daily at 02:30'), 'orders')).toBeLessThan(30_000);
    expect(jitterMs(cadence('every minute'), 'orders')).toBeLessThan(3000);
  });

  test('next and previous agree at every moment, whatever the cadence and name', () => {
    const texts = [
      'every 6 hours',
      'every 7 minutes',
      'daily',
      '*/10 8-18 * * 1-5 America/New_York',
      'daily at 02:30 Europe/Berlin',
    ];
    fc.assert(
      fc.property(
        fc.constantFrom(...texts),
        fc.constantFrom('', 'orders', 'uploads'),
        fc.integer({ min: at('2026-01-01T00:00:00Z'), max: at('2028-01-01T00:00:00Z') }),
        (text, name, now) => {
          const when = cadence(text);
          const next = nextRunAfter(when, now, name) ?? Number.NaN;
          const previous = previousDue(when, now, name) ?? Number.NaN;
          expect(next).toBeGreaterThan(now);
          expect(previous).toBeLessThanOrEqual(now);
          expect(nextRunAfter(when, previous, name)).toBe(next);
          expect(previousDue(when, next, name)).toBe(next);
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe('the worst interval, which the RPO is held against', () => {
  test.each([
    ['every 6 hours', 6 * hour],
    ['0 */6 * * *', 6 * hour],
    ['0 0,1,2 * * *', 22 * hour],
    ['*/10 * * * *', 600_000],
    ['0 9-17 * * 1-5', 2 * day + 16 * hour],
    ['0 0 1 * *', 31 * day],
    ['0 0 29 2 *', 4 * 365 * day + day],
    ['weekly on sunday at 03:00', 7 * day],
    ['on change after 10s', 10_000],
  ])('%s', (text, wanted) => {
    expect(worstIntervalMs(cadence(text))).toBe(wanted);
  });
});
