/** Spans of the calendar of which one backup each is kept. */
export const periods = ['daily', 'weekly', 'monthly', 'yearly'] as const;
export type Period = (typeof periods)[number];

/** How many of the newest days, weeks, months and years that have a good backup keep one, and whose calendar counts. */
export interface PeriodRules extends Readonly<Partial<Record<Period, number | undefined>>> {
  /** IANA name: where a day begins. */
  readonly timeZone: string;
}

const DAY_MS = 86_400_000;

/**
 * Names the period that a moment (milliseconds since 1970) lies in, in a time zone: equal names, equal period. Weeks are those of
 * ISO 8601, Monday to Sunday.
 */
export function periodOf(period: Period, atMs: number, timeZone: string): string {
  const { year, month, day } = dateIn(timeZone, atMs);
  switch (period) {
    case 'daily':
      return `${year}-${month}-${day}`;
    case 'weekly': {
      const number = Math.floor(Date.UTC(year, month - 1, day) / DAY_MS);
      // The first of January 1970 was a Thursday: day 3 of a week that begins with 0 on Monday.
      return `week of day ${number - ((((number + 3) % 7) + 7) % 7)}`;
    }
    case 'monthly':
      return `${year}-${month}`;
    case 'yearly':
      return `${year}`;
  }
}

interface CalendarDate {
  readonly year: number;
  /** 1 to 12. */
  readonly month: number;
  readonly day: number;
}

const formats = new Map<string, Intl.DateTimeFormat>();

function dateIn(timeZone: string, atMs: number): CalendarDate {
  if (timeZone === 'UTC') {
    const at = new Date(atMs);
    return { year: at.getUTCFullYear(), month: at.getUTCMonth() + 1, day: at.getUTCDate() };
  }
  let format = formats.get(timeZone);
  if (!format) {
    format = new Intl.DateTimeFormat('en-US-u-ca-gregory-nu-latn', {
      timeZone,
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
    });
    formats.set(timeZone, format);
  }
  const parts = new Map(format.formatToParts(atMs).map(({ type, value }) => [type, Number(value)]));
  return { year: parts.get('year') ?? 0, month: parts.get('month') ?? 0, day: parts.get('day') ?? 0 };
}
