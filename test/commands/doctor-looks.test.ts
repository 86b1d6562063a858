import { describe, expect, test } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { clockFinding, good } from '../../src/base/finding.ts';
import { openLooks } from '../../src/commands/doctor-looks.ts';
import { renderDoctor } from '../../src/report/doctor.ts';

describe('a look', () => {
  const context = (signal: AbortSignal) => ({ signal, clock: systemClock });

  test('that never ends is given up, told to stop, and is a finding', async () => {
    let told: AbortSignal | undefined;
    const { look } = openLooks(context(new AbortController().signal), 20);
    const area = await look('a dead mount', async (signal) => {
      told = signal;
      return await new Promise(() => {});
    });
    expect(area.findings).toMatchObject([{ verdict: 'fail', what: 'no answer within 20 ms' }]);
    expect(told?.aborted).toBe(true);
  });

  test('that throws is a finding; a stop of the command is none', async () => {
    const stop = new AbortController();
    const { look } = openLooks(context(stop.signal));
    expect((await look('x', async () => Promise.reject(new Error('broken')))).findings).toMatchObject([
      { what: 'broken' },
    ]);
    const waiting = look('x', async () => await new Promise(() => {}));
    stop.abort();
    await expect(waiting).rejects.toThrow();
  });
});

describe('a clock', () => {
  test.each([
    [0, 'ok'],
    [5400, 'ok'],
    [7000, 'warn'],
    [-5900, 'ok'],
    [-7100, 'warn'],
    [62_000, 'fail'],
    [-62_000, 'fail'],
  ])('%i ms off, read within a second, in whole seconds: %s', (offMs, verdict) => {
    const [beforeMs, afterMs] = [1_000_000, 1_001_000];
    expect(clockFinding('it', { theirsMs: 1_000_500 + offMs, beforeMs, afterMs, grainMs: 1000 }).verdict).toBe(verdict);
  });
});

test('the text shows no control characters, and lines of a message stay lines', () => {
  const text = renderDoctor([{ name: 'here', findings: [good('a\n  - b\u001b[2J')] }]);
  expect(text).toBe('here\n  ok    a\n          - b\\x1b[2J\n\nAll is well: one check ok.');
});
