import type { Extent } from './index-format.ts';

// The extents of an index line, written and read as bytes: a relation file of 1 GiB whose pages changed here and there has a hundred
// thousand of them, and JSON.stringify and JSON.parse would make as many arrays and texts of them again.

/** Room that is asked for at once, bytes; an extent takes up to ROOM_EACH. */
const FIRST_ROOM = 64 * 1024;
const ROOM_EACH = 9 * 17 + 48;

const [comma, open, close, quote, zero, padding] = [44, 91, 93, 34, 48, 61];

/** `[[…],[…]]` as JSON has it, without spaces. */
export function writeExtents(extents: readonly Extent[]): Buffer {
  let bytes = Buffer.allocUnsafe(Math.min(FIRST_ROOM, extents.length * ROOM_EACH + 2));
  let at = 0;
  // Slices of one run share its digest: its text is made once.
  let digest: Buffer | undefined;
  let text = '';
  const number = (value: number) => {
    let end = at + 1;
    for (let left = value; left >= 10; left = Math.floor(left / 10)) end++;
    at = end;
    let left = value;
    do {
      bytes[--end] = zero + (left % 10);
      left = Math.floor(left / 10);
    } while (left > 0);
    bytes[at++] = comma;
  };
  bytes[at++] = open;
  for (const x of extents) {
    if (bytes.length - at < ROOM_EACH + 2) bytes = Buffer.concat([bytes.subarray(0, at)], 2 * bytes.length + ROOM_EACH);
    if (x.digest !== digest) text = `"${x.digest.toString('base64')}"`;
    digest = x.digest;
    bytes[at++] = open;
    for (const value of [x.position, x.length, x.part, x.frameOffset, x.frameLength, x.counter, x.rawOffset])
      number(value);
    at += bytes.write(text, at, 'latin1');
    if (x.skip !== 0 || x.length !== x.runLength) {
      bytes[at++] = comma;
      number(x.skip);
      number(x.runLength);
      at--;
    }
    bytes[at++] = close;
    bytes[at++] = comma;
  }
  if (extents.length > 0) at--;
  bytes[at++] = close;
  return bytes.subarray(0, at);
}

/**
 * Reads what `writeExtents` writes, which must fill `bytes` from `from` to `to`. Undefined when it is anything else: it is then for JSON.parse
 * to say what.
 */
export function readExtents(bytes: Buffer, from: number, to: number): Extent[] | undefined {
  const extents: Extent[] = [];
  let at = from;
  let digest = Buffer.alloc(0);
  let digestAt = 0;
  let digestEnd = 0;
  let failed = false;
  const expect = (byte: number) => {
    failed ||= bytes[at++] !== byte;
  };
  const number = () => {
    const first = at;
    let value = 0;
    for (let digit = (bytes[at] ?? 0) - zero; digit >= 0 && digit <= 9; digit = (bytes[at] ?? 0) - zero) {
      value = value * 10 + digit;
      at++;
    }
    failed ||= at === first || at - first > 15 || (at - first > 1 && bytes[first] === zero);
    return value;
  };
  const readDigest = () => {
    expect(quote);
    const end = bytes.indexOf(quote, at);
    failed ||= end < 0 || end > to;
    if (failed) return;
    const isLast = digestEnd > 0 && bytes.compare(bytes, digestAt, digestEnd, at, end) === 0;
    if (!isLast) {
      digest = Buffer.from(bytes.toString('latin1', at, end), 'base64');
      // Anything but the one way to write 32 bytes is left to others.
      failed ||= digest.length !== 32 || end - at !== 44 || bytes[end - 1] !== padding;
      [digestAt, digestEnd] = [at, end];
    }
    at = end + 1;
  };
  const next = () => {
    const value = number();
    expect(comma);
    return value;
  };
  expect(open);
  while (!failed && at < to) {
    expect(open);
    const position = next();
    const length = next();
    const part = next();
    const frameOffset = next();
    const frameLength = next();
    const counter = next();
    const rawOffset = next();
    readDigest();
    let [skip, runLength] = [0, length];
    if (bytes[at] === comma) {
      at++;
      skip = next();
      runLength = number();
    }
    expect(close);
    if (failed) return undefined;
    extents.push({ position, length, part, frameOffset, frameLength, counter, rawOffset, digest, skip, runLength });
    if (bytes[at] === close) return at + 1 === to ? extents : undefined;
    expect(comma);
  }
  return undefined;
}
