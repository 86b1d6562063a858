import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Period, periodOf } from '../../../src/backup/retention/periods.ts';

const same = (period: Period, a: string, b: string, zone = 'UTC') =>
  periodOf(period, Date.parse(a), zone) === periodOf(period, Date.parse(b), zone);

describe('periods of the calendar', () => {
  test('days, months and years begin at midnight of the time zone', () => {
    expect(same('daily', '2026-03-01T00:00:00Z', '2026-03-01T23:59:59.999Z')).toBe(true);
    expect(same('daily', '2026-03-01T23:59:59.999Z', '2026-03-02T00:00:00Z')).toBe(false);
    // Midnight in Berlin is 23:00 UTC in winter and 22:00 in summer.
    expect(same('daily', '2026-01-10T22:59:59Z', '2026-01-10T23:00:00Z', 'Europe/Berlin')).toBe(false);
    expect(same('daily', '2026-07-10T21:59:59Z', '2026-07-10T22:00:00Z', 'Europe/Berlin')).toBe(false);
    expect(same('daily', '2026-07-10T22:00:00Z', '2026-07-11T21:59:59Z', 'Europe/Berlin')).toBe(true);
    expect(same('monthly', '2026-02-28T23:59:59Z', '2026-03-01T00:00:00Z')).toBe(false);
    expect(same('monthly', '2026-02-01T00:00:00Z', '2026-02-28T23:59:59Z')).toBe(true);
    expect(same('yearly', '2026-12-31T23:30:00Z', '2027-01-01T00:30:00Z')).toBe(false);
    expect(same('yearly', '2026-12-31T23:30:00Z', '2027-01-01T00:30:00Z', 'Europe/Berlin')).toBe(true);
    expect(same('monthly', '2026-03-05T00:00:00Z', '2025-03-05T00:00:00Z')).toBe(false);
  });

  test('weeks go from Monday to Sunday, across years, as ISO 8601 has them', () => {
    // 2026-12-28 is a Monday; its week is the 53rd of 2026 and ends on 2027-01-03.
    expect(same('weekly', '2026-12-28T00:00:00Z', '2027-01-03T23:59:59Z')).toBe(true);
    expect(same('weekly', '2027-01-03T23:59:59Z', '2027-01-04T00:00:00Z')).toBe(false);
    expect(same('weekly', '2026-12-27T23:59:59Z', '2026-12-28T00:00:00Z')).toBe(false);
    expect(same('weekly', '1969-12-29T00:00:00Z', '1970-01-04T23:59:59Z')).toBe(true);
    expect(same('weekly', '1969-12-28T23:59:59Z', '1969-12-29T00:00:00Z')).toBe(false);
  });

  test('a week has seven days, a day lies in one month and one year, wherever the clocks change', () => {
    const zones = ['UTC', 'Europe/Berlin', 'America/St_Johns', 'Pacific/Apia', 'Asia/Kathmandu', 'Africa/Casablanca'];
    const day = 86_400_000;
    fc.assert(
      fc.property(
        fc.constantFrom(...zones),
        fc.integer({ min: 0, max: 40_000 }),
        fc.integer({ min: 0, max: day - 1 }),
        (zone, days, ms) => {
          const at = days * day + ms;
          const week = periodOf('weekly', at, zone);
          const days_ = new Set<string>();
          for (let hours = -8 * 24; hours <= 8 * 24; hours++) {
            const moment = at + hours * 3_600_000;
            if (periodOf('weekly', moment, zone) === week) days_.add(periodOf('daily', moment, zone));
          }
          // Samoa had no 30 December 2011.
          expect(days_.size).toBe(zone === 'Pacific/Apia' && days_.has('2011-12-29') ? 6 : 7);
          const daily = periodOf('daily', at, zone);
          expect(daily.startsWith(`${periodOf('monthly', at, zone)}-`)).toBe(true);
          expect(daily.startsWith(`${periodOf('yearly', at, zone)}-`)).toBe(true);
        },
      ),
      { numRuns: 150 },
    );
  });
});
