const unitMs: Record<string, number> = {
  ms: 1,
  millisecond: 1,
  s: 1000,
  sec: 1000,
  second: 1000,
  m: 60_000,
  min: 60_000,
  minute: 60_000,
  h: 3_600_000,
  hour: 3_600_000,
  d: 86_400_000,
  day: 86_400_000,
  w: 604_800_000,
  week: 604_800_000,
  // A retention month or year is a length of time, not a date: 30 and 365 days.
  month: 30 * 86_400_000,
  y: 365 * 86_400_000,
  year: 365 * 86_400_000,
};

/** Milliseconds of a length of time as people write it (`5s`, `15 minutes`, `1h 30m`, `1 year`); undefined if it is none. */
export function parseDuration(text: string): number | undefined {
  const pattern = /(\d+(?:\.\d+)?)\s*([a-z]+)/gy;
  const trimmed = text.trim().toLowerCase();
  let total = 0;
  let at = 0;
  while (at < trimmed.length) {
    pattern.lastIndex = at;
    const match = pattern.exec(trimmed);
    if (!match) return undefined;
    const unit = match[2] ?? '';
    const factor = unitMs[unit] ?? unitMs[unit.replace(/s$/, '')];
    if (factor === undefined) return undefined;
    total += Number(match[1]) * factor;
    at = pattern.lastIndex;
    while (trimmed[at] === ' ' || trimmed[at] === ',') at++;
  }
  return trimmed === '' ? undefined : total;
}

/** A length of time for people: `320 ms`, `4.2 s`, `4 min 10 s`, `3 h 5 min`, `12 d 4 h`. */
export function formatDuration(ms: number): string {
  if (ms < 0) return `-${formatDuration(-ms)}`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0).replace(/\.0$/, '')} s`;
  const two = (big: number, bigUnit: string, small: number, smallUnit: string) =>
    small === 0 ? `${big} ${bigUnit}` : `${big} ${bigUnit} ${small} ${smallUnit}`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return two(Math.floor(seconds / 60), 'min', seconds % 60, 's');
  const minutes = Math.round(ms / 60_000);
  if (minutes < 2880) return two(Math.floor(minutes / 60), 'h', minutes % 60, 'min');
  const hours = Math.round(ms / 3_600_000);
  return two(Math.floor(hours / 24), 'd', hours % 24, 'h');
}

/** A number of bytes for people, in powers of 1024: `512 B`, `1.5 MiB`, `2.3 GiB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

const byteUnits: Record<string, number> = {
  b: 1,
  k: 1024,
  kb: 1024,
  kib: 1024,
  m: 1024 ** 2,
  mb: 1024 ** 2,
  mib: 1024 ** 2,
  g: 1024 ** 3,
  gb: 1024 ** 3,
  gib: 1024 ** 3,
};

/** Bytes of a size as people write it (`512 KiB`, `16MiB`, `1 GB`), always in powers of 1024; undefined if it is none. */
export function parseBytes(text: string): number | undefined {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*$/i.exec(text);
  const factor = byteUnits[match?.[2]?.toLowerCase() ?? ''];
  return match && factor !== undefined ? Math.round(Number(match[1]) * factor) : undefined;
}
