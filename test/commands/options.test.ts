import { describe, expect, test } from 'vitest';
import { DrError } from '../../src/base/errors.ts';
import { parseAt } from '../../src/commands/options.ts';

const now = Date.parse('2026-11-23T06:00:00Z');
const time = (text: string) => ({ kind: 'time', atMs: Date.parse(text) });

describe('--at', () => {
  test.each([
    ['latest', { kind: 'latest' }],
    ['0/16B3748', { kind: 'lsn', lsn: 0x16b3748n }],
    ['2026-11-23T05:00:00Z', time('2026-11-23T05:00:00Z')],
    ['2026-11-23 05:00 UTC', time('2026-11-23T05:00:00Z')],
    ['2026-11-23 06:30:15.250+02', time('2026-11-23T04:30:15.250Z')],
    ['2026-11-23T06:30:00+0200', time('2026-11-23T04:30:00Z')],
    ['10 minutes ago', time('2026-11-23T05:50:00Z')],
    ['1h 30m ago', time('2026-11-23T04:30:00Z')],
  ])('%s', (text, wanted) => {
    expect(parseAt(text, now)).toEqual(wanted);
  });

  test.each([
    ['2026-11-23T05:00:00', 'does not say its time zone'],
    ['2026-11-24T05:00:00Z', 'lies in the future'],
    ['2026-02-31T05:00:00Z', 'is no point in time'],
    ['2026-11-23T25:00:00Z', 'is no point in time'],
    ['yesterday', 'is no point in time'],
    ['23.11.2026', 'is no point in time'],
    ['', 'is no point in time'],
  ])('%j is refused', (text, reason) => {
    expect(() => parseAt(text, now)).toThrow(reason);
    try {
      parseAt(text, now);
    } catch (error) {
      expect(error).toBeInstanceOf(DrError);
      expect(error).toMatchObject({ kind: 'usage', next: expect.any(String) });
    }
  });
});
