/** A position in the WAL: bytes since the beginning, as PostgreSQL's `pg_lsn`. */
export type Lsn = bigint;

/** Parses `16/B374D848`; undefined if it is not an LSN. */
export function parseLsn(text: string): Lsn | undefined {
  const match = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text.trim());
  if (!match) return undefined;
  return (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`);
}

/** PostgreSQL's notation: `16/B374D848`. */
export function formatLsn(lsn: Lsn): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`;
}

/** First LSN of the segment that contains `lsn`. */
export function segmentStart(lsn: Lsn, segmentBytes: number): Lsn {
  return lsn - (lsn % BigInt(segmentBytes));
}

/** The 24-digit name of the WAL file that contains `lsn` (`XLogFileName` in `xlog_internal.h`). */
export function segmentName(timeline: number, lsn: Lsn, segmentBytes: number): string {
  const number = lsn / BigInt(segmentBytes);
  const perId = 0x100000000n / BigInt(segmentBytes);
  const hex = (value: bigint) => value.toString(16).toUpperCase().padStart(8, '0');
  return hex(BigInt(timeline)) + hex(number / perId) + hex(number % perId);
}

/** Timeline and first LSN of a WAL file name; undefined if it is none. */
export function parseSegmentName(name: string, segmentBytes: number): { timeline: number; start: Lsn } | undefined {
  if (!/^[0-9A-F]{24}$/.test(name)) return undefined;
  const perId = 0x100000000n / BigInt(segmentBytes);
  const number = BigInt(`0x${name.slice(8, 16)}`) * perId + BigInt(`0x${name.slice(16)}`);
  return { timeline: Number.parseInt(name.slice(0, 8), 16), start: number * BigInt(segmentBytes) };
}
